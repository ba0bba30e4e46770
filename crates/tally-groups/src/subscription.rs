//! The topics in a consumer's JoinGroup metadata, as far as the coordinator needs them (section 7.4, 7.5).
//!
//! | field | type |
//! |---|---|
//! | version | i16, 0 or higher |
//! | topics | i32 count, then strings of an i16 length |
//! | the rest | not looked at |
//!
//! Big-endian. The bytes come from a client: whatever they are, reading them ends in a list or in `None`.

use std::collections::BTreeSet;

/// The topics subscribed to; `None` if the bytes are no subscription.
pub(crate) fn subscribed_topics(metadata: &[u8]) -> Option<BTreeSet<&str>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let (length, name_onwards) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, after) = name_onwards.split_at_checked(length)?;
        topics.insert(std::str::from_utf8(name).ok()?);
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_what_follows_is_not() {
        let bytes = [
            &[0, 1, 0, 0, 0, 2][..],
            &[0, 1, b'b', 0, 2, b'a', b'a'],
            &[9; 3],
        ]
        .concat();
        assert_eq!(subscribed_topics(&bytes), Some(BTreeSet::from(["aa", "b"])));
        for end in 0..13 {
            assert_eq!(subscribed_topics(&bytes[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn nonsense_is_no_subscription() {
        assert_eq!(subscribed_topics(&[0xff, 0xff, 0, 0, 0, 0]), None);
        assert_eq!(subscribed_topics(&[0, 0, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(subscribed_topics(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(subscribed_topics(&[0, 0, 0, 0, 0, 1, 0, 1, 0xff]), None);
    }
}
