//! What the topic APIs share: creation and deletion carried through to the shards, and text in the codec's types.

use crate::api::Node;
use crate::broker::partition_settings;
use crate::metadata::{
    CONSUMER_OFFSETS, CreateTopicError, DeleteTopicError, GrowTopicError, NewTopic, Topic,
};
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use tally_protocol::PartitionId;
use tally_protocol::wire::STRING_BYTES_MAX;
use tally_shard::ShardMessage;
use tokio::runtime::{Handle, RuntimeFlavor};

/// "Everything is allowed" for a topic, as a bit field (LR-136).
pub(crate) const TOPIC_OPERATIONS: i32 = 3576;
/// The same for the cluster.
pub(crate) const CLUSTER_OPERATIONS: i32 = 8096;
/// "Not asked for".
pub(crate) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// Text for the codec crate. A sentence that quotes the longest of names is cut to what a string of the wire holds.
pub(crate) fn text(text: &str) -> StrBytes {
    let mut end = text.len().min(STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    StrBytes::from_string(text[..end].to_owned())
}

/// Why a topic that a request names more than once is refused.
pub(crate) fn named_twice(name: &str) -> String {
    format!("the request names topic {name} more than once: name it once")
}

/// A topic's name for the codec crate.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Creates a topic; it can be used on return (LR-142).
pub(crate) fn create(node: &Node, new: NewTopic) -> Result<Arc<Topic>, CreateTopicError> {
    let mut outcomes = create_all(node, vec![new]);
    outcomes.pop().expect("an outcome for each topic")
}

/// Creates topics, each for itself, with one write of the metadata.
pub(crate) fn create_all(
    node: &Node,
    new: Vec<NewTopic>,
) -> Vec<Result<Arc<Topic>, CreateTopicError>> {
    let open = |topic: &Topic| {
        let settings = partition_settings(topic);
        for id in topic.partition_ids() {
            if let Err(error) = node.shards.open(id, settings) {
                tracing::error!(topic = %topic.name, partition = id.index, %error, "partition of a new topic not opened");
            }
        }
    };
    waiting_for_the_disk(|| node.metadata.create_topics(new, open))
}

/// Changes of the metadata are synced: other connections have this processor meanwhile.
pub(crate) fn waiting_for_the_disk<T>(change: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(change),
        _ => change(),
    }
}

/// Gives a topic more partitions; they can be used as soon as they can be seen.
pub(crate) fn grow(node: &Node, name: &str, count: i32) -> Result<(), GrowTopicError> {
    let open = |topic: &Topic, new: Vec<PartitionId>| {
        let settings = partition_settings(topic);
        for id in new {
            if let Err(error) = node.shards.open(id, settings) {
                tracing::error!(topic = %topic.name, partition = id.index, %error, "new partition not opened");
            }
        }
    };
    waiting_for_the_disk(|| node.metadata.grow_topic(name, count, open))
}

/// Deletes a topic: its data, and the offsets that groups have committed for it (GR-93).
pub(crate) fn delete(node: &Node, name: &str) -> Result<Arc<Topic>, DeleteTopicError> {
    let topic = waiting_for_the_disk(|| node.metadata.delete_topic(name))?;
    for id in topic.partition_ids() {
        node.shards.tell(id, ShardMessage::Delete);
    }
    if let Some(offsets) = node.metadata.topic(CONSUMER_OFFSETS) {
        for id in offsets.partition_ids() {
            let message = ShardMessage::TopicDeleted {
                topic: Arc::clone(&topic.name),
                topic_id: topic.id,
            };
            node.shards.tell(id, message);
        }
    }
    Ok(topic)
}
