//! The head of a request frame, and the head of a response.
//!
//! A frame here is what follows the int32 length. Request header: api key int16, version int16, correlation id int32,
//! client id (classic nullable string, in the flexible header too), then tagged fields if the version is flexible.
//! Response: int32 length, correlation id int32, then tagged fields if flexible (never for ApiVersions).

use crate::api_table::{API_VERSIONS, Api, lookup};
use crate::wire::{Malformed, Reader};
use bytes::BufMut;
use std::ops::Range;
use thiserror::Error;

/// Bytes of the shortest head; a shorter frame is no request (api-matrix.md section 3.3).
pub const HEAD_BYTES_MIN: usize = 10;

/// The head of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The API, served in this version.
    pub api: &'static Api,
    /// The API's key.
    pub api_key: i16,
    /// The version of request and response.
    pub api_version: i16,
    /// What the response must repeat.
    pub correlation_id: i32,
    /// Where the body begins in the frame.
    pub body_at: usize,
    client_id: Option<Range<usize>>,
}

/// Why no handler can be found for a frame. Only [`HeadError::ApiVersionsVersion`] is answered; everything else closes the
/// connection (LR-152).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The frame is too short, or the client id is broken.
    #[error("the request header is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// No such API is served.
    #[error("api key {key} (version {version}) is not served")]
    UnknownApi {
        /// The key asked for.
        key: i16,
        /// The version asked for.
        version: i16,
    },
    /// The API is served, but not in this version.
    #[error("{} version {version} is not served", api.name)]
    UnsupportedVersion {
        /// The API asked for.
        api: &'static Api,
        /// The version asked for.
        version: i16,
    },
    /// ApiVersions in a version that is not served: answered in the form of version 0 with error 35 and the one row of
    /// ApiVersions itself (api-matrix.md section 5.1).
    #[error("ApiVersions version {version} is not served")]
    ApiVersionsVersion {
        /// The version asked for.
        version: i16,
        /// What the response must repeat.
        correlation_id: i32,
    },
}

impl RequestHead {
    /// Reads the head of `frame`, which starts behind the length.
    pub fn parse(frame: &[u8]) -> Result<RequestHead, HeadError> {
        let mut reader = Reader::new(frame);
        let key = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let Some(api) = lookup(key) else {
            return Err(HeadError::UnknownApi { key, version });
        };
        if !api.serves(version) {
            return Err(if key == API_VERSIONS {
                HeadError::ApiVersionsVersion {
                    version,
                    correlation_id,
                }
            } else {
                HeadError::UnsupportedVersion { api, version }
            });
        }
        let client_id = reader.nullable_string(false)?;
        let client_id_end = frame.len() - reader.remaining();
        reader.skip_tagged_fields(api.is_flexible(version))?;
        Ok(RequestHead {
            api,
            api_key: key,
            api_version: version,
            correlation_id,
            body_at: frame.len() - reader.remaining(),
            client_id: client_id.map(|id| client_id_end - id.len()..client_id_end),
        })
    }

    /// The client id, or null. `frame` is the one that was parsed.
    #[must_use]
    pub fn client_id<'a>(&self, frame: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(self.client_id_bytes(frame)?).ok()
    }

    /// The same, for a comparison.
    #[must_use]
    pub fn client_id_bytes<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        frame.get(self.client_id.clone()?)
    }
}

/// Key and version of a frame of which only the first bytes have arrived: enough to know its limit
/// ([`Api::request_bytes_max`]) before the rest is buffered. `None` below 4 bytes.
#[must_use]
pub fn peek_key(frame: &[u8]) -> Option<(i16, i16)> {
    let mut reader = Reader::new(frame);
    Some((reader.i16().ok()?, reader.i16().ok()?))
}

/// What [`begin_response`] writes, at most.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 9;

/// Begins a response frame in `frame`: its length, left open, and its header.
///
/// The body follows in the caller's hand; [`finish_response`] closes the frame.
pub fn begin_response(frame: &mut impl BufMut, api: &Api, version: i16, correlation_id: i32) {
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    if api.response_header_is_flexible(version) {
        frame.put_u8(0);
    }
}

/// Writes the length of a frame that [`begin_response`] began.
///
/// # Panics
/// If the frame has 2 GiB or more: every response is bounded far below.
pub fn finish_response(frame: &mut [u8]) {
    let length = i32::try_from(frame.len() - 4).expect("responses stay below 2 GiB");
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_table::{FETCH, METADATA};

    #[test]
    fn a_classic_head_is_read() {
        let frame = [0, 3, 0, 1, 0, 0, 0, 7, 0, 2, b'm', b'e', 0xaa];
        let head = RequestHead::parse(&frame).unwrap();
        assert_eq!((head.api_key, head.api_version), (METADATA, 1));
        assert_eq!((head.correlation_id, head.body_at), (7, 12));
        assert_eq!(head.client_id(&frame), Some("me"));
    }

    #[test]
    fn a_flexible_head_skips_unknown_tagged_fields() {
        let frame = [0, 1, 0, 12, 0, 0, 0, 7, 0xff, 0xff, 1, 9, 2, 1, 1, 0xaa];
        let head = RequestHead::parse(&frame).unwrap();
        assert_eq!((head.api_key, head.body_at), (FETCH, 15));
        assert_eq!(head.client_id(&frame), None);
    }

    #[test]
    fn unserved_requests_are_told_apart() {
        let unknown = [0, 200, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        assert_eq!(
            RequestHead::parse(&unknown),
            Err(HeadError::UnknownApi {
                key: 200,
                version: 0
            })
        );
        let old_produce = [0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff];
        assert!(matches!(
            RequestHead::parse(&old_produce),
            Err(HeadError::UnsupportedVersion { version: 2, .. })
        ));
        // What follows the correlation id is not looked at: it may have any layout.
        for (version, bytes) in [(9, [0, 9]), (-1, [0xff, 0xff])] {
            let frame = [0, 18, bytes[0], bytes[1], 0, 0, 0, 5];
            assert_eq!(
                RequestHead::parse(&frame),
                Err(HeadError::ApiVersionsVersion {
                    version,
                    correlation_id: 5
                })
            );
        }
    }

    #[test]
    fn short_frames_are_refused() {
        let frame = [0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 0];
        for end in 0..frame.len() {
            assert!(matches!(
                RequestHead::parse(&frame[..end]),
                Err(HeadError::Malformed(_))
            ));
        }
        assert!(RequestHead::parse(&frame).is_ok());
    }

    #[test]
    fn responses_are_framed_with_the_header_of_their_version() {
        let metadata = lookup(METADATA).unwrap();
        for (version, expected) in [
            (1, &[0, 0, 0, 5, 0, 0, 0, 9, 0xaa][..]),
            (9, &[0, 0, 0, 6, 0, 0, 0, 9, 0, 0xaa]),
        ] {
            let mut frame = Vec::new();
            begin_response(&mut frame, metadata, version, 9);
            assert!(frame.len() <= RESPONSE_HEAD_BYTES_MAX);
            frame.put_u8(0xaa);
            finish_response(&mut frame);
            assert_eq!(frame, expected);
        }
        let versions = lookup(API_VERSIONS).unwrap();
        let mut frame = Vec::new();
        begin_response(&mut frame, versions, 4, 9);
        assert_eq!(frame.len(), 8);
    }
}
