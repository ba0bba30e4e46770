//! `tally explain` and `tally completion`: they ask nobody.

use std::process::Command;

use crate::{Came, PROGRAM, came};

#[track_caller]
fn alone(arguments: &[&str]) -> Came {
    let output = Command::new(PROGRAM).args(arguments).output();
    came(output.expect("tally can be run"))
}

#[test]
fn words_are_explained() {
    let fenced = alone(&["explain", "90"]);
    assert_eq!(fenced.code, 0, "{}", fenced.err);
    assert!(
        fenced.out.starts_with("PRODUCER_FENCED (90)  (error)\n"),
        "{}",
        fenced.out
    );
    assert!(fenced.out.contains("  To do: "), "{}", fenced.out);
    let both = alone(&["explain", "retention.ms", "W2101", "-o", "jsonl"]);
    let names: Vec<&str> = both
        .out
        .lines()
        .map(|line| line.split("\"name\":\"").nth(1).expect("a name"))
        .map(|rest| rest.split('"').next().expect("a word"))
        .collect();
    assert_eq!(names, ["retention.ms", "W2101 txn.timeout"]);
    assert!(
        both.out.contains("\"default\":\"604800000\"")
            || both.out.contains("\"taken from\":\"log.retention.ms"),
        "{}",
        both.out
    );
    let unknown = alone(&["explain", "retension.ms"]);
    assert_eq!(unknown.code, 2);
    assert_eq!(
        unknown.err,
        "tally: retension.ms: nothing is known by this name. Did you mean retention.ms?\n"
    );
    assert_eq!(alone(&["explain"]).code, 2);
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let came = alone(&["completion", shell]);
        assert_eq!(came.code, 0, "{}", came.err);
        for command in ["produce", "consume", "reset", "doctor", "completion"] {
            assert!(came.out.contains(command), "{command} for {shell}");
        }
    }
    assert_eq!(alone(&["completion", "cmd"]).code, 2);
}
