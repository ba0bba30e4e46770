//! `tally cluster features`.

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{ApiVersionsRequest, UpdateFeaturesRequest};

use super::Upgrade;
use crate::client::{Cluster, Failure, check, check_told, text};
use crate::commands::{Common, Done};
use crate::output::{Listing, Value};

const API_VERSIONS_NEWEST: i16 = 4;
const UPDATE_FEATURES_NEWEST: i16 = 2;
/// From here on there is a kind of update, and one can be checked alone.
const UPDATE_FEATURES_CHECKED: i16 = 1;
const TO_UPGRADE: i8 = 1;

/// A feature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Feature {
    pub(super) name: String,
    /// Levels that the broker knows.
    min: i16,
    max: i16,
    /// The level that is finalised; `None`: it is not.
    pub(super) level: Option<i16>,
}

/// What the broker that was asked first knows, by name.
pub(super) fn ask(cluster: &mut Cluster) -> Result<Vec<Feature>, Failure> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("tally"))
        .with_client_software_version(text(env!("CARGO_PKG_VERSION")));
    let answer = cluster.call_any(API_VERSIONS_NEWEST, &request)?;
    check("ApiVersions", answer.error_code)?;
    let finalised = answer.finalized_features;
    let level = |name: &str| {
        let mut rows = finalised.iter();
        let row = rows.find(|row| row.name.as_str() == name);
        row.map(|row| row.max_version_level)
    };
    let mut features: Vec<Feature> = answer
        .supported_features
        .iter()
        .map(|row| Feature {
            name: row.name.to_string(),
            min: row.min_version,
            max: row.max_version,
            level: level(&row.name),
        })
        .collect();
    features.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(features)
}

pub(super) fn list(common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let headings = ["FEATURE", "KNOWN", "FINALISED"];
    let mut listing = Listing::new(common.output, "feature", &headings);
    for row in ask(&mut cluster)? {
        listing.row(
            vec![
                row.name.clone(),
                format!("{} to {}", row.min, row.max),
                row.level
                    .map_or_else(|| "-".to_owned(), |level| level.to_string()),
            ],
            vec![
                ("feature", Value::from(row.name)),
                ("min", Value::from(row.min)),
                ("max", Value::from(row.max)),
                ("finalised", Value::from(row.level)),
            ],
        );
    }
    listing.finish("no features");
    Ok(Done::Well)
}

pub(super) fn upgrade(upgrade: &Upgrade, common: &Common) -> Result<Done, Failure> {
    if !upgrade.yes && !upgrade.dry_run {
        let what = "older brokers and data formats may be shut out by it: add --yes to do it, --dry-run to have it checked";
        return Err(Failure::Usage(what.to_owned()));
    }
    let mut cluster = common.open()?;
    let known = ask(&mut cluster)?;
    let is_raised = |row: &&Feature| row.level.unwrap_or(0) < row.max;
    let levels = if upgrade.levels.is_empty() {
        let raised = known.iter().filter(is_raised);
        raised.map(|row| (row.name.clone(), row.max)).collect()
    } else {
        upgrade.levels.clone()
    };
    if !levels.is_empty() {
        update(&mut cluster, &levels, upgrade.dry_run)?;
    }
    let headings = ["FEATURE", "FROM", "TO", "DONE"];
    let mut listing = Listing::new(common.output, "upgraded", &headings);
    for (name, level) in levels {
        let from = known.iter().find(|row| row.name == name);
        let from = from.and_then(|row| row.level);
        listing.row(
            vec![
                name.clone(),
                from.map_or_else(|| "-".to_owned(), |level| level.to_string()),
                level.to_string(),
                if upgrade.yes {
                    "finalised"
                } else {
                    "would be accepted"
                }
                .to_owned(),
            ],
            vec![
                ("feature", Value::from(name)),
                ("from", Value::from(from)),
                ("to", Value::from(level)),
                ("done", Value::from(upgrade.yes)),
            ],
        );
    }
    listing.finish("all features are at their highest level");
    Ok(Done::Well)
}

fn update(
    cluster: &mut Cluster,
    levels: &[(String, i16)],
    is_checked: bool,
) -> Result<(), Failure> {
    let key = kafka_protocol::messages::ApiKey::UpdateFeatures as i16;
    let served = cluster.served().get(&key).map_or(0, |(_, max)| *max);
    if is_checked && served < UPDATE_FEATURES_CHECKED {
        let what = "this broker is too old to check an update without doing it";
        return Err(Failure::Unable(what.to_owned()));
    }
    let updates = levels.iter().map(|(name, level)| {
        let update = FeatureUpdateKey::default()
            .with_feature(text(name))
            .with_max_version_level(*level);
        if served >= UPDATE_FEATURES_CHECKED {
            update.with_upgrade_type(TO_UPGRADE)
        } else {
            update
        }
    });
    let mut request = UpdateFeaturesRequest::default().with_feature_updates(updates.collect());
    if served >= UPDATE_FEATURES_CHECKED {
        request = request.with_validate_only(is_checked);
    }
    let answer = cluster.call_any(UPDATE_FEATURES_NEWEST, &request)?;
    check_told("features", answer.error_code, answer.error_message)?;
    for row in answer.results {
        let what = format!("feature {}", row.feature.as_str());
        check_told(what, row.error_code, row.error_message)?;
    }
    Ok(())
}
