//! A partition of a topic, as commands name it, and where its records begin and end.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};

use crate::client::{Cluster, Failure, check, text};
use crate::output::Value;

const LIST_OFFSETS_NEWEST: i16 = 7;
/// The timestamp that asks for the end.
pub(crate) const LATEST: i64 = -1;
/// The timestamp that asks for the beginning.
pub(crate) const EARLIEST: i64 = -2;
/// What everybody may read.
pub(crate) const UNCOMMITTED: i8 = 0;
/// What is decided.
pub(crate) const COMMITTED: i8 = 1;

/// A partition of a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl Place {
    /// `TOPIC:PARTITION`.
    pub(crate) fn parse(text: &str) -> Result<Place, Failure> {
        let place = text.rsplit_once(':').and_then(|(topic, partition)| {
            Some(Place {
                topic: topic.to_owned(),
                partition: partition.parse().ok().filter(|index| *index >= 0)?,
            })
        });
        place.ok_or_else(|| Failure::Usage(format!("{text} is not TOPIC:PARTITION")))
    }

    pub(crate) fn value(&self) -> Value {
        Value::Object(vec![
            ("topic", Value::from(self.topic.as_str())),
            ("partition", Value::from(self.partition)),
        ])
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// The offset that a partition gives for a timestamp; -1 if no record is that young.
pub(crate) fn offset_at(
    cluster: &mut Cluster,
    place: &Place,
    leader: i32,
    (timestamp_ms, isolation): (i64, i8),
) -> Result<i64, Failure> {
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation)
        .with_topics(vec![
            ListOffsetsTopic::default()
                .with_name(TopicName(text(&place.topic)))
                .with_partitions(vec![
                    ListOffsetsPartition::default()
                        .with_partition_index(place.partition)
                        .with_timestamp(timestamp_ms),
                ]),
        ]);
    let answer = cluster.call(leader, LIST_OFFSETS_NEWEST, &request)?;
    let mut rows = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let silent = || Failure::Unable(format!("nothing is said about {place}"));
    let row = rows.next().ok_or_else(silent)?;
    check(place.to_string(), row.error_code)?;
    Ok(row.offset)
}

/// Of a partition that the topic does not have: which it has.
pub(crate) fn no_such_partition(topic: &str, count: usize, wanted: &str) -> Failure {
    let last = count.saturating_sub(1);
    Failure::Unable(format!(
        "topic {topic} has {count} partitions, 0 to {last}: there is no {wanted}"
    ))
}
