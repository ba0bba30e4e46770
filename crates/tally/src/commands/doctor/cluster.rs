//! What can be asked of the cluster.

use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, MetadataRequest, MetadataResponse,
};
use tally_broker::config::properties::broker_property;
use tally_broker::config::property::Status;
use tally_protocol::start_note::{self, StartNote};

use super::{Findings, Level};
use crate::client::{Cluster, Failure};
use crate::commands::configs::{self, DEFAULT, Entry, Resource};
use crate::commands::{group, in_words, txn};

const METADATA_NEWEST: i16 = 12;
const LOG_DIRS_NEWEST: i16 = 4;
/// The one that every broker knows.
const DESCRIBE_CLUSTER: i16 = 0;
/// A disk that has less left than this share is worth a word, or needs help at once.
const FREE_PERCENT_LOW: i64 = 10;
const FREE_PERCENT_OUT: i64 = 2;

/// What the machine is looked at for.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The brokers' data directories.
    pub(super) directories: Vec<String>,
    /// The ports that they have told their clients.
    pub(super) ports: Vec<u16>,
}

pub(super) fn examine(cluster: &mut Cluster, findings: &mut Findings) -> Result<Seen, Failure> {
    let began = Instant::now();
    let metadata = cluster.metadata(None)?;
    let millis = began.elapsed().as_millis();
    let reached = reach(cluster, &metadata, findings, millis);
    topics(&metadata, findings);
    let mut seen = Seen::default();
    for broker in reached {
        let looked = properties(cluster, broker, findings);
        note_failure("properties", looked, findings);
        let looked = disks(cluster, broker, findings, &mut seen);
        note_failure("log dirs", looked, findings);
        let looked = started(cluster, broker, findings);
        note_failure("start", looked, findings);
    }
    seen.ports = metadata
        .brokers
        .iter()
        .filter_map(|broker| u16::try_from(broker.port).ok())
        .collect();
    let looked = transactions(cluster, findings);
    note_failure("transactions", looked, findings);
    let looked = groups(cluster, findings);
    note_failure("groups", looked, findings);
    Ok(seen)
}

/// What can't be looked at is a finding too, and no reason not to look at the rest.
fn note_failure(check: &'static str, looked: Result<(), Failure>, findings: &mut Findings) {
    if let Err(failure) = looked {
        let text = format!("could not be looked at: {failure}");
        findings.add(Level::Fail, check, text);
    }
}

/// Whether clients get through to the addresses that they are told: not getting there is the commonest first mistake.
fn reach(
    cluster: &mut Cluster,
    metadata: &MetadataResponse,
    findings: &mut Findings,
    millis: u128,
) -> Vec<i32> {
    let mut reached = Vec::new();
    let mut wrong = Vec::new();
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    for broker in &metadata.brokers {
        let id = broker.node_id.0;
        match cluster.call(id, METADATA_NEWEST, &request) {
            Ok(_) => reached.push(id),
            Err(failure) => wrong.push(format!(
                "broker {id} tells clients {}:{}, which can't be reached from here: {failure}",
                broker.host.as_str(),
                broker.port
            )),
        }
    }
    let id = metadata.cluster_id.as_ref().map_or("", |id| id.as_str());
    let right = format!(
        "cluster {id}, {} of its addresses answer, metadata in {millis} ms",
        reached.len()
    );
    findings.judge(Level::Fail, "reach", &wrong, right);
    reached
}

fn topics(metadata: &MetadataResponse, findings: &mut Findings) {
    let (mut leaderless, mut behind) = (Vec::new(), Vec::new());
    let mut partitions = 0usize;
    for topic in &metadata.topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        partitions += topic.partitions.len();
        for row in &topic.partitions {
            let place = format!("{name}:{}", row.partition_index);
            if row.leader_id.0 < 0 || !row.offline_replicas.is_empty() {
                leaderless.push(place);
            } else if row.isr_nodes.len() < row.replica_nodes.len() {
                behind.push(place);
            }
        }
    }
    let right = format!(
        "{} topics, {partitions} partitions, all have a leader",
        metadata.topics.len()
    );
    let wrong: Vec<String> = leaderless
        .iter()
        .map(|place| format!("{place} has no leader or an offline replica"))
        .collect();
    findings.judge(Level::Fail, "topics", &wrong, right);
    if !behind.is_empty() {
        let text = format!("replicas are not in sync: {}", super::some_of(&behind));
        findings.add(Level::Warn, "replicas", text);
    }
}

fn properties(cluster: &mut Cluster, broker: i32, findings: &mut Findings) -> Result<(), Failure> {
    let entries = configs::describe(cluster, &Resource::broker(broker), &[])?;
    let value = |name: &str| {
        let mut entries = entries.iter();
        let entry = entries.find(|entry| entry.name == name);
        entry.and_then(|entry| entry.value.as_deref())
    };
    // Another broker's properties are another broker's business.
    let Some(durability) = value("tally.durability") else {
        return Ok(());
    };
    let promise = crate::commands::cluster::promise(durability);
    let level = if durability == "memory" {
        Level::Warn
    } else {
        Level::Ok
    };
    findings.add(level, "durability", promise);
    if value("tally.guard.ordered.sessions") == Some("false") {
        let text = "tally.guard.ordered.sessions=false: a late request of the old transaction protocol can end another transaction";
        findings.add(Level::Warn, "guard", text);
    }
    let idle: Vec<String> = entries
        .iter()
        .filter(|entry| entry.source != DEFAULT && is_idle(entry))
        .map(|entry| entry.name.clone())
        .collect();
    if !idle.is_empty() {
        let text = format!(
            "set, and without effect so far: {} (tally explain NAME)",
            super::some_of(&idle)
        );
        findings.add(Level::Warn, "properties", text);
    }
    Ok(())
}

fn is_idle(entry: &Entry) -> bool {
    broker_property(&entry.name).is_some_and(|row| row.status == Status::NotYet)
}

fn disks(
    cluster: &mut Cluster,
    broker: i32,
    findings: &mut Findings,
    seen: &mut Seen,
) -> Result<(), Failure> {
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let answer = cluster.call(broker, LOG_DIRS_NEWEST, &request)?;
    for dir in answer.results {
        let path = dir.log_dir.to_string();
        let (total, free) = (dir.total_bytes, dir.usable_bytes);
        seen.directories.push(path.clone());
        if dir.error_code != 0 {
            let code = crate::client::error_name(dir.error_code);
            findings.add(
                Level::Fail,
                "log dirs",
                format!("broker {broker}, {path}: {code}"),
            );
        } else if total > 0 && free >= 0 {
            let percent = free.saturating_mul(100) / total;
            let level = match percent {
                percent if percent < FREE_PERCENT_OUT => Level::Fail,
                percent if percent < FREE_PERCENT_LOW => Level::Warn,
                _ => Level::Ok,
            };
            let free = crate::commands::cluster::size(free);
            let text = format!("broker {broker}, {path}: {free} free, {percent} %");
            findings.add(level, "log dirs", text);
        }
    }
    Ok(())
}

/// How the broker came up and what it has refused; Apache Kafka does not say.
fn started(cluster: &mut Cluster, broker: i32, findings: &mut Findings) -> Result<(), Failure> {
    let mut request = DescribeClusterRequest::default();
    let asked = &mut request.unknown_tagged_fields;
    asked.insert(start_note::TAG, Bytes::new());
    let answer = cluster.call(broker, DESCRIBE_CLUSTER, &request)?;
    let field = answer.unknown_tagged_fields.get(&start_note::TAG);
    let Some(note) = field.and_then(|field| StartNote::decode(field)) else {
        return Ok(());
    };
    let ago = in_words(i64::try_from(note.ready_ago_ms).unwrap_or(i64::MAX));
    let before = match (note.was_clean, note.cut) {
        (true, _) => "after a clean stop, or as the first start",
        (false, 0) => "after an unclean stop, no log had a torn end",
        (false, _) => "after an unclean stop",
    };
    let (opened, took) = (note.opened, note.recovery_ms);
    let text =
        format!("broker {broker}: {opened} partitions opened in {took} ms, {ago} ago, {before}");
    let mut wrong = Vec::new();
    if note.unopened > 0 {
        wrong.push(format!(
            "{} could not be opened (its log says why)",
            note.unopened
        ));
    }
    if note.cut > 0 {
        wrong.push(format!(
            "{} lost a torn end (its log says which and how much)",
            note.cut
        ));
    }
    let level = match (note.unopened, note.cut) {
        (0, 0) => Level::Ok,
        (0, _) => Level::Warn,
        _ => Level::Fail,
    };
    let wrong = wrong.iter().map(|wrong| format!("; {wrong}"));
    findings.add(level, "data", text + &wrong.collect::<String>());
    if note.refused_timeouts > 0 {
        let remedy = if note.refused_timeout_ms > 0 {
            "lower it there, or raise transaction.max.timeout.ms"
        } else {
            "it must be more than 0"
        };
        findings.add(
            Level::Warn,
            "timeouts",
            format!(
                "broker {broker} refused transaction timeouts (INVALID_TRANSACTION_TIMEOUT) {} times, the last one {} ms for client.id {}: {remedy}",
                note.refused_timeouts, note.refused_timeout_ms, note.refused_client_id
            ),
        );
    }
    Ok(())
}

fn transactions(cluster: &mut Cluster, findings: &mut Findings) -> Result<(), Failure> {
    let health = txn::health(cluster)?;
    let longest = in_words(i64::from(health.longest_timeout_ms));
    let (ids, open) = (health.ids, health.open);
    let right = format!("{ids} ids, {open} open, none is late; the longest timeout is {longest}");
    let late: Vec<String> = health
        .late
        .iter()
        .map(|late| format!("{late} will soon be aborted (tally txn why ID)"))
        .collect();
    findings.judge(Level::Warn, "transactions", &late, right);
    let hanging: Vec<String> = health
        .hanging
        .iter()
        .map(|one| format!("{one} is open and nobody will end it (tally txn hanging)"))
        .collect();
    findings.judge(
        Level::Fail,
        "hanging",
        &hanging,
        "no transaction hangs".to_owned(),
    );
    Ok(())
}

fn groups(cluster: &mut Cluster, findings: &mut Findings) -> Result<(), Failure> {
    let health = group::health(cluster)?;
    let lost: Vec<String> = health
        .lost
        .iter()
        .map(|lost| format!("{lost} is gone by retention before it was read"))
        .collect();
    let right = format!(
        "{} groups, what they have not read is still there",
        health.groups
    );
    findings.judge(Level::Warn, "groups", &lost, right);
    if !health.rebalancing.is_empty() {
        let text = format!(
            "between two assignments: {}",
            super::some_of(&health.rebalancing)
        );
        findings.add(Level::Warn, "rebalance", text);
    }
    Ok(())
}
