//! Who leaves, for good or for a while, and who is not heard of in time (section 9.5).

use super::live::Wait;
use super::{ConsumerGroup, Draft, LEAVE_FOR_A_WHILE_EPOCH};
use crate::command::{ConsumerHeartbeatRequest, ConsumerHeartbeatResponse};
use crate::groups::{GroupKind, Groups, Turn};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::ErrorCode;
use tally_protocol::records::consumer_group::{
    ConsumerGroupRecord, CurrentValue, MemberPhase, PartitionEpochs,
};

impl Groups {
    pub(super) fn consumer_leave(
        &mut self,
        turn: &mut Turn,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatResponse, ErrorCode> {
        if self.kind(&request.group) != Some(GroupKind::Consumer) {
            return Err(ErrorCode::GroupIdNotFound);
        }
        let stored = self.stored().consumer(&request.group);
        let mut draft = Draft::new(request.group.clone(), stored);
        let instance_id = request.instance_id.as_deref();
        draft.check_member(&request.member_id, instance_id)?;
        if request.member_epoch == LEAVE_FOR_A_WHILE_EPOCH {
            draft.leave_for_a_while(&request.member_id);
            turn.records.extend(draft.into_records());
            let live = self.consumer_live_mut(&request.group);
            live.stop_wait(&request.member_id, Wait::Revoke { epoch: 0 });
        } else {
            let gone = BTreeSet::from([request.member_id.clone()]);
            self.remove_members(turn, &request.group, &gone);
        }
        Ok(ConsumerHeartbeatResponse {
            error: ErrorCode::None,
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }

    /// Members that left or were not heard of in time: one new epoch for all of them.
    pub(super) fn remove_members(
        &mut self,
        turn: &mut Turn,
        group: &Arc<str>,
        gone: &BTreeSet<Arc<str>>,
    ) {
        let topics = self.topics();
        let stored = self.stored().consumer(group);
        let mut draft = Draft::new(group.clone(), stored);
        draft.remove(gone);
        // Before the epoch rises: it is the generation that the classic members know.
        let downgraded = self.downgrade(turn, &mut draft);
        if downgraded.is_none() {
            draft.bump(&topics);
        }
        turn.records.extend(draft.into_records());
        match downgraded {
            Some(classic) => self.become_classic_group(turn, group, &classic),
            None => {
                let live = self.consumer_live_mut(group);
                for id in gone {
                    live.forget(id);
                }
            }
        }
    }

    /// Does what is due for one group.
    pub(crate) fn expire_consumer_group(&mut self, turn: &mut Turn, group: &Arc<str>) {
        let now_ms = turn.now.monotonic_ms;
        let late = self.consumer_live_mut(group).take_late(now_ms);
        let stored = self.stored().consumer(group);
        let gone: BTreeSet<Arc<str>> = late
            .into_iter()
            .filter(|(id, wait)| stored.is_some_and(|group| group.is_late(id, *wait)))
            .map(|(id, _)| id)
            .collect();
        if !gone.is_empty() {
            self.remove_members(turn, group, &gone);
        }
    }
}

impl ConsumerGroup {
    /// GR-25, for members of a group of this type.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            let known = self.static_member(instance_id);
            let known = known.ok_or(ErrorCode::UnknownMemberId)?;
            if &**known != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        match self.subscription(member_id) {
            Some(_) => Ok(()),
            None => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// Whether a deadline that has passed still means something.
    fn is_late(&self, member_id: &str, wait: Wait) -> bool {
        let current = self.current(member_id);
        let matters = match wait {
            Wait::Session => true,
            Wait::Revoke { epoch } => {
                current.epoch == epoch && current.phase == MemberPhase::Unrevoked
            }
            Wait::Join | Wait::Sync => self.is_classic(member_id),
        };
        matters && self.subscription(member_id).is_some()
    }
}

impl Draft<'_> {
    /// It keeps what it has, and gives up what it should; its session goes on.
    fn leave_for_a_while(&mut self, member_id: &Arc<str>) {
        let current = self.current(member_id);
        let mut assigned = current.assigned.clone();
        for epoch in assigned.values_mut().flat_map(BTreeMap::values_mut) {
            *epoch = 0;
        }
        let current = CurrentValue {
            epoch: LEAVE_FOR_A_WHILE_EPOCH,
            previous_epoch: current.epoch,
            phase: current.phase,
            assigned,
            revoking: PartitionEpochs::new(),
        };
        self.write(ConsumerGroupRecord::Current(
            member_id.clone(),
            Some(current),
        ));
    }

    fn remove(&mut self, gone: &BTreeSet<Arc<str>>) {
        for id in gone {
            let regex = self.subscription(id).and_then(|asked| asked.regex.clone());
            self.write(ConsumerGroupRecord::Current(id.clone(), None));
            self.write(ConsumerGroupRecord::Target(id.clone(), None));
            self.write(ConsumerGroupRecord::Member(id.clone(), None));
            self.drop_regex_if_unused(regex.as_ref());
        }
    }
}
