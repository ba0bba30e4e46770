//! What DumpLogSegments printed, taken apart.

use crate::writer::{Content, Line, Row};
use std::path::Path;

/// All that it printed.
pub(crate) struct Dumped {
    pub(crate) is_well: bool,
    pub(crate) text: String,
    pub(crate) errors: String,
}

/// What it says of one file.
pub(crate) struct Section<'a>(Vec<&'a str>);

/// A batch.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) base: i64,
    pub(crate) last: i64,
    pub(crate) position: i64,
    pub(crate) timestamp: i64,
    content: Content,
}

impl Dumped {
    /// The lines in which it finds fault: mismatches and gaps, bytes that are no batch, bad checksums, its own end.
    pub(crate) fn complaints(&self) -> Vec<&str> {
        let lines = self.text.lines();
        let mut found: Vec<&str> = lines
            .filter(|line| line.contains("isvalid: false") || line.contains("invalid bytes"))
            .chain((!self.is_well).then_some("it failed"))
            .collect();
        let mut errors = self.errors.lines().peekable();
        while let Some(line) = errors.next() {
            // Of every segment but the first it says that offset -1 comes before the segment's own, of Kafka's files too.
            let begins = segment_base(line)
                .map(|base| format!("  -1 is followed by {base}"))
                .filter(|begins| errors.next_if(|next| next == begins).is_some());
            let goes_on = errors.peek().is_some_and(|next| next.starts_with("  "));
            if begins.is_none() || goes_on {
                found.push(line);
            }
        }
        found
    }

    /// What it says of `file`: nothing if there is none.
    pub(crate) fn section(&self, file: &Path) -> Section<'_> {
        let title = format!("Dumping {}", file.display());
        let lines = self.text.lines().skip_while(|line| *line != title).skip(1);
        Section(
            lines
                .take_while(|line| !line.starts_with("Dumping "))
                .collect(),
        )
    }
}

impl Section<'_> {
    pub(crate) fn batches(&self) -> Vec<Shown> {
        let lines = self.0.iter().filter(|line| line.starts_with("baseOffset:"));
        lines.map(|line| Shown::parse(line)).collect()
    }

    pub(crate) fn records(&self) -> Vec<Line> {
        let lines = self.0.iter().filter(|line| line.starts_with("| offset:"));
        lines
            .map(|line| {
                let marker = text_of(line, "endTxnMarker:");
                Line {
                    offset: number(line, "offset:"),
                    key: text_of(line, "key:").unwrap_or_default().to_owned(),
                    payload: marker
                        .or_else(|| text_of(line, "payload:"))
                        .unwrap_or_default()
                        .to_owned(),
                }
            })
            .collect()
    }

    /// Two numbers of each line that has them.
    pub(crate) fn pairs(&self, left: &str, right: &str) -> Vec<(i64, i64)> {
        let (left, right) = (format!("{left}:"), format!("{right}:"));
        let lines = self.0.iter().filter(|line| line.starts_with(&left));
        lines
            .map(|line| (number(line, &left), number(line, &right)))
            .collect()
    }

    /// The rows of aborted transactions.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let lines = self.0.iter().filter(|line| line.starts_with("version:"));
        lines
            .map(|line| {
                let row = |name| number(line, name);
                assert_eq!(row("version:"), 0);
                let stable = row("lastStableOffset:");
                (
                    row("producerId:"),
                    row("firstOffset:"),
                    row("lastOffset:"),
                    stable,
                )
            })
            .collect()
    }
}

impl Shown {
    #[track_caller]
    fn parse(line: &str) -> Shown {
        let base = number(line, "baseOffset:");
        let last = number(line, "lastOffset:");
        let truth = |name| text_of(line, name).map(|word| word == "true");
        assert_eq!(truth("isvalid:"), Some(true), "{line}");
        let small = |name| i32::try_from(number(line, name)).expect("small");
        Shown {
            base,
            last,
            position: number(line, "position:"),
            timestamp: number(line, "CreateTime:"),
            content: Content {
                base,
                last,
                count: small("count:"),
                sequence: small("baseSequence:"),
                producer: (
                    number(line, "producerId:"),
                    i16::try_from(small("producerEpoch:")).expect("small"),
                ),
                is_transactional: truth("isTransactional:") == Some(true),
                is_control: truth("isControl:") == Some(true),
                codec: text_of(line, "compresscodec:").unwrap_or("?").to_owned(),
            },
        }
    }

    pub(crate) fn content(&self) -> Content {
        self.content.clone()
    }
}

/// The first offset of the segment whose offsets are said to have gaps.
fn segment_base(line: &str) -> Option<i64> {
    let path = line.strip_prefix("Non-consecutive offsets in ")?;
    Path::new(path).file_stem()?.to_str()?.parse().ok()
}

/// The word behind a name.
fn text_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split(' ').skip_while(|word| *word != name);
    words.nth(1)
}

#[track_caller]
fn number(line: &str, name: &str) -> i64 {
    let word = text_of(line, name).unwrap_or_else(|| panic!("no {name} in {line}"));
    word.parse().unwrap_or_else(|_| panic!("{name} in {line}"))
}
