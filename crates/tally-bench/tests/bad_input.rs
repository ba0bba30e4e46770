//! What the benchmark refuses, and says so: another machine, cells that are not there, figures without sense, and a machine on
//! which something is missing.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program; nothing of what it is given exists, so it must refuse before it starts anything.
fn run(arguments: &[&str]) -> (bool, String) {
    let nowhere = Path::new("/nonexistent");
    let output = Command::new(env!("CARGO_BIN_EXE_tally-bench"))
        .args(["run", "--no-kafka", "--tally"])
        .arg(nowhere.join("tally"))
        .arg("--kafka")
        .arg(nowhere.join("kafka"))
        .arg("--directory")
        .arg(nowhere.join("data"))
        .args(arguments)
        .output();
    said(&output.expect("the program can be run"))
}

fn said(output: &Output) -> (bool, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

#[track_caller]
fn refuses(arguments: &[&str], words: &str) {
    let (is_success, text) = run(arguments);
    assert!(!is_success && text.contains(words), "{arguments:?}: {text}");
}

#[test]
fn another_machine_is_refused_unless_told() {
    // 192.0.2.0/24 is for documentation: nobody is there (RFC 5737).
    refuses(
        &["--against", "192.0.2.1:9092"],
        "192.0.2.1:9092 is another machine",
    );
    refuses(&["--against", "nonsense"], "the address nonsense");
    let (_, text) = run(&["--against", "192.0.2.1:9092", "--allow-remote"]);
    assert!(!text.contains("another machine"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    refuses(&["--cells", "no-such-cell"], "no cell has such a name");
    refuses(&["--rounds", "0"], "--rounds must be at least 1");
    for seconds in ["0", "-1", "NaN", "inf"] {
        refuses(&[&format!("--seconds={seconds}")], "--seconds must be");
    }
    refuses(&["--warm-gb=-1"], "--warm-gb must be");
}

/// Runs the script with these programs alone.
fn script(tools: &[&str], arguments: &[&str]) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    for tool in tools {
        let found = ["/usr/bin", "/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(tool));
        let found = found.into_iter().find(|path| path.exists());
        // What is missing here has to be there alone, not to work.
        let program = found.unwrap_or_else(|| "/bin/true".into());
        symlink(program, directory.path().join(tool)).expect("a link");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/bench");
    let output = Command::new("/usr/bin/env")
        .arg("bash")
        .arg(script)
        .args(arguments)
        .env("PATH", directory.path())
        .output();
    said(&output.expect("the script can be run"))
}

#[test]
fn the_script_says_what_is_missing() {
    let base = ["bash", "dirname", "uname"];
    let without_cargo = script(&base, &[]);
    assert_eq!(
        without_cargo,
        (false, "bench: cargo is not installed\n".to_owned())
    );
    let without_java = script(&["bash", "dirname", "uname", "cargo"], &[]);
    let words = "bench: java is not installed; --no-kafka measures without Apache Kafka\n";
    assert_eq!(without_java, (false, words.to_owned()));
    for (argument, words) in [
        (
            "--nonsense",
            "bench: unknown argument --nonsense (see --help)\n",
        ),
        ("--rounds", "bench: --rounds needs a value\n"),
    ] {
        assert_eq!(script(&base, &[argument]), (false, words.to_owned()));
    }
}
