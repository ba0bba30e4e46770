//! Populated requests of the APIs that change what the broker does.

use super::*;

pub(super) fn alter_configs(version: i16) -> Vec<u8> {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let request = with(|r: &mut AlterConfigsRequest| {
        r.resources = vec![with(|resource: &mut AlterConfigsResource| {
            resource.resource_type = 2;
            resource.resource_name = text("t");
            resource.configs = vec![
                with(|config: &mut AlterableConfig| {
                    config.name = text("retention.ms");
                    config.value = Some(text("1"));
                });
                2
            ];
        })];
        r.validate_only = true;
    });
    encoded(&request, version)
}

pub(super) fn incremental_alter_configs(version: i16) -> Vec<u8> {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let request = with(|r: &mut IncrementalAlterConfigsRequest| {
        r.resources = vec![with(|resource: &mut AlterConfigsResource| {
            resource.resource_type = 2;
            resource.resource_name = text("t");
            resource.configs = vec![
                with(|config: &mut AlterableConfig| {
                    config.name = text("cleanup.policy");
                    config.config_operation = 2;
                    config.value = Some(text("compact"));
                });
                2
            ];
        })];
    });
    encoded(&request, version)
}

pub(super) fn describe_acls(version: i16) -> Vec<u8> {
    let request = with(|r: &mut DescribeAclsRequest| {
        r.resource_type_filter = 2;
        r.resource_name_filter = Some(text("t"));
        r.principal_filter = Some(text("User:a"));
        r.host_filter = None;
    });
    encoded(&request, version)
}

pub(super) fn create_acls(version: i16) -> Vec<u8> {
    use create_acls_request::AclCreation;
    let request = with(|r: &mut CreateAclsRequest| {
        r.creations = vec![
            with(|rule: &mut AclCreation| {
                rule.resource_name = text("t");
                rule.principal = text("User:a");
                rule.host = text("*");
            });
            2
        ];
    });
    encoded(&request, version)
}

pub(super) fn delete_acls(version: i16) -> Vec<u8> {
    use delete_acls_request::DeleteAclsFilter;
    let request = with(|r: &mut DeleteAclsRequest| {
        r.filters = vec![
            with(|filter: &mut DeleteAclsFilter| {
                filter.resource_name_filter = Some(text("t"));
                filter.principal_filter = None;
            });
            2
        ];
    });
    encoded(&request, version)
}
