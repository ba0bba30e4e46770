//! `tally cluster config`.

use super::{Get, Set, Unset, Whose};
use crate::client::{Cluster, Failure};
use crate::commands::configs::{self, DEFAULT, Resource};
use crate::commands::{Common, Done};
use crate::output::{Listing, Value};

/// INVALID_CONFIG.
const NO_SUCH: i16 = 40;

impl Whose {
    /// Whom a change is for.
    fn changed(&self) -> Resource {
        match (&self.topic, &self.group, self.broker) {
            (Some(topic), _, _) => Resource::topic(topic),
            (None, Some(group), _) => Resource::group(group),
            (None, None, Some(broker)) => Resource::broker(broker),
            (None, None, None) => Resource::all_brokers(),
        }
    }

    /// Whose properties are shown: without a name those that one of the brokers has, whoever set them.
    fn shown(&self, cluster: &Cluster) -> Result<Resource, Failure> {
        if self.topic.is_none() && self.group.is_none() && self.broker.is_none() {
            return Ok(Resource::broker(cluster.any_broker()?));
        }
        Ok(self.changed())
    }
}

pub(super) fn get(get: &Get, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let resource = get.whose.shown(&cluster)?;
    let names: Vec<&str> = get.names.iter().map(String::as_str).collect();
    let mut entries = configs::describe(&mut cluster, &resource, &names)?;
    for name in names {
        if !entries.iter().any(|entry| entry.name == name) {
            return Err(Failure::refused(
                format!("{resource} has no property {name}"),
                NO_SUCH,
            ));
        }
    }
    if get.names.is_empty() && !get.all {
        entries.retain(|entry| entry.source != DEFAULT);
    }
    let headings = ["NAME", "VALUE", "SOURCE", "NOTE"];
    let mut listing = Listing::new(common.output, "config", &headings);
    for entry in entries {
        let note = match (entry.is_sensitive, entry.is_read_only) {
            (true, _) => "secret",
            (false, true) => "read-only",
            (false, false) => "",
        };
        listing.row(
            vec![
                entry.name.clone(),
                entry.value.clone().unwrap_or_else(|| "-".to_owned()),
                entry.source_name().to_owned(),
                note.to_owned(),
            ],
            vec![
                ("name", Value::from(entry.name.as_str())),
                ("value", Value::from(entry.value.as_deref())),
                ("source", Value::from(entry.source_name())),
                ("read_only", Value::from(entry.is_read_only)),
                ("sensitive", Value::from(entry.is_sensitive)),
            ],
        );
    }
    listing.finish("all properties are at their defaults (--all shows them)");
    Ok(Done::Well)
}

pub(super) fn set(set: &Set, common: &Common) -> Result<Done, Failure> {
    let changes = set.settings.iter();
    let changes = changes.map(|(name, value)| (name.clone(), Some(value.clone())));
    change(
        &set.whose,
        &changes.collect::<Vec<_>>(),
        set.dry_run,
        common,
    )
}

pub(super) fn unset(unset: &Unset, common: &Common) -> Result<Done, Failure> {
    let changes = unset.names.iter().map(|name| (name.clone(), None));
    change(
        &unset.whose,
        &changes.collect::<Vec<_>>(),
        unset.dry_run,
        common,
    )
}

fn change(
    whose: &Whose,
    changes: &[(String, Option<String>)],
    is_checked: bool,
    common: &Common,
) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let resource = whose.changed();
    configs::alter(&mut cluster, &resource, changes, is_checked)?;
    let headings = ["NAME", "VALUE", "OF", "DONE"];
    let mut listing = Listing::new(common.output, "changed", &headings);
    for (name, value) in changes {
        listing.row(
            vec![
                name.clone(),
                value.clone().unwrap_or_else(|| "-".to_owned()),
                resource.to_string(),
                if is_checked {
                    "would be accepted"
                } else {
                    "changed"
                }
                .to_owned(),
            ],
            vec![
                ("name", Value::from(name.as_str())),
                ("value", Value::from(value.as_deref())),
                ("of", Value::from(resource.to_string())),
                ("done", Value::from(!is_checked)),
            ],
        );
    }
    listing.finish("");
    Ok(Done::Well)
}
