//! Stands in the place of [`crate::simulation`] in a release: nothing is simulated, and asking costs nothing.

use crate::metadata::Random;

pub(crate) const fn is_on() -> bool {
    false
}

pub(crate) const fn wall_ms() -> Option<i64> {
    None
}

pub(crate) const fn journal() -> Option<(u64, u64)> {
    None
}

pub(crate) const fn random() -> Option<Random> {
    None
}

#[expect(clippy::unused_async, reason = "a simulation pauses here")]
pub(crate) async fn pause() {}
