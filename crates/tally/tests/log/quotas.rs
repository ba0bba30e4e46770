//! Quotas (log-and-fetch.md section 14.2): set and shown over the wire, kept over a restart, and kept to by producers and
//! consumers. The same of Apache Kafka, but for what a test says.

use crate::corner::{Corner, PROGRAM};
use bytes::Bytes;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, ApiVersionsRequest, DescribeClientQuotasRequest, FetchRequest,
    FetchResponse, ProduceRequest,
};
use std::time::{Duration, Instant};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, FetchCall, ProduceCall, text, unique};
use tally_testkit::waiting::{DEADLINE, wait_until};

const POLICY_VIOLATION: i16 = 44;
const INVALID_REQUEST: i16 = 42;

/// With two windows of a second, half of them free: what is waited for is short.
const SHORT_WINDOWS: &str = "quota.window.num=2";
/// Bytes a second, and what is free at once with those windows.
const LIMIT: f64 = 500_000.0;

/// `TYPE`, a name or the default.
type Part<'a> = (&'a str, Option<&'a str>);

/// The clients without a quota of their own.
const OTHERS: Part<'_> = ("client-id", None);

fn entry(parts: &[Part<'_>], quotas: &[(&str, Option<f64>)]) -> EntryData {
    let entity = parts.iter().map(|(kind, name)| {
        EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.map(text))
    });
    let ops = quotas.iter().map(|(key, value)| {
        OpData::default()
            .with_key(text(key))
            .with_value(value.unwrap_or_default())
            .with_remove(value.is_none())
    });
    EntryData::default()
        .with_entity(entity.collect())
        .with_ops(ops.collect())
}

/// The code of each entry; Kafka answers in another order.
fn alter(client: &mut Client, version: i16, entries: Vec<EntryData>) -> Vec<i16> {
    let request = AlterClientQuotasRequest::default().with_entries(entries);
    let response = client.call(version, &request);
    let of = |asked: &EntryData| {
        let mut rows = response.entries.iter();
        let row = rows.find(|row| {
            let mut parts = row.entity.iter();
            row.entity.len() == asked.entity.len()
                && parts.all(|part| {
                    let mut asked = asked.entity.iter();
                    asked.any(|asked| {
                        (&asked.entity_type, &asked.entity_name)
                            == (&part.entity_type, &part.entity_name)
                    })
                })
        });
        row.expect("each entity is answered").error_code
    };
    request.entries.iter().map(of).collect()
}

/// Quotas of the entities that have these parts: entity and quotas in words.
fn shown(client: &mut Client, version: i16, parts: &[Part<'_>], strict: bool) -> Vec<String> {
    let components = parts.iter().map(|(kind, name)| {
        let component = ComponentData::default()
            .with_entity_type(text(kind))
            .with_match(None);
        match name {
            Some("*") => component.with_match_type(2),
            Some(name) => component.with_match_type(0).with_match(Some(text(name))),
            None => component.with_match_type(1),
        }
    });
    let request = DescribeClientQuotasRequest::default()
        .with_components(components.collect())
        .with_strict(strict);
    let response = client.call(version, &request);
    assert_eq!((response.error_code, response.throttle_time_ms), (0, 0));
    let entries = response.entries.expect("no error, so there are entries");
    let mut rows: Vec<String> = entries
        .iter()
        .map(|entry| {
            let mut words: Vec<String> = entry
                .entity
                .iter()
                .map(|part| format!("{} {:?}", part.entity_type, part.entity_name.as_deref()))
                .collect();
            words.sort();
            let mut values: Vec<String> = entry
                .values
                .iter()
                .map(|value| format!("{}={}", value.key, value.value))
                .collect();
            values.sort();
            format!("{} {}", words.join(" "), values.join(" "))
        })
        .collect();
    rows.sort();
    rows
}

/// Sets one quota of a client id and waits until it is seen.
fn limit(client: &mut Client, client_id: &str, quota: &str, value: f64) {
    let of_client = [("client-id", Some(client_id))];
    let entry = entry(&of_client, &[(quota, Some(value))]);
    assert_eq!(alter(client, 1, vec![entry]), [0]);
    wait_until("the quota", || {
        shown(client, 1, &of_client, true).len() == 1
    });
}

fn batch(bytes: usize) -> Bytes {
    Batch::plain(1).with_values(&"x".repeat(bytes)).encode()
}

fn produce_request(client: &mut Client, topic: &str, acks: i16, bytes: usize) -> ProduceRequest {
    client.produce_request(&ProduceCall {
        version: 9,
        acks,
        transactional_id: None,
        parts: vec![(topic, 0, Some(batch(bytes)))],
    })
}

/// The throttle time of one batch.
#[track_caller]
fn produce(client: &mut Client, topic: &str, bytes: usize) -> u64 {
    let request = produce_request(client, topic, -1, bytes);
    let response = client.call(9, &request);
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0);
    u64::try_from(response.throttle_time_ms).expect("0 or more")
}

#[track_caller]
fn assert_waited(since: Instant, throttle_ms: u64) {
    let (waited, told) = (since.elapsed(), Duration::from_millis(throttle_ms));
    assert!(
        waited + Duration::from_millis(20) >= told,
        "{waited:?} of {told:?}"
    );
}

/// A user with quotas of its own, of one client and of all its other clients.
fn user_with_quotas(client: &mut Client, user: Part<'_>, of_client: Part<'_>) {
    let producer = [
        ("producer_byte_rate", Some(1e6)),
        ("request_percentage", Some(12.5)),
    ];
    let own = [
        ("consumer_byte_rate", Some(2e6)),
        ("controller_mutation_rate", Some(0.5)),
    ];
    let entries = vec![
        entry(&[user, of_client], &producer),
        entry(&[user], &own),
        entry(&[user, OTHERS], &[("consumer_byte_rate", Some(3e6))]),
        entry(&[("user", None), of_client], &[("galaxy", None)]),
    ];
    assert_eq!(alter(client, 1, entries), [0; 4]);
    wait_until("three entities", || {
        shown(client, 0, &[user], false).len() == 3
    });
}

#[test]
fn lr165_quotas_are_shown_as_they_were_set() {
    let mut corner = Corner::new();
    let (u, c) = (unique("user"), unique("client"));
    let (user, client) = (("user", Some(u.as_str())), ("client-id", Some(c.as_str())));
    user_with_quotas(&mut corner, user, client);
    let of_both = format!(
        "client-id Some({c:?}) user Some({u:?}) producer_byte_rate=1000000 request_percentage=12.5"
    );
    let of_user =
        format!("user Some({u:?}) consumer_byte_rate=2000000 controller_mutation_rate=0.5");
    let of_others = format!("client-id None user Some({u:?}) consumer_byte_rate=3000000");
    let any_client = ("client-id", Some("*"));
    let cases: [(&[Part<'_>], bool, &[&String]); 6] = [
        (&[user], true, &[&of_user]),
        (&[user, client], false, &[&of_both]),
        (&[user, OTHERS], true, &[&of_others]),
        (&[user, any_client], false, &[&of_others, &of_both]),
        (&[client], true, &[]),
        (&[("user", None), client], true, &[]),
    ];
    for (filter, strict, expected) in cases {
        for version in 0..=1 {
            let rows = shown(&mut corner, version, filter, strict);
            assert_eq!(rows.iter().collect::<Vec<_>>(), expected, "{filter:?}");
        }
    }
}

#[test]
fn lr165_with_its_last_quota_an_entity_is_gone() {
    let mut corner = Corner::new();
    let (u, c) = (unique("user"), unique("client"));
    let (user, client) = (("user", Some(u.as_str())), ("client-id", Some(c.as_str())));
    user_with_quotas(&mut corner, user, client);
    let own = [
        ("consumer_byte_rate", None),
        ("controller_mutation_rate", None),
    ];
    let away = vec![
        entry(&[user, client], &[("producer_byte_rate", None)]),
        entry(&[user], &own),
        entry(&[user, OTHERS], &[("consumer_byte_rate", None)]),
    ];
    assert_eq!(alter(&mut corner, 0, away), [0; 3]);
    let left = format!("client-id Some({c:?}) user Some({u:?}) request_percentage=12.5");
    wait_until("one quota", || {
        shown(&mut corner, 1, &[user], false) == [left.as_str()]
    });
    let last = entry(&[user, client], &[("request_percentage", None)]);
    assert_eq!(alter(&mut corner, 1, vec![last]), [0]);
    wait_until("no quota", || {
        shown(&mut corner, 1, &[user], false).is_empty()
    });
}

#[test]
fn lr165_of_a_change_that_makes_no_sense_nothing_is_kept() {
    let mut corner = Corner::new();
    let name = unique("user");
    let user = [("user", Some(name.as_str()))];
    let rate = |value: f64| entry(&user, &[("producer_byte_rate", Some(value))]);
    let good = ("consumer_byte_rate", Some(1e6));
    let mut wrong = vec![
        rate(0.0),
        rate(-1.0),
        rate(0.5),
        rate(1e19),
        entry(&user, &[good, ("producer_bite_rate", Some(1.0))]),
        entry(&user, &[good, ("connection_creation_rate", Some(1.0))]),
        entry(&user, &[good, good]),
        entry(&[("user", Some(""))], &[good]),
        entry(&[("ip", Some("127.0.0.1"))], &[good]),
        entry(&[("ip", None), ("user", None)], &[good]),
    ];
    if !corner.is_kafka {
        // Kafka keeps what is no number, looks names of hosts up, and keeps one of two parts of the same type.
        wrong.extend([
            rate(f64::NAN),
            entry(&user, &[("request_percentage", Some(f64::INFINITY))]),
            entry(&[("user", Some(&"u".repeat(1025)))], &[good]),
            entry(
                &[("ip", Some("localhost"))],
                &[("connection_creation_rate", Some(1.0))],
            ),
            entry(&[user[0], user[0]], &[good]),
        ]);
    }
    for entry in wrong {
        // One entry does not stop another.
        let fine = entry_of_nobody();
        let codes = alter(&mut corner, 1, vec![entry.clone(), fine]);
        assert_eq!(codes, [INVALID_REQUEST, 0], "{entry:?}");
    }
    let checked = AlterClientQuotasRequest::default()
        .with_entries(vec![rate(1e6)])
        .with_validate_only(true);
    assert_eq!(corner.call(1, &checked).entries[0].error_code, 0);
    if !corner.is_kafka {
        // Kafka changes what comes first, and answers with one row.
        let twice = vec![rate(1e6), entry(&user, &[good])];
        assert_eq!(alter(&mut corner, 1, twice), [INVALID_REQUEST; 2]);
    }
    assert!(shown(&mut corner, 1, &user, false).is_empty());
}

fn entry_of_nobody() -> EntryData {
    entry(
        &[("client-id", Some("nobody-of-this-name"))],
        &[("producer_byte_rate", None)],
    )
}

#[test]
fn lr165_the_metadata_stays_small() {
    if tally_testkit::broker::is_reference() {
        // Kafka has no such bound.
        return;
    }
    let broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    let names: Vec<String> = (0..1001).map(|number| format!("u{number}")).collect();
    let entries = names.iter().map(|name| {
        let user = [("user", Some(name.as_str()))];
        entry(&user, &[("request_percentage", Some(1.0))])
    });
    let codes = alter(&mut client, 1, entries.collect());
    assert!(codes[..1000].iter().all(|code| *code == 0));
    assert_eq!(codes[1000], POLICY_VIOLATION);
    let users = [("user", Some("*"))];
    assert_eq!(shown(&mut client, 1, &users, true).len(), 1000);
}

#[test]
fn l97_lr161_a_producer_above_its_rate_waits_and_others_do_not() {
    let broker = Broker::start(PROGRAM, &[SHORT_WINDOWS]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let id = unique("slow");
    limit(&mut corner, &id, "producer_byte_rate", LIMIT);
    let topic = corner.topic.clone();
    let mut slow = corner.another_client();
    slow.set_client_id(&id);
    let mut sibling = corner.another_client();
    sibling.set_client_id(&id);
    assert_eq!(produce(&mut slow, &topic, 400_000), 0);
    let asked = Instant::now();
    let throttle_ms = produce(&mut slow, &topic, 800_000);
    // 1,200,000 bytes and the requests' own in a second, of which 500,000 are allowed. The later the second request comes, the
    // less is left of the wait, until the first one counts no more.
    assert!((400..=1450).contains(&throttle_ms), "{throttle_ms}");
    let mut written = 2;
    wait_until("one rate for both", || {
        written += 1;
        let is_one = produce(&mut sibling, &topic, 1000) > 0;
        if !is_one {
            // Too late: the rate was back within its limit before.
            written += 1;
            produce(&mut slow, &topic, 800_000);
        }
        is_one
    });
    assert_eq!(
        produce(&mut corner, &topic, 900_000),
        0,
        "another client id"
    );
    // Whatever it asks, it is not read until then.
    slow.call(0, &ApiVersionsRequest::default());
    assert_waited(asked, throttle_ms);

    // Nobody hears of a throttle time without an answer, and it holds all the same.
    let silent = produce_request(&mut slow, &topic, 0, 900_000);
    let sent = Instant::now();
    slow.send(9, &silent);
    slow.call(0, &ApiVersionsRequest::default());
    assert_waited(sent, 300);
    assert_eq!(slow.latest(&topic, 0), written + 2);
}

/// Bytes a second over a while, of one who sends as fast as it is read.
#[track_caller]
fn rate(client: &mut Client, topic: &str) -> f64 {
    // The burst that is free is over when it is throttled.
    let start = loop {
        let asked = Instant::now();
        if produce(client, topic, 50_000) > 0 {
            break asked;
        }
    };
    let mut bytes = 0.0;
    while start.elapsed() < Duration::from_secs(3) {
        produce(client, topic, 50_000);
        bytes += 50_000.0;
    }
    bytes / start.elapsed().as_secs_f64()
}

#[test]
fn l97_a_producers_rate_is_what_its_quota_says() {
    let broker = Broker::start(PROGRAM, &[SHORT_WINDOWS]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let id = unique("steady");
    limit(&mut corner, &id, "producer_byte_rate", LIMIT);
    let topic = corner.topic.clone();
    corner.set_client_id(&id);
    // Never more than a tenth above it. Less where a machine that others use does not run this: not time after time.
    wait_until("more than half of the rate", || {
        let rate = rate(&mut corner, &topic);
        assert!(rate < 1.1 * LIMIT, "{rate}");
        rate > 0.5 * LIMIT
    });
}

/// A request of a session: its first one with an epoch of 0.
fn fetch(client: &mut Client, topic: &str, session: (i32, i32), offset: i64) -> FetchResponse {
    let call = FetchCall::of(topic, 0, offset, 0);
    let request: FetchRequest = client
        .fetch_request(&call)
        .with_session_id(session.0)
        .with_session_epoch(session.1);
    client.call(call.version, &request)
}

#[test]
fn l97_lr162_a_consumer_above_its_rate_gets_nothing_and_keeps_its_session() {
    let broker = Broker::start(PROGRAM, &[SHORT_WINDOWS]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let topic = corner.topic.clone();
    for _ in 0..6 {
        produce(&mut corner, &topic, 200_000);
    }
    let id = unique("slow");
    limit(&mut corner, &id, "consumer_byte_rate", LIMIT);
    let mut slow = corner.another_client();
    slow.set_client_id(&id);
    // LR-103: no more than the windows allow.
    let begun = Instant::now();
    let first = fetch(&mut slow, &topic, (0, 0), 0);
    assert_eq!((first.error_code, first.throttle_time_ms), (0, 0));
    let session = first.session_id;
    assert!(session > 0);
    let got = slow.fetched(12, &first, &topic, 0).data_offsets();
    assert_eq!(got, [0, 1]);

    let (mut epoch, mut offset, mut end) = (1, 2_i32, 6_i32);
    let (asked, nothing) = loop {
        let asked = Instant::now();
        let some = fetch(&mut slow, &topic, (session, epoch), i64::from(offset));
        epoch += 1;
        if some.throttle_time_ms > 0 {
            break (asked, some);
        }
        // So late that it is within its rate; there is always more than it may have.
        let got = slow.fetched(12, &some, &topic, 0).data_offsets();
        for _ in got {
            (offset, end) = (offset + 1, end + 1);
            produce(&mut corner, &topic, 200_000);
        }
        let bytes = 200_000.0 * f64::from(offset);
        let rate = bytes / (1.0 + begun.elapsed().as_secs_f64());
        assert!(rate < 1.01 * LIMIT, "{rate}");
    };
    let throttle_ms = u64::try_from(nothing.throttle_time_ms).unwrap();
    assert!(nothing.responses.is_empty());
    assert_eq!((nothing.error_code, nothing.session_id), (0, session));
    let free = corner.read_uncommitted(&topic, 0, 0);
    let all: Vec<i64> = (0..i64::from(end)).collect();
    assert_eq!(free.data_offsets(), all, "another client id");

    let mut is_next = true;
    while offset < end {
        assert!(asked.elapsed() < DEADLINE, "nothing more comes");
        let some = fetch(&mut slow, &topic, (session, epoch), i64::from(offset));
        if std::mem::take(&mut is_next) {
            assert_waited(asked, throttle_ms);
        }
        assert_eq!((some.error_code, some.session_id), (0, session));
        epoch += 1;
        if some.throttle_time_ms > 0 {
            assert!(some.responses.is_empty());
            continue;
        }
        let got = slow.fetched(12, &some, &topic, 0).data_offsets();
        assert_eq!(got.first(), Some(&i64::from(offset)));
        offset += i32::try_from(got.len()).unwrap();
    }
}

#[test]
fn lr162_a_fetch_of_everything_that_is_too_much_opens_no_session() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let id = unique("slow");
    limit(&mut corner, &id, "consumer_byte_rate", 1000.0);
    // Ten seconds' worth are free: the second one would be within the rate eight seconds later.
    produce(&mut corner, &topic, 9000);
    let mut slow = corner.another_client();
    slow.set_client_id(&id);
    let first = fetch(&mut slow, &topic, (0, 0), 0);
    assert!(first.throttle_time_ms == 0 && first.session_id > 0);
    let all = fetch(&mut slow, &topic, (0, 0), 0);
    assert!(all.throttle_time_ms > 0 && all.responses.is_empty());
    assert_eq!((all.error_code, all.session_id), (0, 0));
}

/// Kafka answers such a consumer with nothing for ever.
#[test]
fn lr162_a_batch_above_all_windows_comes_once_they_are_empty() {
    let mut corner = Corner::new();
    if corner.is_kafka {
        return;
    }
    let topic = corner.topic.clone();
    produce(&mut corner, &topic, 100_000);
    let id = unique("tiny");
    limit(&mut corner, &id, "consumer_byte_rate", 1000.0);
    let mut slow = corner.another_client();
    slow.set_client_id(&id);
    let first = fetch(&mut slow, &topic, (0, -1), 0);
    assert_eq!(slow.fetched(12, &first, &topic, 0).data_offsets(), [0]);
    let second = fetch(&mut slow, &topic, (0, -1), 0);
    assert!(second.throttle_time_ms > 100_000 && second.responses.is_empty());
}

#[test]
fn lr161_quotas_hold_after_a_kill_and_until_they_are_taken_away() {
    let mut broker = Broker::start(PROGRAM, &[SHORT_WINDOWS]);
    let id = unique("slow");
    let topic = {
        let mut corner = Corner::at(broker.address(), 1, &[]);
        limit(&mut corner, &id, "producer_byte_rate", LIMIT);
        corner.topic.clone()
    };
    broker.kill_and_start();
    let of_client = [("client-id", Some(id.as_str()))];
    let mut client = broker.client();
    wait_until("the quota and the topic", || {
        shown(&mut client, 1, &of_client, true).len() == 1 && client.topic(&topic).error_code == 0
    });
    client.set_client_id(&id);
    wait_until("a producer above its rate", || {
        produce(&mut client, &topic, 200_000) > 0
    });
    let mut other = broker.client();
    let away = entry(&of_client, &[("producer_byte_rate", None)]);
    assert_eq!(alter(&mut other, 1, vec![away]), [0]);
    wait_until("no quota", || {
        shown(&mut other, 1, &of_client, true).is_empty()
    });
    for _ in 0..4 {
        assert_eq!(produce(&mut client, &topic, 300_000), 0);
    }
}

#[test]
fn lr156_a_connection_that_waits_for_longer_than_it_may_be_idle_is_closed() {
    let settings = [SHORT_WINDOWS, "connections.max.idle.ms=2000"];
    let broker = Broker::start(PROGRAM, &settings);
    let (id, topic) = (unique("slow"), unique("l"));
    let mut client = broker.client();
    client.create_topic(&topic, 1, &[]);
    limit(&mut client, &id, "producer_byte_rate", 1000.0);
    let mut slow = broker.client();
    slow.set_client_id(&id);
    assert!(produce(&mut slow, &topic, 100_000) > 10_000);
    assert!(slow.try_call(0, &ApiVersionsRequest::default()).is_none());
}
