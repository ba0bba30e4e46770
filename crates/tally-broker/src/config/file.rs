//! A file of properties, as Kafka's `server.properties` is written: the syntax of Java's `Properties`.
//!
//! A line is `NAME=VALUE`, `NAME:VALUE` or `NAME VALUE`; `#` and `!` begin comments; a backslash at its end joins the next
//! line; `\t \n \r \f \uXXXX` stand for what they do in Java, a backslash before anything else for that itself.
//! The file is UTF-8 (Java reads Latin-1: beyond ASCII both agree on `\uXXXX` alone). Of one name the last line counts.

use std::iter::Peekable;
use std::str::Chars;

use super::{Level, Setting};

/// The settings in a file's text; `name` is what messages call the file.
///
/// # Errors
/// What is wrong and where, for the person: a `\u` without four hexadecimal digits, a value without a name.
pub fn read_properties(name: &str, text: &str) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    for (number, line) in logical_lines(text) {
        let origin = format!("{name}:{number}");
        let (key, value) = split(&line).map_err(|reason| format!("{origin}: {reason}"))?;
        settings.push(Setting::new(key, value, origin).at(Level::File));
    }
    Ok(settings)
}

/// Lines with what follows them after a backslash, without comments and empty ones; each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_start_matches([' ', '\t', '\x0c'])));
    let mut found = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while ends_in_a_continuation(&whole) {
            whole.pop();
            match lines.next() {
                Some((_, more)) => whole.push_str(more),
                None => break,
            }
        }
        found.push((number, whole));
    }
    found
}

/// Whether the last backslash is not itself behind one.
fn ends_in_a_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn split(line: &str) -> Result<(String, String), String> {
    let mut rest = line.chars().peekable();
    let name = unescape_until(&mut rest, |c| "=: \t\x0c".contains(c))?;
    if name.is_empty() {
        return Err("a value without a name".to_owned());
    }
    let is_space = |c: &char| " \t\x0c".contains(*c);
    while rest.next_if(is_space).is_some() {}
    if rest.next_if(|c| "=:".contains(*c)).is_some() {
        while rest.next_if(is_space).is_some() {}
    }
    let value = unescape_until(&mut rest, |_| false)?;
    Ok((name, value))
}

fn unescape_until(
    rest: &mut Peekable<Chars<'_>>,
    is_end: impl Fn(char) -> bool,
) -> Result<String, String> {
    let mut text = String::new();
    while let Some(c) = rest.next_if(|c| !is_end(*c)) {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('f') => text.push('\x0c'),
            Some('u') => text.push(unicode(rest)?),
            Some(other) => text.push(other),
            None => {}
        }
    }
    Ok(text)
}

fn unicode(rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    let digits: String = rest.by_ref().take(4).collect();
    let code = (digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(&digits, 16).ok())
        .flatten();
    code.and_then(char::from_u32)
        .ok_or_else(|| format!("\\u{digits} is not a character (\\u and four hexadecimal digits)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str, &str)]) {
        let settings = read_properties("f", text).unwrap();
        let read: Vec<(&str, &str, &str)> = settings
            .iter()
            .map(|setting| {
                (
                    setting.name.as_str(),
                    setting.value.as_str(),
                    setting.origin.as_str(),
                )
            })
            .collect();
        assert_eq!(read, expected, "{text:?}");
    }

    #[test]
    fn names_and_values_are_told_apart_as_java_does() {
        check("a=1", &[("a", "1", "f:1")]);
        check("a = 1 ", &[("a", "1 ", "f:1")]);
        check("a:1\r\nb 2\n", &[("a", "1", "f:1"), ("b", "2", "f:2")]);
        check("a\nb=\n", &[("a", "", "f:1"), ("b", "", "f:2")]);
        check("a = = b", &[("a", "= b", "f:1")]);
        check("a\\=b\\ c=d", &[("a=b c", "d", "f:1")]);
        check(
            "listeners=PLAINTEXT://:9092,CONTROLLER://:9093",
            &[("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093", "f:1")],
        );
    }

    #[test]
    fn comments_and_empty_lines_are_left_out() {
        check(
            "# a=1\n\n  ! b=2\n \t\n  c=3 # not a comment",
            &[("c", "3 # not a comment", "f:5")],
        );
    }

    #[test]
    fn lines_are_joined_and_characters_unescaped() {
        check(
            "a=1,\\\n   2,\\\n#3\nb=\\u00e4\\t\\q\\\\\nc=4\\",
            &[
                ("a", "1,2,#3", "f:1"),
                ("b", "\u{e4}\tq\\", "f:4"),
                ("c", "4", "f:5"),
            ],
        );
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let error = |text| read_properties("server.properties", text).unwrap_err();
        assert_eq!(
            error("a=1\nb=\\u12"),
            "server.properties:2: \\u12 is not a character (\\u and four hexadecimal digits)"
        );
        assert_eq!(error("= 1"), "server.properties:1: a value without a name");
        // Half of a pair of surrogates is no character by itself.
        assert!(read_properties("f", "a=\\ud800").is_err());
    }
}
