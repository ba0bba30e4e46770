//! Exit codes that no broker of ours gives: of one that says nothing, and of one that asks for a password.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiVersionsResponse, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tempfile::NamedTempFile;

use crate::{Came, PROGRAM, came};

#[track_caller]
fn topics(address: &str, more: &[&str]) -> Came {
    let output = Command::new(PROGRAM)
        .args(["topic", "list", "-b", address])
        .args(more)
        .output();
    came(output.expect("tally can be run"))
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

#[test]
fn who_says_nothing_is_exit_code_5() {
    let (_listener, address) = listen();
    let silent = topics(&address, &["--timeout", "100ms"]);
    assert_eq!(silent.code, 5, "{}", silent.err);
    assert_eq!(
        silent.err,
        format!("tally: no answer from {address} in time (--timeout gives it more)\n")
    );
}

/// A request: its correlation id and its body, behind a header with a client id of five letters.
fn request(stream: &mut TcpStream) -> (i32, Bytes) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a length");
    let length = usize::try_from(i32::from_be_bytes(length)).expect("a length");
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).expect("a frame");
    let id = frame[4..8].try_into().expect("four bytes");
    let body = 4 + 4 + 2 + usize::from(frame[9]);
    (i32::from_be_bytes(id), Bytes::from(frame).slice(body..))
}

fn answer(stream: &mut TcpStream, id: i32, header_version: i16, body: &[u8]) {
    let mut frame = BytesMut::from(&[0; 4][..]);
    let header = ResponseHeader::default().with_correlation_id(id);
    header.encode(&mut frame, header_version).expect("a header");
    frame.extend_from_slice(body);
    let length = u32::try_from(frame.len() - 4).expect("short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame).expect("it is read");
}

fn encoded(response: &impl Encodable, version: i16) -> BytesMut {
    let mut bytes = BytesMut::new();
    response.encode(&mut bytes, version).expect("it can be");
    bytes
}

/// A broker that wants a name and a password, and refuses them.
fn refusing() -> (String, JoinHandle<Bytes>) {
    let (listener, address) = listen();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        let (id, _) = request(&mut stream);
        let api = |key, max| {
            ApiVersion::default()
                .with_api_key(key)
                .with_min_version(0)
                .with_max_version(max)
        };
        let apis = ApiVersionsResponse::default().with_api_keys(vec![api(17, 1), api(36, 1)]);
        answer(&mut stream, id, 0, &encoded(&apis, 3));
        let (id, body) = request(&mut stream);
        let handshake = SaslHandshakeRequest::decode(&mut body.clone(), 1).expect("a handshake");
        assert_eq!(handshake.mechanism.as_str(), "PLAIN");
        let plain = SaslHandshakeResponse::default()
            .with_mechanisms(vec![StrBytes::from_static_str("PLAIN")]);
        answer(&mut stream, id, 0, &encoded(&plain, 1));
        let (id, body) = request(&mut stream);
        let login = SaslAuthenticateRequest::decode(&mut body.clone(), 1).expect("a login");
        let refused = SaslAuthenticateResponse::default().with_error_code(58);
        answer(&mut stream, id, 0, &encoded(&refused, 1));
        login.auth_bytes
    });
    (address, served)
}

#[test]
fn who_is_not_let_in_is_exit_code_4() {
    let (address, served) = refusing();
    let file = NamedTempFile::new().expect("a file");
    let text = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nclient.id=audit\nsasl.jaas.config=org.apache.kafka.\
                common.security.plain.PlainLoginModule required username=\"etl\" password=\"hidden\";\n";
    std::fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("text");
    let refused = topics(&address, &["--client-config", path, "-v"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(
        refused.err.contains("SASL_AUTHENTICATION_FAILED (58)"),
        "{}",
        refused.err
    );
    assert!(!refused.err.contains("hidden"), "{}", refused.err);
    assert_eq!(served.join().expect("it was asked"), "\0etl\0hidden");
}
