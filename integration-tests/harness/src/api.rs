//! The few facts about Kafka requests that the proxy needs: where a header says what it is, and the numbers of the APIs.

use std::fmt;

/// An API by its number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Api(pub(crate) i16);

pub(crate) const PRODUCE: Api = Api(0);
pub(crate) const FETCH: Api = Api(1);
pub(crate) const OFFSET_COMMIT: Api = Api(8);
pub(crate) const OFFSET_FETCH: Api = Api(9);
pub(crate) const JOIN_GROUP: Api = Api(11);
pub(crate) const SYNC_GROUP: Api = Api(14);
pub(crate) const INIT_PRODUCER_ID: Api = Api(22);
pub(crate) const ADD_PARTITIONS_TO_TXN: Api = Api(24);
pub(crate) const ADD_OFFSETS_TO_TXN: Api = Api(25);
pub(crate) const END_TXN: Api = Api(26);
pub(crate) const TXN_OFFSET_COMMIT: Api = Api(28);

/// First version of Produce with a flexible header and compact strings.
const PRODUCE_FLEXIBLE: i16 = 9;
/// First version of Produce that begins with the transactional id.
const PRODUCE_TRANSACTIONAL: i16 = 3;

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            PRODUCE => "Produce",
            FETCH => "Fetch",
            OFFSET_COMMIT => "OffsetCommit",
            OFFSET_FETCH => "OffsetFetch",
            JOIN_GROUP => "JoinGroup",
            SYNC_GROUP => "SyncGroup",
            INIT_PRODUCER_ID => "InitProducerId",
            ADD_PARTITIONS_TO_TXN => "AddPartitionsToTxn",
            ADD_OFFSETS_TO_TXN => "AddOffsetsToTxn",
            END_TXN => "EndTxn",
            TXN_OFFSET_COMMIT => "TxnOffsetCommit",
            Api(number) => return write!(f, "API {number}"),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the proxy reads of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) api: Api,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
    /// A Produce request without a transactional id: only the feeder sends such.
    pub(crate) plain_produce: bool,
}

impl Request {
    /// Reads a frame without its length. None when it is too short to be a request.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let mut rest = frame;
        let api = Api(take_i16(&mut rest)?);
        let version = take_i16(&mut rest)?;
        let correlation_id = take_i32(&mut rest)?;
        let client_id = match usize::try_from(take_i16(&mut rest)?) {
            Ok(length) => String::from_utf8_lossy(take(&mut rest, length)?).into_owned(),
            Err(_) => String::new(),
        };
        let plain_produce = api == PRODUCE && has_no_transactional_id(version, rest);
        Some(Self {
            api,
            version,
            correlation_id,
            client_id,
            plain_produce,
        })
    }
}

/// The transactional id is the first field of a Produce body; flexible versions have the header's (empty) tagged fields before it.
fn has_no_transactional_id(version: i16, mut rest: &[u8]) -> bool {
    if version >= PRODUCE_FLEXIBLE {
        return matches!(rest, [0, 0, ..]);
    }
    version >= PRODUCE_TRANSACTIONAL && take_i16(&mut rest) == Some(-1)
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

fn take_i16(from: &mut &[u8]) -> Option<i16> {
    Some(i16::from_be_bytes(take(from, 2)?.try_into().ok()?))
}

fn take_i32(from: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(from, 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(frame: &[u8], expected: Option<(Api, i16, i32, &str, bool)>) {
        let found = Request::parse(frame);
        let found = found.as_ref().map(|r| {
            (
                r.api,
                r.version,
                r.correlation_id,
                r.client_id.as_str(),
                r.plain_produce,
            )
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn headers_are_read_up_to_the_transactional_id_of_produce() {
        check(
            &[0, 26, 0, 5, 0, 0, 1, 2, 0, 1, b'p', 0],
            Some((END_TXN, 5, 258, "p", false)),
        );
        check(
            &[0, 0, 0, 7, 0, 0, 0, 1, 255, 255, 255, 255, 0, 1],
            Some((PRODUCE, 7, 1, "", true)),
        );
        check(
            &[0, 0, 0, 7, 0, 0, 0, 1, 255, 255, 0, 1, b't'],
            Some((PRODUCE, 7, 1, "", false)),
        );
        check(
            &[0, 0, 0, 12, 0, 0, 0, 1, 0, 1, b'f', 0, 0, 255, 255],
            Some((PRODUCE, 12, 1, "f", true)),
        );
        check(
            &[0, 0, 0, 12, 0, 0, 0, 1, 0, 1, b'f', 0, 2, b't'],
            Some((PRODUCE, 12, 1, "f", false)),
        );
    }

    #[test]
    fn short_frames_are_no_requests() {
        check(&[], None);
        check(&[0, 0, 0, 7, 0, 0, 0], None);
        check(&[0, 0, 0, 7, 0, 0, 0, 1, 0, 9, b'x'], None);
    }
}
