//! One connection to one broker.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::access::{Access, Login};
use super::failure::{Failure, check};
use crate::output::remark;

/// The software name.
const NAME: &str = "tally";
/// No answer that the commands ask for is longer.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// The version of ApiVersions that every broker of the last years knows.
const API_VERSIONS_VERSION: i16 = 3;
const SASL_HANDSHAKE_VERSION: i16 = 1;
const SASL_AUTHENTICATE_NEWEST: i16 = 2;
/// Where an answer may begin to be waited for when the time is over: not zero, which means for ever.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// A connection, with the versions that the broker serves.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    address: String,
    client_id: StrBytes,
    deadline: Instant,
    correlation_id: i32,
    versions: BTreeMap<i16, (i16, i16)>,
}

impl Connection {
    /// Connects to `HOST:PORT`, asks what is served there, and says who is asking.
    pub(crate) fn open(
        address: &str,
        access: &Access,
        deadline: Instant,
    ) -> Result<Connection, Failure> {
        let stream = dial(address, deadline).map_err(|error| failure(address, error))?;
        let mut connection = Connection {
            stream,
            address: address.to_owned(),
            client_id: StrBytes::from_string(access.client_id.clone()),
            deadline,
            correlation_id: 0,
            versions: BTreeMap::new(),
        };
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(NAME))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let answer = connection.exchange(API_VERSIONS_VERSION, &request)?;
        check("ApiVersions", answer.error_code)?;
        for api in answer.api_keys {
            let range = (api.min_version, api.max_version);
            connection.versions.insert(api.api_key, range);
        }
        if let Some(login) = &access.login {
            connection.authenticate(login)?;
        }
        Ok(connection)
    }

    /// SASL PLAIN (RFC 4616).
    fn authenticate(&mut self, login: &Login) -> Result<(), Failure> {
        let request =
            SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        let answer = self.exchange(SASL_HANDSHAKE_VERSION, &request)?;
        check(format!("SASL PLAIN at {}", self.address), answer.error_code)?;
        let token = format!("\0{}\0{}", login.user, login.password);
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
        let answer = self.call(SASL_AUTHENTICATE_NEWEST, &request)?;
        check(
            format!("user {} at {}", login.user, self.address),
            answer.error_code,
        )
    }

    /// Gives what comes from here on until `deadline`.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// The address that was connected to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The APIs that are served, with their oldest and newest version.
    pub(crate) fn served(&self) -> &BTreeMap<i16, (i16, i16)> {
        &self.versions
    }

    /// Asks, in the newest version that both know and that is at most `newest`.
    pub(crate) fn call<R: Request>(
        &mut self,
        newest: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        let version = self.version::<R>(newest)?;
        self.exchange(version, request)
    }

    /// Sends what is not answered: Produce without acknowledgement.
    pub(crate) fn tell<R: Request>(&mut self, newest: i16, request: &R) -> Result<(), Failure> {
        let version = self.version::<R>(newest)?;
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = self.frame(version, request)?;
        self.set_time()?;
        let sent = self.stream.write_all(&frame);
        sent.map_err(|error| failure(&self.address, error))
    }

    /// The version that [`Connection::call`] would choose.
    pub(crate) fn version<R: Request>(&self, newest: i16) -> Result<i16, Failure> {
        let ours = R::VERSIONS;
        let served = self.versions.get(&R::KEY);
        let version = served.map(|(_, max)| newest.min(*max).min(ours.max));
        match (version, served) {
            (Some(version), Some((min, _))) if version >= *min && version >= ours.min => {
                Ok(version)
            }
            _ => Err(Failure::Unable(format!(
                "{} does not serve API {} in a version that is known here",
                self.address,
                R::KEY
            ))),
        }
    }

    fn exchange<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Failure> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let began = Instant::now();
        let frame = self.frame(version, request)?;
        self.set_time()?;
        let sent = self.stream.write_all(&frame);
        sent.map_err(|error| failure(&self.address, error))?;
        let mut answer = self.receive()?;
        remark(1, || {
            let (key, address) = (R::KEY, &self.address);
            let (bytes, millis) = (answer.len(), began.elapsed().as_millis());
            format!("{address}: API {key} v{version}, {bytes} bytes, {millis} ms")
        });
        let strange = |error: anyhow::Error| {
            Failure::Unable(format!(
                "{} answers what is not understood: {error}",
                self.address
            ))
        };
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut answer, header_version).map_err(strange)?;
        if header.correlation_id != self.correlation_id {
            return Err(strange(anyhow::anyhow!("another request's answer")));
        }
        R::Response::decode(&mut answer, version).map_err(strange)
    }

    fn frame<R: Request>(&self, version: i16, request: &R) -> Result<BytesMut, Failure> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let unable = |error| Failure::Unable(format!("a request that can't be written: {error}"));
        let mut frame = BytesMut::new();
        frame.put_u32(0);
        let header_version = R::header_version(version);
        header.encode(&mut frame, header_version).map_err(unable)?;
        request.encode(&mut frame, version).map_err(unable)?;
        let length = u32::try_from(frame.len() - 4)
            .map_err(|_| Failure::Usage("more than a request can hold".to_owned()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame)
    }

    fn receive(&mut self) -> Result<Bytes, Failure> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= FRAME_BYTES_MAX)
            .ok_or_else(|| {
                Failure::Unable(format!(
                    "{} does not speak the Kafka protocol",
                    self.address
                ))
            })?;
        // Grown as it comes: a length alone takes no memory.
        let mut frame = Vec::new();
        let mut chunk = [0; 64 * 1024];
        while frame.len() < length {
            let size = chunk.len().min(length - frame.len());
            self.read(&mut chunk[..size])?;
            frame.extend_from_slice(&chunk[..size]);
        }
        Ok(Bytes::from(frame))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        self.set_time()?;
        let read = self.stream.read_exact(bytes);
        read.map_err(|error| failure(&self.address, error))
    }

    /// Gives the next system call what is left of the time.
    fn set_time(&self) -> Result<(), Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::TimedOut(self.address.clone()));
        }
        let left = Some(left.max(WAIT_MIN));
        self.stream
            .set_read_timeout(left)
            .and_then(|()| self.stream.set_write_timeout(left))
            .map_err(|error| failure(&self.address, error))
    }
}

/// Tries every address that the name stands for.
fn dial(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        match TcpStream::connect_timeout(&resolved, left.max(WAIT_MIN)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failure(address: &str, error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut(address.to_owned()),
        _ => Failure::Unreachable {
            address: address.to_owned(),
            error,
        },
    }
}
