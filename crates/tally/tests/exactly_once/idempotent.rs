//! 12.1 Idempotent produce.

use crate::world::{Answer::*, PROGRAM, World};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ProduceRequest;
use tally_protocol::batch::{CONTROL_BIT, TRANSACTIONAL_BIT};
use tally_testkit::batches::{Batch, Codec, now_ms};
use tally_testkit::broker::{Broker, left_out};
use tally_testkit::client::ProduceCall;
use tally_testkit::waiting::wait_until;

/// Produces one batch after the other and compares the answers.
#[track_caller]
fn check(world: &mut World, pid: i64, cases: &[((i16, i32, i32), crate::world::Answer)]) {
    for (nth, ((epoch, sequence, count), expected)) in cases.iter().enumerate() {
        let got = world.d(pid, *epoch, *sequence, *count);
        assert_eq!(got, *expected, "case {nth}: D({epoch},{sequence},{count})");
    }
}

#[test]
fn x001_the_first_batch_is_appended_at_offset_zero() {
    let mut world = World::new();
    let a = world.pid();
    let batch = Batch::idempotent(a, 0, 0, 3).encode();
    let produced = world.produce_bytes(9, false, batch);
    assert_eq!((produced.error, produced.base_offset), (0, 0));
    assert_eq!(produced.log_append_time, -1);
    assert_eq!(produced.log_start_offset, 0);
    assert_eq!(world.leo(), 3);
}

#[test]
fn x002_the_same_batch_again_gets_the_old_offset() {
    let mut world = World::new();
    let a = world.pid();
    let batch = Batch::idempotent(a, 0, 0, 3);
    assert_eq!(world.plain(&batch), At(0));
    let again = world.produce_bytes(9, false, batch.encode());
    assert_eq!((again.error, again.base_offset), (0, 0));
    assert_eq!(again.log_append_time, batch.base_timestamp);
    assert_eq!(world.leo(), 3);
}

#[test]
fn x003_five_batches_are_remembered() {
    let mut world = World::new();
    let a = world.pid();
    for sequence in 0..6 {
        assert_eq!(world.d(a, 0, sequence, 1), At(i64::from(sequence)));
    }
    check(&mut world, a, &[((0, 1, 1), At(1)), ((0, 0, 1), Code(45))]);
    assert_eq!(world.leo(), 6);
}

#[test]
fn x004_a_gap_is_refused_until_it_is_filled() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[
            ((0, 0, 3), At(0)),
            ((0, 4, 1), Code(45)),
            ((0, 3, 1), At(3)),
            ((0, 4, 1), At(4)),
        ],
    );
}

#[test]
fn x005_a_partial_overlap_is_refused() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[
            ((0, 0, 5), At(0)),
            ((0, 3, 4), Code(45)),
            ((0, 0, 3), Code(45)),
            ((0, 0, 6), Code(45)),
        ],
    );
    assert_eq!(world.leo(), 5);
}

#[test]
fn x006_an_unknown_producer_starts_anywhere() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[
            ((0, 7, 1), At(0)),
            ((0, 8, 1), At(1)),
            ((0, 0, 1), Code(45)),
        ],
    );
}

#[test]
fn x007_an_old_epoch_is_refused() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[
            ((0, 0, 1), At(0)),
            ((1, 0, 1), At(1)),
            ((0, 1, 1), Code(47)),
            ((0, 0, 1), Code(47)),
        ],
    );
}

#[test]
fn x008_a_new_epoch_starts_at_zero_and_a_refusal_changes_nothing() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[
            ((0, 0, 1), At(0)),
            ((1, 1, 1), Code(45)),
            ((0, 1, 1), At(1)),
        ],
    );
}

#[test]
fn x009_an_epoch_may_jump() {
    let mut world = World::new();
    let a = world.pid();
    check(&mut world, a, &[((0, 0, 1), At(0)), ((5, 0, 1), At(1))]);
}

#[test]
fn x010_the_sequence_wraps() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[
            ((0, i32::MAX - 1, 2), At(0)),
            ((0, 0, 1), At(2)),
            ((0, 1, 1), At(3)),
        ],
    );
}

#[test]
fn x011_a_batch_may_cross_the_wrap() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[
            ((0, i32::MAX - 1, 4), At(0)),
            ((0, 2, 1), At(4)),
            ((0, i32::MAX - 1, 4), At(0)),
        ],
    );
}

#[test]
fn x012_zero_and_nothing_else_follows_the_highest_sequence() {
    let mut world = World::new();
    let a = world.pid();
    check(
        &mut world,
        a,
        &[((0, i32::MAX, 1), At(0)), ((0, 1, 1), Code(45))],
    );
}

#[test]
fn x013_two_batches_in_one_record_set_are_refused() {
    let mut world = World::new();
    let a = world.pid();
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&Batch::idempotent(a, 0, 0, 1).encode());
    bytes.extend_from_slice(&Batch::idempotent(a, 0, 1, 1).encode());
    let produced = world.produce_bytes(9, false, bytes.freeze());
    assert_eq!(produced.error, 87);
    assert_eq!(world.leo(), 0);
}

#[test]
fn x014_other_formats_and_nothing_at_all_are_refused() {
    let mut world = World::new();
    let mut old = Batch::plain(1);
    old.magic = 1;
    assert_eq!(world.plain(&old), Code(87), "magic 1");
    let empty = world.produce_bytes(9, false, Bytes::new());
    assert_eq!(empty.error, 87, "empty");
    if world.is_kafka {
        return; // It never answers a null record set.
    }
    let topic = world.topic.clone();
    let null = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: vec![(&topic, 0, None)],
    };
    assert_eq!(world.client.produce(&null)[0].error, 87, "null");
    assert_eq!(world.leo(), 0);
}

#[test]
fn x015_a_damaged_batch_is_refused_and_the_good_one_taken() {
    let mut world = World::new();
    let a = world.pid();
    let batch = Batch::idempotent(a, 0, 0, 1);
    let damaged = world.produce_bytes(9, false, batch.encode_damaged());
    assert_eq!(damaged.error, 2);
    assert_eq!(world.leo(), 0);
    assert_eq!(world.plain(&batch), At(0));
}

#[test]
fn x016_counts_that_contradict_are_refused() {
    let mut world = World::new();
    let a = world.pid();
    let good = Batch::idempotent(a, 0, 0, 3);
    for (delta, count) in [(Some(1), None), (None, Some(0)), (Some(-1), None)] {
        let mut bad = good.clone();
        bad.last_offset_delta = delta;
        bad.records_count = count;
        assert_eq!(
            world.plain(&bad),
            Code(87),
            "delta {delta:?} count {count:?}"
        );
    }
    assert_eq!(world.leo(), 0);
}

#[test]
fn x017_a_base_offset_is_refused() {
    let mut world = World::new();
    let mut batch = Batch::idempotent(world.pid(), 0, 0, 1);
    batch.base_offset = 5;
    assert_eq!(world.plain(&batch), Code(87));
}

#[test]
fn x018_a_control_batch_is_refused() {
    let mut world = World::new();
    let mut batch = Batch::idempotent(world.pid(), 0, 0, 1);
    batch.attributes = CONTROL_BIT;
    assert_eq!(world.plain(&batch), Code(87));
}

#[test]
fn x019_a_producer_without_a_sequence_is_refused() {
    let mut world = World::new();
    let a = world.pid();
    assert_eq!(world.d(a, 0, -1, 1), Code(87));
}

#[test]
fn x020_fewer_records_than_the_header_says_are_refused() {
    let mut world = World::new();
    let mut batch = Batch::idempotent(world.pid(), 0, 0, 2);
    batch.records_count = Some(3);
    batch.last_offset_delta = Some(2);
    assert_eq!(world.plain(&batch), Code(87));
    assert_eq!(world.leo(), 0);
}

#[test]
fn x021_a_timestamp_from_the_future_is_refused() {
    let mut world = World::new();
    let a = world.pid();
    let mut batch = Batch::idempotent(a, 0, 0, 3);
    batch.records[1].timestamp_delta = 2 * 3_600_000;
    let produced = world.produce_bytes(9, false, batch.encode());
    assert_eq!(produced.error, 32);
    assert_eq!(produced.record_errors, [1]);
    assert_eq!(world.leo(), 0);
    assert_eq!(world.d(a, 0, 7, 1), At(0), "no entry was made");
}

#[test]
fn x022_a_compacted_topic_needs_keys() {
    let mut world = World::with_topic(1, &[("cleanup.policy", "compact")]);
    let mut batch = Batch::idempotent(world.pid(), 0, 0, 2);
    batch.records[0].key = None;
    let produced = world.produce_bytes(9, false, batch.encode());
    assert_eq!(produced.error, 87);
    assert_eq!(produced.record_errors, [0]);
    assert_eq!(world.leo(), 0);
}

#[test]
fn x023_zstd_needs_version_seven() {
    let mut world = World::new();
    let a = world.pid();
    let batch = Batch::idempotent(a, 0, 0, 1).compressed(Codec::Zstd);
    assert_eq!(world.produce_bytes(6, false, batch.encode()).error, 76);
    let produced = world.produce_bytes(7, false, batch.encode());
    assert_eq!((produced.error, produced.base_offset), (0, 0));
}

#[test]
fn x024_a_compressed_batch_is_one_batch() {
    let mut world = World::new();
    let codecs = [
        Codec::Gzip,
        Codec::Lz4,
        Codec::SnappyRaw,
        Codec::SnappyFramed,
        Codec::Zstd,
    ];
    for (nth, codec) in (0..).zip(codecs) {
        let a = world.pid();
        let batch = Batch::idempotent(a, 0, 0, 10).compressed(codec);
        assert_eq!(world.plain(&batch), At(nth * 10), "{codec:?}");
        assert_eq!(world.plain(&batch), At(nth * 10), "{codec:?} again");
        assert_eq!(world.d(a, 0, 11, 1), Code(45), "{codec:?} counts records");
    }
    assert_eq!(world.leo(), 50);
}

#[test]
fn x025_acks_two_is_refused() {
    let mut world = World::new();
    let topic = world.topic.clone();
    let call = ProduceCall {
        version: 9,
        acks: 2,
        transactional_id: None,
        parts: vec![(&topic, 0, Some(Batch::plain(1).encode()))],
    };
    assert_eq!(world.client.produce(&call)[0].error, 21);
    assert_eq!(world.leo(), 0);
}

#[test]
fn x026_acks_zero_with_a_damaged_batch_closes_the_connection() {
    let mut world = World::new();
    let mut client = world.another_client();
    let topic = world.topic.clone();
    let call = ProduceCall {
        version: 9,
        acks: 0,
        transactional_id: None,
        parts: vec![(&topic, 0, Some(Batch::plain(1).encode_damaged()))],
    };
    let request = client.produce_request(&call);
    client.send(9, &request);
    assert!(client.receive_frame().is_none(), "closed without an answer");
    assert_eq!(world.leo(), 0);
}

#[test]
fn x027_pipelined_batches_are_appended_in_order() {
    let mut world = World::new();
    let a = world.pid();
    let topic = world.topic.clone();
    let mut sent = Vec::new();
    for sequence in 0..5 {
        let batch = Batch::idempotent(a, 0, sequence, 1).encode();
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: None,
            parts: vec![(&topic, 0, Some(batch))],
        };
        let request = world.client.produce_request(&call);
        let correlation_id = world.client.send(9, &request);
        sent.push((correlation_id, call));
    }
    for (offset, (correlation_id, call)) in (0..).zip(sent) {
        let response = world
            .client
            .receive::<kafka_protocol::messages::ProduceRequest>(9, correlation_id);
        let produced = world.client.produced(&call, &response);
        assert_eq!((produced[0].error, produced[0].base_offset), (0, offset));
    }
}

#[test]
fn x028_sequences_are_of_a_producer_and_a_partition() {
    let mut world = World::with_topic(2, &[]);
    let (a, b) = (world.pid(), world.pid());
    assert_eq!(world.d(a, 0, 0, 2), At(0));
    assert_eq!(world.d(b, 0, 0, 1), At(2));
    let topic = world.topic.clone();
    let other = world
        .client
        .produce_one(&topic, 1, Batch::idempotent(a, 0, 0, 1).encode());
    assert_eq!((other.error, other.base_offset), (0, 0));
    assert_eq!(world.d(a, 0, 2, 1), At(3));
    assert_eq!(world.d(b, 0, 1, 1), At(4));
}

#[test]
fn x029_plain_data_may_not_join_an_open_transaction() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    assert_eq!(world.d(a.id, a.epoch, 1, 1), Code(48));
    assert_eq!(world.commit4(a), 0);
}

#[test]
fn x030_clients_do_not_write_to_internal_topics() {
    let mut world = World::new();
    world.ipi();
    let id = world.id.clone();
    world.client.wait_for_group(&id);
    for topic in ["__consumer_offsets", "__transaction_state"] {
        let produced = world.client.produce_one(topic, 0, Batch::plain(1).encode());
        assert_eq!(produced.error, 17, "{topic}");
    }
}

#[test]
fn x031_batches_have_a_limit() {
    let configs = [
        ("segment.bytes", "1048576"),
        ("max.message.bytes", "2000000"),
    ];
    let mut world = World::with_topic(1, &configs);
    let sized = |bytes: usize| {
        let mut batch = Batch::plain(1);
        batch.records[0].value = Some(Bytes::from(vec![b'x'; bytes]));
        batch
    };
    assert_eq!(world.plain(&sized(1_200_000)), Code(18));
    world.topic = world.another_topic(1, &[("max.message.bytes", "1000")]);
    assert_eq!(world.plain(&sized(2000)), Code(10));
    assert_eq!(world.plain(&sized(500)), At(0));
}

#[test]
fn x032_d9_producer_fields_that_no_check_can_judge_are_refused() {
    let mut world = World::new();
    if world.is_kafka {
        return left_out("D-9");
    }
    let a = world.pid();
    assert_eq!(world.d(a, -1, 0, 1), Code(87));
    let mut anonymous = Batch::plain(1);
    anonymous.attributes = TRANSACTIONAL_BIT;
    let produced = world.produce_bytes(9, true, anonymous.encode());
    assert_eq!(produced.error, 87);
    assert_eq!(world.leo(), 0);
}

#[test]
fn x033_one_refused_partition_does_not_touch_another() {
    let mut world = World::with_topic(2, &[]);
    let a = world.pid();
    let topic = world.topic.clone();
    let first = Batch::idempotent(a, 0, 0, 1).encode();
    assert_eq!(world.client.produce_one(&topic, 1, first.clone()).error, 0);
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: vec![
            (&topic, 0, Some(first)),
            (&topic, 1, Some(Batch::idempotent(a, 0, 5, 1).encode())),
        ],
    };
    let produced = world.client.produce(&call);
    assert_eq!((produced[0].error, produced[1].error), (0, 45));
    assert_eq!(world.leo(), 1);
    assert_eq!(world.client.latest(&topic, 1), 1);
}

#[test]
fn x035_a_duplicate_below_the_log_start_gets_its_true_offset() {
    let mut world = World::new();
    let a = world.pid();
    check(&mut world, a, &[((0, 0, 1), At(0)), ((0, 1, 1), At(1))]);
    let topic = world.topic.clone();
    assert_eq!(world.client.delete_records(&topic, 0, 2), (0, 2));
    let again = Batch::idempotent(a, 0, 1, 1).encode();
    let produced = world.produce_bytes(9, false, again);
    assert_eq!((produced.error, produced.base_offset), (0, 1));
    assert_eq!(produced.log_start_offset, 2);
    //
    check(&mut world, a, &[((0, 2, 1), At(2)), ((0, 9, 1), Code(45))]);
}

#[test]
fn x038_an_idle_producer_is_forgotten() {
    let settings = [
        "producer.id.expiration.ms=3000",
        "producer.id.expiration.check.interval.ms=100",
    ];
    let broker = Broker::start(PROGRAM, &settings);
    let mut world = World::on(&broker);
    let transactional = world.ipi();
    assert_eq!(world.apt(transactional), 0);
    assert_eq!(world.td9(transactional, 0, 1), At(0));
    let idle = world.pid();
    assert_eq!(world.d(idle, 0, 0, 1), At(1));
    let busy = world.pid();
    let mut sequence = 0;
    wait_until("the idle producer is forgotten", || {
        // D-2: what keeps a producer is the broker's clock, whatever its records say.
        let mut old = Batch::idempotent(busy, 0, sequence, 1);
        old.base_timestamp = now_ms() - 10 * 24 * 3_600_000;
        sequence += 1;
        assert!(matches!(world.plain(&old), At(_)));
        world.d(idle, 0, 50, 1) != Code(45)
    });
    if !world.is_kafka {
        // X-040 D-2
        assert_eq!(world.d(busy, 0, sequence + 5, 1), Code(45));
    }
    // an open transaction keeps its producer.
    assert_eq!(world.td9(transactional, 9, 1), Code(45));
    assert_eq!(world.commit4(transactional), 0);
}

#[test]
fn x041_one_request_carries_one_transactional_producer() {
    let mut world = World::with_topic(2, &[]);
    let a = world.ipi();
    let b = world.pid();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(&id),
        parts: vec![
            (
                &topic,
                0,
                Some(Batch::transactional(a.id, 0, 0, 1).encode()),
            ),
            (&topic, 1, Some(Batch::transactional(b, 0, 0, 1).encode())),
        ],
    };
    let produced = world.client.produce(&call);
    assert_eq!((produced[0].error, produced[1].error), (49, 49));
    assert_eq!(world.leo(), 0);
}

#[test]
fn x042_a_transactional_batch_needs_a_transactional_id() {
    let mut world = World::new();
    let a = world.pid();
    let batch = Batch::transactional(a, 0, 0, 1).encode();
    assert_eq!(world.produce_bytes(9, false, batch).error, 53);
}

#[test]
fn x043_retries_leave_one_batch_in_the_log() {
    let mut world = World::new();
    let a = world.pid();
    let batch = Batch::idempotent(a, 0, 0, 3);
    for _ in 0..4 {
        assert_eq!(world.plain(&batch), At(0));
    }
    let read = world.ru(0);
    assert_eq!(read.batches.len(), 1);
    assert_eq!(read.data_offsets(), [0, 1, 2]);
}

#[test]
fn x044_checks_come_in_order() {
    let mut world = World::with_topic(3, &[]);
    let a = world.ipi();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let zstd = Batch::transactional(a.id, 0, 0, 1).compressed(Codec::Zstd);
    let mut two = BytesMut::from(&zstd.encode()[..]);
    two.extend_from_slice(&zstd.encode());
    assert_eq!(world.produce_bytes(6, true, two.freeze()).error, 76);

    let plain = || Some(Batch::plain(1).encode());
    let transactional = |epoch| Some(Batch::transactional(a.id, epoch, 0, 1).encode());
    let call = ProduceCall {
        version: 8,
        acks: 2,
        transactional_id: Some(&id),
        parts: vec![(&topic, 0, transactional(0)), (&topic, 1, plain())],
    };
    let produced = world.produce(&call);
    assert_eq!((produced[0].error, produced[1].error), (48, 21));

    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(&id),
        parts: vec![
            (&topic, 0, transactional(0)),
            (&topic, 1, transactional(1)),
            (&topic, 2, plain()),
            ("nope", 0, plain()),
        ],
    };
    let errors: Vec<i16> = world
        .client
        .produce(&call)
        .iter()
        .map(|p| p.error)
        .collect();
    assert_eq!(errors, [49; 4]);
}

#[test]
fn x037_a_producer_outlives_all_its_segments() {
    let broker = Broker::start(
        PROGRAM,
        &[
            "log.retention.check.interval.ms=50",
            "producer.id.expiration.ms=86400000",
        ],
    );
    let mut world = World::on(&broker);
    let retention = [("retention.ms", "3600000"), ("segment.bytes", "1048576")];
    world.topic = world.another_topic(1, &retention);
    let a = world.pid();
    for sequence in 0..3 {
        let mut old = Batch::idempotent(a, 0, sequence, 1).with_values(&"v".repeat(600_000));
        old.base_timestamp = now_ms() - 24 * 3_600_000;
        assert_eq!(world.plain(&old), At(sequence.into()));
    }
    let topic = world.topic.clone();
    wait_until("all segments are gone", || {
        world.client.list_offset((7, 0), &topic, 0, -2).1 == 3
    });
    assert_eq!(world.d(a, 0, 9, 1), Code(45));
    let produced = world.produce_bytes(9, false, Batch::idempotent(a, 0, 3, 1).encode());
    assert_eq!((produced.error, produced.base_offset), (0, 3));
    assert_eq!(produced.log_start_offset, 3);
}

/// That neither is answered before the sync is `n1_…` and `p33_…` of tally-shard.
#[test]
fn x034_a_duplicate_of_a_batch_under_way_gets_its_offset() {
    let broker = Broker::start(PROGRAM, &["tally.durability=always"]);
    let mut world = World::on(&broker);
    let a = world.pid();
    let mut others: Vec<_> = (0..4).map(|_| world.another_client()).collect();
    let topic = world.topic.clone();
    for sequence in 0..20 {
        let batch = Batch::idempotent(a, 0, sequence, 1).encode();
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: None,
            parts: vec![(&topic, 0, Some(batch))],
        };
        let sent: Vec<i32> = others
            .iter_mut()
            .map(|client| {
                let request = client.produce_request(&call);
                client.send(call.version, &request)
            })
            .collect();
        for (client, id) in others.iter_mut().zip(sent) {
            let response = client.receive::<ProduceRequest>(call.version, id);
            let part = &response.responses[0].partition_responses[0];
            assert_eq!((part.error_code, part.base_offset), (0, sequence.into()));
        }
    }
    assert_eq!(world.leo(), 20);
}
