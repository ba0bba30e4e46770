//! What a group of the `consumer` protocol takes over from a classic one, and the other way round (section 9.8).

use super::Group;
use crate::command::{JoinResponse, Response};
use crate::groups::Turn;
use bytes::Bytes;
use std::sync::Arc;
use tally_protocol::ErrorCode;
use tally_protocol::records::offsets_log::GroupValue;

/// A member with all that another kind of group has to know of it.
#[derive(Debug)]
pub(crate) struct ClassicMember {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) protocols: Vec<(Arc<str>, Bytes)>,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

impl Group {
    /// The members as they are. One whose assignment is void while the next is agreed on may still read what the last
    /// record gave it.
    pub(crate) fn classic_members(&self, record: Option<&GroupValue>) -> Vec<ClassicMember> {
        let stored = |id: &Arc<str>| {
            let members = record.into_iter().flat_map(|record| &record.members);
            let found = members.into_iter().find(|member| member.member_id == *id);
            found.map_or_else(Bytes::new, |member| member.assignment.clone())
        };
        let members = self.members.iter().map(|member| {
            let first = member.protocols.first().map(|(name, _)| name);
            let protocol = self.protocol.as_ref().or(first);
            ClassicMember {
                id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols: member.protocols.clone(),
                metadata: protocol.map_or_else(Bytes::new, |name| member.metadata(name)),
                assignment: if member.assignment.is_empty() {
                    stored(&member.id)
                } else {
                    member.assignment.clone()
                },
            }
        });
        members.collect()
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// Ends everything that is parked: the group is no longer this one.
    pub(crate) fn answer_everyone(&mut self, turn: &mut Turn, error: ErrorCode) {
        for slot in self.members.slots() {
            let id = self.members[slot].id.clone();
            for parked in self.members.take_joins(slot) {
                let response = JoinResponse::refused(error, id.clone());
                turn.reply(parked, Response::Join(response));
            }
            self.answer_syncs(turn, slot, error);
        }
    }

    /// The members have to agree on an assignment of their own.
    pub(crate) fn start_over(&mut self, turn: &mut Turn) {
        self.prepare_rebalance(turn);
    }
}
