//! Refusals by Apache Kafka that are worded for another test's request.
//!
//! Before Kafka 4.3.1 takes a transactional batch, or offsets in a transaction, it asks the coordinator (KIP-890). Questions that come
//! while one is under way are collected, of whichever transactions, and go together as the next one. A partition that is not in its
//! transaction is then refused in the words of the request that began the collection (`AddPartitionsToTxnManager`: `addTxnData`
//! keeps the first one's `TransactionSupportedOperation`, `onComplete` reads it): 48 if that one was too old to know 120, else
//! 120. So where tests run side by side, Produce v11 may be told what v9 is told, and v9 a code that it does not know.
//! What one is told for itself comes with another try: a refused request has changed nothing.
//!
//! Whether a partition is to be added or only looked up is said for each transaction (`verifyOnly`), and who adds is never answered
//! by either code: Produce v12 and TxnOffsetCommit v5 begin such collections, and are not mistaken for others in them.

const INVALID_TXN_STATE: i16 = 48;
const TRANSACTION_ABORTABLE: i16 = 120;

/// A request that Kafka verifies, and its version.
#[derive(Clone, Copy, Debug)]
pub enum Verified {
    /// Produce in a transaction.
    Produce(i16),
    /// TxnOffsetCommit.
    TxnOffsetCommit(i16),
}

impl Verified {
    /// Whether Apache Kafka says this to such a request only in place of another one's answer. Of Tally nobody asks.
    pub const fn is_told_for_another(self, error: i16) -> bool {
        let (version, first_abortable) = match self {
            Verified::Produce(version) => (version, 11),
            Verified::TxnOffsetCommit(version) => (version, 4),
        };
        if version < first_abortable {
            error == TRANSACTION_ABORTABLE
        } else {
            version == first_abortable && error == INVALID_TXN_STATE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verified::{self, Produce, TxnOffsetCommit};

    #[test]
    fn each_version_has_one_code_of_its_own() {
        let others =
            |request: Verified| [48, 120, 0, 51].map(|code| request.is_told_for_another(code));
        for old in [Produce(9), Produce(10), TxnOffsetCommit(3)] {
            assert_eq!(others(old), [false, true, false, false], "{old:?}");
        }
        for newer in [Produce(11), TxnOffsetCommit(4)] {
            assert_eq!(others(newer), [true, false, false, false], "{newer:?}");
        }
        for adding in [Produce(12), TxnOffsetCommit(5)] {
            assert_eq!(others(adding), [false; 4], "{adding:?}");
        }
    }
}
