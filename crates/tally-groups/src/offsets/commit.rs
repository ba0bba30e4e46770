//! OffsetCommit and the group side of TxnOffsetCommit (sections 7.1 and 7.3).
//!
//! A refusal of the member is one code for all partitions (O-3); a refusal of metadata is for its partition only.

use crate::command::{
    AbsentGroup, CommitRequest, OffsetToCommit, ReplyTo, Response, TransactionalCommitRequest,
};
use crate::consumer::{CommitKind, ConsumerCommitter};
use crate::groups::{GroupState, Groups, Turn};
use std::sync::Arc;
use tally_protocol::records::offsets_log::{OffsetValue, OffsetsRecord};
use tally_protocol::{ErrorCode, planted};

/// Who commits.
struct Committer<'a> {
    member_id: &'a str,
    instance_id: Option<&'a str>,
    generation: i32,
}

impl Committer<'_> {
    fn of_consumer(&self) -> ConsumerCommitter<'_> {
        ConsumerCommitter {
            member_id: self.member_id,
            instance_id: self.instance_id,
            epoch: self.generation,
        }
    }

    /// No member at all: a client that assigns its partitions itself, or a producer without group metadata.
    fn is_anonymous(&self) -> bool {
        self.generation < 0 && self.member_id.is_empty() && self.instance_id.is_none()
    }
}

impl Groups {
    pub(crate) fn commit_offsets(&mut self, turn: &mut Turn, request: &CommitRequest, to: ReplyTo) {
        let committer = Committer {
            member_id: &request.member_id,
            instance_id: request.instance_id.as_deref(),
            generation: request.generation,
        };
        let absent = match request.on_absent_group {
            AbsentGroup::IllegalGeneration => ErrorCode::IllegalGeneration,
            AbsentGroup::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        };
        let knows_epochs = request.on_absent_group == AbsentGroup::GroupIdNotFound;
        let kind = CommitKind::Plain { knows_epochs };
        let checked = match self.stored().consumer(&request.group) {
            Some(group) => group.check_commit(&committer.of_consumer(), kind, &request.offsets),
            None => self
                .check_committer(&request.group, &committer, absent)
                .and_then(|()| self.check_plain(&request.group, &committer)),
        };
        if let Err(code) = checked {
            let codes = vec![code; request.offsets.len()];
            return turn.reply(to, Response::CommitOffsets(codes));
        }
        if let Some(group) = self.live_mut(&request.group) {
            group.restart_session_after_commit(turn, &request.member_id); // GR-62
        }
        self.settle(&request.group);
        let expire_timestamp = match request.retention_ms {
            Some(retention_ms) => turn.now.wall_ms.saturating_add(retention_ms.max(0)), // GR-66
            None => -1,
        };
        let codes = store(turn, &request.group, &request.offsets, expire_timestamp);
        turn.reply(to, Response::CommitOffsets(codes));
    }

    pub(crate) fn commit_transactional_offsets(
        &mut self,
        turn: &mut Turn,
        request: &TransactionalCommitRequest,
        to: ReplyTo,
    ) {
        let committer = Committer {
            member_id: &request.member_id,
            instance_id: request.instance_id.as_deref(),
            generation: request.generation,
        };
        let checked = if request.group.is_empty() {
            Err(ErrorCode::InvalidGroupId) // O-1
        } else if let Some(group) = self.stored().consumer(&request.group) {
            let kind = CommitKind::Transactional;
            group.check_commit(&committer.of_consumer(), kind, &request.offsets)
        } else {
            self.check_committer(&request.group, &committer, ErrorCode::IllegalGeneration)
        };
        let codes = match checked {
            Err(code) if !planted::is("o3") => vec![code; request.offsets.len()],
            Ok(()) | Err(_) => store(turn, &request.group, &request.offsets, -1),
        };
        turn.reply(to, Response::CommitTransactionalOffsets(codes));
    }

    /// What both kinds of commit ask of a group and a member (GR-60, GR-61, GR-81, O-3).
    fn check_committer(
        &self,
        group: &str,
        committer: &Committer<'_>,
        absent: ErrorCode,
    ) -> Result<(), ErrorCode> {
        if !self.exists(group) {
            // GR-60: without a generation the offsets make a group of themselves.
            return if committer.generation < 0 {
                Ok(())
            } else {
                Err(absent)
            };
        }
        if committer.generation < 0 && self.state(group) == GroupState::Empty {
            return Ok(());
        }
        if committer.is_anonymous() {
            return Ok(());
        }
        let Some(live) = self.live(group) else {
            return Err(ErrorCode::UnknownMemberId);
        };
        live.check_member(committer.member_id, committer.instance_id)?;
        live.check_generation(committer.generation)
    }

    /// What only a plain commit is refused for (GR-61; GR-82: not a transactional one).
    fn check_plain(&self, group: &str, committer: &Committer<'_>) -> Result<(), ErrorCode> {
        match self.state(group) {
            GroupState::Empty => Ok(()),
            // Section 7.6: this is what keeps a client without membership from committing into a live group.
            _ if committer.is_anonymous() => Err(ErrorCode::UnknownMemberId),
            GroupState::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            GroupState::PreparingRebalance
            | GroupState::Stable
            | GroupState::Assigning
            | GroupState::Reconciling => Ok(()),
        }
    }
}

/// The records of a commit that is accepted, and a code for each of its offsets (GR-64, GR-65, GR-69, GR-85).
fn store(
    turn: &mut Turn,
    group: &Arc<str>,
    offsets: &[OffsetToCommit],
    expire_timestamp: i64,
) -> Vec<ErrorCode> {
    let metadata_max = turn.settings.offset_metadata_max_bytes;
    let mut codes = Vec::with_capacity(offsets.len());
    for offset in offsets {
        if is_longer(&offset.metadata, metadata_max) {
            codes.push(ErrorCode::OffsetMetadataTooLarge);
            continue;
        }
        let mut value = OffsetValue {
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
            commit_timestamp: turn.now.wall_ms,
            expire_timestamp,
            topic_id: offset.topic_id,
        };
        if expire_timestamp >= 0 {
            // The record's version with an expiry has no room for these: memory must not know more than the log.
            value.leader_epoch = -1;
            value.topic_id = tally_protocol::TopicId::ZERO;
        }
        turn.records.push(OffsetsRecord::Offset {
            group: group.clone(),
            topic: offset.topic.clone(),
            partition: offset.partition,
            value: Some(value),
        });
        codes.push(ErrorCode::None);
    }
    codes
}

/// Whether `text` has more than `max` UTF-16 code units, which is how the reference counts (GR-64).
fn is_longer(text: &str, max: usize) -> bool {
    text.len() > max && text.encode_utf16().count() > max
}
