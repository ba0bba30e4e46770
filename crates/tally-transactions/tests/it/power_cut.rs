//! The start after a power cut: whatever an id was doing, nobody from before can go on with it.

use tally_protocol::records::transaction_log::{TransactionState, TransactionValue};
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_transactions::{Fence, Flow, Reason};

use TransactionState::{
    CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit,
};

use crate::world::{ID, World, add, at_epoch, brief, end, init, init_with, names, value, verify};

const ALL: [TransactionState; 6] = [
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
];

/// The pair after the fence, and how the transaction ended, if there was one.
#[track_caller]
fn check(given: TransactionValue, fence: Fence, expected: (i64, i16), ended: Option<bool>) {
    let state = given.state;
    let mut world = World::after_power_cut(given, fence);
    assert!(world.core.is_fencing(), "{state:?}");
    world.expire();
    if let Some(commit) = ended {
        let set = world.take_markers();
        assert_eq!(set.commit, commit, "{state:?}");
        assert_eq!(names(&set.partitions), ["t-0", "t-1"]);
        for command in [
            init(),
            add((1, 5), &["t-0"], Flow::Tv1),
            verify((1, 5), &["t-0"]),
            end((1, 5), true, Flow::Tv1),
        ] {
            assert_eq!(brief(&world.ask(command)), "14", "{state:?}");
        }
        world.answer(&set, ErrorCode::None);
        world.expire();
    }
    assert!(world.markers.is_empty(), "{state:?}");
    assert!(!world.core.is_fencing(), "{state:?}");
    assert_eq!(
        (world.state(), world.pair()),
        (Empty, expected),
        "{state:?}"
    );
    for epoch in 0..=5 {
        for flow in [Flow::Tv1, Flow::Tv2] {
            for command in [
                add((1, epoch), &["t-0"], flow),
                end((1, epoch), true, flow),
                end((1, epoch), false, flow),
            ] {
                let code = brief(&world.ask(command));
                assert!(
                    ["47", "48", "49", "90"].contains(&&*code),
                    "{state:?}: {code}"
                );
            }
        }
    }
    let next = brief(&world.ask(init()));
    assert_eq!(next, format!("({},{})", expected.0, expected.1 + 1));
}

#[test]
fn r19_in_commit_every_id_gets_a_higher_epoch() {
    for (state, epoch, ended) in [
        (Empty, 6, None),
        (CompleteCommit, 6, None),
        (CompleteAbort, 6, None),
        (PrepareCommit, 6, Some(true)),
        (PrepareAbort, 6, Some(false)),
        (Ongoing, 7, Some(false)),
    ] {
        check(value(state), Fence::Epoch, (1, epoch), ended);
    }
}

/// What `os` handed out last may be gone with its record: no epoch of the pid is known to be free.
#[test]
fn r19_in_os_every_id_gets_another_producer_id() {
    for (state, ended) in [
        (Empty, None),
        (CompleteCommit, None),
        (CompleteAbort, None),
        (PrepareCommit, Some(true)),
        (PrepareAbort, Some(false)),
        (Ongoing, Some(false)),
    ] {
        check(value(state), Fence::ProducerId, (100, 0), ended);
    }
    for lost in 6..20 {
        let mut world = World::after_power_cut(value(CompleteCommit), Fence::ProducerId);
        world.expire();
        for flow in [Flow::Tv1, Flow::Tv2] {
            let joined = brief(&world.ask(add((1, lost), &["t-0"], flow)));
            assert_eq!(joined, "49");
            assert_eq!(brief(&world.ask(end((1, lost), true, flow))), "49");
        }
        assert_eq!(brief(&world.ask(init_with(1, lost))), "90");
    }
}

#[test]
fn r19_a_used_up_epoch_rotates() {
    let given = at_epoch(value(CompleteCommit), 32_766, 32_765);
    let mut world = World::after_power_cut(given, Fence::Epoch);
    world.expire();
    assert_eq!((world.state(), world.pair()), (Empty, (100, 0)));
    assert_eq!(
        brief(&world.ask(add((1, 32_766), &["t-0"], Flow::Tv1))),
        "49"
    );
}

/// I-22: while there is no producer id, the id is not served.
#[test]
fn r19_without_a_producer_id_it_is_tried_again() {
    let mut world = World::new();
    world.ids.next = world.ids.end;
    let mut world = world.and_given_after_power_cut(value(Empty), Fence::ProducerId);
    world.expire();
    assert!(world.core.is_fencing());
    assert_eq!(brief(&world.ask(init())), "14");
    world.ids.end += 10;
    world.advance(50);
    world.expire();
    assert!(!world.core.is_fencing());
    assert_eq!(world.pair().1, 0);
}

#[test]
fn r19_ids_that_come_later_are_served_at_once() {
    let mut world = World::after_power_cut(value(PrepareCommit), Fence::Epoch);
    let other = tally_transactions::Command::InitProducerId {
        transactional_id: std::sync::Arc::from("other"),
        timeout_ms: 60_000,
        expected: None,
    };
    assert_eq!(brief(&world.ask(other)), "(100,0)");
    assert_eq!(brief(&world.ask(init())), "14");
}

#[test]
fn r19_the_markers_of_open_and_ending_transactions_are_known_beforehand() {
    for (state, epoch, ends) in [(PrepareCommit, 5, 4), (PrepareAbort, 5, 4), (Ongoing, 6, 5)] {
        let mut world = World::after_power_cut(value(state), Fence::Epoch);
        let owed = world.core.owed_markers();
        assert_eq!(owed.len(), 1);
        assert_eq!(owed[0].producer_id, ProducerId(1));
        assert_eq!(owed[0].producer_epoch, ProducerEpoch(epoch));
        // M-4: all of them are of the second version.
        assert_eq!(owed[0].ends_upto, ProducerEpoch(ends));
        world.expire();
        let set = world.take_markers();
        assert_eq!(set.producer_epoch, owed[0].producer_epoch);
        assert_eq!(set.partitions, owed[0].partitions);
    }
    let of_the_first = TransactionValue {
        client_transaction_version: 0,
        ..value(PrepareCommit)
    };
    let world = World::after_power_cut(of_the_first, Fence::Epoch);
    assert_eq!(world.core.owed_markers()[0].ends_upto, ProducerEpoch(5));
    for state in [Empty, CompleteCommit, CompleteAbort] {
        let world = World::after_power_cut(value(state), Fence::Epoch);
        assert_eq!(world.core.owed_markers(), []);
    }
}

/// A kill while it is fenced, and another power cut after it: the epoch rises, nothing is stuck.
#[test]
fn r19_can_be_interrupted_and_repeated() {
    for state in ALL {
        for fence in [Fence::Epoch, Fence::ProducerId] {
            let mut world = World::after_power_cut(value(state), fence);
            world.expire();
            world.restart_after_power_cut(fence);
            world.expire();
            world.write_markers();
            world.expire();
            assert!(!world.core.is_fencing());
            assert_eq!(world.state(), Empty);
            assert_ne!(world.pair(), (1, 5));
        }
    }
}

#[test]
fn b21_the_abort_has_its_reason() {
    let mut world = World::after_power_cut(value(Ongoing), Fence::Epoch);
    world.expire();
    let note = world.core.note(ID).expect("why it was aborted");
    assert_eq!(note.reason, Reason::PowerCut);
}

#[test]
fn b21_a_fence_with_nothing_open_has_its_reason() {
    for fence in [Fence::Epoch, Fence::ProducerId] {
        for state in [Empty, CompleteCommit, CompleteAbort, Ongoing] {
            let mut world = World::after_power_cut(value(state), fence);
            world.expire();
            world.write_markers();
            world.expire();
            assert!(!world.core.is_fencing());
            let note = world.core.note(ID).expect("why it was fenced");
            assert_eq!(note.reason, Reason::PowerCut, "{state:?}");
            let pair = (note.producer_id.0, note.producer_epoch.0);
            assert_eq!(pair, (1, 5), "{state:?}: the pair that a client has");
        }
    }
}
