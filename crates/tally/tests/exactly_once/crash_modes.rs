//! The crash matrix in the other modes of durability: what holds in `os` after kill -9 (`crash_matrix`, `crash_points`) holds in
//! `commit` and `always` too, and at the steps that only these have, the group that is written to the journal and its
//! sync (CR-24), and the checkpoint. `memory` keeps nothing, and begins anew without complaint.

use crate::crash_matrix::{Flow, dies_and_forgets, dies_once_at_each};
use crate::crash_points as points;
use tally_testkit::broker::{is_reference, left_out};

/// CR-1, CR-2, CR-7 to CR-16, CR-19, CR-24: of a transaction that commits. Each once; `append.torn` at each write of a turn.
const COMMIT: [&str; 28] = [
    "append.torn=kill@1",
    "append.torn=kill@2",
    "append.torn=kill@3",
    "append.torn=kill@4",
    "append.torn=kill@6",
    "append.torn=kill@9",
    "data.before=kill@1",
    "data.after=kill@1",
    "data.before=kill@2",
    "data.after=kill@3",
    "init_producer_id.before=kill@1",
    "init_producer_id.after=kill@1",
    "ongoing.before=kill@1",
    "ongoing.after=kill@1",
    "ongoing.before=kill@2",
    "ongoing.after=kill@2",
    "pending_offsets.before=kill@1",
    "pending_offsets.after=kill@1",
    "reply.group=kill@1",
    "prepare_commit.before=kill@1",
    "prepare_commit.after=kill@1",
    "marker.before=kill@1",
    "marker.after=kill@2",
    "marker.before=kill@3",
    "marker.after=kill@3",
    "complete_commit.before=kill@1",
    "complete_commit.after=kill@1",
    "reply.transaction=kill@1",
];

/// CR-17, CR-18: of one that aborts.
const ABORT: [&str; 8] = [
    "prepare_abort.before=kill@1",
    "prepare_abort.after=kill@1",
    "marker.before=kill@1",
    "marker.after=kill@3",
    "row.after=kill@1",
    "row.after=kill@2",
    "complete_abort.before=kill@1",
    "complete_abort.after=kill@1",
];

/// The first group of a turn holds the new epoch, the last its end; in between are those of the steps that `always` syncs.
fn journal_points(groups: &[u32]) -> Vec<String> {
    let of_group = |nth: &u32| {
        let steps = ["before", "torn", "written", "synced"];
        steps.map(|step| format!("journal.{step}=kill@{nth}"))
    };
    groups.iter().flat_map(of_group).collect()
}

#[track_caller]
fn a_turn(mode: &str, flow: Flow, groups: &[u32]) {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    let settings = [mode];
    let journal = journal_points(groups);
    let journal: Vec<&str> = journal.iter().map(String::as_str).collect();
    dies_once_at_each(&settings, flow, &[&COMMIT[..], &journal].concat(), true);
    dies_once_at_each(&settings, flow, &[&ABORT[..], &journal].concat(), false);
}

const IN_COMMIT: &str = "tally.durability=commit";
const IN_ALWAYS: &str = "tally.durability=always";

#[test]
fn cr1_to_cr24_hold_in_commit_with_the_old_flow() {
    a_turn(IN_COMMIT, Flow::Tv1, &[1, 2]);
}

#[test]
fn cr1_to_cr24_hold_in_commit_with_the_new_flow() {
    a_turn(IN_COMMIT, Flow::Tv2, &[1, 2]);
}

#[test]
fn cr1_to_cr24_hold_in_always_with_the_old_flow() {
    a_turn(IN_ALWAYS, Flow::Tv1, &[1, 2, 3, 4, 5]);
}

#[test]
fn cr1_to_cr24_hold_in_always_with_the_new_flow() {
    a_turn(IN_ALWAYS, Flow::Tv2, &[1, 2, 3, 4, 5]);
}

/// CR-3 to CR-6, CR-20, CR-22, CR-23.
#[track_caller]
fn outside_a_turn(mode: &str, version: i16) {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    let settings = [mode];
    points::what_was_answered_is_a_duplicate(&settings);
    points::snapshots_are_not_missed(&settings);
    let at_a_stop = [
        "written.snapshot=kill@1",
        "renamed.snapshot=kill@1",
        "checkpoint.before=kill@1",
        "checkpoint.synced=kill@1",
        "checkpoint.after=kill@1",
    ];
    points::a_stop_that_dies_is_a_kill(&settings, &at_a_stop);
    points::no_producer_id_is_given_twice(&settings);
    points::a_fence_is_finished(&settings, version);
    points::a_timeout_is_finished(&settings);
    points::delete_records_is_done_or_not(&settings);
    points::recovery_may_die(&settings);
}

#[test]
fn cr3_to_cr23_hold_in_commit_outside_a_transaction() {
    outside_a_turn(IN_COMMIT, 9);
}

#[test]
fn cr3_to_cr23_hold_in_always_outside_a_transaction() {
    outside_a_turn(IN_ALWAYS, 12);
}

#[test]
fn r1_a_kill_in_memory_leaves_nothing_and_hurts_nobody() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    let points = [
        "append.torn=kill@4",
        "data.after=kill@2",
        "prepare_commit.after=kill@1",
        "marker.after=kill@1",
        "complete_commit.before=kill@1",
    ];
    for flow in [Flow::Tv1, Flow::Tv2] {
        dies_and_forgets(&["tally.durability=memory"], flow, &points);
    }
}
