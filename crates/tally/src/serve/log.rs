//! The broker's log, on standard error: lines for people, or a JSON object a line (`--log-format json`).
//!
//! The keys of an object are an interface: `time`, `level`, `code` and `event` (null where the line has none), `message` (without
//! the two), `target`, and `fields`, what the line says of single things. What `tally` says when it can't start, and when it is
//! stopped by force, is for whoever called it: plain text in either format.

use std::fmt;
use std::io::{self, IsTerminal};

use tally_broker::Loggers;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::args::LogFormat;
use crate::output::Value;

/// Starts the log; what is returned changes its levels while the broker runs.
pub(super) fn start(filter: Option<&str>, format: LogFormat) -> Result<Loggers, String> {
    let (origin, text) = match (filter, std::env::var("RUST_LOG")) {
        (Some(filter), _) => ("--log ", filter.to_owned()),
        (None, Ok(filter)) => ("RUST_LOG=", filter),
        (None, Err(_)) => ("", "info".to_owned()),
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| format!("{origin}{text}: {error}"))?;
    let lines = match format {
        LogFormat::Text => Lines::Text(Format::default().with_target(io::stderr().is_terminal())),
        LogFormat::Json => Lines::Json,
    };
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .event_format(lines)
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.try_init()
        .map_err(|error| format!("cannot start the log: {error}"))?;
    Ok(Loggers::new(text, move |text| {
        let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}

/// How an event becomes a line. One type, because that of the handle that changes the levels depends on it.
enum Lines {
    Text(Format),
    Json,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Lines::Text(text) => text.format_event(context, writer, event),
            Lines::Json => write_object(writer, event),
        }
    }
}

fn write_object(mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let mut said = Said::default();
    event.record(&mut said);
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let metadata = event.metadata();
    let (code, name, message) = parts(&said.message);
    let line = Value::Object(vec![
        ("time", Value::from(time)),
        ("level", Value::from(metadata.level().as_str())),
        ("code", code.map_or(Value::Null, Value::from)),
        ("event", name.map_or(Value::Null, Value::from)),
        ("message", Value::from(message)),
        ("target", Value::from(metadata.target())),
        ("fields", Value::Object(said.fields)),
    ]);
    writeln!(writer, "{line}")
}

/// The stable code, the name of what happened, and the rest: `W2101 txn.timeout: aborted`.
fn parts(message: &str) -> (Option<&str>, Option<&str>, &str) {
    let nothing = (None, None, message);
    let Some((code, rest)) = message.split_once(' ') else {
        return nothing;
    };
    let is_code = code.len() == 5
        && code.starts_with(['E', 'W', 'I'])
        && code[1..].bytes().all(|byte| byte.is_ascii_digit());
    if !is_code {
        return nothing;
    }
    let end = rest.find([' ', ':']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    (Some(code), Some(name), rest.trim_start())
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn take(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.take(field, Value::from(text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.take(field, Value::from(value)),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, Value::Number(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, Value::Number(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, Value::Bool(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_code_is_taken_off_and_nothing_else() {
        let of = parts;
        assert_eq!(
            of("W2101 txn.timeout: aborted"),
            (Some("W2101"), Some("txn.timeout"), "aborted")
        );
        assert_eq!(
            of("W2103 a.b of a producer"),
            (Some("W2103"), Some("a.b"), "of a producer")
        );
        assert_eq!(of("I2110 x"), (Some("I2110"), Some("x"), ""));
        for plain in [
            "",
            "stopping",
            "W2101",
            "W21 x",
            "Wx101 x",
            "\u{e9}\u{e9}1 x",
            "I think so",
        ] {
            assert_eq!(of(plain), (None, None, plain));
        }
    }

    /// A line as it is written, without its time.
    fn line(say: impl FnOnce()) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = tracing_subscriber::fmt()
            .with_writer({
                let written = Arc::clone(&written);
                move || Shared(Arc::clone(&written))
            })
            .event_format(Lines::Json)
            .finish();
        tracing::subscriber::with_default(log, say);
        let bytes = written.lock().unwrap().clone();
        let line = String::from_utf8(bytes).unwrap();
        let (_, rest) = line.split_once("\",").unwrap();
        rest.to_owned()
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_said_stays_in_one_object_on_one_line() {
        let written = line(|| {
            tracing::warn!(
                id = "a\"b\\\n\u{1}\u{e9}",
                least = i64::MIN,
                most = u64::MAX,
                is = true,
                kind = ?Some("x"),
                "W2101 txn.timeout: \"{}\"",
                "}"
            );
        });
        let expected = concat!(
            r#""level":"WARN","code":"W2101","event":"txn.timeout","message":"\"}\"","#,
            r#""target":"tally::serve::log::tests","fields":{"id":"a\"b\\\n\u0001\u{e9}","#,
            r#""least":-9223372036854775808,"most":18446744073709551615,"is":true,"kind":"Some(\"x\")"}}"#,
            "\n"
        );
        assert_eq!(written, expected.replace("\\u{e9}", "\u{e9}"));
    }
}
