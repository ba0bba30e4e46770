//! The records of `__consumer_offsets` (groups.md section 10).
//!
//! | key type | record | value written | values read |
//! |---|---|---|---|
//! | 0, 1 | committed offset of (group, topic, partition) | 4 (flexible), or 1 when it has an expiry of its own | 0 to 4 |
//! | 2 | classic group | 3 | 0 to 4 |
//! | 3, 5 to 8, 16 | a group of the `consumer` protocol: [`super::consumer_group`] | 0 | 0 |
//!
//! Keys are never flexible. Other key types are skipped.

use super::RecordError;
use super::consumer_group::ConsumerGroupRecord;
use crate::ids::TopicId;
use crate::wire::{
    Reader, put_array_length, put_bytes, put_no_tagged_fields, put_nullable_string, put_string,
    put_uvarint,
};
use bytes::{BufMut, Bytes};
use std::sync::Arc;

const KEY_LEGACY_OFFSET: i16 = 0;
const KEY_OFFSET: i16 = 1;
const KEY_GROUP: i16 = 2;

const OFFSET_VALUE_MAX: i16 = 4;
/// The one version with a field for the expiry.
const OFFSET_VALUE_WITH_EXPIRY: i16 = 1;
const GROUP_VALUE_WRITTEN: i16 = 3;
const GROUP_VALUE_MAX: i16 = 4;

const TAG_TOPIC_ID: u32 = 0;
/// Bytes of the smallest member: three strings, a timeout and two byte fields of version 4 and their tags.
const MEMBER_BYTES_MIN: usize = 10;

/// One record of the offsets topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OffsetsRecord {
    /// A committed offset.
    Offset {
        /// The group.
        group: Arc<str>,
        /// The topic's name.
        topic: Arc<str>,
        /// The partition's number.
        partition: i32,
        /// What was committed; `None` is a tombstone.
        value: Option<OffsetValue>,
    },
    /// A classic group.
    Group {
        /// The group.
        group: Arc<str>,
        /// Its last stable generation; `None` is a tombstone.
        value: Option<GroupValue>,
    },
    /// A piece of a group of the `consumer` protocol.
    Consumer {
        /// The group.
        group: Arc<str>,
        /// Which piece.
        record: ConsumerGroupRecord,
    },
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next offset to consume.
    pub offset: i64,
    /// Leader epoch of the last consumed record; -1 unknown.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: Arc<str>,
    /// Wall clock of the commit, milliseconds since 1970.
    pub commit_timestamp: i64,
    /// When it expires, milliseconds since 1970; -1: by the broker's retention. Version 1, which is written when this is
    /// set, has no room for `leader_epoch` and `topic_id`.
    pub expire_timestamp: i64,
    /// The topic's id; zero unknown.
    pub topic_id: TopicId,
}

/// A classic group as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// `consumer`, `connect`, ...; empty for a group that only committed offsets.
    pub protocol_type: Arc<str>,
    /// The generation.
    pub generation: i32,
    /// The protocol chosen.
    pub protocol: Option<Arc<str>>,
    /// Member id of the leader.
    pub leader: Option<Arc<str>>,
    /// Wall clock of the last change of state, milliseconds since 1970; -1 unknown.
    pub current_state_timestamp: i64,
    /// The members.
    pub members: Vec<MemberValue>,
}

/// A member of a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    /// The member id.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub group_instance_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The address it came from.
    pub client_host: Arc<str>,
    /// How long a rebalance waits for it, milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, milliseconds.
    pub session_timeout_ms: i32,
    /// Its metadata under the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

impl OffsetsRecord {
    /// The key of the record.
    #[must_use]
    pub fn encode_key(&self) -> Vec<u8> {
        match self {
            OffsetsRecord::Offset {
                group,
                topic,
                partition,
                ..
            } => {
                let mut out = Vec::with_capacity(10 + group.len() + topic.len());
                out.put_i16(KEY_OFFSET);
                put_string(&mut out, false, group);
                put_string(&mut out, false, topic);
                out.put_i32(*partition);
                out
            }
            OffsetsRecord::Group { group, .. } => {
                let mut out = Vec::with_capacity(4 + group.len());
                out.put_i16(KEY_GROUP);
                put_string(&mut out, false, group);
                out
            }
            OffsetsRecord::Consumer { group, record } => record.encode_key(group),
        }
    }

    /// The group it is of.
    #[must_use]
    pub fn group(&self) -> &Arc<str> {
        match self {
            OffsetsRecord::Offset { group, .. }
            | OffsetsRecord::Group { group, .. }
            | OffsetsRecord::Consumer { group, .. } => group,
        }
    }

    /// The value of the record; `None` for a tombstone.
    #[must_use]
    pub fn encode_value(&self) -> Option<Vec<u8>> {
        match self {
            OffsetsRecord::Offset { value, .. } => value.as_ref().map(OffsetValue::encode),
            OffsetsRecord::Group { value, .. } => value.as_ref().map(GroupValue::encode),
            OffsetsRecord::Consumer { record, .. } => record.encode_value(),
        }
    }

    /// Reads a record; `Ok(None)` if its key type or value version is not known here: skip it.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<OffsetsRecord>, RecordError> {
        let mut key = Reader::new(key);
        match key.i16()? {
            KEY_LEGACY_OFFSET | KEY_OFFSET => {
                let group = Arc::from(key.string(false)?);
                let topic = Arc::from(key.string(false)?);
                let partition = key.i32()?;
                let Some(value) = decode_value(value, OffsetValue::decode)? else {
                    return Ok(None);
                };
                Ok(Some(OffsetsRecord::Offset {
                    group,
                    topic,
                    partition,
                    value,
                }))
            }
            KEY_GROUP => {
                let group = Arc::from(key.string(false)?);
                let Some(value) = decode_value(value, GroupValue::decode)? else {
                    return Ok(None);
                };
                Ok(Some(OffsetsRecord::Group { group, value }))
            }
            kind => {
                let read = ConsumerGroupRecord::decode(kind, key, value)?;
                Ok(read.map(|(group, record)| OffsetsRecord::Consumer { group, record }))
            }
        }
    }
}

/// `None`: the version is not known. `Some(None)`: a tombstone.
fn decode_value<T>(
    value: Option<&[u8]>,
    decode: impl FnOnce(&[u8]) -> Result<Option<T>, RecordError>,
) -> Result<Option<Option<T>>, RecordError> {
    match value {
        None => Ok(Some(None)),
        Some(bytes) => Ok(decode(bytes)?.map(Some)),
    }
}

impl OffsetValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.metadata.len());
        if self.expire_timestamp >= 0 {
            out.put_i16(OFFSET_VALUE_WITH_EXPIRY);
            out.put_i64(self.offset);
            put_string(&mut out, false, &self.metadata);
            out.put_i64(self.commit_timestamp);
            out.put_i64(self.expire_timestamp);
            return out;
        }
        out.put_i16(OFFSET_VALUE_MAX);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_string(&mut out, true, &self.metadata);
        out.put_i64(self.commit_timestamp);
        if self.topic_id == TopicId::ZERO {
            put_no_tagged_fields(&mut out, true);
        } else {
            put_uvarint(&mut out, 1);
            put_uvarint(&mut out, TAG_TOPIC_ID);
            put_uvarint(&mut out, 16);
            out.put_slice(&self.topic_id.0);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Option<OffsetValue>, RecordError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=OFFSET_VALUE_MAX).contains(&version) {
            return Ok(None);
        }
        let flexible = version >= 4;
        let mut value = OffsetValue {
            offset: reader.i64()?,
            leader_epoch: if version >= 3 { reader.i32()? } else { -1 },
            metadata: Arc::from(reader.string(flexible)?),
            commit_timestamp: reader.i64()?,
            expire_timestamp: if version == OFFSET_VALUE_WITH_EXPIRY {
                reader.i64()?
            } else {
                -1
            },
            topic_id: TopicId::ZERO,
        };
        reader.tagged_fields(flexible, |tag, field| {
            if tag == TAG_TOPIC_ID {
                value.topic_id = TopicId(field.array()?);
            }
            Ok(())
        })?;
        Ok(Some(value))
    }
}

impl GroupValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 128 * self.members.len());
        out.put_i16(GROUP_VALUE_WRITTEN);
        put_string(&mut out, false, &self.protocol_type);
        out.put_i32(self.generation);
        put_nullable_string(&mut out, false, self.protocol.as_deref());
        put_nullable_string(&mut out, false, self.leader.as_deref());
        out.put_i64(self.current_state_timestamp);
        put_array_length(&mut out, false, self.members.len());
        for member in &self.members {
            put_string(&mut out, false, &member.member_id);
            put_nullable_string(&mut out, false, member.group_instance_id.as_deref());
            put_string(&mut out, false, &member.client_id);
            put_string(&mut out, false, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, false, &member.subscription);
            put_bytes(&mut out, false, &member.assignment);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Option<GroupValue>, RecordError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=GROUP_VALUE_MAX).contains(&version) {
            return Ok(None);
        }
        let flexible = version >= 4;
        let mut value = GroupValue {
            protocol_type: Arc::from(reader.string(flexible)?),
            generation: reader.i32()?,
            protocol: reader.nullable_string(flexible)?.map(Arc::from),
            leader: reader.nullable_string(flexible)?.map(Arc::from),
            current_state_timestamp: if version >= 2 { reader.i64()? } else { -1 },
            members: Vec::new(),
        };
        let count = reader
            .array_length(flexible, MEMBER_BYTES_MIN)?
            .unwrap_or(0);
        value.members.reserve_exact(count);
        for _ in 0..count {
            value
                .members
                .push(MemberValue::decode(&mut reader, version)?);
        }
        reader.skip_tagged_fields(flexible)?;
        Ok(Some(value))
    }
}

impl MemberValue {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<MemberValue, RecordError> {
        let flexible = version >= 4;
        let member_id = Arc::from(reader.string(flexible)?);
        let group_instance_id = if version >= 3 {
            reader.nullable_string(flexible)?.map(Arc::from)
        } else {
            None
        };
        let client_id = Arc::from(reader.string(flexible)?);
        let client_host = Arc::from(reader.string(flexible)?);
        let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { -1 };
        let session_timeout_ms = reader.i32()?;
        let member = MemberValue {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            // Version 0 knew one timeout for both.
            rebalance_timeout_ms: if rebalance_timeout_ms == -1 {
                session_timeout_ms
            } else {
                rebalance_timeout_ms
            },
            session_timeout_ms,
            subscription: Bytes::copy_from_slice(reader.bytes(flexible)?),
            assignment: Bytes::copy_from_slice(reader.bytes(flexible)?),
        };
        reader.skip_tagged_fields(flexible)?;
        Ok(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset_record(value: Option<OffsetValue>) -> OffsetsRecord {
        OffsetsRecord::Offset {
            group: Arc::from("g"),
            topic: Arc::from("in"),
            partition: 3,
            value,
        }
    }

    fn offset_value() -> OffsetValue {
        OffsetValue {
            offset: 42,
            leader_epoch: 5,
            metadata: Arc::from("m"),
            commit_timestamp: 258,
            expire_timestamp: -1,
            topic_id: TopicId([9; 16]),
        }
    }

    fn group_record() -> OffsetsRecord {
        OffsetsRecord::Group {
            group: Arc::from("g"),
            value: Some(GroupValue {
                protocol_type: Arc::from("consumer"),
                generation: 2,
                protocol: Some(Arc::from("range")),
                leader: None,
                current_state_timestamp: 258,
                members: vec![MemberValue {
                    member_id: Arc::from("m"),
                    group_instance_id: None,
                    client_id: Arc::from("c"),
                    client_host: Arc::from("/h"),
                    rebalance_timeout_ms: 2,
                    session_timeout_ms: 1,
                    subscription: Bytes::from_static(b"s"),
                    assignment: Bytes::from_static(b"as"),
                }],
            }),
        }
    }

    #[track_caller]
    fn reads_back(record: OffsetsRecord) {
        let (key, value) = (record.encode_key(), record.encode_value());
        if let Some(value) = &value {
            for end in 0..value.len() {
                assert!(OffsetsRecord::decode(&key, Some(&value[..end])).is_err());
            }
        }
        assert_eq!(
            OffsetsRecord::decode(&key, value.as_deref()),
            Ok(Some(record))
        );
    }

    #[test]
    fn keys_are_classic() {
        assert_eq!(
            offset_record(None).encode_key(),
            [0, 1, 0, 1, b'g', 0, 2, b'i', b'n', 0, 0, 0, 3]
        );
        assert_eq!(group_record().encode_key(), [0, 2, 0, 1, b'g']);
    }

    #[test]
    fn an_offset_is_written_as_version_four() {
        let expected = [
            &[0, 4][..],
            &[0, 0, 0, 0, 0, 0, 0, 42],
            &[0, 0, 0, 5],
            &[2, b'm'],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[1, 0, 16],
            &[9; 16],
        ]
        .concat();
        assert_eq!(
            offset_record(Some(offset_value())).encode_value().unwrap(),
            expected
        );
        let without_id = OffsetValue {
            topic_id: TopicId::ZERO,
            ..offset_value()
        };
        let bytes = offset_record(Some(without_id)).encode_value().unwrap();
        assert_eq!(bytes.len(), expected.len() - 18);
        assert_eq!(bytes.last(), Some(&0));
    }

    #[test]
    fn an_offset_with_its_own_expiry_is_written_as_version_one() {
        let value = OffsetValue {
            expire_timestamp: 259,
            leader_epoch: -1,
            topic_id: TopicId::ZERO,
            ..offset_value()
        };
        let expected = [
            &[0, 1][..],
            &[0, 0, 0, 0, 0, 0, 0, 42],
            &[0, 1, b'm'],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 0, 0, 0, 0, 0, 1, 3],
        ]
        .concat();
        let record = offset_record(Some(value));
        assert_eq!(record.encode_value().unwrap(), expected);
        reads_back(record);
    }

    #[test]
    fn a_group_is_written_as_version_three() {
        let expected = [
            &[0, 3][..],
            &[0, 8],
            b"consumer",
            &[0, 0, 0, 2],
            &[0, 5],
            b"range",
            &[0xff, 0xff],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 0, 0, 1],
            &[0, 1, b'm'],
            &[0xff, 0xff],
            &[0, 1, b'c'],
            &[0, 2, b'/', b'h'],
            &[0, 0, 0, 2],
            &[0, 0, 0, 1],
            &[0, 0, 0, 1, b's'],
            &[0, 0, 0, 2, b'a', b's'],
        ]
        .concat();
        assert_eq!(group_record().encode_value().unwrap(), expected);
    }

    #[test]
    fn records_read_back_as_they_were() {
        reads_back(offset_record(Some(offset_value())));
        reads_back(offset_record(None));
        reads_back(group_record());
        reads_back(OffsetsRecord::Group {
            group: Arc::from("g"),
            value: None,
        });
    }

    #[test]
    fn older_versions_are_read() {
        let key = offset_record(None).encode_key();
        let version_three = [
            &[0, 3][..],
            &[0, 0, 0, 0, 0, 0, 0, 42],
            &[0, 0, 0, 5],
            &[0, 1, b'm'],
            &[0, 0, 0, 0, 0, 0, 1, 2],
        ]
        .concat();
        let expected = OffsetValue {
            topic_id: TopicId::ZERO,
            ..offset_value()
        };
        assert_eq!(
            OffsetsRecord::decode(&key, Some(&version_three)),
            Ok(Some(offset_record(Some(expected))))
        );
        let group_version_zero = [
            &[0, 0][..],
            &[0, 1, b't'],
            &[0, 0, 0, 2],
            &[0xff, 0xff],
            &[0xff, 0xff],
            &[0, 0, 0, 1],
            &[0, 1, b'm', 0, 1, b'c', 0, 1, b'h'],
            &[0, 0, 0, 7],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0],
        ]
        .concat();
        let record = OffsetsRecord::decode(&[0, 2, 0, 1, b'g'], Some(&group_version_zero));
        let Ok(Some(OffsetsRecord::Group {
            value: Some(value), ..
        })) = record
        else {
            panic!("{record:?}");
        };
        assert_eq!(value.members[0].rebalance_timeout_ms, 7);
        assert_eq!(value.current_state_timestamp, -1);
    }

    #[test]
    fn unknown_types_and_versions_are_skipped() {
        for kind in [4, 9, 15, 17, 255] {
            assert_eq!(OffsetsRecord::decode(&[0, kind, 0, 0], None), Ok(None));
        }
        let key = [0, 3, 0, 1, b'g'];
        assert_eq!(OffsetsRecord::decode(&key, Some(&[0, 1, 9])), Ok(None));
        let key = offset_record(None).encode_key();
        assert_eq!(OffsetsRecord::decode(&key, Some(&[0, 5])), Ok(None));
    }
}
