//! The words of the Kafka protocol: ids, error codes, record batches, control records, the internal topics' records,
//! the API table and the hand-written parts of the wire codec.
//!
//! Pure: knows no files, sockets, clocks or state. Everything here turns bytes into values and back, and never
//! panics on bytes that came from a network or a disk.

#![forbid(unsafe_code)]

pub mod api_table;
pub mod batch;
pub mod build;
pub mod compression;
pub mod control;
pub mod error_code;
pub mod frame;
pub mod ids;
pub mod now;
pub mod planted;
pub mod record;
pub mod records;
pub mod request;
pub mod response;
pub mod rewrite;
pub mod schema;
pub mod seeded_map;
pub mod start_note;
pub mod transaction_note;
pub mod validate;
pub mod wire;

pub use batch::{BatchError, BatchHeader, BatchView};
pub use error_code::ErrorCode;
pub use ids::{
    CoordinatorEpoch, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence,
    TopicId,
};
pub use now::Now;
pub use seeded_map::SeededMap;
pub use wire::Malformed;
