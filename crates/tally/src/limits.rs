//! Limits of the process: open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: a connection and a segment's index each take one.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let is_raised = match (current, maximum) {
        (None, _) => true,
        (Some(current), Some(maximum)) => current >= maximum,
        (Some(_), None) => false,
    };
    if is_raised {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?current, ?maximum, "the limit of open files could not be raised");
    }
}
