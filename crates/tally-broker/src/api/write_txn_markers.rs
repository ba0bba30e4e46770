//! WriteTxnMarkers (exactly-once.md 4.3): how an operator ends a transaction that nobody else will end (L-4).

use crate::api::Node;
use crate::api::topics::topic_name;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{ProducerId as WireProducerId, WriteTxnMarkersResponse};
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_producer_state::Marker;
use tally_protocol::request::{WritableMarker, WriteTxnMarkersRequest};
use tally_protocol::{ErrorCode, ProducerId};
use tally_shard::{ShardMessage, ShardReply};

/// Of one producer, by topic and partition.
type Results = BTreeMap<Arc<str>, BTreeMap<i32, ErrorCode>>;

pub(crate) async fn handle(
    node: &Node,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    // M-10: several markers of one producer are answered in one place.
    let mut by_producer: BTreeMap<ProducerId, Results> = BTreeMap::new();
    for marker in &request.markers {
        let results = by_producer.entry(marker.producer_id).or_default();
        for (topic, partitions) in &marker.topics {
            for &index in partitions {
                let code = write(node, marker, topic, index).await;
                let topic = results.entry(Arc::clone(topic)).or_default();
                topic.insert(index, code);
            }
        }
    }
    let markers = by_producer
        .into_iter()
        .map(|(producer_id, results)| {
            WritableTxnMarkerResult::default()
                .with_producer_id(WireProducerId(producer_id.0))
                .with_topics(results.into_iter().map(topic_result).collect())
        })
        .collect();
    WriteTxnMarkersResponse::default().with_markers(markers)
}

async fn write(node: &Node, order: &WritableMarker, topic: &str, index: i32) -> ErrorCode {
    let Some(id) = node.metadata.partition_id(topic, index) else {
        return ErrorCode::UnknownTopicOrPartition;
    };
    // A batch without a producer would be no marker for whoever reads the log.
    if order.producer_id.0 < 0 || order.producer_epoch.0 < 0 {
        return ErrorCode::InvalidRequest;
    }
    let marker = Marker {
        producer_id: order.producer_id,
        producer_epoch: order.producer_epoch,
        coordinator_epoch: order.coordinator_epoch,
        commit: order.commit,
        transaction_version: order.transaction_version,
    };
    match node
        .ask(id, |to| ShardMessage::WriteMarker { marker, to })
        .await
    {
        Some(ShardReply::Marker(Ok(()))) => {
            let (producer, epoch) = (order.producer_id.0, order.producer_epoch.0);
            let outcome = if order.commit { "commit" } else { "abort" };
            tracing::warn!(
                topic,
                index,
                producer,
                epoch,
                outcome,
                "W2111 txn.marker: written for an operator"
            );
            ErrorCode::None
        }
        Some(ShardReply::Marker(Err(code))) => code,
        _ => ErrorCode::NotLeaderOrFollower,
    }
}

fn topic_result(
    (topic, partitions): (Arc<str>, BTreeMap<i32, ErrorCode>),
) -> WritableTxnMarkerTopicResult {
    let rows = partitions.into_iter().map(|(index, code)| {
        WritableTxnMarkerPartitionResult::default()
            .with_partition_index(index)
            .with_error_code(code.code())
    });
    WritableTxnMarkerTopicResult::default()
        .with_name(topic_name(&topic))
        .with_partitions(rows.collect())
}
