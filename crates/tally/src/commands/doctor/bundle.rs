//! An archive of what was found and what it was found in: JSON, a line each, in a compressed tar (POSIX ustar).
//!
//! No secret gets into it: what a broker calls sensitive has no value, and neither have properties whose names speak of passwords,
//! secrets or logins. Records are not looked at.

use std::path::Path;

use kafka_protocol::messages::{BrokerId, MetadataResponse};
use tally_protocol::compression::{GZIP, compress};

use super::Finding;
use crate::client::{Cluster, Failure};
use crate::commands::configs::{self, Resource};
use crate::commands::group;
use crate::output::Value;

const BLOCK_BYTES: usize = 512;
/// Parts of names whose values stay here.
const SECRET: [&str; 5] = ["password", "secret", "jaas", "token", "credential"];

pub(super) fn write(
    path: &Path,
    cluster: &mut Cluster,
    findings: &[Finding],
) -> Result<(), Failure> {
    let mut archive = Vec::new();
    let found = findings.iter().map(|row| Value::Object(super::fields(row)));
    add(&mut archive, "findings.jsonl", &lines(found));
    let metadata = cluster.metadata(None)?;
    add(&mut archive, "topics.jsonl", &topics(&metadata));
    let served = cluster.served().clone();
    let apis = served.into_iter().map(|(key, (min, max))| {
        Value::Object(vec![
            ("api_key", Value::from(key)),
            ("min", Value::from(min)),
            ("max", Value::from(max)),
        ])
    });
    add(&mut archive, "apis.jsonl", &lines(apis));
    for broker in cluster.brokers() {
        let entries = configs::describe(cluster, &Resource::broker(broker), &[])?;
        let rows = entries.into_iter().map(|entry| {
            let is_secret = entry.is_sensitive || is_secret(&entry.name);
            let source = entry.source_name();
            Value::Object(vec![
                ("name", Value::from(entry.name)),
                ("value", Value::from(entry.value.filter(|_| !is_secret))),
                ("redacted", Value::from(is_secret)),
                ("source", Value::from(source)),
            ])
        });
        let name = format!("broker-{broker}-properties.jsonl");
        add(&mut archive, &name, &lines(rows));
    }
    let groups = group::states(cluster)?;
    let groups = groups.into_iter().map(|(name, kind, state)| {
        Value::Object(vec![
            ("group", Value::from(name)),
            ("type", Value::from(kind)),
            ("state", Value::from(state)),
        ])
    });
    add(&mut archive, "groups.jsonl", &lines(groups));
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
    let unwritten = |error: std::io::Error| {
        Failure::Usage(format!(
            "--bundle: cannot write {}: {error}",
            path.display()
        ))
    };
    let packed = compress(GZIP, &archive).map_err(unwritten)?;
    std::fs::write(path, packed).map_err(unwritten)
}

fn topics(metadata: &MetadataResponse) -> String {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| Value::from(id.0)).collect();
    lines(metadata.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|row| {
            Value::Object(vec![
                ("partition", Value::from(row.partition_index)),
                ("leader", Value::from(row.leader_id.0)),
                ("replicas", ids(&row.replica_nodes)),
                ("in_sync", ids(&row.isr_nodes)),
            ])
        });
        let name = topic.name.as_ref().map(|name| name.to_string());
        Value::Object(vec![
            ("topic", Value::from(name)),
            ("partitions", partitions.collect()),
        ])
    }))
}

fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|part| name.contains(part))
}

fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

/// A file of the archive: a header of one block, then the text in whole blocks.
fn add(archive: &mut Vec<u8>, name: &str, text: &str) {
    let mut header = [0u8; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", text.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(text.as_bytes());
    let whole = archive.len().next_multiple_of(BLOCK_BYTES);
    archive.resize(whole, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in [
            "ssl.keystore.password",
            "sasl.jaas.config",
            "delegation.token.secret.key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("log.dirs"));
    }

    #[test]
    fn an_archive_is_of_whole_blocks() {
        let mut archive = Vec::new();
        add(&mut archive, "a", "text\n");
        assert_eq!(archive.len(), 2 * BLOCK_BYTES);
        assert_eq!(&archive[124..135], b"00000000005");
        assert_eq!(&archive[BLOCK_BYTES..BLOCK_BYTES + 5], b"text\n");
    }
}
