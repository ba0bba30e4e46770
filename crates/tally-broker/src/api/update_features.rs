//! UpdateFeatures (KIP-584, KIP-1022): the features with a choice are `group.version` and `transaction.version`.
//!
//! All updates of a request hold together or not at all; a refusal is the code of the whole answer, as from Kafka 4.

use crate::api::Node;
use crate::api::topics::{text, waiting_for_the_disk};
use crate::metadata::features::{
    self, GROUP_VERSION, Levels, METADATA_VERSION, TRANSACTION_VERSION,
};
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use tally_protocol::ErrorCode;

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let mut response = UpdateFeaturesResponse::default().with_error_message(None);
    let mut levels = Levels::default();
    for update in &request.feature_updates {
        match checked(node, version, update) {
            Ok(()) if update.feature.as_str() == TRANSACTION_VERSION.name => {
                levels.transaction_version = Some(update.max_version_level);
            }
            Ok(()) if update.feature.as_str() == GROUP_VERSION.name => {
                levels.group_version = Some(update.max_version_level);
            }
            Ok(()) => {}
            Err(reason) => {
                response.error_code = ErrorCode::InvalidUpdateVersion.code();
                response.error_message = Some(text(&format!(
                    "nothing was updated, because of {}: {reason}",
                    update.feature.as_str()
                )));
                return response;
            }
        }
    }
    // Version 0 cannot ask for a check alone.
    if !(version >= 1 && request.validate_only)
        && let Err(error) = waiting_for_the_disk(|| node.metadata.finalize(levels))
    {
        tracing::error!(%error, "finalized features not written");
        response.error_code = ErrorCode::KafkaStorageError.code();
        response.error_message = Some(text(&error.to_string()));
        return response;
    }
    if version <= 1 {
        let rows = request.feature_updates.into_iter();
        let rows =
            rows.map(|update| UpdatableFeatureResult::default().with_feature(update.feature));
        response.results = rows.collect();
    }
    response
}

/// Whether one feature may be set to that level.
fn checked(node: &Node, version: i16, update: &FeatureUpdateKey) -> Result<(), String> {
    let kind = match version {
        0 if update.allow_downgrade => SAFE_DOWNGRADE,
        0 => UPGRADE,
        _ => update.upgrade_type,
    };
    if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&kind) {
        return Err(format!(
            "upgrade type {kind} is none of 1 (upgrade), 2 and 3 (safe and unsafe downgrade)"
        ));
    }
    let Some(feature) = features::feature(update.feature.as_str()) else {
        return Err("this broker has no such feature".to_owned());
    };
    let level = update.max_version_level;
    if !(feature.min..=feature.max).contains(&level) {
        return Err(format!(
            "level {level} is not supported; {} to {} are",
            feature.min, feature.max
        ));
    }
    let current = if feature.name == METADATA_VERSION.name {
        METADATA_VERSION.max
    } else if feature.name == GROUP_VERSION.name {
        node.metadata.group_version()
    } else {
        node.metadata.transaction_version()
    };
    if level < current && kind == UPGRADE {
        return Err(format!(
            "from {current} down to {level} is a downgrade, which has to be asked for as one"
        ));
    }
    if level > current && kind != UPGRADE {
        return Err(format!("from {current} up to {level} is no downgrade"));
    }
    Ok(())
}
