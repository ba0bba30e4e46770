//! Section 6.4: every request in every state. There is no `Dead` (its column): a deleted group is absent at once.

use crate::world::{World, commit, heartbeat, join, leaving, rejoin, sync, txn_commit};
use std::sync::Arc;
use tally_groups::{
    AbsentGroup, Command, CommitRequest, DeleteOffsetsRequest, FetchRequest, JoinRequest,
    LeaveRequest, NewMember, Response, TopicToFetch,
};
use tally_protocol::TopicId;

/// What a cell says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cell {
    Code(i16),
    Parked,
}
use Cell::{Code, Parked};

/// A group in each state; `m1` was its leader and, but in Empty, still is a member.
fn world_in(state: &str) -> World {
    let mut world = World::new();
    match state {
        "absent" => {}
        "Empty" => {
            world.stable("m1");
            assert_eq!(world.leave(vec![leaving("m1")]), [0]);
        }
        "PreparingRebalance" => {
            world.stable("m1");
            world.send(Command::Join(join("m2")));
        }
        "CompletingRebalance" => {
            world.join(join("m1"));
        }
        "Stable" => {
            world.stable("m1");
        }
        other => panic!("no state {other}"),
    }
    assert_eq!(world.state(), state);
    world
}

const STATES: [&str; 5] = [
    "absent",
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
];

#[track_caller]
fn check(row: &str, command: impl Fn() -> Command, expected: [Cell; 5]) {
    for (state, cell) in STATES.into_iter().zip(expected) {
        let mut world = world_in(state);
        let asked = world.send(command());
        let got = match world.reply(asked) {
            None => Parked,
            Some(response) => Code(code_of(&response)),
        };
        assert_eq!(got, cell, "{row} in {state}");
    }
}

fn code_of(response: &Response) -> i16 {
    let code = match response {
        Response::Join(response) => response.error,
        Response::Sync(response) => response.error,
        Response::Heartbeat(code) | Response::DeleteGroup(code) => *code,
        Response::ConsumerHeartbeat(response) => response.error,
        Response::Leave(response) => response.members[0].error,
        Response::CommitOffsets(codes) | Response::CommitTransactionalOffsets(codes) => codes[0],
        Response::FetchOffsets(response) => response.error,
        Response::DeleteOffsets(response) => match response.partitions.first() {
            Some(code) => *code,
            None => response.error,
        },
        Response::TopicDeleted => panic!("not in the matrix"),
    };
    code.code()
}

#[test]
fn joins() {
    let all_new = [Code(79), Code(79), Code(79), Code(79), Code(79)];
    let ask_to_return = || {
        Command::Join(JoinRequest {
            new_member: NewMember::AskToReturn,
            ..join("m9")
        })
    };
    check("join, id \"\" (v4+)", ask_to_return, all_new);
    // Without a delay the first member of a group is answered at once.
    check(
        "join, id \"\" (v0-3)",
        || Command::Join(join("m9")),
        [Code(0), Code(0), Parked, Parked, Parked],
    );
    // m2 is waiting: with m1 the rebalance completes. In Stable m1 leads, so it starts one, and is alone in it.
    check(
        "join, known id",
        || Command::Join(rejoin("m1")),
        [Code(25), Code(25), Code(0), Code(0), Code(0)],
    );
    check(
        "join, unknown id",
        || Command::Join(rejoin("m7")),
        [Code(25), Code(25), Code(25), Code(25), Code(25)],
    );
}

#[test]
fn syncs_and_heartbeats() {
    check(
        "sync, right generation",
        || Command::Sync(sync("m1", 1, &[])),
        [Code(25), Code(25), Code(27), Code(0), Code(0)],
    );
    check(
        "sync, wrong generation",
        || Command::Sync(sync("m1", 7, &[])),
        [Code(25), Code(25), Code(22), Code(22), Code(22)],
    );
    check(
        "heartbeat, right generation",
        || Command::Heartbeat(heartbeat("m1", 1)),
        [Code(25), Code(25), Code(27), Code(0), Code(0)],
    );
    check(
        "heartbeat, wrong generation",
        || Command::Heartbeat(heartbeat("m1", 7)),
        [Code(25), Code(25), Code(22), Code(22), Code(22)],
    );
    check(
        "heartbeat, unknown id",
        || Command::Heartbeat(heartbeat("m7", 1)),
        [Code(25); 5],
    );
}

#[test]
fn leaves() {
    let leave = || {
        Command::Leave(LeaveRequest {
            group: Arc::from("g"),
            members: vec![leaving("m1")],
        })
    };
    check(
        "leave",
        leave,
        [Code(25), Code(25), Code(0), Code(0), Code(0)],
    );
}

#[test]
fn commits() {
    check(
        "commit, member and generation right",
        || Command::CommitOffsets(commit("m1", 1, 5)),
        [Code(69), Code(25), Code(0), Code(27), Code(0)],
    );
    check(
        "commit, wrong generation",
        || Command::CommitOffsets(commit("m1", 7, 5)),
        [Code(69), Code(25), Code(22), Code(22), Code(22)],
    );
    check(
        "commit, wrong generation, below v9",
        || {
            Command::CommitOffsets(CommitRequest {
                on_absent_group: AbsentGroup::IllegalGeneration,
                ..commit("m1", 7, 5)
            })
        },
        [Code(22), Code(25), Code(22), Code(22), Code(22)],
    );
    check(
        "commit by nobody",
        || Command::CommitOffsets(commit("", -1, 5)),
        [Code(0), Code(0), Code(25), Code(25), Code(25)],
    );
    check(
        "commit, id without generation",
        || Command::CommitOffsets(commit("m1", -1, 5)),
        [Code(0), Code(0), Code(22), Code(22), Code(22)],
    );
}

#[test]
fn transactional_commits() {
    check(
        "txn commit, member and generation right",
        || Command::CommitTransactionalOffsets(txn_commit("m1", 1, 5)),
        [Code(22), Code(25), Code(0), Code(0), Code(0)],
    );
    check(
        "txn commit by nobody",
        || Command::CommitTransactionalOffsets(txn_commit("", -1, 5)),
        [Code(0); 5],
    );
    check(
        "txn commit, wrong generation",
        || Command::CommitTransactionalOffsets(txn_commit("m1", 7, 5)),
        [Code(22), Code(25), Code(22), Code(22), Code(22)],
    );
    check(
        "txn commit, unknown member",
        || Command::CommitTransactionalOffsets(txn_commit("m7", 1, 5)),
        [Code(22), Code(25), Code(25), Code(25), Code(25)],
    );
}

#[test]
fn reads_and_deletions() {
    let fetch = || {
        let topic = TopicToFetch {
            topic: Arc::from("t"),
            topic_id: TopicId::ZERO,
            partitions: vec![0],
        };
        Command::FetchOffsets(FetchRequest {
            group: Arc::from("g"),
            topics: Some(vec![topic]),
            require_stable: true,
            member: None,
        })
    };
    check("fetch", fetch, [Code(0); 5]);
    let delete_offsets = || {
        Command::DeleteOffsets(DeleteOffsetsRequest {
            group: Arc::from("g"),
            partitions: vec![(Arc::from("t"), 0)],
        })
    };
    // The members' metadata is no subscription, so they count as subscribed to everything.
    check(
        "delete offsets",
        delete_offsets,
        [Code(69), Code(0), Code(86), Code(86), Code(86)],
    );
    let delete_group = || Command::DeleteGroup {
        group: Arc::from("g"),
    };
    check(
        "delete group",
        delete_group,
        [Code(69), Code(0), Code(68), Code(68), Code(68)],
    );
}
