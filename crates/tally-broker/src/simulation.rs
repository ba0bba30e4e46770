//! A whole broker without sockets, for simulations (feature `simulation`, never on in a release): frames go in, frames come
//! out, on one thread.
//!
//! What is random comes from a seed, the clocks are the ones of a paused runtime and stand where the simulation puts them, and
//! a handler stops wherever it asks a shard, so that whoever polls it decides what happens in between. Nothing is done by
//! another thread: what is not in memory is read at once. All of this belongs to the thread that called [`begin`].

use crate::api::{self, Answer, Client, Node};
use crate::broker::{self, Opened, StartError, StopError};
use crate::config::{BrokerConfig, Durability};
use crate::health::Health;
use crate::loggers::Loggers;
use crate::metadata::Random;
use crate::server::sync;
use crate::stopping::StopProgress;
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use tally_protocol::response::Piece;
use tally_shard::WaiterId;

/// What a simulated broker finds around it.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Where random bytes come from.
    pub seed: u64,
    /// The wall clock at the start, milliseconds since 1970; from there it goes as the runtime's clock does.
    pub wall_ms: i64,
    /// Bytes of the journal that syncs, and how many of one segment go into one of its groups: less than can be configured, so
    /// that a short story comes to its ends.
    pub journal: (u64, u64),
}

thread_local! {
    static SURROUNDINGS: RefCell<Option<Surroundings>> = const { RefCell::new(None) };
}

/// Brokers that this thread starts from now on are simulated.
pub fn begin(surroundings: Surroundings) {
    SURROUNDINGS.set(Some(surroundings));
}

/// Not any more.
pub fn end() {
    SURROUNDINGS.set(None);
}

pub(crate) fn is_on() -> bool {
    SURROUNDINGS.with_borrow(Option::is_some)
}

pub(crate) fn wall_ms() -> Option<i64> {
    SURROUNDINGS.with_borrow(|found| found.map(|found| found.wall_ms))
}

pub(crate) fn journal() -> Option<(u64, u64)> {
    SURROUNDINGS.with_borrow(|found| found.map(|found| found.journal))
}

/// Bytes of the seed: others for each that asks.
pub(crate) fn random() -> Option<Random> {
    SURROUNDINGS.with_borrow_mut(|found| {
        let found = found.as_mut()?;
        found.seed = mixed(found.seed);
        let mut state = found.seed;
        Some(Box::new(move |bytes: &mut [u8]| {
            for chunk in bytes.chunks_mut(8) {
                state = mixed(state);
                chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
            }
        }) as Random)
    })
}

/// A step of SplitMix64.
const fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// Lets whoever polls do something else first.
pub(crate) async fn pause() {
    let mut has_paused = !is_on();
    std::future::poll_fn(|context| {
        if has_paused {
            return Poll::Ready(());
        }
        has_paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A broker that nobody connects to: frames are handed to it.
pub struct SimulatedBroker {
    opened: Opened,
    durability: Durability,
    next_connection: u64,
}

impl SimulatedBroker {
    /// Opens the data and recovers. Needs a runtime of this thread alone, and [`begin`]. Dropped with its runtime, it is gone
    /// as after kill -9.
    pub fn start(config: BrokerConfig) -> Result<SimulatedBroker, StartError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
        let durability = config.durability;
        let opened = broker::open(
            &Arc::new(config),
            address,
            Loggers::fixed(),
            &Health::default(),
        )?;
        broker::spawn_timers(&opened.node.shards, opened.syncing.is_some());
        Ok(SimulatedBroker {
            opened,
            durability,
            next_connection: 1,
        })
    }

    /// Takes a new connection.
    pub fn connect(&mut self) -> Connection {
        let waiter = WaiterId(self.next_connection);
        self.next_connection += 1;
        let node = Arc::clone(&self.opened.node);
        let bell = node.shards.register_waiter(waiter);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Connection {
            client: Client::new(peer, waiter, bell),
            node,
        }
    }

    /// What the thread that syncs does in one turn, in the modes that have one.
    pub fn sync(&mut self) {
        if let Some(syncing) = &self.opened.syncing {
            sync::write_group(&syncing.journal, &self.opened.node.shards);
        }
    }

    /// What is done now and then to have less to look through after a crash.
    pub fn checkpoint(&mut self) {
        match (&self.opened.syncing, self.durability) {
            (Some(syncing), Durability::Commit | Durability::Always) => {
                sync::take_checkpoint(&syncing.journal, &self.opened.node.shards);
            }
            (_, Durability::Memory) => {}
            _ => {
                if let Err(error) = self.opened.data_dir.sync_closed() {
                    tracing::error!(%error, "closed segments could not be synced");
                }
            }
        }
    }

    /// Stops clean. No request may be under way.
    pub fn stop(self) -> Result<(), StopError> {
        let keeps_nothing = self.durability == Durability::Memory;
        let Opened {
            data_dir,
            node,
            syncing,
        } = self.opened;
        let end_threads = || {
            if let Some(syncing) = syncing {
                syncing.stop();
            }
        };
        let progress = StopProgress::default();
        broker::close(
            &node.shards,
            &data_dir,
            keeps_nothing,
            &progress,
            end_threads,
        )
    }
}

/// A connection as the broker sees it.
pub struct Connection {
    client: Client,
    node: Arc<Node>,
}

/// What comes back for a frame.
#[derive(Debug)]
pub enum Reply {
    /// Nothing: a Produce with acks=0.
    Nothing,
    /// A frame, without its length.
    Frame(Bytes),
    /// The connection is closed.
    Closed(String),
}

impl Connection {
    /// Handles a frame, which comes without its length.
    pub async fn handle(&mut self, frame: &[u8]) -> Reply {
        let pieces = match api::answer(&self.node, &mut self.client, BytesMut::from(frame)).await {
            Answer::Nothing => return Reply::Nothing,
            Answer::Close(reason) => return Reply::Closed(reason),
            Answer::Late(api) => return Reply::Closed(format!("{api} came too late")),
            Answer::Frame(frame) => return Reply::Frame(Bytes::from(frame).slice(4..)),
            Answer::Pieces(pieces) => pieces,
        };
        let mut frame = BytesMut::new();
        for piece in &pieces {
            match piece {
                Piece::Framing(bytes) => frame.extend_from_slice(bytes),
                Piece::Records(slice) => frame.extend_from_slice(slice),
            }
        }
        Reply::Frame(frame.freeze().slice(4..))
    }
}
