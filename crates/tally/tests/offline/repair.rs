//! `tally verify log --repair` over the damage matrix: afterwards a check finds nothing, a broker opens every partition, and what is not
//! in the log any more is kept beside it.

use crate::damage::{Kind, Matrix, read};
use crate::{PROGRAM, tally};
use bytes::Bytes;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Output;
use tally_protocol::BatchView;
use tally_testkit::broker::offsets_of_files;
use tally_testkit::client::Client;
use tally_testkit::offline::{Served, files, path, rows, text};

/// Whether a batch is one that takes the offsets of others that are lost.
fn is_empty(batch: &Bytes) -> bool {
    let view = BatchView::parse(batch).expect("a batch");
    view.check_crc().expect("a good one");
    view.header().records_count == 0 && !view.header().has_producer()
}

/// All bytes that a repair has kept of logs.
fn kept(data: &Path) -> Vec<Vec<u8>> {
    let all = files(data).into_iter();
    let kept = all.filter(|(name, _)| name.starts_with("repaired-1"));
    kept.map(|(_, bytes)| bytes).collect()
}

fn holds(kept: &[Vec<u8>], batch: &[u8]) -> bool {
    // A base offset may be what was damaged.
    let batch = &batch[8..];
    let in_one = |bytes: &Vec<u8>| bytes.windows(batch.len()).any(|window| window == batch);
    kept.iter().any(in_one)
}

/// What no file tells where the run before was killed: the log's start, and how a transaction ended whose marker is gone.
fn may_be_left(kind: Kind, is_clean: bool) -> bool {
    matches!(kind, Kind::LogStart | Kind::LastLog) && !is_clean
}

fn check(is_clean: bool, durability: &'static str) {
    let matrix = Matrix::new(is_clean, durability);
    let before = files(&matrix.data);
    let asked = ["verify", "log", path(&matrix.data), "-o", "jsonl"];
    let dry = tally(&[&asked[..], &["--repair", "--dry-run"]].concat());
    assert_eq!(dry.status.code(), Some(1));
    assert!(rows(&text(&dry), "repair").len() >= matrix.cases.len() / 2);
    assert!(files(&matrix.data) == before, "a dry run changes nothing");

    let repaired = tally(&[&asked[..], &["--repair"]].concat());
    let told = text(&repaired);
    let again = tally(&[&asked[..], &["--deep"]].concat());
    let found = text(&again);
    let mut wrong = String::new();
    let is_excused = |problem: &str| {
        let mut left = matrix
            .cases
            .iter()
            .filter(|(kind, ..)| may_be_left(*kind, is_clean));
        left.any(|(kind, _, file)| {
            let file = file.strip_prefix(&matrix.data).expect("below");
            let partition = path(file.parent().expect("the partition's"));
            match kind {
                Kind::LogStart => problem.contains(path(file)),
                _ => {
                    problem.contains(&format!("\"file\":\"{partition}\""))
                        && problem.contains("hanging")
                }
            }
        })
    };
    let left = rows(&found, "problem");
    for problem in left.iter().filter(|problem| !is_excused(problem)) {
        let of = matrix.cases.iter().find(|(_, _, file)| {
            let partition = file.parent().expect("the partition's");
            let partition = partition.strip_prefix(&matrix.data).expect("below");
            problem.contains(&format!("\"file\":\"{}/", path(partition)))
        });
        writeln!(
            wrong,
            "{:?} {problem}",
            of.map(|(kind, damage, _)| (kind, damage))
        )
        .expect("a text");
    }
    assert_eq!(wrong, "", "{told}");
    let code = i32::from(!left.is_empty());
    assert_eq!(repaired.status.code(), Some(code), "{told}");
    assert_eq!(again.status.code(), Some(code));

    let kept = kept(&matrix.data);
    let served = Served::start(PROGRAM, &matrix.data, durability, &[]).expect("it starts");
    check_reads(&matrix, is_clean, &served, &kept);
    assert!(served.stop());
    let after = tally(&[&asked[..], &["--deep"]].concat());
    if is_clean {
        let after_text = text(&after);
        assert_eq!(rows(&after_text, "problem"), Vec::<&str>::new(), "{told}");
    }
}

fn check_reads(matrix: &Matrix, is_clean: bool, served: &Served, kept: &[Vec<u8>]) {
    let mut client = Client::connect(&served.address);
    let mut wrong = String::new();
    let each = matrix.cases.iter().zip(&matrix.batches).zip(&matrix.starts);
    for (index, (((kind, damage, file), all), start)) in (0..).zip(each) {
        let partition = file.parent().expect("the partition's");
        // A first segment that is gone takes the log's beginning with it.
        let first = offsets_of_files(partition, "log")[0];
        let (batches, error) = read(&mut client, index, first.max(*start));
        if *kind == Kind::LogStart && !is_clean && error == 56 {
            continue;
        }
        let missing: Vec<&Bytes> = all
            .iter()
            .filter(|batch| !batches.contains(batch))
            .collect();
        let foreign = batches
            .iter()
            .filter(|batch| !all.contains(batch) && !is_empty(batch));
        // One batch is damaged itself, and all of a file that is gone, half or whole, or overwritten.
        let lost = missing.iter().filter(|batch| !holds(kept, batch)).count();
        let lost_most = if kind.is_log() { damage.loses() } else { 0 };
        let right =
            error == 0 && foreign.count() == 0 && lost <= lost_most && missing.len() <= lost_most;
        if !right {
            let count = (missing.len(), lost, batches.len(), all.len());
            writeln!(wrong, "{kind:?} {damage:?}: error {error}, {count:?}").expect("a text");
        }
    }
    assert_eq!(wrong, "", "{}", served.log());
}

#[test]
fn a_repair_mends_each_damage_after_a_clean_stop_and_loses_nothing_else() {
    check(true, "os");
}

#[test]
fn a_repair_mends_each_damage_after_a_kill_and_loses_nothing_else() {
    check(false, "os");
}

/// The journal is brought into the segments before anything is cut.
#[test]
fn a_repair_mends_each_damage_after_a_kill_in_always_and_loses_nothing_else() {
    check(false, "always");
}

/// `tally verify log DIR --repair`, its rows as JSON.
fn repair(data: &Path) -> Output {
    tally(&["verify", "log", path(data), "--repair", "-o", "jsonl"])
}

#[test]
fn a_repair_of_what_is_whole_changes_nothing() {
    let matrix = Matrix::whole();
    let before = files(&matrix.data);
    let repaired = repair(&matrix.data);
    assert_eq!(repaired.status.code(), Some(0), "{}", text(&repaired));
    assert!(rows(&text(&repaired), "repair").is_empty());
    assert!(files(&matrix.data) == before);
}

/// An offset may be any number where no checksum covers it, and the start of a log too: what can't be mended is left, and all the rest is
/// mended.
#[test]
fn a_repair_goes_on_where_numbers_make_no_sense() {
    let matrix = Matrix::new(true, "os");
    let whole = matrix.partition(matrix.batches.len() - 1);
    let bases = offsets_of_files(&whole, "log");
    let log = whole.join(format!("{:020}.log", bases[1]));
    let mut bytes = fs::read(&log).expect("a segment");
    bytes[..8].copy_from_slice(&i64::MIN.to_be_bytes());
    fs::write(&log, bytes).expect("damaged");
    let (_, _, damaged) = &matrix.cases[0];
    let log_start = damaged.with_file_name("log-start");
    fs::write(log_start, format!("0\n{}\n", i64::MAX - 1)).expect("damaged");
    let repaired = repair(&matrix.data);
    let told = text(&repaired);
    assert!(matches!(repaired.status.code(), Some(0 | 1)), "{told}");
    let left = text(&tally(&[
        "verify",
        "log",
        path(&matrix.data),
        "-o",
        "jsonl",
    ]));
    let home = damaged
        .parent()
        .and_then(|home| home.strip_prefix(&matrix.data).ok());
    let home = format!("\"file\":\"{}/", path(home.expect("below")));
    let others: Vec<&str> = rows(&left, "problem")
        .into_iter()
        .filter(|row| !row.contains(&home))
        .collect();
    assert_eq!(others, Vec::<&str>::new(), "{told}");
}

/// Else the next start would take all of it for records that were deleted.
#[test]
fn a_repair_takes_back_a_start_behind_the_end_of_a_log_that_was_stopped_clean() {
    let matrix = Matrix::whole();
    let (partition, all) = (matrix.partition(0), &matrix.batches[0]);
    fs::write(partition.join("log-start"), "0\n99\n").expect("damaged");
    let repaired = repair(&matrix.data);
    assert_eq!(repaired.status.code(), Some(0), "{}", text(&repaired));
    let served = Served::start(PROGRAM, &matrix.data, "os", &[]).expect("it starts");
    let (batches, error) = read(&mut Client::connect(&served.address), 0, 0);
    assert_eq!((batches.len(), error), (all.len(), 0));
    assert!(served.stop());
}

/// What all rests on is not guessed.
#[test]
fn a_repair_with_a_damaged_meta_changes_nothing() {
    let matrix = Matrix::new(true, "os");
    fs::write(matrix.data.join("meta"), b"tallymet").expect("damaged");
    let before = files(&matrix.data);
    let repaired = repair(&matrix.data);
    assert_eq!(repaired.status.code(), Some(1));
    assert!(files(&matrix.data) == before);
}

#[test]
fn a_repair_leaves_a_running_broker_alone() {
    let matrix = Matrix::whole();
    let served = Served::start(PROGRAM, &matrix.data, "os", &[]).expect("it starts");
    let repaired = tally(&["verify", "log", path(&matrix.data), "--repair"]);
    assert_eq!(repaired.status.code(), Some(6));
    assert!(served.stop());
}
