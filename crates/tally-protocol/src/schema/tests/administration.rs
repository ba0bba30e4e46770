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

pub(super) fn alter_replica_log_dirs(version: i16) -> Vec<u8> {
    use alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
    let request = with(|r: &mut AlterReplicaLogDirsRequest| {
        r.dirs = vec![
            with(|dir: &mut AlterReplicaLogDir| {
                dir.path = text("/data");
                dir.topics = vec![with(|t: &mut AlterReplicaLogDirTopic| {
                    t.name = topic("t");
                    t.partitions = vec![0, 1];
                })];
            });
            2
        ];
    });
    encoded(&request, version)
}

pub(super) fn describe_quorum(version: i16) -> Vec<u8> {
    use describe_quorum_request::{PartitionData, TopicData};
    let request = with(|r: &mut DescribeQuorumRequest| {
        r.topics = vec![with(|t: &mut TopicData| {
            t.topic_name = topic("__cluster_metadata");
            t.partitions = vec![PartitionData::default(); 2];
        })];
    });
    encoded(&request, version)
}

pub(super) fn update_features(version: i16) -> Vec<u8> {
    use update_features_request::FeatureUpdateKey;
    let request = with(|r: &mut UpdateFeaturesRequest| {
        r.feature_updates = vec![
            with(|feature: &mut FeatureUpdateKey| {
                feature.feature = text("transaction.version");
                feature.max_version_level = 1;
            });
            2
        ];
    });
    encoded(&request, version)
}

pub(super) fn consumer_group_heartbeat(version: i16) -> Vec<u8> {
    use consumer_group_heartbeat_request::TopicPartitions;
    let request = with(|r: &mut ConsumerGroupHeartbeatRequest| {
        r.group_id = group();
        r.member_id = text("m");
        r.instance_id = Some(text("i"));
        r.subscribed_topic_names = Some(vec![topic("t"); 2]);
        if version >= 1 {
            r.subscribed_topic_regex = Some(text("t.*"));
        }
        r.server_assignor = Some(text("range"));
        r.topic_partitions = Some(vec![
            with(
                |topic: &mut TopicPartitions| topic.partitions = vec![1, 2]
            );
            2
        ]);
    });
    encoded(&request, version)
}
