//! What commits and reads of offsets ask of a group of the `consumer` protocol (GR-63, GR-72, GR-81).

use super::ConsumerGroup;
use crate::command::OffsetToCommit;
use tally_protocol::ErrorCode;

/// Who commits.
pub(crate) struct Committer<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance_id: Option<&'a str>,
    /// Of the classic protocol: a generation.
    pub(crate) epoch: i32,
}

/// How offsets are committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CommitKind {
    /// OffsetCommit.
    Plain {
        /// A version that knows of this protocol: 9 and later.
        knows_epochs: bool,
    },
    /// TxnOffsetCommit.
    Transactional,
}

impl ConsumerGroup {
    /// Whether all of it may be committed.
    ///
    /// An epoch below the member's is good for the partitions that the member has had ever since (KIP-1251): nobody else
    /// can have committed them in between.
    pub(crate) fn check_commit(
        &self,
        committer: &Committer<'_>,
        kind: CommitKind,
        offsets: &[OffsetToCommit],
    ) -> Result<(), ErrorCode> {
        let is_anonymous = committer.epoch < 0
            && committer.member_id.is_empty()
            && committer.instance_id.is_none();
        if committer.epoch < 0 && !self.has_members() {
            return Ok(());
        }
        if kind == CommitKind::Transactional && is_anonymous {
            return Ok(());
        }
        let subscription = self.subscription(committer.member_id);
        let subscription = subscription.ok_or(ErrorCode::UnknownMemberId)?;
        let is_classic = subscription.classic.is_some();
        let knows_epochs = kind
            != CommitKind::Plain {
                knows_epochs: false,
            };
        if !is_classic && !knows_epochs {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let current = self.current(committer.member_id);
        if committer.epoch == current.epoch {
            return Ok(());
        }
        let has_had = |offset: &OffsetToCommit| {
            let topics = [&current.assigned, &current.revoking];
            let mut since = topics
                .iter()
                .filter_map(|topics| topics.get(&offset.topic_id)?.get(&offset.partition));
            since.any(|since| committer.epoch >= *since)
        };
        if (0..current.epoch).contains(&committer.epoch) && offsets.iter().all(has_had) {
            return Ok(());
        }
        Err(if is_classic || kind == CommitKind::Transactional {
            ErrorCode::IllegalGeneration
        } else {
            ErrorCode::StaleMemberEpoch
        })
    }

    /// GR-72: a member that names itself has to be who it says.
    pub(crate) fn check_fetch(&self, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        let subscription = self.subscription(member_id);
        let subscription = subscription.ok_or(ErrorCode::UnknownMemberId)?;
        if epoch == self.current(member_id).epoch {
            return Ok(());
        }
        Err(match subscription.classic {
            Some(_) => ErrorCode::IllegalGeneration,
            None => ErrorCode::StaleMemberEpoch,
        })
    }
}
