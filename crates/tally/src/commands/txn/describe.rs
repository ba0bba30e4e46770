//! `tally txn describe`.

use super::list::{age_ms, fields};
use super::{ask, now_ms};
use crate::client::{Failure, check};
use crate::commands::{Common, Done, in_words};
use crate::output::{Format, Rows};

pub(super) fn run(ids: &[String], common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let described = ask::describe(&mut cluster, ids)?;
    for row in &described {
        check(row.id.clone(), row.error)?;
    }
    let now_ms = now_ms();
    let mut rows = Rows::new(common.output);
    for (at, row) in described.iter().enumerate() {
        if common.output != Format::Table {
            rows.row("transaction", fields(row, now_ms));
            continue;
        }
        if at > 0 {
            rows.line("");
        }
        let open = age_ms(row, now_ms).map_or_else(
            || "no transaction is open".to_owned(),
            |age_ms| {
                let left_ms = i64::from(row.timeout_ms).saturating_sub(age_ms);
                format!(
                    "open for {}, ends by itself in {}",
                    in_words(age_ms),
                    in_words(left_ms)
                )
            },
        );
        rows.line(&row.id);
        rows.line(&format!("  state       {} ({open})", row.state));
        rows.line(&format!(
            "  producer    {}, epoch {}",
            row.producer_id, row.producer_epoch
        ));
        rows.line(&format!(
            "  timeout     {}",
            in_words(i64::from(row.timeout_ms))
        ));
        for place in &row.partitions {
            rows.line(&format!("  partition   {place}"));
        }
    }
    rows.finish();
    Ok(Done::Well)
}
