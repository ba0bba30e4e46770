//! Why a command could not do what it was asked for, as text and as exit code (the codes are an interface).

use std::io;

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

/// Exit code: the check found a problem.
pub(crate) const EXIT_PROBLEM: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_UNREACHABLE: u8 = 3;
const EXIT_UNAUTHORISED: u8 = 4;
const EXIT_TIMED_OUT: u8 = 5;
const EXIT_REFUSED: u8 = 6;

/// REQUEST_TIMED_OUT.
const REQUEST_TIMED_OUT: i16 = 7;
/// The codes that say that a user may not do something.
const UNAUTHORISED: [i16; 7] = [29, 30, 31, 53, 54, 58, 65];

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody is there, or the connection was lost.
    #[error("cannot reach {address}: {error}")]
    Unreachable {
        /// Who.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// The time that was given is over.
    #[error("no answer from {0} in time (--timeout gives it more)")]
    TimedOut(String),
    /// The answer was an error code.
    #[error("{what}: {}", error_name(*.code))]
    Refused {
        /// What was asked for.
        what: String,
        /// The code.
        code: i16,
    },
    /// The broker can't be asked this, or its answer makes no sense.
    #[error("{0}")]
    Unable(String),
}

impl Failure {
    /// A code that came back for `what`.
    pub(crate) fn refused(what: impl Into<String>, code: i16) -> Failure {
        Failure::Refused {
            what: what.into(),
            code,
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => EXIT_USAGE,
            Failure::Unreachable { .. } => EXIT_UNREACHABLE,
            Failure::TimedOut(_) => EXIT_TIMED_OUT,
            Failure::Refused { code, .. } if UNAUTHORISED.contains(code) => EXIT_UNAUTHORISED,
            Failure::Refused { code, .. } if *code == REQUEST_TIMED_OUT => EXIT_TIMED_OUT,
            Failure::Refused { .. } | Failure::Unable(_) => EXIT_REFUSED,
        }
    }
}

/// `Ok` if the code is none.
pub(crate) fn check(what: impl Into<String>, code: i16) -> Result<(), Failure> {
    if code == 0 {
        Ok(())
    } else {
        Err(Failure::refused(what, code))
    }
}

/// The same, with what the broker says to it, if it says something.
pub(crate) fn check_told(
    what: impl Into<String>,
    code: i16,
    message: Option<StrBytes>,
) -> Result<(), Failure> {
    match message {
        Some(message) if !message.is_empty() => check(format!("{}: {message}", what.into()), code),
        _ => check(what, code),
    }
}

/// The name of an error code as Kafka writes it, with its number: `PRODUCER_FENCED (90)`.
pub(crate) fn error_name(code: i16) -> String {
    let error = match ResponseError::try_from_code(code) {
        None | Some(ResponseError::Unknown(_)) => return format!("error {code}"),
        Some(error) => error,
    };
    let mut name = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    format!("{name} ({code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kafkas_names() {
        assert_eq!(error_name(90), "PRODUCER_FENCED (90)");
        assert_eq!(error_name(105), "TRANSACTIONAL_ID_NOT_FOUND (105)");
        assert_eq!(error_name(9999), "error 9999");
    }

    #[test]
    fn failures_end_with_the_code_of_their_kind() {
        for (code, exit) in [(31, 4), (53, 4), (7, 5), (90, 6)] {
            assert_eq!(Failure::refused("x", code).exit_code(), exit, "{code}");
        }
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::TimedOut(String::new()).exit_code(), 5);
    }
}
