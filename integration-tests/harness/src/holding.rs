//! A proxy that keeps one chosen frame back: the client gives its connection up and goes on over a new one, and the frame is
//! delivered later, on the old connection to the broker. This is what a slow network path does to a request.
//!
//! Invariants:
//! - What a client sends behind a kept frame on the same connection never reaches the broker: a stream keeps its order, and
//!   the client has given that connection up.
//! - The broker's side of a connection with a kept frame stays open until the frame is delivered and answered or refused.
//! - Every other frame is passed on whole, at once and in order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::api::{Api, Request};
use crate::proxy::read_frame;

/// A client that has not given up on a connection by itself after this long is helped: the proxy closes it.
const PATIENCE: Duration = Duration::from_secs(8);
/// For the broker to answer a late frame, or to close its connection.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// What the broker did with a frame that came late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// It was answered, with whatever code.
    Answered,
    /// The connection was closed without an answer.
    Closed,
}

/// A frame kept back, and its connection to the broker.
struct Kept {
    frame: Vec<u8>,
    from_broker: OwnedReadHalf,
    to_broker: OwnedWriteHalf,
}

#[derive(Default)]
struct State {
    upstream: Option<SocketAddr>,
    /// The next request of this kind is kept.
    keep: Option<Api>,
    kept: Option<Kept>,
    /// A kept frame is delivered before the next request of this kind is passed on.
    deliver_before: Option<Api>,
    late: Option<Late>,
    connections: u64,
}

struct Shared {
    state: Mutex<State>,
    /// Rung to close every connection of the moment.
    reset: Notify,
}

/// A running proxy; ends with the runtime.
pub(crate) struct HoldingProxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl HoldingProxy {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no port for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            reset: Notify::new(),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    pub(crate) fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.state().upstream = Some(upstream);
    }

    /// Forgets what was kept, and keeps the next request of this kind.
    pub(crate) fn keep_next(&self, api: Api) {
        let mut state = self.shared.state();
        state.keep = Some(api);
        state.kept = None;
        state.deliver_before = None;
        state.late = None;
    }

    /// Keeps nothing from here on; whether something is kept.
    pub(crate) fn keep_no_more(&self) -> bool {
        let mut state = self.shared.state();
        state.keep = None;
        state.kept.is_some()
    }

    pub(crate) fn deliver_before(&self, api: Api) {
        self.shared.state().deliver_before = Some(api);
    }

    /// Delivers what is kept, unless that has happened.
    pub(crate) async fn deliver(&self) -> Result<()> {
        self.shared.deliver().await
    }

    /// What became of the frame that was kept.
    pub(crate) fn late(&self) -> Option<Late> {
        self.shared.state().late
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    /// Closes every connection.
    pub(crate) fn reset(&self) {
        self.shared.reset.notify_waiters();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding this lock")
    }

    /// Puts the frame away if it is the one to keep.
    fn wants(&self, frame: &[u8]) -> bool {
        let Some(request) = Request::parse(&frame[4..]) else {
            return false;
        };
        let mut state = self.state();
        if state.keep != Some(request.api) || request.plain_produce {
            return false;
        }
        state.keep = None;
        true
    }

    fn delivers_before(&self, frame: &[u8]) -> bool {
        let api = Request::parse(&frame[4..]).map(|request| request.api);
        let mut state = self.state();
        if api.is_none() || state.deliver_before != api {
            return false;
        }
        state.deliver_before = None;
        true
    }

    async fn deliver(&self) -> Result<()> {
        let Some(mut kept) = self.state().kept.take() else {
            return Ok(());
        };
        let correlation_id = kept.frame[8..12].to_vec();
        let answered = async {
            kept.to_broker.write_all(&kept.frame).await.ok()?;
            loop {
                let answer = read_frame(&mut kept.from_broker).await?;
                if answer.get(4..8)? == correlation_id {
                    return Some(());
                }
            }
        };
        let late = match tokio::time::timeout(ANSWER_DEADLINE, answered).await {
            Ok(Some(())) => Late::Answered,
            Ok(None) => Late::Closed,
            Err(_) => bail!("the broker neither answers a late frame nor closes its connection"),
        };
        self.state().late = Some(late);
        Ok(())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // A failing accept (no file descriptors left) is over as soon as a connection ends.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let upstream = {
            let mut state = shared.state();
            state.connections += 1;
            state.upstream
        };
        if let Some(upstream) = upstream {
            tokio::spawn(connect(client, upstream, Arc::clone(&shared)));
        }
    }
}

async fn connect(client: TcpStream, upstream: SocketAddr, shared: Arc<Shared>) {
    let Ok(broker) = TcpStream::connect(upstream).await else {
        return;
    };
    // Without this, frames wait for each other's acknowledgements; a socket that refuses is about to fail anyway.
    client.set_nodelay(true).ok();
    broker.set_nodelay(true).ok();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let kept = tokio::select! {
        kept = pass_requests(&shared, &mut from_client, &mut to_broker) => kept,
        () = pass_answers(&mut from_broker, &mut to_client) => return,
        () = shared.reset.notified() => return,
    };
    let Some(frame) = kept else { return };
    shared.state().kept = Some(Kept {
        frame,
        from_broker,
        to_broker,
    });
    let gave_up = async { while read_frame(&mut from_client).await.is_some() {} };
    // Closed by the client or not, both halves are dropped here.
    tokio::time::timeout(PATIENCE, gave_up).await.ok();
    drop(to_client);
}

/// Passes frames on until the client is gone, or one is to be kept.
async fn pass_requests(
    shared: &Shared,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> Option<Vec<u8>> {
    loop {
        let frame = read_frame(from).await?;
        if shared.wants(&frame) {
            return Some(frame);
        }
        if shared.delivers_before(&frame)
            && let Err(error) = shared.deliver().await
        {
            eprintln!("proxy: {error:#}");
            return None;
        }
        to.write_all(&frame).await.ok()?;
    }
}

async fn pass_answers(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
    while let Some(frame) = read_frame(from).await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}
