//! AlterConfigs, the older way (log-and-fetch.md 11.5): what is not named is no longer set.

use crate::api::Node;
use crate::api::altering;
use crate::api::topics::text;
use crate::config::{Alteration, Change, Operation};
use crate::metadata::AlterMode;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

pub(crate) fn handle(node: &Node, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mode = match request.validate_only {
        true => AlterMode::Check,
        false => AlterMode::Apply,
    };
    let keys =
        |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let keys: Vec<_> = request.resources.iter().map(keys).collect();
    let twice = altering::named_twice(keys.iter().map(|(kind, name)| (*kind, name.as_str())));
    let rows = request.resources.iter().map(|resource| {
        let named = (resource.resource_type, resource.resource_name.as_str());
        let changes: Vec<Change<'_>> = resource
            .configs
            .iter()
            .map(|config| Change {
                name: config.name.as_str(),
                operation: Operation::Set,
                value: config.value.as_deref(),
            })
            .collect();
        let outcome = if twice.contains(&named) {
            Err(altering::refuse_twice(&resource.resource_name))
        } else {
            altering::alter(node, named, Alteration::All(&changes), mode)
        };
        let mut row = AlterConfigsResourceResponse::default();
        row.resource_type = resource.resource_type;
        row.resource_name = resource.resource_name.clone();
        row.error_message = None;
        if let Err((code, message)) = outcome {
            row.error_code = code.code();
            row.error_message = Some(text(&message));
        }
        row
    });
    AlterConfigsResponse::default().with_responses(rows.collect())
}
