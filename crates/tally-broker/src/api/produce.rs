//! Produce (exactly-once.md 1.1): the checks P-1 to P-21 in their order, then the shard's (P-22 to P-24).
//!
//! Records stay the bytes of the frame: they are checked in place, stamped in place by the shard, and written from
//! there. A partition that is refused never touches another one (P-25).

use crate::api::transaction::{self, Participant};
use crate::api::{Answer, Client, INTERNAL_TOPICS, Node};
use crate::config::TimestampType;
use crate::metadata::Topic;
use crate::server::shards::Asked;
use bytes::BytesMut;
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_producer_state::{Flow, Guard};
use tally_protocol::frame::RequestHead;
use tally_protocol::request::ProduceRequest;
use tally_protocol::response::{
    ProducePartitionResponse, ProduceResponse, ProduceTopicResponse, encode_produce,
};
use tally_protocol::validate::{self, Rejected, Rules};
use tally_protocol::{
    BatchHeader, BatchView, ErrorCode, Offset, PartitionId, ProducerEpoch, ProducerId, batch,
};
use tally_shard::{AppendOutcome, Call, ShardMessage, ShardReply};
use tally_transactions::TopicPartition;

/// The client id under which tools may write to internal topics (P-8).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// One partition of the request on its way.
struct Part {
    /// Where its result goes: which topic of the request.
    topic_at: usize,
    index: i32,
    topic: Option<Arc<Topic>>,
    id: Option<PartitionId>,
    records: Option<BytesMut>,
    header: Option<BatchHeader>,
    guard: Option<Guard>,
    /// The time that was stamped, where the topic wants that.
    log_append_time: Option<i64>,
    /// Its answer, as soon as it has one.
    result: Option<ProducePartitionResponse>,
    /// What its shard says, once it has been handed over.
    asked: Option<Asked>,
}

impl Part {
    /// The first refusal counts.
    fn refuse(&mut self, code: ErrorCode) {
        if self.result.is_none() {
            self.result = Some(ProducePartitionResponse::refusal(self.index, code));
        }
    }

    /// The header, if the partition is still in the running.
    fn accepted(&self) -> Option<&BatchHeader> {
        if self.result.is_some() {
            None
        } else {
            self.header.as_ref()
        }
    }
}

/// Answers a Produce request.
pub(crate) async fn answer(
    node: &Node,
    client: &Client,
    head: &RequestHead,
    body: BytesMut,
) -> Answer {
    let version = head.api_version;
    let request_bytes = head.body_at + body.len();
    let mut request = match ProduceRequest::parse(version, body) {
        Ok(request) => request,
        Err(malformed) => {
            return Answer::Close(format!("Produce version {version} request: {malformed}"));
        }
    };
    let acks = request.acks;
    let mut parts = parts(node, &mut request);
    let transactional_id = request.transactional_id.clone();
    if parts.iter().any(is_transactional) && transactional_id.is_none() {
        // P-1: whatever else is wrong with them.
        for part in &mut parts {
            part.result = None;
            part.refuse(ErrorCode::TransactionalIdAuthorizationFailed);
        }
    } else {
        for part in &mut parts {
            check_place(version, part);
        }
        join_transaction(node, client, version, transactional_id, &mut parts).await;
        if client.is_overtaken() {
            // The connection is closed; nothing of a request that came too late is appended.
            return Answer::Nothing;
        }
        for part in &mut parts {
            check_batch(node, client, version, acks, part);
        }
    }
    append_all(node, client, (version, acks), &mut parts).await;
    let throttle_time_ms = charge(node, client, request_bytes);
    if acks == 0 {
        // P-26, LR-32: no answer, and a closed connection is the only way to say that something is wrong.
        let mut results = parts.iter().filter_map(|part| part.result.as_ref());
        return match results.find(|result| !result.error_code.is_none()) {
            Some(result) => Answer::Close(format!(
                "Produce with acks=0 refused: {:?}",
                result.error_code
            )),
            None => Answer::Nothing,
        };
    }
    let response = ProduceResponse {
        topics: grouped(&request, &parts),
        throttle_time_ms,
        node_endpoints: &[],
    };
    Answer::Frame(encode_produce(version, head.correlation_id, response))
}

/// LR-161: what was asked is done; for how long nothing more is.
fn charge(node: &Node, client: &Client, request_bytes: usize) -> i32 {
    let Some(limit) = client.quotas.produce() else {
        return 0;
    };
    let throttle_ms = limit.charge(node.shards.now().monotonic_ms, request_bytes);
    client.throttle(throttle_ms);
    throttle_ms
}

/// The partitions of the request. Of a partition that is named twice only the last counts (LR-23).
fn parts(node: &Node, request: &mut ProduceRequest) -> Vec<Part> {
    let count = request.topics.iter().map(|topic| topic.partitions.len());
    let mut parts = Vec::with_capacity(count.sum());
    for (topic_at, topic) in request.topics.iter_mut().enumerate() {
        let known = match &topic.name {
            Some(name) => node.metadata.topic(name),
            None => node.metadata.topic_by_id(topic.id),
        };
        for partition in &mut topic.partitions {
            let id = known
                .as_ref()
                .and_then(|topic| topic.partition_id(partition.index));
            let mut part = Part {
                topic_at,
                index: partition.index,
                topic: known.clone(),
                id,
                records: partition.records.take(),
                header: None,
                guard: None,
                log_append_time: None,
                result: None,
                asked: None,
            };
            if known.is_none() && topic.name.is_none() {
                part.refuse(ErrorCode::UnknownTopicId);
            } else if id.is_none() {
                part.refuse(ErrorCode::UnknownTopicOrPartition);
            }
            part.header = part
                .records
                .as_deref()
                .and_then(|records| batch::parse_header(records).ok());
            parts.push(part);
        }
    }
    if parts.len() > 1 {
        let mut seen = BTreeSet::new();
        let mut last_only: Vec<Part> = parts
            .into_iter()
            .rev()
            .filter(|part| part.id.is_none_or(|id| seen.insert(id)))
            .collect();
        last_only.reverse();
        parts = last_only;
    }
    parts
}

fn is_transactional(part: &Part) -> bool {
    part.header.is_some_and(|header| header.is_transactional())
}

/// Whether the coordinator can be asked about a batch. One without a producer can't take part in a transaction and is
/// left to P-16, which refuses it (D-9).
fn takes_part(header: &BatchHeader) -> bool {
    header.is_transactional() && header.has_producer() && header.producer_epoch.0 >= 0
}

/// P-3 and P-4. What follows the batch is ignored where Kafka ignores it.
fn check_place(version: i16, part: &mut Part) {
    if part.result.is_some() {
        return;
    }
    match validate::only_batch(part.records.as_deref(), version) {
        Ok(view) => {
            let header = *view.header();
            part.header = Some(header);
            if let Some(records) = &mut part.records {
                records.truncate(header.size_bytes());
            }
        }
        Err(rejected) => part.result = Some(rejection(part.index, rejected)),
    }
}

/// P-5 and P-6: one transaction a request; its partitions join it or are verified.
async fn join_transaction(
    node: &Node,
    client: &Client,
    version: i16,
    transactional_id: Option<Arc<str>>,
    parts: &mut [Part],
) {
    let mut pairs = parts
        .iter()
        .filter_map(Part::accepted)
        .filter(|header| takes_part(header));
    let Some(first) = pairs.next() else { return };
    let pair: (ProducerId, ProducerEpoch) = (first.producer_id, first.producer_epoch);
    if pairs.any(|header| (header.producer_id, header.producer_epoch) != pair) {
        for part in parts {
            part.result = None;
            part.refuse(ErrorCode::InvalidProducerIdMapping);
        }
        return;
    }
    let Some(transactional_id) = transactional_id else {
        return;
    };
    let participant = Participant {
        transactional_id,
        producer_id: pair.0,
        producer_epoch: pair.1,
        call: Call::Produce,
        flow: if version >= 12 { Flow::Tv2 } else { Flow::Tv1 },
    };
    let mut asking = Vec::new();
    let mut names = Vec::new();
    for (at, part) in parts.iter_mut().enumerate() {
        let Some(header) = part.accepted().filter(|header| takes_part(header)).copied() else {
            continue;
        };
        let (Some(id), Some(topic)) = (part.id, &part.topic) else {
            continue;
        };
        match transaction::begin(node, id, &participant, header.base_sequence).await {
            Ok(None) => {}
            Ok(Some(guard)) => {
                names.push(TopicPartition {
                    topic: Arc::clone(&topic.name),
                    partition: part.index,
                });
                asking.push(at);
                part.guard = Some(guard);
            }
            Err(code) => part.refuse(translate(version, code)),
        }
    }
    if names.is_empty() {
        return;
    }
    let codes = transaction::ask_coordinator(node, client, &participant, names).await;
    for (at, code) in asking.into_iter().zip(codes) {
        if code.is_none() {
            continue;
        }
        let part = &mut parts[at];
        if let (Some(id), Some(guard)) = (part.id, part.guard) {
            transaction::refused(node, id, &participant, guard, code);
        }
        part.refuse(translate(version, code));
    }
}

/// V-3 and section 0.2: what a producer of this version can be told about its transaction.
fn translate(version: i16, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < 11 => ErrorCode::InvalidTxnState,
        ErrorCode::ConcurrentTransactions if version < 12 => ErrorCode::NotEnoughReplicas,
        ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        code => code,
    }
}

/// P-7 to P-21.
fn check_batch(node: &Node, client: &Client, version: i16, acks: i16, part: &mut Part) {
    if part.result.is_some() {
        return;
    }
    if !(-1..=1).contains(&acks) {
        return part.refuse(ErrorCode::InvalidRequiredAcks);
    }
    let (Some(topic), Some(records)) = (part.topic.clone(), part.records.as_mut()) else {
        return part.refuse(ErrorCode::UnknownServerError);
    };
    if INTERNAL_TOPICS.contains(&&*topic.name) && client.id() != ADMIN_CLIENT_ID {
        return part.refuse(ErrorCode::InvalidTopicException);
    }
    let config = &topic.configs;
    let rules = Rules {
        request_version: version,
        max_message_bytes: config.max_message_bytes,
        compacted: config.cleanup_policy.compact,
        timestamp_type: match config.message_timestamp_type {
            TimestampType::CreateTime => validate::TimestampType::CreateTime,
            TimestampType::LogAppendTime => validate::TimestampType::LogAppendTime,
        },
        before_max_ms: config.message_timestamp_before_max_ms,
        after_max_ms: config.message_timestamp_after_max_ms,
    };
    let now = node.shards.now();
    let checked = match BatchView::parse(records) {
        Ok(view) => validate::check_client_batch(&view, &rules, now.wall_ms),
        Err(_) => return part.refuse(ErrorCode::CorruptMessage),
    };
    let checked = match checked {
        Ok(checked) => checked,
        Err(rejected) => {
            part.result = Some(rejection(part.index, rejected));
            return;
        }
    };
    if records.len() > usize::try_from(config.segment_bytes).unwrap_or(usize::MAX) {
        return part.refuse(ErrorCode::RecordListTooLarge);
    }
    if config.message_timestamp_type == TimestampType::LogAppendTime {
        batch::stamp_log_append_time(records, now.wall_ms);
    } else if checked.restamp {
        batch::stamp_create_time(records, checked.max_timestamp);
    }
}

fn rejection(index: i32, rejected: Rejected) -> ProducePartitionResponse {
    let mut response = ProducePartitionResponse::refusal(index, rejected.code);
    response.record_errors = rejected.record_errors;
    response.error_message = Some(rejected.message);
    response
}

/// Hands every batch to its shard, in the request's order; then each part has its result.
async fn append_all(node: &Node, client: &Client, (version, acks): (i16, i16), parts: &mut [Part]) {
    for part in &mut *parts {
        if part.result.is_some() {
            continue;
        }
        // P-30: the time that is answered is the one that was stamped.
        part.log_append_time = part
            .topic
            .as_ref()
            .filter(|topic| topic.configs.message_timestamp_type == TimestampType::LogAppendTime)
            .and_then(|_| batch::parse_header(part.records.as_deref()?).ok())
            .map(|header| header.max_timestamp);
        let (Some(id), Some(batch)) = (part.id, part.records.take()) else {
            part.refuse(ErrorCode::UnknownServerError);
            continue;
        };
        let guard = part.guard;
        let speaker = part
            .header
            .filter(|header| version < 12 && header.is_transactional())
            .map(|header| client.speaker(Call::Produce, header.producer_id, header.producer_epoch));
        part.asked =
            Some(node.ask_in_order(id, speaker, |to| ShardMessage::Append { batch, guard, to }));
    }
    for part in parts {
        let Some(asked) = part.asked.take() else {
            continue;
        };
        // acks=0 waits for no sync, and a refusal is there at once.
        part.result = Some(if acks == 0 && matches!(asked, Asked::Later(_)) {
            ProducePartitionResponse::refusal(part.index, ErrorCode::None)
        } else {
            let reply = node.unless_overtaken(client, asked.reply().await);
            result(node, version, part, reply)
        });
    }
}

/// What the client is told of the shard's reply.
fn result(
    node: &Node,
    version: i16,
    part: &Part,
    reply: Option<ShardReply>,
) -> ProducePartitionResponse {
    match reply {
        Some(ShardReply::Append(Ok(appended))) => {
            accepted(part.index, &appended, part.log_append_time)
        }
        Some(ShardReply::Append(Err(refusal))) => {
            // P-2, if it has been deleted since.
            let code = match (refusal.code, part.id.map(|id| node.absent(id))) {
                (ErrorCode::UnknownTopicOrPartition, Some(absent)) => not_found(version, absent),
                (code, _) => code,
            };
            let mut response = ProducePartitionResponse::refusal(part.index, code);
            response.log_start_offset = refusal.log_start;
            response
        }
        _ => ProducePartitionResponse::refusal(part.index, ErrorCode::NotLeaderOrFollower),
    }
}

/// P-2: a topic that was asked for by its id.
fn not_found(version: i16, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::UnknownTopicOrPartition if version >= 13 => ErrorCode::UnknownTopicId,
        code => code,
    }
}

/// P-30; P-32 for a duplicate.
fn accepted(
    index: i32,
    appended: &AppendOutcome,
    append_time_ms: Option<i64>,
) -> ProducePartitionResponse {
    let mut response = ProducePartitionResponse::refusal(index, ErrorCode::None);
    response.base_offset = appended.base_offset;
    response.log_start_offset = appended.log_start;
    response.log_append_time_ms = match append_time_ms {
        Some(time_ms) if appended.duplicate_timestamp_ms < 0 => time_ms,
        _ => appended.duplicate_timestamp_ms,
    };
    debug_assert!(
        response.base_offset > Offset::NONE,
        "a success has an offset (B-18)"
    );
    response
}

/// The results under their topics again.
fn grouped<'a>(
    request: &'a ProduceRequest,
    parts: &'a [Part],
) -> impl ExactSizeIterator<
    Item = ProduceTopicResponse<'a, impl ExactSizeIterator<Item = &'a ProducePartitionResponse>>,
> + Clone {
    let result = |part: &'a Part| part.result.as_ref().expect("every part has been answered");
    let topics = request.topics.iter().enumerate();
    topics.map(move |(at, topic)| {
        // The parts are in the topics' order.
        let begin = parts.partition_point(|part| part.topic_at < at);
        let end = parts.partition_point(|part| part.topic_at <= at);
        ProduceTopicResponse {
            name: topic.name.as_deref(),
            id: topic.id,
            partitions: parts[begin..end].iter().map(result),
        }
    })
}
