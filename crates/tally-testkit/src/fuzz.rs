//! Bodies of the fuzz targets: any bytes, and what must hold whatever they are.
//!
//! Each is a function over bytes that panics when something is wrong, so that whoever has bytes can call it: the shells in
//! `fuzz/` with libFuzzer (`scripts/fuzz`, which needs a nightly toolchain), and `tests/corpus.rs` with the corpus and changes of
//! it, in every run of the tests on the stable toolchain.

mod batches;
mod choices;
mod groups;
mod indexes;
mod place;
mod producers;
mod requests;
mod segment;
mod transactions;

pub use self::batches::batch_view;
pub use self::groups::group_ops;
pub use self::indexes::index_files;
pub use self::producers::producer_ops;
pub use self::requests::request_decode;
pub use self::segment::segment_recovery;
pub use self::transactions::transaction_ops;

/// A target: its name, which is that of its shell and of its part of the corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("batch_view", batch_view),
    ("segment_recovery", segment_recovery),
    ("index_files", index_files),
    ("request_decode", request_decode),
    ("producer_ops", producer_ops),
    ("transaction_ops", transaction_ops),
    ("group_ops", group_ops),
];
