//! Lines, and the records in them.
//!
//! A thread reads, so that a line that a person types is sent while the next one is waited for. What it has read and nobody has
//! taken yet is bounded: [`CHUNKS_MAX`] pieces of [`CHUNK_BYTES`] or of one line, which has at most [`LINE_BYTES_MAX`].

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::batch::Record;
use crate::commands::record_format::{Field, Piece};

/// No broker takes a record that is nearly as long, unless it was told to.
const LINE_BYTES_MAX: u64 = 64 << 20;
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_MAX: usize = 4;
const BUFFER_BYTES: usize = 128 << 10;

/// Lines without their ends, or why there are no more.
pub(super) type Chunk = Result<Vec<Vec<u8>>, String>;

/// Reads lines until the end; what was read is handed over before more is waited for.
pub(super) fn read(input: Box<dyn Read + Send>) -> Receiver<Chunk> {
    let (sender, receiver) = sync_channel(CHUNKS_MAX);
    thread::spawn(move || {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, input);
        loop {
            let chunk = chunk(&mut reader);
            let is_last = !matches!(&chunk, Ok(lines) if !lines.is_empty());
            let is_nothing = matches!(&chunk, Ok(lines) if lines.is_empty());
            // Nobody listens any more when the command has failed.
            if is_nothing || sender.send(chunk).is_err() || is_last {
                break;
            }
        }
    });
    receiver
}

fn chunk(reader: &mut BufReader<Box<dyn Read + Send>>) -> Chunk {
    let mut lines = Vec::new();
    let mut bytes = 0;
    while bytes < CHUNK_BYTES {
        let Some(line) = line(reader)? else { break };
        bytes += line.len() + size_of::<Vec<u8>>();
        lines.push(line);
        if reader.buffer().is_empty() {
            break;
        }
    }
    Ok(lines)
}

/// The next line; `None` at the end.
fn line(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let read = reader
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .map_err(|error: io::Error| error.to_string())?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if u64::try_from(read) == Ok(LINE_BYTES_MAX) {
        return Err(format!("a line has more than {LINE_BYTES_MAX} bytes"));
    }
    Ok(Some(line))
}

/// What a line holds.
#[derive(Debug)]
pub(super) struct LineForm {
    pieces: Vec<Piece>,
}

impl LineForm {
    /// A form that can be read: fields that a record can have, with something between them.
    pub(super) fn new(mut pieces: Vec<Piece>) -> Result<LineForm, String> {
        // The end of the line is the end of the record, said or not.
        if let Some(Piece::Bytes(bytes)) = pieces.last_mut()
            && bytes.last() == Some(&b'\n')
        {
            bytes.pop();
            if bytes.is_empty() {
                pieces.pop();
            }
        }
        for pair in pieces.windows(2) {
            if let [Piece::Field(_), Piece::Field(_)] = pair {
                return Err("two fields with nothing between them".to_owned());
            }
        }
        for piece in &pieces {
            match piece {
                Piece::Field(Field::Offset | Field::KeyBytes | Field::ValueBytes) => {
                    return Err("%o, %K and %S can't be given to a record".to_owned());
                }
                Piece::Bytes(bytes) if bytes.contains(&b'\n') => {
                    return Err("a record is a line: \\n can only be at the end".to_owned());
                }
                Piece::Field(_) | Piece::Bytes(_) => {}
            }
        }
        Ok(LineForm { pieces })
    }

    /// The record on a line.
    pub(super) fn record(&self, line: &[u8]) -> Result<Record, String> {
        let mut record = Record::default();
        let mut rest = line;
        let mut pieces = self.pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Bytes(bytes) => {
                    rest = rest
                        .strip_prefix(&bytes[..])
                        .ok_or_else(|| format!("{} is missing", shown(bytes)))?;
                }
                Piece::Field(field) => {
                    let text = match pieces.peek() {
                        Some(Piece::Bytes(until)) => {
                            let end = find(rest, until)
                                .ok_or_else(|| format!("{} is missing", shown(until)))?;
                            &rest[..end]
                        }
                        _ => rest,
                    };
                    rest = &rest[text.len()..];
                    set(&mut record, *field, text)?;
                }
            }
        }
        if rest.is_empty() {
            Ok(record)
        } else {
            Err(format!("{} is more than the format says", shown(rest)))
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    format!("{:?}", text.chars().take(40).collect::<String>())
}

fn set(record: &mut Record, field: Field, text: &[u8]) -> Result<(), String> {
    let number = || {
        let text = std::str::from_utf8(text).ok();
        text.and_then(|text| text.parse::<i64>().ok())
            .filter(|number| *number >= 0)
            .ok_or_else(|| {
                format!(
                    "{} is no number",
                    shown(text.unwrap_or_default().as_bytes())
                )
            })
    };
    match field {
        Field::Key => record.key = Some(text.to_vec()),
        Field::Value => record.value = Some(text.to_vec()),
        Field::Headers => {
            let headers = text.split(|byte| *byte == b',');
            let headers = headers.filter(|header| !header.is_empty());
            record.headers.extend(headers.map(|header| {
                let equals = header.iter().position(|byte| *byte == b'=');
                match equals {
                    Some(at) => (header[..at].to_vec(), Some(header[at + 1..].to_vec())),
                    None => (header.to_vec(), None),
                }
            }));
        }
        Field::Topic => {
            let topic = String::from_utf8(text.to_vec()).map_err(|error| error.to_string())?;
            record.topic = Some(topic);
        }
        Field::Partition => {
            let wrong = |_| format!("{} is no partition", shown(text));
            record.partition = Some(i32::try_from(number()?).map_err(wrong)?);
        }
        Field::Time => record.timestamp_ms = Some(number()?),
        Field::Offset | Field::KeyBytes | Field::ValueBytes => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::record_format::parse;

    fn form(text: &str) -> Result<LineForm, String> {
        LineForm::new(parse(text).unwrap())
    }

    #[test]
    fn a_line_is_taken_apart() {
        let form = form("%t:%p %T %k\\t%h|%v\\n").unwrap();
        let record = form.record(b"orders:3 17 key\ta=1,b|x|y").unwrap();
        let expected = Record {
            topic: Some("orders".to_owned()),
            partition: Some(3),
            key: Some(b"key".to_vec()),
            value: Some(b"x|y".to_vec()),
            headers: vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)],
            timestamp_ms: Some(17),
        };
        assert_eq!(record, expected);
        for wrong in ["orders", "orders:x 17 k\t|v", "orders:-1 17 k\t|v"] {
            assert!(form.record(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_may_be_anything_and_nothing() {
        let form = form("%v").unwrap();
        assert_eq!(form.record(b"").unwrap().value, Some(Vec::new()));
        assert_eq!(
            form.record(b"\xff\t").unwrap().value,
            Some(b"\xff\t".to_vec())
        );
    }

    #[test]
    fn forms_that_can_not_be_read_are_refused() {
        for wrong in ["%k%v", "%o %v", "%k\\n%v", "%S"] {
            assert!(form(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let read = |text: &'static str| {
            let chunks = read(Box::new(text.as_bytes()));
            chunks.iter().flat_map(Result::unwrap).collect::<Vec<_>>()
        };
        assert_eq!(read("a\n\nb"), [b"a".to_vec(), Vec::new(), b"b".to_vec()]);
        assert!(read("").is_empty());
    }
}
