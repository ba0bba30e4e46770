//! The catalogue of wire tests, number by number: each is a test's name, is carried by another one's test, or is said to be
//! missing, with its reason. `docs/exactly-once.md`, section 7, tells the same.

use std::ops::RangeInclusive;

use super::{files, read, root};

/// The numbers of the catalogue: X-001 and so on.
const NUMBERS: &[RangeInclusive<u16>] = &[
    1..=44,
    50..=61,
    70..=88,
    100..=126,
    140..=161,
    170..=190,
    200..=207,
    220..=242,
    250..=255,
    260..=288,
    290..=296,
];

/// How many there are, counted by hand.
const COUNT: usize = 218;

/// What carries a number that is no test's name.
#[derive(Clone, Copy)]
enum By {
    /// A part of this test, the full name of its function.
    Test(&'static str),
    /// This program of the repository; by hand, or a shorter one of `scripts/test`.
    Script(&'static str),
    /// Nothing, for this reason, in the words of the document.
    Nothing(&'static str),
}

const ELSEWHERE: &[(u16, By)] = &[
    (
        36,
        By::Test("x035_a_duplicate_below_the_log_start_gets_its_true_offset"),
    ),
    (39, By::Test("x038_an_idle_producer_is_forgotten")),
    (40, By::Test("x038_an_idle_producer_is_forgotten")),
    (51, By::Test("x050_five_batches_are_remembered_over_a_kill")),
    (
        56,
        By::Test("x054_a_torn_batch_is_cut_off_and_appended_again"),
    ),
    (83, By::Test("x082_after_the_last_epoch_comes_a_new_pid")),
    (110, By::Test("x100_a_committed_transaction_is_read")),
    (120, By::Nothing("X-120 wants an authorizer")),
    (
        180,
        By::Test("x111_an_aborted_transaction_is_listed_and_not_read"),
    ),
    (206, By::Test("l36_readers_see_the_same_before_and_after")),
    (221, By::Test("x220_a_pending_offset_is_unstable")),
    (241, By::Nothing("X-241 has no moment")),
    (284, By::Test("cr25_holds_in_mode_always_for_every_seed")),
    (
        287,
        By::Test("cr25_and_cr28_hold_in_mode_commit_for_every_seed"),
    ),
    (290, By::Script("scripts/main-job")),
    (291, By::Script("scripts/main-job")),
    (
        293,
        By::Test("x292_nothing_is_lost_doubled_torn_or_out_of_order_for_any_seed"),
    ),
    (295, By::Script("scripts/differential")),
    (296, By::Test("cr25_holds_in_mode_always_for_every_seed")),
];

/// Whether a test has this number in its name: `x252_x253_…`, `g94_x224_…`.
fn is_named(sources: &str, number: u16) -> bool {
    let part = format!("x{number:03}_");
    sources.match_indices(&part).any(|(at, _)| {
        let line = sources[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = sources[line..at].trim_start();
        before.strip_prefix("fn ").is_some_and(|name| {
            name.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
    })
}

#[test]
fn every_number_of_the_catalogue_has_its_test() {
    let root = root();
    let sources: String = files(&root.join("crates"), "rs")
        .iter()
        .map(|path| read(path))
        .collect();
    let document = read(&root.join("docs/exactly-once.md"));
    let numbers: Vec<u16> = NUMBERS.iter().cloned().flatten().collect();
    assert_eq!(numbers.len(), COUNT);
    for number in numbers {
        let by = ELSEWHERE.iter().find(|(other, _)| *other == number);
        let Some((_, by)) = by else {
            assert!(is_named(&sources, number), "X-{number:03} has no test");
            continue;
        };
        assert!(
            !is_named(&sources, number),
            "X-{number:03} has a test of its own: strike it from the list"
        );
        assert!(
            document.contains(&format!("X-{number:03}")),
            "docs/exactly-once.md does not say where X-{number:03} is"
        );
        match by {
            By::Test(name) => assert!(
                sources.contains(&format!("fn {name}(")),
                "X-{number:03}: {name} does not exist"
            ),
            By::Script(path) => assert!(
                root.join(path).is_file(),
                "X-{number:03}: {path} does not exist"
            ),
            By::Nothing(why) => assert!(
                document.contains(why),
                "docs/exactly-once.md does not say: {why}"
            ),
        }
    }
}
