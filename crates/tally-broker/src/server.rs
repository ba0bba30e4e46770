//! Everything that runs: the listener, the connections, the shards' driver, compaction, what waits for the disk, the clock
//! and the health page.

pub(crate) mod clock;
pub(crate) mod compactor;
pub(crate) mod connection;
pub(crate) mod foreign;
pub(crate) mod hanging;
pub(crate) mod heard;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod loading;
pub(crate) mod request_memory;
pub(crate) mod shards;
pub(crate) mod sync;
