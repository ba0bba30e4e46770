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
