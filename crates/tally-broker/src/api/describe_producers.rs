//! DescribeProducers (L-3).

use crate::api::Node;
use crate::api::topics::text;
use crate::metadata::check_topic_name;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId as WireProducerId,
};
use std::collections::BTreeSet;
use tally_producer_state::ProducerDescription;
use tally_protocol::ErrorCode;
use tally_shard::{ShardMessage, ShardReply};

pub(crate) async fn handle(
    node: &Node,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut response = DescribeProducersResponse::default();
    // Named twice is answered once: a few bytes must not ask for all producers again and again.
    let mut seen = BTreeSet::new();
    for topic in &request.topics {
        let mut result = TopicResponse::default();
        result.name = topic.name.clone();
        let indexes = topic.partition_indexes.iter();
        for &index in indexes.filter(|index| seen.insert((topic.name.as_str(), **index))) {
            let mut row = PartitionResponse::default();
            row.partition_index = index;
            row.error_message = None;
            match producers(node, &topic.name, index).await {
                Ok(producers) => {
                    row.active_producers = producers.iter().map(described).collect();
                }
                Err((code, message)) => {
                    row.error_code = code.code();
                    row.error_message = Some(text(&message));
                }
            }
            result.partitions.push(row);
        }
        response.topics.push(result);
    }
    response
}

async fn producers(
    node: &Node,
    topic: &str,
    index: i32,
) -> Result<Vec<ProducerDescription>, (ErrorCode, String)> {
    let Some(id) = node.metadata.partition_id(topic, index) else {
        return Err(match check_topic_name(topic) {
            // The row says of which partition; a name in each sentence would make a small request a large answer.
            Err(_) => (
                ErrorCode::InvalidTopicException,
                "no topic may have that name".to_owned(),
            ),
            Ok(()) => (
                ErrorCode::UnknownTopicOrPartition,
                "there is no such partition".to_owned(),
            ),
        });
    };
    let message = |to| ShardMessage::DescribeProducers { to };
    let code = match node.ask(id, message).await {
        Some(ShardReply::Producers(Ok(producers))) => return Ok(producers),
        Some(ShardReply::Producers(Err(code))) => code,
        _ => ErrorCode::NotLeaderOrFollower,
    };
    Err((
        code,
        format!("partition {index} of {topic} is not served now"),
    ))
}

fn described(producer: &ProducerDescription) -> ProducerState {
    ProducerState::default()
        .with_producer_id(WireProducerId(producer.producer_id.0))
        .with_producer_epoch(i32::from(producer.producer_epoch.0))
        .with_last_sequence(producer.last_sequence.0)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch.0)
        .with_current_txn_start_offset(producer.current_transaction_start.0)
}
