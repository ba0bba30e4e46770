//! The rules by their numbers: each has its row, and so its test, in `docs/exactly-once.md`, `docs/log-and-fetch.md` or
//! `docs/groups.md`; the few that no test can look at are said there in words.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::{read, root, rule_rows};

/// All there are, counted by hand.
const EXACTLY_ONCE: &[(&str, RangeInclusive<u16>)] = &[
    ("P", 1..=67),
    ("I", 1..=25),
    ("S", 1..=15),
    ("A", 1..=9),
    ("V", 1..=11),
    ("E", 1..=8),
    ("L", 1..=6),
    ("T", 1..=1),
    ("M", 1..=15),
    ("F", 1..=12),
    ("C", 1..=10),
    ("O", 1..=16),
    ("K", 1..=2),
    ("R", 1..=19),
    ("CR", 1..=29),
    ("D", 1..=14),
    ("B", 1..=27),
];

/// Those of the log and all that reads it. What is missing between 145 and 150 and so on was never given; 163, 164 and 170 to
/// 172 are of quotas and access that are not there.
const LOG_AND_FETCH: &[(&str, RangeInclusive<u16>)] = &[
    ("LR", 1..=1),
    ("LR", 10..=11),
    ("LR", 20..=26),
    ("LR", 30..=32),
    ("LR", 35..=35),
    ("LR", 40..=43),
    ("LR", 45..=46),
    ("LR", 50..=52),
    ("LR", 55..=57),
    ("LR", 60..=65),
    ("LR", 70..=79),
    ("LR", 80..=85),
    ("LR", 90..=93),
    ("LR", 100..=113),
    ("LR", 120..=128),
    ("LR", 130..=138),
    ("LR", 140..=142),
    ("LR", 145..=145),
    ("LR", 150..=158),
    ("LR", 160..=162),
    ("LR", 165..=166),
];

/// Those of groups.
const GROUPS: &[(&str, RangeInclusive<u16>)] = &[
    ("GR", 1..=5),
    ("GR", 10..=12),
    ("GR", 20..=27),
    ("GR", 30..=42),
    ("GR", 50..=55),
    ("GR", 60..=77),
    ("GR", 80..=87),
    ("GR", 90..=93),
    ("GR", 100..=104),
    ("GR", 110..=111),
    ("GR", 120..=124),
    ("GR", 130..=134),
];

/// How records are gathered shows in no answer.
const GROUPS_IN_WORDS: [(&str, &str); 1] = [("GR-131", "GR-131 says that waiting records")];

/// A freedom that is not used, and a promise that is not made: said in these words.
const IN_WORDS: [(&str, &str); 2] = [
    ("V-8", "V-8 allows the coordinator"),
    ("B-27", "(B-27): transactions of different producers"),
];

/// `P-40` and `P-44` to `P-47` of a first cell `P-40, P-44 to P-47: and so on`.
fn numbers(cell: &str) -> BTreeSet<(String, u16)> {
    let mut found: BTreeSet<(String, u16)> = BTreeSet::new();
    let mut reaches = false;
    let mut last: Option<(String, u16)> = None;
    for word in cell.split([' ', ',', ':']).filter(|word| !word.is_empty()) {
        if word == "to" {
            reaches = true;
            continue;
        }
        let number = word
            .split_once('-')
            .filter(|(letters, _)| !letters.is_empty())
            .and_then(|(letters, number)| Some((letters.to_owned(), number.parse::<u16>().ok()?)));
        if let (true, Some((letters, from)), Some((_, to))) = (reaches, &last, &number) {
            found.extend((*from..=*to).map(|number| (letters.clone(), number)));
        }
        found.extend(number.clone());
        (reaches, last) = (false, number);
    }
    found
}

#[test]
fn ranges_of_numbers_are_read() {
    let found = |cell| -> Vec<String> {
        let numbers = numbers(cell).into_iter();
        numbers.map(|(l, n)| format!("{l}-{n}")).collect()
    };
    assert_eq!(
        found("P-40, P-44 to P-46"),
        ["P-40", "P-44", "P-45", "P-46"]
    );
    assert_eq!(
        found("CR-2, CR-24: written, not answered"),
        ["CR-2", "CR-24"]
    );
    assert_eq!(found("after a kill -9 to"), Vec::<String>::new());
}

#[test]
fn every_rule_has_its_row() {
    check("docs/exactly-once.md", EXACTLY_ONCE, &IN_WORDS);
    check("docs/log-and-fetch.md", LOG_AND_FETCH, &[]);
    check("docs/groups.md", GROUPS, &GROUPS_IN_WORDS);
}

#[track_caller]
fn check(name: &str, rules: &[(&str, RangeInclusive<u16>)], in_words: &[(&str, &str)]) {
    let document = read(&root().join(name));
    let mut rows = BTreeSet::new();
    for (rule, _) in rule_rows(&document) {
        rows.extend(numbers(rule));
    }
    for (rule, words) in in_words {
        assert!(document.contains(words), "{rule} is said nowhere");
        rows.extend(numbers(rule));
    }
    let all: BTreeSet<(String, u16)> = rules
        .iter()
        .flat_map(|(letters, range)| range.clone().map(|number| ((*letters).to_owned(), number)))
        .collect();
    let missing: Vec<_> = all.difference(&rows).collect();
    assert!(missing.is_empty(), "{name} has no row of {missing:?}");
    let unknown: Vec<_> = rows
        .difference(&all)
        .filter(|(letters, _)| rules.iter().any(|(known, _)| known == letters))
        .collect();
    assert!(
        unknown.is_empty(),
        "{name} has rows of no rule: {unknown:?}"
    );
}
