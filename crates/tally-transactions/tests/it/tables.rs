//! The tables of the rules, cell by cell: all requests against all states (3.10), EndTxn (3.4), the fenced client (S-15).

use tally_protocol::ProducerId;
use tally_protocol::records::transaction_log::{TransactionState, TransactionValue};
use tally_transactions::{Command, Flow};

use TransactionState::{
    CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit,
};

use crate::world::{World, add, at_epoch, brief, end, init, init_with, value, verify};

/// The answer, all markers written, and the state that is reached: "answer State".
fn outcome(given: Option<TransactionValue>, command: Command) -> String {
    let mut world = match given {
        Some(value) => World::given(value),
        None => World::new(),
    };
    let markers_owed = std::mem::take(&mut world.markers);
    let to = world.send(command);
    let at_once = world.core.hard_state().get("x").map(|v| v.state);
    world.write_markers();
    let answer = world.reply(to).map_or("-".to_owned(), |r| brief(&r));
    world.markers = markers_owed;
    world.write_markers();
    match at_once {
        Some(state) => format!("{answer} {state:?}"),
        None => format!("{answer} none"),
    }
}

#[track_caller]
fn check(rows: &[(Option<TransactionState>, &str)], command: &Command) {
    for (state, expected) in rows {
        assert_eq!(
            outcome(state.map(value), command.clone()),
            *expected,
            "{command:?} in {state:?}"
        );
    }
}

const A: (i64, i16) = (1, 5);

#[test]
fn table_3_10_init_producer_id() {
    check(
        &[
            (None, "(100,0) Empty"),
            (Some(Empty), "(1,6) Empty"),
            (Some(Ongoing), "51 PrepareAbort"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "(1,6) Empty"),
            (Some(CompleteAbort), "(1,6) Empty"),
        ],
        &init(),
    );
}

#[test]
fn table_3_10_add_partitions() {
    for flow in [Flow::Tv1, Flow::Tv2] {
        check(
            &[
                (None, "49 none"),
                (Some(Empty), "0 Ongoing"),
                (Some(Ongoing), "0 Ongoing"),
                (Some(PrepareCommit), "51 PrepareCommit"),
                (Some(PrepareAbort), "51 PrepareAbort"),
                (Some(CompleteCommit), "0 Ongoing"),
                (Some(CompleteAbort), "0 Ongoing"),
            ],
            &add(A, &["t-7"], flow),
        );
    }
}

#[test]
fn table_3_10_verify_only() {
    check(
        &[
            (None, "49 none"),
            (Some(Empty), "120 120 Empty"),
            (Some(Ongoing), "0 120 Ongoing"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "120 120 CompleteCommit"),
            (Some(CompleteAbort), "120 120 CompleteAbort"),
        ],
        &verify(A, &["t-0", "t-7"]),
    );
}

/// The rows of the Prepare states are those of "any, move pending": Complete is pending from Prepare on.
#[test]
fn table_3_4_end_txn_tv1() {
    check(
        &[
            (None, "49 none"),
            (Some(Empty), "48 Empty"),
            (Some(Ongoing), "(1,5) PrepareCommit"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "(1,5) CompleteCommit"),
            (Some(CompleteAbort), "48 CompleteAbort"),
        ],
        &end(A, true, Flow::Tv1),
    );
    check(
        &[
            (None, "49 none"),
            (Some(Empty), "48 Empty"),
            (Some(Ongoing), "(1,5) PrepareAbort"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "48 CompleteCommit"),
            (Some(CompleteAbort), "(1,5) CompleteAbort"),
        ],
        &end(A, false, Flow::Tv1),
    );
}

#[test]
fn table_3_4_end_txn_tv1_looks_at_pid_and_epoch_before_a_pending_move() {
    for state in [
        Empty,
        Ongoing,
        PrepareCommit,
        PrepareAbort,
        CompleteCommit,
        CompleteAbort,
    ] {
        for commit in [true, false] {
            for (pair, code) in [((2, 5), "49"), ((1, 4), "90"), ((1, 6), "90")] {
                assert_eq!(
                    outcome(Some(value(state)), end(pair, commit, Flow::Tv1)),
                    format!("{code} {state:?}"),
                    "{pair:?}"
                );
            }
        }
    }
}

#[test]
fn table_3_4_end_txn_tv2_current_epoch() {
    check(
        &[
            (None, "49 none"),
            (Some(Empty), "48 Empty"),
            (Some(Ongoing), "(1,6) PrepareCommit"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "48 CompleteCommit"),
            (Some(CompleteAbort), "48 CompleteAbort"),
        ],
        &end(A, true, Flow::Tv2),
    );
    check(
        &[
            (None, "49 none"),
            (Some(Empty), "(1,6) CompleteAbort"),
            (Some(Ongoing), "(1,6) PrepareAbort"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "(1,6) CompleteAbort"),
            (Some(CompleteAbort), "(1,6) CompleteAbort"),
        ],
        &end(A, false, Flow::Tv2),
    );
}

#[test]
fn table_3_4_end_txn_tv2_retry() {
    check(
        &[
            (Some(Empty), "90 Empty"),
            (Some(Ongoing), "90 Ongoing"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "(1,5) CompleteCommit"),
            (Some(CompleteAbort), "48 CompleteAbort"),
        ],
        &end((1, 4), true, Flow::Tv2),
    );
    check(
        &[
            (Some(Empty), "90 Empty"),
            (Some(Ongoing), "90 Ongoing"),
            (Some(PrepareCommit), "51 PrepareCommit"),
            (Some(PrepareAbort), "51 PrepareAbort"),
            (Some(CompleteCommit), "48 CompleteCommit"),
            (Some(CompleteAbort), "(1,5) CompleteAbort"),
        ],
        &end((1, 4), false, Flow::Tv2),
    );
}

#[test]
fn table_3_4_end_txn_tv2_other_epochs_and_pids() {
    for commit in [true, false] {
        for state in [Empty, Ongoing, CompleteCommit, CompleteAbort] {
            for (pair, code) in [
                ((1, 3), "90"),
                ((1, 6), "90"),
                ((2, 5), "49"),
                ((2, 4), "49"),
            ] {
                assert_eq!(
                    outcome(Some(value(state)), end(pair, commit, Flow::Tv2)),
                    format!("{code} {state:?}"),
                    "{pair:?}"
                );
            }
        }
        for state in [PrepareCommit, PrepareAbort] {
            for pair in [(1, 5), (1, 3), (2, 5)] {
                assert_eq!(
                    outcome(Some(value(state)), end(pair, commit, Flow::Tv2)),
                    format!("51 {state:?}"),
                    "{pair:?}"
                );
            }
        }
    }
}

/// e - 1 is a retry only if the last end of a transaction came from there: else a producer that InitProducerId has fenced
/// would be handed its successor's pair.
#[test]
fn table_3_4_end_txn_tv2_a_fenced_epoch_is_no_retry() {
    for (state, commit) in [(CompleteCommit, true), (CompleteAbort, false)] {
        let given = at_epoch(value(state), 5, -1);
        assert_eq!(
            outcome(Some(given), end((1, 4), commit, Flow::Tv2)),
            format!("90 {state:?}")
        );
    }
}

#[test]
fn table_3_4_end_txn_tv2_retry_after_rotation() {
    let rotated = |state| TransactionValue {
        previous_producer_id: ProducerId(9),
        ..at_epoch(value(state), 0, 32766)
    };
    let old = (9, 32766);
    for (state, commit, expected) in [
        (CompleteCommit, true, "(1,0) CompleteCommit"),
        (CompleteCommit, false, "48 CompleteCommit"),
        (CompleteAbort, true, "48 CompleteAbort"),
        (CompleteAbort, false, "(1,0) CompleteAbort"),
        (Empty, true, "90 Empty"),
        (Empty, false, "90 Empty"),
        (Ongoing, true, "90 Ongoing"),
        (PrepareCommit, true, "51 PrepareCommit"),
    ] {
        assert_eq!(
            outcome(Some(rotated(state)), end(old, commit, Flow::Tv2)),
            expected,
            "{commit}"
        );
    }
    assert_eq!(
        outcome(
            Some(rotated(CompleteCommit)),
            end((9, 32765), true, Flow::Tv2)
        ),
        "49 CompleteCommit"
    );
    // A pid that InitProducerId has replaced without being asked by its holder: nothing to retry.
    let replaced = at_epoch(rotated(CompleteCommit), 0, -1);
    assert_eq!(
        outcome(Some(replaced), end(old, true, Flow::Tv2)),
        "49 CompleteCommit"
    );
}

/// The client of epoch 4, whose transaction the broker has aborted.
#[test]
fn s15_what_a_fenced_client_is_answered() {
    let timed_out = || {
        let mut world = World::given(at_epoch(value(Ongoing), 4, -1));
        world.advance(70_001);
        world.expire();
        world.write_markers();
        assert_eq!((world.pair(), world.state()), ((1, 5), CompleteAbort));
        world
    };
    let rows = [
        (add((1, 4), &["t-9"], Flow::Tv2), "90"),
        (add((1, 4), &["t-9"], Flow::Tv1), "90"),
        (verify((1, 4), &["t-0"]), "90"),
        (end((1, 4), true, Flow::Tv1), "90"),
        (end((1, 4), false, Flow::Tv1), "90"),
        (end((1, 4), false, Flow::Tv2), "(1,5)"),
        (end((1, 4), true, Flow::Tv2), "48"),
        (init_with(1, 4), "(1,5)"),
    ];
    for (command, expected) in &rows {
        assert_eq!(
            brief(&timed_out().ask(command.clone())),
            *expected,
            "{command:?}"
        );
    }
    // After another InitProducerId every one of these is refused.
    for (command, _) in &rows {
        let mut world = timed_out();
        assert_eq!(brief(&world.ask(init())), "(1,6)");
        assert_eq!(brief(&world.ask(command.clone())), "90", "{command:?}");
        assert_eq!((world.pair(), world.state()), ((1, 6), Empty));
    }
}
