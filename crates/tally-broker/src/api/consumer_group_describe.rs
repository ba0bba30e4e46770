//! ConsumerGroupDescribe (GR-102): groups of the `consumer` protocol.

use crate::api::Node;
use crate::api::describe_groups::GROUP_OPERATIONS;
use crate::api::topics::{OPERATIONS_NOT_ASKED, text, topic_name};
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_groups::{ConsumerGroupDescription, ConsumerMemberDescription};
use tally_protocol::ErrorCode;
use tally_protocol::records::consumer_group::Partitions;
use tally_shard::{Inspected, Inspection};
use uuid::Uuid;

/// The first version that says which protocol a member uses.
const WITH_MEMBER_TYPE: i16 = 1;
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let mut response = ConsumerGroupDescribeResponse::default();
    // Named twice is answered once: a few bytes must not ask for all members again and again.
    let mut seen = BTreeSet::new();
    let groups = request.group_ids.iter();
    for group in groups.filter(|group| seen.insert(*group)) {
        let mut row = match look(node, group).await {
            Ok(found) => described(node, version, found),
            Err(code) => refused(code, group),
        };
        row.group_id = group.clone();
        row.authorized_operations =
            if request.include_authorized_operations && row.error_code == ErrorCode::None.code() {
                GROUP_OPERATIONS
            } else {
                OPERATIONS_NOT_ASKED
            };
        response.groups.push(row);
    }
    response
}

async fn look(node: &Node, group: &GroupId) -> Result<ConsumerGroupDescription, ErrorCode> {
    if group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let (id, _) = node
        .group_partition(group)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let what = Inspection::ConsumerGroup(Arc::from(group.as_str()));
    match node.inspect(id, what).await? {
        Inspected::ConsumerGroup(description) => description.ok_or(ErrorCode::GroupIdNotFound),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

fn described(node: &Node, version: i16, group: ConsumerGroupDescription) -> DescribedGroup {
    let mut row = DescribedGroup::default();
    row.error_message = None;
    row.group_state = text(group.state.name());
    row.group_epoch = group.epoch;
    row.assignment_epoch = group.assignment_epoch;
    row.assignor_name = text(group.assignor);
    let members = group.members.into_iter();
    row.members = members
        .map(|member| described_member(node, version, member))
        .collect();
    row
}

fn described_member(node: &Node, version: i16, member: ConsumerMemberDescription) -> Member {
    let mut row = Member::default();
    row.member_id = text(&member.member_id);
    row.instance_id = member.instance_id.map(|id| text(&id));
    row.rack_id = member.rack_id.map(|id| text(&id));
    row.member_epoch = member.epoch;
    row.client_id = text(&member.client_id);
    row.client_host = text(&member.client_host);
    row.subscribed_topic_names = member.topics.iter().map(|name| topic_name(name)).collect();
    row.subscribed_topic_regex = member.regex.map(|regex| text(&regex));
    row.assignment = assignment(node, &member.assigned);
    row.target_assignment = assignment(node, &member.target);
    if version >= WITH_MEMBER_TYPE {
        row.member_type = if member.is_classic { CLASSIC } else { CONSUMER };
    }
    row
}

/// Topics that are gone have no name and are left out.
fn assignment(node: &Node, partitions: &Partitions) -> Assignment {
    let topics = partitions.iter().filter_map(|(id, partitions)| {
        let topic = node.metadata.topic_by_id(*id)?;
        let row = TopicPartitions::default()
            .with_topic_id(Uuid::from_bytes(id.0))
            .with_topic_name(topic_name(&topic.name))
            .with_partitions(partitions.iter().copied().collect());
        Some(row)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

fn refused(code: ErrorCode, group: &GroupId) -> DescribedGroup {
    let mut row = DescribedGroup::default();
    row.error_code = code.code();
    row.error_message = Some(match code {
        ErrorCode::GroupIdNotFound => {
            text(&format!("there is no consumer group {}", group.as_str()))
        }
        ErrorCode::InvalidGroupId => text("a group id is not empty"),
        _ => text("the coordinator does not answer for this group now"),
    });
    row
}
