//! Producers of one partition, and whoever ends their transactions.

use super::choices::Choices;
use std::collections::BTreeMap;
use tally_producer_state::{
    Flow, Guard, Marker, MarkerVerdict, ProducerStates, Verdict, Verification,
};
use tally_protocol::batch::TRANSACTIONAL_BIT;
use tally_protocol::{
    BatchHeader, CoordinatorEpoch, LeaderEpoch, Now, Offset, ProducerEpoch, ProducerId, Sequence,
};

/// Batches and markers that only somebody careless or hostile sends, in any order: nothing panics; what is refused or a duplicate
/// changes nothing; in the log sequences have no gap, epochs do not fall (P-38, P-46); the state is what replay of the log gives,
/// from the beginning and from a snapshot in between (P-65); and a snapshot of any bytes is read or refused (P-61).
pub fn producer_ops(data: &[u8]) {
    let _any = ProducerStates::restore(data, 1);
    let mut choices = Choices::new(data);
    let mut partition = Partition::new();
    while let Some(step) = choices.step() {
        partition.step(step, &mut choices);
        partition.states.check_invariants();
    }
    partition.check();
}

#[derive(Clone, Copy)]
enum Logged {
    Data(BatchHeader),
    Marker(Offset, Marker),
}

struct Partition {
    states: ProducerStates,
    log: Vec<Logged>,
    end: Offset,
    now: Now,
    guard: Option<Guard>,
    /// A snapshot, and how much of the log it has.
    snapshot: Option<(usize, Vec<u8>)>,
}

impl Partition {
    fn new() -> Partition {
        Partition {
            states: ProducerStates::new(1),
            log: Vec::new(),
            end: Offset::ZERO,
            now: Now {
                monotonic_ms: 0,
                wall_ms: 0,
            },
            guard: None,
            snapshot: None,
        }
    }

    fn step(&mut self, step: u8, choices: &mut Choices<'_>) {
        match step % 8 {
            0..=2 => {
                let header = self.header(choices);
                self.produce(header, choices);
            }
            3 => {
                let nth = usize::from(choices.byte());
                let data = self.log.iter().rev().filter_map(|logged| match logged {
                    Logged::Data(header) => Some(*header),
                    Logged::Marker(..) => None,
                });
                if let Some(header) = data.take(8).nth(nth % 8) {
                    self.produce(header, choices);
                }
            }
            4 | 5 => {
                let marker = Marker {
                    producer_id: ProducerId(i64::from(choices.below(4))),
                    producer_epoch: ProducerEpoch(choices.short().max(0)),
                    coordinator_epoch: CoordinatorEpoch(choices.number().max(0)),
                    commit: choices.flag(),
                    transaction_version: i8::from(choices.flag()) * 2,
                };
                self.end(marker);
            }
            6 => self.states.high_watermark(self.end),
            _ => self.snapshot = Some((self.log.len(), self.states.snapshot(self.end))),
        }
    }

    /// Mostly what would come next of a producer.
    fn header(&self, choices: &mut Choices<'_>) -> BatchHeader {
        let producer_id = ProducerId(i64::from(choices.below(4)));
        let known = self.states.describe();
        let known = known.iter().find(|one| one.producer_id == producer_id);
        let (epoch, next) = known.map_or((ProducerEpoch(0), Sequence(0)), |one| {
            (one.producer_epoch, one.last_sequence.next())
        });
        let (producer_epoch, base_sequence) = match choices.below(4) {
            0 | 1 => (epoch, next),
            2 => (ProducerEpoch(epoch.0.saturating_add(1)), Sequence(0)),
            // Only what validation lets through comes here: no epoch and no sequence below 0.
            _ => (
                ProducerEpoch(choices.short().max(0)),
                Sequence(choices.number().max(0)),
            ),
        };
        let count = 1 + i32::from(choices.below(3));
        BatchHeader {
            base_offset: Offset(0),
            batch_length: 49,
            leader_epoch: LeaderEpoch(-1),
            crc: 0,
            attributes: if choices.flag() { TRANSACTIONAL_BIT } else { 0 },
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 77,
            producer_id,
            producer_epoch,
            base_sequence,
            records_count: count,
        }
    }

    fn produce(&mut self, header: BatchHeader, choices: &mut Choices<'_>) {
        let mut guard = None;
        if header.is_transactional() {
            let flow = if choices.flag() { Flow::Tv2 } else { Flow::Tv1 };
            let begun = self.states.begin_verification(
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
                flow,
                self.now,
            );
            match begun {
                Verification::NotNeeded => {}
                // Now and then the word of an earlier question.
                Verification::Needed(now) => {
                    guard = if choices.below(8) == 0 {
                        self.guard.take()
                    } else {
                        None
                    }
                    .or(Some(now));
                    self.guard = Some(now);
                }
                Verification::Refuse(_) => return,
            }
        }
        let before = self.states.snapshot(self.end);
        match self.states.check(&header, guard) {
            Verdict::Append => {
                let base_offset = self.end;
                self.states.apply(base_offset, &header, self.now);
                self.log.push(Logged::Data(BatchHeader {
                    base_offset,
                    ..header
                }));
                self.end = base_offset.plus(i64::from(header.last_offset_delta) + 1);
            }
            Verdict::Duplicate { base_offset, .. } => {
                assert_eq!(before, self.states.snapshot(self.end), "P-32");
                assert!(base_offset < self.end, "P-36");
            }
            Verdict::Refuse(_) => assert_eq!(before, self.states.snapshot(self.end), "P-41"),
        }
    }

    fn end(&mut self, marker: Marker) {
        match self.states.check_marker(&marker) {
            MarkerVerdict::Append => {
                let _row = self.states.apply_marker(self.end, &marker, self.now);
                self.log.push(Logged::Marker(self.end, marker));
                self.end = self.end.next();
            }
            MarkerVerdict::AlreadyWritten => self.states.marker_already_written(&marker),
            MarkerVerdict::Refuse(_) => {}
        }
    }

    fn check(&self) {
        let live = self.states.snapshot(self.end);
        let replayed = self.replay(ProducerStates::new(7), 0);
        assert_eq!(replayed.snapshot(self.end), live, "P-65");
        if let Some((logged, image)) = &self.snapshot {
            let (states, _) = ProducerStates::restore(image, 7).expect("its own bytes");
            let replayed = self.replay(states, *logged);
            assert_eq!(replayed.snapshot(self.end), live, "P-65, behind a snapshot");
        }
        self.check_sequences();
    }

    fn replay(&self, mut states: ProducerStates, from: usize) -> ProducerStates {
        for logged in &self.log[from..] {
            match logged {
                Logged::Data(header) => states.apply(header.base_offset, header, self.now),
                Logged::Marker(offset, marker) => {
                    let _row = states.apply_marker(*offset, marker, self.now);
                }
            }
        }
        states.check_invariants();
        states
    }

    fn check_sequences(&self) {
        let mut last: BTreeMap<ProducerId, (ProducerEpoch, Option<Sequence>)> = BTreeMap::new();
        for logged in &self.log {
            let (id, epoch) = match logged {
                Logged::Data(header) => (header.producer_id, header.producer_epoch),
                Logged::Marker(_, marker) => (marker.producer_id, marker.producer_epoch),
            };
            let before = last.get(&id).copied();
            assert!(before.is_none_or(|(known, _)| epoch >= known), "P-38");
            let mut sequence = before
                .filter(|(known, _)| *known == epoch)
                .and_then(|it| it.1);
            if let Logged::Data(header) = logged {
                match (before, sequence) {
                    (_, Some(last)) => assert_eq!(header.base_sequence, last.next(), "P-46"),
                    (Some(_), None) => assert_eq!(header.base_sequence, Sequence(0), "P-39"),
                    (None, None) => {}
                }
                sequence = Some(header.last_sequence());
            }
            last.insert(id, (epoch, sequence));
        }
    }
}
