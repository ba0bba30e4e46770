//! Where reading begins.

use std::fmt;

use crate::client::{Cluster, Failure};
use crate::commands::place::{EARLIEST, LATEST, Place, UNCOMMITTED, offset_at};
use crate::commands::{now_ms, parse_duration};
use crate::output::note;

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum From {
    Start,
    End,
    Offset(i64),
    /// So many offsets before the end.
    Last(i64),
    /// The first record that is as young, in milliseconds since 1970.
    Time(i64),
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Start => f.write_str("the start"),
            From::End => f.write_str("the end"),
            From::Offset(offset) => write!(f, "offset {offset}"),
            From::Last(count) => write!(f, "the last {count}"),
            From::Time(time_ms) => write!(f, "time {time_ms}"),
        }
    }
}

pub(super) fn parse_from(text: &str) -> Result<From, String> {
    let wrong = || {
        "must be start, end, an offset, -N, @AGE like @1h or @MILLISECONDS, or a format: table, json, jsonl, tsv".to_owned()
    };
    match text {
        "start" | "beginning" | "earliest" => return Ok(From::Start),
        "end" | "latest" => return Ok(From::End),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        if let Ok(time_ms) = time.parse::<i64>() {
            return Ok(From::Time(time_ms));
        }
        let age = parse_duration(time).map_err(|_| wrong())?;
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        return Ok(From::Time(now_ms().saturating_sub(age_ms).max(0)));
    }
    if let Some(count) = text.strip_prefix('-') {
        let count = count.parse::<i64>().map_err(|_| wrong())?;
        return Some(From::Last(count))
            .filter(|_| count >= 0)
            .ok_or_else(wrong);
    }
    text.parse().map(From::Offset).map_err(|_| wrong())
}

/// The offset that is meant, of one partition, by a reader of this isolation.
pub(super) fn resolve(
    cluster: &mut Cluster,
    place: &Place,
    from: From,
    isolation: i8,
) -> Result<i64, Failure> {
    let leader = cluster.leader(&place.topic, place.partition)?;
    let mut at = |timestamp, isolation| offset_at(cluster, place, leader, (timestamp, isolation));
    match from {
        From::Start => at(EARLIEST, UNCOMMITTED),
        From::End => at(LATEST, isolation),
        From::Last(count) => {
            let begin = at(EARLIEST, UNCOMMITTED)?;
            Ok(at(LATEST, isolation)?.saturating_sub(count).max(begin))
        }
        From::Offset(offset) => {
            let begin = at(EARLIEST, UNCOMMITTED)?;
            let end = at(LATEST, UNCOMMITTED)?;
            if offset < begin {
                note(&format!(
                    "{place} begins at {begin}, behind offset {offset}"
                ));
            } else if offset > end {
                note(&format!("{place} ends at {end}, before offset {offset}"));
            }
            Ok(offset.clamp(begin, end.max(begin)))
        }
        From::Time(time_ms) => match at(time_ms, UNCOMMITTED)? {
            -1 => at(LATEST, isolation),
            offset => Ok(offset),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin_are_read() {
        for (text, from) in [
            ("start", From::Start),
            ("end", From::End),
            ("17", From::Offset(17)),
            ("-5", From::Last(5)),
            ("@1700000000000", From::Time(1_700_000_000_000)),
        ] {
            assert_eq!(parse_from(text), Ok(from));
        }
        assert!(matches!(parse_from("@1h"), Ok(From::Time(_))));
        for wrong in ["", "@", "--5", "-x", "soon", "@soon"] {
            assert!(parse_from(wrong).is_err(), "{wrong}");
        }
    }
}
