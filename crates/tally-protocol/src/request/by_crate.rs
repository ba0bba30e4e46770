//! The way to the codec crate: no request is decoded by it before [`crate::schema`] has seen every length in it.
//!
//! OffsetCommit and OffsetFetch 10 (topics by id) and InitProducerId 6 (KIP-939) are read here by hand into the crate's own
//! structures, because the crate knows their responses and fields but not those requests.

use crate::api_table::{self, INIT_PRODUCER_ID, OFFSET_COMMIT, OFFSET_FETCH, lookup};
use crate::schema::check_body;
use crate::wire::{Malformed, Reader};
use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    self, GroupId, InitProducerIdRequest, OffsetCommitRequest, OffsetFetchRequest, ProducerId,
    TransactionalId,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use uuid::Uuid;

/// A request whose body is read by one call: every API served but Produce, Fetch and ApiVersions. All but WriteTxnMarkers
/// become structures of the codec crate.
pub trait FromBody: Sized {
    /// The API's key.
    const KEY: i16;

    /// Reads the body of a request of any served version, its lengths checked first. Strings and bytes are slices of
    /// `body`: copy what outlives the request.
    fn from_body(version: i16, body: &Bytes) -> Result<Self, Malformed>;
}

/// The requests that the crate reads in every served version.
macro_rules! read_by_the_crate {
    ($($key:ident => $request:ty),* $(,)?) => {$(
        impl FromBody for $request {
            const KEY: i16 = api_table::$key;

            fn from_body(version: i16, body: &Bytes) -> Result<$request, Malformed> {
                decode(api_table::$key, version, body)
            }
        }
    )*};
}

read_by_the_crate! {
    LIST_OFFSETS => messages::ListOffsetsRequest,
    METADATA => messages::MetadataRequest,
    FIND_COORDINATOR => messages::FindCoordinatorRequest,
    JOIN_GROUP => messages::JoinGroupRequest,
    HEARTBEAT => messages::HeartbeatRequest,
    LEAVE_GROUP => messages::LeaveGroupRequest,
    SYNC_GROUP => messages::SyncGroupRequest,
    SASL_HANDSHAKE => messages::SaslHandshakeRequest,
    CREATE_TOPICS => messages::CreateTopicsRequest,
    DELETE_TOPICS => messages::DeleteTopicsRequest,
    DELETE_RECORDS => messages::DeleteRecordsRequest,
    OFFSET_FOR_LEADER_EPOCH => messages::OffsetForLeaderEpochRequest,
    ADD_PARTITIONS_TO_TXN => messages::AddPartitionsToTxnRequest,
    ADD_OFFSETS_TO_TXN => messages::AddOffsetsToTxnRequest,
    END_TXN => messages::EndTxnRequest,
    TXN_OFFSET_COMMIT => messages::TxnOffsetCommitRequest,
    DESCRIBE_CONFIGS => messages::DescribeConfigsRequest,
    ALTER_CONFIGS => messages::AlterConfigsRequest,
    INCREMENTAL_ALTER_CONFIGS => messages::IncrementalAlterConfigsRequest,
    DESCRIBE_ACLS => messages::DescribeAclsRequest,
    CREATE_ACLS => messages::CreateAclsRequest,
    DELETE_ACLS => messages::DeleteAclsRequest,
    CREATE_DELEGATION_TOKEN => messages::CreateDelegationTokenRequest,
    RENEW_DELEGATION_TOKEN => messages::RenewDelegationTokenRequest,
    EXPIRE_DELEGATION_TOKEN => messages::ExpireDelegationTokenRequest,
    DESCRIBE_DELEGATION_TOKEN => messages::DescribeDelegationTokenRequest,
    DESCRIBE_CLIENT_QUOTAS => messages::DescribeClientQuotasRequest,
    ALTER_CLIENT_QUOTAS => messages::AlterClientQuotasRequest,
    DESCRIBE_USER_SCRAM_CREDENTIALS => messages::DescribeUserScramCredentialsRequest,
    ALTER_USER_SCRAM_CREDENTIALS => messages::AlterUserScramCredentialsRequest,
    SASL_AUTHENTICATE => messages::SaslAuthenticateRequest,
    ALTER_REPLICA_LOG_DIRS => messages::AlterReplicaLogDirsRequest,
    DESCRIBE_QUORUM => messages::DescribeQuorumRequest,
    UPDATE_FEATURES => messages::UpdateFeaturesRequest,
    DESCRIBE_CLUSTER => messages::DescribeClusterRequest,
    DESCRIBE_GROUPS => messages::DescribeGroupsRequest,
    LIST_GROUPS => messages::ListGroupsRequest,
    DESCRIBE_LOG_DIRS => messages::DescribeLogDirsRequest,
    CREATE_PARTITIONS => messages::CreatePartitionsRequest,
    DELETE_GROUPS => messages::DeleteGroupsRequest,
    ELECT_LEADERS => messages::ElectLeadersRequest,
    ALTER_PARTITION_REASSIGNMENTS => messages::AlterPartitionReassignmentsRequest,
    LIST_PARTITION_REASSIGNMENTS => messages::ListPartitionReassignmentsRequest,
    OFFSET_DELETE => messages::OffsetDeleteRequest,
    DESCRIBE_PRODUCERS => messages::DescribeProducersRequest,
    DESCRIBE_TRANSACTIONS => messages::DescribeTransactionsRequest,
    LIST_TRANSACTIONS => messages::ListTransactionsRequest,
    CONSUMER_GROUP_HEARTBEAT => messages::ConsumerGroupHeartbeatRequest,
    CONSUMER_GROUP_DESCRIBE => messages::ConsumerGroupDescribeRequest,
    LIST_CONFIG_RESOURCES => messages::ListConfigResourcesRequest,
    DESCRIBE_TOPIC_PARTITIONS => messages::DescribeTopicPartitionsRequest,
}

impl FromBody for OffsetCommitRequest {
    const KEY: i16 = OFFSET_COMMIT;

    fn from_body(version: i16, body: &Bytes) -> Result<OffsetCommitRequest, Malformed> {
        decode_offset_commit(version, body)
    }
}

impl FromBody for OffsetFetchRequest {
    const KEY: i16 = OFFSET_FETCH;

    fn from_body(version: i16, body: &Bytes) -> Result<OffsetFetchRequest, Malformed> {
        decode_offset_fetch(version, body)
    }
}

impl FromBody for InitProducerIdRequest {
    const KEY: i16 = INIT_PRODUCER_ID;

    fn from_body(version: i16, body: &Bytes) -> Result<InitProducerIdRequest, Malformed> {
        if version < 6 {
            return decode(INIT_PRODUCER_ID, version, body);
        }
        check_body(INIT_PRODUCER_ID, version, body)?;
        let mut reader = Reader::new(body);
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = nullable_text(body, &mut reader)?.map(TransactionalId);
        request.transaction_timeout_ms = reader.i32()?;
        request.producer_id = ProducerId(reader.i64()?);
        request.producer_epoch = reader.i16()?;
        request.enable_2_pc = reader.u8()? != 0;
        request.keep_prepared_txn = reader.u8()? != 0;
        reader.skip_tagged_fields(true)?;
        Ok(request)
    }
}

/// Through the crate, under the crate's version of the layout ([`api_table::Api::crate_version`]).
fn decode<T: Decodable>(key: i16, version: i16, body: &Bytes) -> Result<T, Malformed> {
    check_body(key, version, body)?;
    let api = lookup(key).ok_or(Malformed::UnknownVersion)?;
    T::decode(&mut body.clone(), api.crate_version(version)).map_err(|_| Malformed::Undecodable)
}

/// Reads an OffsetCommit request, versions 2 to 10.
fn decode_offset_commit(version: i16, body: &Bytes) -> Result<OffsetCommitRequest, Malformed> {
    if version < 10 {
        return decode(OFFSET_COMMIT, version, body);
    }
    check_body(OFFSET_COMMIT, version, body)?;
    let mut reader = Reader::new(body);
    let mut request = OffsetCommitRequest::default();
    request.group_id = GroupId(text(body, &mut reader)?);
    request.generation_id_or_member_epoch = reader.i32()?;
    request.member_id = text(body, &mut reader)?;
    request.group_instance_id = nullable_text(body, &mut reader)?;
    for _ in 0..count(&mut reader)? {
        let mut topic = OffsetCommitRequestTopic::default();
        topic.topic_id = Uuid::from_bytes(reader.array()?);
        for _ in 0..count(&mut reader)? {
            let mut partition = OffsetCommitRequestPartition::default();
            partition.partition_index = reader.i32()?;
            partition.committed_offset = reader.i64()?;
            partition.committed_leader_epoch = reader.i32()?;
            partition.committed_metadata = nullable_text(body, &mut reader)?;
            reader.skip_tagged_fields(true)?;
            topic.partitions.push(partition);
        }
        reader.skip_tagged_fields(true)?;
        request.topics.push(topic);
    }
    reader.skip_tagged_fields(true)?;
    Ok(request)
}

/// Reads an OffsetFetch request, versions 1 to 10.
fn decode_offset_fetch(version: i16, body: &Bytes) -> Result<OffsetFetchRequest, Malformed> {
    if version < 10 {
        return decode(OFFSET_FETCH, version, body);
    }
    check_body(OFFSET_FETCH, version, body)?;
    let mut reader = Reader::new(body);
    let mut request = OffsetFetchRequest::default();
    for _ in 0..count(&mut reader)? {
        let mut group = OffsetFetchRequestGroup::default();
        group.group_id = GroupId(text(body, &mut reader)?);
        group.member_id = nullable_text(body, &mut reader)?;
        group.member_epoch = reader.i32()?;
        group.topics = fetched_topics(&mut reader)?;
        reader.skip_tagged_fields(true)?;
        request.groups.push(group);
    }
    request.require_stable = reader.u8()? != 0;
    reader.skip_tagged_fields(true)?;
    Ok(request)
}

/// The topics of one group; null asks for all.
fn fetched_topics(
    reader: &mut Reader<'_>,
) -> Result<Option<Vec<OffsetFetchRequestTopics>>, Malformed> {
    let Some(topic_count) = reader.array_length(true, 1)? else {
        return Ok(None);
    };
    let mut topics = Vec::new();
    for _ in 0..topic_count {
        let mut topic = OffsetFetchRequestTopics::default();
        topic.topic_id = Uuid::from_bytes(reader.array()?);
        for _ in 0..count(reader)? {
            topic.partition_indexes.push(reader.i32()?);
        }
        reader.skip_tagged_fields(true)?;
        topics.push(topic);
    }
    Ok(Some(topics))
}

fn count(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    reader.array_length(true, 1)?.ok_or(Malformed::BadLength)
}

fn text(body: &Bytes, reader: &mut Reader<'_>) -> Result<StrBytes, Malformed> {
    nullable_text(body, reader)?.ok_or(Malformed::BadLength)
}

fn nullable_text(body: &Bytes, reader: &mut Reader<'_>) -> Result<Option<StrBytes>, Malformed> {
    let text = reader.nullable_string(true)?;
    text.map(|text| super::string_of(body, text)).transpose()
}
