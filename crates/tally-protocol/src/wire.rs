//! The primitive types of the wire, read from and written to bytes.
//!
//! Two families of lengths exist: *classic* (i16 before strings, i32 before bytes and arrays, -1 for null) and, from
//! the version in which an API becomes *flexible*, *compact* (an unsigned varint holding length + 1, 0 for null) with
//! a section of tagged fields behind each structure (KIP-482).
//!
//! Invariant: nothing here trusts a length. Bytes that do not hold what they announce give [`Malformed`], never a
//! panic, and no memory is reserved on the word of a count (api-matrix.md section 3.3).

use bytes::BufMut;
use thiserror::Error;

/// The longest string the wire can carry, in bytes: the classic length is an i16, and Kafka holds the compact form to
/// the same limit.
pub const STRING_BYTES_MAX: usize = 0x7fff;

/// The most tagged fields a section may hold. No version of any message defines more than four; each field that is
/// kept costs memory.
pub const TAGGED_FIELDS_MAX: u32 = 1024;

/// Why bytes are not the message they should be. The connection that sent them is closed (LR-152).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The bytes end before the message does, or a length points behind their end.
    #[error("the message is cut short, or a length in it is too large")]
    Truncated,
    /// A length or count below -1, or -1 where null is not allowed.
    #[error("a length in the message is impossible")]
    BadLength,
    /// A variable-length number with too many bytes.
    #[error("a variable-length number is too long")]
    BadVarint,
    /// A string that is not UTF-8.
    #[error("a string is not valid UTF-8")]
    BadUtf8,
    /// More structures or tagged fields than any client sends.
    #[error("the message holds too many elements")]
    TooManyElements,
    /// The codec crate could not read what the lengths allowed: null or text where it may not be, say.
    #[error("the message does not decode")]
    Undecodable,
    /// The API or version is not one that is known here.
    #[error("the api or version is not known")]
    UnknownVersion,
}

/// Reads primitives from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// An int8.
    #[inline]
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    /// An int16.
    #[inline]
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    /// An int32.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// An int64.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// An unsigned varint of at most 32 bits.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, Malformed> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.u8()?;
            if shift == 28 && byte > 0x0f {
                return Err(Malformed::BadVarint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::BadVarint)
    }

    /// A zig-zag varint of at most 32 bits, as records use.
    #[inline]
    pub fn varint(&mut self) -> Result<i32, Malformed> {
        let raw = self.uvarint()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zig-zag varint of at most 64 bits, as records use.
    #[inline]
    pub fn varlong(&mut self) -> Result<i64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(Malformed::BadVarint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(Malformed::BadVarint)
    }

    /// The length of an array, `None` for null, refused unless that many elements of at least `element_bytes_min`
    /// (at least 1) fit the bytes left.
    #[inline]
    pub fn array_length(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, Malformed> {
        let length = self.length(flexible, LengthWidth::Four)?;
        match length {
            Some(count)
                if count
                    .checked_mul(element_bytes_min.max(1))
                    .is_none_or(|bytes| bytes > self.rest.len()) =>
            {
                Err(Malformed::Truncated)
            }
            other => Ok(other),
        }
    }

    /// Bytes, `None` for null.
    #[inline]
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length(flexible, LengthWidth::Four)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes that may not be null.
    #[inline]
    pub fn bytes(&mut self, flexible: bool) -> Result<&'a [u8], Malformed> {
        self.nullable_bytes(flexible)?.ok_or(Malformed::BadLength)
    }

    /// The bytes of a string, not checked to be UTF-8; `None` for null.
    #[inline]
    pub fn nullable_string_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length(flexible, LengthWidth::Two)? {
            Some(length) if length > STRING_BYTES_MAX => Err(Malformed::BadLength),
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// A string, `None` for null.
    #[inline]
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<&'a str>, Malformed> {
        match self.nullable_string_bytes(flexible)? {
            Some(bytes) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|_| Malformed::BadUtf8),
            None => Ok(None),
        }
    }

    /// A string that may not be null.
    #[inline]
    pub fn string(&mut self, flexible: bool) -> Result<&'a str, Malformed> {
        self.nullable_string(flexible)?.ok_or(Malformed::BadLength)
    }

    /// Reads the tagged fields behind a structure: nothing at all unless `flexible`. `field` gets each tag number and
    /// a reader over exactly its bytes; what it leaves unread is skipped, so unknown tags need no code (LR-154).
    #[inline]
    pub fn tagged_fields(
        &mut self,
        flexible: bool,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !flexible {
            return Ok(());
        }
        let count = self.uvarint()?;
        if count > TAGGED_FIELDS_MAX {
            return Err(Malformed::TooManyElements);
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size = self.uvarint()?;
            let size = usize::try_from(size).map_err(|_| Malformed::Truncated)?;
            field(tag, &mut Reader::new(self.take(size)?))?;
        }
        Ok(())
    }

    /// Skips the tagged fields behind a structure: nothing at all unless `flexible`.
    #[inline]
    pub fn skip_tagged_fields(&mut self, flexible: bool) -> Result<(), Malformed> {
        self.tagged_fields(flexible, |_, _| Ok(()))
    }

    #[inline]
    fn length(&mut self, flexible: bool, classic: LengthWidth) -> Result<Option<usize>, Malformed> {
        if flexible {
            let raw = self.uvarint()?;
            return match raw.checked_sub(1) {
                Some(length) => usize::try_from(length)
                    .map(Some)
                    .map_err(|_| Malformed::Truncated),
                None => Ok(None),
            };
        }
        let length = match classic {
            LengthWidth::Two => i32::from(self.i16()?),
            LengthWidth::Four => self.i32()?,
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| Malformed::BadLength),
        }
    }
}

#[derive(Clone, Copy)]
enum LengthWidth {
    Two,
    Four,
}

/// Writes an unsigned varint.
#[inline]
pub fn put_uvarint(out: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

/// Writes a zig-zag varint of 32 bits.
#[inline]
pub fn put_varint(out: &mut impl BufMut, value: i32) {
    put_uvarint(out, ((value << 1) ^ (value >> 31)).cast_unsigned());
}

/// Writes a zig-zag varint of 64 bits.
#[inline]
pub fn put_varlong(out: &mut impl BufMut, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.put_u8((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.put_u8((raw & 0x7f) as u8);
}

/// Bytes that [`put_varint`] writes for `value`.
#[must_use]
pub const fn varint_bytes(value: i32) -> usize {
    varlong_bytes(value as i64)
}

/// Bytes that [`put_varlong`] writes for `value`.
#[must_use]
pub const fn varlong_bytes(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let bits = 64 - (raw | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Writes the length of an array.
#[inline]
pub fn put_array_length(out: &mut impl BufMut, flexible: bool, length: usize) {
    let length = i32::try_from(length).expect("no array in memory here reaches 2^31 elements");
    if flexible {
        put_uvarint(out, length.cast_unsigned() + 1);
    } else {
        out.put_i32(length);
    }
}

/// Writes a null array.
#[inline]
pub fn put_null_array(out: &mut impl BufMut, flexible: bool) {
    if flexible {
        put_uvarint(out, 0);
    } else {
        out.put_i32(-1);
    }
}

/// Writes the length of a byte field, without the bytes.
#[inline]
pub fn put_bytes_length(out: &mut impl BufMut, flexible: bool, length: usize) {
    put_array_length(out, flexible, length);
}

/// Writes a byte field.
#[inline]
pub fn put_bytes(out: &mut impl BufMut, flexible: bool, bytes: &[u8]) {
    put_bytes_length(out, flexible, bytes.len());
    out.put_slice(bytes);
}

/// Writes a string of at most [`STRING_BYTES_MAX`] bytes: every string that came over the wire is one.
#[inline]
pub fn put_string(out: &mut impl BufMut, flexible: bool, text: &str) {
    let length = i16::try_from(text.len()).expect("strings of the wire have at most 32767 bytes");
    if flexible {
        put_uvarint(out, u32::from(length.cast_unsigned()) + 1);
    } else {
        out.put_i16(length);
    }
    out.put_slice(text.as_bytes());
}

/// Writes a string or null.
#[inline]
pub fn put_nullable_string(out: &mut impl BufMut, flexible: bool, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, flexible, text),
        None if flexible => put_uvarint(out, 0),
        None => out.put_i16(-1),
    }
}

/// Writes an empty section of tagged fields: nothing at all unless `flexible`.
#[inline]
pub fn put_no_tagged_fields(out: &mut impl BufMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_their_edges() {
        for value in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i32::MAX, i32::MIN] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_bytes(value), "{value}");
            assert_eq!(Reader::new(&out).varint(), Ok(value));
        }
        for value in [0, 1, -1, i64::from(i32::MIN), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_bytes(value), "{value}");
            assert_eq!(Reader::new(&out).varlong(), Ok(value));
        }
        for value in [0, 127, 128, 16383, 16384, u32::MAX] {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            assert_eq!(Reader::new(&out).uvarint(), Ok(value));
        }
    }

    #[test]
    fn overlong_varints_are_refused() {
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint(),
            Err(Malformed::BadVarint)
        );
        assert_eq!(
            Reader::new(&[0xff; 10]).varlong(),
            Err(Malformed::BadVarint)
        );
        assert_eq!(Reader::new(&[0x80]).uvarint(), Err(Malformed::Truncated));
    }

    #[test]
    fn counts_that_do_not_fit_the_bytes_left_are_refused() {
        let huge = [0x7f, 0xff, 0xff, 0xff];
        assert_eq!(
            Reader::new(&huge).array_length(false, 1),
            Err(Malformed::Truncated)
        );
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(
            Reader::new(&huge).array_length(true, 1),
            Err(Malformed::Truncated)
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xfe]).array_length(false, 1),
            Err(Malformed::BadLength)
        );
        assert_eq!(Reader::new(&[0]).array_length(true, 1), Ok(None));
        assert_eq!(Reader::new(&[2, 9]).array_length(true, 1), Ok(Some(1)));
        assert_eq!(
            Reader::new(&[3, 9, 9, 9]).array_length(true, 2),
            Err(Malformed::Truncated)
        );
    }

    #[test]
    fn unknown_tagged_fields_are_skipped() {
        let mut reader = Reader::new(&[2, 5, 1, 0xaa, 6, 2, 1, 2, 0x77]);
        let mut seen = Vec::new();
        reader
            .tagged_fields(true, |tag, field| {
                seen.push((tag, field.remaining()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(5, 1), (6, 2)]);
        assert_eq!(reader.rest(), [0x77]);
    }
}
