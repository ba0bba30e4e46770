//! How a broker's last start went and which timeouts it has refused since, as a tagged field of an answer to DescribeCluster, for
//! who asks with the same tag, empty. Brokers that do not know it skip the question (KIP-482), and nobody else is told.
//!
//! Byte format, big-endian, behind the tag's own length:
//!
//! | size | meaning |
//! |---|---|
//! | 1 | version, 0 |
//! | 1 | 1 if the broker before was stopped clean or there was none, else 0 |
//! | 8 | how long ago it was ready, milliseconds |
//! | 8 | how long the recovery took, milliseconds |
//! | 4 | partitions that were opened |
//! | 4 | partitions that could not be opened |
//! | 4 | partitions whose log lost a torn end |
//! | 8 | InitProducerId requests refused for their timeout since then |
//! | 4 | the last such timeout, milliseconds |
//! | 2 + n | client id of who asked for it |

/// The tag. Kafka numbers its own from 0; this one is far from them.
pub const TAG: i32 = 8801;

const VERSION: u8 = 0;
/// Longest client id that is told, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 255;

/// What is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StartNote {
    /// Whether the broker before was stopped clean, or there was none.
    pub was_clean: bool,
    /// For how long it has been ready.
    pub ready_ago_ms: u64,
    /// How long the recovery took.
    pub recovery_ms: u64,
    /// Partitions that were opened.
    pub opened: u32,
    /// Partitions that could not be opened.
    pub unopened: u32,
    /// Partitions whose log lost a torn end.
    pub cut: u32,
    /// Requests for a transaction timeout that was not allowed.
    pub refused_timeouts: u64,
    /// The last such timeout.
    pub refused_timeout_ms: i32,
    /// Client id of who asked for it.
    pub refused_client_id: String,
}

impl StartNote {
    /// The field's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(self.was_clean)];
        bytes.extend(self.ready_ago_ms.to_be_bytes());
        bytes.extend(self.recovery_ms.to_be_bytes());
        for count in [self.opened, self.unopened, self.cut] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(self.refused_timeouts.to_be_bytes());
        bytes.extend(self.refused_timeout_ms.to_be_bytes());
        let client = self.refused_client_id.as_bytes();
        let length = client.len().min(CLIENT_ID_BYTES_MAX);
        // At most 255.
        bytes.extend([0, u8::try_from(length).unwrap_or(u8::MAX)]);
        bytes.extend(&client[..length]);
        bytes
    }

    /// Reads the field; `None` if it is of another version or not whole.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<StartNote> {
        let [VERSION, clean, rest @ ..] = bytes else {
            return None;
        };
        let (ready_ago_ms, rest) = rest.split_first_chunk()?;
        let (recovery_ms, rest) = rest.split_first_chunk()?;
        let (opened, rest) = rest.split_first_chunk()?;
        let (unopened, rest) = rest.split_first_chunk()?;
        let (cut, rest) = rest.split_first_chunk()?;
        let (refused_timeouts, rest) = rest.split_first_chunk()?;
        let (refused_timeout_ms, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let client = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
        Some(StartNote {
            was_clean: *clean != 0,
            ready_ago_ms: u64::from_be_bytes(*ready_ago_ms),
            recovery_ms: u64::from_be_bytes(*recovery_ms),
            opened: u32::from_be_bytes(*opened),
            unopened: u32::from_be_bytes(*unopened),
            cut: u32::from_be_bytes(*cut),
            refused_timeouts: u64::from_be_bytes(*refused_timeouts),
            refused_timeout_ms: i32::from_be_bytes(*refused_timeout_ms),
            refused_client_id: String::from_utf8_lossy(client).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_never_half() {
        let mut note = StartNote {
            was_clean: true,
            ready_ago_ms: 1,
            recovery_ms: 2,
            opened: 3,
            unopened: 4,
            cut: 5,
            refused_timeouts: 6,
            refused_timeout_ms: -7,
            refused_client_id: "flink-sink".to_owned(),
        };
        let bytes = note.encode();
        assert_eq!(StartNote::decode(&bytes), Some(note.clone()));
        for end in 0..bytes.len() {
            assert_eq!(StartNote::decode(&bytes[..end]), None, "{end}");
        }
        assert_eq!(StartNote::decode(&[1; 64]), None);
        note.refused_client_id = "x".repeat(1000);
        let read = StartNote::decode(&note.encode()).expect("a note");
        assert_eq!(read.refused_client_id.len(), CLIENT_ID_BYTES_MAX);
    }
}
