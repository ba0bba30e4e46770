//! The proxy on the advertised address: passes frames on, and springs the traps.
//!
//! Invariants:
//! - The port stays the same for a run; the broker behind it may change its own. While there is none, connections are
//!   accepted and closed at once.
//! - A frame is passed on whole or not at all.
//! - A cut request has reached the broker and was answered: a connection that the broker lost first is no cut, and is reported as missed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;

use crate::api::{Api, Request};
use crate::plan::{Fault, Step};
use crate::trap::{TrapId, Traps};

/// More than any client or broker of the job sends in one frame.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// What the proxy tells the run.
#[derive(Debug, Clone)]
pub(crate) enum Sprung {
    /// The request has been passed on to the broker; the fault is the run's to carry out.
    Passed {
        trap: TrapId,
        fault: Fault,
        request: Request,
    },
    /// The answer is here and will not be passed on.
    Taken {
        trap: TrapId,
        fault: Fault,
        request: Request,
    },
    /// The broker went away before it answered.
    Missed { trap: TrapId },
}

struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    traps: Mutex<Traps>,
    events: UnboundedSender<Sprung>,
}

/// A running proxy; ends with the runtime.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) async fn start(events: UnboundedSender<Sprung>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no port for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::default(),
            traps: Mutex::default(),
            events,
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    pub(crate) fn set_upstream(&self, upstream: Option<SocketAddr>) {
        *self
            .shared
            .upstream
            .lock()
            .expect("nobody panics while holding this lock") = upstream;
    }

    pub(crate) fn set_trap(&self, id: TrapId, step: &Step) {
        self.traps(|traps| traps.set(id, step));
    }

    pub(crate) fn widen_trap(&self, id: TrapId) {
        self.traps(|traps| traps.widen(id));
    }

    /// Requests of this API that clients have sent so far.
    pub(crate) fn seen(&self, api: Api) -> u64 {
        self.traps(|traps| traps.seen(api))
    }

    fn traps<T>(&self, call: impl FnOnce(&mut Traps) -> T) -> T {
        call(
            &mut self
                .shared
                .traps
                .lock()
                .expect("nobody panics while holding this lock"),
        )
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // A failing accept (no file descriptors left) is over as soon as a connection ends.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let upstream = *shared
            .upstream
            .lock()
            .expect("nobody panics while holding this lock");
        let Some(upstream) = upstream else { continue };
        tokio::spawn(connect(client, upstream, Arc::clone(&shared)));
    }
}

async fn connect(client: TcpStream, upstream: SocketAddr, shared: Arc<Shared>) {
    let Ok(broker) = TcpStream::connect(upstream).await else {
        return;
    };
    // Without this, frames wait for each other's acknowledgements; a socket that refuses is about to fail anyway.
    client.set_nodelay(true).ok();
    broker.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let connection = Connection {
        shared,
        waiting: Mutex::default(),
    };
    // Whichever direction ends first ends the other: both sockets are closed when their halves are dropped here.
    tokio::select! {
        _ = connection.pass_requests(from_client, to_broker) => {}
        _ = connection.pass_answers(from_broker, to_client) => {}
    }
    connection.report_missed();
}

/// One client's connection, with the requests whose answers are not to be passed on.
struct Connection {
    shared: Arc<Shared>,
    waiting: Mutex<HashMap<i32, (TrapId, Fault, Request)>>,
}

impl Connection {
    async fn pass_requests(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Option<()> {
        loop {
            let frame = read_frame(&mut from).await?;
            let sprung = self.look_at(&frame);
            to.write_all(&frame).await.ok()?;
            if let Some(event) = sprung {
                self.tell(event);
            }
        }
    }

    /// Notes a request whose answer must be taken, and returns what has to be told once it is passed on.
    fn look_at(&self, frame: &[u8]) -> Option<Sprung> {
        let request = Request::parse(&frame[4..])?;
        let (trap, fault) = self
            .shared
            .traps
            .lock()
            .expect("nobody panics while holding this lock")
            .spring(&request)?;
        match fault {
            Fault::KillBroker | Fault::KillProcessor(_) => Some(Sprung::Passed {
                trap,
                fault,
                request,
            }),
            Fault::Cut | Fault::KillAllAfterAnswer => {
                self.waiting()
                    .insert(request.correlation_id, (trap, fault, request));
                None
            }
        }
    }

    async fn pass_answers(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Option<()> {
        loop {
            let frame = read_frame(&mut from).await?;
            let correlation_id = i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?);
            let taken = self.waiting().remove(&correlation_id);
            let Some((trap, fault, request)) = taken else {
                to.write_all(&frame).await.ok()?;
                continue;
            };
            self.tell(Sprung::Taken {
                trap,
                fault,
                request,
            });
            if fault == Fault::KillAllAfterAnswer {
                // Nothing reaches the client any more; the connection ends with the process.
                std::future::pending::<()>().await;
            }
            return None;
        }
    }

    fn report_missed(&self) {
        let waiting: Vec<_> = self.waiting().drain().collect();
        for (_, (trap, _, _)) in waiting {
            self.tell(Sprung::Missed { trap });
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<i32, (TrapId, Fault, Request)>> {
        self.waiting
            .lock()
            .expect("nobody panics while holding this lock")
    }

    fn tell(&self, event: Sprung) {
        // The run may be over already.
        self.shared.events.send(event).ok();
    }
}

/// A whole frame with its length in front, or nothing when the connection ended.
pub(crate) async fn read_frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.ok()?;
    let size_bytes = usize::try_from(i32::from_be_bytes(length))
        .ok()
        .filter(|size| *size <= FRAME_BYTES_MAX)?;
    let mut frame = vec![0; 4 + size_bytes];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}
