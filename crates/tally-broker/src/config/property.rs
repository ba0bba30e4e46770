//! What the property table is made of: a row, the kinds of values and their checks.
//!
//! Owns parsing and range checks of single values; knows no property by name. Numbers of kinds and sources are those of
//! DescribeConfigs (log-and-fetch.md 11.5 in the design set; KIP-569).

/// One row of the table: a property that a user may set, of the broker or of a topic.
#[derive(Debug)]
pub struct Property {
    /// Kafka's name, or one that begins with `tally.`. A name ending in `.*` stands for every name with that prefix.
    pub name: &'static str,
    /// How the value is read.
    pub kind: Kind,
    /// The value when nobody sets one; `None`: there is no value then.
    pub default: Option<&'static str>,
    /// What the value may be, beyond its kind.
    pub range: Range,
    /// For a topic's property: the broker's properties that give its default, the strongest first.
    pub synonyms: &'static [&'static str],
    /// Whether Tally does what it says.
    pub status: Status,
    /// What it is for, in a sentence.
    pub text: &'static str,
}

/// Whether setting a property does something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It does what it says.
    Honoured,
    /// It is known and will do something later; setting it is said at start.
    NotYet,
    /// It is a real Kafka property that has no meaning here.
    Ignored,
}

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// A 32-bit integer.
    Int,
    /// A 16-bit integer.
    Short,
    /// A 64-bit integer.
    Long,
    /// A decimal number.
    Double,
    /// Texts with commas between them.
    List,
    /// The name of a Java class.
    Class,
    /// A text that is never shown.
    Password,
}

impl Kind {
    /// The number of this kind in DescribeConfigs v3+ (KIP-569).
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }
}

/// What a value may be, beyond its kind.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    /// Anything of the kind.
    Any,
    /// A number between these two, both allowed.
    Between(i64, i64),
    /// A decimal number from 0 to 1.
    Ratio,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of some of these texts.
    SomeOf(&'static [&'static str]),
}

impl Property {
    /// Whether its value must not be shown or logged.
    #[must_use]
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.kind, Kind::Password)
    }

    /// Checks one value; the error says what is wrong with it, without the property's name.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Boolean => match parse_boolean(value) {
                Some(_) => self.check_text(&value.to_ascii_lowercase()),
                None => Err("must be true or false".to_owned()),
            },
            Kind::Short => self.check_integer(value, i64::from(i16::MIN), i64::from(i16::MAX)),
            Kind::Int => self.check_integer(value, i64::from(i32::MIN), i64::from(i32::MAX)),
            Kind::Long => self.check_integer(value, i64::MIN, i64::MAX),
            Kind::Double => self.check_double(value),
            Kind::List => self.check_list(value),
            Kind::String | Kind::Class | Kind::Password => self.check_text(value),
        }
    }

    fn check_integer(&self, value: &str, kind_min: i64, kind_max: i64) -> Result<(), String> {
        let Ok(number) = value.parse::<i64>() else {
            return Err("must be a whole number".to_owned());
        };
        let (min, max) = match self.range {
            Range::Between(min, max) => (min.max(kind_min), max.min(kind_max)),
            Range::OneOf(_) => return self.check_text(value),
            Range::Any | Range::Ratio | Range::SomeOf(_) => (kind_min, kind_max),
        };
        if number < min {
            return Err(format!("must be at least {min}"));
        }
        if number > max {
            return Err(format!("must be at most {max}"));
        }
        Ok(())
    }

    fn check_double(&self, value: &str) -> Result<(), String> {
        let number: f64 = value.parse().map_err(|_| "must be a number".to_owned())?;
        if matches!(self.range, Range::Ratio) && !(0.0..=1.0).contains(&number) {
            return Err("must be between 0 and 1".to_owned());
        }
        Ok(())
    }

    fn check_text(&self, value: &str) -> Result<(), String> {
        match self.range {
            Range::OneOf(allowed) if !allowed.contains(&value) => {
                Err(format!("must be one of {}", allowed.join(", ")))
            }
            _ => Ok(()),
        }
    }

    fn check_list(&self, value: &str) -> Result<(), String> {
        let Range::SomeOf(allowed) = self.range else {
            return Ok(());
        };
        match list(value).find(|item| !allowed.contains(item)) {
            Some(item) => Err(format!("{item} is not one of {}", allowed.join(", "))),
            None => Ok(()),
        }
    }
}

/// `true` or `false` in any case of letters, as Kafka reads them.
#[must_use]
pub fn parse_boolean(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        Some(true)
    } else if value.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// The items of a list value, without the spaces around them and without empty ones.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// The known name that is closest to a misspelt one, when it is close enough to be meant.
#[must_use]
pub fn closest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A quarter of the letters may differ: further apart a suggestion is a guess.
    let limit = (unknown.len() / 4).max(2);
    known
        // As many letters as one is longer are inserted at least. A name may have 32 KiB, and a request thousands of them.
        .filter(|name| name.len().abs_diff(unknown.len()) <= limit)
        .map(|name| (edit_distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Letters to insert, delete, change or swap with their neighbour to get from one text to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<u8>, Vec<u8>) = (from.bytes().collect(), to.bytes().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i; to.len() + 1];
        for j in 1..=to.len() {
            let change = usize::from(from[i - 1] != to[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + change);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(kind: Kind, range: Range) -> Property {
        Property {
            name: "p",
            kind,
            default: None,
            range,
            synonyms: &[],
            status: Status::Honoured,
            text: "",
        }
    }

    #[track_caller]
    fn check(kind: Kind, range: Range, value: &str, error: Option<&str>) {
        let outcome = property(kind, range).check(value);
        assert_eq!(outcome.err().as_deref(), error, "{kind:?} {value}");
    }

    #[test]
    fn values_are_checked_by_kind_and_range() {
        check(Kind::Boolean, Range::Any, "TRUE", None);
        check(
            Kind::Boolean,
            Range::Any,
            "yes",
            Some("must be true or false"),
        );
        check(
            Kind::Int,
            Range::Any,
            "2147483648",
            Some("must be at most 2147483647"),
        );
        check(
            Kind::Int,
            Range::Between(1, i64::MAX),
            "0",
            Some("must be at least 1"),
        );
        check(Kind::Int, Range::Any, "1k", Some("must be a whole number"));
        check(Kind::Long, Range::Any, "9223372036854775807", None);
        check(
            Kind::Short,
            Range::Any,
            "-32769",
            Some("must be at least -32768"),
        );
        check(
            Kind::Double,
            Range::Ratio,
            "1.5",
            Some("must be between 0 and 1"),
        );
        check(
            Kind::Double,
            Range::Ratio,
            "NaN",
            Some("must be between 0 and 1"),
        );
        check(Kind::List, Range::SomeOf(&["a", "b"]), "a, b", None);
        check(Kind::List, Range::SomeOf(&["a", "b"]), "", None);
        check(
            Kind::List,
            Range::SomeOf(&["a", "b"]),
            "c",
            Some("c is not one of a, b"),
        );
        check(
            Kind::String,
            Range::OneOf(&["a", "b"]),
            "c",
            Some("must be one of a, b"),
        );
    }

    #[test]
    fn a_misspelt_name_finds_the_one_meant() {
        let known = ["log.retention.ms", "log.retention.bytes", "num.partitions"];
        let closest = |unknown| closest(unknown, known.into_iter());
        assert_eq!(closest("log.retension.ms"), Some("log.retention.ms"));
        assert_eq!(closest("num.partition"), Some("num.partitions"));
        assert_eq!(closest("nmu.partitions"), Some("num.partitions"));
        assert_eq!(closest("something.else.entirely"), None);
        assert_eq!(closest(&"num.partitions".repeat(2000)), None);
    }
}
