//! ListConfigResources (KIP-1142): what DescribeConfigs can be asked about.

use crate::api::Node;
use crate::api::topics::text;
use crate::config::ResourceKind;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use tally_protocol::ErrorCode;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
/// What can be listed, and what an empty list asks for.
const LISTED: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let mut response = ListConfigResourcesResponse::default();
    // Version 0 lists subscriptions to client metrics.
    let types = match version {
        0 => &vec![CLIENT_METRICS],
        _ => &request.resource_types,
    };
    if types.iter().any(|kind| !LISTED.contains(kind)) {
        response.error_code = ErrorCode::UnsupportedVersion.code();
        return response;
    }
    for kind in LISTED {
        if !types.is_empty() && !types.contains(&kind) {
            continue;
        }
        let names: Vec<String> = match kind {
            TOPIC => {
                let topics = node.metadata.topics();
                topics.iter().map(|topic| topic.name.to_string()).collect()
            }
            BROKER | BROKER_LOGGER => vec![node.config.node_id.to_string()],
            CLIENT_METRICS => node.metadata.resources(ResourceKind::ClientMetrics),
            _ => node.metadata.resources(ResourceKind::Group),
        };
        let resources = names.iter().map(|name| {
            ConfigResource::default()
                .with_resource_name(text(name))
                .with_resource_type(kind)
        });
        response.config_resources.extend(resources);
    }
    response
}
