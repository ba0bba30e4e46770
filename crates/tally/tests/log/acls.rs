//! Access control that is not there: 54 for everything, as Apache Kafka answers without an authorizer.

use crate::corner::Corner;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};
use tally_testkit::client::text;

const SECURITY_DISABLED: i16 = 54;
/// Any resource, pattern, operation or permission, in a filter.
const ANY: i8 = 1;

#[test]
fn without_an_authorizer_there_are_no_rules() {
    let mut corner = Corner::new();
    let all = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let rule = AclCreation::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_resource_pattern_type(3)
        .with_principal(text("User:a"))
        .with_host(text("*"))
        .with_operation(3)
        .with_permission_type(3);
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    for version in 1..=3 {
        let shown = corner.call(version, &all);
        assert_eq!(shown.error_code, SECURITY_DISABLED, "v{version}");
        assert!(shown.error_message.is_some() && shown.resources.is_empty());
        let request = CreateAclsRequest::default().with_creations(vec![rule.clone(); 2]);
        let made = corner.call(version, &request).results;
        assert_eq!(made.len(), 2);
        assert!(made.iter().all(|row| row.error_code == SECURITY_DISABLED));
        let request = DeleteAclsRequest::default().with_filters(vec![filter.clone(); 2]);
        let gone = corner.call(version, &request).filter_results;
        assert_eq!(gone.len(), 2);
        assert!(gone.iter().all(|row| row.error_code == SECURITY_DISABLED));
    }
}
