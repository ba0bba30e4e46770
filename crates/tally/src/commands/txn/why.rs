//! `tally txn why`: what holds back the readers of a topic, or a group, and what happened to a transactional id.
//!
//! What a word means is found out by asking: a partition if it ends with a number and the topic is there, else a topic, an
//! id, a group. What was there before a restart of the broker is not known any more; its log has it, under the same codes.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use kafka_protocol::messages::{GroupId, OffsetFetchRequest};

use super::ask::{self, Described, Filter, NOT_FOUND, Producer};
use super::list::{OFFSETS_TOPIC, age_ms};
use super::{Place, Why, now_ms};
use crate::client::{Cluster, Failure, check, text};
use crate::commands::place::{COMMITTED, LATEST, UNCOMMITTED, offset_at};
use crate::commands::{Common, Done, in_words};
use crate::output::{Format, Rows, Value, print};
use tally_protocol::transaction_note::TransactionNote;

/// The last version that asks for one group.
const OFFSET_FETCH_NEWEST: i16 = 7;
/// UNSTABLE_OFFSET_COMMIT.
const PENDING: i16 = 88;

/// So many other partitions of a transaction are asked where it begins there.
const OTHERS_ASKED: usize = 20;
/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Puts a terminal's cursor at the top and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(why: &Why, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let mut answer = Answer {
        rows: Rows::new(common.output),
        is_table: common.output == Format::Table,
        now_ms: now_ms(),
        is_open: false,
    };
    let clears = why.watch && answer.is_table && std::io::stdout().is_terminal();
    loop {
        if clears {
            print(CLEAR);
        }
        answer.look(&mut cluster, &why.what)?;
        answer.rows.flush();
        if !why.watch || !answer.is_open || answer.rows.is_closed() {
            break;
        }
        thread::sleep(WATCH_INTERVAL);
        cluster.renew(Duration::ZERO);
        answer.now_ms = now_ms();
        answer.is_open = false;
        if !clears {
            answer.rows.line("");
        }
    }
    answer.rows.finish();
    Ok(Done::Well)
}

/// Where readers of a partition stand.
struct Ends {
    /// The last stable offset.
    readable: i64,
    /// The high watermark.
    written: i64,
}

struct Answer {
    rows: Rows,
    is_table: bool,
    now_ms: i64,
    /// Whether a transaction is open.
    is_open: bool,
}

impl Answer {
    fn look(&mut self, cluster: &mut Cluster, what: &str) -> Result<(), Failure> {
        if let Ok(place) = Place::parse(what)
            && cluster.topic(&place.topic)?.is_some()
        {
            self.topic(cluster, &place.topic, Some(place.partition))?;
        } else if cluster.topic(what)?.is_some() {
            self.topic(cluster, what, None)?;
        } else {
            let ids = [what.to_owned()];
            match ask::describe(cluster, &ids)?.pop() {
                Some(row) if row.error != NOT_FOUND || row.note.is_some() => self.id(&row)?,
                _ => self.group(cluster, what)?,
            }
        }
        Ok(())
    }

    fn topic(
        &mut self,
        cluster: &mut Cluster,
        topic: &str,
        partition: Option<i32>,
    ) -> Result<(), Failure> {
        let ends = ends(cluster, topic, partition)?;
        let producers = ask::producers(cluster, topic, partition)?;
        for (place, ends) in ends {
            let open: Vec<&Producer> = producers
                .iter()
                .filter(|producer| producer.place == place && producer.open_from.is_some())
                .collect();
            self.rows.line(&if ends.readable >= ends.written {
                format!("{place}: all of it is readable, to {}.", ends.written)
            } else {
                format!(
                    "{place}: readable to {}, written to {}: {} offsets are held back.",
                    ends.readable,
                    ends.written,
                    ends.written - ends.readable
                )
            });
            for producer in open {
                let held = Some((&place, &ends, producer.open_from.unwrap_or_default()));
                self.cause(cluster, producer, held)?;
            }
        }
        Ok(())
    }

    /// One open transaction. `held`: where it holds back readers, and from where on.
    fn cause(
        &mut self,
        cluster: &mut Cluster,
        producer: &Producer,
        held: Option<(&Place, &Ends, i64)>,
    ) -> Result<(), Failure> {
        let row = owner_of(cluster, producer.producer_id)?;
        self.is_open = true;
        if !self.is_table {
            self.cause_row(producer, row.as_ref(), held);
            return Ok(());
        }
        let (pid, epoch) = (producer.producer_id, producer.producer_epoch);
        let Some(row) = row else {
            self.rows.line(&format!(
                "Cause   producer {pid}, epoch {epoch}: a transaction that no coordinator knows. Nobody will end it."
            ));
            self.rows.line(&format!(
                "Now     tally txn abort --pid {pid} --epoch {epoch} --partition {} --yes",
                producer.place
            ));
            return Ok(());
        };
        let from = producer.open_from.unwrap_or_default();
        let since = row.started_ms.zip(age_ms(&row, self.now_ms));
        let since = since.map_or_else(String::new, |(started_ms, age_ms)| {
            format!(" since {} ({})", time_of_day(started_ms), in_words(age_ms))
        });
        self.rows.line(&format!(
            "Cause   transaction {} (producer {pid}, epoch {epoch}) has been open{since}, here from {from} on. State: {}.",
            row.id, row.state
        ));
        let others = others(cluster, &row, producer)?;
        if !others.is_empty() {
            self.rows
                .line(&format!("        It also holds: {}.", others.join(", ")));
        }
        if let Some(note) = row.note.as_ref().filter(|note| !note.address.is_empty()) {
            let client = &note.client_id;
            let software = match note.software.as_str() {
                "" => String::new(),
                software => format!("{software}, "),
            };
            self.rows.line(&format!(
                "Client  {software}client.id {client}, {}{}.",
                note.address,
                last_heard(note)
            ));
        }
        if let Some(age_ms) = age_ms(&row, self.now_ms) {
            let left_ms = i64::from(row.timeout_ms).saturating_sub(age_ms);
            self.rows.line(&format!(
                "Next    it ends by itself in {} (transaction.timeout.ms={}).",
                in_words(left_ms),
                row.timeout_ms
            ));
        }
        self.rows.line(&format!(
            "Now     tally txn abort {} --yes    (fences that producer; its records stay invisible)",
            row.id
        ));
        Ok(())
    }

    fn cause_row(
        &mut self,
        producer: &Producer,
        row: Option<&Described>,
        held: Option<(&Place, &Ends, i64)>,
    ) {
        let age_ms = row.and_then(|row| age_ms(row, self.now_ms));
        let timeout_ms = row.map(|row| row.timeout_ms);
        let note = row.and_then(|row| row.note.as_ref());
        let left_ms = age_ms
            .zip(timeout_ms)
            .map(|(age_ms, timeout_ms)| i64::from(timeout_ms).saturating_sub(age_ms));
        let fields = vec![
            ("topic", Value::from(producer.place.topic.as_str())),
            ("partition", Value::from(producer.place.partition)),
            (
                "readable_to",
                Value::from(held.map(|(_, ends, _)| ends.readable)),
            ),
            (
                "written_to",
                Value::from(held.map(|(_, ends, _)| ends.written)),
            ),
            (
                "held_back",
                Value::from(held.map(|(_, ends, _)| ends.written - ends.readable)),
            ),
            ("open_from", Value::from(producer.open_from)),
            ("producer_id", Value::from(producer.producer_id)),
            ("producer_epoch", Value::from(producer.producer_epoch)),
            (
                "transactional_id",
                Value::from(row.map(|row| row.id.as_str())),
            ),
            ("state", Value::from(row.map(|row| row.state.as_str()))),
            ("age_ms", Value::from(age_ms)),
            ("ends_in_ms", Value::from(left_ms)),
            (
                "owner_heard_ago_ms",
                Value::from(note.and_then(|note| note.heard_ago_ms)),
            ),
            (
                "owner_gone_ago_ms",
                Value::from(note.and_then(|note| note.gone_ago_ms)),
            ),
        ];
        self.rows.row("cause", fields);
    }

    /// What happened to an id, and where it stands.
    fn id(&mut self, row: &Described) -> Result<(), Failure> {
        if row.error != NOT_FOUND {
            check(row.id.clone(), row.error)?;
        }
        self.is_open = row.is_open();
        let note = row.note.clone().unwrap_or_default();
        if !self.is_table {
            self.id_row(row, &note);
            return Ok(());
        }
        let who = format!(
            "producer {}, epoch {}",
            note.producer_id, note.producer_epoch
        );
        let ago = in_words(self.now_ms.saturating_sub(note.at_ms));
        let happened = match note.reason.split_once(' ').map_or("", |(_, name)| name) {
            "txn.timeout" => format!("its transaction was aborted {ago} ago: open for longer than its timeout ({who} is fenced)"),
            "txn.fenced" => format!("it was fenced {ago} ago: a newer instance called InitProducerId while a transaction was open ({who} is fenced)"),
            "txn.taken_over" => format!("it was fenced {ago} ago: a newer instance called InitProducerId; nothing was open ({who} is fenced)"),
            "txn.power_cut" => format!("it was fenced {ago} ago: after a power cut what was open is aborted ({who} is fenced)"),
            "txn.aborted" => format!("its client aborted a transaction {ago} ago ({who})"),
            "txn.expired" => format!("it was forgotten {ago} ago: not used for transactional.id.expiration.ms ({who})"),
            _ => "nothing is noted: it was not fenced, aborted or forgotten since the broker was started".to_owned(),
        };
        self.rows.line(&format!("{}: {happened}.", row.id));
        if !note.reason.is_empty() {
            let code = note.reason.split(' ').next().unwrap_or_default();
            let is_everyday = ["I2105", "I2109"].contains(&code);
            let level = if is_everyday { " at level debug" } else { "" };
            self.rows
                .line(&format!("Code    {code}, also in the broker's log{level}"));
        }
        if !note.address.is_empty() {
            self.rows.line(&format!(
                "Owner   client.id {}, {} called InitProducerId last{}",
                note.client_id,
                note.address,
                last_heard(&note)
            ));
        }
        if row.error != NOT_FOUND {
            let (pid, epoch) = (row.producer_id, row.producer_epoch);
            self.rows.line(&format!(
                "State   {}, producer {pid}, epoch {epoch}",
                row.state
            ));
        }
        if note.reason.ends_with("txn.fenced") {
            self.rows
                .line("If both belong to one deployment, give each its own transactional.id.");
        }
        Ok(())
    }

    fn id_row(&mut self, row: &Described, note: &TransactionNote) {
        let text = |text: &str| Value::from((!text.is_empty()).then_some(text));
        let happened = !note.reason.is_empty();
        self.rows.row(
            "id",
            vec![
                ("transactional_id", Value::from(row.id.as_str())),
                ("state", text(&row.state)),
                ("reason", text(&note.reason)),
                ("at_ms", Value::from(happened.then_some(note.at_ms))),
                (
                    "producer_id",
                    Value::from(happened.then_some(note.producer_id)),
                ),
                (
                    "producer_epoch",
                    Value::from(happened.then_some(note.producer_epoch)),
                ),
                ("owner_client_id", text(&note.client_id)),
                ("owner_software", text(&note.software)),
                ("owner_address", text(&note.address)),
                ("owner_heard_ago_ms", Value::from(note.heard_ago_ms)),
                ("owner_gone_ago_ms", Value::from(note.gone_ago_ms)),
            ],
        );
    }

    /// Offsets that wait for the end of a transaction.
    fn group(&mut self, cluster: &mut Cluster, group: &str) -> Result<(), Failure> {
        let broker = cluster.group_coordinator(group)?;
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(None)
            .with_require_stable(true);
        let offsets = cluster.call(broker, OFFSET_FETCH_NEWEST, &request)?;
        check(group, offsets.error_code)?;
        let mut pending = Vec::new();
        for topic in &offsets.topics {
            let unstable = topic
                .partitions
                .iter()
                .filter(|row| row.error_code == PENDING);
            pending.extend(unstable.map(|row| Place {
                topic: topic.name.to_string(),
                partition: row.partition_index,
            }));
        }
        if pending.is_empty() {
            if offsets.topics.is_empty() {
                let what =
                    format!("{group} is no topic, no transactional id and no group with offsets");
                return Err(Failure::Unable(what));
            }
            self.rows
                .line(&format!("{group}: no offset waits for a transaction."));
            return Ok(());
        }
        let names: Vec<String> = pending.iter().map(Place::to_string).collect();
        self.rows.line(&format!(
            "{group}: the offsets of {} wait for the end of a transaction.",
            names.join(", ")
        ));
        let partition = partition_of(cluster, group)?;
        let open = ask::producers(cluster, OFFSETS_TOPIC, Some(partition))?;
        for producer in open.iter().filter(|producer| producer.open_from.is_some()) {
            self.cause(cluster, producer, None)?;
        }
        Ok(())
    }
}

/// The partition that keeps a group's offsets.
fn partition_of(cluster: &mut Cluster, group: &str) -> Result<i32, Failure> {
    let topic = cluster.topic(OFFSETS_TOPIC)?;
    let count = topic.and_then(|topic| i32::try_from(topic.partitions.len()).ok());
    let count = count.filter(|count| *count > 0);
    let count = count.ok_or_else(|| Failure::refused(OFFSETS_TOPIC, 3))?;
    Ok(tally_protocol::ids::coordinator_partition(group, count))
}

/// The id whose transaction a producer has open.
fn owner_of(cluster: &mut Cluster, producer_id: i64) -> Result<Option<Described>, Failure> {
    let filter = Filter {
        producer_ids: vec![producer_id],
        ..Filter::default()
    };
    let ids: Vec<String> = ask::list(cluster, &filter)?
        .into_iter()
        .map(|row| row.id)
        .collect();
    let described = ask::describe(cluster, &ids)?;
    Ok(described.into_iter().find(Described::is_open))
}

/// When the connection that took the id over was heard of last; nothing if the broker does not say.
fn last_heard(note: &TransactionNote) -> String {
    let ago = |ms: u64| in_words(i64::try_from(ms).unwrap_or(i64::MAX));
    let heard = note
        .heard_ago_ms
        .map(|ms| format!(", last heard of {} ago", ago(ms)));
    let gone = note
        .gone_ago_ms
        .map(|ms| format!("; connection closed {} ago", ago(ms)));
    heard.unwrap_or_default() + &gone.unwrap_or_default()
}

/// What else a transaction holds, and from where on.
fn others(
    cluster: &mut Cluster,
    row: &Described,
    producer: &Producer,
) -> Result<Vec<String>, Failure> {
    let mut others = Vec::new();
    let held = row
        .partitions
        .iter()
        .filter(|place| **place != producer.place);
    for (nth, place) in held.enumerate() {
        let mut from = None;
        if nth < OTHERS_ASKED && place.topic != OFFSETS_TOPIC {
            let producers = match ask::producers(cluster, &place.topic, Some(place.partition)) {
                // Its topic was deleted: the transaction names it to its end.
                Err(Failure::Refused { .. } | Failure::Unable(_)) => Vec::new(),
                producers => producers?,
            };
            let its = |other: &&Producer| other.producer_id == row.producer_id;
            from = producers.iter().find(its).and_then(|other| other.open_from);
        }
        others.push(match from {
            Some(from) => format!("{place} from {from}"),
            None => place.to_string(),
        });
    }
    Ok(others)
}

/// A time of today or of the day before, by which logs can be searched.
fn time_of_day(ms: i64) -> String {
    let seconds = ms.div_euclid(1000).rem_euclid(86_400);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02} UTC", seconds % 60)
}

/// The last stable offset and the high watermark of each partition.
fn ends(
    cluster: &mut Cluster,
    topic: &str,
    partition: Option<i32>,
) -> Result<BTreeMap<Place, Ends>, Failure> {
    let unknown = || Failure::refused(format!("topic {topic}"), 3);
    let found = cluster.topic(topic)?.ok_or_else(unknown)?;
    let mut ends = BTreeMap::new();
    for row in &found.partitions {
        if partition.is_some_and(|wanted| wanted != row.partition_index) {
            continue;
        }
        let place = Place {
            topic: topic.to_owned(),
            partition: row.partition_index,
        };
        let leader = row.leader_id.0;
        let mut end = |isolation| offset_at(cluster, &place, leader, (LATEST, isolation));
        let written = end(UNCOMMITTED)?;
        let readable = end(COMMITTED)?.min(written);
        ends.insert(place, Ends { readable, written });
    }
    if ends.is_empty() {
        return Err(unknown());
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_that_of_logs() {
        assert_eq!(time_of_day(0), "00:00:00 UTC");
        assert_eq!(time_of_day(1_795_278_863_009), "16:34:23 UTC");
    }
}
