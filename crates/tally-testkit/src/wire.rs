//! One connection to a broker: raw frames, and typed requests by the codec crate's client side.

use crate::waiting::DEADLINE;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// What the client id of the tests is.
pub const CLIENT_ID: &str = "tally-testkit";

/// A connection. Every read has a deadline; a test that waits longer fails.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    next_correlation_id: i32,
    client_id: String,
}

impl Connection {
    /// Connects to `HOST:PORT`; panics if nothing listens there.
    #[track_caller]
    pub fn open(address: &str) -> Connection {
        Connection::try_open(address).expect("the broker accepts connections")
    }

    /// Connects to `HOST:PORT`, if something listens there.
    pub fn try_open(address: &str) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Connection {
            stream,
            next_correlation_id: 1,
            client_id: CLIENT_ID.to_owned(),
        })
    }

    /// Gives the requests from now on another client id than [`CLIENT_ID`].
    pub fn set_client_id(&mut self, client_id: &str) {
        client_id.clone_into(&mut self.client_id);
    }

    /// Sends a request and returns its response; panics if the connection is closed instead.
    #[track_caller]
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let response = self.try_call(version, request);
        response.expect("a response, not the end of the connection")
    }

    /// Sends a request and returns its response, or `None` if the broker closes the connection.
    #[track_caller]
    pub fn try_call<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        let correlation_id = self.send(version, request);
        let frame = self.receive_frame()?;
        Some(decode_response::<R>(version, correlation_id, frame))
    }

    /// Sends a request and returns its correlation id.
    #[track_caller]
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.send_bytes(&frame_as(&self.client_id, version, correlation_id, request));
        correlation_id
    }

    /// The response to the request that [`Connection::send`] gave `correlation_id` to.
    #[track_caller]
    pub fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let frame = self.receive_frame().expect("a response, not the end");
        decode_response::<R>(version, correlation_id, frame)
    }

    /// Sends bytes as they are. A connection that the broker closed already takes them silently.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // What the broker did with the connection shows when it is read.
        let _closed = self.stream.write_all(bytes).is_err();
    }

    /// Sends as much of it as is taken without waiting for the broker to read; returns how much.
    pub fn send_what_is_taken(&mut self, bytes: &[u8]) -> usize {
        let told = self.stream.set_nonblocking(true);
        told.expect("a socket may be told not to wait");
        let taken = self.stream.write(bytes).unwrap_or(0);
        let told = self.stream.set_nonblocking(false);
        told.expect("a socket may be told to wait");
        taken
    }

    /// The next frame without its length, or `None` if the broker closed the connection.
    #[track_caller]
    pub fn receive_frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        if !self.read_whole(&mut length) {
            return None;
        }
        let length = usize::try_from(i32::from_be_bytes(length)).expect("a length");
        let mut frame = vec![0; length];
        self.read_whole(&mut frame).then(|| Bytes::from(frame))
    }

    /// Whether something has come that was not read yet; it stays unread.
    pub fn has_bytes(&self) -> bool {
        self.stream.peek(&mut [0]).is_ok_and(|count| count > 0)
    }

    /// Closes the sending half: the broker sees the end of the stream.
    pub fn finish_sending(&mut self) {
        let _closed = self.stream.shutdown(std::net::Shutdown::Write).is_err();
    }

    /// False at the end of the stream; panics at the deadline.
    #[track_caller]
    fn read_whole(&mut self, bytes: &mut [u8]) -> bool {
        match self.stream.read_exact(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {DEADLINE:?}")
            }
            Err(_) => false,
        }
    }
}

/// A whole frame with its length.
#[track_caller]
pub fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Vec<u8> {
    frame_as(CLIENT_ID, version, correlation_id, request)
}

#[track_caller]
fn frame_as<R: Request>(
    client_id: &str,
    version: i16,
    correlation_id: i32,
    request: &R,
) -> Vec<u8> {
    let mut body = BytesMut::new();
    request
        .encode(&mut body, version)
        .expect("the request fits its version");
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    frame_with(&header, R::header_version(version), &body)
}

/// A whole frame with its length, of any key, version and body. `header_version` is 1, or 2 for flexible versions.
pub fn frame_of(
    api_key: i16,
    version: i16,
    header_version: i16,
    correlation_id: i32,
    body: &[u8],
) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(api_key)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    frame_with(&header, header_version, body)
}

fn frame_with(header: &RequestHeader, header_version: i16, body: &[u8]) -> Vec<u8> {
    let mut content = BytesMut::new();
    header
        .encode(&mut content, header_version)
        .expect("a header always fits");
    content.put_slice(body);
    let length = u32::try_from(content.len()).expect("a small frame");
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&content);
    frame
}

/// The header version of requests of `api_key`.
pub fn request_header_version(api_key: i16, version: i16) -> i16 {
    ApiKey::try_from(api_key).map_or(1, |key| key.request_header_version(version))
}

/// Decodes a frame without its length; panics if bytes are left over or the correlation id is another.
#[track_caller]
pub fn decode_response<R: Request>(
    version: i16,
    correlation_id: i32,
    mut frame: Bytes,
) -> R::Response {
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).expect("a response header");
    assert_eq!(header.correlation_id, correlation_id, "correlation id");
    let response = R::Response::decode(&mut frame, version).expect("a response of that version");
    assert!(!frame.has_remaining(), "bytes behind the response");
    response
}
