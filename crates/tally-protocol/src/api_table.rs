//! The APIs that Tally serves, each with its versions: the one source for ApiVersions replies, for the gate in front of
//! the decoders and for metric labels (api-matrix.md sections 2 and 6).
//!
//! Rules: a row appears once its handler is complete in all its versions; no minimum lies above Kafka 4.3.1's; Produce
//! alone is listed from a version (0) that is not served, because librdkafka before 2.11.1 turns compression off
//! without it (KAFKA-18659).
//!
//! Seven rows go beyond the codec crate. ListOffsets 11 has the layout of 10: see [`Api::crate_version`]. An ApiVersions 5
//! request is read by [`crate::request::parse_api_versions`]; its response has the layout of 4. The requests of
//! OffsetCommit 10 and OffsetFetch 10 are read by hand in [`crate::request::FromBody`]; their responses are the crate's. So it is
//! with InitProducerId 6 (KIP-939, unstable in Kafka 4.3.1) and with WriteTxnMarkers 2, whose request becomes
//! [`crate::request::WriteTxnMarkersRequest`]. The response of DescribeLogDirs 5 is that of 4 with one field, which the broker
//! adds.

/// The `flexible_from` of an API that never became flexible.
pub const NEVER: i16 = i16::MAX;

/// Bytes a request of any API but Produce may have: decoded structures are larger than their wire form, so a frame as
/// large as a Produce may be would decode to gigabytes (api-matrix.md section 3.3).
pub const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Key of Produce.
pub const PRODUCE: i16 = 0;
/// Key of Fetch.
pub const FETCH: i16 = 1;
/// Key of ListOffsets.
pub const LIST_OFFSETS: i16 = 2;
/// Key of Metadata.
pub const METADATA: i16 = 3;
/// Key of OffsetCommit.
pub const OFFSET_COMMIT: i16 = 8;
/// Key of OffsetFetch.
pub const OFFSET_FETCH: i16 = 9;
/// Key of FindCoordinator.
pub const FIND_COORDINATOR: i16 = 10;
/// Key of JoinGroup.
pub const JOIN_GROUP: i16 = 11;
/// Key of Heartbeat.
pub const HEARTBEAT: i16 = 12;
/// Key of LeaveGroup.
pub const LEAVE_GROUP: i16 = 13;
/// Key of SyncGroup.
pub const SYNC_GROUP: i16 = 14;
/// Key of DescribeGroups.
pub const DESCRIBE_GROUPS: i16 = 15;
/// Key of ListGroups.
pub const LIST_GROUPS: i16 = 16;
/// Key of SaslHandshake.
pub const SASL_HANDSHAKE: i16 = 17;
/// Key of ApiVersions.
pub const API_VERSIONS: i16 = 18;
/// Key of CreateTopics.
pub const CREATE_TOPICS: i16 = 19;
/// Key of DeleteTopics.
pub const DELETE_TOPICS: i16 = 20;
/// Key of DeleteRecords.
pub const DELETE_RECORDS: i16 = 21;
/// Key of InitProducerId.
pub const INIT_PRODUCER_ID: i16 = 22;
/// Key of OffsetForLeaderEpoch.
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
/// Key of AddPartitionsToTxn.
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
/// Key of AddOffsetsToTxn.
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
/// Key of EndTxn.
pub const END_TXN: i16 = 26;
/// Key of WriteTxnMarkers.
pub const WRITE_TXN_MARKERS: i16 = 27;
/// Key of TxnOffsetCommit.
pub const TXN_OFFSET_COMMIT: i16 = 28;
/// Key of DescribeAcls.
pub const DESCRIBE_ACLS: i16 = 29;
/// Key of CreateAcls.
pub const CREATE_ACLS: i16 = 30;
/// Key of DeleteAcls.
pub const DELETE_ACLS: i16 = 31;
/// Key of DescribeConfigs.
pub const DESCRIBE_CONFIGS: i16 = 32;
/// Key of AlterConfigs.
pub const ALTER_CONFIGS: i16 = 33;
/// Key of AlterReplicaLogDirs.
pub const ALTER_REPLICA_LOG_DIRS: i16 = 34;
/// Key of DescribeLogDirs.
pub const DESCRIBE_LOG_DIRS: i16 = 35;
/// Key of SaslAuthenticate.
pub const SASL_AUTHENTICATE: i16 = 36;
/// Key of CreatePartitions.
pub const CREATE_PARTITIONS: i16 = 37;
/// Key of CreateDelegationToken.
pub const CREATE_DELEGATION_TOKEN: i16 = 38;
/// Key of RenewDelegationToken.
pub const RENEW_DELEGATION_TOKEN: i16 = 39;
/// Key of ExpireDelegationToken.
pub const EXPIRE_DELEGATION_TOKEN: i16 = 40;
/// Key of DescribeDelegationToken.
pub const DESCRIBE_DELEGATION_TOKEN: i16 = 41;
/// Key of DeleteGroups.
pub const DELETE_GROUPS: i16 = 42;
/// Key of ElectLeaders.
pub const ELECT_LEADERS: i16 = 43;
/// Key of IncrementalAlterConfigs.
pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
/// Key of AlterPartitionReassignments.
pub const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
/// Key of ListPartitionReassignments.
pub const LIST_PARTITION_REASSIGNMENTS: i16 = 46;
/// Key of OffsetDelete.
pub const OFFSET_DELETE: i16 = 47;
/// Key of DescribeClientQuotas.
pub const DESCRIBE_CLIENT_QUOTAS: i16 = 48;
/// Key of AlterClientQuotas.
pub const ALTER_CLIENT_QUOTAS: i16 = 49;
/// Key of DescribeUserScramCredentials.
pub const DESCRIBE_USER_SCRAM_CREDENTIALS: i16 = 50;
/// Key of AlterUserScramCredentials.
pub const ALTER_USER_SCRAM_CREDENTIALS: i16 = 51;
/// Key of DescribeQuorum.
pub const DESCRIBE_QUORUM: i16 = 55;
/// Key of UpdateFeatures.
pub const UPDATE_FEATURES: i16 = 57;
/// Key of DescribeCluster.
pub const DESCRIBE_CLUSTER: i16 = 60;
/// Key of DescribeProducers.
pub const DESCRIBE_PRODUCERS: i16 = 61;
/// Key of DescribeTransactions.
pub const DESCRIBE_TRANSACTIONS: i16 = 65;
/// Key of ListTransactions.
pub const LIST_TRANSACTIONS: i16 = 66;
/// Key of ConsumerGroupHeartbeat.
pub const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
/// Key of ConsumerGroupDescribe.
pub const CONSUMER_GROUP_DESCRIBE: i16 = 69;
/// Key of ListConfigResources.
pub const LIST_CONFIG_RESOURCES: i16 = 74;
/// Key of DescribeTopicPartitions.
pub const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;

/// One API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// Its key on the wire.
    pub key: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// The lowest version that ApiVersions announces.
    pub listed_min: i16,
    /// The lowest version served; below it the connection is closed.
    pub min: i16,
    /// The highest version served, and announced unless it is unstable.
    pub max: i16,
    /// The first version that Kafka calls unstable, or [`NEVER`]: served and announced only where that is switched on.
    pub unstable_from: i16,
    /// The first version with the flexible encoding, or [`NEVER`].
    pub flexible_from: i16,
    /// The largest frame in bytes; `None`: `socket.request.max.bytes` decides.
    pub request_bytes_max: Option<usize>,
}

/// Every API served, by key.
pub static APIS: &[Api] = &[
    Api {
        listed_min: 0,
        request_bytes_max: None,
        ..api(PRODUCE, "Produce", 3, 13, 9)
    },
    api(FETCH, "Fetch", 4, 18, 12),
    api(LIST_OFFSETS, "ListOffsets", 1, 11, 6),
    api(METADATA, "Metadata", 0, 13, 9),
    api(OFFSET_COMMIT, "OffsetCommit", 2, 10, 8),
    api(OFFSET_FETCH, "OffsetFetch", 1, 10, 6),
    api(FIND_COORDINATOR, "FindCoordinator", 0, 6, 3),
    api(JOIN_GROUP, "JoinGroup", 0, 9, 6),
    api(HEARTBEAT, "Heartbeat", 0, 4, 4),
    api(LEAVE_GROUP, "LeaveGroup", 0, 5, 4),
    api(SYNC_GROUP, "SyncGroup", 0, 5, 4),
    api(DESCRIBE_GROUPS, "DescribeGroups", 0, 6, 5),
    api(LIST_GROUPS, "ListGroups", 0, 5, 3),
    api(SASL_HANDSHAKE, "SaslHandshake", 0, 1, NEVER),
    api(API_VERSIONS, "ApiVersions", 0, 5, 3),
    api(CREATE_TOPICS, "CreateTopics", 2, 7, 5),
    api(DELETE_TOPICS, "DeleteTopics", 1, 6, 4),
    api(DELETE_RECORDS, "DeleteRecords", 0, 2, 2),
    Api {
        unstable_from: 6,
        ..api(INIT_PRODUCER_ID, "InitProducerId", 0, 6, 2)
    },
    api(OFFSET_FOR_LEADER_EPOCH, "OffsetForLeaderEpoch", 2, 4, 4),
    api(ADD_PARTITIONS_TO_TXN, "AddPartitionsToTxn", 0, 5, 3),
    api(ADD_OFFSETS_TO_TXN, "AddOffsetsToTxn", 0, 4, 3),
    api(END_TXN, "EndTxn", 0, 5, 3),
    api(WRITE_TXN_MARKERS, "WriteTxnMarkers", 1, 2, 1),
    api(TXN_OFFSET_COMMIT, "TxnOffsetCommit", 0, 5, 3),
    api(DESCRIBE_ACLS, "DescribeAcls", 1, 3, 2),
    api(CREATE_ACLS, "CreateAcls", 1, 3, 2),
    api(DELETE_ACLS, "DeleteAcls", 1, 3, 2),
    api(DESCRIBE_CONFIGS, "DescribeConfigs", 1, 4, 4),
    api(ALTER_CONFIGS, "AlterConfigs", 0, 2, 2),
    api(ALTER_REPLICA_LOG_DIRS, "AlterReplicaLogDirs", 1, 2, 2),
    api(DESCRIBE_LOG_DIRS, "DescribeLogDirs", 1, 5, 2),
    api(SASL_AUTHENTICATE, "SaslAuthenticate", 0, 2, 2),
    api(CREATE_PARTITIONS, "CreatePartitions", 0, 3, 2),
    api(CREATE_DELEGATION_TOKEN, "CreateDelegationToken", 1, 3, 2),
    api(RENEW_DELEGATION_TOKEN, "RenewDelegationToken", 1, 2, 2),
    api(EXPIRE_DELEGATION_TOKEN, "ExpireDelegationToken", 1, 2, 2),
    api(
        DESCRIBE_DELEGATION_TOKEN,
        "DescribeDelegationToken",
        1,
        3,
        2,
    ),
    api(DELETE_GROUPS, "DeleteGroups", 0, 2, 2),
    api(ELECT_LEADERS, "ElectLeaders", 0, 2, 2),
    api(
        INCREMENTAL_ALTER_CONFIGS,
        "IncrementalAlterConfigs",
        0,
        1,
        1,
    ),
    api(
        ALTER_PARTITION_REASSIGNMENTS,
        "AlterPartitionReassignments",
        0,
        1,
        0,
    ),
    api(
        LIST_PARTITION_REASSIGNMENTS,
        "ListPartitionReassignments",
        0,
        0,
        0,
    ),
    api(OFFSET_DELETE, "OffsetDelete", 0, 0, NEVER),
    api(DESCRIBE_CLIENT_QUOTAS, "DescribeClientQuotas", 0, 1, 1),
    api(ALTER_CLIENT_QUOTAS, "AlterClientQuotas", 0, 1, 1),
    api(
        DESCRIBE_USER_SCRAM_CREDENTIALS,
        "DescribeUserScramCredentials",
        0,
        0,
        0,
    ),
    api(
        ALTER_USER_SCRAM_CREDENTIALS,
        "AlterUserScramCredentials",
        0,
        0,
        0,
    ),
    api(DESCRIBE_QUORUM, "DescribeQuorum", 0, 2, 0),
    api(UPDATE_FEATURES, "UpdateFeatures", 0, 2, 0),
    api(DESCRIBE_CLUSTER, "DescribeCluster", 0, 2, 0),
    api(DESCRIBE_PRODUCERS, "DescribeProducers", 0, 0, 0),
    api(DESCRIBE_TRANSACTIONS, "DescribeTransactions", 0, 0, 0),
    api(LIST_TRANSACTIONS, "ListTransactions", 0, 2, 0),
    api(CONSUMER_GROUP_HEARTBEAT, "ConsumerGroupHeartbeat", 0, 1, 0),
    api(CONSUMER_GROUP_DESCRIBE, "ConsumerGroupDescribe", 0, 1, 0),
    api(LIST_CONFIG_RESOURCES, "ListConfigResources", 0, 1, 0),
    api(
        DESCRIBE_TOPIC_PARTITIONS,
        "DescribeTopicPartitions",
        0,
        0,
        0,
    ),
];

/// The highest key served: what a table indexed by key needs.
pub const KEY_MAX: i16 = DESCRIBE_TOPIC_PARTITIONS;

const fn api(key: i16, name: &'static str, min: i16, max: i16, flexible_from: i16) -> Api {
    Api {
        key,
        name,
        listed_min: min,
        min,
        max,
        unstable_from: NEVER,
        flexible_from,
        request_bytes_max: Some(REQUEST_BYTES_MAX),
    }
}

/// The API of `key`, if it is served.
#[must_use]
pub fn lookup(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key)
        .ok()
        .map(|at| &APIS[at])
}

impl Api {
    /// Whether requests of `version` are answered.
    #[must_use]
    pub const fn serves(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// The highest version announced.
    #[must_use]
    pub const fn listed_max(&self, unstable_is_on: bool) -> i16 {
        if unstable_is_on || self.max < self.unstable_from {
            self.max
        } else {
            self.unstable_from - 1
        }
    }

    /// Whether `version` uses the flexible encoding (KIP-482).
    #[must_use]
    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// Whether the response header has a section of tagged fields. ApiVersions never has one: a client reads its
    /// response before it knows what the broker speaks (KIP-511).
    #[must_use]
    pub const fn response_header_is_flexible(&self, version: i16) -> bool {
        self.key != API_VERSIONS && self.is_flexible(version)
    }

    /// The version to give the codec crate for a body of `version`: the layouts are the same. The request header's
    /// layout follows the real version, and so do all rules.
    #[must_use]
    pub const fn crate_version(&self, version: i16) -> i16 {
        match (self.key, version) {
            (LIST_OFFSETS, 11) => 10,
            // The response only; the request has two fields more.
            (API_VERSIONS, 5) => 4,
            // The request only; the response has one field more.
            (DESCRIBE_LOG_DIRS, 5) => 4,
            // The response only; the request has one field more.
            (WRITE_TXN_MARKERS, 2) => 1,
            _ => version,
        }
    }

    /// The largest frame in bytes, given `socket.request.max.bytes`.
    #[must_use]
    pub fn request_bytes_max(&self, socket_request_max_bytes: usize) -> usize {
        self.request_bytes_max
            .map_or(socket_request_max_bytes, |max| {
                max.min(socket_request_max_bytes)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiKey;

    #[test]
    fn rows_are_sorted_by_key_and_each_key_appears_once() {
        assert!(APIS.is_sorted_by(|a, b| a.key < b.key));
        assert_eq!(APIS.last().map(|api| api.key), Some(KEY_MAX));
        for api in APIS {
            assert_eq!(lookup(api.key), Some(api));
            assert!(api.listed_min <= api.min && api.min <= api.max);
            assert!(api.listed_max(false) <= api.listed_max(true));
            assert_eq!(api.listed_max(true), api.max);
        }
        for key in [-1, 4, 5, 6, 7, 67, 70, 71, 72, 200, i16::MAX, i16::MIN] {
            assert_eq!(lookup(key), None, "{key}");
        }
    }

    #[test]
    fn rows_agree_with_the_codec_crate() {
        for api in APIS {
            let key = ApiKey::try_from(api.key).unwrap();
            let valid = key.valid_versions();
            assert_eq!(valid.min, api.min, "{}", api.name);
            for version in api.min..=api.max {
                let is_read_here = api.key == INIT_PRODUCER_ID && version == 6;
                let is_known = api.crate_version(version) <= valid.max;
                assert!(is_known || is_read_here, "{}", api.name);
                let request_header = if api.is_flexible(version) { 2 } else { 1 };
                assert_eq!(key.request_header_version(version), request_header);
                let response_header = i16::from(api.response_header_is_flexible(version));
                assert_eq!(key.response_header_version(version), response_header);
            }
        }
    }

    #[test]
    fn produce_alone_is_listed_below_what_is_served() {
        for api in APIS {
            assert_eq!(api.listed_min < api.min, api.key == PRODUCE);
        }
        assert!(!lookup(PRODUCE).unwrap().serves(2));
    }

    #[test]
    fn only_produce_may_use_the_whole_socket_limit() {
        let produce = lookup(PRODUCE).unwrap();
        assert_eq!(produce.request_bytes_max(100 << 20), 100 << 20);
        let fetch = lookup(FETCH).unwrap();
        assert_eq!(fetch.request_bytes_max(100 << 20), REQUEST_BYTES_MAX);
        assert_eq!(fetch.request_bytes_max(1000), 1000);
    }
}
