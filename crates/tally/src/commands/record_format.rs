//! The form that a record has on a line, for `produce -f` and `consume -f`: fields (`%k`) and what stands between them.
//!
//! | | |
//! |---|---|
//! | `%k` `%v` | key, value (`%s` is the value too) |
//! | `%h` | headers, as `NAME=VALUE,NAME=VALUE` |
//! | `%t` `%p` | topic, partition |
//! | `%T` | time, milliseconds since 1970 |
//! | `%o` `%K` `%S` | offset, bytes of the key, bytes of the value (-1: null); for output alone |
//! | `%%` | a percent sign |
//! | `\n` `\t` `\r` `\0` `\xNN` `\\` | bytes |

/// A field of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Key,
    Value,
    Headers,
    Topic,
    Partition,
    Time,
    Offset,
    KeyBytes,
    ValueBytes,
}

/// A part of a form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    Field(Field),
    Bytes(Vec<u8>),
}

/// Reads a form.
pub(crate) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => match chars.next() {
                Some('%') => bytes.push(b'%'),
                Some(name) => {
                    let field = field(name)?;
                    if !bytes.is_empty() {
                        pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                    }
                    pieces.push(Piece::Field(field));
                }
                None => return Err("a single % at the end (%% is a percent sign)".to_owned()),
            },
            '\\' => bytes.push(escaped(&mut chars)?),
            other => {
                let mut buffer = [0; 4];
                bytes.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes());
            }
        }
    }
    if !bytes.is_empty() {
        pieces.push(Piece::Bytes(bytes));
    }
    Ok(pieces)
}

fn field(name: char) -> Result<Field, String> {
    Ok(match name {
        'k' => Field::Key,
        'v' | 's' => Field::Value,
        'h' => Field::Headers,
        't' => Field::Topic,
        'p' => Field::Partition,
        'T' => Field::Time,
        'o' => Field::Offset,
        'K' => Field::KeyBytes,
        'S' => Field::ValueBytes,
        other => {
            return Err(format!(
                "%{other} is no field: %k key, %v value, %h headers, %t topic, %p partition, %T time, %o offset, \
                 %K and %S bytes of key and value"
            ));
        }
    })
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    Ok(match chars.next() {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).ok();
            byte.filter(|_| digits.len() == 2)
                .ok_or_else(|| format!("\\x{digits} is not \\x and two hexadecimal digits"))?
        }
        Some(other) => {
            return Err(format!(
                "\\{other} is not known: \\n \\t \\r \\0 \\xNN \\\\"
            ));
        }
        None => return Err("a single \\ at the end".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        let bytes = |bytes: &[u8]| Piece::Bytes(bytes.to_vec());
        assert_eq!(
            parse("%k\\t%v%%\\x41é\\n"),
            Ok(vec![
                Piece::Field(Field::Key),
                bytes(b"\t"),
                Piece::Field(Field::Value),
                bytes("%Aé\n".as_bytes()),
            ])
        );
        for wrong in ["%", "%z", "\\", "\\q", "\\x4", "\\xgg"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
