//! How records are written: in a form of the user's, as rows, or their values alone.

use tally_protocol::BatchHeader;
use tally_protocol::batch::LOG_APPEND_TIME_BIT;
use tally_protocol::record::RecordView;

use crate::client::{Failure, Standing};
use crate::commands::place::Place;
use crate::commands::record_format::{Field, Piece, parse};
use crate::decode;
use crate::offline::{Role, role_of};
use crate::output::{Format, Raw, Rows, Value};

/// The values, a line each.
const VALUES: &str = "%v\\n";

/// Writes records to standard output.
pub(super) enum Show {
    Form(Vec<Piece>, Raw),
    Rows(Format, Rows),
}

impl Show {
    pub(super) fn new(
        form: Option<&str>,
        output: Option<Format>,
        is_meta: bool,
    ) -> Result<Show, Failure> {
        let format = output.or(is_meta.then_some(Format::Table));
        match (form, format) {
            (None, Some(Format::Table)) if !is_meta => Show::new(None, None, false),
            (None, Some(format)) => Ok(Show::Rows(format, Rows::new(format))),
            (form, _) => {
                let form = form.unwrap_or(VALUES);
                let pieces = parse(form)
                    .map_err(|error| Failure::Usage(format!("--format {form}: {error}")))?;
                Ok(Show::Form(pieces, Raw::new()))
            }
        }
    }

    pub(super) fn record(
        &mut self,
        place: &Place,
        header: &BatchHeader,
        record: &RecordView<'_>,
        standing: Standing,
    ) {
        match self {
            Show::Form(pieces, raw) => {
                for piece in &*pieces {
                    match piece {
                        Piece::Bytes(bytes) => raw.write(bytes),
                        Piece::Field(field) => write_field(raw, *field, place, (header, record)),
                    }
                }
            }
            Show::Rows(format, rows) => {
                let fields = fields(*format, place, (header, record), standing);
                rows.row("record", fields);
            }
        }
    }

    /// Hands over what was written.
    pub(super) fn flush(&mut self) {
        match self {
            Show::Form(_, raw) => raw.flush(),
            Show::Rows(_, rows) => rows.flush(),
        }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Show::Form(_, raw) => raw.is_closed(),
            Show::Rows(_, rows) => rows.is_closed(),
        }
    }

    pub(super) fn finish(self) {
        match self {
            Show::Form(_, mut raw) => raw.flush(),
            Show::Rows(_, rows) => rows.finish(),
        }
    }
}

fn time_ms(header: &BatchHeader, record: &RecordView<'_>) -> i64 {
    if header.attributes & LOG_APPEND_TIME_BIT != 0 {
        header.max_timestamp
    } else {
        header.base_timestamp.saturating_add(record.timestamp_delta)
    }
}

fn write_field(
    raw: &mut Raw,
    field: Field,
    place: &Place,
    (header, record): (&BatchHeader, &RecordView<'_>),
) {
    let bytes = |field: Option<&[u8]>| {
        field.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
    };
    let number = match field {
        Field::Key => return raw.write(record.key.unwrap_or_default()),
        Field::Value => return raw.write(record.value.unwrap_or_default()),
        Field::Topic => return raw.write(place.topic.as_bytes()),
        Field::Headers => {
            for (at, (name, value)) in record.headers.enumerate() {
                raw.write(if at > 0 { b"," } else { b"" });
                raw.write(name);
                if let Some(value) = value {
                    raw.write(b"=");
                    raw.write(value);
                }
            }
            return;
        }
        Field::Partition => i64::from(place.partition),
        Field::Time => time_ms(header, record),
        Field::Offset => header
            .base_offset
            .0
            .saturating_add(i64::from(record.offset_delta)),
        Field::KeyBytes => bytes(record.key),
        Field::ValueBytes => bytes(record.value),
    };
    raw.write(number.to_string().as_bytes());
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Readable => "record",
        Standing::Aborted => "aborted",
        Standing::Marker(Some(true)) => "COMMIT",
        Standing::Marker(Some(false)) => "ABORT",
        Standing::Marker(None) => "control",
    }
}

fn fields(
    format: Format,
    place: &Place,
    (header, record): (&BatchHeader, &RecordView<'_>),
    standing: Standing,
) -> Vec<(&'static str, Value)> {
    let role = role_of(&place.topic);
    let is_table = format == Format::Table;
    let mut fields = vec![
        ("topic", Value::from(place.topic.as_str())),
        ("partition", Value::from(place.partition)),
        ("is", Value::from(standing_name(standing))),
    ];
    let known = |number: i64| Value::from((number >= 0).then_some(number));
    if !is_table {
        fields.push(("producer_id", known(header.producer_id.0)));
        fields.push(("producer_epoch", known(i64::from(header.producer_epoch.0))));
        fields.push(("transactional", Value::from(header.is_transactional())));
    }
    for (name, value) in decode::record(header, record, false, role) {
        match name {
            "timestamp" if is_table => {
                fields.push(("time", Value::from(moment(time_ms(header, record)))));
            }
            // A marker's bytes say what the column before says.
            "key" | "value" if matches!(standing, Standing::Marker(_)) => {
                fields.push((name, Value::Null));
            }
            "decoded" if is_table && role == Role::Data => {}
            "headers" if is_table && record.headers.count() == 0 => {
                fields.push((name, Value::Null));
            }
            _ => fields.push((name, value)),
        }
    }
    fields
}

/// A time for people, in UTC: `2026-11-21T18:05:09.123Z`.
fn moment(time_ms: i64) -> String {
    if time_ms < 0 {
        return time_ms.to_string();
    }
    let (days, in_day_ms) = (time_ms / 86_400_000, time_ms % 86_400_000);
    // Days since 0000-03-01, in eras of 400 years: leap days are then at the ends of years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute) = (in_day_ms / 3_600_000, in_day_ms / 60_000 % 60);
    let (second, milli) = (in_day_ms / 1000 % 60, in_day_ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_utc() {
        for (time_ms, said) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_278_863_009, "2026-11-21T16:34:23.009Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(moment(time_ms), said);
        }
        assert_eq!(moment(-1), "-1");
    }
}
