//! The house is tidy: walls between the crates stand, every module says what it is for, and the rules that the documents
//! state have the tests that the documents name. Reads the sources as text, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

#[path = "tidy/catalogue.rs"]
mod catalogue;
#[path = "tidy/rules.rs"]
mod rules;

/// Lines of a source file at most.
const LINES_MAX: usize = 2000;

/// What each crate may depend on among our own (architecture.md): arrows point down only.
const WALLS: &[(&str, &[&str])] = &[
    ("tally-protocol", &[]),
    ("tally-producer-state", &["tally-protocol"]),
    ("tally-transactions", &["tally-protocol"]),
    ("tally-groups", &["tally-protocol"]),
    ("tally-storage", &["tally-protocol"]),
    (
        "tally-shard",
        &[
            "tally-protocol",
            "tally-producer-state",
            "tally-transactions",
            "tally-groups",
            "tally-storage",
        ],
    ),
    (
        "tally-broker",
        &[
            "tally-protocol",
            "tally-producer-state",
            "tally-transactions",
            "tally-groups",
            "tally-storage",
            "tally-shard",
        ],
    ),
    (
        "tally",
        &[
            "tally-broker",
            // The offline commands: bytes, what producers left in them, and the files they lie in.
            "tally-producer-state",
            "tally-protocol",
            "tally-storage",
        ],
    ),
    ("tally-bench", &["tally-protocol", "tally-testkit"]),
    (
        "tally-testkit",
        &[
            "tally-groups",
            "tally-producer-state",
            "tally-protocol",
            "tally-storage",
            "tally-transactions",
        ],
    ),
    (
        "tally-simulation",
        &[
            "tally-broker",
            "tally-protocol",
            "tally-storage",
            "tally-testkit",
        ],
    ),
];

/// Crates that must not see a runtime, a socket or a terminal.
const PURE: &[&str] = &[
    "tally-protocol",
    "tally-producer-state",
    "tally-transactions",
    "tally-groups",
    "tally-shard",
    "tally-storage",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies two folders below the root")
        .to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `folder` with this ending, build output left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The names in `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| {
            let name = line.split(['.', ' ', '=']).next()?;
            (!name.is_empty() && !name.starts_with('#')).then(|| name.to_owned())
        })
        .collect()
}

#[test]
fn the_walls_between_the_crates_stand() {
    let crates = root().join("crates");
    let walls: BTreeMap<&str, &[&str]> = WALLS.iter().copied().collect();
    for entry in fs::read_dir(&crates).expect("the crates are readable") {
        let name = entry.expect("the entry is readable").file_name();
        let name = name.to_str().expect("crates have plain names");
        let allowed = walls
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no row in WALLS"));
        let manifest = read(&crates.join(name).join("Cargo.toml"));
        for dependency in dependencies(&manifest) {
            let ours = dependency.starts_with("tally");
            assert!(
                !ours || allowed.contains(&dependency.as_str()),
                "{name} must not know {dependency}"
            );
            assert!(
                !(PURE.contains(&name)
                    && ["tokio", "clap", "anyhow"].contains(&dependency.as_str())),
                "{name} must not know {dependency}"
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_one_subject() {
    let root = root();
    for folder in ["crates", "integration-tests"] {
        for path in files(&root.join(folder), "rs") {
            let source = read(&path);
            assert!(
                source
                    .lines()
                    .next()
                    .is_some_and(|line| line.starts_with("//!")),
                "{} does not open with //!",
                path.display()
            );
            assert!(
                source.lines().count() <= LINES_MAX,
                "{} is longer than {LINES_MAX} lines",
                path.display()
            );
        }
    }
}

/// Whether the `tally` binary that cargo would build with these arguments can be made to die, fail or wait.
fn has_faults(arguments: &[&str]) -> bool {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = std::process::Command::new(cargo)
        .current_dir(root())
        .args(["tree", "--offline", "--locked", "--package", "tally"])
        .args([
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p} features {f}.",
        ])
        .args(arguments)
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo tree: {output:?}");
    let tree = String::from_utf8(output.stdout).expect("text");
    let storage = tree.lines().find(|line| line.starts_with("tally-storage"));
    storage
        .expect("it is in the tree")
        .ends_with("features faults.")
}

#[test]
fn a_release_has_no_faults() {
    assert!(!has_faults(&[]), "what scripts/main-job builds");
    assert!(has_faults(&["--features", "faults"]), "it would be seen");
}

/// How a test is looked for in the sources, for each name in backquotes that looks like one: `x012_what_holds`, or its
/// beginning alone, with the module it is in: `offsets::g83_…`.
fn tests_named_in(document: &str) -> BTreeSet<String> {
    document
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|word| {
            let name = word.rsplit("::").next().unwrap_or(word);
            let (name, end) = name
                .strip_suffix('…')
                .map_or((name, "("), |name| (name, ""));
            let rest = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
            let letters = name.len() - rest.len();
            let is_test = (1..=3).contains(&letters)
                && rest.starts_with(|c: char| c.is_ascii_digit())
                && rest.contains('_')
                && rest
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            is_test.then(|| format!("fn {name}{end}"))
        })
        .collect()
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    let root = root();
    let sources: String = files(&root.join("crates"), "rs")
        .iter()
        .map(|path| read(path))
        .collect();
    for document in ["docs/exactly-once.md", "docs/groups.md"] {
        let named = tests_named_in(&read(&root.join(document)));
        assert!(named.len() > 20, "{document} names tests: {}", named.len());
        for test in named {
            assert!(
                sources.contains(&test),
                "{document} names {test}…), which does not exist"
            );
        }
    }
}

/// The numbers of the catalogue of log, fetch and topics; those of access, SASL and TLS (94 to 96, 98) wait for what they
/// test.
const LOG_TESTS: [RangeInclusive<u32>; 10] = [
    1..=16,
    20..=30,
    35..=41,
    45..=47,
    50..=52,
    55..=64,
    70..=76,
    80..=88,
    90..=93,
    97..=97,
];

/// `l16_what_holds`, or `cr21_l39_what_holds`.
#[test]
fn every_number_of_the_logs_catalogue_has_its_test() {
    let sources = files(&root().join("crates"), "rs");
    let mut found = BTreeSet::new();
    for path in &sources {
        for name in read(path).split("fn ").skip(1) {
            let name = name.split('(').next().unwrap_or(name);
            let words = name.split('_').filter_map(|word| word.strip_prefix('l'));
            found.extend(words.filter_map(|number| number.parse::<u32>().ok()));
        }
    }
    let missing: Vec<u32> = LOG_TESTS
        .into_iter()
        .flatten()
        .filter(|number| !found.contains(number))
        .collect();
    assert!(missing.is_empty(), "no test has these numbers: {missing:?}");
}

/// Rows of the tables of rules: `| P-33, P-34 | … | tests |`.
fn rule_rows(document: &str) -> Vec<(&str, &str)> {
    document
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let rule = *cells.first()?;
            let is_rule = rule.split_once('-').is_some_and(|(letters, rest)| {
                !letters.is_empty()
                    && letters.chars().all(|c| c.is_ascii_uppercase())
                    && rest.starts_with(|c: char| c.is_ascii_digit())
            });
            (is_rule && cells.len() >= 3).then(|| (rule, *cells.last().unwrap_or(&"")))
        })
        .collect()
}

#[test]
fn every_row_of_a_rule_names_its_test() {
    let root = root();
    let sources: String = files(&root.join("crates"), "rs")
        .iter()
        .map(|path| read(path))
        .collect();
    for name in [
        "docs/exactly-once.md",
        "docs/log-and-fetch.md",
        "docs/groups.md",
    ] {
        let document = read(&root.join(name));
        let rows = rule_rows(&document);
        assert!(rows.len() > 50, "{name}: the tables are found");
        for (rule, tests) in &rows {
            let mut named = 0;
            for word in tests.split('`').skip(1).step_by(2) {
                let Some(pattern) = function_named(word) else {
                    continue;
                };
                assert!(sources.contains(&pattern), "{rule}: no {pattern}…)");
                named += 1;
            }
            assert!(named > 0, "{rule} names no test: {tests}");
        }
    }
}

/// How a function of that name is looked for in the sources; its beginning may be all that is given.
fn function_named(word: &str) -> Option<String> {
    let name = word.rsplit("::").next().unwrap_or(word);
    let (name, end) = name
        .strip_suffix('…')
        .map_or((name, "("), |name| (name, ""));
    let is_name = name.contains('_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_name.then(|| format!("fn {name}{end}"))
}

/// `G47` for each part of a test's name that says so: `x220_g47_what_holds`.
fn group_numbers(test: &str) -> BTreeSet<String> {
    let is_number = |part: &&str| {
        part.strip_prefix('g')
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))
    };
    let parts = test.split('_').filter(is_number);
    parts.map(str::to_uppercase).collect()
}

/// The catalogue of `docs/groups.md` and the tests that carry its numbers name each other.
#[test]
fn every_number_of_the_catalogue_of_groups_has_its_test() {
    let root = root();
    let document = read(&root.join("docs/groups.md"));
    let rows: BTreeMap<&str, &str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| G")?.strip_suffix(" |"))
        .filter_map(|row| row.split_once(" | "))
        .filter(|(number, _)| number.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert!(rows.len() >= 91, "the catalogue is found: {}", rows.len());
    let mut listed = BTreeSet::new();
    for (number, tests) in rows {
        let number = format!("G{number}");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(
            !names.is_empty() || tests.starts_with("none: "),
            "{number} names no test, nor says why it has none"
        );
        for name in names {
            assert!(group_numbers(name).contains(&number), "{number}: {name}");
            listed.insert(name.to_owned());
        }
    }
    let mut found = BTreeSet::new();
    for path in files(&root.join("crates"), "rs") {
        for line in read(&path).lines() {
            let name = line.trim_start().strip_prefix("fn ");
            if let Some((name, _)) = name.and_then(|name| name.split_once('('))
                && !group_numbers(name).is_empty()
            {
                found.insert(name.to_owned());
            }
        }
    }
    assert_eq!(listed, found, "what the catalogue lists, and what there is");
}
