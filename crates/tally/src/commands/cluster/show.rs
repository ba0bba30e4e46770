//! `tally cluster info` and `brokers`.

use std::collections::BTreeMap;

use kafka_protocol::messages::DescribeLogDirsRequest;

use super::features;
use crate::client::{Cluster, Failure, check};
use crate::commands::configs::{self, Resource};
use crate::commands::{Common, Done};
use crate::output::{Format, Listing, Rows, Value};

const LOG_DIRS_NEWEST: i16 = 4;

pub(super) fn info(common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let metadata = cluster.metadata(None)?;
    let broker = cluster.any_broker()?;
    let names = ["tally.durability", "tally.guard.ordered.sessions"];
    let own: BTreeMap<String, Option<String>> =
        configs::describe(&mut cluster, &Resource::broker(broker), &names)?
            .into_iter()
            .map(|entry| (entry.name, entry.value))
            .collect();
    let own = |name: &str| own.get(name).cloned().flatten();
    let features = features::ask(&mut cluster)?;
    let finalised = |name: &str| {
        let mut rows = features.iter();
        rows.find(|row| row.name == name).and_then(|row| row.level)
    };
    let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let topics = || metadata.topics.iter().filter(|topic| !topic.is_internal);
    let partitions = topics().map(|topic| topic.partitions.len());
    let durability = own("tally.durability");
    let guard = own("tally.guard.ordered.sessions");
    let id = metadata.cluster_id.as_ref().map(|id| id.to_string());
    let fields = vec![
        ("cluster_id", Value::from(id)),
        ("controller", Value::from(metadata.controller_id.0)),
        ("brokers", Value::from(count(metadata.brokers.len()))),
        ("topics", Value::from(count(topics().count()))),
        ("partitions", Value::from(count(partitions.sum()))),
        (
            "transaction_version",
            Value::from(finalised("transaction.version")),
        ),
        ("group_version", Value::from(finalised("group.version"))),
        (
            "metadata_version",
            Value::from(finalised("metadata.version")),
        ),
        ("durability", Value::from(durability.clone())),
        (
            "ordered_session_guard",
            Value::from(guard.as_deref().map(|on| on == "true")),
        ),
    ];
    let mut rows = Rows::new(common.output);
    if common.output == Format::Table {
        for (name, value) in &fields {
            let text = match (*name, value) {
                (_, Value::Null) => continue,
                ("durability", _) => promise(durability.as_deref().unwrap_or_default()),
                ("ordered_session_guard", Value::Bool(true)) => {
                    "on: a late request of the old transaction protocol can't end another transaction".to_owned()
                }
                ("ordered_session_guard", _) => "off".to_owned(),
                (_, Value::Text(text)) => text.clone(),
                (_, value) => value.to_string(),
            };
            rows.line(&format!("{:22} {text}", name.replace('_', " ")));
        }
    } else {
        rows.row("cluster", fields);
    }
    rows.finish();
    Ok(Done::Well)
}

/// What a mode promises.
pub(crate) fn promise(durability: &str) -> String {
    let promise = match durability {
        "always" => "all that is acknowledged survives a power cut",
        "commit" => "a committed transaction survives a power cut",
        "os" => "survives kill -9, not a power cut",
        "memory" => "all of it is gone when the broker ends",
        _ => return durability.to_owned(),
    };
    format!("{durability}: {promise}")
}

/// What a broker has on a disk.
struct LogDir {
    path: String,
    error: i16,
    size_bytes: i64,
    /// `None`: the broker does not say.
    free_bytes: Option<i64>,
}

pub(super) fn brokers(common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let metadata = cluster.metadata(None)?;
    let mut leads: BTreeMap<i32, i64> = BTreeMap::new();
    for partition in metadata.topics.iter().flat_map(|topic| &topic.partitions) {
        *leads.entry(partition.leader_id.0).or_insert(0) += 1;
    }
    let headings = [
        "BROKER", "ADDRESS", "RACK", "ROLE", "LEADS", "ON DISK", "FREE", "LOG DIRS",
    ];
    let mut listing = Listing::new(common.output, "broker", &headings);
    for broker in &metadata.brokers {
        let id = broker.node_id.0;
        let dirs = log_dirs(&mut cluster, id)?;
        let is_controller = metadata.controller_id.0 == id;
        let leads = leads.get(&id).copied().unwrap_or(0);
        let size_bytes: i64 = dirs.iter().map(|dir| dir.size_bytes).sum();
        let free_bytes = dirs.iter().filter_map(|dir| dir.free_bytes).min();
        let paths: Vec<&str> = dirs.iter().map(|dir| dir.path.as_str()).collect();
        let rack = broker.rack.as_ref().map(|rack| rack.to_string());
        listing.row(
            vec![
                id.to_string(),
                format!("{}:{}", broker.host.as_str(), broker.port),
                rack.clone().unwrap_or_else(|| "-".to_owned()),
                if is_controller { "controller" } else { "-" }.to_owned(),
                leads.to_string(),
                size(size_bytes),
                free_bytes.map_or_else(|| "-".to_owned(), size),
                paths.join(" "),
            ],
            vec![
                ("broker", Value::from(id)),
                ("host", Value::from(broker.host.as_str())),
                ("port", Value::from(broker.port)),
                ("rack", Value::from(rack)),
                ("controller", Value::from(is_controller)),
                ("leads", Value::from(leads)),
                ("log_dirs", dirs.iter().map(dir_value).collect()),
            ],
        );
    }
    listing.finish("no brokers");
    Ok(Done::Well)
}

fn dir_value(dir: &LogDir) -> Value {
    Value::Object(vec![
        ("path", Value::from(dir.path.as_str())),
        ("error_code", Value::from(dir.error)),
        ("size_bytes", Value::from(dir.size_bytes)),
        ("free_bytes", Value::from(dir.free_bytes)),
    ])
}

fn log_dirs(cluster: &mut Cluster, broker: i32) -> Result<Vec<LogDir>, Failure> {
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let answer = cluster.call(broker, LOG_DIRS_NEWEST, &request)?;
    check(
        format!("log directories of broker {broker}"),
        answer.error_code,
    )?;
    let dirs = answer.results.into_iter().map(|dir| {
        let partitions = dir.topics.iter().flat_map(|topic| &topic.partitions);
        LogDir {
            path: dir.log_dir.to_string(),
            error: dir.error_code,
            size_bytes: partitions.map(|partition| partition.partition_size).sum(),
            free_bytes: (dir.usable_bytes >= 0).then_some(dir.usable_bytes),
        }
    });
    Ok(dirs.collect())
}

/// Bytes as people say them: `512 B`, `1.5 KiB`, `20 GiB`.
pub(crate) fn size(bytes: i64) -> String {
    let mut unit = "B";
    let (mut whole, mut tenths) = (bytes.max(0), 0);
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if whole < 1024 {
            break;
        }
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = next;
    }
    if whole < 10 && unit != "B" {
        format!("{whole}.{tenths} {unit}")
    } else {
        format!("{whole} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said() {
        let said = [0, 1023, 1024, 1536, 20 << 30, 1 << 62].map(size);
        assert_eq!(
            said,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "20 GiB", "4096 PiB"]
        );
    }
}
