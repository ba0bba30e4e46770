//! Laws over random histories: replay, no gap, no duplicate, epochs, the last stable offset, the aborted list.

use crate::partition::{Answer, Logged, Partition, at, marker, plain, replay, transactional};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tally_producer_state::{Flow, Marker, ProducerStates, collect_aborted};
use tally_protocol::{BatchHeader, CoordinatorEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

/// What a world of careless producers and coordinators may try.
#[derive(Clone, Debug)]
enum Step {
    Produce {
        pid: i64,
        epoch: i16,
        sequence: SequenceChoice,
        count: i32,
        is_transactional: bool,
        is_tv2: bool,
    },
    Retry(prop::sample::Index),
    End {
        pid: i64,
        epoch: i16,
        coordinator: i32,
        commit: bool,
        version: i8,
    },
    Watermark,
}

#[derive(Clone, Debug)]
enum SequenceChoice {
    Next,
    Zero,
    Any(i32),
    Own,
}

fn step() -> impl Strategy<Value = Step> {
    let sequence = prop_oneof![
        6 => Just(SequenceChoice::Next),
        2 => Just(SequenceChoice::Zero),
        1 => (0..6i32).prop_map(SequenceChoice::Any),
        1 => (i32::MAX - 4..=i32::MAX).prop_map(SequenceChoice::Any),
        1 => Just(SequenceChoice::Own),
    ];
    let produce = (
        0..4i64,
        0..3i16,
        sequence,
        1..4i32,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(pid, epoch, sequence, count, is_transactional, is_tv2)| Step::Produce {
                pid,
                epoch,
                sequence,
                count,
                is_transactional,
                is_tv2,
            },
        );
    let end = (0..4i64, 0..3i16, 0..2i32, any::<bool>(), 0..3i8).prop_map(
        |(pid, epoch, coordinator, commit, version)| Step::End {
            pid,
            epoch,
            coordinator,
            commit,
            version,
        },
    );
    prop_oneof![
        6 => produce,
        2 => any::<prop::sample::Index>().prop_map(Step::Retry),
        3 => end,
        1 => Just(Step::Watermark),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..80)
}

fn header(partition: &Partition, step: &Step) -> Option<(BatchHeader, Flow)> {
    match step {
        Step::Produce {
            pid,
            epoch,
            sequence,
            count,
            is_transactional,
            is_tv2,
        } => {
            let described = partition.states.describe();
            let known = described.iter().find(|one| one.producer_id.0 == *pid);
            let next = known.map_or(Sequence(0), |one| {
                if one.producer_epoch.0 == *epoch {
                    one.last_sequence.next()
                } else {
                    Sequence(0)
                }
            });
            let sequence = match sequence {
                SequenceChoice::Next => next.0,
                SequenceChoice::Zero => 0,
                SequenceChoice::Any(sequence) => *sequence,
                SequenceChoice::Own => -1,
            };
            let header = if *is_transactional {
                transactional(*pid, *epoch, sequence, *count)
            } else {
                plain(*pid, *epoch, sequence, *count)
            };
            Some((header, if *is_tv2 { Flow::Tv2 } else { Flow::Tv1 }))
        }
        Step::Retry(index) => {
            let data: Vec<_> = data(&partition.log).collect();
            if data.is_empty() {
                return None;
            }
            Some((**index.get(&data), Flow::Tv1))
        }
        Step::End { .. } | Step::Watermark => None,
    }
}

fn run_step(partition: &mut Partition, step: &Step) {
    match step {
        Step::Produce { .. } | Step::Retry(_) => {
            let Some((header, flow)) = header(partition, step) else {
                return;
            };
            let before = partition.image();
            match partition.produce_by(header, flow) {
                Answer::At(_) => {}
                Answer::Again(offset) => {
                    assert_eq!(partition.image(), before, "P-32: nothing is appended");
                    assert!(is_logged(&partition.log, &header, offset), "P-36");
                }
                Answer::Code(_) => assert_eq!(partition.image(), before, "P-41"),
            }
        }
        Step::End {
            pid,
            epoch,
            coordinator,
            commit,
            version,
        } => {
            let marker = Marker {
                coordinator_epoch: CoordinatorEpoch(*coordinator),
                transaction_version: *version,
                ..marker(*pid, *epoch, *commit)
            };
            partition.end_unseen(marker);
        }
        Step::Watermark => partition.states.high_watermark(partition.end),
    }
}

fn data(log: &[Logged]) -> impl Iterator<Item = &BatchHeader> {
    log.iter().filter_map(|logged| match logged {
        Logged::Data(header) => Some(header),
        Logged::Marker(..) => None,
    })
}

fn is_logged(log: &[Logged], header: &BatchHeader, offset: i64) -> bool {
    data(log).any(|one| {
        one.base_offset == Offset(offset)
            && one.producer_id == header.producer_id
            && one.producer_epoch == header.producer_epoch
            && one.base_sequence == header.base_sequence
            && one.last_sequence() == header.last_sequence()
    })
}

/// P-39, P-44: within an epoch each batch goes on where the one before stopped, a new epoch starts at 0, none falls.
fn assert_no_gap_no_duplicate(log: &[Logged]) {
    let mut last: BTreeMap<ProducerId, (ProducerEpoch, Option<Sequence>)> = BTreeMap::new();
    for logged in log {
        match logged {
            Logged::Data(header) => {
                let epoch = header.producer_epoch;
                let before = last.get(&header.producer_id).copied();
                assert!(
                    before.is_none_or(|(known, _)| epoch >= known),
                    "epoch falls"
                );
                let known = before.filter(|(known, _)| *known == epoch);
                if header.base_sequence == Sequence::NONE {
                    let sequence = known.and_then(|(_, sequence)| sequence);
                    last.insert(header.producer_id, (epoch, sequence));
                    continue;
                }
                match (before, known.and_then(|(_, sequence)| sequence)) {
                    (_, Some(sequence)) => assert_eq!(header.base_sequence, sequence.next()),
                    (Some(_), None) => assert_eq!(header.base_sequence, Sequence(0)),
                    (None, None) => {}
                }
                last.insert(header.producer_id, (epoch, Some(header.last_sequence())));
            }
            Logged::Marker(_, marker) => {
                let before = last.get(&marker.producer_id).copied();
                assert!(
                    before.is_none_or(|(known, _)| marker.producer_epoch >= known),
                    "epoch falls"
                );
                let kept = before.filter(|(known, _)| *known == marker.producer_epoch);
                let sequence = kept.and_then(|(_, sequence)| sequence);
                last.insert(marker.producer_id, (marker.producer_epoch, sequence));
            }
        }
    }
}

/// First offset, producer, and the marker's offset and whether it commits, if there is one.
type Transaction = (Offset, ProducerId, Option<(Offset, bool)>);

/// The transactions of a log, by their first offset.
fn transactions(log: &[Logged]) -> Vec<Transaction> {
    let mut open: BTreeMap<ProducerId, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for logged in log {
        match logged {
            Logged::Data(header) if header.is_transactional() => {
                open.entry(header.producer_id).or_insert_with(|| {
                    all.push((header.base_offset, header.producer_id, None));
                    all.len() - 1
                });
            }
            Logged::Data(_) => {}
            Logged::Marker(offset, marker) => {
                if let Some(index) = open.remove(&marker.producer_id) {
                    all[index].2 = Some((*offset, marker.commit));
                }
            }
        }
    }
    all
}

fn naive_first_unstable(log: &[Logged], high_watermark: Offset) -> Option<Offset> {
    transactions(log)
        .into_iter()
        .filter(|(_, _, end)| end.is_none_or(|(marker, _)| marker >= high_watermark))
        .map(|(first, _, _)| first)
        .min()
}

fn naive_aborted(log: &[Logged], fetch: Offset, upper: Offset) -> Vec<(ProducerId, Offset)> {
    let mut listed: Vec<_> = transactions(log)
        .into_iter()
        .filter(|(first, _, end)| {
            end.is_some_and(|(marker, commit)| !commit && marker >= fetch && *first < upper)
        })
        .map(|(first, producer, _)| (producer, first))
        .collect();
    listed.sort_by_key(|(_, first)| *first);
    listed
}

proptest! {
    #[test]
    fn p65_replay_gives_the_state_of_the_live_run(steps in history()) {
        let mut partition = Partition::new();
        let mut images = vec![(0, partition.image())];
        for step in &steps {
            run_step(&mut partition, step);
            images.push((partition.log.len(), partition.image()));
        }
        for (logged, image) in images {
            let (mut states, _) = ProducerStates::restore(&image, 7).expect("own bytes");
            let rows = replay(&mut states, &partition.log[logged..], at(0));
            states.check_invariants();
            prop_assert_eq!(states.snapshot(partition.end), partition.image());
            prop_assert!(partition.rows.ends_with(&rows), "P-64");
            states.high_watermark(partition.end);
            prop_assert_eq!(
                states.first_unstable(),
                naive_first_unstable(&partition.log, partition.end)
            );
        }
        let mut states = ProducerStates::new(7);
        prop_assert_eq!(replay(&mut states, &partition.log, at(0)), partition.rows.clone());
        prop_assert_eq!(states.snapshot(partition.end), partition.image());
    }

    #[test]
    fn p59_the_state_of_a_cut_log_is_the_replay_up_to_the_cut(steps in history()) {
        let mut partition = Partition::new();
        let mut states = ProducerStates::new(7);
        let mut replayed = 0;
        for step in &steps {
            run_step(&mut partition, step);
            replay(&mut states, &partition.log[replayed..], at(0));
            replayed = partition.log.len();
            prop_assert_eq!(states.snapshot(partition.end), partition.image());
        }
    }

    #[test]
    fn p46_no_gap_no_duplicate_no_falling_epoch(steps in history()) {
        let mut partition = Partition::new();
        steps.iter().for_each(|step| run_step(&mut partition, step));
        assert_no_gap_no_duplicate(&partition.log);
    }

    #[test]
    fn p31_the_last_five_batches_are_always_recognised(steps in history()) {
        let mut partition = Partition::new();
        for step in &steps {
            run_step(&mut partition, step);
            let log = partition.log.clone();
            for one in partition.states.describe() {
                let recent: Vec<_> = data(&log)
                    .filter(|header| header.producer_id == one.producer_id)
                    .filter(|header| header.producer_epoch == one.producer_epoch)
                    .filter(|header| header.base_sequence != Sequence::NONE)
                    .collect();
                for header in recent.iter().rev().take(5) {
                    let aborted = transactions(&log).into_iter().any(|(first, producer, end)| {
                        producer == header.producer_id
                            && header.is_transactional()
                            && first <= header.base_offset
                            && end.is_some_and(|(marker, commit)| !commit && header.base_offset < marker)
                    });
                    let expected = if aborted {
                        Answer::Code(45)
                    } else {
                        Answer::Again(header.base_offset.0)
                    };
                    prop_assert_eq!(partition.append(**header, None), expected);
                }
            }
        }
    }

    #[test]
    fn m12_the_first_unstable_offset_is_that_of_a_naive_model(steps in history()) {
        let mut partition = Partition::new();
        let mut high_watermark = Offset::ZERO;
        let mut stable_before = Offset::ZERO;
        for step in &steps {
            run_step(&mut partition, step);
            if matches!(step, Step::Watermark) {
                high_watermark = partition.end;
            }
            let unstable = partition.states.first_unstable();
            prop_assert_eq!(unstable, naive_first_unstable(&partition.log, high_watermark));
            let stable = unstable.map_or(high_watermark, |first| first.min(high_watermark));
            prop_assert!(stable >= stable_before, "M-14: {} after {}", stable, stable_before);
            stable_before = stable;
        }
    }

    #[test]
    fn f5_the_aborted_list_is_that_of_a_naive_model(steps in history(), fetch in 0..60i64, length in 0..60i64) {
        let mut partition = Partition::new();
        steps.iter().for_each(|step| run_step(&mut partition, step));
        partition.states.high_watermark(partition.end);
        // Readers of committed data get nothing at or above the last stable offset.
        let stable = partition.states.first_unstable().unwrap_or(partition.end);
        let fetch = Offset(fetch).min(stable);
        let upper = fetch.plus(length).min(stable);
        prop_assert_eq!(
            collect_aborted(partition.rows.iter().copied(), fetch, upper),
            naive_aborted(&partition.log, fetch, upper)
        );
    }

    #[test]
    fn p61_no_bytes_make_restore_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ProducerStates::restore(&bytes, 0).is_err());
    }
}
