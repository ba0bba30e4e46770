//! DescribeQuorum (KIP-595, KIP-836, KIP-853): this node is its own controller, the leader and only voter of the metadata.
//!
//! Its "log" is the metadata store: the revision of the last commit is the offset, the incarnation the epoch.

use crate::api::Node;
use crate::api::topics::{text, topic_name, waiting_for_the_disk};
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node as Voter, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse};
use tally_protocol::ErrorCode;

/// The one partition there is to ask about.
const TOPIC: &str = "__cluster_metadata";
const PARTITION: i32 = 0;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let is_known = matches!(&request.topics[..], [topic]
        if topic.topic_name.as_str() == TOPIC
            && matches!(&topic.partitions[..], [partition] if partition.partition_index == PARTITION));
    if !is_known {
        return DescribeQuorumResponse::default().with_topics(unknown(request));
    }
    let me = BrokerId(node.config.node_id);
    let now = node.shards.now().wall_ms;
    // A change of the metadata may be at its sync just now.
    let offset = waiting_for_the_disk(|| node.metadata.revision());
    let voter = ReplicaState::default()
        .with_replica_id(me)
        .with_log_end_offset(offset)
        .with_last_fetch_timestamp(now)
        .with_last_caught_up_timestamp(now);
    let partition = PartitionData::default()
        .with_partition_index(PARTITION)
        .with_leader_id(me)
        .with_leader_epoch(node.metadata.coordinator_epoch().0)
        .with_high_watermark(offset)
        .with_current_voters(vec![voter]);
    let mut response = DescribeQuorumResponse::default().with_topics(vec![
        TopicData::default()
            .with_topic_name(topic_name(TOPIC))
            .with_partitions(vec![partition]),
    ]);
    if version >= 2 {
        let listener = Listener::default()
            .with_name(text("PLAINTEXT"))
            .with_host(text(&node.advertised.host))
            .with_port(node.advertised.port);
        response.nodes = vec![
            Voter::default()
                .with_node_id(me)
                .with_listeners(vec![listener]),
        ];
    }
    response
}

/// Every partition asked for, as unknown: with another one beside it, the one is unknown too, as to Kafka.
fn unknown(request: DescribeQuorumRequest) -> Vec<TopicData> {
    let topics = request.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        });
        TopicData::default()
            .with_topic_name(topic.topic_name)
            .with_partitions(rows.collect())
    });
    topics.collect()
}
