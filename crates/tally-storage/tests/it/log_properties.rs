//! A model of a log against the log on the disk, under random lives: appends, reads, deletions, clean stops, kills, torn
//! tails and power cuts.

use crate::support::{Disk, Log, PARTITION, chill, loaded};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::ControlFlow;
use tally_protocol::{LeaderEpoch, Offset};
use tally_storage::LogOptions;

#[derive(Clone, Debug)]
enum Step {
    Append {
        count: i32,
        payload: usize,
        timestamp: i64,
    },
    Read {
        from: usize,
        max_bytes: usize,
    },
    FindTime(i64),
    SetStart(usize),
    Roll,
    StopAndStart,
    KillAndStart {
        torn: usize,
    },
    PowerCut {
        torn: usize,
    },
    DamageIndexes,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..20i32, 0..1500usize, -1..50i64)
            .prop_map(|(count, payload, timestamp)| Step::Append { count, payload, timestamp }),
        4 => (0..1000usize, 1..6000usize).prop_map(|(from, max_bytes)| Step::Read { from, max_bytes }),
        2 => (0..55i64).prop_map(Step::FindTime),
        1 => (0..1000usize).prop_map(Step::SetStart),
        1 => Just(Step::Roll),
        1 => Just(Step::StopAndStart),
        1 => (0..400usize).prop_map(|torn| Step::KillAndStart { torn }),
        1 => (0..400usize).prop_map(|torn| Step::PowerCut { torn }),
        1 => Just(Step::DamageIndexes),
    ]
}

fn options() -> impl Strategy<Value = LogOptions> {
    (1000..20_000u32, 20..60i64, 0..1000u32, 60..2000u32).prop_map(
        |(segment_bytes, segment_ms, index_interval_bytes, index_max_bytes)| LogOptions {
            segment_bytes,
            segment_ms,
            segment_jitter_ms: 5,
            index_interval_bytes,
            index_max_bytes,
            gaps_below: Offset::ZERO,
            flush_messages: i64::MAX,
            flush_ms: u64::MAX,
            synced_only: false,
        },
    )
}

/// A batch of the model: base, last, timestamp, epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    base: i64,
    last: i64,
    timestamp: i64,
    epoch: i32,
    bytes: usize,
}

struct World {
    disk: Disk,
    options: LogOptions,
    log: Option<Log>,
    batches: Vec<Batch>,
    start: i64,
    end: i64,
    epoch: i32,
}

impl World {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("running")
    }

    fn pick(&self, number: usize) -> i64 {
        let span = self.end - self.start + 1;
        self.start + i64::try_from(number).expect("small") % span
    }

    fn live(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.last >= self.start)
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append {
                count,
                payload,
                timestamp,
            } => self.append(*count, *payload, *timestamp),
            Step::Read { from, max_bytes } => self.read(*from, *max_bytes),
            Step::FindTime(timestamp) => self.find_time(*timestamp),
            Step::SetStart(to) => {
                self.start = self.pick(*to);
                let start = Offset(self.start);
                let moved = self.log().journal.set_log_start(PARTITION, start);
                moved.expect("moved");
            }
            Step::Roll => self.log().journal.roll(PARTITION).expect("rolled"),
            Step::StopAndStart => {
                self.log.take().expect("running").stop();
                self.start_again(0);
            }
            Step::KillAndStart { torn } => {
                self.log = None;
                self.start_again(*torn);
            }
            Step::PowerCut { torn } => {
                self.log = None;
                self.disk.forget_boot();
                self.start_again(*torn);
            }
            Step::DamageIndexes => self.damage_indexes(),
        }
    }

    fn append(&mut self, count: i32, payload: usize, timestamp: i64) {
        let (base, epoch) = (self.end, self.epoch);
        self.log().put(count, epoch, timestamp, payload);
        let last = base + i64::from(count) - 1;
        let bytes = 61 + payload;
        self.batches.push(Batch {
            base,
            last,
            timestamp,
            epoch,
            bytes,
        });
        self.end = last + 1;
    }

    /// Cuts bytes off the last segment, and starts.
    fn start_again(&mut self, torn: usize) {
        if let (Some(base), true) = (self.disk.bases().last(), torn > 0) {
            let path = self.disk.file(*base, "log");
            let bytes = std::fs::read(&path).expect("there");
            let kept = bytes.len().saturating_sub(torn);
            std::fs::write(&path, &bytes[..kept]).expect("written");
            let mut lost = bytes.len() - kept;
            while lost > 0 {
                let batch = self.batches.pop().expect("what was lost was there");
                lost = lost.saturating_sub(batch.bytes);
                self.end = batch.base;
            }
        }
        self.epoch += 1;
        chill(&self.disk.directory());
        let (log, recovered) = self.disk.start(self.options);
        log.dir.power_cut_handled().expect("written");
        if self.end < self.start {
            // Records that were deleted are gone for good, even if the log is shorter than that.
            self.batches.clear();
            self.end = self.start;
        }
        assert_eq!(recovered.log_start, Offset(self.start));
        assert_eq!(recovered.log_end, Offset(self.end));
        self.log = Some(log);
    }

    fn damage_indexes(&mut self) {
        self.log.take().expect("running").stop();
        for (at, name) in self.disk.names().into_iter().enumerate() {
            let path = self.disk.directory().join(&name);
            if name.ends_with("index") && at % 2 == 0 {
                std::fs::write(path, [0; 24]).expect("written");
            } else if name == "leader-epoch-checkpoint" {
                std::fs::remove_file(path).expect("removed");
            }
        }
        self.start_again(0);
    }

    fn read(&mut self, from: usize, max_bytes: usize) {
        let from = self.pick(from);
        let expected: Vec<i64> = self
            .live()
            .filter(|batch| batch.last >= from)
            .map(|batch| batch.base)
            .collect();
        let end = self.end;
        assert_eq!(self.log().read(from, end, max_bytes), expected);
    }

    fn find_time(&mut self, timestamp: i64) {
        let (start, end) = (self.start, self.end);
        let expected = self
            .live()
            .find(|batch| batch.timestamp >= timestamp)
            .map(|batch| batch.base);
        let largest = self.live().map(|batch| batch.timestamp).max();
        let first = self
            .live()
            .find(|batch| Some(batch.timestamp) == largest && batch.timestamp >= 0)
            .map(|batch| batch.base);
        let journal = &self.log().journal;
        let base = |slice: tally_storage::Slice| {
            i64::from_be_bytes(*slice.first_chunk().expect("a batch"))
        };
        let found = loaded(|| journal.find_by_time(PARTITION, timestamp, Offset(end)));
        assert_eq!(found.expect("found").map(base), expected, "from {start}");
        let found = loaded(|| journal.max_timestamp_batch(PARTITION, Offset(end)));
        assert_eq!(found.expect("found").map(base), first);
    }

    fn check(&mut self) {
        let expected: Vec<Batch> = self.live().copied().collect();
        let (start, end, current) = (self.start, self.end, self.epoch);
        let journal = &self.log().journal;
        let mut found = Vec::new();
        let visited = journal.visit_batches(PARTITION, Offset(0), &mut |view| {
            view.check_crc().expect("a good batch");
            let header = view.header();
            found.push(Batch {
                base: header.base_offset.0,
                last: header.last_offset().0,
                timestamp: header.max_timestamp,
                epoch: header.leader_epoch.0,
                bytes: view.bytes().len(),
            });
            ControlFlow::Continue(())
        });
        visited.expect("replay works");
        assert_eq!(found, expected);
        assert_eq!(journal.log_start(PARTITION), Offset(start));
        assert_eq!(journal.log_end(PARTITION), Offset(end));
        for epoch in expected.iter().map(|batch| batch.epoch) {
            let next = expected.iter().find(|batch| batch.epoch > epoch);
            let end = next.map_or(end, |next| next.base);
            let told =
                journal.leader_epoch_end(PARTITION, LeaderEpoch(epoch), LeaderEpoch(current));
            assert_eq!(told, (LeaderEpoch(epoch), Offset(end.max(start))));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r8_the_log_is_what_the_model_says(options in options(), steps in vec(step(), 1..80)) {
        let disk = Disk::new();
        let (log, _) = disk.start(options);
        let mut world = World {
            disk,
            options,
            log: Some(log),
            batches: Vec::new(),
            start: 0,
            end: 0,
            epoch: 1,
        };
        for step in &steps {
            world.run(step);
            world.check();
        }
    }
}
