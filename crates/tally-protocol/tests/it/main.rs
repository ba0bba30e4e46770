//! The hand-written codec against the codec crate, which was generated from Kafka's own schemas.

mod fetch;
mod hostile_properties;
mod produce;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// Tagged fields that no version defines, behind those that some do.
fn unknown_tags() -> BTreeMap<i32, Bytes> {
    BTreeMap::from([
        (77, Bytes::from_static(b"later")),
        (99_999, Bytes::from_static(b"")),
    ])
}

/// The body of a response frame, its length and header checked.
#[track_caller]
fn body_of(frame: &[u8], correlation_id: i32, flexible: bool) -> Bytes {
    let length = u32::try_from(frame.len() - 4).expect("frames here are small");
    assert_eq!(frame[..4], length.to_be_bytes());
    assert_eq!(frame[4..8], correlation_id.to_be_bytes());
    let body_at = if flexible {
        assert_eq!(frame[8], 0);
        9
    } else {
        8
    };
    Bytes::copy_from_slice(&frame[body_at..])
}
