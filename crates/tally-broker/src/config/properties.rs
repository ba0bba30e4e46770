//! The one table of properties: every name that `--set`, CreateTopics or DescribeConfigs may carry.
//!
//! Owns names, defaults, ranges, synonyms, status and texts; help, docs/configuration.md, DescribeConfigs, validation and
//! the warnings at start are made from it. Invariant: no property is read anywhere that has no row here.
//!
//! Names and defaults are those of Apache Kafka 4.3.1; what differs says so in its text. Not here: what a value does.

use super::property::Range::{self, Any, Between, OneOf, Ratio, SomeOf};
use super::property::{Kind, Property, Status, closest};

const fn at_least(min: i64) -> Range {
    Between(min, i64::MAX)
}

/// A macro may have no default to put into the table: the first of none is none.
const fn first(values: &[&'static str]) -> Option<&'static str> {
    if values.is_empty() {
        None
    } else {
        Some(values[0])
    }
}

macro_rules! status {
    (honoured) => {
        Status::Honoured
    };
    (not_yet) => {
        Status::NotYet
    };
    (ignored) => {
        Status::Ignored
    };
}

/// A row: name, kind, `=` default where there is one, `<-` the broker's properties it takes its default from,
/// range, status and text.
macro_rules! properties {
    ($($name:literal: $kind:ident $(= $default:literal)? $(<- [$($synonym:literal),*])?, $range:expr, $status:ident; $text:literal)*) => {
        &[$(Property {
            name: $name,
            kind: Kind::$kind,
            default: first(&[$($default)?]),
            range: $range,
            synonyms: &[$($($synonym),*)?],
            status: status!($status),
            text: $text,
        }),*]
    };
}

/// The row of a broker's property, by its exact name or by the prefix that stands for it.
#[must_use]
pub fn broker_property(name: &str) -> Option<&'static Property> {
    BROKER.iter().find(|row| match row.name.strip_suffix('*') {
        Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
        None => row.name == name,
    })
}

/// The row of a topic's property.
#[must_use]
pub fn topic_property(name: &str) -> Option<&'static Property> {
    TOPIC.iter().find(|row| row.name == name)
}

/// The broker's property that a misspelt name probably means.
#[must_use]
pub fn similar_broker_property(name: &str) -> Option<&'static str> {
    closest(name, BROKER.iter().map(|row| row.name))
}

/// The topic's property that a misspelt name probably means.
#[must_use]
pub fn similar_topic_property(name: &str) -> Option<&'static str> {
    closest(name, TOPIC.iter().map(|row| row.name))
}

/// Other names under which a broker's property may be set, with the name they mean.
pub const ALIASES: &[(&str, &str)] = &[
    ("broker.id", "node.id"),
    ("log.dir", "log.dirs"),
    ("segment.bytes", "log.segment.bytes"),
];

/// Tally's own properties, then Kafka's, both by name.
pub const BROKER: &[Property] = properties! {
    "tally.audit.enable": Boolean = "false", Any, not_yet; "Whether one record per finished transaction is written to an audit topic."
    "tally.audit.retention.ms": Long = "604800000", at_least(-1), not_yet; "How long audit records are kept, in milliseconds."
    "tally.clamp.replication.factor": Boolean = "false", Any, honoured; "Accept a replication factor above the number of brokers as that number, instead of refusing it."
    "tally.cluster.id": String, Any, honoured; "Id of the cluster that a new data directory gets; one is made up (22 characters of base64url) when none is given. Data of another cluster is refused."
    "tally.durability": String = "os", OneOf(&["os", "commit", "always", "memory"]), honoured; "What an answer survives. `os`: kill -9, not power loss. `commit`: also power loss, for what transactions, offset commits and InitProducerId decide, with the data that they decide over. `always`: power loss. `memory`: nothing, all data is gone when the broker ends."
    "tally.faults.enable": Boolean = "false", Any, not_yet; "Whether faults may be injected to test an application."
    "tally.guard.ordered.sessions": Boolean = "true", Any, honoured; "Whether a transactional request of the old protocol is dropped, and its connection closed, when it comes on an older connection than one its producer has used for the same kind of request since: it was delayed, and could end or join a later transaction."
    "tally.http.auth": String = "", Any, not_yet; "Who may use the HTTP port: none, token or mtls."
    "tally.http.listeners": String = "off", Any, honoured; "HOST:PORT for /livez, /readyz and /startupz, or off."
    "tally.journal.bytes": Long = "134217728", Between(1048576, 68719476736), honoured; "Bytes of disk space for the journal of `tally.durability` `commit` and `always`, taken and written when a start first needs it. A half of it is as much as can be under way between two checkpoints."
    "tally.memory.limit": Long = "-1", at_least(-1), not_yet; "Most bytes of memory to use; -1 is no limit."
    "tally.metrics.partitions": Boolean = "false", Any, not_yet; "Whether metrics have a series per partition."
    "tally.produce.validation": String = "full", OneOf(&["full", "header"]), honoured; "How closely a record batch is looked at. `full`: as Kafka does, compressed batches included. `header` is not built yet and is refused."
    "tally.shards": Int = "0", Between(0, 1024), honoured; "Shards that the partitions are spread over; 0 chooses by the number of cores."
    "tally.transaction.monitor.interval.ms": Long = "60000", at_least(1), honoured; "How often open transactions are looked at: those open for longer than any timeout are logged, and those that no coordinator holds are aborted at the second look. Milliseconds."
    "tally.transaction.monitor.late.ms": Long = "300000", at_least(0), honoured; "An open transaction is logged as late (W2108) when it has been open for so much longer than transaction.max.timeout.ms. Milliseconds."
    "tally.transaction.version": Short = "2", Between(0, 2), honoured; "Level of the finalized feature transaction.version: 2 lets new clients use the transaction protocol of KIP-890, 0 and 1 do not. What UpdateFeatures has set is stronger."
    "add.partitions.to.txn.retry.backoff.max.ms": Int = "100", at_least(0), ignored; "Tally adds partitions to a transaction without a round trip between brokers."
    "add.partitions.to.txn.retry.backoff.ms": Int = "20", at_least(1), ignored; "Tally adds partitions to a transaction without a round trip between brokers."
    "advertised.listeners": List, Any, honoured; "What clients are told to connect to; the listener itself when not given, this host's name when that is a wildcard address."
    "alter.config.policy.class.name": Class, Any, ignored; "Policies are Java classes, which Tally cannot load."
    "alter.log.dirs.replication.quota.window.num": Int = "11", at_least(1), ignored; "For replication between Kafka brokers, which Tally does not have."
    "alter.log.dirs.replication.quota.window.size.seconds": Int = "1", at_least(1), ignored; "For replication between Kafka brokers, which Tally does not have."
    "authorizer.class.name": String = "", Any, not_yet; "Class of the authorizer. Access control is not built yet, so anything but an empty value is refused."
    "auto.create.topics.enable": Boolean = "true", Any, honoured; "Whether a Metadata request may create the topics it names."
    "auto.leader.rebalance.enable": Boolean = "true", Any, ignored; "One broker leads everything."
    "background.threads": Int = "10", at_least(1), ignored; "Tally sizes its threads by the number of cores."
    "broker.heartbeat.interval.ms": Int = "2000", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "broker.id": Int, Any, honoured; "Old name of node.id."
    "broker.rack": String, Any, not_yet; "Rack of this broker, which clients see."
    "broker.session.timeout.ms": Int = "9000", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "client.quota.callback.class": Class, Any, ignored; "A Java class, which Tally cannot load."
    "compression.gzip.level": Int = "-1", OneOf(&["-1", "1", "2", "3", "4", "5", "6", "7", "8", "9"]), not_yet; "Level of gzip when the broker recompresses, which is not built yet."
    "compression.lz4.level": Int = "9", Between(1, 17), not_yet; "Level of lz4 when the broker recompresses, which is not built yet."
    "compression.type": String = "producer", OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), honoured; "Only `producer` (keep what the producer chose) is built; anything else would need recompression and is refused."
    "compression.zstd.level": Int = "3", Between(-131072, 22), not_yet; "Level of zstd when the broker recompresses, which is not built yet."
    "config.providers": List = "", Any, ignored; "Java classes, which Tally cannot load."
    "connection.failed.authentication.delay.ms": Int = "100", at_least(0), not_yet; "Delay of the answer to a failed authentication, in milliseconds."
    "connections.max.idle.ms": Long = "600000", Any, honoured; "A connection without traffic and without a waiting request is closed after this many milliseconds."
    "connections.max.reauth.ms": Long = "0", Any, not_yet; "How long a SASL session lasts before it must authenticate again, in milliseconds."
    "controlled.shutdown.enable": Boolean = "true", Any, ignored; "Tally always stops in order."
    "controller.listener.names": List, Any, ignored; "Tally has no controller listeners."
    "controller.performance.always.log.threshold.ms": Long = "2000", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.performance.sample.period.ms": Long = "60000", at_least(100), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.append.linger.ms": Int = "25", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.auto.join.enable": Boolean = "false", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.bootstrap.servers": List = "", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.election.backoff.max.ms": Int = "1000", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.election.timeout.ms": Int = "1000", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.fetch.max.bytes": Int = "1048576", at_least(1), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.fetch.snapshot.max.bytes": Int = "1048576", at_least(1), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.fetch.timeout.ms": Int = "2000", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.request.timeout.ms": Int = "2000", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.retry.backoff.ms": Int = "20", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quorum.voters": List = "", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "controller.quota.window.num": Int = "11", at_least(1), not_yet; "Windows over which the rate of topic changes is measured."
    "controller.quota.window.size.seconds": Int = "1", at_least(1), not_yet; "Length of such a window, in seconds."
    "controller.socket.timeout.ms": Int = "30000", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "cordoned.log.dirs": List = "", Any, ignored; "There is one data directory."
    "create.topic.policy.class.name": Class, Any, ignored; "Policies are Java classes, which Tally cannot load."
    "default.replication.factor": Int = "1", at_least(1), honoured; "Replication factor of a topic that is created without one. One broker can only give 1."
    "delegation.token.expiry.check.interval.ms": Long = "3600000", at_least(1), not_yet; "For delegation tokens, which are not built."
    "delegation.token.expiry.time.ms": Long = "86400000", at_least(1), not_yet; "For delegation tokens, which are not built."
    "delegation.token.max.lifetime.ms": Long = "604800000", at_least(1), not_yet; "For delegation tokens, which are not built."
    "delegation.token.secret.key": Password, Any, not_yet; "For delegation tokens, which are not built."
    "delete.records.purgatory.purge.interval.requests": Int = "1", Any, ignored; "Tally drops a waiting request the moment it ends."
    "delete.topic.enable": Boolean = "true", Any, honoured; "Whether DeleteTopics is allowed."
    "early.start.listeners": List, Any, ignored; "All listeners start together."
    "fetch.max.bytes": Int = "57671680", at_least(1024), honoured; "Most bytes in one Fetch response, whatever the request asks for (the first batch is always whole)."
    "fetch.purgatory.purge.interval.requests": Int = "1000", Any, ignored; "Tally drops a waiting request the moment it ends."
    "follower.fetch.last.tiered.offset.enable": Boolean = "false", Any, ignored; "For tiered storage, which Tally does not have."
    "follower.replication.throttled.rate": Long, at_least(0), ignored; "For replication between Kafka brokers, which Tally does not have."
    "group.consumer.assignment.interval.ms": Int = "1000", at_least(0), honoured; "Shortest time between two assignments of a consumer group, in milliseconds."
    "group.consumer.assignors": List = "uniform,range", SomeOf(&["uniform", "range"]), honoured; "Assignors that members of consumer groups may ask for; the first is for groups whose members ask for none."
    "group.consumer.heartbeat.interval.ms": Int = "5000", at_least(1), honoured; "How often members of consumer groups report, in milliseconds."
    "group.consumer.max.assignment.interval.ms": Int = "15000", at_least(0), honoured; "Longest time between two assignments that a group may ask for, in milliseconds."
    "group.consumer.max.heartbeat.interval.ms": Int = "15000", at_least(1), honoured; "Longest interval of heartbeats that a group may ask for, in milliseconds."
    "group.consumer.max.session.timeout.ms": Int = "60000", at_least(1), honoured; "Longest session timeout that a consumer group may ask for, in milliseconds."
    "group.consumer.max.size": Int = "2147483647", at_least(1), honoured; "Most members of a consumer group."
    "group.consumer.migration.policy": String = "bidirectional", OneOf(&["bidirectional", "disabled", "downgrade", "upgrade"]), honoured; "Whether a group with members may change between the classic and the consumer protocol: bidirectional, upgrade, downgrade or disabled."
    "group.consumer.min.assignment.interval.ms": Int = "0", at_least(0), honoured; "Shortest time between two assignments that a group may ask for, in milliseconds."
    "group.consumer.min.heartbeat.interval.ms": Int = "5000", at_least(1), honoured; "Shortest interval of heartbeats that a group may ask for, in milliseconds."
    "group.consumer.min.session.timeout.ms": Int = "45000", at_least(1), honoured; "Shortest session timeout that a consumer group may ask for, in milliseconds."
    "group.consumer.regex.refresh.interval.ms": Int = "600000", at_least(10000), ignored; "Tally looks the topics of regular expressions up again whenever topics have changed."
    "group.consumer.session.timeout.ms": Int = "45000", at_least(1), honoured; "When a silent member of a consumer group is taken for gone, in milliseconds."
    "group.coordinator.append.linger.ms": Int = "-1", at_least(-1), ignored; "Tally's group coordinator has neither threads nor batches to tune."
    "group.coordinator.background.threads": Int = "2", at_least(1), ignored; "Tally's group coordinator has neither threads nor batches to tune."
    "group.coordinator.cached.buffer.max.bytes": Int = "1048588", at_least(524288), ignored; "Tally's group coordinator has neither threads nor batches to tune."
    "group.coordinator.rebalance.protocols": List = "classic,consumer,streams", SomeOf(&["consumer", "classic", "share", "streams"]), ignored; "Tally's group coordinator has neither threads nor batches to tune."
    "group.coordinator.threads": Int = "4", at_least(1), ignored; "Tally's group coordinator has neither threads nor batches to tune."
    "group.initial.rebalance.delay.ms": Int = "3000", at_least(0), honoured; "How long the first rebalance of an empty group waits for more members, in milliseconds."
    "group.max.session.timeout.ms": Int = "1800000", Any, honoured; "Longest session timeout of a group member, in milliseconds."
    "group.max.size": Int = "2147483647", at_least(1), honoured; "Most members of a group."
    "group.min.session.timeout.ms": Int = "6000", Any, honoured; "Shortest session timeout of a group member, in milliseconds."
    "group.share.assignment.interval.ms": Int = "1000", at_least(0), ignored; "For share groups, which Tally does not have."
    "group.share.assignors": List = "simple", Any, ignored; "For share groups, which Tally does not have."
    "group.share.delivery.count.limit": Int = "5", Between(2, 10), ignored; "For share groups, which Tally does not have."
    "group.share.heartbeat.interval.ms": Int = "5000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.share.initialize.retry.interval.ms": Int = "30000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.share.max.assignment.interval.ms": Int = "15000", at_least(0), ignored; "For share groups, which Tally does not have."
    "group.share.max.delivery.count.limit": Int = "10", Between(5, 25), ignored; "For share groups, which Tally does not have."
    "group.share.max.heartbeat.interval.ms": Int = "15000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.share.max.partition.max.record.locks": Int = "4000", Between(2000, 10000), ignored; "For share groups, which Tally does not have."
    "group.share.max.record.lock.duration.ms": Int = "60000", Between(30000, 3600000), ignored; "For share groups, which Tally does not have."
    "group.share.max.session.timeout.ms": Int = "60000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.share.max.share.sessions": Int = "2000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.share.max.size": Int = "200", Between(1, 1000), ignored; "For share groups, which Tally does not have."
    "group.share.min.assignment.interval.ms": Int = "0", at_least(0), ignored; "For share groups, which Tally does not have."
    "group.share.min.delivery.count.limit": Int = "2", Between(2, 5), ignored; "For share groups, which Tally does not have."
    "group.share.min.heartbeat.interval.ms": Int = "5000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.share.min.partition.max.record.locks": Int = "100", Between(100, 2000), ignored; "For share groups, which Tally does not have."
    "group.share.min.record.lock.duration.ms": Int = "15000", Between(1000, 30000), ignored; "For share groups, which Tally does not have."
    "group.share.min.session.timeout.ms": Int = "45000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.share.partition.max.record.locks": Int = "2000", Between(100, 10000), ignored; "For share groups, which Tally does not have."
    "group.share.persister.class.name": String, Any, ignored; "For share groups, which Tally does not have."
    "group.share.record.lock.duration.ms": Int = "30000", Between(1000, 3600000), ignored; "For share groups, which Tally does not have."
    "group.share.session.timeout.ms": Int = "45000", at_least(1), ignored; "For share groups, which Tally does not have."
    "group.streams.assignment.interval.ms": Int = "1000", at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.heartbeat.interval.ms": Int = "5000", at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.initial.rebalance.delay.ms": Int = "3000", at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.max.assignment.interval.ms": Int = "15000", at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.max.heartbeat.interval.ms": Int = "15000", at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.max.session.timeout.ms": Int = "60000", at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.max.size": Int = "2147483647", at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.max.standby.replicas": Int = "2", at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.min.assignment.interval.ms": Int = "0", at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.min.heartbeat.interval.ms": Int = "5000", at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.min.session.timeout.ms": Int = "45000", at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.num.standby.replicas": Int = "0", at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "group.streams.session.timeout.ms": Int = "45000", at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "initial.broker.registration.timeout.ms": Int = "60000", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "inter.broker.listener.name": String, Any, ignored; "Tally's brokers do not speak to each other."
    "internal.metadata.delete.delay.millis": Long = "60000", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "internal.metadata.log.segment.bytes": Int, Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "internal.metadata.max.batch.size.in.bytes": Int = "8388608", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "kafka.metrics.polling.interval.secs": Int = "10", at_least(1), ignored; "For Kafka's own metrics reporters."
    "kafka.metrics.reporters": List = "", Any, ignored; "For Kafka's own metrics reporters."
    "leader.imbalance.check.interval.seconds": Long = "300", at_least(1), ignored; "For replication between Kafka brokers, which Tally does not have."
    "leader.replication.throttled.rate": Long, at_least(0), ignored; "For replication between Kafka brokers, which Tally does not have."
    "listener.security.protocol.map": String = "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", Any, honoured; "Which security protocol a listener name stands for. Only PLAINTEXT is built so far."
    "listeners": List = "PLAINTEXT://127.0.0.1:9092", Any, honoured; "Where the broker listens: PLAINTEXT://HOST:PORT or HOST:PORT, one for now. Port 0 chooses a free port."
    "log.cleaner.backoff.ms": Long = "15000", at_least(0), honoured; "How long compaction waits when there was nothing to compact, in milliseconds."
    "log.cleaner.dedupe.buffer.size": Long = "134217728", at_least(0), honoured; "Memory for the keys of all compactions at once, in bytes. Keys are kept whole: a pass ends where they find no more room, and the next one goes on there."
    "log.cleaner.delete.retention.ms": Long = "86400000", at_least(0), honoured; "How long a deletion stays readable in a compacted topic, in milliseconds."
    "log.cleaner.enable": Boolean = "true", Any, honoured; "Whether topics are compacted at all."
    "log.cleaner.io.buffer.load.factor": Double = "0.9", Any, ignored; "The table of keys has a fixed load."
    "log.cleaner.io.buffer.size": Int = "524288", at_least(0), ignored; "Compaction reads and writes 1 MiB at a time."
    "log.cleaner.io.max.bytes.per.second": Double = "1.7976931348623157E308", Any, not_yet; "Compaction is not slowed down yet."
    "log.cleaner.max.compaction.lag.ms": Long = "9223372036854775807", at_least(1), honoured; "Longest time before a record is compacted, in milliseconds."
    "log.cleaner.min.cleanable.ratio": Double = "0.5", Ratio, honoured; "Share of a log that must be uncompacted before it is compacted."
    "log.cleaner.min.compaction.lag.ms": Long = "0", at_least(0), honoured; "Shortest time before a record is compacted, in milliseconds."
    "log.cleaner.threads": Int = "1", at_least(0), honoured; "How many logs are compacted at once; 0: none."
    "log.cleanup.policy": List = "delete", SomeOf(&["compact", "delete"]), honoured; "What happens to old data of a topic: delete, compact, both or nothing."
    "log.dir": List, Any, honoured; "The data directory, when log.dirs is not given."
    "log.dir.failure.timeout.ms": Long = "30000", at_least(1), ignored; "There is one data directory."
    "log.dirs": List = "./tally-data", Any, honoured; "The data directory (one for now)."
    "log.flush.interval.messages": Long = "9223372036854775807", at_least(1), honoured; "Records that come in a partition until it is synced, whatever `tally.durability` syncs; nothing is with `memory`. Answers wait for that sync only if this is 1: then all topics are as with `always`."
    "log.flush.interval.ms": Long, at_least(0), honoured; "Time after which a record is synced, in milliseconds, whatever `tally.durability` syncs; no answer waits for that. The value of log.flush.scheduler.interval.ms when not given."
    "log.flush.offset.checkpoint.interval.ms": Int = "60000", at_least(0), ignored; "Tally finds where to recover from without this checkpoint."
    "log.flush.scheduler.interval.ms": Long = "9223372036854775807", at_least(1), honoured; "How often flush.ms is looked at, in milliseconds. Without a limit each partition is synced at its time, where Kafka never looks."
    "log.flush.start.offset.checkpoint.interval.ms": Int = "60000", at_least(0), ignored; "Tally writes a moved log start at once."
    "log.index.interval.bytes": Int = "4096", at_least(0), honoured; "Bytes of log between two index entries."
    "log.index.size.max.bytes": Int = "10485760", at_least(4), honoured; "Largest index of a segment, in bytes."
    "log.initial.task.delay.ms": Long = "30000", at_least(0), ignored; "Tally has no delay before its housekeeping."
    "log.local.retention.bytes": Long = "-2", at_least(-2), not_yet; "With tiered storage: bytes kept locally."
    "log.local.retention.ms": Long = "-2", at_least(-2), not_yet; "With tiered storage: how long data is kept locally, in milliseconds."
    "log.message.timestamp.after.max.ms": Long = "3600000", at_least(0), honoured; "How far in the future a record's timestamp may lie, in milliseconds."
    "log.message.timestamp.before.max.ms": Long = "9223372036854775807", at_least(0), honoured; "How far in the past a record's timestamp may lie, in milliseconds."
    "log.message.timestamp.type": String = "CreateTime", OneOf(&["CreateTime", "LogAppendTime"]), honoured; "Whether a record keeps its producer's time (CreateTime) or gets the broker's (LogAppendTime)."
    "log.preallocate": Boolean = "false", Any, ignored; "Tally reserves disk space ahead of its appends whatever this says; the files keep the length of what is in them."
    "log.retention.bytes": Long = "-1", Any, honoured; "How many bytes a partition keeps at least, when older ones go; -1 is no limit."
    "log.retention.check.interval.ms": Long = "300000", at_least(1), honoured; "How often retention is looked at, in milliseconds; the first time after 30 seconds at the latest."
    "log.retention.hours": Int = "168", Any, honoured; "How long records are kept, in hours; log.retention.minutes and log.retention.ms are stronger."
    "log.retention.minutes": Int, Any, honoured; "How long records are kept, in minutes."
    "log.retention.ms": Long, Any, honoured; "How long records are kept, in milliseconds; -1 is for ever."
    "log.roll.hours": Int = "168", at_least(1), honoured; "Longest span of time in one segment, in hours."
    "log.roll.jitter.hours": Int = "0", at_least(0), honoured; "Most that is taken off log.roll.hours at random, in hours."
    "log.roll.jitter.ms": Long, Any, honoured; "Most that is taken off log.roll.ms at random, in milliseconds."
    "log.roll.ms": Long, Any, honoured; "Longest span of time in one segment, in milliseconds."
    "log.segment.bytes": Int = "1073741824", at_least(1048576), honoured; "Size of a segment file, in bytes."
    "log.segment.delete.delay.ms": Long = "60000", at_least(0), ignored; "A removed segment goes at once: whoever reads it keeps what he has."
    "max.connection.creation.rate": Int = "2147483647", at_least(0), not_yet; "Most new connections per second."
    "max.connections": Int = "2147483647", at_least(0), honoured; "Most connections at a time, 100000 in any case; further ones are closed at once."
    "max.connections.per.ip": Int = "2147483647", at_least(0), honoured; "Most connections from one address; further ones are closed at once."
    "max.connections.per.ip.overrides": String = "", Any, honoured; "Exceptions to max.connections.per.ip: ADDRESS:COUNT, with commas between. Names of hosts are not looked up (Kafka does)."
    "max.incremental.fetch.session.cache.slots": Int = "1000", at_least(0), honoured; "Most fetch sessions remembered: a client with one asks for and gets only what has changed. 0: every fetch is a full one."
    "max.request.partition.size.limit": Int = "2000", at_least(1), not_yet; "Most partitions in one DescribeTopicPartitions response."
    "message.max.bytes": Int = "1048588", at_least(0), honoured; "Largest record batch, in bytes, as it arrives; topics override it by max.message.bytes."
    "metadata.log.dir": String, Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "metadata.log.max.record.bytes.between.snapshots": Long = "20971520", at_least(1), ignored; "For Kafka's controller quorum, which Tally does not have."
    "metadata.log.max.snapshot.interval.ms": Long = "3600000", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "metadata.log.segment.bytes": Int = "1073741824", at_least(8388608), ignored; "For Kafka's controller quorum, which Tally does not have."
    "metadata.log.segment.ms": Long = "604800000", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "metadata.max.idle.interval.ms": Int = "500", at_least(0), ignored; "For Kafka's controller quorum, which Tally does not have."
    "metadata.max.retention.bytes": Long = "104857600", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "metadata.max.retention.ms": Long = "604800000", Any, ignored; "For Kafka's controller quorum, which Tally does not have."
    "metric.reporters": List, Any, ignored; "For Kafka's own metrics reporters."
    "metrics.num.samples": Int = "2", at_least(1), ignored; "For Kafka's own metrics reporters."
    "metrics.recording.level": String = "INFO", Any, ignored; "For Kafka's own metrics reporters."
    "metrics.sample.window.ms": Long = "30000", at_least(1), ignored; "For Kafka's own metrics reporters."
    "min.insync.replicas": Int = "1", at_least(1), honoured; "Replicas that must have an acks=all write; on one node there is always one, and more is taken as one."
    "node.id": Int = "1", at_least(0), honoured; "Number of this broker, which clients see. It is fixed when the data directory is first used."
    "num.io.threads": Int = "8", at_least(1), ignored; "Tally sizes its threads by the number of cores."
    "num.network.threads": Int = "3", at_least(1), ignored; "Tally sizes its threads by the number of cores."
    "num.partitions": Int = "1", at_least(1), honoured; "Partitions of a topic that is created without a count."
    "num.recovery.threads.per.data.dir": Int = "2", at_least(1), ignored; "Tally sizes its threads by the number of cores."
    "num.replica.alter.log.dirs.threads": Int, Any, ignored; "There is one data directory."
    "num.replica.fetchers": Int = "1", at_least(1), ignored; "For replication between Kafka brokers, which Tally does not have."
    "offset.metadata.max.bytes": Int = "4096", at_least(0), honoured; "Longest metadata text of a committed offset, in bytes."
    "offsets.commit.timeout.ms": Int = "5000", at_least(1), not_yet; "Longest wait of an offset commit for its records to be durable, in milliseconds."
    "offsets.load.buffer.size": Int = "5242880", at_least(1), ignored; "Tally reads its offsets log through the page cache."
    "offsets.retention.check.interval.ms": Long = "600000", at_least(1), honoured; "How often expired offsets are removed, in milliseconds."
    "offsets.retention.minutes": Int = "10080", at_least(1), honoured; "How long the offsets of a group without members are kept, in minutes."
    "offsets.topic.compression.codec": Int = "0", Any, ignored; "Tally writes committed offsets uncompressed."
    "offsets.topic.num.partitions": Int = "50", at_least(1), honoured; "Partitions of __consumer_offsets; fixed when the data directory is first used."
    "offsets.topic.replication.factor": Short = "3", at_least(1), ignored; "Internal topics have as many replicas as there are brokers: one."
    "offsets.topic.segment.bytes": Int = "104857600", at_least(1), honoured; "Segment size of __consumer_offsets, in bytes."
    "principal.builder.class": Class, Any, ignored; "A Java class, which Tally cannot load."
    "process.roles": List, SomeOf(&["broker", "controller"]), ignored; "Tally is always its own controller."
    "producer.id.expiration.check.interval.ms": Int = "600000", at_least(1), honoured; "How often idle producers are forgotten, in milliseconds."
    "producer.id.expiration.ms": Int = "86400000", at_least(1), honoured; "How long a partition remembers an idle producer, in milliseconds."
    "producer.purgatory.purge.interval.requests": Int = "1000", Any, ignored; "Tally drops a waiting request the moment it ends."
    "queued.max.request.bytes": Long = "-1", Any, honoured; "Bytes that requests of more than 64 KiB may hold until they are answered; beyond it the broker reads no further one. -1 is a quarter of the machine's memory (Kafka: no limit)."
    "queued.max.requests": Int = "500", at_least(1), ignored; "There is no queue of requests: each connection has one in work, and is not read beyond 64 KiB meanwhile."
    "quota.window.num": Int = "11", at_least(1), honoured; "Windows over which a quota is measured."
    "quota.window.size.seconds": Int = "1", at_least(1), honoured; "Length of such a window, in seconds."
    "remote.fetch.max.wait.ms": Int = "500", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.list.offsets.request.timeout.ms": Long = "30000", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.index.file.cache.total.size.bytes": Long = "1073741824", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.index.file.cache.ttl.ms": Long = "900000", at_least(-1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.copier.thread.pool.size": Int = "10", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.copy.max.bytes.per.second": Long = "9223372036854775807", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.copy.quota.window.num": Int = "11", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.copy.quota.window.size.seconds": Int = "1", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.expiration.thread.pool.size": Int = "10", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.fetch.max.bytes.per.second": Long = "9223372036854775807", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.fetch.quota.window.num": Int = "11", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.fetch.quota.window.size.seconds": Int = "1", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.follower.thread.pool.size": Int = "2", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.task.interval.ms": Long = "30000", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.task.retry.backoff.max.ms": Long = "30000", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.task.retry.backoff.ms": Long = "500", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.task.retry.jitter": Double = "0.2", Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.manager.thread.pool.size": Int = "2", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.metadata.custom.metadata.max.bytes": Int = "128", at_least(0), ignored; "For tiered storage, which Tally does not have."
    "remote.log.metadata.manager.class.name": String, Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.metadata.manager.class.path": String, Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.metadata.manager.impl.prefix": String = "rlmm.config.", Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.metadata.manager.listener.name": String, Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.reader.max.pending.tasks": Int = "100", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.reader.threads": Int = "10", at_least(1), ignored; "For tiered storage, which Tally does not have."
    "remote.log.storage.manager.class.name": String, Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.storage.manager.class.path": String, Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.storage.manager.impl.prefix": String = "rsm.config.", Any, ignored; "For tiered storage, which Tally does not have."
    "remote.log.storage.system.enable": Boolean = "false", Any, ignored; "For tiered storage, which Tally does not have."
    "replica.alter.log.dirs.io.max.bytes.per.second": Long, at_least(0), ignored; "For moves between log directories, of which Tally has one."
    "replica.fetch.backoff.ms": Int = "1000", at_least(0), ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.fetch.max.bytes": Int = "1048576", at_least(0), ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.fetch.min.bytes": Int = "1", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.fetch.response.max.bytes": Int = "10485760", at_least(0), ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.fetch.wait.max.ms": Int = "500", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.high.watermark.checkpoint.interval.ms": Long = "5000", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.lag.time.max.ms": Long = "30000", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.selector.class": String, Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.socket.receive.buffer.bytes": Int = "65536", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "replica.socket.timeout.ms": Int = "30000", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "replication.quota.window.num": Int = "11", at_least(1), ignored; "For replication between Kafka brokers, which Tally does not have."
    "replication.quota.window.size.seconds": Int = "1", at_least(1), ignored; "For replication between Kafka brokers, which Tally does not have."
    "request.timeout.ms": Int = "30000", Any, ignored; "For requests that Kafka brokers send each other."
    "sasl.client.callback.handler.class": Class, Any, not_yet; "For SASL, which is not built yet."
    "sasl.enabled.mechanisms": List = "GSSAPI", Any, not_yet; "For SASL, which is not built yet."
    "sasl.jaas.config": Password, Any, not_yet; "For SASL, which is not built yet."
    "sasl.kerberos.kinit.cmd": String = "/usr/bin/kinit", Any, not_yet; "For SASL, which is not built yet."
    "sasl.kerberos.min.time.before.relogin": Long = "60000", Any, not_yet; "For SASL, which is not built yet."
    "sasl.kerberos.principal.to.local.rules": List = "DEFAULT", Any, not_yet; "For SASL, which is not built yet."
    "sasl.kerberos.service.name": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.kerberos.ticket.renew.jitter": Double = "0.05", Any, not_yet; "For SASL, which is not built yet."
    "sasl.kerberos.ticket.renew.window.factor": Double = "0.8", Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.callback.handler.class": Class, Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.class": Class, Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.connect.timeout.ms": Int, Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.read.timeout.ms": Int, Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.refresh.buffer.seconds": Short = "300", Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.refresh.min.period.seconds": Short = "60", Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.refresh.window.factor": Double = "0.8", Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.refresh.window.jitter": Double = "0.05", Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.retry.backoff.max.ms": Long = "10000", Any, not_yet; "For SASL, which is not built yet."
    "sasl.login.retry.backoff.ms": Long = "100", Any, not_yet; "For SASL, which is not built yet."
    "sasl.mechanism.controller.protocol": String = "GSSAPI", Any, not_yet; "For SASL, which is not built yet."
    "sasl.mechanism.inter.broker.protocol": String = "GSSAPI", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.algorithm": String = "RS256", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.claim.aud": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.claim.exp.seconds": Int = "300", Between(0, 86400), not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.claim.iss": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.claim.jti.include": Boolean = "false", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.claim.nbf.seconds": Int = "60", Between(0, 3600), not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.claim.sub": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.file": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.private.key.file": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.private.key.passphrase": Password, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.assertion.template.file": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.client.credentials.client.id": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.client.credentials.client.secret": Password, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.clock.skew.seconds": Int = "30", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.expected.audience": List = "", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.expected.issuer": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.jwks.endpoint.refresh.ms": Long = "3600000", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms": Long = "10000", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms": Long = "100", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.jwks.endpoint.url": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.jwt.retriever.class": Class, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.jwt.validator.class": Class, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.scope": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.scope.claim.name": String = "scope", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.sub.claim.name": String = "sub", Any, not_yet; "For SASL, which is not built yet."
    "sasl.oauthbearer.token.endpoint.url": String, Any, not_yet; "For SASL, which is not built yet."
    "sasl.server.callback.handler.class": Class, Any, not_yet; "For SASL, which is not built yet."
    "sasl.server.max.receive.size": Int = "524288", Any, not_yet; "For SASL, which is not built yet."
    "security.inter.broker.protocol": String = "PLAINTEXT", OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), ignored; "Tally's brokers do not speak to each other."
    "security.providers": String, Any, ignored; "Java classes, which Tally cannot load."
    "server.max.startup.time.ms": Long = "9223372036854775807", at_least(0), ignored; "Tally starts as fast as its recovery allows."
    "share.coordinator.append.linger.ms": Int = "-1", at_least(-1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.cached.buffer.max.bytes": Int = "1048588", at_least(524288), ignored; "For share groups, which Tally does not have."
    "share.coordinator.cold.partition.snapshot.interval.ms": Int = "300000", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.load.buffer.size": Int = "5242880", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.snapshot.update.records.per.snapshot": Int = "500", Between(0, 500), ignored; "For share groups, which Tally does not have."
    "share.coordinator.state.topic.compression.codec": Int = "0", Any, ignored; "For share groups, which Tally does not have."
    "share.coordinator.state.topic.min.isr": Short = "2", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.state.topic.num.partitions": Int = "50", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.state.topic.prune.interval.ms": Int = "300000", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.state.topic.replication.factor": Short = "3", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.state.topic.segment.bytes": Int = "104857600", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.threads": Int = "1", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.coordinator.write.timeout.ms": Int = "5000", at_least(1), ignored; "For share groups, which Tally does not have."
    "share.fetch.purgatory.purge.interval.requests": Int = "1000", Any, ignored; "Tally drops a waiting request the moment it ends."
    "socket.connection.setup.timeout.max.ms": Long = "30000", Any, ignored; "For connections that a Kafka broker opens."
    "socket.connection.setup.timeout.ms": Long = "10000", Any, ignored; "For connections that a Kafka broker opens."
    "socket.listen.backlog.size": Int = "50", at_least(1), not_yet; "Connections that may wait to be accepted; 1024 until this is honoured."
    "socket.receive.buffer.bytes": Int = "102400", Any, not_yet; "Receive buffer of a connection, in bytes; -1 leaves it to the system."
    "socket.request.max.bytes": Int = "104857600", at_least(1), honoured; "Largest request, in bytes; a larger one closes its connection."
    "socket.send.buffer.bytes": Int = "102400", Any, not_yet; "Send buffer of a connection, in bytes; -1 leaves it to the system."
    "ssl.allow.dn.changes": Boolean = "false", Any, not_yet; "For TLS, which is not built yet."
    "ssl.allow.san.changes": Boolean = "false", Any, not_yet; "For TLS, which is not built yet."
    "ssl.cipher.suites": List = "", Any, not_yet; "For TLS, which is not built yet."
    "ssl.client.auth": String = "none", OneOf(&["required", "requested", "none"]), not_yet; "For TLS, which is not built yet."
    "ssl.enabled.protocols": List = "TLSv1.2,TLSv1.3", Any, not_yet; "For TLS, which is not built yet."
    "ssl.endpoint.identification.algorithm": String = "https", Any, not_yet; "For TLS, which is not built yet."
    "ssl.engine.factory.class": Class, Any, not_yet; "For TLS, which is not built yet."
    "ssl.key.password": Password, Any, not_yet; "For TLS, which is not built yet."
    "ssl.keymanager.algorithm": String = "SunX509", Any, not_yet; "For TLS, which is not built yet."
    "ssl.keystore.certificate.chain": Password, Any, not_yet; "For TLS, which is not built yet."
    "ssl.keystore.key": Password, Any, not_yet; "For TLS, which is not built yet."
    "ssl.keystore.location": String, Any, not_yet; "For TLS, which is not built yet."
    "ssl.keystore.password": Password, Any, not_yet; "For TLS, which is not built yet."
    "ssl.keystore.type": String = "JKS", Any, not_yet; "For TLS, which is not built yet."
    "ssl.principal.mapping.rules": String = "DEFAULT", Any, not_yet; "For TLS, which is not built yet."
    "ssl.protocol": String = "TLSv1.3", Any, not_yet; "For TLS, which is not built yet."
    "ssl.provider": String, Any, not_yet; "For TLS, which is not built yet."
    "ssl.secure.random.implementation": String, Any, not_yet; "For TLS, which is not built yet."
    "ssl.trustmanager.algorithm": String = "PKIX", Any, not_yet; "For TLS, which is not built yet."
    "ssl.truststore.certificates": Password, Any, not_yet; "For TLS, which is not built yet."
    "ssl.truststore.location": String, Any, not_yet; "For TLS, which is not built yet."
    "ssl.truststore.password": Password, Any, not_yet; "For TLS, which is not built yet."
    "ssl.truststore.type": String = "JKS", Any, not_yet; "For TLS, which is not built yet."
    "telemetry.max.bytes": Int = "1048576", at_least(1), ignored; "Client telemetry is not offered."
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": Int = "10000", at_least(1), honoured; "How often transactions are checked for their timeout, in milliseconds."
    "transaction.max.timeout.ms": Int = "900000", at_least(1), honoured; "Longest transaction.timeout.ms that a producer may ask for."
    "transaction.partition.verification.enable": Boolean = "true", Any, not_yet; "Whether a transactional write is checked with the coordinator; Tally always checks."
    "transaction.remove.expired.transaction.cleanup.interval.ms": Int = "3600000", at_least(1), honoured; "How often expired transactional ids are removed, in milliseconds."
    "transaction.state.log.load.buffer.size": Int = "5242880", at_least(1), ignored; "Tally reads its transaction log through the page cache."
    "transaction.state.log.min.isr": Int = "2", at_least(1), ignored; "On one node there is always one replica in sync."
    "transaction.state.log.num.partitions": Int = "50", at_least(1), honoured; "Partitions of __transaction_state; fixed when the data directory is first used."
    "transaction.state.log.replication.factor": Short = "3", at_least(1), ignored; "Internal topics have as many replicas as there are brokers: one."
    "transaction.state.log.segment.bytes": Int = "104857600", at_least(1), honoured; "Segment size of __transaction_state, in bytes."
    "transaction.two.phase.commit.enable": Boolean = "false", Any, honoured; "Whether producers may have their transactions decided by an outside coordinator (KIP-939): such transactions never time out, and outlive their producer. InitProducerId is then listed up to version 6."
    "transactional.id.expiration.ms": Int = "604800000", at_least(1), honoured; "How long an idle transactional id is remembered, in milliseconds."
    "unclean.leader.election.enable": Boolean = "false", Any, ignored; "There are no elections on one node."
    "unclean.leader.election.interval.ms": Long = "300000", at_least(1), ignored; "There are no elections on one node."
    "unstable.api.versions.enable": Boolean = "false", Any, honoured; "Whether versions that Kafka calls unstable are listed and served: InitProducerId 6."
    "unstable.feature.versions.enable": Boolean = "false", Any, ignored; "Tally lists only versions that are stable."
    "inter.broker.protocol.version": String, Any, ignored; "Gone since Kafka 4.0."
    "log.message.format.version": String, Any, ignored; "Gone since Kafka 4.0."
    "log.message.downconversion.enable": Boolean, Any, ignored; "Gone since Kafka 4.0."
    "log.message.timestamp.difference.max.ms": Long, Any, ignored; "Gone since Kafka 4.0: log.message.timestamp.before.max.ms and .after.max.ms took its place."
    "listener.name.*": String, Any, not_yet; "Settings of one listener."
    "rlmm.config.*": String, Any, ignored; "For tiered storage, which Tally does not have."
    "rsm.config.*": String, Any, ignored; "For tiered storage, which Tally does not have."
    "zookeeper.*": String, Any, ignored; "Gone since Kafka 4.0."
};

/// The properties of a topic, by name.
pub const TOPIC: &[Property] = properties! {
    "cleanup.policy": List <- ["log.cleanup.policy"], SomeOf(&["compact", "delete"]), honoured; "What happens to old data: delete, compact, both or nothing."
    "compression.gzip.level": Int <- ["compression.gzip.level"], OneOf(&["-1", "1", "2", "3", "4", "5", "6", "7", "8", "9"]), not_yet; "Level of gzip when the broker recompresses."
    "compression.lz4.level": Int <- ["compression.lz4.level"], Between(1, 17), not_yet; "Level of lz4 when the broker recompresses."
    "compression.type": String <- ["compression.type"], OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), honoured; "How batches are stored: as the producer compressed them (producer). Anything else is refused until recompression is built."
    "compression.zstd.level": Int <- ["compression.zstd.level"], Between(-131_072, 22), not_yet; "Level of zstd when the broker recompresses."
    "delete.retention.ms": Long <- ["log.cleaner.delete.retention.ms"], at_least(0), honoured; "How long a deletion stays readable in a compacted topic, in milliseconds."
    "file.delete.delay.ms": Long <- ["log.segment.delete.delay.ms"], at_least(0), ignored; "A removed segment goes at once: whoever reads it keeps what he has, and the room is needed on a full disk."
    "flush.messages": Long <- ["log.flush.interval.messages"], at_least(1), honoured; "Records that come in a partition until it is synced, whatever `tally.durability` syncs; nothing is with `memory`. Answers wait for that sync only if this is 1: then the topic is as with `always`."
    "flush.ms": Long <- ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"], at_least(0), honoured; "Time after which a record is synced, in milliseconds, whatever `tally.durability` syncs; no answer waits for that."
    "follower.replication.throttled.replicas": List = "", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "index.interval.bytes": Int <- ["log.index.interval.bytes"], at_least(0), honoured; "Bytes of log between two index entries."
    "internal.segment.bytes": Int, at_least(1), honoured; "Segment size below the minimum of segment.bytes, for tests; not shown."
    "leader.replication.throttled.replicas": List = "", Any, ignored; "For replication between Kafka brokers, which Tally does not have."
    "local.retention.bytes": Long <- ["log.local.retention.bytes"], at_least(-2), not_yet; "With tiered storage: bytes kept locally."
    "local.retention.ms": Long <- ["log.local.retention.ms"], at_least(-2), not_yet; "With tiered storage: how long data is kept locally, in milliseconds."
    "max.compaction.lag.ms": Long <- ["log.cleaner.max.compaction.lag.ms"], at_least(1), honoured; "Longest time before a record is compacted, in milliseconds."
    "max.message.bytes": Int <- ["message.max.bytes"], at_least(0), honoured; "Largest record batch, in bytes, as it arrives."
    "message.timestamp.after.max.ms": Long <- ["log.message.timestamp.after.max.ms"], at_least(0), honoured; "How far in the future a record's timestamp may lie, in milliseconds."
    "message.timestamp.before.max.ms": Long <- ["log.message.timestamp.before.max.ms"], at_least(0), honoured; "How far in the past a record's timestamp may lie, in milliseconds."
    "message.timestamp.type": String <- ["log.message.timestamp.type"], OneOf(&["CreateTime", "LogAppendTime"]), honoured; "Whether a record keeps its producer's time or gets the broker's."
    "min.cleanable.dirty.ratio": Double <- ["log.cleaner.min.cleanable.ratio"], Ratio, honoured; "Share of a log that must be uncompacted before it is compacted."
    "min.compaction.lag.ms": Long <- ["log.cleaner.min.compaction.lag.ms"], at_least(0), honoured; "Shortest time before a record is compacted, in milliseconds."
    "min.insync.replicas": Int <- ["min.insync.replicas"], at_least(1), honoured; "Replicas that must have an acks=all write; on one node more than one is taken as one."
    "preallocate": Boolean <- ["log.preallocate"], Any, ignored; "Tally reserves disk space ahead of its appends whatever this says; the files keep the length of what is in them."
    "remote.log.copy.disable": Boolean = "false", OneOf(&["false"]), ignored; "For tiered storage, which Tally does not have."
    "remote.log.delete.on.disable": Boolean = "false", OneOf(&["false"]), ignored; "For tiered storage, which Tally does not have."
    "remote.storage.enable": Boolean = "false", OneOf(&["false"]), ignored; "For tiered storage, which Tally does not have."
    "retention.bytes": Long <- ["log.retention.bytes"], Any, honoured; "How many bytes a partition keeps at least, when older ones go; -1 is no limit."
    "retention.ms": Long <- ["log.retention.ms", "log.retention.minutes", "log.retention.hours"], at_least(-1), honoured; "How long records are kept, in milliseconds; -1 is for ever."
    "segment.bytes": Int <- ["log.segment.bytes"], at_least(1_048_576), honoured; "Size of a segment file, in bytes."
    "segment.index.bytes": Int <- ["log.index.size.max.bytes"], at_least(4), honoured; "Largest index of a segment, in bytes."
    "segment.jitter.ms": Long <- ["log.roll.jitter.ms", "log.roll.jitter.hours"], at_least(0), honoured; "Most that is taken off segment.ms at random, in milliseconds."
    "segment.ms": Long <- ["log.roll.ms", "log.roll.hours"], at_least(1), honoured; "Longest span of time in one segment, in milliseconds."
    "unclean.leader.election.enable": Boolean <- ["unclean.leader.election.enable"], Any, ignored; "There are no elections on one node."
};

/// The properties of a subscription to client metrics, by name.
pub const CLIENT_METRICS: &[Property] = properties! {
    "interval.ms": Int = "300000", Between(100, 3_600_000), ignored; "How often clients push, in milliseconds. Client telemetry is not offered."
    "match": List = "", Any, ignored; "Which clients push, as NAME=PATTERN,... Client telemetry is not offered."
    "metrics": List = "", Any, ignored; "Prefixes of the metrics wanted. Client telemetry is not offered."
};

/// The properties of a group, by name.
pub const GROUP: &[Property] = properties! {
    "consumer.assignment.interval.ms": Int <- ["group.consumer.assignment.interval.ms"], at_least(0), honoured; "Shortest time between two assignments of a consumer group, in milliseconds."
    "consumer.heartbeat.interval.ms": Int <- ["group.consumer.heartbeat.interval.ms"], at_least(1), honoured; "How often members of a consumer group report, in milliseconds."
    "consumer.session.timeout.ms": Int <- ["group.consumer.session.timeout.ms"], at_least(1), honoured; "When a silent member of a consumer group is taken for gone, in milliseconds."
    "share.assignment.interval.ms": Int <- ["group.share.assignment.interval.ms"], at_least(0), ignored; "For share groups, which Tally does not have."
    "share.auto.offset.reset": String = "latest", Any, ignored; "For share groups, which Tally does not have."
    "share.delivery.count.limit": Int <- ["group.share.delivery.count.limit"], at_least(2), ignored; "For share groups, which Tally does not have."
    "share.heartbeat.interval.ms": Int <- ["group.share.heartbeat.interval.ms"], at_least(1), ignored; "For share groups, which Tally does not have."
    "share.isolation.level": String = "read_uncommitted", OneOf(&["read_committed", "read_uncommitted"]), ignored; "For share groups, which Tally does not have."
    "share.partition.max.record.locks": Int <- ["group.share.partition.max.record.locks"], at_least(100), ignored; "For share groups, which Tally does not have."
    "share.record.lock.duration.ms": Int <- ["group.share.record.lock.duration.ms"], at_least(1000), ignored; "For share groups, which Tally does not have."
    "share.renew.acknowledge.enable": Boolean = "true", Any, ignored; "For share groups, which Tally does not have."
    "share.session.timeout.ms": Int <- ["group.share.session.timeout.ms"], at_least(1), ignored; "For share groups, which Tally does not have."
    "streams.assignment.interval.ms": Int <- ["group.streams.assignment.interval.ms"], at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "streams.heartbeat.interval.ms": Int <- ["group.streams.heartbeat.interval.ms"], at_least(1), ignored; "For the streams group protocol, which Tally does not have."
    "streams.initial.rebalance.delay.ms": Int <- ["group.streams.initial.rebalance.delay.ms"], at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "streams.num.standby.replicas": Int <- ["group.streams.num.standby.replicas"], at_least(0), ignored; "For the streams group protocol, which Tally does not have."
    "streams.session.timeout.ms": Int <- ["group.streams.session.timeout.ms"], at_least(1), ignored; "For the streams group protocol, which Tally does not have."
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_there_once_and_its_default_is_valid() {
        for table in [BROKER, TOPIC, CLIENT_METRICS, GROUP] {
            let mut seen = BTreeSet::new();
            for row in table {
                assert!(seen.insert(row.name), "{} has two rows", row.name);
                assert!(!row.text.is_empty(), "{} has no text", row.name);
                if let Some(default) = row.default {
                    assert_eq!(row.check(default), Ok(()), "{}", row.name);
                }
            }
        }
    }

    #[test]
    fn synonyms_and_aliases_are_rows() {
        for row in TOPIC.iter().chain(CLIENT_METRICS).chain(GROUP) {
            let hidden = row.name.starts_with("internal.");
            assert_eq!(
                row.default.is_none(),
                hidden || !row.synonyms.is_empty(),
                "{}",
                row.name
            );
            for synonym in row.synonyms {
                assert!(broker_property(synonym).is_some(), "{synonym}");
            }
        }
        for (_, name) in ALIASES {
            assert!(broker_property(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_prefix_row_stands_for_its_names() {
        let row = broker_property("listener.name.internal.ssl.keystore.location");
        assert_eq!(row.map(|row| row.name), Some("listener.name.*"));
        assert!(broker_property("listener.name.").is_none());
    }
}
