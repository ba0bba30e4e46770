//! A request frame from anybody (B-26).

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages;
use tally_protocol::api_table;
use tally_protocol::frame::{HEAD_BYTES_MIN, HeadError, RequestHead, peek_key};
use tally_protocol::request::{
    FetchRequest, FromBody, ProduceRequest, WriteTxnMarkersRequest, parse_api_versions,
};

/// Frames, which begin behind their length, are read as the server reads them: head and body, of every API, in every
/// version. Nothing panics, nothing is kept of what does not fit, and what was read of a body fits the frame.
pub fn request_decode(data: &[u8]) {
    let _key = peek_key(data);
    let head = match RequestHead::parse(data) {
        Ok(head) => head,
        Err(HeadError::UnsupportedVersion { api, version }) => {
            assert!(!api.serves(version), "{} {version}", api.name);
            return;
        }
        Err(_) => return,
    };
    assert!(
        data.len() >= HEAD_BYTES_MIN,
        "{head:?} of {} bytes",
        data.len()
    );
    assert!(head.api.serves(head.api_version));
    let _id = head.client_id(data);
    let body = &data[head.body_at..];
    match head.api_key {
        api_table::PRODUCE => produce(head.api_version, body),
        api_table::FETCH => {
            drop(FetchRequest::parse(
                head.api_version,
                &Bytes::copy_from_slice(body),
            ));
        }
        api_table::API_VERSIONS => drop(parse_api_versions(head.api_version, body)),
        key => {
            let body = Bytes::copy_from_slice(body);
            let is_known = READERS.iter().any(|(of, reader)| {
                if *of == key {
                    reader(head.api_version, &body);
                }
                *of == key
            });
            assert!(is_known, "nobody reads {}", head.api.name);
        }
    }
}

fn produce(version: i16, body: &[u8]) {
    let Ok(request) = ProduceRequest::parse(version, BytesMut::from(body)) else {
        return;
    };
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    let records = partitions.filter_map(|part| part.records.as_ref());
    let bytes: usize = records.map(|records| records.len()).sum();
    assert!(bytes <= body.len(), "{bytes} of {}", body.len());
}

type Reader = fn(i16, &Bytes);

fn read<Q: FromBody>(version: i16, body: &Bytes) {
    drop(Q::from_body(version, body));
}

macro_rules! readers {
    ($($request:ty),* $(,)?) => {
        &[$((<$request as FromBody>::KEY, read::<$request>),)*]
    };
}

const READERS: &[(i16, Reader)] = readers![
    messages::ListOffsetsRequest,
    messages::MetadataRequest,
    messages::FindCoordinatorRequest,
    messages::JoinGroupRequest,
    messages::HeartbeatRequest,
    messages::LeaveGroupRequest,
    messages::SyncGroupRequest,
    messages::SaslHandshakeRequest,
    messages::CreateTopicsRequest,
    messages::DeleteTopicsRequest,
    messages::DeleteRecordsRequest,
    messages::OffsetForLeaderEpochRequest,
    messages::AddPartitionsToTxnRequest,
    messages::AddOffsetsToTxnRequest,
    messages::EndTxnRequest,
    messages::TxnOffsetCommitRequest,
    messages::DescribeConfigsRequest,
    messages::AlterConfigsRequest,
    messages::IncrementalAlterConfigsRequest,
    messages::DescribeAclsRequest,
    messages::CreateAclsRequest,
    messages::DeleteAclsRequest,
    messages::CreateDelegationTokenRequest,
    messages::RenewDelegationTokenRequest,
    messages::ExpireDelegationTokenRequest,
    messages::DescribeDelegationTokenRequest,
    messages::DescribeClientQuotasRequest,
    messages::AlterClientQuotasRequest,
    messages::DescribeUserScramCredentialsRequest,
    messages::AlterUserScramCredentialsRequest,
    messages::SaslAuthenticateRequest,
    messages::AlterReplicaLogDirsRequest,
    messages::DescribeQuorumRequest,
    messages::UpdateFeaturesRequest,
    messages::DescribeClusterRequest,
    messages::DescribeGroupsRequest,
    messages::ListGroupsRequest,
    messages::DescribeLogDirsRequest,
    messages::CreatePartitionsRequest,
    messages::DeleteGroupsRequest,
    messages::ElectLeadersRequest,
    messages::AlterPartitionReassignmentsRequest,
    messages::ListPartitionReassignmentsRequest,
    messages::OffsetDeleteRequest,
    messages::DescribeProducersRequest,
    messages::DescribeTransactionsRequest,
    messages::ListTransactionsRequest,
    messages::ConsumerGroupHeartbeatRequest,
    messages::ConsumerGroupDescribeRequest,
    messages::ListConfigResourcesRequest,
    messages::DescribeTopicPartitionsRequest,
    messages::OffsetCommitRequest,
    messages::OffsetFetchRequest,
    messages::InitProducerIdRequest,
    WriteTxnMarkersRequest,
];
