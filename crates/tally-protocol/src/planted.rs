//! Mistakes that are made on purpose, to see that tests find them (feature `planted`, never on in a release).
//!
//! All of them are in one build; a thread chooses one at run time. Without the feature [`is`] is `false` before anything is
//! compiled behind it. What each does, and how soon it is found: docs/testing.md.

#[cfg(feature = "planted")]
use std::cell::Cell;

#[cfg(feature = "planted")]
thread_local! {
    static CHOSEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether this thread is to make the mistake of that name.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(name: &str) -> bool {
    CHOSEN.get() == Some(name)
}

/// Whether this thread is to make the mistake of that name.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}

/// Has this thread make a mistake from now on, or none.
#[cfg(feature = "planted")]
pub fn choose(name: Option<&'static str>) {
    CHOSEN.set(name);
}
