//! Time, read once per event by the caller and handed in.

/// The time of one event.
///
/// Running time (timeouts, sessions) uses the monotonic clock, so that no clock jump can expire anything (K-2); the wall
/// clock is only for what is stored or shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds since an arbitrary start; never falls within one run of the broker.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: i64,
}
