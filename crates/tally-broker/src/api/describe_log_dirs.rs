//! DescribeLogDirs (log-and-fetch.md 11.6): the one directory and what the logs in it take.

use crate::api::Node;
use crate::api::topics::{text, topic_name};
use crate::metadata::Topic;
use bytes::BufMut;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tally_protocol::{PartitionId, frame};
use tally_shard::{Inspected, Inspection};

/// What is not known of a volume.
const UNKNOWN: i64 = -1;

/// Partitions to describe, by topic.
type Wanted = BTreeMap<Arc<str>, BTreeSet<PartitionId>>;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let mut directory = DescribeLogDirsResult::default();
    let path = &node.config.data_dir;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    directory.log_dir = text(&absolute.to_string_lossy());
    for (name, partitions) in wanted(node, &request) {
        let mut topic = DescribeLogDirsTopic::default();
        topic.name = topic_name(&name);
        for id in partitions {
            // One that has been deleted in between is not there.
            if let Ok(Inspected::SizeBytes(bytes)) = node.inspect(id, Inspection::SizeBytes).await {
                let row = DescribeLogDirsPartition::default()
                    .with_partition_index(id.index)
                    .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX));
                topic.partitions.push(row);
            }
        }
        if !topic.partitions.is_empty() {
            directory.topics.push(topic);
        }
    }
    if version >= 4 {
        (directory.total_bytes, directory.usable_bytes) = volume(&absolute);
    }
    DescribeLogDirsResponse::default().with_results(vec![directory])
}

/// Makes the frame of version 4 that of version 5, which the codec does not know: its one directory ends with whether new
/// partitions are kept out of it (KIP-1066), behind which come the tagged fields of the directory and of the response.
pub(crate) fn not_cordoned(mut frame: Vec<u8>) -> Vec<u8> {
    const NO_TAGGED_FIELDS: [u8; 2] = [0; 2];
    const NOT_CORDONED: u8 = 0;
    debug_assert!(
        frame.ends_with(&NO_TAGGED_FIELDS),
        "one directory, no tagged fields"
    );
    frame.truncate(frame.len() - NO_TAGGED_FIELDS.len());
    frame.put_u8(NOT_CORDONED);
    frame.put_slice(&NO_TAGGED_FIELDS);
    frame::finish_response(&mut frame);
    frame
}

/// What of the request exists; null asks for everything.
fn wanted(node: &Node, request: &DescribeLogDirsRequest) -> Wanted {
    let mut wanted = Wanted::new();
    let mut add = |topic: &Topic, id: PartitionId| {
        let partitions = wanted.entry(Arc::clone(&topic.name)).or_default();
        partitions.insert(id);
    };
    match &request.topics {
        None => {
            for topic in node.metadata.topics() {
                topic.partition_ids().for_each(|id| add(&topic, id));
            }
        }
        Some(topics) => {
            for asked in topics {
                if let Some(topic) = node.metadata.topic(&asked.topic) {
                    let ids = asked.partitions.iter();
                    let ids = ids.filter_map(|index| topic.partition_id(*index));
                    ids.for_each(|id| add(&topic, id));
                }
            }
        }
    }
    wanted
}

/// Bytes of the volume in all, and free for the broker.
fn volume(path: &Path) -> (i64, i64) {
    match rustix::fs::statvfs(path) {
        Ok(volume) => {
            let bytes = |blocks: u64| {
                let bytes = blocks.saturating_mul(volume.f_frsize);
                i64::try_from(bytes).unwrap_or(i64::MAX)
            };
            (bytes(volume.f_blocks), bytes(volume.f_bavail))
        }
        Err(_) => (UNKNOWN, UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_version_5_says_that_it_is_not_cordoned() {
        // Length, correlation id, no tags; throttle time, no error, one directory: no error, "d", no topics, two sizes.
        let mut four = vec![0, 0, 0, 36, 0, 0, 0, 7, 0];
        four.extend([0; 6]);
        four.extend([2, 0, 0, 2, b'd', 1]);
        four.extend([9; 16]);
        let mut five = four.clone();
        five[3] += 1;
        // Not cordoned, then the two sections of tags.
        five.extend([0, 0, 0]);
        four.extend([0, 0]);
        let made = not_cordoned(four.to_vec());
        assert_eq!(made.len() - 4, 36);
        assert_eq!(made[4..], five[4..]);
    }
}
