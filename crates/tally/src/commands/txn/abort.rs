//! `tally txn abort`: ends what is open. By its id a transaction is aborted as a newer producer would do it, which fences the
//! one that has it (InitProducerId); a transaction that no coordinator knows gets its marker on the partition it holds up
//! (WriteTxnMarkers).

use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    InitProducerIdRequest, ProducerId as WireProducerId, TopicName, TransactionalId,
    WriteTxnMarkersRequest,
};

use super::ask::{self, Filter};
use super::{Abort, Place};
use crate::client::{Cluster, Failure, NOT_YET, check, text};
use crate::commands::{Common, Done};
use crate::output::{Listing, Value};

const INIT_PRODUCER_ID_NEWEST: i16 = 4;
const WRITE_TXN_MARKERS_NEWEST: i16 = 1;
/// CONCURRENT_TRANSACTIONS: the transaction is being aborted.
const ENDING: i16 = 51;
/// How often its end is asked for.
const PAUSE: Duration = Duration::from_millis(50);
/// What InitProducerId asks for if the id had no timeout to keep.
const TIMEOUT_MS: i32 = 60_000;

pub(super) fn run(abort: &Abort, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    if let (Some(pid), Some(epoch), Some(partition)) = (abort.pid, abort.epoch, &abort.partition) {
        return marker(
            &mut cluster,
            abort,
            (pid, epoch, Place::parse(partition)?),
            common,
        );
    }
    let ids = match (&abort.id, &abort.prefix) {
        (Some(id), _) => vec![id.clone()],
        (None, Some(prefix)) => with_prefix(&mut cluster, prefix)?,
        (None, None) => return Err(Failure::Usage("say which transaction".to_owned())),
    };
    let described = ask::describe(&mut cluster, &ids)?;
    for row in &described {
        check(row.id.clone(), row.error)?;
    }
    let headings = ["TRANSACTIONAL ID", "STATE BEFORE", "DONE"];
    let mut listing = Listing::new(common.output, "aborted", &headings);
    for row in &described {
        let is_done = is_wanted(abort)?;
        if is_done {
            fence(&mut cluster, &row.id, row.timeout_ms)?;
        }
        listing.row(
            vec![
                row.id.clone(),
                row.state.clone(),
                done(is_done, row.is_open()).to_owned(),
            ],
            vec![
                ("transactional_id", Value::from(row.id.as_str())),
                ("state_before", Value::from(row.state.as_str())),
                ("done", Value::from(is_done)),
            ],
        );
    }
    listing.finish("no transaction is open");
    Ok(Done::Well)
}

/// Whether it is to be done; neither flag is no answer.
fn is_wanted(abort: &Abort) -> Result<bool, Failure> {
    match (abort.yes, abort.dry_run) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(Failure::Usage(
            "this fences a producer: add --yes to do it, --dry-run to see what would be done"
                .to_owned(),
        )),
    }
}

fn done(is_done: bool, was_open: bool) -> &'static str {
    match (is_done, was_open) {
        (true, true) => "aborted, its producer is fenced",
        (true, false) => "nothing was open, its producer is fenced",
        (false, true) => "would be aborted",
        (false, false) => "nothing is open, its producer would be fenced",
    }
}

fn marked(is_done: bool) -> &'static str {
    if is_done {
        "abort marker written"
    } else {
        "an abort marker would be written"
    }
}

fn with_prefix(cluster: &mut Cluster, prefix: &str) -> Result<Vec<String>, Failure> {
    let filter = Filter {
        states: vec!["Ongoing".to_owned()],
        prefix: Some(prefix.to_owned()),
        ..Filter::default()
    };
    let listed = ask::list(cluster, &filter)?;
    Ok(listed.into_iter().map(|row| row.id).collect())
}

/// Takes the id over, as a newer producer would, until the transaction before is ended.
fn fence(cluster: &mut Cluster, id: &str, timeout_ms: i32) -> Result<(), Failure> {
    let broker = cluster.coordinator(id)?;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(id))))
        .with_transaction_timeout_ms(if timeout_ms > 0 {
            timeout_ms
        } else {
            TIMEOUT_MS
        })
        .with_producer_id(WireProducerId(-1))
        .with_producer_epoch(-1);
    loop {
        let answer = cluster.call(broker, INIT_PRODUCER_ID_NEWEST, &request)?;
        let is_pending = answer.error_code == ENDING || NOT_YET.contains(&answer.error_code);
        if !is_pending {
            return check(id, answer.error_code);
        }
        if Instant::now() + PAUSE > cluster.deadline() {
            return Err(Failure::TimedOut(format!("the coordinator of {id}")));
        }
        thread::sleep(PAUSE);
    }
}

/// Writes the marker that nobody else writes.
fn marker(
    cluster: &mut Cluster,
    abort: &Abort,
    (pid, epoch, place): (i64, i16, Place),
    common: &Common,
) -> Result<Done, Failure> {
    let producers = ask::producers(cluster, &place.topic, Some(place.partition))?;
    let is_it = |producer: &&ask::Producer| {
        producer.producer_id == pid && producer.producer_epoch == i32::from(epoch)
    };
    let open = producers.iter().find(is_it).and_then(|it| {
        let from = it.open_from?;
        Some((from, it.coordinator_epoch))
    });
    let Some((from, coordinator_epoch)) = open else {
        return Err(Failure::refused(
            format!("producer {pid}, epoch {epoch} has no transaction open on {place}"),
            48,
        ));
    };
    let is_done = is_wanted(abort)?;
    if is_done {
        write_marker(cluster, (pid, epoch), &place, coordinator_epoch)?;
    }
    let headings = ["PARTITION", "PRODUCER", "OPEN FROM", "DONE"];
    let mut listing = Listing::new(common.output, "aborted", &headings);
    listing.row(
        vec![
            place.to_string(),
            format!("{pid} e{epoch}"),
            from.to_string(),
            marked(is_done).to_owned(),
        ],
        vec![
            ("topic", Value::from(place.topic.as_str())),
            ("partition", Value::from(place.partition)),
            ("producer_id", Value::from(pid)),
            ("producer_epoch", Value::from(epoch)),
            ("open_from", Value::from(from)),
            ("done", Value::from(is_done)),
        ],
    );
    listing.finish("");
    Ok(Done::Well)
}

fn write_marker(
    cluster: &mut Cluster,
    (pid, epoch): (i64, i16),
    place: &Place,
    coordinator_epoch: i32,
) -> Result<(), Failure> {
    let topic = cluster.topic(&place.topic)?;
    let partition = topic.and_then(|topic| {
        let mut partitions = topic.partitions.into_iter();
        partitions.find(|partition| partition.partition_index == place.partition)
    });
    let leader = partition.ok_or_else(|| Failure::refused(place.to_string(), 3))?;
    let request = WriteTxnMarkersRequest::default().with_markers(vec![
        WritableTxnMarker::default()
            .with_producer_id(WireProducerId(pid))
            .with_producer_epoch(epoch)
            .with_transaction_result(false)
            .with_coordinator_epoch(coordinator_epoch.max(0))
            .with_topics(vec![
                WritableTxnMarkerTopic::default()
                    .with_name(TopicName(text(&place.topic)))
                    .with_partition_indexes(vec![place.partition]),
            ]),
    ]);
    let answer = cluster.call(leader.leader_id.0, WRITE_TXN_MARKERS_NEWEST, &request)?;
    let results = answer.markers.iter().flat_map(|marker| &marker.topics);
    for result in results.flat_map(|topic| &topic.partitions) {
        check(place.to_string(), result.error_code)?;
    }
    Ok(())
}
