//! One client connection: frames in, responses out, in order.
//!
//! Invariants: one request is processed at a time, so batches of a producer keep their order (P-52) and responses leave
//! in request order; memory grows as bytes arrive, never by an announced length, and is given back in quiet times; a
//! frame that can't be read closes this connection and no other. Responses are written together when more requests are
//! already here, and at the latest before a request waits for something.
//!
//! While a request waits (a long poll, a rebalance) the socket is still read, within a bound, so that a peer that has
//! gone is noticed and does not keep what it waited for.

use crate::api::{self, Answer, Client, Node};
use crate::server::foreign::Foreign;
use crate::server::request_memory::{Held, RequestMemory};
use bytes::{Buf, Bytes, BytesMut};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::ErrorKind::TimedOut;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tally_protocol::ids::to_u64;
use tally_protocol::response::Piece;
use tally_protocol::{api_table, frame};
use tally_shard::WaiterId;
use tally_storage::Slice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// Bytes read at a time at least, once that much has come at a time.
const READ_BYTES: usize = 16 * 1024;
/// Bytes read at a time where no buffer is spare: what a client says that is not busy.
const QUIET_READ_BYTES: usize = 1024;
/// What a buffer may keep while the rest of a frame is awaited: more than that was needed for a large frame.
const KEPT_BYTES: usize = 64 * 1024;
/// How long nothing has to come for a large buffer to be given back: a quiet connection has none.
const QUIET: Duration = Duration::from_secs(1);
/// How long nothing may come in the middle of a large request, whose memory others want.
const STALLED_MAX: Duration = Duration::from_secs(30);
/// How long the rest of a large request may take, whatever its size: longer than clients wait for an answer to it.
const TRANSFER_MAX: Duration = Duration::from_secs(60);
/// And so many bytes a second more, below which nobody holds what others want (LR-158).
const TRANSFER_BYTES_A_SECOND: usize = 1 << 20;
/// Bytes read while a request waits (LR-151).
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a request that waits may go on once its peer has closed its side: long enough for everything but a long poll
/// or a rebalance, for which nobody stays half-closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Responses held back for later ones at most.
const HELD_BYTES_MAX: usize = 256 * 1024;
/// What is at most this long is copied together with its neighbours: cheaper than a piece of its own.
const JOINED_BYTES_MAX: usize = 1024;
/// The buffer for that is kept while the connection is busy, unless it was needed for much.
const JOINED_KEPT_BYTES: usize = 16 * 1024;
/// Further ahead no idleness is looked for.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);
/// Pieces of one system call (the kernel's limit is 1024).
const WRITE_PIECES_MAX: usize = 64;
/// The shortest request header: key, version, correlation id, null client id.
const FRAME_BYTES_MIN: usize = 10;

/// Serves a connection until it closes, breaks a rule, or the broker stops; `counted` is dropped then.
///
/// Not an `async fn`: that would have room for its arguments beside what is made of them, in each of thousands.
pub(crate) fn serve(
    node: Arc<Node>,
    stream: TcpStream,
    peer: SocketAddr,
    number: u64,
    mut stop: watch::Receiver<bool>,
    counted: impl Send,
) -> impl Future<Output = ()> + Send {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY not set");
    }
    let mut connection = Connection::new(&node, stream, peer, WaiterId(number));
    async move {
        tokio::select! {
            end = connection.run(&node) => connection.log(&end, &node),
            _ = stop.changed() => {}
        }
        node.shards.forget_waiter(connection.client.waiter);
        // It counts until it is closed.
        drop(connection);
        drop(counted);
    }
}

struct Connection {
    frames: Frames,
    responses: Responses,
    client: Client,
}

/// Why a connection ended.
enum End {
    /// No end: nothing comes, and nothing is to be kept until something does.
    Quiet,
    Closed,
    Failed(std::io::Error),
    Refused(String),
    /// A request of this API came too late (D-8).
    Late(&'static str),
    /// It does not speak Kafka's protocol.
    Foreign(Foreign),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> End {
        End::Failed(error)
    }
}

impl Connection {
    fn log(&self, end: &End, node: &Node) {
        let client = &self.client;
        let peer = client.peer;
        match end {
            End::Foreign(foreign) => {
                let port = self.frames.reader.local_addr().map_or(0, |own| own.port());
                node.foreigners.tell(*foreign, peer, port);
                tracing::debug!(%peer, ?foreign, "connection closed by the broker");
            }
            End::Closed | End::Quiet => tracing::debug!(%peer, "connection closed"),
            End::Failed(error) => tracing::debug!(%peer, %error, "connection failed"),
            End::Refused(reason) => {
                tracing::warn!(%peer, client_id = client.id(), %reason, "connection closed by the broker");
            }
            End::Late(api) => {
                tracing::warn!(
                    %peer,
                    client_id = client.id(),
                    api,
                    "W2103 request.late: not processed, its producer has spoken on a newer connection since; connection closed by the broker"
                );
            }
        }
    }
}

impl Connection {
    fn new(node: &Node, stream: TcpStream, peer: SocketAddr, waiter: WaiterId) -> Connection {
        let bell = node.shards.register_waiter(waiter);
        let (reader, writer) = stream.into_split();
        let idle_max = u64::try_from(node.config.connections_max_idle_ms)
            .ok()
            .map(Duration::from_millis);
        let frame_bytes_max = node.config.socket_request_max_bytes;
        let memory = Arc::clone(&node.request_memory);
        Connection {
            frames: Frames::new(reader, frame_bytes_max, idle_max, memory),
            responses: Responses::new(writer, idle_max),
            client: Client::new(peer, waiter, bell),
        }
    }

    async fn run(&mut self, node: &Arc<Node>) -> End {
        // One timer for as long as the connection lasts: it is looked at again only when it is over.
        let idle_max = self.frames.idle_max;
        let mut idle = pin!(tokio::time::sleep(idle_max.map_or(FAR, |max| max.min(FAR))));
        let mut quiet_since = Instant::now();
        loop {
            if let Err(end) = self.frames.arrival(idle.as_mut(), quiet_since).await {
                self.client.heard.is_gone(Instant::now());
                return end;
            }
            self.client.heard.speaks();
            // Boxed: what a busy connection needs would have its place in each of thousands on which nothing happens.
            match Box::pin(self.busy(node)).await {
                End::Quiet => {
                    quiet_since = Instant::now();
                    self.client.heard.is_quiet(quiet_since);
                }
                end => {
                    self.client.heard.is_gone(Instant::now());
                    return end;
                }
            }
        }
    }

    /// Requests, until nothing comes any more.
    async fn busy(&mut self, node: &Arc<Node>) -> End {
        let end = loop {
            if let Err(end) = self.turn(node).await {
                break end;
            }
        };
        // What was answered before the end still goes out.
        if let (End::Refused(_) | End::Late(_), Err(error)) = (&end, self.responses.flush().await) {
            tracing::debug!(%error, "last responses not written");
        }
        end
    }

    /// One request.
    async fn turn(&mut self, node: &Arc<Node>) -> Result<(), End> {
        let frame = match self.frames.take()? {
            Some(frame) => frame,
            None => {
                self.responses.flush().await?;
                if self.frames.buffer.is_empty() && !self.frames.has_more().await? {
                    self.frames.rest();
                    self.responses.give_back();
                    return Err(End::Quiet);
                }
                self.frames.next().await?.ok_or(End::Closed)?
            }
        };
        let Connection {
            frames,
            responses,
            client,
        } = self;
        let answer = {
            let answering = api::answer(node, client, frame);
            tokio::pin!(answering);
            tokio::select! {
                biased;
                answer = &mut answering => answer,
                gone = attend(frames, responses) => {
                    gone?;
                    let last = tokio::time::timeout(LAST_WORDS, answering).await;
                    last.map_err(|_| End::Closed)?
                }
            }
        };
        frames.held = None;
        match answer {
            Answer::Nothing => {}
            Answer::Frame(frame) if frame.len() <= JOINED_BYTES_MAX => {
                self.responses.join(&frame).await?;
            }
            Answer::Frame(frame) => {
                self.responses
                    .push(Piece::Framing(Bytes::from(frame)))
                    .await?;
            }
            Answer::Pieces(pieces) => {
                for piece in pieces {
                    self.responses.push(piece).await?;
                }
            }
            Answer::Close(reason) => return Err(End::Refused(reason)),
            Answer::Late(api) => return Err(End::Late(api)),
        }
        match u64::try_from(self.client.take_throttle_ms()) {
            Ok(ms @ 1..) => Box::pin(self.throttle(Duration::from_millis(ms))).await,
            _ => Ok(()),
        }
    }

    /// LR-161: a client that has moved more than it may has its answer, and nothing more is done for it for so long. A
    /// connection that would be idle for too long by that is closed, as Kafka does (LR-156).
    async fn throttle(&mut self, wait: Duration) -> Result<(), End> {
        let wait_max = self.frames.idle_max.map_or(wait, |max| max.min(wait));
        let until = Instant::now() + wait_max;
        let attended = attend(&mut self.frames, &mut self.responses);
        if let Ok(gone) = tokio::time::timeout_at(until, attended).await {
            gone?;
            if self.frames.buffer.is_empty() {
                return Err(End::Closed);
            }
            // What it sent before it closed its side still has its turn.
            tokio::time::sleep_until(until).await;
        }
        if wait_max < wait {
            return Err(End::Closed);
        }
        Ok(())
    }
}

/// What a connection does while a request waits: it lets go of the answers before it, then watches the peer. Ends when
/// that has closed its side.
async fn attend(frames: &mut Frames, responses: &mut Responses) -> std::io::Result<()> {
    responses.flush().await?;
    responses.give_back();
    frames.read_ahead().await
}

/// Frames of a connection.
struct Frames {
    reader: OwnedReadHalf,
    buffer: BytesMut,
    /// Bytes of the buffer's allocation, at most; its capacity shrinks as frames are split off.
    allocated: usize,
    /// Bytes to be read at a time at least.
    read_bytes: usize,
    frame_bytes_max: usize,
    /// `connections.max.idle.ms`; negative is for ever.
    idle_max: Option<Duration>,
    memory: Arc<RequestMemory>,
    /// What the large request has taken that is coming, or being answered.
    held: Option<Held>,
    /// When all of that request has to be here.
    held_until: Instant,
}

impl Frames {
    fn new(
        reader: OwnedReadHalf,
        frame_bytes_max: usize,
        idle_max: Option<Duration>,
        memory: Arc<RequestMemory>,
    ) -> Frames {
        Frames {
            reader,
            buffer: BytesMut::new(),
            allocated: 0,
            read_bytes: QUIET_READ_BYTES,
            frame_bytes_max,
            idle_max,
            memory,
            held: None,
            held_until: Instant::now(),
        }
    }

    /// The next frame without its length, if the whole of it is here already.
    fn take(&mut self) -> Result<Option<BytesMut>, End> {
        let length = self.announced()?;
        let Some(length) = length.filter(|length| self.buffer.len() >= 4 + length) else {
            return Ok(None);
        };
        let mut frame = self.buffer.split_to(4 + length);
        frame.advance(4);
        Ok(Some(frame))
    }

    /// The length of the next frame, once its four bytes are here. What is too long for its API is refused before it is
    /// buffered.
    fn announced(&self) -> Result<Option<usize>, End> {
        self.length()
            .map_err(|refused| Foreign::of(&self.buffer).map_or(refused, End::Foreign))
    }

    fn length(&self) -> Result<Option<usize>, End> {
        let Some((length, frame)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let bytes_max = match frame::peek_key(frame).map(|(key, _)| (key, api_table::lookup(key))) {
            Some((_, Some(api))) => api.request_bytes_max(self.frame_bytes_max),
            Some((key, None)) => return Err(End::Refused(format!("api key {key} is not served"))),
            None => self.frame_bytes_max,
        };
        match usize::try_from(length) {
            Ok(length) if (FRAME_BYTES_MIN..=bytes_max).contains(&length) => Ok(Some(length)),
            _ => Err(End::Refused(format!(
                "a frame of {length} bytes, allowed are {FRAME_BYTES_MIN} to {bytes_max}"
            ))),
        }
    }

    /// Waits for bytes, soon without a buffer for them; for as long as a connection may be idle, of which `idle` reminds.
    async fn arrival(
        &mut self,
        mut idle: Pin<&mut Sleep>,
        quiet_since: Instant,
    ) -> Result<(), End> {
        if self.allocated > 0 {
            let wait_max = self.idle_max.map_or(QUIET, |max| max.min(QUIET));
            // Boxed, as it is rare.
            match Box::pin(within(Some(wait_max), self.reader.readable())).await {
                Err(error) if error.kind() == TimedOut => self.give_back(),
                arrived => return arrived.map_err(End::Failed),
            }
        }
        loop {
            tokio::select! {
                biased;
                arrived = self.reader.readable() => return arrived.map_err(End::Failed),
                () = idle.as_mut() => {}
            }
            let now = Instant::now();
            let deadline = self.idle_max.and_then(|max| quiet_since.checked_add(max));
            if deadline.is_some_and(|deadline| deadline <= now) {
                // Nothing from the client for so long: it reconnects when it has something to say.
                return Err(End::Closed);
            }
            let far = now + FAR;
            let next = deadline.map_or(far, |deadline| deadline.min(far));
            idle.as_mut().reset(next);
        }
    }

    /// Reads what has come; `false` if nothing has.
    async fn has_more(&mut self) -> Result<bool, End> {
        self.make_room();
        tokio::select! {
            biased;
            read = self.reader.read_buf(&mut self.buffer) => match read {
                Ok(0) => Err(End::Closed),
                Ok(_) => Ok(true),
                Err(error) => Err(End::Failed(error)),
            },
            () = std::future::ready(()) => Ok(false),
        }
    }

    /// The next frame without its length; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<BytesMut>, End> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.take_memory().await?;
            self.make_room();
            let is_wasteful = self.is_oversized();
            let mut wait_max = self.idle_max;
            let mut no_longer_than = |limit: Duration| {
                wait_max = Some(wait_max.map_or(limit, |max| max.min(limit)));
            };
            if is_wasteful {
                no_longer_than(QUIET);
            }
            if self.held.is_some() {
                let left = self.held_until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                no_longer_than(STALLED_MAX.min(left));
            }
            let read = within(wait_max, self.reader.read_buf(&mut self.buffer)).await;
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == TimedOut && is_wasteful => self.give_back(),
                Err(error) if error.kind() == TimedOut => return Ok(None),
                Err(error) => return Err(End::Failed(error)),
            }
        }
    }

    /// Reads what comes, within a bound, until the peer closes its side. Without a buffer while nothing comes: thousands of
    /// consumers may be waiting.
    async fn read_ahead(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            self.give_back();
        }
        while self.buffer.len() < READ_AHEAD_BYTES_MAX {
            self.reader.readable().await?;
            self.make_room();
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    /// Grows with what has arrived: a length that is announced but never sent costs nothing.
    fn make_room(&mut self) {
        if self.buffer.capacity() == 0
            && let Some(spare) = SPARE.take()
        {
            self.allocated = spare.capacity();
            self.buffer = spare;
        }
        let room = self.buffer.capacity() - self.buffer.len();
        if room == 0 && self.allocated > 0 {
            self.read_bytes = READ_BYTES;
        }
        if room < self.read_bytes / 2 {
            self.buffer.reserve(self.read_bytes.max(self.buffer.len()));
            self.allocated = self.allocated.max(self.buffer.capacity());
        }
    }

    /// Takes memory for a large request of which much is here (LR-158).
    async fn take_memory(&mut self) -> Result<(), End> {
        if self.buffer.len() < KEPT_BYTES || self.held.is_some() {
            return Ok(());
        }
        if let Some(length) = self.announced()? {
            let memory = Arc::clone(&self.memory);
            let taken = within(self.idle_max, async { Ok(memory.take(length).await) });
            self.held = Some(taken.await?);
            let of_its_size = Duration::from_secs(to_u64(length / TRANSFER_BYTES_A_SECOND));
            self.held_until = Instant::now() + TRANSFER_MAX + of_its_size;
        }
        Ok(())
    }

    fn is_oversized(&self) -> bool {
        self.allocated > KEPT_BYTES.max(2 * self.buffer.len() + READ_BYTES)
    }

    /// Nothing is here at the moment. A buffer of the usual size is left to others; a large one would not be had again as
    /// cheaply, and goes if nothing comes for a while.
    fn rest(&mut self) {
        if self.allocated <= KEPT_BYTES {
            self.give_back();
        }
    }

    /// Moves what is there to a buffer of its size; nothing needs none.
    fn give_back(&mut self) {
        let mut buffer = BytesMut::new();
        self.read_bytes = QUIET_READ_BYTES;
        if !self.buffer.is_empty() {
            buffer.reserve(self.buffer.len() + READ_BYTES);
            buffer.extend_from_slice(&self.buffer);
        }
        let allocated = std::mem::replace(&mut self.allocated, buffer.capacity());
        let before = std::mem::replace(&mut self.buffer, buffer);
        if allocated <= KEPT_BYTES {
            spare(before, allocated);
        }
    }
}

thread_local! {
    /// A buffer that one connection has given back, for the next one that has something to read on this thread: most are quiet
    /// between two requests.
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// Keeps a buffer, unless some of it is still needed or there is a larger one.
fn spare(mut buffer: BytesMut, allocated: usize) {
    buffer.clear();
    if allocated > 0 && buffer.try_reclaim(allocated) {
        let other = SPARE.take();
        let is_larger = |other: &BytesMut| other.capacity() > buffer.capacity();
        SPARE.set(Some(other.filter(is_larger).unwrap_or(buffer)));
    }
}

/// Waits for `io`, for `wait_max` at most.
async fn within<T>(
    wait_max: Option<Duration>,
    io: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<T> {
    match wait_max {
        Some(wait_max) => tokio::time::timeout(wait_max, io)
            .await
            .unwrap_or_else(|_| Err(TimedOut.into())),
        None => io.await,
    }
}

/// Responses on their way out.
struct Responses {
    writer: OwnedWriteHalf,
    queue: VecDeque<Bytes>,
    /// Small responses, which come behind the queue.
    joined: Vec<u8>,
    /// Bytes of them that are written.
    joined_sent: usize,
    held_bytes: usize,
    /// How long a peer may take nothing of what is written: then it has been idle for too long (LR-156).
    idle_max: Option<Duration>,
}

impl Responses {
    fn new(writer: OwnedWriteHalf, idle_max: Option<Duration>) -> Responses {
        Responses {
            writer,
            queue: VecDeque::new(),
            joined: Vec::new(),
            joined_sent: 0,
            held_bytes: 0,
            idle_max,
        }
    }

    async fn push(&mut self, piece: Piece<Slice>) -> Result<(), End> {
        let bytes = match piece {
            Piece::Framing(bytes) if bytes.len() <= JOINED_BYTES_MAX => {
                return self.join(&bytes).await;
            }
            Piece::Framing(bytes) => bytes,
            Piece::Records(slice) => Bytes::from_owner(slice),
        };
        if bytes.is_empty() {
            return Ok(());
        }
        self.queue_joined();
        self.held_bytes += bytes.len();
        self.queue.push_back(bytes);
        self.flush_when_full().await
    }

    /// Puts a short piece behind the others.
    async fn join(&mut self, bytes: &[u8]) -> Result<(), End> {
        if self.joined.capacity() == 0 {
            self.joined.reserve(JOINED_BYTES_MAX);
        }
        self.joined.extend_from_slice(bytes);
        self.held_bytes += bytes.len();
        self.flush_when_full().await
    }

    async fn flush_when_full(&mut self) -> Result<(), End> {
        if self.held_bytes > HELD_BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// What was joined gets its place in the queue: something comes behind it.
    fn queue_joined(&mut self) {
        if self.joined.len() > self.joined_sent {
            let mut bytes = Bytes::from(std::mem::take(&mut self.joined));
            bytes.advance(self.joined_sent);
            self.queue.push_back(bytes);
        }
        self.joined_sent = 0;
    }

    /// Writes everything. Cancel-safe: what a write has taken is taken off the queue at once.
    async fn flush(&mut self) -> std::io::Result<()> {
        if !self.queue.is_empty() {
            self.queue_joined();
        }
        while !self.queue.is_empty() {
            let written = {
                let pieces: Vec<IoSlice<'_>> = self
                    .queue
                    .iter()
                    .take(WRITE_PIECES_MAX)
                    .map(|bytes| IoSlice::new(bytes))
                    .collect();
                within(self.idle_max, self.writer.write_vectored(&pieces)).await?
            };
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.taken(written);
        }
        while self.joined_sent < self.joined.len() {
            let rest = &self.joined[self.joined_sent..];
            let written = within(self.idle_max, self.writer.write(rest)).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.held_bytes -= written;
            self.joined_sent += written;
        }
        self.joined.clear();
        self.joined_sent = 0;
        if self.joined.capacity() > JOINED_KEPT_BYTES {
            self.give_back();
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
                front.advance(written);
                return;
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }

    /// Keeps no memory for what comes next, once all is written.
    fn give_back(&mut self) {
        if self.joined.is_empty() && self.queue.is_empty() {
            self.joined = Vec::new();
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, Frames, OwnedWriteHalf) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (reader, writer) = accepted.unwrap().0.into_split();
        (peer.unwrap(), frames_of(reader, 1 << 30), writer)
    }

    fn frames_of(reader: OwnedReadHalf, memory: i64) -> Frames {
        let memory = Arc::new(RequestMemory::new(memory));
        Frames::new(reader, 100 << 20, None, memory)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test)
    }

    fn produce_frame(bytes: usize) -> Vec<u8> {
        let mut frame = i32::try_from(bytes).unwrap().to_be_bytes().to_vec();
        frame.resize(4 + bytes, 0);
        frame
    }

    #[test]
    fn lr158_a_large_buffer_is_given_back_and_what_it_holds_stays() {
        run(async {
            let (mut peer, mut frames, _writer) = pair().await;
            let sent = [produce_frame(1 << 20), vec![0, 0, 0, 10, 7]].concat();
            peer.write_all(&sent[..sent.len() - 5]).await.unwrap();
            let frame = frames.next().await.ok().flatten().unwrap();
            assert_eq!(frame.len(), 1 << 20);
            drop(frame);
            assert!(frames.is_oversized());
            peer.write_all(&sent[sent.len() - 5..]).await.unwrap();
            frames.make_room();
            frames.reader.read_buf(&mut frames.buffer).await.unwrap();
            frames.give_back();
            assert!(!frames.is_oversized());
            assert!(frames.allocated <= KEPT_BYTES);
            assert_eq!(frames.buffer[..], [0, 0, 0, 10, 7]);
        });
    }

    #[test]
    fn lr158_a_quiet_connection_has_no_buffer() {
        run(async {
            let (mut peer, mut frames, _writer) = pair().await;
            let has_none = |frames: &Frames| (frames.allocated, frames.buffer.capacity()) == (0, 0);
            peer.write_all(&produce_frame(100)).await.unwrap();
            assert_eq!(frames.next().await.ok().flatten().unwrap().len(), 100);
            tokio::select! {
                biased;
                ended = frames.read_ahead() => panic!("the peer is there: {ended:?}"),
                () = std::future::ready(()) => assert!(has_none(&frames)),
            }
            peer.write_all(&produce_frame(100)[..50]).await.unwrap();
            frames.reader.readable().await.unwrap();
            frames.make_room();
            frames.reader.read_buf(&mut frames.buffer).await.unwrap();
            frames.give_back();
            assert_eq!(frames.buffer[..], produce_frame(100)[..50]);
            peer.write_all(&produce_frame(100)[50..]).await.unwrap();
            assert_eq!(frames.next().await.ok().flatten().unwrap().len(), 100);
            frames.give_back();
            assert!(has_none(&frames));
            peer.write_all(&produce_frame(100)).await.unwrap();
            assert_eq!(frames.next().await.ok().flatten().unwrap().len(), 100);
        });
    }

    #[test]
    fn lr158_a_buffer_that_is_given_back_serves_the_next_connection() {
        run(async {
            let (mut peer, mut frames, _writer) = pair().await;
            let (mut other_peer, mut others, _other_writer) = pair().await;
            peer.write_all(&produce_frame(100)).await.unwrap();
            frames.reader.readable().await.unwrap();
            assert!(frames.has_more().await.is_ok_and(|has_more| has_more));
            let frame = frames.next().await.ok().flatten().unwrap();
            frames.rest();
            assert_eq!(frames.buffer.capacity(), 0);
            assert!(SPARE.take().is_none(), "a frame of it is still needed");
            drop(frame);

            peer.write_all(&produce_frame(100)).await.unwrap();
            frames.reader.readable().await.unwrap();
            assert!(frames.has_more().await.is_ok_and(|has_more| has_more));
            let at = frames.buffer.as_ptr();
            drop(frames.next().await.ok().flatten().unwrap());
            assert!(frames.has_more().await.is_ok_and(|has_more| !has_more));
            frames.rest();
            other_peer.write_all(&produce_frame(200)).await.unwrap();
            others.reader.readable().await.unwrap();
            assert!(others.has_more().await.is_ok_and(|has_more| has_more));
            assert_eq!(others.buffer.as_ptr(), at);
            assert_eq!(others.buffer[..], produce_frame(200));
        });
    }

    #[test]
    fn responses_leave_in_order_whether_they_are_joined_or_not() {
        run(async {
            let (mut peer, frames, writer) = pair().await;
            let mut responses = Responses::new(writer, None);
            let mut expected = Vec::new();
            for (round, length) in [10, 700, 5000, 1, 1024, 1025, 3, 3, 90_000, 20]
                .into_iter()
                .enumerate()
            {
                let piece = vec![u8::try_from(round).unwrap(); length];
                expected.extend_from_slice(&piece);
                let pushed = responses.push(Piece::Framing(Bytes::from(piece))).await;
                assert!(pushed.is_ok());
                if round == 4 {
                    responses.flush().await.unwrap();
                    assert_eq!(responses.held_bytes, 0);
                }
            }
            responses.flush().await.unwrap();
            assert_eq!(responses.held_bytes, 0);
            drop(responses);
            drop(frames);
            let mut got = Vec::new();
            peer.read_to_end(&mut got).await.unwrap();
            assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
        });
    }

    #[test]
    fn lr151_what_is_read_while_a_request_waits_is_bounded() {
        run(async {
            let (mut peer, mut frames, _writer) = pair().await;
            let sent = vec![0; 256 << 10];
            tokio::select! {
                ended = frames.read_ahead() => panic!("the peer is there: {ended:?}"),
                written = peer.write_all(&sent) => written.unwrap(),
            }
            assert!(frames.buffer.len() < 2 * READ_AHEAD_BYTES_MAX);
        });
    }

    #[test]
    fn lr158_a_large_request_waits_for_memory_that_others_hold() {
        run(async {
            let (mut peer, mut frames, _writer) = pair().await;
            let memory = Arc::new(RequestMemory::new(1 << 20));
            frames.memory = Arc::clone(&memory);
            let other = memory.take(1 << 20).await;
            let sent = produce_frame(300 << 10);
            let writing = tokio::spawn(async move {
                peer.write_all(&sent).await.unwrap();
                peer
            });
            while frames.buffer.len() < KEPT_BYTES {
                tokio::select! {
                    biased;
                    _ = frames.next() => panic!("others hold all there is"),
                    () = tokio::task::yield_now() => {}
                }
            }
            assert!(frames.buffer.len() < 2 * KEPT_BYTES);
            drop(other);
            let frame = frames.next().await.ok().flatten().unwrap();
            assert_eq!(frame.len(), 300 << 10);
            assert!(frames.held.is_some(), "until it is answered");
            drop(writing.await.unwrap());
        });
    }

    /// One that announces much and sends a byte now and then would keep others from what it has taken, for ever.
    #[test]
    fn lr158_a_large_request_that_drips_in_loses_its_memory() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(async {
            let (mut peer, mut frames, _writer) = pair().await;
            let memory = Arc::new(RequestMemory::new(8 << 20));
            frames.memory = Arc::clone(&memory);
            let sent = produce_frame(4 << 20);
            let (mut begin, rest) = sent.split_at(100 << 10);
            let start = Instant::now();
            let mut drops = rest.iter();
            let ended = loop {
                peer.write_all(begin).await.unwrap();
                tokio::select! {
                    biased;
                    ended = frames.next() => break ended,
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                }
                begin = std::slice::from_ref(drops.next().unwrap());
            };
            assert!(matches!(ended, Ok(None)), "the connection ends");
            assert!(drops.len() > 4_000_000, "little has come");
            let took = start.elapsed();
            assert!(took >= TRANSFER_MAX, "{took:?}");
            assert!(took <= TRANSFER_MAX + Duration::from_secs(10), "{took:?}");
            drop(frames);
            let _all = memory.take(8 << 20).await;
        });
    }

    /// The rate that is asked for is no more than a slow client has.
    #[test]
    fn lr158_a_large_request_that_comes_slowly_is_taken() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(async {
            let (mut peer, mut frames, _writer) = pair().await;
            let sent = produce_frame(4 << 20);
            let mut pieces = sent.chunks(100 << 10);
            let frame = loop {
                if let Some(piece) = pieces.next() {
                    peer.write_all(piece).await.unwrap();
                }
                tokio::select! {
                    biased;
                    frame = frames.next() => break frame,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            };
            assert_eq!(frame.ok().flatten().unwrap().len(), 4 << 20);
        });
    }

    #[test]
    fn a_peer_that_goes_is_noticed_while_a_request_waits() {
        run(async {
            let (mut peer, mut frames, _writer) = pair().await;
            peer.write_all(&[0, 0, 0, 10]).await.unwrap();
            drop(peer);
            frames.read_ahead().await.unwrap();
            assert_eq!(frames.buffer[..], [0, 0, 0, 10]);
        });
    }
}
