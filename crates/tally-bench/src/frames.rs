//! Requests that are encoded once and then only patched: producer, sequences, checksum, the time of sending, fetch offset.
//!
//! The places to patch are found by marks that the encoder was given instead of real values. All correlation ids are 0: answers
//! come in the order of the requests.

use bytes::Bytes;
use kafka_protocol::protocol::Request;
use tally_protocol::batch::CRC_START;
use tally_testkit::client::Producer;
use tally_testkit::wire;

/// Stands for the producer id in a template.
pub(crate) const PRODUCER_MARK: i64 = 0x7A11_7E57_0BAD_5EED;
/// Stands for an offset in a template.
pub(crate) const OFFSET_MARK: i64 = 0x7A11_0FF5_0BAD_5EED;

/// Stands in a record's value for the time when it was sent.
pub(crate) const TIME_MARK: i64 = 0x7A11_717E_0BAD_5EED;

/// Where a batch has its fields, from its first byte.
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const CRC: usize = 17;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Batches with a producer: first byte, byte behind the last.
    batches: Vec<(usize, usize)>,
    /// Producer id followed by epoch, outside batches.
    producer: Option<usize>,
    offset: Option<usize>,
    /// Where the batches have the time, from their first byte.
    time: Option<usize>,
}

impl Template {
    /// Of a request that has the marks where something is to be patched; `batches` are those that it carries.
    pub(crate) fn new<R: Request>(version: i16, request: &R, batches: &[Bytes]) -> Template {
        let bytes = wire::frame(version, 0, request);
        let mut from = 0;
        let mut found = Vec::new();
        for batch in batches {
            let start = from + find(&bytes[from..], batch).expect("the batch is in its request");
            from = start + batch.len();
            found.push((start, from));
        }
        let mark = PRODUCER_MARK.to_be_bytes();
        let outside = found.first().map_or(bytes.len(), |(start, _)| *start);
        let producer = find(&bytes[..outside], &mark);
        let with_producer =
            |(start, _): &(usize, usize)| bytes[start + PRODUCER_ID..].starts_with(&mark);
        found.retain(with_producer);
        let offset = find(&bytes, &OFFSET_MARK.to_be_bytes());
        Template {
            bytes,
            batches: found,
            producer,
            offset,
            time: batches.first().and_then(|batch| time_in(batch)),
        }
    }

    /// Appends the request of a producer; the batches get the sequences in their order, and all the same time.
    pub(crate) fn put_for(
        &self,
        out: &mut Vec<u8>,
        producer: Producer,
        sequences: &[i32],
        time: u64,
    ) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.producer {
            set(out, start + at, producer.id.to_be_bytes());
            set(out, start + at + 8, producer.epoch.to_be_bytes());
        }
        for ((first, end), sequence) in self.batches.iter().zip(sequences) {
            let batch = &mut out[start + first..start + end];
            set(batch, PRODUCER_ID, producer.id.to_be_bytes());
            set(batch, PRODUCER_EPOCH, producer.epoch.to_be_bytes());
            set(batch, BASE_SEQUENCE, sequence.to_be_bytes());
            if let Some(at) = self.time {
                set(batch, at, time.to_be_bytes());
            }
            let crc = crc32c::crc32c(&batch[CRC_START..]);
            set(batch, CRC, crc.to_be_bytes());
        }
    }

    /// Appends the request for another offset.
    pub(crate) fn put_at(&self, out: &mut Vec<u8>, offset: i64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.offset {
            set(out, start + at, offset.to_be_bytes());
        }
    }
}

/// Where a batch that was made with [`TIME_MARK`] has the time.
pub(crate) fn time_in(batch: &[u8]) -> Option<usize> {
    find(batch, &TIME_MARK.to_be_bytes())
}

fn set<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, rest) = wanted.split_first()?;
    let candidates = bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
    candidates
        .map(|(at, _)| at)
        .find(|at| bytes[at + 1..].starts_with(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::Decodable;
    use tally_protocol::BatchView;
    use tally_testkit::batches::Batch;

    #[test]
    fn a_patched_request_is_the_one_that_was_meant() {
        let batches: Vec<Bytes> = [3, 4]
            .map(|count| Batch::transactional(PRODUCER_MARK, 0, 0, count).encode())
            .to_vec();
        let request =
            crate::requests::produce("t", Some("id"), &[(0, &batches[0]), (1, &batches[1])]);
        let template = Template::new(11, &request, &batches);
        let mut out = vec![9];
        let producer = Producer { id: 7, epoch: 3 };
        template.put_for(&mut out, producer, &[11, 12], 0);
        let mut frame = Bytes::from(out).slice(5..);
        let header = RequestHeader::decode(&mut frame, 2).unwrap();
        assert_eq!(header.correlation_id, 0);
        let request = ProduceRequest::decode(&mut frame, 11).unwrap();
        for (index, part) in request.topic_data[0].partition_data.iter().enumerate() {
            let view = BatchView::parse(part.records.as_ref().unwrap()).unwrap();
            view.check_crc().unwrap();
            let header = view.header();
            assert_eq!((header.producer_id.0, header.producer_epoch.0), (7, 3));
            assert_eq!(header.base_sequence.0, 11 + i32::try_from(index).unwrap());
        }
    }
}
