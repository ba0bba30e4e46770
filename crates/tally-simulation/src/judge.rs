//! What must hold in the end, and of everything that was read on the way.
//!
//! In `always` a power cut excuses nothing, and in `commit` nothing that a transaction or a group has decided; of records outside
//! transactions a prefix of each partition is left (CR-28), and all of a topic with `flush.messages=1` in every mode (LR-55). In `memory` each end of the broker begins another world, in
//! which nothing of the one before may be found. In `os` a power cut leaves a prefix of each partition (CR-26). What was begun before the last one may be lost, on one
//! partition and not on another; it is not there twice, not out of order, not where it was not said to be, and there are no holes;
//! what was aborted, or not yet told to commit, is not there (R-19; of the new flow). All that came after it is judged as if there had been none.

use crate::clients::is_passing;
use crate::clients::reader::given;
use crate::clients::requests;
use crate::clients::transactor::{Work, group_of};
use crate::model::{FLUSHED, KEYED, Model, Outcome, Place, REBORN, Transaction, key_of, places};
use crate::network::Network;
use crate::port::{Port, Progress, Response};
use kafka_protocol::messages::{FetchRequest, OffsetFetchRequest};
use kafka_protocol::protocol::Request;
use std::collections::{BTreeMap, BTreeSet};

/// Polls that an answer may take when nothing else goes on.
const PATIENCE: u64 = 10_000;

type Records = BTreeMap<Place, Vec<(i64, String)>>;
type Found<'a> = BTreeMap<(Place, &'a str), i64>;

/// Asks and waits.
pub(crate) fn ask<R: Request>(
    network: &mut Network,
    version: i16,
    request: &R,
) -> Result<Response, String> {
    let mut port = Port::default();
    port.ask(network, version, request);
    for _ in 0..PATIENCE {
        network.step()?;
        match port.progress(network) {
            Progress::Answered(response) => return Ok(response),
            Progress::Lost | Progress::Idle => return Err("no answer in quiet times".to_owned()),
            Progress::Waiting => {}
        }
    }
    Err("no answer to an operator".to_owned())
}

/// All that read_committed gives of a partition; where it ends, all of it must be decided.
fn read(network: &mut Network, place: Place) -> Result<Vec<(i64, String)>, String> {
    let mut records = Vec::new();
    let mut at = 0;
    loop {
        let request = requests::fetch(place, at, 1, 1 << 20);
        let response = ask(network, 12, &request)?.of::<FetchRequest>();
        let given = match given(&response, at) {
            Ok(given) => given,
            Err(code) => return Err(format!("{place:?} at {at}: {code}")),
        };
        if given.stable != given.high_watermark {
            let (stable, end) = (given.stable, given.high_watermark);
            return Err(format!(
                "{place:?}: a transaction hangs at {stable}, end {end}"
            ));
        }
        records.extend(given.records);
        if given.position >= given.stable {
            return Ok(records);
        }
        if given.position == at {
            return Err(format!("{place:?}: nothing at {at} below the end"));
        }
        at = given.position;
    }
}

/// Judges a story that has come to its end. All clients are quiet, and every transaction has had its time.
pub(crate) fn judge(network: &mut Network, model: &Model) -> Result<u64, String> {
    let mut records = Records::new();
    for place in places() {
        records.insert(place, read(network, place)?);
    }
    let mut found = Found::new();
    for (place, records) in &records {
        for (offset, value) in records {
            if found.insert((*place, value), *offset).is_some() {
                return Err(format!("{place:?}: {value} is there twice"));
            }
        }
    }
    let last = last_of_keys(&records);
    for transaction in &model.transactions {
        judge_transaction(transaction, &found, &last, (model.births, network.cuts))?;
    }
    judge_known(model, &found)?;
    judge_plain(model, &found, network)?;
    if network.cuts == 0 {
        judge_bank(&records)?;
    }
    judge_order(&records)?;
    judge_seen(model, &records)?;
    judge_chains(network, model, &records)?;
    Ok(found.len() as u64)
}

/// Nothing is there that nobody has sent: not what an earlier world left, either.
fn judge_known(model: &Model, found: &Found<'_>) -> Result<(), String> {
    let in_transactions = model.transactions.iter().flat_map(|one| &one.sent);
    let sent: BTreeSet<(Place, &str)> = in_transactions
        .chain(&model.plain)
        .map(|sent| (sent.place, sent.value.as_str()))
        .collect();
    match found.keys().find(|key| !sent.contains(key)) {
        Some((place, value)) => Err(format!("{place:?}: {value} was not sent")),
        None => Ok(()),
    }
}

/// What was answered is where it was said to be; a power cut takes the last of a partition, and what was before it stays.
fn judge_plain(model: &Model, found: &Found<'_>, network: &Network) -> Result<(), String> {
    let cuts = network.plain_cuts;
    let mut lost: BTreeMap<(Place, u64), i64> = BTreeMap::new();
    for sent in &model.plain {
        let at = found.get(&(sent.place, sent.value.as_str())).copied();
        let Some(offset) = sent.offset else { continue };
        let is_synced = network.is_flushed && sent.place.0 == FLUSHED;
        if at.is_none() && sent.cuts < cuts && !is_synced {
            let first = lost.entry((sent.place, sent.cuts)).or_insert(offset);
            *first = offset.min(*first);
        } else if at != Some(offset) {
            let value = &sent.value;
            return Err(format!("{value} was answered at {offset}, is at {at:?}"));
        }
    }
    for sent in &model.plain {
        let first = lost.get(&(sent.place, sent.cuts));
        let is_there = found.contains_key(&(sent.place, sent.value.as_str()));
        if is_there && first.is_some_and(|first| sent.offset > Some(*first)) {
            return Err(format!("{sent:?} outlived what lay before it at {first:?}"));
        }
    }
    Ok(())
}

/// Where the last value of each key is.
type Last = BTreeMap<(Place, String), i64>;

fn last_of_keys(records: &Records) -> Last {
    let mut last = Last::new();
    for (place, records) in records.iter().filter(|((topic, _), _)| *topic == KEYED) {
        for (offset, value) in records {
            if let Some(key) = key_of(value) {
                last.insert((*place, key), *offset);
            }
        }
    }
    last
}

/// Whether compaction may have taken a value: there is a later one of its key. Whose offset is not known was sent before it.
fn is_replaced(place: Place, value: &str, offset: Option<i64>, last: &Last) -> bool {
    let key = key_of(value).filter(|_| place.0 == KEYED);
    let last = key.and_then(|key| last.get(&(place, key)));
    last.is_some_and(|last| offset.is_none_or(|offset| *last > offset))
}

/// `now` is how often the topic that is deleted was made, and how often the power was cut.
fn judge_transaction(
    transaction: &Transaction,
    found: &Found<'_>,
    last: &Last,
    now: (u64, u64),
) -> Result<(), String> {
    let (births, cuts) = now;
    let mut there = Vec::new();
    for sent in &transaction.sent {
        let at = found.get(&(sent.place, sent.value.as_str())).copied();
        let is_here = sent.place.0 != REBORN || sent.births == births;
        if is_here && at.is_some() && sent.offset.is_some() && at != sent.offset {
            return Err(format!("{sent:?} is at {at:?}"));
        }
        // Went with its topic, or was replaced: that says nothing.
        let is_elsewhere = sent.place.0 == REBORN && sent.births != births;
        let says_nothing = at.is_none()
            && (is_elsewhere || is_replaced(sent.place, &sent.value, sent.offset, last));
        there.push((!says_nothing).then_some(at.is_some()));
    }
    let all = !there.contains(&Some(false));
    let none = !there.contains(&Some(true));
    let may_be_torn = transaction.cuts < cuts;
    let holds = match transaction.outcome {
        Outcome::Committed | Outcome::Unknown if may_be_torn => true,
        // The start may end it as the one before it (docs/exactly-once.md section 9).
        Outcome::Aborted | Outcome::Open if may_be_torn && transaction.shares_epoch => true,
        Outcome::Committed => all,
        Outcome::Aborted | Outcome::Open => none,
        Outcome::Unknown => all || none,
    };
    if holds {
        return Ok(());
    }
    let what = match transaction.outcome {
        Outcome::Committed if none => "a committed transaction is lost",
        Outcome::Aborted | Outcome::Open if all => "an aborted transaction is seen",
        _ => "a torn transaction",
    };
    let Transaction {
        writer,
        outcome,
        sent,
        ..
    } = transaction;
    Err(format!(
        "{what}: {writer}, {outcome:?}: {sent:?}, found {there:?}"
    ))
}

/// Money is neither made nor lost.
fn judge_bank(records: &Records) -> Result<(), String> {
    let mut sum = 0;
    for (_, value) in records
        .iter()
        .filter(|((topic, _), _)| *topic == "bank")
        .flat_map(|(_, records)| records)
    {
        let amount = value
            .rsplit('/')
            .next()
            .and_then(|text| text.parse::<i64>().ok());
        sum += amount.ok_or_else(|| format!("{value} is no transfer"))?;
    }
    if sum != 0 {
        return Err(format!("the accounts sum up to {sum}"));
    }
    Ok(())
}

/// What one client has appended to one partition is in the order in which it did.
fn judge_order(records: &Records) -> Result<(), String> {
    for (place, records) in records
        .iter()
        .filter(|((topic, _), _)| !matches!(*topic, "out" | "done"))
    {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, value) in records {
            let mut parts = value.split('/');
            let (writer, number) = (parts.next(), parts.next());
            let number = number.and_then(|text| text.parse().ok());
            let (Some(writer), Some(number)) = (writer, number) else {
                return Err(format!("{place:?}: {value} was not sent"));
            };
            if last
                .insert(writer, number)
                .is_some_and(|before| before >= number)
            {
                return Err(format!("{place:?}: {value} is out of order"));
            }
        }
    }
    Ok(())
}

/// Who read along saw a part of what is there, in its order: nothing that went away again (B-23, B-24).
fn judge_seen(model: &Model, records: &Records) -> Result<(), String> {
    let last = last_of_keys(records);
    for (place, seen) in &model.seen {
        let records = &records[place];
        if place.0 == KEYED {
            judge_seen_keys(*place, seen, records, &last)?;
            continue;
        }
        if !records.starts_with(seen) {
            let at = seen
                .iter()
                .zip(records)
                .position(|(one, other)| one != other);
            let at = at.unwrap_or(records.len());
            let (was, is) = (seen.get(at), records.get(at));
            return Err(format!("{place:?}: a reader saw {was:?}, there is {is:?}"));
        }
    }
    Ok(())
}

/// Where a topic is compacted, what was seen is there or replaced.
fn judge_seen_keys(
    place: Place,
    seen: &[(i64, String)],
    records: &[(i64, String)],
    last: &Last,
) -> Result<(), String> {
    let kept: BTreeSet<&(i64, String)> = records.iter().collect();
    let is_kept =
        |one: &(i64, String)| kept.contains(one) || is_replaced(place, &one.1, Some(one.0), last);
    match seen.iter().find(|one| !is_kept(one)) {
        Some(lost) => Err(format!("{place:?}: a reader saw {lost:?}, which is lost")),
        None => Ok(()),
    }
}

/// Of each input below the committed offset there is one output, of no other there is any.
fn judge_chains(network: &mut Network, model: &Model, records: &Records) -> Result<(), String> {
    for index in 0..2 {
        let group = group_of(Work::Chain(index), &format!("chain{index}"), network.cuts);
        judge_chain(network, records, &group, ("in", index), "out")?;
        let group = group_of(Work::Member, "", network.cuts);
        judge_chain(network, records, &group, ("work", index), "done")?;
    }
    if model.transactions.is_empty() && network.worlds == 0 {
        return Err("nothing was done".to_owned());
    }
    Ok(())
}

fn judge_chain(
    network: &mut Network,
    records: &Records,
    group: &str,
    input: Place,
    output: &'static str,
) -> Result<(), String> {
    let request = requests::committed(group, input);
    let response = ask(network, 7, &request)?.of::<OffsetFetchRequest>();
    let part = &response.topics[0].partitions[0];
    if is_passing(part.error_code) || part.error_code != 0 {
        return Err(format!("{group}: {}", part.error_code));
    }
    // After a power cut each group begins anew, and tells its outputs from those of before.
    let now = network.cuts.to_string();
    let mut outputs: BTreeSet<&str> = BTreeSet::new();
    for (_, value) in (0..2).flat_map(|index| &records[&(output, index)]) {
        let mut parts = value.split('|');
        let (of, cuts) = (parts.next().unwrap_or_default(), parts.next());
        if cuts == Some(&now) && !outputs.insert(of) {
            return Err(format!("{of} was processed twice"));
        }
    }
    for (offset, value) in &records[&input] {
        let is_processed = outputs.contains(value.as_str());
        if is_processed != (*offset < part.committed_offset) {
            let upto = part.committed_offset;
            return Err(format!(
                "{input:?}: {value} at {offset}, committed up to {upto}, processed: {is_processed}"
            ));
        }
    }
    let (topic, _) = input;
    let inputs: BTreeSet<&str> = (0..2)
        .flat_map(|index| &records[&(topic, index)])
        .map(|(_, value)| value.as_str())
        .collect();
    match outputs.difference(&inputs).next() {
        Some(other) => Err(format!("{other} was processed, and was never there")),
        None => Ok(()),
    }
}
