//! DescribeCluster (LR-137).

use crate::api::Node;
use crate::api::topics::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, text};
use bytes::Bytes;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use tally_protocol::ErrorCode;
use tally_protocol::start_note;

/// Endpoint type: brokers.
const BROKERS: i8 = 1;
/// Endpoint type: controllers.
const CONTROLLERS: i8 = 2;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let mut response = DescribeClusterResponse::default();
    response.cluster_id = text(node.metadata.cluster_id());
    response.controller_id = BrokerId(node.config.node_id);
    response.cluster_authorized_operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    if request.endpoint_type != BROKERS {
        let (code, message) = match request.endpoint_type {
            _ if version == 0 => (
                ErrorCode::InvalidRequest,
                "version 0 describes brokers only: ask for endpoint type 1",
            ),
            CONTROLLERS => (
                ErrorCode::MismatchedEndpointType,
                "this is a broker's listener: ask for endpoint type 1, or ask a controller",
            ),
            _ => (
                ErrorCode::UnsupportedEndpointType,
                "endpoint types are 1 (brokers) and 2 (controllers)",
            ),
        };
        response.error_code = code.code();
        response.error_message = Some(text(message));
        response.controller_id = BrokerId(-1);
        response.cluster_id = text("");
        return response;
    }
    response.brokers = vec![
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node.config.node_id))
            .with_host(text(&node.advertised.host))
            .with_port(i32::from(node.advertised.port)),
    ];
    // Only for who asks: nobody else has to skip it.
    if request.unknown_tagged_fields.contains_key(&start_note::TAG) {
        let note = Bytes::from(node.started.note().encode());
        let fields = &mut response.unknown_tagged_fields;
        fields.insert(start_note::TAG, note);
    }
    response
}
