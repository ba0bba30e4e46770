//! Batches, records and the coordinators' records as columns.

mod consumer_group;

use tally_producer_state::{AbortedTransaction, ProducerView};
use tally_protocol::batch::{DELETE_HORIZON_BIT, LOG_APPEND_TIME_BIT};
use tally_protocol::compression::{CompressionError, decompress};
use tally_protocol::record::{RecordView, Records};
use tally_protocol::records::offsets_log::{GroupValue, OffsetsRecord};
use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::validate::inflated_bytes_max;
use tally_protocol::{BatchHeader, BatchView, Malformed, TopicId, control};
use thiserror::Error;

use crate::offline::Role;
use crate::output::Value;

/// Columns of a row.
pub(crate) type Fields = Vec<(&'static str, Value)>;

/// Why the records of a batch can't be read.
#[derive(Debug, Error)]
pub(crate) enum RecordsError {
    #[error("{0}")]
    Compression(#[from] CompressionError),
    #[error("record {at} of the batch is malformed: {error}")]
    Malformed { at: i32, error: Malformed },
    #[error("{bytes} bytes lie behind the last record of the batch")]
    Behind { bytes: usize },
}

/// Shows the records of a batch, decompressed, until `visit` says enough.
pub(crate) fn each_record(
    view: &BatchView<'_>,
    mut visit: impl FnMut(&RecordView<'_>),
) -> Result<(), RecordsError> {
    let header = view.header();
    let limit = inflated_bytes_max(view.records().len());
    let block = decompress(header.codec(), view.records(), limit)?;
    let mut records = Records::new(&block, header.records_count);
    for (at, record) in (0..).zip(records.by_ref()) {
        match record {
            Ok(record) => visit(&record),
            Err(error) => return Err(RecordsError::Malformed { at, error }),
        }
    }
    match records.rest().len() {
        0 => Ok(()),
        bytes => Err(RecordsError::Behind { bytes }),
    }
}

/// The name of a codec.
pub(crate) fn codec_name(codec: i16) -> &'static str {
    match codec {
        0 => "none",
        1 => "gzip",
        2 => "snappy",
        3 => "lz4",
        4 => "zstd",
        _ => "unknown",
    }
}

/// A number that is there only if it is not negative.
fn unless_negative(number: impl Into<i64>) -> Value {
    let number = number.into();
    if number < 0 {
        Value::Null
    } else {
        Value::from(number)
    }
}

/// The columns of a batch.
pub(crate) fn batch(position: u64, view: &BatchView<'_>, crc_ok: bool) -> Fields {
    let header = view.header();
    let marker = control::parse_marker(view);
    let is_log_append = header.attributes & LOG_APPEND_TIME_BIT != 0;
    vec![
        ("position", Value::from(position)),
        ("base_offset", Value::from(header.base_offset.0)),
        ("last_offset", Value::from(last_offset(header))),
        ("records", Value::from(header.records_count)),
        (
            "bytes",
            Value::from(tally_protocol::ids::to_u64(view.bytes().len())),
        ),
        ("leader_epoch", Value::from(header.leader_epoch.0)),
        ("producer_id", unless_negative(header.producer_id.0)),
        ("producer_epoch", unless_negative(header.producer_epoch.0)),
        ("base_sequence", unless_negative(header.base_sequence.0)),
        ("last_sequence", unless_negative(header.last_sequence().0)),
        ("transactional", Value::from(header.is_transactional())),
        ("control", Value::from(header.is_control())),
        (
            "marker",
            Value::from(marker.map(|(commit, _)| if commit { "COMMIT" } else { "ABORT" })),
        ),
        (
            "coordinator_epoch",
            Value::from(marker.map(|(_, epoch)| epoch.0)),
        ),
        ("codec", Value::from(codec_name(header.codec()))),
        (
            "timestamp_type",
            Value::from(if is_log_append {
                "LogAppendTime"
            } else {
                "CreateTime"
            }),
        ),
        ("base_timestamp", Value::from(header.base_timestamp)),
        ("max_timestamp", Value::from(header.max_timestamp)),
        (
            "delete_horizon",
            Value::from(header.attributes & DELETE_HORIZON_BIT != 0),
        ),
        ("crc", Value::from(header.crc)),
        ("crc_ok", Value::from(crc_ok)),
    ]
}

/// The last offset of a header that may hold anything.
pub(crate) fn last_offset(header: &BatchHeader) -> i64 {
    let delta = i64::from(header.last_offset_delta);
    header.base_offset.0.saturating_add(delta)
}

/// The columns of a record.
pub(crate) fn record(
    header: &BatchHeader,
    record: &RecordView<'_>,
    raw: bool,
    role: Role,
) -> Fields {
    let is_log_append = header.attributes & LOG_APPEND_TIME_BIT != 0;
    let timestamp = if is_log_append {
        header.max_timestamp
    } else {
        header.base_timestamp.saturating_add(record.timestamp_delta)
    };
    let delta = i64::from(record.offset_delta);
    let headers = record.headers.map(|(name, value)| {
        Value::Object(vec![
            ("name", bytes(name, raw)),
            (
                "value",
                value.map_or(Value::Null, |value| bytes(value, raw)),
            ),
        ])
    });
    let decoded = match role {
        Role::Transactions if !header.is_control() => transaction(record),
        Role::Offsets if !header.is_control() => offsets(record),
        _ => Value::Null,
    };
    // The bytes of a coordinator's record are only of interest where they are asked for.
    let hidden = decoded != Value::Null && !raw;
    let shown = |part: Option<&[u8]>| match part {
        Some(part) if !hidden => bytes(part, raw),
        _ => Value::Null,
    };
    vec![
        (
            "offset",
            Value::from(header.base_offset.0.saturating_add(delta)),
        ),
        ("timestamp", Value::from(timestamp)),
        ("key", shown(record.key)),
        ("value", shown(record.value)),
        ("headers", headers.collect()),
        ("decoded", decoded),
    ]
}

/// Bytes as text where they are text, else as hexadecimal digits.
pub(crate) fn bytes(bytes: &[u8], raw: bool) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !raw => Value::from(text),
        _ => Value::Object(vec![("hex", Value::from(hex(bytes)))]),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn undecodable(what: &str, error: &str) -> Value {
    Value::Object(vec![
        ("record", Value::from(what)),
        ("error", Value::from(error)),
    ])
}

/// A record of the transaction log.
fn transaction(record: &RecordView<'_>) -> Value {
    match TransactionRecord::decode(record.key.unwrap_or_default(), record.value) {
        Ok(Some(decoded)) => {
            let id = Value::from(&*decoded.transactional_id);
            let mut fields = vec![
                ("record", Value::from("transaction")),
                ("transactional_id", id),
            ];
            match &decoded.value {
                Some(value) => fields.extend(transaction_value(value)),
                None => fields.push(("state", Value::Null)),
            }
            Value::Object(fields)
        }
        Ok(None) => undecodable("unknown", "a version that is not known here"),
        Err(error) => undecodable("damaged", &error.to_string()),
    }
}

fn transaction_value(value: &TransactionValue) -> Fields {
    let partitions = value.partitions.iter().map(|(topic, indexes)| {
        Value::Object(vec![
            ("topic", Value::from(&**topic)),
            (
                "partitions",
                indexes.iter().map(|index| Value::from(*index)).collect(),
            ),
        ])
    });
    vec![
        ("state", Value::from(value.state.name())),
        ("producer_id", Value::from(value.producer_id.0)),
        ("producer_epoch", Value::from(value.producer_epoch.0)),
        (
            "last_producer_epoch",
            unless_negative(value.last_producer_epoch.0),
        ),
        (
            "previous_producer_id",
            unless_negative(value.previous_producer_id.0),
        ),
        (
            "next_producer_id",
            unless_negative(value.next_producer_id.0),
        ),
        (
            "next_producer_epoch",
            unless_negative(value.next_producer_epoch.0),
        ),
        ("timeout_ms", Value::from(value.timeout_ms)),
        ("partitions", partitions.collect()),
        ("start_ms", unless_negative(value.start_ms)),
        ("last_update_ms", Value::from(value.last_update_ms)),
        (
            "client_transaction_version",
            Value::from(value.client_transaction_version),
        ),
    ]
}

/// A record of the offsets log.
fn offsets(record: &RecordView<'_>) -> Value {
    match OffsetsRecord::decode(record.key.unwrap_or_default(), record.value) {
        Ok(Some(OffsetsRecord::Offset {
            group,
            topic,
            partition,
            value,
        })) => {
            let mut fields = vec![
                ("record", Value::from("offset")),
                ("group", Value::from(&*group)),
                ("topic", Value::from(&*topic)),
                ("partition", Value::from(partition)),
            ];
            match value {
                None => fields.push(("offset", Value::Null)),
                Some(value) => {
                    let id = (value.topic_id != TopicId::ZERO).then(|| value.topic_id.to_string());
                    fields.extend([
                        ("offset", Value::from(value.offset)),
                        ("leader_epoch", unless_negative(value.leader_epoch)),
                        ("metadata", Value::from(&*value.metadata)),
                        ("commit_timestamp", Value::from(value.commit_timestamp)),
                        ("expire_timestamp", unless_negative(value.expire_timestamp)),
                        ("topic_id", Value::from(id)),
                    ]);
                }
            }
            Value::Object(fields)
        }
        Ok(Some(OffsetsRecord::Group { group, value })) => {
            let mut fields = vec![
                ("record", Value::from("group")),
                ("group", Value::from(&*group)),
            ];
            match &value {
                None => fields.push(("generation", Value::Null)),
                Some(value) => fields.extend(group_value(value)),
            }
            Value::Object(fields)
        }
        Ok(Some(OffsetsRecord::Consumer { group, record })) => {
            Value::Object(consumer_group::fields(&group, &record))
        }
        Ok(None) => undecodable("unknown", "a type or version that is not known here"),
        Err(error) => undecodable("damaged", &error.to_string()),
    }
}

fn group_value(value: &GroupValue) -> Fields {
    let members = value.members.iter().map(|member| {
        Value::Object(vec![
            ("member_id", Value::from(&*member.member_id)),
            (
                "group_instance_id",
                Value::from(member.group_instance_id.as_deref()),
            ),
            ("client_id", Value::from(&*member.client_id)),
            ("client_host", Value::from(&*member.client_host)),
            (
                "rebalance_timeout_ms",
                Value::from(member.rebalance_timeout_ms),
            ),
            ("session_timeout_ms", Value::from(member.session_timeout_ms)),
            ("subscription", bytes(&member.subscription, true)),
            ("assignment", bytes(&member.assignment, true)),
        ])
    });
    vec![
        ("generation", Value::from(value.generation)),
        ("protocol_type", Value::from(&*value.protocol_type)),
        ("protocol", Value::from(value.protocol.as_deref())),
        ("leader", Value::from(value.leader.as_deref())),
        (
            "current_state_timestamp",
            unless_negative(value.current_state_timestamp),
        ),
        ("members", members.collect()),
    ]
}

/// The columns of a producer in a snapshot.
pub(crate) fn producer(producer: &ProducerView) -> Fields {
    let batches = producer.batches.iter().map(|batch| {
        Value::Object(vec![
            ("base_sequence", Value::from(batch.base_sequence.0)),
            ("last_sequence", Value::from(batch.last_sequence.0)),
            ("base_offset", Value::from(batch.base_offset.0)),
            ("last_offset", Value::from(batch.last_offset.0)),
            ("max_timestamp", Value::from(batch.max_timestamp)),
            ("aborted", Value::from(batch.aborted)),
        ])
    });
    vec![
        ("producer_id", Value::from(producer.producer_id.0)),
        ("producer_epoch", Value::from(producer.producer_epoch.0)),
        (
            "coordinator_epoch",
            unless_negative(producer.coordinator_epoch.0),
        ),
        (
            "open_transaction",
            Value::from(producer.open_transaction.map(|offset| offset.0)),
        ),
        ("last_append_ms", Value::from(producer.last_append_ms)),
        ("last_timestamp", Value::from(producer.last_timestamp)),
        ("batches", batches.collect()),
    ]
}

/// The columns of a row of the index of aborted transactions.
pub(crate) fn aborted(row: &AbortedTransaction) -> Fields {
    vec![
        ("producer_id", Value::from(row.producer_id.0)),
        ("first_offset", Value::from(row.first_offset.0)),
        ("last_offset", Value::from(row.last_offset.0)),
        ("last_stable_offset", Value::from(row.last_stable_offset.0)),
    ]
}
