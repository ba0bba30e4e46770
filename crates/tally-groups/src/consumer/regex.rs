//! Subscriptions by regular expression (section 9.6): RE2-like syntax, the whole name has to match.
//!
//! An expression is compiled only when its topics are looked up, which is when it is new and when topics have come or gone:
//! nothing of it is kept, so that clients cannot fill memory with programs.

use super::Draft;
use crate::topics::Topics;
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::records::consumer_group::{ConsumerGroupRecord, RegexValue};
use tally_protocol::{ErrorCode, Now};

/// Bytes that a compiled expression may take: what is larger is refused as if it were wrong.
const COMPILED_BYTES_MAX: usize = 1 << 20;

fn compile(pattern: &str) -> Result<Regex, ErrorCode> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|_| ErrorCode::InvalidRegularExpression)
    };
    let pattern = &*without_quotes(pattern);
    // By itself first: what only makes sense between the parentheses is not an expression.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

/// RE2 knows `\Q` to `\E`, or to the end, as literal text (Java's `Pattern.quote` writes it); the compiler here does not.
fn without_quotes(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains("\\Q") {
        return Cow::Borrowed(pattern);
    }
    let mut plain = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        if let Some(quoted) = from.strip_prefix("\\Q") {
            let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            plain.push_str(&regex::escape(literal));
            rest = after;
        } else {
            let mut after = from.chars();
            after
                .by_ref()
                .take(2)
                .for_each(|escaped| plain.push(escaped));
            rest = after.as_str();
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The topics whose whole names match.
fn matching(pattern: &str, topics: &Topics) -> Result<BTreeSet<Arc<str>>, ErrorCode> {
    let regex = compile(pattern)?;
    let names = topics.names().filter(|name| regex.is_match(name));
    Ok(names.cloned().collect())
}

impl Draft<'_> {
    /// Looks up the topics of an expression that nobody in the group has used so far.
    pub(super) fn resolve(
        &mut self,
        regex: &Arc<str>,
        topics: &Topics,
        now: Now,
    ) -> Result<(), ErrorCode> {
        if self.regexes.contains_key(regex) {
            return Ok(());
        }
        let value = value(matching(regex, topics)?, topics, now);
        self.write(ConsumerGroupRecord::Regex(regex.clone(), Some(value)));
        Ok(())
    }

    /// Looks up the topics of all expressions again; whether any has others now.
    pub(super) fn refresh_regexes(&mut self, topics: &Topics, now: Now) -> bool {
        let known: Vec<_> = self
            .regexes
            .iter()
            .map(|(r, v)| (r.clone(), v.clone()))
            .collect();
        let mut changed = false;
        for (regex, before) in known {
            // It was compiled when it came.
            let Ok(matched) = matching(&regex, topics) else {
                continue;
            };
            if matched != before.topics {
                let value = value(matched, topics, now);
                self.write(ConsumerGroupRecord::Regex(regex, Some(value)));
                changed = true;
            }
        }
        changed
    }

    /// Forgets an expression that nobody uses any more.
    pub(super) fn drop_regex_if_unused(&mut self, regex: Option<&Arc<str>>) {
        let Some(regex) = regex.filter(|regex| self.regexes.contains_key(*regex)) else {
            return;
        };
        let is_used = self
            .subscriptions()
            .any(|(_, subscription)| subscription.regex.as_ref() == Some(regex));
        if !is_used {
            self.write(ConsumerGroupRecord::Regex(regex.clone(), None));
        }
    }
}

fn value(matched: BTreeSet<Arc<str>>, topics: &Topics, now: Now) -> RegexValue {
    RegexValue {
        topics: matched,
        version: i64::try_from(topics.generation()).unwrap_or(i64::MAX),
        timestamp: now.wall_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::TopicId;

    #[track_caller]
    fn check(pattern: &str, expected: Option<&[&str]>) {
        let names = ["a", "ab", "b", "t1", "t22"].map(|name| (Arc::from(name), TopicId::ZERO, 1));
        let matched = matching(pattern, &Topics::new(1, names));
        let expected = expected
            .map(|names| names.iter().map(|name| Arc::from(*name)).collect())
            .ok_or(ErrorCode::InvalidRegularExpression);
        assert_eq!(matched, expected, "{pattern}");
    }

    #[test]
    fn g117_the_whole_name_matches() {
        check("a", Some(&["a"]));
        check("a|ab", Some(&["a", "ab"]));
        check("t[0-9]+", Some(&["t1", "t22"]));
        check("(?i)T.", Some(&["t1"]));
        check(r"t\d", Some(&["t1"]));
        check("x", Some(&[]));
    }

    #[test]
    fn g117_a_quoted_part_is_literal() {
        check(r"\Qt1\E", Some(&["t1"]));
        check(r"\Qt\E\d+", Some(&["t1", "t22"]));
        check(r"\Qt.\E", Some(&[]));
        check(r"\Qa|b", Some(&[]));
        check(r"a|\Qb", Some(&["a", "b"]));
        check(r"\Q\E(a)\Q\E", Some(&["a"]));
        check(r"\\Qa", Some(&[]));
        check(r"\E", None);
        check(r"a\", None);
        check(r"\Qa\E\Q", Some(&["a"]));
    }

    #[test]
    fn g117_what_is_no_expression_is_refused() {
        for pattern in ["[", "(", "a)(b", "*", r"(a)\1", "(?=a)"] {
            check(pattern, None);
        }
        check(r"(\w{1000}){1000}", None);
    }
}
