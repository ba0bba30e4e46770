//! Why a transactional id was last fenced or its transaction aborted, as a tagged field of an answer to
//! DescribeTransactions. Tagged fields that a client does not know are skipped by the rules of the protocol (KIP-482), so that
//! every client can ask a broker that says more, and ours can ask every broker.
//!
//! Byte format, big-endian, behind the tag's own length:
//!
//! | size | meaning |
//! |---|---|
//! | 1 | version, 0 |
//! | 8 | when, milliseconds since 1970 |
//! | 8 | the producer id it happened to |
//! | 2 | the epoch that producer had before |
//! | 2 + n | log code and reason: `W2101 txn.timeout` |
//! | 2 + n | client id of who took the id over last, or empty |
//! | 2 + n | its address, or empty |
//! | 2 + n | its software and version, or empty; the field may end before it |
//! | 8 | for how many milliseconds its connection has said nothing, or -1; the field may end before it |
//! | 8 | for how many milliseconds its connection has been gone, or -1 |

/// The tag. Kafka numbers its own from 0; this one is far from them.
pub const TAG: i32 = 8800;

const VERSION: u8 = 0;

/// What is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TransactionNote {
    /// When it happened.
    pub at_ms: i64,
    /// The producer it happened to.
    pub producer_id: i64,
    /// The epoch that producer had before.
    pub producer_epoch: i16,
    /// Log code and reason; empty if nothing happened but that somebody took the id over.
    pub reason: String,
    /// Client id of who called InitProducerId last.
    pub client_id: String,
    /// Where that client is.
    pub address: String,
    /// What it calls itself: `librdkafka 2.12.1`; empty if it has not said.
    pub software: String,
    /// For how long that connection has said nothing.
    pub heard_ago_ms: Option<u64>,
    /// For how long it has been gone, if it is.
    pub gone_ago_ms: Option<u64>,
}

impl TransactionNote {
    /// The field's bytes. Texts are cut where two bytes can't hold their length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.at_ms.to_be_bytes());
        bytes.extend(self.producer_id.to_be_bytes());
        bytes.extend(self.producer_epoch.to_be_bytes());
        for text in [&self.reason, &self.client_id, &self.address, &self.software] {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend(text.bytes().take(usize::from(length)));
        }
        for ago in [self.heard_ago_ms, self.gone_ago_ms] {
            let ago = ago.and_then(|ago| i64::try_from(ago).ok());
            bytes.extend(ago.unwrap_or(-1).to_be_bytes());
        }
        bytes
    }

    /// Reads the field; `None` if it is of another version or not whole.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<TransactionNote> {
        let (version, bytes) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (at_ms, bytes) = bytes.split_first_chunk()?;
        let (producer_id, bytes) = bytes.split_first_chunk()?;
        let (producer_epoch, bytes) = bytes.split_first_chunk()?;
        let (reason, bytes) = text(bytes)?;
        let (client_id, bytes) = text(bytes)?;
        let (address, bytes) = text(bytes)?;
        // Brokers that said less ended here.
        let (software, bytes) = match bytes {
            [] => (String::new(), bytes),
            bytes => text(bytes)?,
        };
        let (heard_ago_ms, gone_ago_ms) = match bytes {
            [] => (None, None),
            bytes => {
                let (heard, bytes) = ago(bytes)?;
                (heard, ago(bytes)?.0)
            }
        };
        Some(TransactionNote {
            at_ms: i64::from_be_bytes(*at_ms),
            producer_id: i64::from_be_bytes(*producer_id),
            producer_epoch: i16::from_be_bytes(*producer_epoch),
            reason,
            client_id,
            address,
            software,
            heard_ago_ms,
            gone_ago_ms,
        })
    }
}

fn ago(bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (ago, rest) = bytes.split_first_chunk()?;
    Some((u64::try_from(i64::from_be_bytes(*ago)).ok(), rest))
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let (text, rest) = bytes.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((String::from_utf8_lossy(text).into_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_never_half() {
        let note = TransactionNote {
            at_ms: 1_795_278_863_009,
            producer_id: 1011,
            producer_epoch: 3,
            reason: "W2101 txn.timeout".to_owned(),
            client_id: "billing".to_owned(),
            address: "10.0.0.9:4711".to_owned(),
            software: "java 4.3.1".to_owned(),
            heard_ago_ms: Some(47_000),
            gone_ago_ms: None,
        };
        let bytes = note.encode();
        assert_eq!(TransactionNote::decode(&bytes), Some(note.clone()));
        // Where brokers that said less ended it.
        let untimed = bytes.len() - 16;
        let without = untimed - 2 - note.software.len();
        let mut older = TransactionNote {
            heard_ago_ms: None,
            ..note
        };
        assert_eq!(
            TransactionNote::decode(&bytes[..untimed]),
            Some(older.clone())
        );
        older.software.clear();
        assert_eq!(TransactionNote::decode(&bytes[..without]), Some(older));
        let ends = (0..bytes.len()).filter(|end| ![without, untimed].contains(end));
        for end in ends {
            assert_eq!(TransactionNote::decode(&bytes[..end]), None, "{end}");
        }
        assert_eq!(TransactionNote::decode(&[1; 64]), None);
    }
}
