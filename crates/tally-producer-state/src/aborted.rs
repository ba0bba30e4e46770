//! The aborted transactions of a partition: rows of the aborted index, and the selection for one fetch.
//!
//! A row as it lies in the index of the segment that holds the ABORT marker (M-15), big-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | version = 0 |
//! | 2 | 8 | producer_id |
//! | 10 | 8 | first_offset of the transaction on this partition |
//! | 18 | 8 | last_offset: the ABORT marker |
//! | 26 | 8 | last_stable_offset when the marker was appended |

use tally_protocol::{Offset, ProducerId};

/// Bytes of a row.
pub const ABORTED_ROW_BYTES: usize = 34;
const VERSION: i16 = 0;
const _: () = assert!(ABORTED_ROW_BYTES == 2 + 4 * 8);

/// A transaction that ended by an ABORT marker (M-15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: ProducerId,
    /// Its first record on this partition.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
    /// First offset of the earliest transaction still open when the marker was appended, else the offset behind the
    /// marker: no row that comes later can begin below it (F-6).
    pub last_stable_offset: Offset,
}

impl AbortedTransaction {
    /// The row of the aborted index.
    #[must_use]
    pub fn encode(&self) -> [u8; ABORTED_ROW_BYTES] {
        let mut row = [0; ABORTED_ROW_BYTES];
        row[0..2].copy_from_slice(&VERSION.to_be_bytes());
        row[2..10].copy_from_slice(&self.producer_id.0.to_be_bytes());
        row[10..18].copy_from_slice(&self.first_offset.0.to_be_bytes());
        row[18..26].copy_from_slice(&self.last_offset.0.to_be_bytes());
        row[26..34].copy_from_slice(&self.last_stable_offset.0.to_be_bytes());
        row
    }

    /// Reads a row; `None` if its version is unknown: then the index has to be rebuilt from the log (P-64).
    #[must_use]
    pub fn decode(row: &[u8; ABORTED_ROW_BYTES]) -> Option<AbortedTransaction> {
        if i16::from_be_bytes([row[0], row[1]]) != VERSION {
            return None;
        }
        Some(AbortedTransaction {
            producer_id: ProducerId(number_at(row, 2)),
            first_offset: Offset(number_at(row, 10)),
            last_offset: Offset(number_at(row, 18)),
            last_stable_offset: Offset(number_at(row, 26)),
        })
    }

    /// The marker's offset of a row, without reading the rest: what truncation of an index compares.
    #[must_use]
    pub fn last_offset_of(row: &[u8; ABORTED_ROW_BYTES]) -> Offset {
        Offset(number_at(row, 18))
    }
}

/// Chooses what a read_committed fetch lists: exactly the rows with `last_offset >= fetch_offset` and
/// `first_offset < upper`, by ascending first offset, each once (F-5, F-7, D-11).
///
/// `rows` come in the order of their markers, from the segment that holds `fetch_offset` upwards; `upper` is the first
/// offset after the last batch returned. Reading stops at the first row that proves that no later one can qualify (F-6).
pub fn collect_aborted(
    rows: impl Iterator<Item = AbortedTransaction>,
    fetch_offset: Offset,
    upper: Offset,
) -> Vec<(ProducerId, Offset)> {
    let mut chosen = Vec::new();
    for row in rows {
        // F-5: a row that ended earlier must not be listed, or the client drops committed data of that producer.
        if row.last_offset >= fetch_offset && row.first_offset < upper {
            chosen.push((row.producer_id, row.first_offset));
        }
        if row.last_stable_offset >= upper {
            break;
        }
    }
    chosen.sort_unstable_by_key(|(producer, first)| (*first, *producer));
    chosen.dedup();
    chosen
}

fn number_at(row: &[u8; ABORTED_ROW_BYTES], at: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&row[at..at + 8]);
    i64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(producer: i64, first: i64, last: i64, stable: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId(producer),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable),
        }
    }

    #[test]
    fn m15_a_row_is_34_bytes_and_comes_back() {
        let row = row(0x0102_0304, 5, 9, 10);
        let bytes = row.encode();
        assert_eq!(bytes[..10], [0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(AbortedTransaction::decode(&bytes), Some(row));
        assert_eq!(AbortedTransaction::last_offset_of(&bytes), Offset(9));
        let mut unknown = bytes;
        unknown[1] = 1;
        assert_eq!(AbortedTransaction::decode(&unknown), None);
    }

    #[test]
    fn f5_only_rows_that_overlap_the_answer_are_listed() {
        let rows = [row(1, 0, 2, 3), row(2, 3, 5, 6), row(3, 7, 9, 10)];
        for (fetch, upper, expected) in [
            (0, 3, vec![(1, 0)]),
            (0, 4, vec![(1, 0), (2, 3)]),
            (2, 3, vec![(1, 0)]),
            (3, 7, vec![(2, 3)]),
            (3, 8, vec![(2, 3), (3, 7)]),
            (6, 7, vec![]),
            (10, 20, vec![]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(producer, first)| (ProducerId(producer), Offset(first)))
                .collect();
            let got = collect_aborted(rows.into_iter(), Offset(fetch), Offset(upper));
            assert_eq!(got, expected, "fetch {fetch} up to {upper}");
        }
    }

    #[test]
    fn d11_the_list_is_sorted_by_first_offset() {
        // B began second and ended first.
        let rows = [row(2, 1, 4, 0), row(1, 0, 5, 6), row(1, 0, 5, 6)];
        let got = collect_aborted(rows.into_iter(), Offset(0), Offset(6));
        assert_eq!(
            got,
            [(ProducerId(1), Offset(0)), (ProducerId(2), Offset(1))]
        );
    }

    #[test]
    fn f6_reading_stops_when_no_later_row_can_begin_below() {
        let rows = [row(1, 0, 2, 3), row(2, 3, 5, 6)];
        let mut read = 0;
        let counted = rows.into_iter().inspect(|_| read += 1);
        assert_eq!(collect_aborted(counted, Offset(0), Offset(3)).len(), 1);
        assert_eq!(read, 1);
    }
}
