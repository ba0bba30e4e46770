//! DescribeAcls, CreateAcls and DeleteAcls: there is no authorizer, so there are no rules to show or to change, and keeping
//! some would protect nothing. Clients are told so (54), as by Apache Kafka without an authorizer.

use crate::api::topics::text;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsResponse,
};
use tally_protocol::ErrorCode;

const CODE: i16 = ErrorCode::SecurityDisabled.code();
const MESSAGE: &str = "this broker has no authorizer: everybody may do everything";

pub(crate) fn describe() -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(CODE)
        .with_error_message(Some(text(MESSAGE)))
}

pub(crate) fn create(request: &CreateAclsRequest) -> CreateAclsResponse {
    let refused = |_| {
        AclCreationResult::default()
            .with_error_code(CODE)
            .with_error_message(Some(text(MESSAGE)))
    };
    let results = request.creations.iter().map(refused);
    CreateAclsResponse::default().with_results(results.collect())
}

pub(crate) fn delete(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = |_| {
        DeleteAclsFilterResult::default()
            .with_error_code(CODE)
            .with_error_message(Some(text(MESSAGE)))
    };
    let results = request.filters.iter().map(refused);
    DeleteAclsResponse::default().with_filter_results(results.collect())
}
