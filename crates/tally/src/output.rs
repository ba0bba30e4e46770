//! The only place that writes to standard output. Logs go to standard error.
//!
//! Commands that answer questions write rows ([`Rows`]): a table for people, or JSON and TSV for programs. The names of the
//! columns are an interface.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};
use std::sync::atomic::{AtomicU8, Ordering};

/// Writes lines for a person. A closed standard output is no reason to stop serving.
pub(crate) fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// Writes bytes as they are.
pub(crate) fn print_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "standard output is closed");
    }
}

/// Text in a line for people. A name may hold anything: no line is broken by it, and no terminal takes orders from it.
pub(crate) fn in_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    Cow::Owned(escaped.collect())
}

/// How much is said: [`QUIET`], or how often `-v` was given. One for the process, like its standard error.
static TALK: AtomicU8 = AtomicU8::new(0);
/// No headings.
pub(crate) const QUIET: u8 = u8::MAX;

/// Sets how much is said.
pub(crate) fn set_talk(talk: u8) {
    TALK.store(talk, Ordering::Relaxed);
}

fn is_quiet() -> bool {
    TALK.load(Ordering::Relaxed) == QUIET
}

/// Says on standard error what is done, if `-v` was given so often.
pub(crate) fn remark(level: u8, text: impl FnOnce() -> String) {
    let talk = TALK.load(Ordering::Relaxed);
    if talk != QUIET && talk >= level {
        complain(&text());
    }
}

/// Writes why the command ends, on standard error.
pub(crate) fn complain(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody is left to be told that nobody can be told.
    drop(writeln!(stderr, "tally: {text}"));
}

/// How rows are written.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Jsonl,
    /// Columns behind tabs, with a line of names where the kind of row changes
    Tsv,
}

/// What a column holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(i128),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(&'static str, Value)>),
}

macro_rules! from_number {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Value {
            fn from(number: $kind) -> Value {
                Value::Number(i128::from(number))
            }
        })*
    };
}
from_number!(i8, i16, i32, i64, u32, u64);

impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Bool(is)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Value {
        Value::List(values.into_iter().collect())
    }
}

/// As JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(is) => is.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Text(text) => quoted(text, f),
            Value::List(values) => {
                f.write_str("[")?;
                for (at, value) in values.iter().enumerate() {
                    f.write_str(if at > 0 { "," } else { "" })?;
                    value.fmt(f)?;
                }
                f.write_str("]")
            }
            Value::Object(fields) => object(fields, f),
        }
    }
}

fn object(fields: &[(&'static str, Value)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("{")?;
    for (at, (name, value)) in fields.iter().enumerate() {
        f.write_str(if at > 0 { "," } else { "" })?;
        write!(f, "\"{name}\":{value}")?;
    }
    f.write_str("}")
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

impl Value {
    /// As a cell of a table: text bare, nothing as a dash.
    fn cell(&self) -> String {
        match self {
            Value::Null => "-".to_owned(),
            // A name or a key may hold anything: no line and no column may be broken by it.
            Value::Text(text) if text.chars().any(char::is_control) => self.to_string(),
            Value::Text(text) => text.clone(),
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            Value::Number(_) | Value::List(_) | Value::Object(_) => self.to_string(),
        }
    }
}

/// Says on standard error what is worth a word, unless `-q` was given.
pub(crate) fn note(text: &str) {
    if !is_quiet() {
        complain(text);
    }
}

/// Bytes on standard output, as they are.
pub(crate) struct Raw {
    out: BufWriter<Stdout>,
    closed: bool,
}

impl Raw {
    pub(crate) fn new() -> Raw {
        Raw {
            out: BufWriter::new(io::stdout()),
            closed: false,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.closed |= self.out.write_all(bytes).is_err();
    }

    /// Hands over what was written.
    pub(crate) fn flush(&mut self) {
        self.closed |= self.out.flush().is_err();
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Rows on standard output, written as they come. The first column is their kind; rows of one kind have the same columns.
pub(crate) struct Rows {
    format: Format,
    out: BufWriter<Stdout>,
    /// Kinds seen, with the width of each column so far.
    widths: BTreeMap<&'static str, Vec<usize>>,
    last: Option<&'static str>,
    closed: bool,
}

impl Rows {
    pub(crate) fn new(format: Format) -> Rows {
        let mut rows = Rows {
            format,
            out: BufWriter::new(io::stdout()),
            widths: BTreeMap::new(),
            last: None,
            closed: false,
        };
        if format == Format::Json {
            rows.write("[");
        }
        rows
    }

    /// Whether nobody reads any more: the rest need not be made.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn write(&mut self, text: &str) {
        if let Err(error) = self.out.write_all(text.as_bytes()) {
            tracing::debug!(%error, "standard output is closed");
            self.closed = true;
        }
    }

    /// A line for people alone: a heading or a blank.
    pub(crate) fn line(&mut self, text: &str) {
        if self.format == Format::Table {
            self.write(&in_line(text));
            self.write("\n");
            self.widths.clear();
        }
    }

    /// One row.
    pub(crate) fn row(&mut self, kind: &'static str, fields: Vec<(&'static str, Value)>) {
        let text = match self.format {
            Format::Json | Format::Jsonl => {
                let mut all = vec![("kind", Value::from(kind))];
                all.extend(fields);
                let begin = match (self.format, self.last) {
                    (Format::Json, None) => "\n",
                    (Format::Json, Some(_)) => ",\n",
                    _ => "",
                };
                let end = if self.format == Format::Json {
                    ""
                } else {
                    "\n"
                };
                format!("{begin}{}{end}", Value::Object(all))
            }
            Format::Tsv => self.separated(kind, &fields),
            Format::Table => self.aligned(kind, &fields),
        };
        self.last = Some(kind);
        self.write(&text);
    }

    fn separated(&self, kind: &'static str, fields: &[(&'static str, Value)]) -> String {
        let mut text = String::new();
        if self.last != Some(kind) {
            text.push_str("kind");
            for (name, _) in fields {
                text.push('\t');
                text.push_str(name);
            }
            text.push('\n');
        }
        text.push_str(kind);
        for (_, value) in fields {
            text.push('\t');
            text.push_str(&value.cell());
        }
        text.push('\n');
        text
    }

    fn aligned(&mut self, kind: &'static str, fields: &[(&'static str, Value)]) -> String {
        let mut text = String::new();
        let widths = self.widths.entry(kind).or_insert_with(|| {
            let names: Vec<String> = fields
                .iter()
                .map(|(name, _)| name.replace('_', " ").to_uppercase())
                .collect();
            let widths = fields.iter().zip(&names).map(|((_, value), name)| {
                let widest = name.chars().count().max(value.cell().chars().count());
                widest.min(COLUMN_MAX)
            });
            let widths: Vec<usize> = widths.collect();
            if !is_quiet() {
                let names = names.iter().zip(widths.clone());
                align(&mut text, &kind.to_uppercase(), names);
            }
            widths
        });
        let cells: Vec<String> = fields.iter().map(|(_, value)| value.cell()).collect();
        for (width, cell) in widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count().min(COLUMN_MAX));
        }
        align(&mut text, kind, cells.iter().zip(widths.clone()));
        text
    }

    /// Hands over what was written.
    pub(crate) fn flush(&mut self) {
        self.closed |= self.out.flush().is_err();
    }

    /// Ends the output.
    pub(crate) fn finish(mut self) {
        if self.format == Format::Json {
            self.write("\n]\n");
        }
        if let Err(error) = self.out.flush() {
            tracing::debug!(%error, "standard output is closed");
        }
    }
}

/// A cell that is wider pushes the rest of its row only.
const COLUMN_MAX: usize = 40;
const KIND_WIDTH: usize = 9;

fn align<'a>(text: &mut String, kind: &str, cells: impl Iterator<Item = (&'a String, usize)>) {
    let mut line = format!("{kind:KIND_WIDTH$}");
    for (cell, width) in cells {
        line.push_str("  ");
        line.push_str(cell);
        let missing = width.saturating_sub(cell.chars().count());
        line.extend(std::iter::repeat_n(' ', missing));
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// A table of one kind of thing, for people as wide as its widest cells; for programs the same as [`Rows`].
pub(crate) struct Listing {
    rows: Rows,
    kind: &'static str,
    /// Headings and cells for people; empty for programs.
    lines: Vec<Vec<String>>,
}

impl Listing {
    pub(crate) fn new(format: Format, kind: &'static str, headings: &[&str]) -> Listing {
        let headings = headings.iter().map(|heading| (*heading).to_owned());
        Listing {
            rows: Rows::new(format),
            kind,
            lines: vec![headings.collect()],
        }
    }

    /// One row: the cells that people see, and the fields that programs get.
    pub(crate) fn row(&mut self, cells: Vec<String>, fields: Vec<(&'static str, Value)>) {
        if self.rows.format == Format::Table {
            let plain = cells.into_iter().map(|cell| Value::from(cell).cell());
            self.lines.push(plain.collect());
        } else {
            self.rows.row(self.kind, fields);
        }
    }

    /// Writes what was not written yet; `nothing` is what people are told when there is no row.
    pub(crate) fn finish(mut self, nothing: &str) {
        if self.rows.format == Format::Table {
            if self.lines.len() == 1 {
                self.lines = vec![vec![nothing.to_owned()]];
            }
            let columns = self.lines.first().map_or(0, Vec::len);
            let width = |column: usize| {
                let cells = self.lines.iter().filter_map(|line| line.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            };
            let widths: Vec<usize> = (0..columns).map(width).collect();
            let skipped = usize::from(is_quiet());
            for line in self.lines.iter().skip(skipped) {
                let mut text = String::new();
                for (cell, width) in line.iter().zip(&widths) {
                    text.push_str(cell);
                    let missing = width.saturating_sub(cell.chars().count()) + 2;
                    text.extend(std::iter::repeat_n(' ', missing));
                }
                self.rows.line(text.trim_end());
            }
        }
        self.rows.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json() {
        let value = Value::Object(vec![
            ("a", Value::from(-5i64)),
            ("b", Value::from("x\"\\\n\t\u{1}é")),
            ("c", [Value::Null, Value::from(true)].into_iter().collect()),
        ]);
        assert_eq!(
            value.to_string(),
            "{\"a\":-5,\"b\":\"x\\\"\\\\\\n\\t\\u0001é\",\"c\":[null,true]}"
        );
    }

    #[test]
    fn a_cell_breaks_no_line() {
        assert_eq!(Value::from("a b").cell(), "a b");
        assert_eq!(Value::from("a\nb").cell(), "\"a\\nb\"");
        assert_eq!(Value::Null.cell(), "-");
    }
}
