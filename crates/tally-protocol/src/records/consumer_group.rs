//! The records of groups of the `consumer` protocol in `__consumer_offsets` (KIP-848, groups.md section 10).
//!
//! | key type | record | key after the group |
//! |---|---|---|
//! | 3 | the group's epoch | |
//! | 5 | what a member has asked for | member id |
//! | 6 | the epoch of the target assignment | |
//! | 7 | what a member is to have | member id |
//! | 8 | what a member has | member id |
//! | 16 | the topics that a regular expression matches | the expression |
//!
//! Keys are never flexible; values are version 0 and flexible. Type 4 is obsolete and skipped.

use super::RecordError;
use crate::ids::TopicId;
use crate::wire::{
    Reader, put_array_length, put_bytes, put_no_tagged_fields, put_nullable_string, put_string,
    put_uvarint,
};
use bytes::{BufMut, Bytes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const KEY_EPOCH: i16 = 3;
const KEY_MEMBER: i16 = 5;
const KEY_TARGET_EPOCH: i16 = 6;
const KEY_TARGET: i16 = 7;
const KEY_CURRENT: i16 = 8;
const KEY_REGEX: i16 = 16;

/// The one version of all these values.
const VERSION: i16 = 0;
/// The tag of every optional field: each structure has at most one.
const TAG: u32 = 0;
/// Bytes of the smallest topic with its partitions: an id, a count, no tags.
const TOPIC_BYTES_MIN: usize = 18;

/// Partitions by topic.
pub type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// Partitions by topic, each with the epoch at which its member got it (KIP-1251).
pub type PartitionEpochs = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// One record of a group; a value of `None` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerGroupRecord {
    /// The group's epoch.
    Epoch(Option<EpochValue>),
    /// What a member has asked for.
    Member(Arc<str>, Option<SubscriptionValue>),
    /// The epoch of the target assignment.
    TargetEpoch(Option<TargetEpochValue>),
    /// What a member is to have.
    Target(Arc<str>, Option<Partitions>),
    /// What a member has.
    Current(Arc<str>, Option<CurrentValue>),
    /// The topics that a regular expression matches.
    Regex(Arc<str>, Option<RegexValue>),
}

/// The group's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochValue {
    /// It rises whenever the assignment has to be made anew.
    pub epoch: i32,
    /// Of the topics subscribed to, as they were then; only compared with itself.
    pub metadata_hash: i64,
}

/// What a member has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionValue {
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The rack it is in.
    pub rack_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The address it came from.
    pub client_host: Arc<str>,
    /// The topics it named.
    pub topics: BTreeSet<Arc<str>>,
    /// The regular expression of the topics it wants too.
    pub regex: Option<Arc<str>>,
    /// How long it may take to give partitions back, milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The assignor it asked for.
    pub assignor: Option<Arc<str>>,
    /// Set if it uses the classic protocol.
    pub classic: Option<ClassicValue>,
}

/// What is known of a member that uses the classic protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicValue {
    /// How long it may be silent, milliseconds.
    pub session_timeout_ms: i32,
    /// Name and metadata, the one it likes best first.
    pub protocols: Vec<(Arc<str>, Bytes)>,
}

/// The epoch of the target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetEpochValue {
    /// The group's epoch that it was made for.
    pub epoch: i32,
    /// When, milliseconds since 1970; 0 unknown.
    pub timestamp: i64,
}

/// How far a member is on its way to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberPhase {
    /// It has all that its epoch gives it.
    Stable,
    /// It has to give partitions back first.
    Unrevoked,
    /// It waits for partitions that others have to give back.
    Unreleased,
    /// Written by a later version.
    Unknown,
}

impl MemberPhase {
    const fn code(self) -> i8 {
        match self {
            MemberPhase::Stable => 0,
            MemberPhase::Unrevoked => 1,
            MemberPhase::Unreleased => 2,
            MemberPhase::Unknown => 127,
        }
    }

    const fn of(code: i8) -> MemberPhase {
        match code {
            0 => MemberPhase::Stable,
            1 => MemberPhase::Unrevoked,
            2 => MemberPhase::Unreleased,
            _ => MemberPhase::Unknown,
        }
    }
}

/// What a member has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentValue {
    /// The epoch it has been moved to; -2: a static member that has left for a while.
    pub epoch: i32,
    /// The epoch before, in case the last answer was lost.
    pub previous_epoch: i32,
    /// How far it is.
    pub phase: MemberPhase,
    /// What it may read.
    pub assigned: PartitionEpochs,
    /// What it has to give back, and still owns.
    pub revoking: PartitionEpochs,
}

/// The topics that a regular expression matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexValue {
    /// Their names.
    pub topics: BTreeSet<Arc<str>>,
    /// The state of the topics that was looked at.
    pub version: i64,
    /// When, milliseconds since 1970.
    pub timestamp: i64,
}

impl ConsumerGroupRecord {
    /// The key of the record.
    pub(super) fn encode_key(&self, group: &str) -> Vec<u8> {
        let (kind, second) = match self {
            ConsumerGroupRecord::Epoch(_) => (KEY_EPOCH, None),
            ConsumerGroupRecord::Member(member_id, _) => (KEY_MEMBER, Some(member_id)),
            ConsumerGroupRecord::TargetEpoch(_) => (KEY_TARGET_EPOCH, None),
            ConsumerGroupRecord::Target(member_id, _) => (KEY_TARGET, Some(member_id)),
            ConsumerGroupRecord::Current(member_id, _) => (KEY_CURRENT, Some(member_id)),
            ConsumerGroupRecord::Regex(regex, _) => (KEY_REGEX, Some(regex)),
        };
        let length = 6 + group.len() + second.map_or(0, |second| second.len());
        let mut out = Vec::with_capacity(length);
        out.put_i16(kind);
        put_string(&mut out, false, group);
        if let Some(second) = second {
            put_string(&mut out, false, second);
        }
        out
    }

    /// The value of the record; `None` for a tombstone.
    pub(super) fn encode_value(&self) -> Option<Vec<u8>> {
        match self {
            ConsumerGroupRecord::Epoch(value) => value.as_ref().map(EpochValue::encode),
            ConsumerGroupRecord::Member(_, value) => value.as_ref().map(SubscriptionValue::encode),
            ConsumerGroupRecord::TargetEpoch(value) => value.as_ref().map(TargetEpochValue::encode),
            ConsumerGroupRecord::Target(_, value) => value.as_ref().map(encode_target),
            ConsumerGroupRecord::Current(_, value) => value.as_ref().map(CurrentValue::encode),
            ConsumerGroupRecord::Regex(_, value) => value.as_ref().map(RegexValue::encode),
        }
    }

    /// Reads the group and the record of a key of type `kind`; `None` if the type or the value's version is not known.
    pub(super) fn decode(
        kind: i16,
        mut key: Reader<'_>,
        value: Option<&[u8]>,
    ) -> Result<Option<(Arc<str>, ConsumerGroupRecord)>, RecordError> {
        if !matches!(
            kind,
            KEY_EPOCH | KEY_MEMBER | KEY_TARGET_EPOCH | KEY_TARGET | KEY_CURRENT | KEY_REGEX
        ) {
            return Ok(None);
        }
        let group = Arc::from(key.string(false)?);
        let mut value = value.map(Reader::new);
        if let Some(reader) = &mut value
            && reader.i16()? != VERSION
        {
            return Ok(None);
        }
        let record = match kind {
            KEY_EPOCH => {
                ConsumerGroupRecord::Epoch(value.as_mut().map(EpochValue::decode).transpose()?)
            }
            KEY_TARGET_EPOCH => ConsumerGroupRecord::TargetEpoch(
                value.as_mut().map(TargetEpochValue::decode).transpose()?,
            ),
            KEY_MEMBER => ConsumerGroupRecord::Member(
                Arc::from(key.string(false)?),
                value.as_mut().map(SubscriptionValue::decode).transpose()?,
            ),
            KEY_TARGET => ConsumerGroupRecord::Target(
                Arc::from(key.string(false)?),
                value.as_mut().map(decode_target).transpose()?,
            ),
            KEY_CURRENT => ConsumerGroupRecord::Current(
                Arc::from(key.string(false)?),
                value.as_mut().map(CurrentValue::decode).transpose()?,
            ),
            _ => ConsumerGroupRecord::Regex(
                Arc::from(key.string(false)?),
                value.as_mut().map(RegexValue::decode).transpose()?,
            ),
        };
        Ok(Some((group, record)))
    }
}

fn versioned(capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.put_i16(VERSION);
    out
}

/// A structure's tags: the one number, or none when it is 0.
fn put_tagged_i64(out: &mut Vec<u8>, value: i64) {
    if value == 0 {
        return put_no_tagged_fields(out, true);
    }
    put_uvarint(out, 1);
    put_uvarint(out, TAG);
    put_uvarint(out, 8);
    out.put_i64(value);
}

fn tagged_i64(reader: &mut Reader<'_>) -> Result<i64, RecordError> {
    let mut value = 0;
    reader.tagged_fields(true, |tag, field| {
        if tag == TAG {
            value = field.i64()?;
        }
        Ok(())
    })?;
    Ok(value)
}

/// A structure's tags: one field of these bytes.
fn put_tagged_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, 1);
    put_uvarint(out, TAG);
    let length = u32::try_from(bytes.len()).expect("a record is smaller than 4 GiB");
    put_uvarint(out, length);
    out.put_slice(bytes);
}

fn put_strings(out: &mut Vec<u8>, strings: &BTreeSet<Arc<str>>) {
    put_array_length(out, true, strings.len());
    for text in strings {
        put_string(out, true, text);
    }
}

fn strings(reader: &mut Reader<'_>) -> Result<BTreeSet<Arc<str>>, RecordError> {
    let count = reader.array_length(true, 1)?.unwrap_or(0);
    let mut strings = BTreeSet::new();
    for _ in 0..count {
        strings.insert(Arc::from(reader.string(true)?));
    }
    Ok(strings)
}

fn put_partition_numbers(out: &mut Vec<u8>, numbers: impl ExactSizeIterator<Item = i32>) {
    put_array_length(out, true, numbers.len());
    for number in numbers {
        out.put_i32(number);
    }
}

fn numbers(reader: &mut Reader<'_>) -> Result<Vec<i32>, RecordError> {
    let count = reader.array_length(true, 4)?.unwrap_or(0);
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        numbers.push(reader.i32()?);
    }
    Ok(numbers)
}

impl EpochValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = versioned(20);
        out.put_i32(self.epoch);
        put_tagged_i64(&mut out, self.metadata_hash);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<EpochValue, RecordError> {
        Ok(EpochValue {
            epoch: reader.i32()?,
            metadata_hash: tagged_i64(reader)?,
        })
    }
}

impl TargetEpochValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = versioned(20);
        out.put_i32(self.epoch);
        put_tagged_i64(&mut out, self.timestamp);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<TargetEpochValue, RecordError> {
        Ok(TargetEpochValue {
            epoch: reader.i32()?,
            timestamp: tagged_i64(reader)?,
        })
    }
}

impl SubscriptionValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = versioned(128);
        put_nullable_string(&mut out, true, self.instance_id.as_deref());
        put_nullable_string(&mut out, true, self.rack_id.as_deref());
        put_string(&mut out, true, &self.client_id);
        put_string(&mut out, true, &self.client_host);
        put_strings(&mut out, &self.topics);
        put_nullable_string(&mut out, true, self.regex.as_deref());
        out.put_i32(self.rebalance_timeout_ms);
        put_nullable_string(&mut out, true, self.assignor.as_deref());
        match &self.classic {
            None => put_no_tagged_fields(&mut out, true),
            Some(classic) => put_tagged_bytes(&mut out, &classic.encode()),
        }
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<SubscriptionValue, RecordError> {
        let mut value = SubscriptionValue {
            instance_id: reader.nullable_string(true)?.map(Arc::from),
            rack_id: reader.nullable_string(true)?.map(Arc::from),
            client_id: Arc::from(reader.string(true)?),
            client_host: Arc::from(reader.string(true)?),
            topics: strings(reader)?,
            regex: reader.nullable_string(true)?.map(Arc::from),
            rebalance_timeout_ms: reader.i32()?,
            assignor: reader.nullable_string(true)?.map(Arc::from),
            classic: None,
        };
        let mut classic = None;
        reader.tagged_fields(true, |tag, field| {
            if tag == TAG {
                classic = Some(field.rest());
            }
            Ok(())
        })?;
        // A structure that may be null: a byte of 1, then its fields.
        if let Some((&1, fields)) = classic.and_then(<[u8]>::split_first) {
            value.classic = Some(ClassicValue::decode(&mut Reader::new(fields))?);
        }
        Ok(value)
    }
}

impl ClassicValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_i8(1);
        out.put_i32(self.session_timeout_ms);
        put_array_length(&mut out, true, self.protocols.len());
        for (name, metadata) in &self.protocols {
            put_string(&mut out, true, name);
            put_bytes(&mut out, true, metadata);
            put_no_tagged_fields(&mut out, true);
        }
        put_no_tagged_fields(&mut out, true);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<ClassicValue, RecordError> {
        let session_timeout_ms = reader.i32()?;
        let count = reader.array_length(true, 3)?.unwrap_or(0);
        let mut protocols = Vec::with_capacity(count);
        for _ in 0..count {
            let name = Arc::from(reader.string(true)?);
            let metadata = Bytes::copy_from_slice(reader.bytes(true)?);
            reader.skip_tagged_fields(true)?;
            protocols.push((name, metadata));
        }
        reader.skip_tagged_fields(true)?;
        Ok(ClassicValue {
            session_timeout_ms,
            protocols,
        })
    }
}

fn encode_target(target: &Partitions) -> Vec<u8> {
    let mut out = versioned(64);
    put_array_length(&mut out, true, target.len());
    for (topic, partitions) in target {
        out.put_slice(&topic.0);
        put_partition_numbers(&mut out, partitions.iter().copied());
        put_no_tagged_fields(&mut out, true);
    }
    put_no_tagged_fields(&mut out, true);
    out
}

fn decode_target(reader: &mut Reader<'_>) -> Result<Partitions, RecordError> {
    let count = reader.array_length(true, TOPIC_BYTES_MIN)?.unwrap_or(0);
    let mut target = Partitions::new();
    for _ in 0..count {
        let topic = TopicId(reader.array()?);
        target.entry(topic).or_default().extend(numbers(reader)?);
        reader.skip_tagged_fields(true)?;
    }
    reader.skip_tagged_fields(true)?;
    Ok(target)
}

impl CurrentValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = versioned(128);
        out.put_i32(self.epoch);
        out.put_i32(self.previous_epoch);
        out.put_i8(self.phase.code());
        put_partition_epochs(&mut out, &self.assigned);
        put_partition_epochs(&mut out, &self.revoking);
        put_no_tagged_fields(&mut out, true);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<CurrentValue, RecordError> {
        let epoch = reader.i32()?;
        let previous_epoch = reader.i32()?;
        let phase = MemberPhase::of(reader.i8()?);
        let assigned = partition_epochs(reader, epoch)?;
        let revoking = partition_epochs(reader, epoch)?;
        reader.skip_tagged_fields(true)?;
        Ok(CurrentValue {
            epoch,
            previous_epoch,
            phase,
            assigned,
            revoking,
        })
    }
}

fn put_partition_epochs(out: &mut Vec<u8>, topics: &PartitionEpochs) {
    put_array_length(out, true, topics.len());
    for (topic, partitions) in topics {
        out.put_slice(&topic.0);
        put_partition_numbers(out, partitions.keys().copied());
        let mut epochs = Vec::with_capacity(5 + 4 * partitions.len());
        put_partition_numbers(&mut epochs, partitions.values().copied());
        put_tagged_bytes(out, &epochs);
    }
}

/// Partitions whose epochs are not written (before KIP-1251) have `epoch`.
fn partition_epochs(reader: &mut Reader<'_>, epoch: i32) -> Result<PartitionEpochs, RecordError> {
    let count = reader.array_length(true, TOPIC_BYTES_MIN)?.unwrap_or(0);
    let mut topics = PartitionEpochs::new();
    for _ in 0..count {
        let topic = TopicId(reader.array()?);
        let partitions = numbers(reader)?;
        let mut tagged = None;
        reader.tagged_fields(true, |tag, field| {
            if tag == TAG {
                tagged = Some(field.rest());
            }
            Ok(())
        })?;
        let epochs = match tagged {
            Some(bytes) => numbers(&mut Reader::new(bytes))?,
            None => Vec::new(),
        };
        let epoch_of = |index: usize| epochs.get(index).copied().unwrap_or(epoch);
        let partitions = partitions.into_iter().enumerate();
        let with_epochs = partitions.map(|(index, partition)| (partition, epoch_of(index)));
        topics.entry(topic).or_default().extend(with_epochs);
    }
    Ok(topics)
}

impl RegexValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = versioned(64);
        put_strings(&mut out, &self.topics);
        out.put_i64(self.version);
        out.put_i64(self.timestamp);
        put_no_tagged_fields(&mut out, true);
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<RegexValue, RecordError> {
        let value = RegexValue {
            topics: strings(reader)?,
            version: reader.i64()?,
            timestamp: reader.i64()?,
        };
        reader.skip_tagged_fields(true)?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::offsets_log::OffsetsRecord;

    #[track_caller]
    fn reads_back(record: ConsumerGroupRecord, key: &[u8], value: Option<&[u8]>) {
        let record = OffsetsRecord::Consumer {
            group: Arc::from("g"),
            record,
        };
        assert_eq!(record.encode_key(), key);
        let bytes = record.encode_value();
        assert_eq!(bytes.as_deref(), value);
        for end in 0..bytes.as_ref().map_or(0, Vec::len) {
            let cut = &bytes.as_deref().unwrap()[..end];
            assert!(OffsetsRecord::decode(key, Some(cut)).is_err(), "{end}");
        }
        assert_eq!(
            OffsetsRecord::decode(key, bytes.as_deref()),
            Ok(Some(record))
        );
    }

    fn topic() -> TopicId {
        TopicId([7; 16])
    }

    #[test]
    fn epochs_are_written_as_kafka_writes_them() {
        let epoch = |metadata_hash| {
            ConsumerGroupRecord::Epoch(Some(EpochValue {
                epoch: 3,
                metadata_hash,
            }))
        };
        let key = [0, 3, 0, 1, b'g'];
        reads_back(epoch(0), &key, Some(&[0, 0, 0, 0, 0, 3, 0]));
        let with_hash = [0, 0, 0, 0, 0, 3, 1, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2];
        reads_back(epoch(258), &key, Some(&with_hash));
        reads_back(ConsumerGroupRecord::Epoch(None), &key, None);
        let target = ConsumerGroupRecord::TargetEpoch(Some(TargetEpochValue {
            epoch: 3,
            timestamp: 258,
        }));
        reads_back(target, &[0, 6, 0, 1, b'g'], Some(&with_hash));
    }

    #[test]
    fn a_member_is_written_as_kafka_writes_it() {
        let mut value = SubscriptionValue {
            instance_id: Some(Arc::from("i")),
            rack_id: None,
            client_id: Arc::from("c"),
            client_host: Arc::from("/h"),
            topics: BTreeSet::from([Arc::from("a"), Arc::from("b")]),
            regex: None,
            rebalance_timeout_ms: 258,
            assignor: Some(Arc::from("u")),
            classic: None,
        };
        let key = [0, 5, 0, 1, b'g', 0, 1, b'm'];
        let mut bytes = vec![
            0, 0, 2, b'i', 0, 2, b'c', 3, b'/', b'h', 3, 2, b'a', 2, b'b',
        ];
        bytes.extend([0, 0, 0, 1, 2, 2, b'u', 0]);
        let record = |value| ConsumerGroupRecord::Member(Arc::from("m"), value);
        reads_back(record(Some(value.clone())), &key, Some(&bytes));
        value.classic = Some(ClassicValue {
            session_timeout_ms: 1,
            protocols: vec![(Arc::from("r"), Bytes::from_static(b"xy"))],
        });
        bytes.pop();
        bytes.extend([1, 0, 13, 1, 0, 0, 0, 1, 2, 2, b'r', 3, b'x', b'y', 0, 0]);
        reads_back(record(Some(value)), &key, Some(&bytes));
        reads_back(record(None), &key, None);
    }

    #[test]
    fn assignments_are_written_as_kafka_writes_them() {
        let target = Partitions::from([(topic(), BTreeSet::from([1, 2]))]);
        let expected = [
            &[0, 0, 2][..],
            &[7; 16],
            &[3, 0, 0, 0, 1, 0, 0, 0, 2, 0],
            &[0],
        ]
        .concat();
        let record = ConsumerGroupRecord::Target(Arc::from("m"), Some(target));
        reads_back(record, &[0, 7, 0, 1, b'g', 0, 1, b'm'], Some(&expected));
        let current = CurrentValue {
            epoch: 5,
            previous_epoch: 4,
            phase: MemberPhase::Unrevoked,
            assigned: PartitionEpochs::from([(topic(), BTreeMap::from([(1, 4)]))]),
            revoking: PartitionEpochs::new(),
        };
        let expected = [
            &[0, 0, 0, 0, 0, 5, 0, 0, 0, 4, 1][..],
            &[2],
            &[7; 16],
            &[2, 0, 0, 0, 1, 1, 0, 5, 2, 0, 0, 0, 4],
            &[1, 0],
        ]
        .concat();
        let record = ConsumerGroupRecord::Current(Arc::from("m"), Some(current));
        reads_back(record, &[0, 8, 0, 1, b'g', 0, 1, b'm'], Some(&expected));
    }

    #[test]
    fn partitions_without_epochs_have_the_members() {
        let bytes = [
            &[0, 0, 0, 0, 0, 5, 0, 0, 0, 4, 9, 2][..],
            &[7; 16],
            &[2, 0, 0, 0, 1, 0],
            &[1, 0],
        ]
        .concat();
        let key = [0, 8, 0, 1, b'g', 0, 1, b'm'];
        let Ok(Some(OffsetsRecord::Consumer {
            record: ConsumerGroupRecord::Current(_, Some(value)),
            ..
        })) = OffsetsRecord::decode(&key, Some(&bytes))
        else {
            panic!();
        };
        assert_eq!(value.assigned[&topic()], BTreeMap::from([(1, 5)]));
        assert_eq!(value.phase, MemberPhase::Unknown);
    }

    #[test]
    fn a_regular_expression_is_written_as_kafka_writes_it() {
        let value = RegexValue {
            topics: BTreeSet::from([Arc::from("ab")]),
            version: 1,
            timestamp: 258,
        };
        let mut expected = vec![0, 0, 2, 3, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 1];
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2, 0]);
        let record = ConsumerGroupRecord::Regex(Arc::from("a."), Some(value));
        let key = [0, 16, 0, 1, b'g', 0, 2, b'a', b'.'];
        reads_back(record, &key, Some(&expected));
    }
}
