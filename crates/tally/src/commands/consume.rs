//! `tally consume`: records of topics, to the end or on and on, alone or as a member of a group.
//!
//! Unless told otherwise it reads what is decided: records of open and aborted transactions are not shown.
//! A group's offsets are committed only of what has been written to standard output.

mod consumer;
mod grouped;
mod matching;
mod member;
mod membership;
mod position;
mod show;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use self::consumer::ConsumerMember;
use self::matching::Matching;
use self::member::Member;
use self::membership::{Membership, Protocol, Subscription};
use self::position::{From, parse_from};
use self::show::Show;
use super::place::{COMMITTED, Place, UNCOMMITTED};
use super::{Done, Reach, finish, interrupt};
use crate::client::{ClientConfig, Cluster, Failure, Fetched, Manner, Position, Standing, fetch};
use crate::decode::each_record;
use crate::output::{Format, note, remark};

/// How long a broker may wait for records, if there is one to ask and if there are more.
const WAIT_ONE_MS: i32 = 500;
const WAIT_MANY_MS: i32 = 100;
/// Before something is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// OFFSET_OUT_OF_RANGE.
const OUT_OF_RANGE: i16 = 1;
/// A leader that moves, is not there yet or knows it later.
const TRY_AGAIN: [i16; 6] = [3, 5, 6, 56, 74, 75];

/// `tally consume`.
#[derive(Args, Debug)]
pub(crate) struct Consume {
    /// Topics
    #[arg(value_name = "TOPIC", required_unless_present = "include")]
    topics: Vec<String>,
    /// All topics whose whole name matches, but those of the brokers; with --follow also those that come later. With
    /// --group-protocol consumer the broker matches
    #[arg(long, value_name = "REGEX", conflicts_with = "topics")]
    include: Option<String>,
    /// Where to begin: start, end, an offset, -N for the last N of each partition, @TIME (@1h ago, or @MILLISECONDS since
    /// 1970); with a group: where it has committed nothing [default: start]. Or how to write it, as --output
    #[arg(short = 'o', long = "offset", value_name = "start|end|N|-N|@TIME", allow_hyphen_values = true, value_parser = parse_choice)]
    choices: Vec<Choice>,
    /// How to write it [default: the values, a line each]
    #[arg(long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    /// End after so many records
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only these partitions, as 0,2,4-6
    #[arg(short, long, value_name = "LIST", value_parser = parse_partitions, conflicts_with = "group")]
    partitions: Option<Partitions>,
    /// Read as a member of this group and commit what was read
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// How the members of the group share the partitions [default: group.protocol of --client-config, or classic]
    #[arg(long, value_name = "PROTOCOL", value_enum, requires = "group")]
    group_protocol: Option<Protocol>,
    /// What is written of a record: %k key, %v value, %h headers, %t topic, %p partition, %o offset, %T time, \n
    #[arg(short, long, value_name = "FORMAT", conflicts_with_all = ["output", "meta"])]
    format: Option<String>,
    /// Only what is decided: nothing of open or aborted transactions. This is the default
    #[arg(long, conflicts_with = "uncommitted")]
    committed: bool,
    /// All that is written, of open and aborted transactions too
    #[arg(long, conflicts_with = "show_aborted")]
    uncommitted: bool,
    /// Show the ends of transactions too
    #[arg(long)]
    show_markers: bool,
    /// Show records of aborted transactions too, marked as such
    #[arg(long)]
    show_aborted: bool,
    /// Show where each record is, its time, key and headers
    #[arg(long)]
    meta: bool,
    /// Go on when the end is reached
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    reach: Reach,
}

/// What `-o` says: where to begin, or, as everywhere else, how to write.
#[derive(Clone, Copy, Debug)]
enum Choice {
    From(From),
    Format(Format),
}

fn parse_choice(text: &str) -> Result<Choice, String> {
    if let Ok(format) = Format::from_str(text, false) {
        return Ok(Choice::Format(format));
    }
    parse_from(text).map(Choice::From)
}

#[derive(Clone, Debug)]
struct Partitions(Vec<i32>);

fn parse_partitions(text: &str) -> Result<Partitions, String> {
    let wrong = || "must be numbers and ranges, like 0,2,4-6".to_owned();
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0);
    let mut partitions = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
        // More partitions than a broker has are no list of partitions.
        if last < first || last - first >= 100_000 {
            return Err(wrong());
        }
        partitions.extend(first..=last);
    }
    Ok(Partitions(partitions))
}

/// Runs `tally consume`.
pub(crate) fn run(consume: &Consume) -> ExitCode {
    finish(read(consume))
}

impl Consume {
    fn from(&self) -> Option<From> {
        self.choices.iter().rev().find_map(|choice| match choice {
            Choice::From(from) => Some(*from),
            Choice::Format(_) => None,
        })
    }

    fn output(&self) -> Option<Format> {
        let chosen = self.choices.iter().rev().find_map(|choice| match choice {
            Choice::Format(format) => Some(*format),
            Choice::From(_) => None,
        });
        self.output.or(chosen)
    }

    /// The flag, or Kafka's `group.protocol` of the file.
    fn protocol(&self, config: &ClientConfig) -> Result<Protocol, Failure> {
        let named = config.property("group.protocol").map(|name| {
            Protocol::from_str(name, true).map_err(|_| {
                Failure::Usage(format!(
                    "group.protocol={name}: must be classic or consumer"
                ))
            })
        });
        let named = named.transpose()?.unwrap_or(Protocol::Classic);
        Ok(self.group_protocol.unwrap_or(named))
    }

    fn isolation(&self) -> i8 {
        if self.uncommitted {
            UNCOMMITTED
        } else {
            COMMITTED
        }
    }
}

fn read(consume: &Consume) -> Result<Done, Failure> {
    let output = consume.output();
    if consume.format.is_some() && output.is_some() {
        return Err(Failure::Usage(
            "--format and --output are two ways to write it: choose one".to_owned(),
        ));
    }
    let is_meta = consume.meta || consume.show_markers || consume.show_aborted;
    let show = Show::new(consume.format.as_deref(), output, is_meta)?;
    let config = consume.reach.config()?;
    let protocol = consume.protocol(&config)?;
    let stop = interrupt::watch();
    let mut cluster = consume.reach.open()?;
    let matching = matching(consume, protocol, &mut cluster)?;
    let counts = match &matching {
        Some(matching) => matching.counts.clone(),
        None => counts(consume, &mut cluster)?,
    };
    let mut reader = Reader {
        consume,
        cluster,
        show,
        stop,
        reads: BTreeMap::new(),
        left: consume.count.unwrap_or(u64::MAX),
        lost_since: None,
        empty_since: None,
        share_until: None,
        matching,
    };
    match &consume.group {
        Some(group) if protocol == Protocol::Consumer => {
            let include = consume.include.clone().map(Subscription::Matching);
            let topics = || Subscription::Topics(consume.topics.clone());
            let assignor = config.property("group.remote.assignor").map(str::to_owned);
            let member = ConsumerMember::new(group, include.unwrap_or_else(topics), assignor);
            reader.with_group(Membership::Consumer(member))?;
        }
        Some(group) => {
            let topics: Vec<String> = counts.keys().cloned().collect();
            let member = Member::new(group, &topics, counts);
            reader.with_group(Membership::Classic(member))?;
        }
        None => reader.alone(&counts)?,
    }
    reader.show.finish();
    Ok(Done::Well)
}

/// The topics to read, with the number of their partitions.
fn counts(consume: &Consume, cluster: &mut Cluster) -> Result<BTreeMap<String, usize>, Failure> {
    let mut counts = BTreeMap::new();
    for topic in &consume.topics {
        let found = cluster.topic(topic)?;
        let unknown = || Failure::refused(format!("topic {topic}"), 3);
        counts.insert(topic.clone(), found.ok_or_else(unknown)?.partitions.len());
    }
    Ok(counts)
}

/// Those that match `--include`; nothing where the broker matches.
fn matching(
    consume: &Consume,
    protocol: Protocol,
    cluster: &mut Cluster,
) -> Result<Option<Matching>, Failure> {
    let Some(include) = &consume.include else {
        return Ok(None);
    };
    if consume.group.is_some() && protocol == Protocol::Consumer {
        return Ok(None);
    }
    let matching = Matching::begin(include, cluster)?;
    if matching.counts.is_empty() && !consume.follow {
        return Err(Failure::Unable(format!(
            "no topic matches --include {include}"
        )));
    }
    Ok(Some(matching))
}

/// How far a partition is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Read {
    next: i64,
    /// Where to stop.
    end: i64,
}

impl Read {
    fn is_done(self) -> bool {
        self.next >= self.end
    }
}

struct Reader<'a> {
    consume: &'a Consume,
    cluster: Cluster,
    show: Show,
    stop: Arc<AtomicBool>,
    reads: BTreeMap<Place, Read>,
    /// Records that may still be shown.
    left: u64,
    /// Since when something is in the way.
    lost_since: Option<Instant>,
    /// Since when there is nothing where something should be.
    empty_since: Option<Instant>,
    /// Until when a member that has nothing may still be given something.
    share_until: Option<Instant>,
    /// What `--include` matches, where this process matches.
    matching: Option<Matching>,
}

impl Reader<'_> {
    fn alone(&mut self, counts: &BTreeMap<String, usize>) -> Result<(), Failure> {
        for (topic, count) in counts {
            let count = i32::try_from(*count).unwrap_or(i32::MAX);
            let all: Vec<i32> = (0..count).collect();
            let wanted = self.consume.partitions.as_ref();
            for partition in wanted.map_or(all, |list| list.0.clone()) {
                if partition >= count {
                    return Err(Failure::Usage(format!(
                        "topic {topic} has {count} partitions, 0 to {}: there is no {partition}",
                        count - 1
                    )));
                }
                let topic = topic.clone();
                self.begin(Place { topic, partition }, None)?;
            }
        }
        while !self.is_over() {
            self.round()?;
            self.show.flush();
            match self.look_for_topics() {
                Ok(true) => self.begin_late()?,
                Ok(false) => {}
                Err(failure) => self.trouble(failure)?,
            }
        }
        Ok(())
    }

    /// Looks from time to time whether other topics match now.
    fn look_for_topics(&mut self) -> Result<bool, Failure> {
        match &mut self.matching {
            Some(matching) if self.consume.follow && matching.is_due() => {
                self.cluster.renew(Duration::ZERO);
                matching.look(&mut self.cluster)
            }
            _ => Ok(false),
        }
    }

    /// Begins with what has come, and leaves what has gone.
    fn begin_late(&mut self) -> Result<(), Failure> {
        let counts = match &self.matching {
            Some(matching) => matching.counts.clone(),
            None => return Ok(()),
        };
        self.reads
            .retain(|place, _| counts.contains_key(&place.topic));
        for (topic, count) in counts {
            for partition in 0..i32::try_from(count).unwrap_or(i32::MAX) {
                let topic = topic.clone();
                let place = Place { topic, partition };
                let is_wanted = match &self.consume.partitions {
                    Some(list) => list.0.contains(&partition),
                    None => true,
                };
                if is_wanted && !self.reads.contains_key(&place) {
                    self.begin_at(place, None, From::Start)?;
                }
            }
        }
        Ok(())
    }

    /// Begins to read a partition: where its group is, or where `-o` says.
    fn begin(&mut self, place: Place, committed: Option<i64>) -> Result<(), Failure> {
        let is_late = |matching: &Matching| matching.is_late(&place.topic);
        let from = match self.matching.as_ref().is_some_and(is_late) {
            true => From::Start,
            false => self.consume.from().unwrap_or(From::Start),
        };
        self.begin_at(place, committed, from)
    }

    fn begin_at(
        &mut self,
        place: Place,
        committed: Option<i64>,
        from: From,
    ) -> Result<(), Failure> {
        let isolation = self.consume.isolation();
        let next = match committed {
            Some(offset) => offset,
            None => position::resolve(&mut self.cluster, &place, from, isolation)?,
        };
        let end = if self.consume.follow {
            i64::MAX
        } else {
            position::resolve(&mut self.cluster, &place, From::End, isolation)?
        };
        self.reads.insert(place, Read { next, end });
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.left == 0
            || self.show.is_closed()
            || self.stop.load(Ordering::Relaxed)
            || self.reads.values().all(|read| read.is_done())
                && !self.consume.follow
                && !self.waits_for_its_share()
    }

    fn waits_for_its_share(&self) -> bool {
        self.reads.is_empty() && self.share_until.is_some_and(|until| Instant::now() < until)
    }

    /// Asks every leader once.
    fn round(&mut self) -> Result<(), Failure> {
        self.cluster.renew(Duration::ZERO);
        let mut by_leader: BTreeMap<i32, Vec<Position>> = BTreeMap::new();
        for (place, read) in &self.reads {
            if read.is_done() {
                continue;
            }
            let position = Position {
                topic: place.topic.clone(),
                partition: place.partition,
                offset: read.next,
            };
            match self.cluster.leader(&place.topic, place.partition) {
                Ok(leader) => by_leader.entry(leader).or_default().push(position),
                Err(failure) => {
                    by_leader.clear();
                    self.trouble(failure)?;
                    break;
                }
            }
        }
        if by_leader.is_empty() {
            std::thread::sleep(PAUSE);
            return Ok(());
        }
        let wait_ms = if by_leader.len() == 1 {
            WAIT_ONE_MS
        } else {
            WAIT_MANY_MS
        };
        let manner = Manner {
            isolation: self.consume.isolation(),
            wait_ms,
        };
        for (leader, positions) in by_leader {
            match fetch(&mut self.cluster, leader, &positions, manner) {
                Ok(fetched) => {
                    self.take(&fetched)?;
                }
                Err(failure) => {
                    self.cluster.drop_connection(leader);
                    for position in positions {
                        let (topic, partition) = (&position.topic, position.partition);
                        self.cluster.forget_leader(topic, partition);
                    }
                    self.trouble(failure)?;
                }
            }
        }
        Ok(())
    }

    /// What passes is tried again, for as long as a command may take; a lost connection is opened again.
    fn trouble(&mut self, failure: Failure) -> Result<(), Failure> {
        let is_lost = matches!(failure, Failure::Unreachable { .. });
        let since = *self.lost_since.get_or_insert_with(Instant::now);
        if !Self::passes(&failure) || since.elapsed() > self.consume.reach.timeout {
            return Err(failure);
        }
        remark(1, || format!("trying again: {failure}"));
        std::thread::sleep(PAUSE);
        if is_lost && let Err(failure) = self.cluster.reopen() {
            remark(1, || failure.to_string());
        }
        Ok(())
    }

    /// Whether it may be otherwise soon.
    fn passes(failure: &Failure) -> bool {
        match failure {
            Failure::Refused { code, .. } => TRY_AGAIN.contains(code),
            _ => matches!(failure, Failure::Unreachable { .. }),
        }
    }

    fn take(&mut self, fetched: &[Fetched]) -> Result<(), Failure> {
        let is_over = self.is_over_without_records(fetched);
        for row in fetched {
            let place = Place {
                topic: row.topic.clone(),
                partition: row.partition,
            };
            let Some(read) = self.reads.get(&place).copied() else {
                continue;
            };
            match row.error {
                0 => self.lost_since = None,
                OUT_OF_RANGE => {
                    self.out_of_range(place, read.next)?;
                    continue;
                }
                code => {
                    self.cluster.forget_leader(&place.topic, place.partition);
                    self.trouble(Failure::refused(place.to_string(), code))?;
                    continue;
                }
            }
            let next = self.show_records(row, &place, read)?;
            let next = if is_over {
                note(&format!(
                    "{place}: nothing comes from {next} up to {}",
                    read.end
                ));
                read.end
            } else {
                next
            };
            if let Some(read) = self.reads.get_mut(&place) {
                read.next = next;
            }
        }
        Ok(())
    }

    /// Whether the end can't be reached: nothing has come for as long as a command may take. The last records were cut away, say.
    fn is_over_without_records(&mut self, fetched: &[Fetched]) -> bool {
        if self.consume.follow || fetched.iter().any(|row| row.error != 0 || !row.is_empty()) {
            self.empty_since = None;
            return false;
        }
        let since = *self.empty_since.get_or_insert_with(Instant::now);
        since.elapsed() > self.consume.reach.timeout
    }

    /// The offset is gone, or was never there.
    fn out_of_range(&mut self, place: Place, offset: i64) -> Result<(), Failure> {
        let from = self.consume.from().unwrap_or(From::Start);
        note(&format!(
            "{place} does not hold offset {offset}: going on from {from}"
        ));
        self.begin(place, None)
    }

    /// Shows what counts of an answer; where to read on.
    fn show_records(&mut self, row: &Fetched, place: &Place, read: Read) -> Result<i64, Failure> {
        let (show, left, consume) = (&mut self.show, &mut self.left, self.consume);
        let mut stopped_at = None;
        let next = row.each_batch(read.next, |view, standing| {
            let base = view.header().base_offset.0;
            if base >= read.end || stopped_at.is_some() {
                return Ok(false);
            }
            let is_wanted = match standing {
                Standing::Readable => true,
                Standing::Aborted => consume.show_aborted,
                Standing::Marker(_) => consume.show_markers,
            };
            if !is_wanted {
                return Ok(true);
            }
            let shown = each_record(view, |record| {
                let offset = base.saturating_add(i64::from(record.offset_delta));
                if offset < read.next || offset >= read.end || stopped_at.is_some() {
                    return;
                }
                if *left == 0 {
                    stopped_at = Some(offset);
                    return;
                }
                show.record(place, view.header(), record, standing);
                if !matches!(standing, Standing::Marker(_)) {
                    *left -= 1;
                }
            });
            let broken = |error| Failure::Unable(format!("{place}: batch at {base}: {error}"));
            shown.map_err(broken)?;
            Ok(true)
        })?;
        Ok(stopped_at.unwrap_or(next).min(read.end.max(read.next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_partitions_are_read() {
        let read = |text: &str| parse_partitions(text).map(|list| list.0).ok();
        assert_eq!(read("0,2,4-6"), Some(vec![0, 2, 4, 5, 6]));
        for wrong in ["", "a", "-1", "3-1", "1-", "0-2147483647"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn dash_o_says_where_or_how() {
        assert!(matches!(
            parse_choice("json"),
            Ok(Choice::Format(Format::Json))
        ));
        assert!(matches!(
            parse_choice("-5"),
            Ok(Choice::From(From::Last(5)))
        ));
        assert!(parse_choice("xml").is_err());
    }
}
