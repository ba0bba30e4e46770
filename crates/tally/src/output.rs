//! The only place that writes to standard output. Logs go to standard error.

use std::io::Write;

/// Writes lines for a person. A closed standard output is no reason to stop serving.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "standard output is closed");
    }
}

/// Writes why the command ends, on standard error.
pub(crate) fn complain(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody is left to be told that nobody can be told.
    drop(writeln!(stderr, "tally: {text}"));
}
