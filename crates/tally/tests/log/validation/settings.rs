//! Settings: bounds, lengths, and what changes and descriptions refuse (rows 11.5 and 12).

use super::{
    APPEND, BROKER, GROUP, LOGGER, SUBTRACT, VALUE_BYTES_MAX, change, check, own_id, topic,
    with_config, would,
};
use crate::configs::{SET, TOPIC};
use crate::corner::{Corner, PROGRAM};
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::protocol::StrBytes;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, text, unique};
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::{Connection, frame_of};

/// Property of a topic, values at its bounds, values beyond.
type Bounds = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// Section 12 of the rules: what each setting of a topic may be.
const BOUNDS: &[Bounds] = &[
    (
        "cleanup.policy",
        &["compact", "delete", "compact,delete"],
        &["Compact", "x"],
    ),
    ("compression.gzip.level", &["-1", "1", "9"], &["0", "10"]),
    ("compression.lz4.level", &["1", "17"], &["0", "18"]),
    (
        "compression.zstd.level",
        &["-131072", "22"],
        &["-131073", "23"],
    ),
    ("delete.retention.ms", &["0"], &["-1"]),
    ("file.delete.delay.ms", &["0"], &["-1"]),
    ("flush.messages", &["1"], &["0"]),
    ("flush.ms", &["0"], &["-1"]),
    (
        "follower.replication.throttled.replicas",
        &["*", "0:1,1:1"],
        &["0", "a:1", "0:b"],
    ),
    (
        "index.interval.bytes",
        &["0", "2147483647"],
        &["-1", "2147483648"],
    ),
    (
        "leader.replication.throttled.replicas",
        &["*", "0:1,1:1"],
        &["0", "a:1", "0:b"],
    ),
    ("local.retention.bytes", &["-2"], &["-3"]),
    ("local.retention.ms", &["-2"], &["-3"]),
    (
        "max.compaction.lag.ms",
        &["1", "9223372036854775807"],
        &["0", "9223372036854775808"],
    ),
    (
        "max.message.bytes",
        &["0", "2147483647"],
        &["-1", "2147483648"],
    ),
    ("message.timestamp.after.max.ms", &["0"], &["-1"]),
    ("message.timestamp.before.max.ms", &["0"], &["-1"]),
    (
        "message.timestamp.type",
        &["CreateTime", "LogAppendTime"],
        &["createtime", ""],
    ),
    (
        "min.cleanable.dirty.ratio",
        &["0", "0.5", "1"],
        &["-0.1", "1.1", "x"],
    ),
    ("min.compaction.lag.ms", &["0"], &["-1"]),
    ("min.insync.replicas", &["1"], &["0"]),
    ("preallocate", &["true", "FALSE"], &["yes", "1"]),
    ("remote.storage.enable", &["false"], &["true"]),
    (
        "retention.bytes",
        &["-1", "0", "9223372036854775807"],
        &["x", "1.5"],
    ),
    ("retention.ms", &["-1", "0"], &["-2", "1h"]),
    ("segment.bytes", &["1048576", "2147483647"], &["1048575"]),
    ("segment.index.bytes", &["4"], &["3"]),
    ("segment.jitter.ms", &["0"], &["-1"]),
    ("segment.ms", &["1"], &["0"]),
    ("unclean.leader.election.enable", &["true", "False"], &["1"]),
];

/// Settings that Tally refuses, because it cannot do what they say.
const REFUSED: &[(&str, &str)] = &[
    ("compression.type", "gzip"),
    ("compression.type", "uncompressed"),
    ("remote.log.copy.disable", "true"),
    ("remote.log.delete.on.disable", "true"),
];

#[test]
fn l86_every_setting_of_a_topic_has_its_bounds() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let is_kafka = corner.is_kafka;
    for (key, good, bad) in BOUNDS {
        for value in *good {
            let got = would(&mut corner, (TOPIC, &name), (key, SET, Some(value)));
            assert_eq!(got.0, 0, "{key}={value}: {:?}", got.1);
        }
        for value in *bad {
            let (code, sentence) = would(&mut corner, (TOPIC, &name), (key, SET, Some(value)));
            let named = format!("{key}={value}: ");
            let words = [named.as_str()];
            check(is_kafka, (code, sentence.as_ref()), 40, &words, &named);
            // At creation the same.
            let wanted = with_config(topic(&unique("v"), 1, 1), key, Some(value));
            let request = m::CreateTopicsRequest::default()
                .with_topics(vec![wanted])
                .with_validate_only(true);
            let row = corner.call(7, &request).topics.remove(0);
            let got = (row.error_code, row.error_message.as_ref());
            check(is_kafka, got, 40, &words, &named);
        }
    }
    if is_kafka {
        return;
    }
    for (key, value) in REFUSED {
        let (code, sentence) = would(&mut corner, (TOPIC, &name), (key, SET, Some(value)));
        let words = [*key, *value, "use"];
        let words = if *key == "compression.type" {
            &words[..]
        } else {
            &words[..2]
        };
        check(false, (code, sentence.as_ref()), 40, words, key);
    }
}

/// `count` items for a list of replicas, each of eight characters with its comma.
fn replicas(count: usize) -> String {
    let items: Vec<String> = (0..count).map(|n| format!("{}:1", 10_000 + n)).collect();
    items.join(",")
}

#[test]
fn l86_a_value_has_a_longest_length() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let key = "leader.replication.throttled.replicas";
    let longest = replicas((VALUE_BYTES_MAX + 1) / 8);
    assert_eq!(longest.len(), VALUE_BYTES_MAX);
    let it = (TOPIC, name.as_str());
    let set = change(&mut corner, it, (key, SET, Some(&longest)), false);
    assert_eq!(set.0, 0, "{:?}", set.1);
    let shown = |corner: &mut Corner| {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(&name))
            .with_configuration_keys(Some(vec![text(key)]));
        let request = m::DescribeConfigsRequest::default().with_resources(vec![resource]);
        let configs = corner.call(1, &request).results.remove(0).configs;
        configs[0].value.as_deref().map(str::to_owned)
    };
    wait_until("it is there", || {
        shown(&mut corner).as_ref() == Some(&longest)
    });
    let (code, sentence) = change(&mut corner, it, (key, APPEND, Some("7:7")), false);
    let words: [&str; 3] = [key, "10000:1", "32767"];
    check(
        corner.is_kafka,
        (code, sentence.as_ref()),
        40,
        &words,
        "one more",
    );
    assert!(
        sentence.is_some_and(|sentence| sentence.len() < 300),
        "it is quoted in part"
    );
    assert_eq!(shown(&mut corner), Some(longest), "nothing of it was kept");
    let less = change(
        &mut corner,
        it,
        (key, SUBTRACT, Some("10000:1,10001:1")),
        false,
    );
    assert_eq!(less.0, 0);
    assert_eq!(
        change(&mut corner, it, (key, APPEND, Some("7:7")), false).0,
        0
    );
}

/// Strings of the protocol have no room for more: such a request is none.
#[test]
fn l86_a_longer_value_closes_the_connection() {
    let corner = Corner::new();
    let value = vec![b'x'; VALUE_BYTES_MAX + 1];
    let mut body = BytesMut::new();
    body.put_slice(&[2, 2]); // one resource: a topic
    body.put_slice(&[2, b't', 2]); // its name, one setting
    body.put_slice(&[2, b'k', 0]); // its name, set
    let mut length = value.len() + 1;
    while length > 0x7f {
        body.put_u8(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    body.put_u8(u8::try_from(length).expect("seven bits"));
    body.put_slice(&value);
    body.put_slice(&[0, 0, 0, 0]); // tags, tags, not only checked, tags
    let mut connection = Connection::open(&corner.address);
    connection.send_bytes(&frame_of(44, 1, 2, 7, &body));
    assert_eq!(connection.receive_frame(), None);
}

/// Resource, change, code, words of the sentence. `OWN` stands for the test's topic and for the broker's number, `OTHER` for
/// another broker's.
type Refused = (
    (i8, &'static str),
    (&'static str, i8, Option<&'static str>),
    i16,
    &'static [&'static str],
);

const OWN: &str = "OWN";
const OTHER: &str = "OTHER";
const ONE: Option<&str> = Some("1");
const SESSION: &str = "consumer.session.timeout.ms";

const REFUSED_CHANGES: &[Refused] = &[
    (
        (TOPIC, OWN),
        ("retension.ms", SET, ONE),
        40,
        &["retension.ms", "retention.ms?"],
    ),
    (
        (TOPIC, OWN),
        ("message.format.version", SET, ONE),
        40,
        &["Kafka 4.0 removed it"],
    ),
    (
        (TOPIC, OWN),
        ("retention.ms", SET, None),
        42,
        &["retention.ms", "no value", "delete"],
    ),
    (
        (TOPIC, OWN),
        ("retention.ms", APPEND, ONE),
        40,
        &["retention.ms", "not a list", "set"],
    ),
    (
        (TOPIC, OWN),
        ("cleanup.policy", SUBTRACT, None),
        42,
        &["cleanup.policy", "no value"],
    ),
    (
        (TOPIC, "no-such"),
        ("retention.ms", SET, ONE),
        3,
        &["no-such"],
    ),
    (
        (TOPIC, "a/b"),
        ("retention.ms", SET, ONE),
        17,
        &["a/b", "letters"],
    ),
    (
        (TOPIC, ""),
        ("retention.ms", SET, ONE),
        42,
        &["type 2", "empty"],
    ),
    ((GROUP, ""), (SESSION, SET, ONE), 42, &["type 32", "empty"]),
    (
        (GROUP, "g"),
        ("consumer.sesion.timeout.ms", SET, ONE),
        40,
        &["consumer.session.timeout.ms?"],
    ),
    (
        (GROUP, "g"),
        (SESSION, SET, Some("60001")),
        40,
        &["60001", "group.consumer.max.session.timeout.ms 60000"],
    ),
    (
        (GROUP, "g"),
        ("consumer.heartbeat.interval.ms", SET, Some("4999")),
        40,
        &["4999", "group.consumer.min.heartbeat.interval.ms 5000"],
    ),
    (
        (99, "x"),
        ("a", SET, ONE),
        42,
        &["99", "2 (topic)", "32 (group)"],
    ),
    (
        (BROKER, OWN),
        ("num.partitions", SET, ONE),
        42,
        &["num.partitions", "at start"],
    ),
    (
        (BROKER, OWN),
        ("log.retention.ms", SET, Some("x")),
        42,
        &["log.retention.ms=x", "whole number"],
    ),
    (
        (BROKER, OWN),
        ("log.cleaner.threads", APPEND, ONE),
        40,
        &["log.cleaner.threads", "not a list"],
    ),
    (
        (BROKER, OTHER),
        ("log.retention.ms", SET, ONE),
        42,
        &[OWN, OTHER],
    ),
    (
        (BROKER, "x"),
        ("log.retention.ms", SET, ONE),
        42,
        &["\"x\"", "number", OWN],
    ),
    (
        (LOGGER, OWN),
        ("root", SET, None),
        42,
        &["root", "no value"],
    ),
    (
        (LOGGER, OWN),
        ("root", SET, Some("LOUD")),
        40,
        &["root", "LOUD", "DEBUG"],
    ),
    (
        (LOGGER, OWN),
        ("root", APPEND, Some("WARN")),
        42,
        &["root", "set or deleted"],
    ),
    ((LOGGER, ""), ("root", SET, Some("WARN")), 42, &[OWN]),
];

#[test]
fn l86_a_refused_change_says_why() {
    let mut corner = Corner::new();
    let (topic, me) = (corner.topic.clone(), own_id(&mut corner));
    let (me, other) = (me.to_string(), (me + 98).to_string());
    let is_kafka = corner.is_kafka;
    for ((kind, name), config, code, words) in REFUSED_CHANGES {
        let meant = |word: &'static str| match word {
            OWN if *kind == TOPIC => topic.as_str(),
            OWN => me.as_str(),
            OTHER => other.as_str(),
            word => word,
        };
        let words: Vec<&str> = words.iter().map(|word| meant(word)).collect();
        let (got, sentence) = would(&mut corner, (*kind, meant(name)), *config);
        let why = format!("{kind} {name} {config:?}");
        check(is_kafka, (got, sentence.as_ref()), *code, &words, &why);
    }
    if !is_kafka {
        let none = ("retention.ms", 9, ONE);
        let (got, sentence) = would(&mut corner, (TOPIC, &topic), none);
        let words = ["retention.ms", "9", "0 sets", "3 subtracts"];
        check(
            false,
            (got, sentence.as_ref()),
            42,
            &words,
            "an operation that is none",
        );
    }
}

/// A session that ends before the next heartbeat comes would end at once.
#[test]
fn l86_a_groups_session_is_longer_than_between_its_heartbeats() {
    let bounds = [
        "group.consumer.min.session.timeout.ms=5000",
        "group.consumer.min.heartbeat.interval.ms=5000",
    ];
    let broker = Broker::start(PROGRAM, &bounds);
    let mut client = broker.client();
    let is_kafka = client.is_apache_kafka();
    let (session, heartbeat) = (
        "consumer.session.timeout.ms",
        "consumer.heartbeat.interval.ms",
    );
    let g = (GROUP, "g");
    assert_eq!(would(&mut client, g, (session, SET, Some("5001"))).0, 0);
    let (code, sentence) = would(&mut client, g, (session, SET, Some("5000")));
    let words = [
        "consumer.session.timeout.ms=5000",
        "consumer.heartbeat.interval.ms 5000",
    ];
    check(is_kafka, (code, sentence.as_ref()), 40, &words, "5000");
    assert_eq!(
        change(&mut client, g, (session, SET, Some("6000")), false).0,
        0
    );
    wait_until("it holds", || {
        would(&mut client, g, (heartbeat, SET, Some("6000"))).0 == 40
    });
    assert_eq!(would(&mut client, g, (heartbeat, SET, Some("5999"))).0, 0);
}

/// DescribeConfigs of one resource: its code, its sentence, the names that are shown.
#[track_caller]
fn described(
    client: &mut Client,
    (kind, name): (i8, &str),
    keys: Option<&[&str]>,
) -> (i16, Option<StrBytes>, Vec<String>) {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys);
    let request = m::DescribeConfigsRequest::default().with_resources(vec![resource]);
    let row = client.call(4, &request).results.remove(0);
    let names = row.configs.iter().map(|config| config.name.to_string());
    (row.error_code, row.error_message, names.collect())
}

#[test]
fn l86_what_is_not_there_is_not_described() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let cases: [((i8, &str), i16, &[&str]); 9] = [
        ((TOPIC, "no-such"), 3, &["no-such"]),
        ((TOPIC, "a/b"), 17, &["a/b", "letters"]),
        ((TOPIC, ""), 17, &["choose"]),
        ((BROKER, "12345"), 42, &["12345"]),
        ((BROKER, "x"), 42, &["\"x\"", "number"]),
        ((LOGGER, ""), 42, &["type 8", "empty"]),
        ((GROUP, ""), 42, &["type 32", "empty"]),
        ((0, "x"), 42, &["type 0", "2 (topic)"]),
        ((64, "x"), 42, &["type 64", "2 (topic)"]),
    ];
    for (resource, code, words) in cases {
        let (got, sentence, shown) = described(&mut corner, resource, None);
        let why = format!("{resource:?}");
        check(corner.is_kafka, (got, sentence.as_ref()), code, words, &why);
        assert!(shown.is_empty());
    }
    let keys = ["retention.ms", "no.such", "retention.ms", "cleanup.policy"];
    let (code, _, mut shown) = described(&mut corner, (TOPIC, &name), Some(&keys));
    shown.sort();
    assert_eq!(
        (code, shown),
        (0, vec![keys[3].to_owned(), keys[0].to_owned()])
    );
    let (code, _, shown) = described(&mut corner, (TOPIC, &name), Some(&[]));
    assert_eq!((code, shown.len() > 20), (0, true), "no keys are all");
}
