//! One client connection: frames in, responses out, in order.
//!
//! Invariants: one request is processed at a time, so batches of a producer keep their order (P-52) and responses leave
//! in request order; memory grows as bytes arrive, never by an announced length; a frame that can't be read closes this
//! connection and no other. Responses are written together when more requests are already here, and at the latest
//! before a request waits for something.

use crate::api::{self, Answer, Client, Node};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tally_protocol::response::Piece;
use tally_protocol::{api_table, frame};
use tally_shard::WaiterId;
use tally_storage::Slice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

/// Bytes read at a time at least.
const READ_BYTES: usize = 16 * 1024;
/// Responses held back for later ones at most.
const HELD_BYTES_MAX: usize = 256 * 1024;
/// Pieces of one system call (the kernel's limit is 1024).
const WRITE_PIECES_MAX: usize = 64;
/// The shortest request header: key, version, correlation id, null client id.
const FRAME_BYTES_MIN: usize = 10;

/// Serves a connection until it closes, breaks a rule, or the broker stops.
pub(crate) async fn serve(
    node: Arc<Node>,
    stream: TcpStream,
    peer: SocketAddr,
    number: u64,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY not set");
    }
    let waiter = WaiterId(number);
    let bell = node.shards.register_waiter(waiter);
    let client = Client::new(peer, waiter, bell);
    let (reader, writer) = stream.into_split();
    let mut connection = Connection {
        frames: Frames {
            reader,
            buffer: BytesMut::new(),
            frame_bytes_max: node.config.socket_request_max_bytes,
            idle_max: u64::try_from(node.config.connections_max_idle_ms)
                .ok()
                .map(Duration::from_millis),
        },
        responses: Responses {
            writer,
            queue: VecDeque::new(),
            held_bytes: 0,
        },
        client,
    };
    tokio::select! {
        end = connection.run(&node) => match end {
            End::Closed => tracing::debug!(%peer, "connection closed"),
            End::Failed(error) => tracing::debug!(%peer, %error, "connection failed"),
            End::Refused(reason) => {
                tracing::warn!(%peer, client_id = connection.client.id(), %reason, "connection closed by the broker");
            }
        },
        _ = stop.changed() => {}
    }
    node.shards.forget_waiter(waiter);
}

struct Connection {
    frames: Frames,
    responses: Responses,
    client: Client,
}

/// Why a connection ended.
enum End {
    Closed,
    Failed(std::io::Error),
    Refused(String),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> End {
        End::Failed(error)
    }
}

impl Connection {
    async fn run(&mut self, node: &Arc<Node>) -> End {
        loop {
            match self.turn(node).await {
                Ok(()) => {}
                Err(end) => {
                    // What was answered before the end still goes out.
                    if let (End::Refused(_), Err(error)) = (&end, self.responses.flush().await) {
                        tracing::debug!(%error, "last responses not written");
                    }
                    return end;
                }
            }
        }
    }

    /// One request.
    async fn turn(&mut self, node: &Arc<Node>) -> Result<(), End> {
        if !self.frames.has_frame()? {
            self.responses.flush().await?;
        }
        let Some(frame) = self.frames.next().await? else {
            return Err(End::Closed);
        };
        let Connection {
            responses, client, ..
        } = self;
        let answer = {
            let answering = api::answer(node, client, frame);
            tokio::pin!(answering);
            tokio::select! {
                biased;
                answer = &mut answering => answer,
                flushed = responses.flush(), if !responses.is_empty() => {
                    flushed?;
                    answering.await
                }
            }
        };
        match answer {
            Answer::Nothing => Ok(()),
            Answer::Frame(frame) => self.responses.push(Piece::Framing(frame.freeze())).await,
            Answer::Pieces(pieces) => {
                for piece in pieces {
                    self.responses.push(piece).await?;
                }
                Ok(())
            }
            Answer::Close(reason) => Err(End::Refused(reason)),
        }
    }
}

/// Frames of a connection.
struct Frames {
    reader: OwnedReadHalf,
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// `connections.max.idle.ms`; negative is for ever.
    idle_max: Option<Duration>,
}

impl Frames {
    /// Whether a whole frame is here already.
    fn has_frame(&self) -> Result<bool, End> {
        Ok(self
            .announced()?
            .is_some_and(|length| self.buffer.len() >= 4 + length))
    }

    /// The length of the next frame, once its four bytes are here. What is too long for its API is refused before it is
    /// buffered.
    fn announced(&self) -> Result<Option<usize>, End> {
        let Some((length, frame)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let api = frame::peek_key(frame).and_then(|(key, _)| api_table::lookup(key));
        let bytes_max = api.map_or(self.frame_bytes_max, |api| {
            api.request_bytes_max(self.frame_bytes_max)
        });
        match usize::try_from(length) {
            Ok(length) if (FRAME_BYTES_MIN..=bytes_max).contains(&length) => Ok(Some(length)),
            _ => Err(End::Refused(format!(
                "a frame of {length} bytes, allowed are {FRAME_BYTES_MIN} to {bytes_max}"
            ))),
        }
    }

    /// The next frame without its length; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<BytesMut>, End> {
        loop {
            if let Some(length) = self.announced()?
                && self.buffer.len() >= 4 + length
            {
                let mut frame = self.buffer.split_to(4 + length);
                return Ok(Some(frame.split_off(4)));
            }
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 2 {
                // Grows with what has arrived: a length that is announced but never sent costs nothing.
                let more = READ_BYTES.max(self.buffer.len());
                self.buffer.reserve(more);
            }
            let read = self.reader.read_buf(&mut self.buffer);
            let read = match self.idle_max {
                Some(idle_max) => match tokio::time::timeout(idle_max, read).await {
                    Ok(read) => read?,
                    // Nothing from the client for so long: it reconnects when it has something to say.
                    Err(_) => return Ok(None),
                },
                None => read.await?,
            };
            if read == 0 {
                return Ok(None);
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
        }
    }
}

/// Responses on their way out.
struct Responses {
    writer: OwnedWriteHalf,
    queue: VecDeque<Bytes>,
    held_bytes: usize,
}

impl Responses {
    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    async fn push(&mut self, piece: Piece<Slice>) -> Result<(), End> {
        let bytes = match piece {
            Piece::Framing(bytes) => bytes,
            Piece::Records(slice) => Bytes::from_owner(slice),
        };
        if bytes.is_empty() {
            return Ok(());
        }
        self.held_bytes += bytes.len();
        self.queue.push_back(bytes);
        if self.held_bytes > HELD_BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes everything. Cancel-safe: what a write has taken is taken off the queue at once.
    async fn flush(&mut self) -> std::io::Result<()> {
        while !self.queue.is_empty() {
            let written = {
                let pieces: Vec<IoSlice<'_>> = self
                    .queue
                    .iter()
                    .take(WRITE_PIECES_MAX)
                    .map(|bytes| IoSlice::new(bytes))
                    .collect();
                self.writer.write_vectored(&pieces).await?
            };
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.taken(written);
        }
        Ok(())
    }

    fn taken(&mut self, mut written: usize) {
        self.held_bytes -= written;
        while written > 0 {
            let Some(front) = self.queue.front_mut() else {
                return;
            };
            if front.len() > written {
                bytes::Buf::advance(front, written);
                return;
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }
}
