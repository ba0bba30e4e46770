//! What a batch from a client must look like before it may be appended: P-3, P-4 and P-10 to P-20, in this order.
//!
//! Uncompressed batches are walked in place without allocating; compressed ones are decompressed first, within
//! [`inflated_bytes_max`] (P-28, LR-46). Nothing here changes a byte: [`Checked`] says which stamp the batch still needs.
//!
//! One rule is stricter than Kafka's: offset deltas that are not 0, 1, 2, ... are refused (87), where Kafka rewrites
//! the batch or stores it as it is (LR-41); every stock client counts them up.

use crate::batch::{BatchError, BatchHeader, BatchView, LOG_APPEND_TIME_BIT};
use crate::compression::{self, CompressionError, decompress};
use crate::error_code::ErrorCode;
use crate::record::{RecordView, Records};
use std::borrow::Cow;

/// The most records named in a refusal: a batch of nothing but faults would otherwise make an answer larger than itself.
/// Clients treat the records that are not named as failed along with their batch.
pub const RECORD_ERRORS_MAX: usize = 1000;

/// Every compressed batch may hold this much.
const INFLATED_BYTES_ALWAYS: usize = 64 << 20;
/// Beyond that, so many times its own size ...
const INFLATED_RATIO_MAX: usize = 100;
/// ... and never more than this.
const INFLATED_BYTES_MAX: usize = 256 << 20;

/// Whose timestamps a topic keeps: `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's.
    LogAppendTime,
}

/// The rules of one topic, for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Version of the Produce request: zstd is allowed from 7 (P-4).
    pub request_version: i16,
    /// `max.message.bytes`: the largest batch, header included.
    pub max_message_bytes: i32,
    /// Whether the topic is compacted: then every record needs a key (P-18).
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
}

/// A batch that may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// The highest timestamp of its records, milliseconds since 1970; -1 if they have none. On a LogAppendTime topic the
    /// broker's time, which [`crate::batch::stamp_log_append_time`] is still to write.
    pub max_timestamp: i64,
    /// CreateTime topics: the header says otherwise than the records, or has the LogAppendTime bit: to be corrected with
    /// [`crate::batch::stamp_create_time`] (LR-35).
    pub restamp: bool,
}

/// A batch that may not be appended, and what the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The partition's error.
    pub code: ErrorCode,
    /// Why, for the client's log.
    pub message: Cow<'static, str>,
    /// The records at fault, by index in the batch, at most [`RECORD_ERRORS_MAX`] (LR-26).
    pub record_errors: Vec<(i32, String)>,
}

impl Rejected {
    fn new(code: ErrorCode, message: &'static str) -> Rejected {
        Rejected {
            code,
            message: Cow::Borrowed(message),
            record_errors: Vec::new(),
        }
    }

    fn invalid(message: &'static str) -> Rejected {
        Rejected::new(ErrorCode::InvalidRecord, message)
    }

    fn corrupt(message: &'static str) -> Rejected {
        Rejected::new(ErrorCode::CorruptMessage, message)
    }
}

/// The one batch in the records of a Produce (P-3, P-4).
///
/// What follows it is not part of it: a cut-off second batch is ignored, as Kafka does. The caller keeps the first
/// `header().size_bytes()` bytes alone.
pub fn only_batch(records: Option<&[u8]>, request_version: i16) -> Result<BatchView<'_>, Rejected> {
    let records = records.ok_or_else(|| Rejected::invalid("the records are missing"))?;
    let view = BatchView::parse(records).map_err(|error| match error {
        BatchError::Incomplete => Rejected::invalid("the records hold no complete batch"),
        BatchError::BadMagic(_) => Rejected::invalid("only batches of format 2 are accepted"),
        BatchError::BadLength => Rejected::corrupt("the batch length is impossible"),
        BatchError::BadCrc => Rejected::corrupt("the batch checksum does not match"),
    })?;
    check_codec(view.header().codec(), request_version)?;
    let rest = &records[view.bytes().len()..];
    match BatchView::parse(rest) {
        Err(BatchError::Incomplete) => Ok(view),
        Err(BatchError::BadLength) => Err(Rejected::corrupt("bytes that are no batch follow it")),
        Ok(_) | Err(_) => Err(Rejected::invalid("more than one batch for a partition")),
    }
}

/// P-4, LR-21.
fn check_codec(codec: i16, request_version: i16) -> Result<(), Rejected> {
    let message = match codec {
        0..=3 => return Ok(()),
        compression::ZSTD if request_version >= 7 => return Ok(()),
        compression::ZSTD => "zstd is allowed from Produce version 7 on",
        _ => "the compression codec is not known",
    };
    Err(Rejected::new(
        ErrorCode::UnsupportedCompressionType,
        message,
    ))
}

/// Checks a batch in full (P-4, P-10 to P-20). `now_ms`: wall clock, milliseconds since 1970.
pub fn check_client_batch(
    view: &BatchView<'_>,
    rules: &Rules,
    now_ms: i64,
) -> Result<Checked, Rejected> {
    check_header(view, rules)?;
    let header = view.header();
    let mut walk = Walk::new(header, rules, now_ms);
    if header.codec() == compression::NONE {
        walk.records(view.records())?;
    } else {
        let limit_bytes = inflated_bytes_max(view.records().len());
        let block = decompress(header.codec(), view.records(), limit_bytes).map_err(|error| {
            Rejected::corrupt(match error {
                CompressionError::TooLarge { .. } => "the batch decompresses to too many bytes",
                _ => "the batch can't be decompressed",
            })
        })?;
        walk.records(&block)?;
    }
    walk.finish()
}

/// Checks what the header alone can tell (LN-1, `tally.produce.validation=header`). Uncompressed batches, and those for
/// compacted or LogAppendTime topics, are still checked in full.
pub fn check_client_batch_header(
    view: &BatchView<'_>,
    rules: &Rules,
    now_ms: i64,
) -> Result<Checked, Rejected> {
    let header = view.header();
    let full = header.codec() == compression::NONE
        || rules.compacted
        || rules.timestamp_type == TimestampType::LogAppendTime
        || header.attributes & LOG_APPEND_TIME_BIT != 0;
    if full {
        return check_client_batch(view, rules, now_ms);
    }
    check_header(view, rules)?;
    for timestamp in [header.base_timestamp, header.max_timestamp] {
        if timestamp != -1 && !in_window(timestamp, rules, now_ms) {
            return Err(Rejected::new(ErrorCode::InvalidTimestamp, TIMESTAMP_RANGE));
        }
    }
    Ok(Checked {
        max_timestamp: header.max_timestamp,
        restamp: false,
    })
}

/// How many bytes a block of `compressed_bytes` may decompress to: 64 MiB, or a hundred times its size up to 256 MiB.
#[must_use]
pub fn inflated_bytes_max(compressed_bytes: usize) -> usize {
    compressed_bytes
        .saturating_mul(INFLATED_RATIO_MAX)
        .clamp(INFLATED_BYTES_ALWAYS, INFLATED_BYTES_MAX)
}

/// P-4, P-10 to P-16.
fn check_header(view: &BatchView<'_>, rules: &Rules) -> Result<(), Rejected> {
    let header = view.header();
    check_codec(header.codec(), rules.request_version)?;
    if header.base_offset.0 != 0 {
        return Err(Rejected::invalid("the base offset is not 0"));
    }
    let size_max = usize::try_from(rules.max_message_bytes).unwrap_or(0);
    if view.bytes().len() > size_max {
        let message = "the batch is larger than max.message.bytes";
        return Err(Rejected::new(ErrorCode::MessageTooLarge, message));
    }
    view.check_crc()
        .map_err(|_| Rejected::corrupt("the batch checksum does not match"))?;
    let count = header.records_count;
    if count <= 0 || header.last_offset_delta.checked_add(1) != Some(count) {
        return Err(Rejected::invalid("the record count is impossible"));
    }
    if header.is_control() {
        return Err(Rejected::invalid("clients may not write control batches"));
    }
    if header.has_producer() && header.base_sequence.0 < 0 {
        return Err(Rejected::invalid("a producer id without a sequence"));
    }
    if header.has_producer() && header.producer_epoch.0 < 0 {
        return Err(Rejected::invalid("a producer id without an epoch"));
    }
    if header.is_transactional() && !header.has_producer() {
        return Err(Rejected::invalid("a transaction without a producer id"));
    }
    Ok(())
}

const TIMESTAMP_RANGE: &str = "the timestamp is too far from the broker's clock";
const TIMESTAMP_BIT: &str = "the batch claims the broker's timestamp type";
const NULL_KEY: &str = "a compacted topic needs a key in every record";

fn in_window(timestamp: i64, rules: &Rules, now_ms: i64) -> bool {
    now_ms.saturating_sub(timestamp) <= rules.before_max_ms
        && timestamp.saturating_sub(now_ms) <= rules.after_max_ms
}

/// P-17 to P-20: one pass over the records.
struct Walk<'a> {
    header: &'a BatchHeader,
    rules: &'a Rules,
    now_ms: i64,
    has_append_time_bit: bool,
    max_timestamp: i64,
    any_bad_timestamp: bool,
    record_errors: Vec<(i32, String)>,
}

impl Walk<'_> {
    fn new<'a>(header: &'a BatchHeader, rules: &'a Rules, now_ms: i64) -> Walk<'a> {
        Walk {
            header,
            rules,
            now_ms,
            has_append_time_bit: header.attributes & LOG_APPEND_TIME_BIT != 0,
            max_timestamp: -1,
            any_bad_timestamp: false,
            record_errors: Vec::new(),
        }
    }

    fn records(&mut self, block: &[u8]) -> Result<(), Rejected> {
        let mut records = Records::new(block, self.header.records_count);
        for (index, record) in (0..).zip(records.by_ref()) {
            let Ok(record) = record else {
                return Err(Rejected::invalid(
                    "a record does not parse, or there are too few",
                ));
            };
            self.record(index, &record)?;
        }
        if records.rest().is_empty() {
            Ok(())
        } else {
            Err(Rejected::invalid("more records than the batch announces"))
        }
    }

    #[inline]
    fn record(&mut self, index: i32, record: &RecordView<'_>) -> Result<(), Rejected> {
        if record.offset_delta != index {
            return Err(Rejected::invalid("the offset deltas are not 0, 1, 2, ..."));
        }
        let timestamp = if self.has_append_time_bit {
            self.header.max_timestamp
        } else {
            let base = self.header.base_timestamp;
            let timestamp = base.checked_add(record.timestamp_delta);
            timestamp.ok_or_else(|| Rejected::invalid("a timestamp overflows"))?
        };
        self.max_timestamp = self.max_timestamp.max(timestamp);
        if self.rules.compacted && record.key.is_none() {
            self.fault(index, NULL_KEY);
        } else if let Some(fault) = self.timestamp_fault(timestamp) {
            self.any_bad_timestamp = true;
            self.fault(index, fault);
        }
        Ok(())
    }

    /// The table of log-and-fetch.md section 3.3.
    #[inline]
    fn timestamp_fault(&self, timestamp: i64) -> Option<&'static str> {
        if self.rules.timestamp_type == TimestampType::CreateTime && timestamp != -1 {
            (!in_window(timestamp, self.rules, self.now_ms)).then_some(TIMESTAMP_RANGE)
        } else {
            self.has_append_time_bit.then_some(TIMESTAMP_BIT)
        }
    }

    #[cold]
    fn fault(&mut self, index: i32, message: &str) {
        if self.record_errors.len() < RECORD_ERRORS_MAX {
            self.record_errors.push((index, message.to_owned()));
        }
    }

    fn finish(self) -> Result<Checked, Rejected> {
        if !self.record_errors.is_empty() {
            let (code, message) = if self.any_bad_timestamp {
                (
                    ErrorCode::InvalidTimestamp,
                    "records have invalid timestamps",
                )
            } else {
                (ErrorCode::InvalidRecord, "records without a key")
            };
            return Err(Rejected {
                record_errors: self.record_errors,
                ..Rejected::new(code, message)
            });
        }
        Ok(match self.rules.timestamp_type {
            TimestampType::CreateTime => Checked {
                max_timestamp: self.max_timestamp,
                restamp: self.has_append_time_bit
                    || self.max_timestamp != self.header.max_timestamp,
            },
            TimestampType::LogAppendTime => Checked {
                max_timestamp: self.now_ms,
                restamp: false,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{CRC_START, HEADER_BYTES, stamp_create_time, stamp_log_append_time};
    use crate::build::BatchBuilder;
    use crate::compression::tests::compress;
    use crate::ids::{ProducerEpoch, ProducerId, Sequence};
    use crate::record::put_record;
    use bytes::BytesMut;

    const NOW: i64 = 1_000_000_000;

    fn rules() -> Rules {
        Rules {
            request_version: 12,
            max_message_bytes: 1 << 20,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
        }
    }

    fn builder() -> BatchBuilder {
        let mut builder =
            BatchBuilder::new(NOW).producer(ProducerId(1), ProducerEpoch(0), Sequence(0));
        builder.push(Some(b"a"), Some(b"1"));
        builder.push_at(NOW + 5, None, Some(b"2"));
        builder
    }

    fn set_crc(batch: &mut [u8]) {
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }

    /// A sound batch with bytes overwritten at a place and the checksum set again.
    fn patched(at: usize, bytes: &[u8]) -> BytesMut {
        let mut batch = builder().finish();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        set_crc(&mut batch);
        batch
    }

    /// The header of a sound batch around other records.
    fn around(block: &[u8], codec: u8) -> BytesMut {
        let mut batch = BytesMut::from(&builder().finish()[..HEADER_BYTES]);
        batch[22] |= codec;
        batch.extend_from_slice(block);
        let length = i32::try_from(batch.len() - 12).unwrap();
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        set_crc(&mut batch);
        batch
    }

    #[track_caller]
    fn check(batch: &[u8], rules: &Rules) -> Result<Checked, Rejected> {
        check_client_batch(&BatchView::parse(batch).unwrap(), rules, NOW)
    }

    #[track_caller]
    fn refused(batch: &[u8], rules: &Rules, code: ErrorCode) -> Rejected {
        let rejected = check(batch, rules).unwrap_err();
        assert_eq!(rejected.code, code, "{rejected:?}");
        rejected
    }

    #[test]
    fn a_sound_batch_passes() {
        let expected = Checked {
            max_timestamp: NOW + 5,
            restamp: false,
        };
        let batch = builder().finish();
        assert_eq!(check(&batch, &rules()), Ok(expected));
        for codec in 1..=4 {
            let block = compress(codec, &batch[HEADER_BYTES..]);
            let packed = around(&block, u8::try_from(codec).unwrap());
            assert_eq!(check(&packed, &rules()), Ok(expected), "codec {codec}");
        }
    }

    #[test]
    fn p3_p4_there_is_exactly_one_batch_of_format_two() {
        let batch = builder().finish();
        let code = |records: Option<&[u8]>, version| {
            only_batch(records, version)
                .map(|view| view.bytes().len())
                .map_err(|r| r.code)
        };
        assert_eq!(code(Some(&batch), 3), Ok(batch.len()));
        let invalid = Err(ErrorCode::InvalidRecord);
        assert_eq!(code(None, 3), invalid);
        assert_eq!(code(Some(&[]), 3), invalid);
        assert_eq!(code(Some(&batch[..batch.len() - 1]), 3), invalid);
        assert_eq!(code(Some(&patched(16, &[1])), 3), invalid);
        let two = [&batch[..], &batch[..]].concat();
        assert_eq!(code(Some(&two), 3), invalid);
        assert_eq!(code(Some(&two[..two.len() - 1]), 3), Ok(batch.len()));
        let short = patched(8, &[0, 0, 0, 48]);
        assert_eq!(code(Some(&short), 3), Err(ErrorCode::CorruptMessage));
        let zstd = patched(22, &[4]);
        let unsupported = Err(ErrorCode::UnsupportedCompressionType);
        assert_eq!(code(Some(&zstd), 6), unsupported);
        assert_eq!(code(Some(&zstd), 7), Ok(batch.len()));
        for codec in 5..=7 {
            assert_eq!(code(Some(&patched(22, &[codec])), 13), unsupported);
        }
    }

    #[test]
    fn p10_to_p16_the_header_is_checked() {
        let cases: [(&str, usize, &[u8], ErrorCode); 11] = [
            ("P-10", 7, &[1], ErrorCode::InvalidRecord),
            ("P-13 count 0", 57, &[0, 0, 0, 0], ErrorCode::InvalidRecord),
            ("P-13 count -1", 57, &[0xff; 4], ErrorCode::InvalidRecord),
            ("P-13 delta", 23, &[0, 0, 0, 2], ErrorCode::InvalidRecord),
            (
                "P-13 delta max",
                23,
                &[0x7f, 0xff, 0xff, 0xff],
                ErrorCode::InvalidRecord,
            ),
            ("P-13 delta -1", 23, &[0xff; 4], ErrorCode::InvalidRecord),
            ("P-14", 22, &[0x20], ErrorCode::InvalidRecord),
            ("P-15", 53, &[0xff; 4], ErrorCode::InvalidRecord),
            ("P-16 epoch", 51, &[0xff; 2], ErrorCode::InvalidRecord),
            ("P-20", 22, &[0x08], ErrorCode::InvalidTimestamp),
            ("P-4", 22, &[5], ErrorCode::UnsupportedCompressionType),
        ];
        for (rule, at, bytes, code) in cases {
            let mut batch = patched(at, bytes);
            if rule == "P-20" {
                // Without timestamps: that is when the bit matters on a CreateTime topic.
                batch[35..43].copy_from_slice(&[0xff; 8]);
                set_crc(&mut batch);
            }
            let rejected = check(&batch, &rules()).unwrap_err();
            assert_eq!(rejected.code, code, "{rule}: {rejected:?}");
        }
    }

    #[test]
    fn p16_a_transaction_needs_a_producer() {
        let mut batch = BatchBuilder::new(NOW).transactional();
        batch.push(None, None);
        refused(&batch.finish(), &rules(), ErrorCode::InvalidRecord);
        let mut plain = BatchBuilder::new(NOW);
        plain.push(None, None);
        assert!(check(&plain.finish(), &rules()).is_ok());
    }

    #[test]
    fn p11_size_comes_before_p12_checksum_before_the_rest() {
        let mut batch = patched(57, &[0, 0, 0, 0]);
        batch[17] ^= 1;
        refused(&batch, &rules(), ErrorCode::CorruptMessage);
        let small = Rules {
            max_message_bytes: i32::try_from(batch.len()).unwrap() - 1,
            ..rules()
        };
        refused(&batch, &small, ErrorCode::MessageTooLarge);
        batch[7] = 1;
        refused(&batch, &small, ErrorCode::InvalidRecord);
    }

    #[test]
    fn p17_records_must_parse_and_be_as_many_as_announced() {
        let sound = builder().finish();
        let block = &sound[HEADER_BYTES..];
        let mut extra = block.to_vec();
        put_record(&mut extra, 0, 2, None, None);
        let mut gap = Vec::new();
        put_record(&mut gap, 0, 0, None, None);
        put_record(&mut gap, 0, 2, None, None);
        let mut overflow = Vec::new();
        put_record(&mut overflow, 0, 0, None, None);
        put_record(&mut overflow, i64::MAX, 1, None, None);
        for records in [
            &block[..9],
            &block[..block.len() - 1],
            &extra,
            &gap,
            &overflow,
            &[],
        ] {
            refused(&around(records, 0), &rules(), ErrorCode::InvalidRecord);
            let packed = compress(compression::GZIP, records);
            refused(&around(&packed, 1), &rules(), ErrorCode::InvalidRecord);
        }
    }

    #[test]
    fn lr46_bombs_and_broken_blocks_are_corrupt() {
        let zeros = vec![0; INFLATED_BYTES_ALWAYS + 1];
        let bomb = around(&compress(compression::ZSTD, &zeros), 4);
        refused(&bomb, &rules(), ErrorCode::CorruptMessage);
        for codec in 1..=4 {
            let broken = around(b"not compressed", codec);
            refused(&broken, &rules(), ErrorCode::CorruptMessage);
        }
        assert_eq!(inflated_bytes_max(10), 64 << 20);
        assert_eq!(inflated_bytes_max(1 << 20), 100 << 20);
        assert_eq!(inflated_bytes_max(100 << 20), 256 << 20);
    }

    #[test]
    fn p18_a_compacted_topic_names_every_record_without_a_key() {
        let compacted = Rules {
            compacted: true,
            ..rules()
        };
        let rejected = refused(&builder().finish(), &compacted, ErrorCode::InvalidRecord);
        assert_eq!(rejected.record_errors, [(1, NULL_KEY.to_owned())]);
        let mut keyless = BatchBuilder::new(NOW);
        for _ in 0..2000 {
            keyless.push(None, None);
        }
        let rejected = refused(&keyless.finish(), &compacted, ErrorCode::InvalidRecord);
        assert_eq!(rejected.record_errors.len(), RECORD_ERRORS_MAX);
    }

    #[test]
    fn p19_timestamps_far_from_the_clock_are_named() {
        let window = Rules {
            before_max_ms: 10,
            after_max_ms: 10,
            ..rules()
        };
        let mut batch = BatchBuilder::new(NOW);
        for delta in [-11, -10, 0, 10, 11] {
            batch.push_at(NOW + delta, None, None);
        }
        let batch = batch.finish();
        let rejected = refused(&batch, &window, ErrorCode::InvalidTimestamp);
        let indexes: Vec<_> = rejected
            .record_errors
            .iter()
            .map(|(index, _)| *index)
            .collect();
        assert_eq!(indexes, [0, 4]);
        // LR-26: a bad timestamp decides the code; the key is the first fault of its record.
        let compacted = Rules {
            compacted: true,
            ..window
        };
        let rejected = refused(&batch, &compacted, ErrorCode::InvalidRecord);
        assert_eq!(rejected.record_errors.len(), 5);
        let mut extreme = BatchBuilder::new(i64::MIN);
        extreme.push(None, None);
        refused(&extreme.finish(), &window, ErrorCode::InvalidTimestamp);
    }

    #[test]
    fn p20_the_timestamp_table_of_both_types() {
        let create = rules();
        let append = Rules {
            timestamp_type: TimestampType::LogAppendTime,
            ..rules()
        };
        let mut without = BatchBuilder::new(-1);
        without.push(None, None);
        let without = without.finish();
        let expected = Checked {
            max_timestamp: -1,
            restamp: false,
        };
        assert_eq!(check(&without, &create), Ok(expected));
        let mut claimed = without.clone();
        stamp_log_append_time(&mut claimed, -1);
        refused(&claimed, &create, ErrorCode::InvalidTimestamp);

        let mut dated = builder().finish();
        let expected = Checked {
            max_timestamp: NOW,
            restamp: false,
        };
        assert_eq!(check(&dated, &append), Ok(expected));
        stamp_log_append_time(&mut dated, NOW + 7);
        refused(&dated, &append, ErrorCode::InvalidTimestamp);
        let expected = Checked {
            max_timestamp: NOW + 7,
            restamp: true,
        };
        assert_eq!(check(&dated, &create), Ok(expected));
    }

    #[test]
    fn lr35_a_wrong_maximum_is_to_be_corrected() {
        let mut batch = patched(35, &(NOW + 1).to_be_bytes());
        let checked = check(&batch, &rules()).unwrap();
        assert_eq!((checked.max_timestamp, checked.restamp), (NOW + 5, true));
        stamp_create_time(&mut batch, checked.max_timestamp);
        assert_eq!(batch, builder().finish());
    }

    #[test]
    fn ln1_the_header_check_leaves_compressed_records_alone() {
        let broken = around(b"not compressed", 2);
        let header = |batch: &[u8], rules: &Rules| {
            check_client_batch_header(&BatchView::parse(batch).unwrap(), rules, NOW)
        };
        assert!(header(&broken, &rules()).is_ok());
        let compacted = Rules {
            compacted: true,
            ..rules()
        };
        assert!(header(&broken, &compacted).is_err());
        assert!(header(&around(b"not records", 0), &rules()).is_err());
        let late = Rules {
            after_max_ms: 4,
            ..rules()
        };
        let rejected = header(&broken, &late).unwrap_err();
        assert_eq!(rejected.code, ErrorCode::InvalidTimestamp);
    }
}
