//! The records inside a batch, read in place.
//!
//! A record: length varint; attributes i8; timestamp_delta varlong; offset_delta varint; key length varint (-1 null)
//! and bytes; value length varint (-1 null) and bytes; header count varint; each header: key length varint and bytes,
//! value length varint (-1 null) and bytes. Varints are zig-zag (log-and-fetch.md section 2).
//!
//! Invariant: iterating allocates nothing, and stops for ever at the first record that does not parse.

use crate::wire::{Malformed, Reader, put_varint, put_varlong, varint_bytes, varlong_bytes};
use bytes::BufMut;

/// One record, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Always 0 in format 2.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
    /// The headers, already checked to parse.
    pub headers: Headers<'a>,
}

impl<'a> RecordView<'a> {
    /// Reads the record at the front of `reader`, its headers included.
    #[inline]
    pub fn read(reader: &mut Reader<'a>) -> Result<RecordView<'a>, Malformed> {
        let length = usize::try_from(reader.varint()?).map_err(|_| Malformed::BadLength)?;
        let mut body = Reader::new(reader.take(length)?);
        let attributes = body.i8()?;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let header_count = usize::try_from(body.varint()?).map_err(|_| Malformed::BadLength)?;
        let headers = Headers {
            reader: body,
            left: header_count,
        };
        for _ in 0..header_count {
            read_header(&mut body)?;
        }
        if body.remaining() != 0 {
            return Err(Malformed::BadLength);
        }
        Ok(RecordView {
            attributes,
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }
}

/// The headers of a record, in order, repeated keys included. Keys should be UTF-8, which nobody checks: Kafka's broker
/// takes any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl Headers<'_> {
    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.left
    }
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.left == other.left && self.reader.rest() == other.reader.rest()
    }
}

impl Eq for Headers<'_> {}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        read_header(&mut self.reader).ok()
    }
}

#[inline]
fn read_header<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), Malformed> {
    let key = nullable(reader)?.ok_or(Malformed::BadLength)?;
    Ok((key, nullable(reader)?))
}

#[inline]
fn nullable<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    match reader.varint()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| Malformed::BadLength)?;
            reader.take(length).map(Some)
        }
    }
}

/// Iterates the records of an uncompressed or decompressed block.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    reader: Reader<'a>,
    left: i32,
}

impl<'a> Records<'a> {
    /// The `count` records that `block` holds; what follows them is [`Records::rest`].
    #[must_use]
    pub const fn new(block: &'a [u8], count: i32) -> Records<'a> {
        Records {
            reader: Reader::new(block),
            left: count,
        }
    }

    /// The bytes not read yet: empty at the end of a sound block.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let record = RecordView::read(&mut self.reader);
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

/// Writes a record without headers.
///
/// Keys and values have less than 2^31 bytes.
pub fn put_record(
    out: &mut impl BufMut,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let length = 1
        + varlong_bytes(timestamp_delta)
        + varint_bytes(offset_delta)
        + nullable_bytes(key)
        + nullable_bytes(value)
        + varint_bytes(0);
    put_varint(out, to_length(length));
    out.put_i8(0);
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    for field in [key, value] {
        match field {
            Some(bytes) => {
                put_varint(out, to_length(bytes.len()));
                out.put_slice(bytes);
            }
            None => put_varint(out, -1),
        }
    }
    put_varint(out, 0);
}

fn nullable_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(varint_bytes(-1), |bytes| {
        varint_bytes(to_length(bytes.len())) + bytes.len()
    })
}

fn to_length(length: usize) -> i32 {
    i32::try_from(length).expect("the broker writes no record of 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two records: a key, a value and two headers of the same key; then nulls alone.
    const BLOCK: &[u8] = &[
        34, 0, 4, 0, 2, b'k', 4, b'v', b'w', 4, 2, b'h', 2, 1, 2, b'h', 1, 0, // 17 bytes
    ];

    #[test]
    fn a_record_with_repeated_header_keys_is_read_in_place() {
        let mut bytes = BLOCK[..17].to_vec();
        bytes[0] = 32;
        let mut records = Records::new(&bytes, 1);
        let record = records.next().unwrap().unwrap();
        assert_eq!(record.timestamp_delta, 2);
        assert_eq!(record.key, Some(&b"k"[..]));
        assert_eq!(record.value, Some(&b"vw"[..]));
        let headers: Vec<_> = record.headers.collect();
        assert_eq!(headers, [(&b"h"[..], Some(&[1u8][..])), (&b"h"[..], None)]);
        assert!(records.next().is_none());
        assert!(records.rest().is_empty());
    }

    #[test]
    fn bytes_behind_the_headers_are_refused() {
        let record = Records::new(BLOCK, 1).next().unwrap();
        assert_eq!(record, Err(Malformed::BadLength));
    }

    #[test]
    fn written_records_read_back() {
        let mut block = Vec::new();
        put_record(&mut block, 0, 0, Some(b"key"), Some(b"value"));
        put_record(&mut block, -5, 1, None, None);
        put_record(&mut block, 1 << 40, 2, Some(b""), Some(&[7; 300]));
        let mut records = Records::new(&block, 3);
        let read: Vec<_> = records.by_ref().map(Result::unwrap).collect();
        assert_eq!(read[0].key, Some(&b"key"[..]));
        assert_eq!((read[1].key, read[1].value), (None, None));
        assert_eq!(read[1].timestamp_delta, -5);
        assert_eq!(read[2].offset_delta, 2);
        assert_eq!(read[2].value.unwrap().len(), 300);
        assert!(records.rest().is_empty());
    }

    #[test]
    fn cut_and_negative_lengths_are_refused_once() {
        let mut block = Vec::new();
        put_record(&mut block, 0, 0, Some(b"key"), Some(b"value"));
        for end in 0..block.len() {
            let mut records = Records::new(&block[..end], 2);
            assert!(records.next().unwrap().is_err());
            assert!(records.next().is_none());
        }
        // Length -2; key length -2; header count -1.
        for broken in [&[3][..], &[12, 0, 0, 0, 3, 1, 0], &[12, 0, 0, 0, 1, 1, 1]] {
            assert!(Records::new(broken, 1).next().unwrap().is_err());
        }
    }
}
