//! Fetch (log-and-fetch.md section 9): every request is a full fetch; sessions are answered with id 0.
//!
//! Records are not copied: the response names slices of the mapped log. A fetch that finds too little parks: its
//! connection's bell is registered with the partitions, and when one of them moves all are read again (LR-104, LR-105).

use crate::api::{Answer, Client, Node};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tally_protocol::frame::RequestHead;
use tally_protocol::request::{FetchPartition, FetchRequest};
use tally_protocol::response::{
    CurrentLeader, FetchPartitionResponse, FetchResponse, FetchTopicResponse, encode_fetch,
};
use tally_protocol::{ErrorCode, LeaderEpoch, PartitionId};
use tally_shard::{Isolation, ReadOutcome, ReadRequest, ShardMessage, ShardReply, WaiterId};
use tally_storage::Slice;
use tokio::time::Instant;

use bytes::Bytes;

/// Bytes of records in a response at most, whatever `fetch.max.bytes` says: a frame's length is a positive int32, and the
/// framing and one large first batch come on top.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// One partition of the request, found.
struct Wanted {
    topic_at: usize,
    place: Result<(PartitionId, LeaderEpoch), ErrorCode>,
    request: FetchPartition,
}

/// What a pass over all partitions found.
struct Pass {
    partitions: Vec<FetchPartitionResponse<Slice>>,
    found_bytes: usize,
    /// An error or a diverging log in any partition: answered at once (LR-104).
    urgent: bool,
}

/// Answers a Fetch request.
pub(crate) async fn answer(
    node: &Node,
    client: &Client,
    head: &RequestHead,
    body: Bytes,
) -> Answer {
    let version = head.api_version;
    let request = match FetchRequest::parse(version, &body) {
        Ok(request) => request,
        Err(malformed) => {
            return Answer::Close(format!("Fetch version {version} request: {malformed}"));
        }
    };
    if let Some(code) = session_error(&request) {
        let response = FetchResponse::<Slice> {
            throttle_time_ms: 0,
            error_code: code,
            session_id: 0,
            topics: Vec::new(),
            node_endpoints: Vec::new(),
        };
        return Answer::Pieces(encode_fetch(version, head.correlation_id, response));
    }
    let wanted = find(node, version, &request);
    let pass = read_until_content(node, client, version, &request, &wanted).await;
    let mut topics: Vec<FetchTopicResponse<Slice>> = request
        .topics
        .iter()
        .map(|topic| FetchTopicResponse {
            name: topic.name.as_ref().map(|name| Arc::from(name.as_str())),
            id: topic.id,
            partitions: Vec::with_capacity(topic.partitions.len()),
        })
        .collect();
    for (wanted, partition) in wanted.iter().zip(pass.partitions) {
        topics[wanted.topic_at].partitions.push(partition);
    }
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: ErrorCode::None,
        session_id: 0,
        topics,
        node_endpoints: Vec::new(),
    };
    Answer::Pieces(encode_fetch(version, head.correlation_id, response))
}

/// There are no sessions yet, so none can be continued (section 9.2).
fn session_error(request: &FetchRequest) -> Option<ErrorCode> {
    (request.session_epoch > 0).then_some(ErrorCode::FetchSessionIdNotFound)
}

/// LR-100: the partitions behind the names or ids. One that is named twice is fetched once: each mention could bring a
/// whole batch.
fn find(node: &Node, version: i16, request: &FetchRequest) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut seen = BTreeSet::new();
    for (topic_at, topic) in request.topics.iter().enumerate() {
        let known = match &topic.name {
            Some(name) => node.metadata.topic(name.as_str()),
            None => node.metadata.topic_by_id(topic.id),
        };
        for partition in &topic.partitions {
            let place = match &known {
                // LR-112: there are no followers, so nobody may fetch as one.
                _ if request.replica_id >= 0 => Err(ErrorCode::TopicAuthorizationFailed),
                None if version >= 13 => Err(ErrorCode::UnknownTopicId),
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(topic) => topic
                    .partition_id(partition.index)
                    .map(|id| (id, topic.leader_epoch()))
                    .ok_or(ErrorCode::UnknownTopicOrPartition),
            };
            if let Ok((id, _)) = place
                && !seen.insert(id)
            {
                continue;
            }
            wanted.push(Wanted {
                topic_at,
                place,
                request: *partition,
            });
        }
    }
    wanted
}

/// Reads, and if there is too little waits for more, up to the request's time (LR-104).
async fn read_until_content(
    node: &Node,
    client: &Client,
    version: i16,
    request: &FetchRequest,
    wanted: &[Wanted],
) -> Pass {
    let limits = Limits::of(node, request);
    let deadline =
        Instant::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let may_wait = request.max_wait_ms > 0 && !wanted.is_empty();
    let mut registered = Registered {
        node,
        waiter: client.waiter,
        partitions: BTreeSet::new(),
    };
    loop {
        let waiter = may_wait.then_some(client.waiter);
        let pass = read_all(node, version, &limits, wanted, waiter, &mut registered).await;
        if !may_wait
            || pass.urgent
            || pass.found_bytes >= limits.min_bytes
            || node.shards.is_stopping()
        {
            return pass;
        }
        if tokio::time::timeout_at(deadline, client.bell.notified())
            .await
            .is_err()
        {
            return read_all(node, version, &limits, wanted, None, &mut registered).await;
        }
    }
}

/// The partitions at which the bell is registered. They are told when the fetch is over, also when its connection ends
/// while it waits.
struct Registered<'a> {
    node: &'a Node,
    waiter: WaiterId,
    partitions: BTreeSet<PartitionId>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for id in std::mem::take(&mut self.partitions) {
            let cancelled = ShardMessage::CancelWaiter(self.waiter);
            self.node.shards.tell(id, cancelled);
        }
    }
}

/// The limits of one fetch, bytes (LR-103).
struct Limits {
    max_bytes: usize,
    min_bytes: usize,
    isolation: Isolation,
}

impl Limits {
    fn of(node: &Node, request: &FetchRequest) -> Limits {
        let server_max = node.config.fetch_max_bytes.min(RESPONSE_BYTES_MAX);
        let max_bytes = usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(server_max);
        Limits {
            max_bytes,
            min_bytes: usize::try_from(request.min_bytes)
                .unwrap_or(0)
                .min(max_bytes),
            isolation: if request.isolation_level == 1 {
                Isolation::ReadCommitted
            } else {
                Isolation::ReadUncommitted
            },
        }
    }
}

/// Reads every partition in the request's order, within what the ones before have left of the limit.
async fn read_all(
    node: &Node,
    version: i16,
    limits: &Limits,
    wanted: &[Wanted],
    waiter: Option<WaiterId>,
    registered: &mut Registered<'_>,
) -> Pass {
    let mut pass = Pass {
        partitions: Vec::with_capacity(wanted.len()),
        found_bytes: 0,
        urgent: false,
    };
    for wanted in wanted {
        let outcome = match wanted.place {
            Err(code) => Err(code),
            Ok((id, _)) => {
                let partition_max = usize::try_from(wanted.request.max_bytes).unwrap_or(0);
                let request = ReadRequest {
                    from: wanted.request.fetch_offset,
                    max_bytes: partition_max.min(limits.max_bytes.saturating_sub(pass.found_bytes)),
                    // KIP-74: the first batch of the first partition that has one is returned whole.
                    first_whole: pass.found_bytes == 0,
                    isolation: limits.isolation,
                    current_leader_epoch: wanted.request.current_leader_epoch,
                    last_fetched_epoch: wanted.request.last_fetched_epoch,
                    waiter,
                    wanted_bytes: limits.min_bytes.max(1),
                };
                if waiter.is_some() {
                    registered.partitions.insert(id);
                }
                match node.ask(id, |to| ShardMessage::Read { request, to }).await {
                    Some(ShardReply::Read(outcome)) => outcome,
                    _ => Err(ErrorCode::NotLeaderOrFollower),
                }
            }
        };
        let response = match outcome {
            Ok(outcome) => {
                pass.urgent |= outcome.diverging.is_some();
                pass.found_bytes += outcome
                    .slices
                    .iter()
                    .map(|slice| slice.len())
                    .sum::<usize>();
                found(wanted.request.index, outcome, limits.isolation)
            }
            Err(code) => {
                pass.urgent = true;
                refused(node, version, wanted, code)
            }
        };
        pass.partitions.push(response);
    }
    pass
}

/// LR-106.
fn found(index: i32, outcome: ReadOutcome, isolation: Isolation) -> FetchPartitionResponse<Slice> {
    let mut response = FetchPartitionResponse::refusal(index, ErrorCode::None);
    response.high_watermark = outcome.high_watermark;
    response.last_stable_offset = outcome.last_stable_offset;
    response.log_start_offset = outcome.log_start;
    response.diverging_epoch = outcome.diverging.map(|end| (end.epoch, end.end));
    // F-1: null for read_uncommitted, a list, perhaps empty, for read_committed.
    response.aborted_transactions =
        (isolation == Isolation::ReadCommitted).then_some(outcome.aborted);
    response.records = outcome.slices;
    response
}

fn refused(
    node: &Node,
    version: i16,
    wanted: &Wanted,
    code: ErrorCode,
) -> FetchPartitionResponse<Slice> {
    let code = match code {
        // LR-109.
        ErrorCode::KafkaStorageError if version <= 5 => ErrorCode::NotLeaderOrFollower,
        // Deleted since it was found, perhaps while the fetch was parked (11.4).
        ErrorCode::UnknownTopicOrPartition if version >= 13 && wanted.place.is_ok() => {
            ErrorCode::UnknownTopicId
        }
        code => code,
    };
    let mut response = FetchPartitionResponse::refusal(wanted.request.index, code);
    if let (ErrorCode::FencedLeaderEpoch, Ok((_, leader_epoch)), 16..) =
        (code, wanted.place, version)
    {
        // LR-110.
        response.current_leader = Some(CurrentLeader {
            leader_id: node.config.node_id,
            leader_epoch,
        });
    }
    response
}
