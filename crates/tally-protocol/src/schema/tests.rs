//! Every description against the codec crate: default and populated requests of every served version, hostile counts,
//! truncation, random bytes.

mod administration;
mod security;

use super::*;
use crate::api_table::{API_VERSIONS as API_VERSIONS_KEY, APIS, FETCH, PRODUCE};
use crate::request::FromBody;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn group() -> GroupId {
    GroupId(text("group"))
}

fn transactional_id() -> TransactionalId {
    TransactionalId(text("pay"))
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("version {version}: {error}"));
    out.to_vec()
}

/// Applies `change` to a default, because the crate's structures can't be built in one expression.
fn with<T: Default>(change: impl FnOnce(&mut T)) -> T {
    let mut value = T::default();
    change(&mut value);
    value
}

fn list_offsets(version: i16) -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    with(|r: &mut ListOffsetsRequest| {
        r.topics = vec![with(|t: &mut ListOffsetsTopic| {
            t.name = topic("t");
            t.partitions = vec![
                with(|p: &mut ListOffsetsPartition| {
                    p.timestamp = -1;
                    p.current_leader_epoch = if version >= 4 { 3 } else { -1 };
                });
                2
            ];
        })];
    })
}

fn metadata(version: i16) -> MetadataRequest {
    use metadata_request::MetadataRequestTopic;
    with(|r: &mut MetadataRequest| {
        r.topics = Some(vec![
            with(|t: &mut MetadataRequestTopic| {
                t.name = Some(topic("t"));
                if version >= 10 {
                    t.topic_id = Uuid::from_bytes([1; 16]);
                }
            });
            2
        ]);
    })
}

fn offset_commit(version: i16) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    with(|r: &mut OffsetCommitRequest| {
        r.group_id = group();
        r.member_id = text("member");
        if version >= 7 {
            r.group_instance_id = Some(text("instance"));
        }
        r.topics = vec![with(|t: &mut OffsetCommitRequestTopic| {
            t.name = topic("t");
            t.partitions = vec![
                with(|p: &mut OffsetCommitRequestPartition| {
                    p.committed_metadata = Some(text("note"));
                });
                2
            ];
        })];
    })
}

fn offset_fetch(version: i16) -> OffsetFetchRequest {
    use offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    with(|r: &mut OffsetFetchRequest| {
        if version < 8 {
            r.group_id = group();
            r.topics = Some(vec![with(|t: &mut OffsetFetchRequestTopic| {
                t.name = topic("t");
                t.partition_indexes = vec![0, 1];
            })]);
        } else {
            r.groups = vec![with(|g: &mut OffsetFetchRequestGroup| {
                g.group_id = group();
                if version >= 9 {
                    g.member_id = Some(text("member"));
                    g.member_epoch = 4;
                }
                g.topics = Some(vec![with(|t: &mut OffsetFetchRequestTopics| {
                    t.name = topic("t");
                    t.partition_indexes = vec![0, 1];
                })]);
            })];
        }
        r.require_stable = version >= 7;
    })
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    with(|r: &mut FindCoordinatorRequest| {
        if version < 4 {
            r.key = text("key");
        } else {
            r.coordinator_keys = vec![text("one"), text("two")];
        }
    })
}

fn join_group(version: i16) -> JoinGroupRequest {
    use join_group_request::JoinGroupRequestProtocol;
    with(|r: &mut JoinGroupRequest| {
        r.group_id = group();
        r.member_id = text("member");
        r.protocol_type = text("consumer");
        r.protocols = vec![
            with(|p: &mut JoinGroupRequestProtocol| {
                p.name = text("range");
                p.metadata = Bytes::from_static(&[1; 200]);
            });
            2
        ];
        if version >= 5 {
            r.group_instance_id = Some(text("instance"));
        }
        if version >= 8 {
            r.reason = Some(text("why"));
        }
    })
}

fn heartbeat(version: i16) -> HeartbeatRequest {
    with(|r: &mut HeartbeatRequest| {
        r.group_id = group();
        r.member_id = text("member");
        if version >= 3 {
            r.group_instance_id = Some(text("instance"));
        }
    })
}

fn leave_group(version: i16) -> LeaveGroupRequest {
    use leave_group_request::MemberIdentity;
    with(|r: &mut LeaveGroupRequest| {
        r.group_id = group();
        if version < 3 {
            r.member_id = text("member");
        } else {
            r.members = vec![
                with(|m: &mut MemberIdentity| {
                    m.member_id = text("member");
                    m.group_instance_id = None;
                    m.reason = (version >= 5).then(|| text("why"));
                });
                2
            ];
        }
    })
}

fn sync_group(version: i16) -> SyncGroupRequest {
    use sync_group_request::SyncGroupRequestAssignment;
    with(|r: &mut SyncGroupRequest| {
        r.group_id = group();
        r.member_id = text("member");
        if version >= 5 {
            r.protocol_type = Some(text("consumer"));
            r.protocol_name = Some(text("range"));
        }
        r.assignments = vec![
            with(|a: &mut SyncGroupRequestAssignment| {
                a.member_id = text("member");
                a.assignment = Bytes::from_static(&[1; 9]);
            });
            2
        ];
    })
}

fn create_topics() -> CreateTopicsRequest {
    use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
    with(|r: &mut CreateTopicsRequest| {
        r.topics = vec![
            with(|t: &mut CreatableTopic| {
                t.name = topic("t");
                t.assignments = vec![
                    with(|a: &mut CreatableReplicaAssignment| {
                        a.broker_ids = vec![BrokerId(1), BrokerId(2)];
                    });
                    2
                ];
                t.configs = vec![
                    with(|c: &mut CreatableTopicConfig| {
                        c.name = text("name");
                        c.value = None;
                    });
                    2
                ];
            });
            2
        ];
    })
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    use delete_topics_request::DeleteTopicState;
    with(|r: &mut DeleteTopicsRequest| {
        if version < 6 {
            r.topic_names = vec![topic("t"), topic("u")];
        } else {
            r.topics = vec![with(|t: &mut DeleteTopicState| t.name = None); 2];
        }
    })
}

fn delete_records() -> DeleteRecordsRequest {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    with(|r: &mut DeleteRecordsRequest| {
        r.topics = vec![
            with(|t: &mut DeleteRecordsTopic| {
                t.name = topic("t");
                t.partitions = vec![DeleteRecordsPartition::default(); 2];
            });
            2
        ];
    })
}

fn offset_for_leader_epoch() -> OffsetForLeaderEpochRequest {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    with(|r: &mut OffsetForLeaderEpochRequest| {
        r.topics = vec![
            with(|t: &mut OffsetForLeaderTopic| {
                t.topic = topic("t");
                t.partitions = vec![OffsetForLeaderPartition::default(); 2];
            });
            2
        ];
    })
}

fn add_partitions_to_txn(version: i16) -> AddPartitionsToTxnRequest {
    use add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
    let topics = vec![
        with(|t: &mut AddPartitionsToTxnTopic| {
            t.name = topic("t");
            t.partitions = vec![0, 1];
        });
        2
    ];
    with(|r: &mut AddPartitionsToTxnRequest| {
        if version < 4 {
            r.v3_and_below_transactional_id = transactional_id();
            r.v3_and_below_topics = topics;
        } else {
            r.transactions = vec![with(|t: &mut AddPartitionsToTxnTransaction| {
                t.transactional_id = transactional_id();
                t.topics = topics;
            })];
        }
    })
}

fn txn_offset_commit(version: i16) -> TxnOffsetCommitRequest {
    use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
    with(|r: &mut TxnOffsetCommitRequest| {
        r.transactional_id = transactional_id();
        r.group_id = group();
        if version >= 3 {
            r.member_id = text("member");
            r.group_instance_id = Some(text("instance"));
        }
        r.topics = vec![
            with(|t: &mut TxnOffsetCommitRequestTopic| {
                t.name = topic("t");
                t.partitions = vec![
                    with(|p: &mut TxnOffsetCommitRequestPartition| {
                        p.committed_metadata = Some(text("note"));
                    });
                    2
                ];
            });
            2
        ];
    })
}

fn describe_configs() -> DescribeConfigsRequest {
    use describe_configs_request::DescribeConfigsResource;
    with(|r: &mut DescribeConfigsRequest| {
        r.resources = vec![
            with(|r: &mut DescribeConfigsResource| {
                r.resource_name = text("t");
                r.configuration_keys = Some(vec![text("one"), text("two")]);
            });
            2
        ];
    })
}

fn list_groups(version: i16) -> ListGroupsRequest {
    with(|r: &mut ListGroupsRequest| {
        if version >= 4 {
            r.states_filter = vec![text("Empty"), text("Stable")];
        }
        if version >= 5 {
            r.types_filter = vec![text("classic")];
        }
    })
}

fn list_transactions(version: i16) -> ListTransactionsRequest {
    with(|r: &mut ListTransactionsRequest| {
        r.state_filters = vec![text("Ongoing")];
        r.producer_id_filters = vec![1.into(), 2.into()];
        if version >= 2 {
            r.transactional_id_pattern = Some(text("p.*"));
        }
    })
}

/// The crate has no version 2: its field is put in front of the marker's tags by hand.
fn write_txn_markers(version: i16) -> Vec<u8> {
    use write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
    let request = with(|r: &mut WriteTxnMarkersRequest| {
        r.markers = vec![with(|m: &mut WritableTxnMarker| {
            m.topics = vec![
                with(|t: &mut WritableTxnMarkerTopic| {
                    t.name = topic("t");
                    t.partition_indexes = vec![0, 1];
                });
                2
            ];
        })];
    });
    let mut body = encoded(&request, 1);
    if version >= 2 {
        body.truncate(body.len() - 2);
        body.extend_from_slice(&[2, 0, 0]);
    }
    body
}

fn describe_log_dirs() -> DescribeLogDirsRequest {
    use describe_log_dirs_request::DescribableLogDirTopic;
    with(|r: &mut DescribeLogDirsRequest| {
        r.topics = Some(vec![with(|t: &mut DescribableLogDirTopic| {
            t.topic = topic("t");
            t.partitions = vec![0, 1];
        })]);
    })
}

fn create_partitions() -> CreatePartitionsRequest {
    use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
    with(|r: &mut CreatePartitionsRequest| {
        r.topics = vec![with(|t: &mut CreatePartitionsTopic| {
            t.name = topic("t");
            t.assignments = Some(vec![
                with(|a: &mut CreatePartitionsAssignment| a
                    .broker_ids =
                    vec![1.into()]);
                2
            ]);
        })];
    })
}

fn elect_leaders() -> ElectLeadersRequest {
    use elect_leaders_request::TopicPartitions;
    with(|r: &mut ElectLeadersRequest| {
        r.topic_partitions = Some(vec![with(|t: &mut TopicPartitions| {
            t.topic = topic("t");
            t.partitions = vec![0, 1];
        })]);
    })
}

fn alter_partition_reassignments() -> AlterPartitionReassignmentsRequest {
    use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
    with(|r: &mut AlterPartitionReassignmentsRequest| {
        r.topics = vec![with(|t: &mut ReassignableTopic| {
            t.name = topic("t");
            t.partitions =
                vec![with(|p: &mut ReassignablePartition| p.replicas = Some(vec![1.into()])); 2];
        })];
    })
}

fn list_partition_reassignments() -> ListPartitionReassignmentsRequest {
    use list_partition_reassignments_request::ListPartitionReassignmentsTopics;
    with(|r: &mut ListPartitionReassignmentsRequest| {
        r.topics = Some(vec![with(|t: &mut ListPartitionReassignmentsTopics| {
            t.name = topic("t");
            t.partition_indexes = vec![0, 1];
        })]);
    })
}

fn offset_delete() -> OffsetDeleteRequest {
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    with(|r: &mut OffsetDeleteRequest| {
        r.group_id = group();
        r.topics = vec![with(|t: &mut OffsetDeleteRequestTopic| {
            t.name = topic("t");
            t.partitions = vec![OffsetDeleteRequestPartition::default(); 2];
        })];
    })
}

fn describe_producers() -> DescribeProducersRequest {
    use describe_producers_request::TopicRequest;
    with(|r: &mut DescribeProducersRequest| {
        r.topics = vec![with(|t: &mut TopicRequest| {
            t.name = topic("t");
            t.partition_indexes = vec![0, 1];
        })];
    })
}

fn describe_topic_partitions() -> DescribeTopicPartitionsRequest {
    use describe_topic_partitions_request::{Cursor, TopicRequest};
    with(|r: &mut DescribeTopicPartitionsRequest| {
        r.topics = vec![with(|t: &mut TopicRequest| t.name = topic("t")); 2];
        r.cursor = Some(with(|c: &mut Cursor| c.topic_name = topic("t")));
    })
}

/// A request with something in every array, in the crate's encoding.
fn populated(key: i16, version: i16) -> Vec<u8> {
    match key {
        api::LIST_OFFSETS => encoded(&list_offsets(version), version.min(10)),
        api::METADATA => encoded(&metadata(version), version),
        api::OFFSET_COMMIT if version == 10 => offset_commit_10(),
        api::OFFSET_COMMIT => encoded(&offset_commit(version), version),
        api::OFFSET_FETCH if version == 10 => offset_fetch_10(),
        api::OFFSET_FETCH => encoded(&offset_fetch(version), version),
        api::FIND_COORDINATOR => encoded(&find_coordinator(version), version),
        api::JOIN_GROUP => encoded(&join_group(version), version),
        api::HEARTBEAT => encoded(&heartbeat(version), version),
        api::LEAVE_GROUP => encoded(&leave_group(version), version),
        api::SYNC_GROUP => encoded(&sync_group(version), version),
        api::SASL_HANDSHAKE => encoded(
            &with(|r: &mut SaslHandshakeRequest| r.mechanism = text("PLAIN")),
            version,
        ),
        api::API_VERSIONS => api_versions(version),
        api::CREATE_TOPICS => encoded(&create_topics(), version),
        api::DELETE_TOPICS => encoded(&delete_topics(version), version),
        api::DELETE_RECORDS => encoded(&delete_records(), version),
        api::INIT_PRODUCER_ID if version == 6 => init_producer_id_6(),
        api::INIT_PRODUCER_ID => encoded(
            &with(|r: &mut InitProducerIdRequest| r.transactional_id = Some(transactional_id())),
            version,
        ),
        api::OFFSET_FOR_LEADER_EPOCH => encoded(&offset_for_leader_epoch(), version),
        api::ADD_PARTITIONS_TO_TXN => encoded(&add_partitions_to_txn(version), version),
        api::ADD_OFFSETS_TO_TXN => encoded(
            &with(|r: &mut AddOffsetsToTxnRequest| r.group_id = group()),
            version,
        ),
        api::END_TXN => encoded(
            &with(|r: &mut EndTxnRequest| r.transactional_id = transactional_id()),
            version,
        ),
        api::TXN_OFFSET_COMMIT => encoded(&txn_offset_commit(version), version),
        api::DESCRIBE_CONFIGS => encoded(&describe_configs(), version),
        api::ALTER_CONFIGS => administration::alter_configs(version),
        api::INCREMENTAL_ALTER_CONFIGS => administration::incremental_alter_configs(version),
        api::DESCRIBE_ACLS => administration::describe_acls(version),
        api::CREATE_ACLS => administration::create_acls(version),
        api::DELETE_ACLS => administration::delete_acls(version),
        api::SASL_AUTHENTICATE => encoded(
            &with(|r: &mut SaslAuthenticateRequest| r.auth_bytes = Bytes::from_static(b"token")),
            version,
        ),
        api::DESCRIBE_CLUSTER => encoded(&DescribeClusterRequest::default(), version),
        _ => administrative(key, version),
    }
}

/// The same for the APIs of operators.
fn administrative(key: i16, version: i16) -> Vec<u8> {
    match key {
        api::DESCRIBE_GROUPS => encoded(
            &with(|r: &mut DescribeGroupsRequest| r.groups = vec![group(); 2]),
            version,
        ),
        api::LIST_GROUPS => encoded(&list_groups(version), version),
        api::CONSUMER_GROUP_HEARTBEAT => administration::consumer_group_heartbeat(version),
        api::CONSUMER_GROUP_DESCRIBE => encoded(
            &with(|r: &mut ConsumerGroupDescribeRequest| r.group_ids = vec![group(); 2]),
            version,
        ),
        api::WRITE_TXN_MARKERS => write_txn_markers(version),
        api::ALTER_REPLICA_LOG_DIRS => administration::alter_replica_log_dirs(version),
        api::DESCRIBE_QUORUM => administration::describe_quorum(version),
        api::UPDATE_FEATURES => administration::update_features(version),
        api::DESCRIBE_LOG_DIRS => encoded(&describe_log_dirs(), version.min(4)),
        api::CREATE_PARTITIONS => encoded(&create_partitions(), version),
        api::DELETE_GROUPS => encoded(
            &with(|r: &mut DeleteGroupsRequest| r.groups_names = vec![group(); 2]),
            version,
        ),
        api::ELECT_LEADERS => encoded(&elect_leaders(), version),
        api::ALTER_PARTITION_REASSIGNMENTS => encoded(&alter_partition_reassignments(), version),
        api::LIST_PARTITION_REASSIGNMENTS => encoded(&list_partition_reassignments(), version),
        api::OFFSET_DELETE => encoded(&offset_delete(), version),
        api::DESCRIBE_PRODUCERS => encoded(&describe_producers(), version),
        api::DESCRIBE_TRANSACTIONS => encoded(
            &with(|r: &mut DescribeTransactionsRequest| {
                r.transactional_ids = vec![transactional_id(); 2];
            }),
            version,
        ),
        api::LIST_TRANSACTIONS => encoded(&list_transactions(version), version),
        api::LIST_CONFIG_RESOURCES => encoded(
            &with(|r: &mut ListConfigResourcesRequest| {
                if version >= 1 {
                    r.resource_types = vec![2, 4];
                }
            }),
            version,
        ),
        api::DESCRIBE_TOPIC_PARTITIONS => encoded(&describe_topic_partitions(), version),
        _ => security::request(key, version),
    }
}

/// The crate has no version 5: its two fields are put in front of the tags by hand.
fn api_versions(version: i16) -> Vec<u8> {
    let request = with(|r: &mut ApiVersionsRequest| {
        if version >= 3 {
            r.client_software_name = text("client");
            r.client_software_version = text("1.0");
        }
    });
    let mut body = encoded(&request, version.min(4));
    if version >= 5 {
        body.pop();
        body.extend_from_slice(&[2, b'c', 0, 0, 0, 1, 0]);
    }
    body
}

/// The crate reads no version 10, so it writes none: topics by id.
fn offset_commit_10() -> Vec<u8> {
    [
        &[6][..],
        b"group",
        &[0, 0, 0, 3],
        &[7],
        b"member",
        &[0],
        &[2],
        &[1; 16],
        &[3],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 4, 2, b'n', 0],
        &[
            0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 0, 0,
        ],
        &[0, 0],
    ]
    .concat()
}

/// As version 5, with two flags before the tags.
fn init_producer_id_6() -> Vec<u8> {
    let request =
        with(|r: &mut InitProducerIdRequest| r.transactional_id = Some(transactional_id()));
    let mut body = encoded(&request, 5);
    body.pop();
    body.extend_from_slice(&[1, 1, 0]);
    body
}

fn offset_fetch_10() -> Vec<u8> {
    [
        &[3][..],
        &[2, b'g', 2, b'm', 0, 0, 0, 5],
        &[2],
        &[1; 16],
        &[3, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[0],
        &[2, b'h', 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        &[1, 0],
    ]
    .concat()
}

/// Calls a macro with the request type of a key.
macro_rules! by_key {
    ($key:expr, $call:ident) => {
        match $key {
            api::LIST_OFFSETS => $call!(ListOffsetsRequest),
            api::METADATA => $call!(MetadataRequest),
            api::OFFSET_COMMIT => $call!(OffsetCommitRequest),
            api::OFFSET_FETCH => $call!(OffsetFetchRequest),
            api::FIND_COORDINATOR => $call!(FindCoordinatorRequest),
            api::JOIN_GROUP => $call!(JoinGroupRequest),
            api::HEARTBEAT => $call!(HeartbeatRequest),
            api::LEAVE_GROUP => $call!(LeaveGroupRequest),
            api::SYNC_GROUP => $call!(SyncGroupRequest),
            api::SASL_HANDSHAKE => $call!(SaslHandshakeRequest),
            api::API_VERSIONS => $call!(ApiVersionsRequest),
            api::CREATE_TOPICS => $call!(CreateTopicsRequest),
            api::DELETE_TOPICS => $call!(DeleteTopicsRequest),
            api::DELETE_RECORDS => $call!(DeleteRecordsRequest),
            api::INIT_PRODUCER_ID => $call!(InitProducerIdRequest),
            api::OFFSET_FOR_LEADER_EPOCH => $call!(OffsetForLeaderEpochRequest),
            api::ADD_PARTITIONS_TO_TXN => $call!(AddPartitionsToTxnRequest),
            api::ADD_OFFSETS_TO_TXN => $call!(AddOffsetsToTxnRequest),
            api::END_TXN => $call!(EndTxnRequest),
            api::TXN_OFFSET_COMMIT => $call!(TxnOffsetCommitRequest),
            api::DESCRIBE_CONFIGS => $call!(DescribeConfigsRequest),
            api::ALTER_CONFIGS => $call!(AlterConfigsRequest),
            api::INCREMENTAL_ALTER_CONFIGS => $call!(IncrementalAlterConfigsRequest),
            api::DESCRIBE_ACLS => $call!(DescribeAclsRequest),
            api::CREATE_ACLS => $call!(CreateAclsRequest),
            api::DELETE_ACLS => $call!(DeleteAclsRequest),
            api::CREATE_DELEGATION_TOKEN => $call!(CreateDelegationTokenRequest),
            api::RENEW_DELEGATION_TOKEN => $call!(RenewDelegationTokenRequest),
            api::EXPIRE_DELEGATION_TOKEN => $call!(ExpireDelegationTokenRequest),
            api::DESCRIBE_DELEGATION_TOKEN => $call!(DescribeDelegationTokenRequest),
            api::DESCRIBE_CLIENT_QUOTAS => $call!(DescribeClientQuotasRequest),
            api::ALTER_CLIENT_QUOTAS => $call!(AlterClientQuotasRequest),
            api::DESCRIBE_USER_SCRAM_CREDENTIALS => $call!(DescribeUserScramCredentialsRequest),
            api::ALTER_USER_SCRAM_CREDENTIALS => $call!(AlterUserScramCredentialsRequest),
            api::SASL_AUTHENTICATE => $call!(SaslAuthenticateRequest),
            api::ALTER_REPLICA_LOG_DIRS => $call!(AlterReplicaLogDirsRequest),
            api::DESCRIBE_QUORUM => $call!(DescribeQuorumRequest),
            api::UPDATE_FEATURES => $call!(UpdateFeaturesRequest),
            api::DESCRIBE_CLUSTER => $call!(DescribeClusterRequest),
            api::DESCRIBE_GROUPS => $call!(DescribeGroupsRequest),
            api::LIST_GROUPS => $call!(ListGroupsRequest),
            api::WRITE_TXN_MARKERS => $call!(WriteTxnMarkersRequest),
            api::DESCRIBE_LOG_DIRS => $call!(DescribeLogDirsRequest),
            api::CREATE_PARTITIONS => $call!(CreatePartitionsRequest),
            api::DELETE_GROUPS => $call!(DeleteGroupsRequest),
            api::ELECT_LEADERS => $call!(ElectLeadersRequest),
            api::ALTER_PARTITION_REASSIGNMENTS => $call!(AlterPartitionReassignmentsRequest),
            api::LIST_PARTITION_REASSIGNMENTS => $call!(ListPartitionReassignmentsRequest),
            api::OFFSET_DELETE => $call!(OffsetDeleteRequest),
            api::DESCRIBE_PRODUCERS => $call!(DescribeProducersRequest),
            api::DESCRIBE_TRANSACTIONS => $call!(DescribeTransactionsRequest),
            api::LIST_TRANSACTIONS => $call!(ListTransactionsRequest),
            api::CONSUMER_GROUP_HEARTBEAT => $call!(ConsumerGroupHeartbeatRequest),
            api::CONSUMER_GROUP_DESCRIBE => $call!(ConsumerGroupDescribeRequest),
            api::LIST_CONFIG_RESOURCES => $call!(ListConfigResourcesRequest),
            api::DESCRIBE_TOPIC_PARTITIONS => $call!(DescribeTopicPartitionsRequest),
            other => panic!("key {other} is not described"),
        }
    };
}

fn default_request(key: i16, version: i16) -> Vec<u8> {
    if (key, version) == (api::INIT_PRODUCER_ID, 6) {
        return init_producer_id_6();
    }
    let version = version_for_the_crate(key, version);
    macro_rules! encode {
        ($request:ty) => {
            encoded(&<$request>::default(), version)
        };
    }
    by_key!(key, encode)
}

/// Decodes with the crate; says whether it could. The process does not survive a count that was let through.
fn decodes(key: i16, version: i16, body: &[u8]) -> bool {
    let mut body = Bytes::copy_from_slice(body);
    match (key, version) {
        (api::OFFSET_COMMIT, 10) => return OffsetCommitRequest::from_body(version, &body).is_ok(),
        (api::OFFSET_FETCH, 10) => return OffsetFetchRequest::from_body(version, &body).is_ok(),
        (api::INIT_PRODUCER_ID, 6) => {
            return InitProducerIdRequest::from_body(version, &body).is_ok();
        }
        (api::WRITE_TXN_MARKERS, _) => {
            return crate::request::WriteTxnMarkersRequest::from_body(version, &body).is_ok();
        }
        _ => {}
    }
    let version = version_for_the_crate(key, version);
    macro_rules! decode {
        ($request:ty) => {
            <$request>::decode(&mut body, version).is_ok()
        };
    }
    by_key!(key, decode)
}

fn version_for_the_crate(key: i16, version: i16) -> i16 {
    api::lookup(key).unwrap().crate_version(version)
}

/// Every API and version that is described.
fn described() -> impl Iterator<Item = (i16, i16)> {
    let described = APIS
        .iter()
        .filter(|api| ![PRODUCE, FETCH].contains(&api.key));
    described.flat_map(|api| (api.min..=api.max).map(|version| (api.key, version)))
}

/// Where the counts of arrays stand in a sound `body`.
fn counts_in(key: i16, version: i16, body: &[u8]) -> Vec<usize> {
    let mut skimmer = Skimmer {
        reader: Reader::new(body),
        version,
        flexible: api::lookup(key).unwrap().is_flexible(version),
        elements: 0,
        counts: Vec::new(),
    };
    skimmer.structure(layout(key).unwrap()).unwrap();
    skimmer
        .counts
        .iter()
        .map(|left| body.len() - left)
        .collect()
}

#[test]
fn every_served_api_but_the_two_hot_ones_is_described() {
    for api in APIS {
        let by_hand = [PRODUCE, FETCH].contains(&api.key);
        assert_eq!(layout(api.key).is_none(), by_hand, "{}", api.name);
        assert_eq!(
            check_body(api.key, api.max + 1, &[]),
            Err(Malformed::UnknownVersion)
        );
    }
    assert_eq!(check_body(200, 0, &[]), Err(Malformed::UnknownVersion));
}

#[test]
fn sound_requests_pass_and_are_read_to_their_end() {
    for (key, version) in described() {
        let mut bodies = vec![populated(key, version)];
        if ![
            (API_VERSIONS_KEY, 5),
            (api::OFFSET_COMMIT, 10),
            (api::OFFSET_FETCH, 10),
        ]
        .contains(&(key, version))
        {
            bodies.push(default_request(key, version));
        }
        for mut body in bodies {
            assert_eq!(
                check_body(key, version, &body),
                Ok(0),
                "key {key} v{version}"
            );
            assert!(decodes(key, version, &body), "key {key} v{version}");
            body.extend_from_slice(b"tail");
            assert_eq!(check_body(key, version, &body), Ok(4));
        }
    }
}

#[test]
fn offsets_by_topic_id_are_read_by_hand() {
    let body = Bytes::from(offset_commit_10());
    let commit = OffsetCommitRequest::from_body(10, &body).unwrap();
    assert_eq!(commit.group_id, group());
    assert_eq!(commit.generation_id_or_member_epoch, 3);
    assert_eq!(
        (&*commit.member_id, &commit.group_instance_id),
        ("member", &None)
    );
    assert_eq!(commit.topics[0].topic_id, Uuid::from_bytes([1; 16]));
    let partitions = &commit.topics[0].partitions;
    assert_eq!(
        (
            partitions[0].committed_offset,
            partitions[0].committed_leader_epoch
        ),
        (9, 4)
    );
    assert_eq!(partitions[0].committed_metadata, Some(text("n")));
    assert_eq!(
        (
            partitions[1].partition_index,
            &partitions[1].committed_metadata
        ),
        (1, &None)
    );

    let body = Bytes::from(offset_fetch_10());
    let fetch = OffsetFetchRequest::from_body(10, &body).unwrap();
    assert!(fetch.require_stable);
    assert_eq!(
        (&*fetch.groups[0].group_id.0, fetch.groups[0].member_epoch),
        ("g", 5)
    );
    let topics = fetch.groups[0].topics.as_ref().unwrap();
    assert_eq!(topics[0].topic_id, Uuid::from_bytes([1; 16]));
    assert_eq!(topics[0].partition_indexes, [0, 1]);
    assert_eq!(
        (&fetch.groups[1].member_id, &fetch.groups[1].topics),
        (&None, &None)
    );
}

#[test]
fn cut_requests_are_refused() {
    for (key, version) in described() {
        let body = populated(key, version);
        for end in 0..body.len() {
            let cut = check_body(key, version, &body[..end]);
            assert!(cut.is_err(), "key {key} v{version} cut at {end}");
        }
    }
}

#[test]
fn hostile_counts_are_refused_wherever_they_stand() {
    for (key, version) in described() {
        let flexible = api::lookup(key).unwrap().is_flexible(version);
        let body = populated(key, version);
        for at in counts_in(key, version, &body) {
            // The counts in these requests are small: one byte if compact.
            let (width, hostile) = if flexible {
                (
                    1,
                    [
                        &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
                        &[0xff, 0xff, 0xff, 0xff, 0x07],
                    ],
                )
            } else {
                (4, [&[0x7f, 0xff, 0xff, 0xff][..], &[0x80, 0, 0, 0]])
            };
            for count in hostile {
                let patched = [&body[..at], count, &body[at + width..]].concat();
                let checked = check_body(key, version, &patched);
                assert!(checked.is_err(), "key {key} v{version} at {at}");
            }
        }
    }
}

#[test]
fn any_four_bytes_replaced_by_a_huge_number_do_no_harm() {
    for (key, version) in described() {
        let body = populated(key, version);
        for at in 0..body.len().saturating_sub(4) {
            for huge in [[0x7f, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0x0f]] {
                let mut patched = body.clone();
                patched[at..at + 4].copy_from_slice(&huge);
                if check_body(key, version, &patched).is_ok() {
                    decodes(key, version, &patched);
                }
            }
        }
    }
}

#[test]
fn a_request_of_endless_partition_numbers_is_refused() {
    // DescribeProducers: one topic.
    let body = |count: usize| {
        let mut body = vec![2, 2, b't'];
        crate::wire::put_uvarint(&mut body, u32::try_from(count + 1).unwrap());
        body.resize(body.len() + 4 * count + 2, 0);
        body
    };
    assert_eq!(
        check_body(api::DESCRIBE_PRODUCERS, 0, &body(ELEMENTS_MAX - 1)),
        Ok(0)
    );
    assert_eq!(
        check_body(api::DESCRIBE_PRODUCERS, 0, &body(ELEMENTS_MAX)),
        Err(Malformed::TooManyElements)
    );
}

#[test]
fn a_request_of_endless_empty_elements_is_refused() {
    // Metadata 9: topics of an empty name and no tags, two bytes each.
    let mut body = Vec::new();
    let count = u32::try_from(ELEMENTS_MAX + 1).unwrap();
    crate::wire::put_uvarint(&mut body, count + 1);
    body.resize(body.len() + 2 * (ELEMENTS_MAX + 1), 0);
    assert_eq!(
        check_body(api::METADATA, 9, &body),
        Err(Malformed::TooManyElements)
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        at in 0..described().count(),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (key, version) = described().nth(at).unwrap();
        if check_body(key, version, &body).is_ok() {
            decodes(key, version, &body);
        }
    }

    #[test]
    fn bit_flips_never_panic(
        at in 0..described().count(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (key, version) = described().nth(at).unwrap();
        let mut body = populated(key, version);
        for (index, byte) in flips {
            if body.is_empty() {
                break;
            }
            let at = index.index(body.len());
            body[at] = byte;
        }
        if check_body(key, version, &body).is_ok() {
            decodes(key, version, &body);
        }
    }
}
