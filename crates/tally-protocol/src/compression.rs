//! Looks inside compressed batches, within a limit (LR-46), and compresses again what compaction leaves of one.
//!
//! | codec | format |
//! |---|---|
//! | 1 gzip | RFC 1952, members may follow one another |
//! | 2 snappy | xerial framing (Java, sarama: a 16-byte header, then blocks behind an i32 length) or one raw block (librdkafka) |
//! | 3 lz4 | the LZ4 frame format; a missing end mark is overlooked |
//! | 4 zstd | zstd frames |
//!
//! Invariant: never more than about twice the limit is allocated for the output, whatever sizes the data announces.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use thiserror::Error;

/// Codec id of an uncompressed batch.
pub const NONE: i16 = 0;
/// Codec id of gzip.
pub const GZIP: i16 = 1;
/// Codec id of snappy.
pub const SNAPPY: i16 = 2;
/// Codec id of lz4.
pub const LZ4: i16 = 3;
/// Codec id of zstd.
pub const ZSTD: i16 = 4;

const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
/// Magic, version and lowest compatible version.
const XERIAL_HEADER_BYTES: usize = 16;

/// What snappy can make of a byte at most: a copy of three bytes yields 64.
const SNAPPY_EXPANSION_MAX: usize = 32;

/// Version 1, readable from version 1 on.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Bytes that go into one block of the framing.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// What a zstd client uses if nobody says anything.
const ZSTD_LEVEL: i32 = 3;

/// Why a block can't be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CompressionError {
    /// The codec id is none of 0 to 4.
    #[error("the compression codec {0} is not known")]
    UnknownCodec(i16),
    /// The bytes are not what the codec writes.
    #[error("the compressed data is corrupt")]
    Corrupt,
    /// The data is larger than the limit.
    #[error("the data decompresses to more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit that was given.
        limit_bytes: usize,
    },
}

/// Decompresses `bytes`, borrowing them if they are not compressed. More than `limit_bytes` of output is an error.
pub fn decompress(
    codec: i16,
    bytes: &[u8],
    limit_bytes: usize,
) -> Result<Cow<'_, [u8]>, CompressionError> {
    match codec {
        NONE if bytes.len() <= limit_bytes => Ok(Cow::Borrowed(bytes)),
        NONE => Err(CompressionError::TooLarge { limit_bytes }),
        GZIP => read_all(
            flate2::read::MultiGzDecoder::new(bytes),
            bytes.len(),
            limit_bytes,
        ),
        SNAPPY => snappy(bytes, limit_bytes),
        LZ4 => read_all(
            lz4_flex::frame::FrameDecoder::new(bytes),
            bytes.len(),
            limit_bytes,
        ),
        ZSTD => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes)
                .map_err(|_| CompressionError::Corrupt)?;
            read_all(decoder, bytes.len(), limit_bytes)
        }
        other => Err(CompressionError::UnknownCodec(other)),
    }
}

/// Compresses `bytes` as clients do: snappy in xerial framing, which all of them read, the others at their usual levels.
pub fn compress(codec: i16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        NONE => Ok(bytes.to_vec()),
        GZIP => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        SNAPPY => xerial(bytes),
        LZ4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes)?;
            encoder.finish().map_err(io::Error::other)
        }
        ZSTD => zstd::stream::encode_all(bytes, ZSTD_LEVEL),
        other => Err(io::Error::other(CompressionError::UnknownCodec(other))),
    }
}

fn xerial(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = [XERIAL_MAGIC, &XERIAL_VERSIONS].concat();
    let mut encoder = snap::raw::Encoder::new();
    for piece in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(piece).map_err(io::Error::other)?;
        let length = i32::try_from(block.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

fn read_all(
    decoder: impl Read,
    compressed_bytes: usize,
    limit_bytes: usize,
) -> Result<Cow<'static, [u8]>, CompressionError> {
    // Text and JSON shrink to about a quarter: most batches then need one allocation.
    let mut out = Vec::with_capacity(compressed_bytes.saturating_mul(4).min(limit_bytes));
    let bound = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    decoder
        .take(bound.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|_| CompressionError::Corrupt)?;
    if out.len() > limit_bytes {
        return Err(CompressionError::TooLarge { limit_bytes });
    }
    Ok(Cow::Owned(out))
}

fn snappy(bytes: &[u8], limit_bytes: usize) -> Result<Cow<'static, [u8]>, CompressionError> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        snappy_block(bytes, limit_bytes, &mut out)?;
        return Ok(Cow::Owned(out));
    }
    let mut rest = bytes
        .get(XERIAL_HEADER_BYTES..)
        .ok_or(CompressionError::Corrupt)?;
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length =
            usize::try_from(i32::from_be_bytes(*length)).map_err(|_| CompressionError::Corrupt)?;
        let (block, behind) = behind
            .split_at_checked(length)
            .ok_or(CompressionError::Corrupt)?;
        snappy_block(block, limit_bytes, &mut out)?;
        rest = behind;
    }
    if rest.is_empty() {
        Ok(Cow::Owned(out))
    } else {
        Err(CompressionError::Corrupt)
    }
}

/// Appends what `block` holds to `out`, which may not grow beyond the limit.
fn snappy_block(
    block: &[u8],
    limit_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let length = snap::raw::decompress_len(block).map_err(|_| CompressionError::Corrupt)?;
    if length > block.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
        return Err(CompressionError::Corrupt);
    }
    let start = out.len();
    if length > limit_bytes.saturating_sub(start) {
        return Err(CompressionError::TooLarge { limit_bytes });
    }
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|_| CompressionError::Corrupt)?;
    if written == length {
        Ok(())
    } else {
        Err(CompressionError::Corrupt)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Compresses as clients do.
    pub(crate) fn compress(codec: i16, bytes: &[u8]) -> Vec<u8> {
        match codec {
            GZIP => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            SNAPPY => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
            LZ4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            ZSTD => zstd::stream::encode_all(bytes, 3).unwrap(),
            _ => bytes.to_vec(),
        }
    }

    fn xerial(bytes: &[u8], block_bytes: usize) -> Vec<u8> {
        let mut out = [XERIAL_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for chunk in bytes.chunks(block_bytes) {
            let block = compress(SNAPPY, chunk);
            out.extend_from_slice(&i32::try_from(block.len()).unwrap().to_be_bytes());
            out.extend_from_slice(&block);
        }
        out
    }

    fn sample() -> Vec<u8> {
        (0..20_000u32).flat_map(|n| (n / 7).to_be_bytes()).collect()
    }

    #[test]
    fn every_codec_reads_back() {
        let sample = sample();
        for codec in [NONE, GZIP, SNAPPY, LZ4, ZSTD] {
            let packed = compress(codec, &sample);
            let read = decompress(codec, &packed, sample.len());
            assert_eq!(read.as_deref(), Ok(&sample[..]), "codec {codec}");
        }
        let framed = xerial(&sample, 32 * 1024);
        let read = decompress(SNAPPY, &framed, sample.len());
        assert_eq!(read.as_deref(), Ok(&sample[..]));
        let empty = xerial(&[], 1);
        assert_eq!(decompress(SNAPPY, &empty, 1).as_deref(), Ok(&[][..]));
    }

    #[test]
    fn what_is_compressed_here_reads_back() {
        for sample in [sample(), vec![0; 100_000], b"x".to_vec(), Vec::new()] {
            for codec in [NONE, GZIP, SNAPPY, LZ4, ZSTD] {
                let packed = super::compress(codec, &sample).unwrap();
                let read = decompress(codec, &packed, sample.len());
                assert_eq!(read.as_deref(), Ok(&sample[..]), "codec {codec}");
            }
        }
        assert!(super::compress(5, b"x").is_err());
    }

    #[test]
    fn frames_and_members_may_follow_one_another() {
        for codec in [GZIP, ZSTD] {
            let packed = [compress(codec, b"one"), compress(codec, b"two")].concat();
            let read = decompress(codec, &packed, 6);
            assert_eq!(read.as_deref(), Ok(&b"onetwo"[..]), "codec {codec}");
        }
    }

    #[test]
    fn lr46_output_beyond_the_limit_is_refused() {
        let zeros = vec![0; 1 << 20];
        let limit_bytes = zeros.len() - 1;
        let too_large = Err(CompressionError::TooLarge { limit_bytes });
        for codec in [NONE, GZIP, SNAPPY, LZ4, ZSTD] {
            let packed = compress(codec, &zeros);
            assert_eq!(decompress(codec, &packed, limit_bytes), too_large);
        }
        let framed = xerial(&zeros, 1 << 16);
        assert_eq!(decompress(SNAPPY, &framed, limit_bytes), too_large);
    }

    #[test]
    fn a_snappy_length_without_data_reserves_nothing() {
        // Announces 2^32 - 1 bytes, holds none.
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decompress(SNAPPY, &bomb, usize::MAX).is_err());
    }

    #[test]
    fn broken_data_is_refused() {
        let sample = sample();
        for codec in [GZIP, SNAPPY, LZ4, ZSTD] {
            let packed = compress(codec, &sample);
            // lz4: 4 bytes of end mark that the decoder does not insist on.
            for end in [0, 1, packed.len() / 2, packed.len() - 5] {
                let read = decompress(codec, &packed[..end], 1 << 20);
                let whole = read.as_deref() == Ok(&sample[..]);
                assert!(!whole, "codec {codec} cut at {end}");
            }
            assert!(decompress(codec, b"not compressed at all", 1 << 20).is_err());
        }
        let framed = xerial(&sample, 1 << 14);
        for end in [8, 15, 18, 30, framed.len() - 1] {
            assert!(decompress(SNAPPY, &framed[..end], 1 << 20).is_err());
        }
        let unknown = decompress(5, &[], 1);
        assert_eq!(unknown, Err(CompressionError::UnknownCodec(5)));
    }
}
