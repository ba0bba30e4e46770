//! The corpus of the fuzz targets, and changes of it, through their bodies.
//!
//! `TALLY_FUZZ_ROUNDS` says how many changes of each file are tried. An input that fails is kept, and named.

use std::fs;
use std::path::{Path, PathBuf};
use tally_testkit::fuzz::{TARGETS, Target};
use tally_testkit::seed::Seed;

/// Changes of each file in an ordinary run.
const ROUNDS: u64 = 40;
/// Inputs do not grow beyond this.
const INPUT_MAX: usize = 16 * 1024;

fn rounds() -> u64 {
    let asked = std::env::var("TALLY_FUZZ_ROUNDS").ok();
    asked.map_or(ROUNDS, |asked| asked.parse().expect("a number"))
}

/// The inputs that are kept for a target, by their names.
#[track_caller]
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let entries = fs::read_dir(folder.join(target)).expect("each target has a corpus");
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.expect("a plain name").to_owned();
            (name, fs::read(&path).expect("a file"))
        })
        .collect();
    files.sort();
    assert!(files.len() > 3, "{target}: {} files", files.len());
    files
}

/// Keeps an input whose test fails, and says where.
struct Kept<'a> {
    target: &'a str,
    origin: &'a str,
    input: &'a [u8],
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = format!("tally-fuzz-{}-{}", self.target, std::process::id());
            let path: PathBuf = std::env::temp_dir().join(name);
            let _lost = fs::write(&path, self.input).is_err();
            eprintln!("{}: {} fails: {}", self.target, self.origin, path.display());
        }
    }
}

#[track_caller]
fn try_one((target, body): Target, origin: &str, input: &[u8]) {
    let _kept = Kept {
        target,
        origin,
        input,
    };
    body(input);
}

/// One change of an input: bits turned, numbers of the dangerous kind, bytes lost, doubled or taken from another.
fn changed(seed: &mut Seed, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=seed.below(3) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let at = seed.index(bytes.len());
        match seed.below(6) {
            0 => bytes[at] ^= 1 << seed.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][seed.index(5)],
            2 => bytes.truncate(at),
            3 => {
                let upto = (at + 1 + seed.index(64)).min(bytes.len());
                let piece = bytes[at..upto].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let upto = (at + 1 + seed.index(64)).min(bytes.len());
                bytes[at..upto].fill(0);
            }
            _ => {
                let from = seed.index(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        bytes.truncate(INPUT_MAX);
    }
    bytes
}

fn check(target: Target) {
    let files = corpus(target.0);
    for (name, input) in &files {
        try_one(target, name, input);
    }
    for (number, (name, input)) in (1..).zip(&files) {
        let mut seed = Seed::new(number);
        for round in 0..rounds() {
            let other = &files[seed.index(files.len())].1;
            let input = changed(&mut seed, input, other);
            try_one(target, &format!("change {round} of {name}"), &input);
        }
    }
}

#[test]
fn batch_view() {
    check(TARGETS[0]);
}

#[test]
fn segment_recovery() {
    check(TARGETS[1]);
}

#[test]
fn index_files() {
    check(TARGETS[2]);
}

#[test]
fn request_decode() {
    check(TARGETS[3]);
}

#[test]
fn producer_ops() {
    check(TARGETS[4]);
}

#[test]
fn transaction_ops() {
    check(TARGETS[5]);
}

#[test]
fn group_ops() {
    check(TARGETS[6]);
}

#[test]
fn every_target_has_a_shell_and_the_shells_have_bodies() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("the shells' manifest");
    for (name, _) in TARGETS {
        let shell = folder.join("fuzz_targets").join(format!("{name}.rs"));
        let shell = fs::read_to_string(shell).expect("a shell");
        assert!(shell.contains(&format!("fuzz::{name}(")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
