//! A client's end of a connection: one request at a time, asked again over a new connection when there is no answer.

use crate::network::{Event, Network};
use kafka_protocol::messages::InitProducerIdRequest;
use kafka_protocol::protocol::Request;
use tally_testkit::wire;

/// All requests have it: a connection has one under way.
pub(crate) const CORRELATION_ID: i32 = 7;

/// The end of a connection.
#[derive(Default)]
pub(crate) struct Port {
    link: Option<u64>,
    asked: Option<Asked>,
    /// A request for a new epoch was left behind: it may fence its own client, which no broker can tell from another.
    pub(crate) is_haunted: bool,
}

struct Asked {
    key: i16,
    version: i16,
}

/// Where a request stands.
pub(crate) enum Progress {
    /// There is none.
    Idle,
    /// It is under way.
    Waiting,
    /// There will be no answer.
    Lost,
    /// It is answered.
    Answered(Response),
}

/// An answer.
pub(crate) struct Response {
    version: i16,
    bytes: bytes::Bytes,
}

impl Response {
    /// What it says.
    pub(crate) fn of<R: Request>(self) -> R::Response {
        wire::decode_response::<R>(self.version, CORRELATION_ID, self.bytes)
    }
}

/// Whether a client waits no longer: sooner where nothing comes.
pub(crate) fn gives_up(network: &mut Network, link: u64) -> bool {
    let chance = if network.is_stuck(link) { 20 } else { 2 };
    network.seed.percent(chance)
}

impl Port {
    /// The connection.
    pub(crate) fn link(&self) -> Option<u64> {
        self.link
    }

    pub(crate) fn ask<R: Request>(&mut self, network: &mut Network, version: i16, request: &R) {
        let link = *self.link.get_or_insert_with(|| network.connect());
        network.send(link, &wire::frame(version, CORRELATION_ID, request));
        self.asked = Some(Asked {
            key: R::KEY,
            version,
        });
    }

    pub(crate) fn progress(&mut self, network: &mut Network) -> Progress {
        let (Some(link), Some(asked)) = (self.link, &self.asked) else {
            return Progress::Idle;
        };
        let version = asked.version;
        match network.event(link) {
            Some(Event::Answer(bytes)) => {
                self.asked = None;
                Progress::Answered(Response { version, bytes })
            }
            Some(Event::Gone) => {
                self.lost();
                Progress::Lost
            }
            None if network.faults && gives_up(network, link) => {
                network.leave(link);
                self.is_haunted |= asked.key == InitProducerIdRequest::KEY;
                self.lost();
                Progress::Lost
            }
            None => Progress::Waiting,
        }
    }

    fn lost(&mut self) {
        self.asked = None;
        self.link = None;
    }
}
