//! A full disk under the whole broker: producers are refused and may try again, readers and open transactions go on, and
//! so does everything when there is room again. The disk is a small tmpfs in a mount namespace of the test's own; where
//! neither root nor user namespaces are to be had, the test is counted as skipped.

use crate::PROGRAM;
use bytes::Bytes;
use kafka_protocol::messages::{DeleteTopicsRequest, InitProducerIdRequest};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::{Client, ProduceCall, Producer, topic_name, transactional_id};
use tally_testkit::waiting::wait_until;

const NAME: &str = "full::n15_a_full_disk_refuses_and_loses_nothing";
/// Set for the process that has the small disk: where it is.
const HERE: &str = "TALLY_TEST_SMALL_DISK";
/// The exit code of a shell that may not mount.
const CANNOT: i32 = 77;
/// What a full disk may answer: a storage error, or to ask for the coordinator again.
const REFUSALS: [i16; 5] = [56, 14, 15, 16, 51];

#[test]
fn n15_a_full_disk_refuses_and_loses_nothing() {
    if let Some(path) = std::env::var_os(HERE) {
        return fill_the_disk(&PathBuf::from(path));
    }
    if is_reference() {
        return; // It ends itself.
    }
    let root = tempfile::tempdir().expect("a directory");
    let script = format!(
        "mount -t tmpfs -o size=96m tally \"${HERE}\" || exit {CANNOT}; exec \"$0\" \"$@\""
    );
    let mut refused = String::new();
    // User namespaces first, root's right to mount second.
    for flags in [&["--user", "--map-root-user", "--mount"][..], &["--mount"]] {
        let ran = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", &script])
            .arg(std::env::current_exe().expect("the test's own program"))
            .args(["--exact", NAME, "--nocapture"])
            .env(HERE, root.path())
            .env("TMPDIR", root.path())
            .output();
        match ran {
            Ok(ran) if ran.status.success() => return,
            Ok(ran) if ran.status.code() == Some(CANNOT) || ran.stderr.starts_with(b"unshare:") => {
                refused = String::from_utf8_lossy(&ran.stderr).into_owned();
            }
            Ok(ran) => panic!(
                "{}\n{}",
                String::from_utf8_lossy(&ran.stdout),
                String::from_utf8_lossy(&ran.stderr)
            ),
            Err(error) => refused = error.to_string(),
        }
    }
    skip(refused.trim());
}

/// Says so past the capture of the test program, where `scripts/test` counts it.
fn skip(reason: &str) {
    assert!(
        std::env::var_os("TALLY_TEST_NO_SKIP").is_none(),
        "no small disk here: {reason}"
    );
    writeln!(std::io::stderr(), "skipped: {NAME}: {reason}").expect("standard error");
}

/// Takes all the room there is; the file that has it.
fn take_all(root: &Path) -> PathBuf {
    let path = root.join("ballast");
    let mut file = File::create(&path).expect("there is room for a name");
    for piece in [1 << 16, 4096] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
    path
}

/// Writes batches of its own; what was acknowledged is at those offsets.
struct Writer {
    producer: Producer,
    sequence: i32,
    offsets: Vec<i64>,
}

impl Writer {
    /// The code for the next batch, which stays the next one until it is acknowledged.
    #[track_caller]
    fn send(&mut self, client: &mut Client, bytes: usize) -> i16 {
        let Producer { id, epoch } = self.producer;
        let mut batch = Batch::idempotent(id, epoch, self.sequence, 1);
        batch.records[0].value = Some(Bytes::from(vec![b'y'; bytes]));
        let produced = client.produce_one("data", 0, batch.encode());
        if produced.error == 0 {
            self.offsets.push(produced.base_offset);
            self.sequence += 1;
        }
        produced.error
    }
}

#[track_caller]
fn read_offsets(client: &mut Client) -> Vec<i64> {
    let read = client.read_uncommitted("data", 0, 0);
    assert_eq!(read.error, 0, "reads go on");
    read.data_offsets()
}

fn fill_the_disk(root: &Path) {
    let mut broker = Broker::start(PROGRAM, &["tally.shards=2"]);
    let pid = broker.pid();
    let mut client = broker.client();
    client.create_topic("data", 1, &[("segment.bytes", "1048576")]);
    client.create_topic("other", 1, &[]);
    client.wait_for_group("group");
    assert_eq!(client.commit_offset("group", "data", 0, 1), 0);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id("id")))
        .with_transaction_timeout_ms(600_000);
    let (error, open) = client.init_producer_id(4, &request);
    assert_eq!(error, 0);
    assert_eq!(client.add_partitions(3, "id", open, &[("data", 0)]), [0]);
    let batch = Batch::transactional(open.id, open.epoch, 0, 1).encode();
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some("id"),
        parts: vec![("data", 0, Some(batch))],
    };
    assert_eq!(client.produce(&call)[0].error, 0);
    let mut writer = Writer {
        producer: client.idempotent_producer(),
        sequence: 0,
        offsets: vec![0],
    };
    assert_eq!(writer.send(&mut client, 100), 0);

    let ballast = take_all(root);
    while_full(&mut client, &mut writer, open);
    std::fs::remove_file(ballast).expect("the ballast");

    wait_until("service returns", || writer.send(&mut client, 100_000) == 0);
    assert_eq!(client.commit_offset("group", "data", 0, 3), 0);
    client.create_topic("later", 1, &[]);
    assert_eq!(broker.pid(), pid);
    broker.kill_and_start();
    let mut client = broker.client();
    assert_eq!(read_offsets(&mut client), writer.offsets);
    client.wait_for_group("group");
    assert_eq!(client.committed_offset("group", "data", 0, false), (0, 3));
    assert_eq!(client.topic("later").error_code, 0);
    assert_eq!(client.topic("other").error_code, 3);
    assert_eq!(writer.send(&mut client, 100), 0, "its sequence goes on");
    assert!(broker.stop());
}

fn while_full(client: &mut Client, writer: &mut Writer, open: Producer) {
    // What was reserved is used up first.
    wait_until("the disk is full", || {
        let error = writer.send(client, 100_000);
        assert!([0, 56].contains(&error), "{error}");
        error == 56
    });
    assert_eq!(read_offsets(client), writer.offsets);
    // A refused batch changed nothing: the same one is refused again, not out of order.
    assert_eq!(writer.send(client, 100_000), 56);
    let committed = client.commit_offset("group", "data", 0, 2);
    assert!(
        committed == 0 || REFUSALS.contains(&committed),
        "{committed}"
    );
    let (error, offset) = client.committed_offset("group", "data", 0, false);
    assert_eq!((error, offset), (0, if committed == 0 { 2 } else { 1 }));
    wait_until("the open transaction ends", || {
        let (error, _) = client.end_txn(3, "id", open, true);
        assert!(error == 0 || REFUSALS.contains(&error), "{error}");
        error == 0
    });
    let end = client.latest("data", 0);
    wait_until("its marker is there", || client.stable("data", 0) == end);
    // Topics can go on a full disk, and room comes of it.
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("other")])
        .with_timeout_ms(30_000);
    assert_eq!(client.call(5, &request).responses[0].error_code, 0);
    let made = client.try_create_topic("another", 1, &[]);
    assert!(
        made == 0 || REFUSALS.contains(&made) || made == -1,
        "{made}"
    );
}
