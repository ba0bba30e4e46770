//! What connections do that mostly wait: consumers at the end of a partition, and connections on which nothing happens.

use crate::engine::{Driver, Turn};
use crate::frames::Template;
use crate::requests::{self, FetchAsk};
use anyhow::{Result, ensure};

/// How long a consumer lets the broker wait for a byte: the clients' default (fetch.max.wait.ms).
const WAIT_MS: i32 = 500;
/// Codes after which a consumer begins a fetch session anew.
const NO_SESSION: [i16; 2] = [70, 71];

/// A consumer that follows one partition and measures how old the records are that it gets.
pub(crate) struct Follow {
    topic: String,
    template: Template,
    offset: i64,
    /// Where a batch has the time of its sending.
    time_at: usize,
}

impl Follow {
    /// Follows a partition from its beginning.
    pub(crate) fn new(topic: &str, partition: i32, time_at: usize) -> Follow {
        let ask = FetchAsk {
            wait_ms: WAIT_MS,
            ..FetchAsk::marked(partition, 32 * 1024)
        };
        Follow {
            topic: topic.to_owned(),
            template: Template::new(12, &requests::fetch(topic, &ask), &[]),
            offset: 0,
            time_at,
        }
    }
}

impl Driver for Follow {
    fn begin(&mut self, turn: &mut Turn<'_>) {
        self.template.put_at(turn.out, self.offset);
    }

    fn answered(&mut self, frame: &[u8], _length: usize, turn: &mut Turn<'_>) -> Result<()> {
        let fetched = requests::fetched(frame, &self.topic)?;
        ensure!(
            fetched.error == 0,
            "Fetch is answered with error {}",
            fetched.error
        );
        if let Some((error, bytes, at)) = fetched.first {
            ensure!(
                error == 0,
                "Fetch of a partition is answered with error {error}"
            );
            let end = (at + bytes).min(frame.len());
            for (last_offset, sent) in requests::times(&frame[at..end], self.time_at) {
                self.offset = last_offset + 1;
                turn.record.units += 1;
                turn.record.latency.add(turn.now.saturating_sub(sent));
            }
        }
        if !turn.is_ending {
            self.template.put_at(turn.out, self.offset);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        true
    }
}

/// A consumer of one partition to which nothing comes: it asks again whenever the broker has waited long enough.
pub(crate) struct IdleConsumer {
    topic: String,
    partition: i32,
    session: (i32, i32),
    asked: u64,
}

impl IdleConsumer {
    /// A consumer at the beginning of an empty partition.
    pub(crate) fn new(topic: &str, partition: i32) -> IdleConsumer {
        IdleConsumer {
            topic: topic.to_owned(),
            partition,
            session: (0, 0),
            asked: 0,
        }
    }

    fn ask(&mut self, turn: &mut Turn<'_>) {
        let ask = FetchAsk {
            first: self.partition,
            partitions: i32::from(self.session.0 == 0),
            offset: 0,
            bytes_max: 1 << 20,
            wait_ms: WAIT_MS,
            session: self.session,
        };
        let request = requests::fetch(&self.topic, &ask);
        turn.out
            .extend_from_slice(&tally_testkit::wire::frame(12, 0, &request));
        self.asked = turn.now;
    }
}

impl Driver for IdleConsumer {
    fn begin(&mut self, turn: &mut Turn<'_>) {
        self.ask(turn);
    }

    fn answered(&mut self, frame: &[u8], _length: usize, turn: &mut Turn<'_>) -> Result<()> {
        let fetched = requests::fetched(frame, &self.topic)?;
        if NO_SESSION.contains(&fetched.error) {
            self.session = (0, 0);
        } else {
            ensure!(
                fetched.error == 0,
                "Fetch is answered with error {}",
                fetched.error
            );
            // A broker without room for another session answers 0: then everything is asked for each time.
            let epoch = if fetched.session == 0 {
                0
            } else {
                self.session.1 + 1
            };
            self.session = (fetched.session, epoch);
        }
        turn.record.units += 1;
        turn.record.latency.add(turn.now - self.asked);
        if !turn.is_ending {
            self.ask(turn);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        true
    }
}

/// A connection that says once who it is, as every client does, and then nothing.
pub(crate) struct Idle {
    is_answered: bool,
}

impl Idle {
    /// Before its first word.
    pub(crate) const fn new() -> Idle {
        Idle { is_answered: false }
    }
}

impl Driver for Idle {
    fn begin(&mut self, turn: &mut Turn<'_>) {
        turn.out.extend_from_slice(&requests::api_versions());
    }

    fn answered(&mut self, _frame: &[u8], _length: usize, turn: &mut Turn<'_>) -> Result<()> {
        self.is_answered = true;
        turn.record.units += 1;
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.is_answered
    }
}
