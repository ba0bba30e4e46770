//! AlterReplicaLogDirs (log-and-fetch.md 11.6): there is one directory, and every partition is in it already.

use crate::api::Node;
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, TopicName,
};
use std::collections::BTreeMap;
use std::path::Path;
use tally_protocol::ErrorCode;

pub(crate) fn handle(
    node: &Node,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let own = &node.config.data_dir;
    let own = std::path::absolute(own).unwrap_or_else(|_| own.clone());
    let mut topics: BTreeMap<TopicName, AlterReplicaLogDirTopicResult> = BTreeMap::new();
    for directory in request.dirs {
        let is_own = Path::new(directory.path.as_str()) == own;
        for topic in directory.topics {
            let rows = topic.partitions.iter().map(|&index| {
                let code = if !is_own {
                    ErrorCode::LogDirNotFound
                } else if node.metadata.partition_id(&topic.name, index).is_none() {
                    ErrorCode::UnknownTopicOrPartition
                } else {
                    ErrorCode::None
                };
                AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code.code())
            });
            let result = topics.entry(topic.name.clone()).or_default();
            result.topic_name = topic.name.clone();
            result.partitions.extend(rows);
        }
    }
    AlterReplicaLogDirsResponse::default().with_results(topics.into_values().collect())
}
