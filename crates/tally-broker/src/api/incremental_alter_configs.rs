//! IncrementalAlterConfigs (KIP-339, log-and-fetch.md 11.5): each resource is changed whole or not at all, by itself.

use crate::api::Node;
use crate::api::altering::{self, Refusal};
use crate::api::topics::text;
use crate::config::{Alteration, Change, Operation};
use crate::metadata::AlterMode;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use tally_protocol::ErrorCode;

pub(crate) fn handle(
    node: &Node,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mode = match request.validate_only {
        true => AlterMode::Check,
        false => AlterMode::Apply,
    };
    let key =
        |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.clone());
    let keys: Vec<_> = request.resources.iter().map(key).collect();
    let twice = altering::named_twice(keys.iter().map(|(kind, name)| (*kind, name.as_str())));
    let rows = request.resources.iter().map(|resource| {
        let outcome = if twice.contains(&(resource.resource_type, resource.resource_name.as_str()))
        {
            Err(altering::refuse_twice(&resource.resource_name))
        } else {
            one(node, resource, mode)
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
    IncrementalAlterConfigsResponse::default().with_responses(rows.collect())
}

fn one(node: &Node, resource: &AlterConfigsResource, mode: AlterMode) -> Result<(), Refusal> {
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let name = config.name.as_str();
        let code = config.config_operation;
        let Some(operation) = Operation::of_code(code) else {
            let message = format!(
                "{name}: there is no operation {code}; 0 sets, 1 deletes, 2 appends, 3 subtracts"
            );
            return Err((ErrorCode::InvalidRequest, message));
        };
        changes.push(Change {
            name,
            operation,
            value: config.value.as_deref(),
        });
    }
    let named = (resource.resource_type, resource.resource_name.as_str());
    altering::alter(node, named, Alteration::Each(&changes), mode)
}
