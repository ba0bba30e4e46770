//! ConsumerGroupHeartbeat (section 9.3): one request joins, reports, learns its assignment and leaves.

use super::live::Wait;
use super::reconcile::Step;
use super::{
    ConsumerGroup, ConsumerSettings, Draft, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_FOR_A_WHILE_EPOCH, Live,
};
use crate::command::{ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, ReplyTo, Response};
use crate::groups::{GroupKind, Groups, Settings, Turn};
use crate::topics::Topics;
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::records::consumer_group::{
    ConsumerGroupRecord, CurrentValue, MemberPhase, PartitionEpochs, Partitions, SubscriptionValue,
};
use tally_protocol::{ErrorCode, Now, TopicId, planted};

/// How often a group's regular expressions are looked up at most: topics that are made in a row cost one look.
const REGEX_PAUSE_MS: u64 = 1_000;

/// What a request that joins or reports has to go by.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a Settings,
    pub(super) group: ConsumerSettings,
    pub(super) topics: &'a Topics,
}

/// What a member says of itself.
pub(super) struct Report<'a> {
    pub(super) member_id: &'a Arc<str>,
    pub(super) subscription: SubscriptionValue,
    pub(super) reported: Option<&'a Partitions>,
}

/// What the group's soft state learns of a member that was heard of.
pub(super) struct Heard {
    /// Its regular expressions were looked up.
    looked_up: bool,
    /// The member whose place this one has taken.
    pub(super) replaced: Option<Arc<str>>,
}

impl Groups {
    pub(crate) fn consumer_heartbeat(
        &mut self,
        turn: &mut Turn,
        request: &ConsumerHeartbeatRequest,
        to: ReplyTo,
    ) {
        self.note_topics(&request.topics);
        let answer = match request.member_epoch {
            LEAVE_EPOCH | LEAVE_FOR_A_WHILE_EPOCH => self.consumer_leave(turn, request),
            _ => self.join_or_report(turn, request),
        };
        let response = answer.unwrap_or_else(ConsumerHeartbeatResponse::refused);
        turn.reply(to, Response::ConsumerHeartbeat(response));
        self.settle(&request.group);
    }

    fn join_or_report(
        &mut self,
        turn: &mut Turn,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<ConsumerHeartbeatResponse, ErrorCode> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let kind = self.kind(&request.group);
        let stored = self.stored().consumer(&request.group);
        let mut draft = Draft::new(request.group.clone(), stored);
        match kind {
            Some(GroupKind::Consumer) => {}
            _ if !joins => return Err(ErrorCode::GroupIdNotFound),
            None => {}
            Some(GroupKind::Classic) => self.upgrade(turn, &mut draft)?,
        }
        let (topics, settings) = (self.topics(), turn.settings);
        let context = Context {
            now: turn.now,
            settings: &settings,
            group: request.settings,
            topics: &topics,
        };
        let live = self.consumer_live(&request.group);
        let member_id = &request.member_id;
        let (heard, before) = beat(&mut draft, &context, request, live)?;
        let after = draft.current(member_id);
        let rebalance_timeout_ms = draft
            .subscription(member_id)
            .map_or(-1, |asked| asked.rebalance_timeout_ms);
        let sessions = (kind == Some(GroupKind::Classic)).then(|| draft.classic_sessions());
        turn.records.extend(draft.into_records());
        if let Some(sessions) = sessions {
            self.become_consumer_group(turn, &request.group, sessions);
        }
        let live = self.consumer_live_mut(&request.group);
        live.heard(&context, &heard);
        live.set_session(member_id, session_deadline(&context));
        live.wait_for_revocation(
            turn.now,
            (member_id, rebalance_timeout_ms),
            (&before, &after),
        );
        let is_full = request.rebalance_timeout_ms != -1
            && (request.subscribed_topics.is_some() || request.subscribed_regex.is_some())
            && request.owned.is_some();
        let has_changed = numbers(&before.assigned) != numbers(&after.assigned);
        Ok(ConsumerHeartbeatResponse {
            error: ErrorCode::None,
            member_id: member_id.clone(),
            member_epoch: after.epoch,
            heartbeat_interval_ms: request.settings.heartbeat_interval_ms,
            assignment: (joins || is_full || has_changed).then(|| numbers(&after.assigned)),
        })
    }
}

/// Rows 2 to 9 of section 9.3; returns what the member had before.
fn beat(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    request: &ConsumerHeartbeatRequest,
    live: Option<&Live>,
) -> Result<(Heard, Arc<CurrentValue>), ErrorCode> {
    let member_id = &request.member_id;
    draft.check_room(member_id, context.settings.consumer_max_size)?;
    let replaced = draft.find_or_replace(request)?;
    let before = draft.current(member_id);
    let asked_before = draft.subscription(member_id).map(|asked| &**asked);
    let subscription = request.subscription_after(asked_before);
    let report = Report {
        member_id,
        subscription,
        reported: request.owned.as_ref(),
    };
    let mut heard = draft.take_in(context, report, live)?;
    heard.replaced = replaced;
    Ok((heard, before))
}

/// Partitions without the epochs at which they were given.
pub(super) fn numbers(partitions: &PartitionEpochs) -> Partitions {
    let topics = partitions.iter();
    topics
        .filter(|(_, partitions)| !partitions.is_empty())
        .map(|(topic, partitions)| (*topic, partitions.keys().copied().collect()))
        .collect()
}

fn session_deadline(context: &Context<'_>) -> u64 {
    let timeout_ms = u64::try_from(context.group.session_timeout_ms).unwrap_or(0);
    context.now.monotonic_ms + timeout_ms
}

impl ConsumerHeartbeatRequest {
    /// What the member asks for now: what is not given stays as it was (section 9.1).
    fn subscription_after(&self, before: Option<&SubscriptionValue>) -> SubscriptionValue {
        let (before, named) = (before.cloned(), &self.subscribed_topics);
        let mut after = before.unwrap_or_else(|| SubscriptionValue {
            instance_id: None,
            rack_id: None,
            client_id: Arc::default(),
            client_host: Arc::default(),
            topics: BTreeSet::new(),
            regex: None,
            rebalance_timeout_ms: -1,
            assignor: None,
            classic: None,
        });
        let keep = |new: &Option<Arc<str>>, old: &mut Option<Arc<str>>| {
            if new.is_some() {
                old.clone_from(new);
            }
        };
        keep(&self.instance_id, &mut after.instance_id);
        keep(&self.rack_id, &mut after.rack_id);
        keep(&self.assignor, &mut after.assignor);
        keep(&self.subscribed_regex, &mut after.regex);
        // Empty: no expression any more.
        after.regex = after.regex.filter(|regex| !regex.is_empty());
        if let Some(topics) = named {
            after.topics = topics.iter().cloned().collect();
        }
        if self.rebalance_timeout_ms != -1 {
            after.rebalance_timeout_ms = self.rebalance_timeout_ms;
        }
        after.client_id = self.client_id.clone();
        after.client_host = self.client_host.clone();
        after.classic = None;
        after
    }
}

impl ConsumerGroup {
    /// Row 2.
    pub(super) fn check_room(&self, member_id: &str, max_size: usize) -> Result<(), ErrorCode> {
        let is_member = self.subscription(member_id).is_some();
        if !is_member && self.subscriptions().count() >= max_size {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(())
    }

    /// Row 4: the epoch that a member names. The one before is that of an answer that was lost, if the member has nothing
    /// that it should not.
    fn check_epoch(
        &self,
        member_id: &str,
        epoch: i32,
        reported: Option<&Partitions>,
    ) -> Result<(), ErrorCode> {
        let current = self.current(member_id);
        if epoch == current.epoch {
            return Ok(());
        }
        let has_no_more = reported.is_some_and(|reported| {
            reported.iter().all(|(topic, partitions)| {
                let assigned = current.assigned.get(topic);
                partitions.iter().all(|partition| {
                    assigned.is_some_and(|assigned| assigned.contains_key(partition))
                })
            })
        });
        if epoch < current.epoch && epoch == current.previous_epoch && has_no_more {
            Ok(())
        } else {
            Err(ErrorCode::FencedMemberEpoch)
        }
    }
}

impl Draft<'_> {
    /// Rows 4 and 5: who it is. Returns the member whose place it takes.
    fn find_or_replace(
        &mut self,
        request: &ConsumerHeartbeatRequest,
    ) -> Result<Option<Arc<str>>, ErrorCode> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let member_id = &request.member_id;
        if let Some(instance_id) = &request.instance_id {
            let known = self.static_member(instance_id).cloned();
            if joins {
                return self.take_place(known, member_id);
            }
            let known = known.ok_or(ErrorCode::UnknownMemberId)?;
            if known != *member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        } else if !joins && self.subscription(member_id).is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        if !joins {
            let reported = request.owned.as_ref();
            self.check_epoch(member_id, request.member_epoch, reported)?;
        }
        Ok(None)
    }

    /// Row 5: a static member that joins. The same member again, whose answer was lost, is not refused.
    fn take_place(
        &mut self,
        known: Option<Arc<str>>,
        member_id: &Arc<str>,
    ) -> Result<Option<Arc<str>>, ErrorCode> {
        let Some(known) = known.filter(|known| known != member_id) else {
            return Ok(None);
        };
        let has_left = self.current(&known).epoch == LEAVE_FOR_A_WHILE_EPOCH;
        if !has_left && !self.is_classic(&known) {
            return Err(ErrorCode::UnreleasedInstanceId);
        }
        self.replace(&known, member_id, 0);
        Ok(Some(known))
    }

    /// A static member goes on under another id, with what the one before had.
    pub(super) fn replace(&mut self, old: &Arc<str>, new: &Arc<str>, epoch: i32) {
        let subscription = self.subscription(old).cloned();
        let target = self.target(old).cloned();
        let current = self.current(old);
        self.write(ConsumerGroupRecord::Current(old.clone(), None));
        self.write(ConsumerGroupRecord::Target(old.clone(), None));
        self.write(ConsumerGroupRecord::Member(old.clone(), None));
        if let Some(subscription) = subscription {
            let value = Some((*subscription).clone());
            self.write(ConsumerGroupRecord::Member(new.clone(), value));
        }
        if let Some(target) = target {
            self.write_target(new.clone(), (*target).clone());
        }
        let current = CurrentValue {
            epoch,
            previous_epoch: 0,
            ..(*current).clone()
        };
        self.write(ConsumerGroupRecord::Current(new.clone(), Some(current)));
    }

    /// Rows 6 to 9: the member's wishes, the group's epoch, the target, the member's next step.
    pub(super) fn take_in(
        &mut self,
        context: &Context<'_>,
        report: Report<'_>,
        live: Option<&Live>,
    ) -> Result<Heard, ErrorCode> {
        let id = report.member_id;
        let asked_before = self.subscription(id).cloned();
        let topics_before = asked_before.as_deref().map(|asked| self.names_of(asked));
        let is_same = asked_before.as_deref() == Some(&report.subscription);
        if !is_same {
            if let Some(regex) = &report.subscription.regex {
                self.resolve(regex, context.topics, context.now)?;
            }
            let value = Some(report.subscription);
            self.write(ConsumerGroupRecord::Member(id.clone(), value));
            let regex_before = asked_before.and_then(|asked| asked.regex.clone());
            self.drop_regex_if_unused(regex_before.as_ref());
        }
        let (looked_up, mut needs_target) = self.look_at_topics(context, live);
        let subscription = self.subscription(id).cloned();
        let subscription = subscription.ok_or(ErrorCode::UnknownServerError)?;
        let subscription_changed =
            !is_same && topics_before.unwrap_or_default() != self.names_of(&subscription);
        needs_target |= subscription_changed;
        if needs_target {
            self.bump(context.topics);
        }
        if self.assignment_is_due(context.now, &context.group) {
            self.make_target(context.now, context.settings, context.topics);
        }
        self.reconcile(
            context,
            (id, &subscription),
            (report.reported, subscription_changed),
        )?;
        Ok(Heard {
            looked_up,
            replaced: None,
        })
    }

    fn names_of(&self, subscription: &SubscriptionValue) -> BTreeSet<Arc<str>> {
        self.topics_of(subscription).cloned().collect()
    }

    /// When topics have come, gone or grown since the group last looked: whether expressions were looked up again, and
    /// whether the group's topics are others now.
    fn look_at_topics(&mut self, context: &Context<'_>, live: Option<&Live>) -> (bool, bool) {
        let seen = live.and_then(|live| live.topics_seen);
        if seen == Some(context.topics.generation()) {
            return (true, false);
        }
        let may_look = live.is_none_or(|live| {
            live.topics_seen.is_none()
                || context.now.monotonic_ms >= live.regexes_looked_up_ms + REGEX_PAUSE_MS
        });
        let may_look = may_look || self.regexes.is_empty();
        let matched = may_look && self.refresh_regexes(context.topics, context.now);
        let hash = context.topics.hash(self.subscribed_topics().iter());
        (may_look, matched || hash != self.metadata_hash())
    }

    /// Row 9.
    fn reconcile(
        &mut self,
        context: &Context<'_>,
        (id, subscription): (&Arc<str>, &SubscriptionValue),
        (reported, subscription_changed): (Option<&Partitions>, bool),
    ) -> Result<(), ErrorCode> {
        let current = self.current(id);
        let is_settled = current.phase == MemberPhase::Stable
            && current.epoch == self.target_epoch()
            && !subscription_changed;
        let subscribed = if is_settled {
            BTreeSet::new()
        } else {
            self.topic_ids(subscription, context.topics)
        };
        let target = self.target(id).cloned();
        let is_free = |topic: TopicId, partition: i32| {
            let owner = self.owner(topic, partition);
            owner.is_none_or(|owner| owner == id) || planted::is("g111")
        };
        let step = Step {
            target_epoch: self.target_epoch(),
            target: target.as_deref(),
            subscribed: &subscribed,
            reported,
            subscription_changed,
            is_free: &is_free,
        };
        let next = step.after(&current)?;
        if next != *current {
            self.write(ConsumerGroupRecord::Current(id.clone(), Some(next)));
        }
        Ok(())
    }
}

impl Live {
    pub(super) fn heard(&mut self, context: &Context<'_>, heard: &Heard) {
        if heard.looked_up {
            let generation = context.topics.generation();
            if self.topics_seen != Some(generation) {
                self.regexes_looked_up_ms = context.now.monotonic_ms;
            }
            self.topics_seen = Some(generation);
        }
        if let Some(replaced) = &heard.replaced {
            self.forget(replaced);
        }
    }

    /// GR-111: a member that has to give partitions back has its rebalance timeout to do so.
    pub(super) fn wait_for_revocation(
        &mut self,
        now: Now,
        (member_id, rebalance_timeout_ms): (&Arc<str>, i32),
        (before, after): (&CurrentValue, &CurrentValue),
    ) {
        let wait = Wait::Revoke { epoch: after.epoch };
        if after.phase != MemberPhase::Unrevoked {
            self.stop_wait(member_id, wait);
        } else if before != after || !self.is_waited_for(member_id, wait) {
            let timeout_ms = u64::try_from(rebalance_timeout_ms).unwrap_or(0);
            self.set_wait(member_id, wait, now.monotonic_ms + timeout_ms);
        }
    }
}
