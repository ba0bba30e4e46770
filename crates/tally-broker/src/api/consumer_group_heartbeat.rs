//! ConsumerGroupHeartbeat (KIP-848, groups.md section 9): the one request of members of `consumer` groups.

use crate::api::topics::text;
use crate::api::{Client, Node};
use crate::metadata::new_uuid_text;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use std::sync::Arc;
use tally_groups::{
    Assignor, Command, ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, Response,
};
use tally_protocol::records::consumer_group::Partitions;
use tally_protocol::{ErrorCode, TopicId};
use uuid::Uuid;

/// The first version in which members make their own ids (KIP-1082).
const WITH_OWN_ID: i16 = 1;
/// Bytes of records that a heartbeat may write for its own member, besides its strings.
const RECORD_BYTES_MAX: usize = 1024;

pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    version: i16,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    if node.metadata.group_version() < 1 {
        return refused(ErrorCode::UnsupportedVersion);
    }
    if let Err(code) = check(node, version, &request) {
        return refused(code);
    }
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let size_bytes = size_bytes(&request);
    let command = translate(node, client, request);
    let command = Command::ConsumerHeartbeat(Box::new(command));
    match node.group(&group, command, size_bytes).await {
        Ok(Response::ConsumerHeartbeat(response)) if response.error.is_none() => answer(response),
        Ok(Response::ConsumerHeartbeat(response)) => refused(response.error),
        Ok(_) => refused(ErrorCode::UnknownServerError),
        Err(code) => refused(code),
    }
}

/// Section 9.1: what a request has to be by itself.
fn check(
    node: &Node,
    version: i16,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<(), ErrorCode> {
    let is_empty = |text: &Option<_>| text.as_deref().is_some_and(str::is_empty);
    let needs_id = version >= WITH_OWN_ID || request.member_epoch != 0;
    let joins_badly = || {
        let has_nothing = request.topic_partitions.as_ref().is_some_and(Vec::is_empty);
        let subscribes =
            request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
        request.rebalance_timeout_ms == -1 || !has_nothing || !subscribes
    };
    let is_invalid = request.group_id.is_empty()
        || (needs_id && request.member_id.is_empty())
        || is_empty(&request.instance_id)
        || is_empty(&request.rack_id)
        || request.member_epoch < -2
        || (request.member_epoch == -2 && request.instance_id.is_none())
        || (request.member_epoch == 0 && joins_badly());
    if is_invalid {
        return Err(ErrorCode::InvalidRequest);
    }
    let offered = node.config.group_consumer_assignors;
    let is_offered = |assignor: Assignor| offered.iter().any(|other| other == assignor);
    match request.server_assignor.as_deref().map(Assignor::of_name) {
        Some(assignor) if !assignor.is_some_and(is_offered) => Err(ErrorCode::UnsupportedAssignor),
        _ => Ok(()),
    }
}

fn translate(
    node: &Node,
    client: &Client,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerHeartbeatRequest {
    let member_id = if request.member_id.is_empty() {
        Arc::from(new_uuid_text())
    } else {
        Arc::from(request.member_id.as_str())
    };
    let names = request.subscribed_topic_names;
    ConsumerHeartbeatRequest {
        group: Arc::from(request.group_id.as_str()),
        member_id,
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.as_deref().map(Arc::from),
        rack_id: request.rack_id.as_deref().map(Arc::from),
        client_id: Arc::from(client.id()),
        client_host: Arc::from(format!("/{}", client.peer.ip())),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topics: names
            .map(|names| names.iter().map(|name| Arc::from(name.as_str())).collect()),
        subscribed_regex: request.subscribed_topic_regex.as_deref().map(Arc::from),
        assignor: request.server_assignor.as_deref().map(Arc::from),
        owned: request.topic_partitions.map(|topics| {
            let mut owned = Partitions::new();
            for topic in topics
                .into_iter()
                .filter(|topic| !topic.partitions.is_empty())
            {
                let id = TopicId(topic.topic_id.into_bytes());
                owned.entry(id).or_default().extend(topic.partitions);
            }
            owned
        }),
        topics: node.metadata.topics_for_groups(),
        settings: node.metadata.consumer_settings(request.group_id.as_str()),
    }
}

/// What the member adds to the group's records.
fn size_bytes(request: &ConsumerGroupHeartbeatRequest) -> usize {
    let names = request.subscribed_topic_names.iter().flatten();
    let named: usize = names.map(|name| name.len() + 4).sum();
    let regex = request
        .subscribed_topic_regex
        .as_ref()
        .map_or(0, |regex| regex.len());
    let owned = request.topic_partitions.iter().flatten();
    let owned: usize = owned.map(|topic| 24 + 8 * topic.partitions.len()).sum();
    RECORD_BYTES_MAX
        + named
        + 2 * regex
        + 2 * owned
        + 8 * (request.group_id.len() + request.member_id.len())
}

fn answer(response: ConsumerHeartbeatResponse) -> ConsumerGroupHeartbeatResponse {
    let assignment = response.assignment.map(|assignment| {
        let topics = assignment.into_iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic_id(Uuid::from_bytes(topic.0))
                .with_partitions(partitions.into_iter().collect())
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_error_message(None)
        .with_member_id(Some(text(&response.member_id)))
        .with_member_epoch(response.member_epoch)
        .with_heartbeat_interval_ms(response.heartbeat_interval_ms)
        .with_assignment(assignment)
}

fn refused(code: ErrorCode) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(text(reason(code))))
        .with_member_id(None)
        .with_assignment(None)
}

/// What a client that logs it should say.
fn reason(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest => {
            "the request lacks something: a member id, or on joining a rebalance timeout, a subscription and no partitions"
        }
        ErrorCode::UnsupportedVersion => {
            "the consumer group protocol is switched off (group.version 0)"
        }
        ErrorCode::UnsupportedAssignor => "the assignor is none of group.consumer.assignors",
        ErrorCode::UnknownMemberId => "there is no such member; it has to join",
        ErrorCode::FencedMemberEpoch => {
            "the member's epoch is not the group's; it has to join again"
        }
        ErrorCode::UnreleasedInstanceId => "another member has this instance id and has not left",
        ErrorCode::FencedInstanceId => "another member has taken over this instance id",
        ErrorCode::GroupIdNotFound => {
            "there is no such consumer group, or its members use another protocol and it cannot be converted"
        }
        ErrorCode::GroupMaxSizeReached => "the group has as many members as it may",
        ErrorCode::InvalidRegularExpression => {
            "the regular expression cannot be read, or is too large"
        }
        _ => "the coordinator does not answer for this group now",
    }
}
