//! `tally group list` and `describe`.

use super::List;
use super::ask::{self, Described, Member};
use crate::client::Failure;
use crate::commands::place::Place;
use crate::commands::{Common, Done};
use crate::output::{Format, Listing, Rows, Value};

pub(super) fn list(list: &List, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let mut groups = ask::list(&mut cluster, &list.state, &list.kind)?;
    if let Some(prefix) = &list.prefix {
        groups.retain(|row| row.group.starts_with(prefix));
    }
    let headings = ["GROUP", "TYPE", "PROTOCOL", "STATE", "COORDINATOR"];
    let mut listing = Listing::new(common.output, "group", &headings);
    for row in groups {
        let cell = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        listing.row(
            vec![
                row.group.clone(),
                cell(&row.kind),
                cell(&row.protocol_type),
                cell(&row.state),
                row.coordinator.to_string(),
            ],
            vec![
                ("group", Value::from(row.group)),
                ("type", given(&row.kind)),
                ("protocol_type", given(&row.protocol_type)),
                ("state", given(&row.state)),
                ("coordinator", Value::from(row.coordinator)),
            ],
        );
    }
    listing.finish("no groups");
    Ok(Done::Well)
}

/// A text, or nothing if it is empty.
fn given(text: &str) -> Value {
    Value::from((!text.is_empty()).then_some(text))
}

pub(super) fn describe(groups: &[String], common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let mut described = Vec::new();
    for group in groups {
        described.push(ask::describe_known(&mut cluster, group)?);
    }
    let mut rows = Rows::new(common.output);
    for group in &described {
        if common.output == Format::Table {
            rows.line(&heading(group));
        } else {
            rows.row("group", fields(group));
        }
        for member in &group.members {
            rows.row("member", member_fields(member, &group.group, common.output));
        }
    }
    rows.finish();
    Ok(Done::Well)
}

fn heading(group: &Described) -> String {
    let count = group.members.len();
    let mut text = format!(
        "{}   {} {}, {count} member{}",
        group.group,
        group.kind,
        group.state,
        if count == 1 { "" } else { "s" }
    );
    if !group.assignor.is_empty() {
        text.push_str(&format!(", assignor {}", group.assignor));
    }
    if let Some(epoch) = group.epoch {
        text.push_str(&format!(", epoch {epoch}"));
    }
    text.push_str(&format!(", coordinator {}", group.coordinator));
    text
}

fn fields(group: &Described) -> Vec<(&'static str, Value)> {
    let members = i64::try_from(group.members.len()).unwrap_or(i64::MAX);
    vec![
        ("group", Value::from(group.group.as_str())),
        ("type", Value::from(group.kind)),
        ("state", Value::from(group.state.as_str())),
        ("protocol_type", given(&group.protocol_type)),
        ("assignor", given(&group.assignor)),
        ("epoch", Value::from(group.epoch)),
        ("coordinator", Value::from(group.coordinator)),
        ("members", Value::from(members)),
    ]
}

fn member_fields(member: &Member, group: &str, format: Format) -> Vec<(&'static str, Value)> {
    let partitions = if format == Format::Table {
        let names: Vec<String> = member.places.iter().map(Place::to_string).collect();
        given(&names.join(" "))
    } else {
        member.places.iter().map(Place::value).collect()
    };
    let mut fields = vec![
        ("member_id", Value::from(member.id.as_str())),
        ("instance", Value::from(member.instance.as_deref())),
        ("client_id", Value::from(member.client_id.as_str())),
        ("host", Value::from(member.host.as_str())),
        ("partitions", partitions),
    ];
    if format != Format::Table {
        fields.insert(0, ("group", Value::from(group)));
    }
    fields
}
