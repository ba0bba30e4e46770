//! Fetch (log-and-fetch.md section 9), in full or by what has changed in a session (KIP-227, section 9.2). A request
//! without a session touches nothing of the sessions.
//!
//! Records are not copied: the response names slices of the mapped log. A fetch that finds too little parks: its
//! connection's bell is registered with the partitions, and when one of them moves all are read again (LR-104, LR-105).

mod session;
mod sessions;

pub(crate) use sessions::Sessions;

use crate::api::{Answer, Client, Node};
use crate::metadata::Topic;
use crate::quotas::Limit;
use session::{SESSION_PARTITIONS_MAX, Session, TooLarge, TopicKey};
use sessions::{SharedSession, lock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tally_protocol::frame::RequestHead;
use tally_protocol::request::{FetchPartition, FetchRequest};
use tally_protocol::response::{
    CurrentLeader, FetchPartitionResponse, FetchResponse, FetchTopicResponse, NodeEndpoint,
    encode_fetch,
};
use tally_protocol::{ErrorCode, LeaderEpoch, PartitionId, TopicId};
use tally_shard::{Isolation, ReadOutcome, ReadRequest, ShardMessage, ShardReply, WaiterId};
use tally_storage::Slice;
use tokio::time::Instant;

use bytes::Bytes;

/// Bytes of records in a response at most, whatever `fetch.max.bytes` says: a frame's length is a positive int32, and the
/// framing and one large first batch come on top.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// One partition of the request, found.
struct Wanted {
    place: Place,
    request: FetchPartition,
}

/// Where a partition is, and the epoch of its leader; or why it can't be read.
type Place = Result<(PartitionId, LeaderEpoch), ErrorCode>;

/// A request of a session, accepted.
struct Continued {
    session: SharedSession,
    /// What the session expects next. If it expects something else when the answer is there, another request came
    /// between (LR-124).
    epoch: i32,
    wanted: Vec<Wanted>,
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
    // While the request waits, its bytes would keep the buffer in which they came.
    drop(body);
    let is_whole = matches!(request.session_epoch, -1 | 0) || is_follower(&request);
    let mut response = if is_whole {
        answer_all(node, client, version, &request).await
    } else {
        answer_news(node, client, version, &request).await
    };
    response.node_endpoints = endpoints(node, &response.topics);
    Answer::Pieces(encode_fetch(version, head.correlation_id, response))
}

/// Where the leader is that partitions of the answer name: this node (LR-110).
fn endpoints(node: &Node, topics: &[FetchTopicResponse<Slice>]) -> Vec<NodeEndpoint> {
    let mut partitions = topics.iter().flat_map(|topic| &topic.partitions);
    if !partitions.any(|partition| partition.current_leader.is_some()) {
        return Vec::new();
    }
    vec![NodeEndpoint {
        node_id: node.config.node_id,
        host: Arc::from(node.advertised.host.as_str()),
        port: i32::from(node.advertised.port),
        rack: None,
    }]
}

/// Answers a request that names all it wants: without a session, or to open one (section 9.2).
async fn answer_all(
    node: &Node,
    client: &Client,
    version: i16,
    request: &FetchRequest,
) -> FetchResponse<Slice> {
    if request.session_id != 0 {
        node.fetch_sessions.close(request.session_id);
    }
    let generation = node.metadata.generation();
    let (keys, topic_of, wanted) = find(node, version, request);
    let pass = read_until_content(node, client, version, request, &wanted).await;
    if let Err(throttle_ms) = admit(node, client, &pass) {
        return throttled(0, throttle_ms);
    }
    let wants_session = request.session_epoch == 0 && !is_follower(request);
    let session_id = if wants_session {
        let answers = topic_of.iter().map(|at| &keys[*at]).zip(&wanted);
        open_session(node, version, generation, answers.zip(&pass.partitions))
    } else {
        0
    };
    let mut topics: Vec<FetchTopicResponse<Slice>> = keys
        .iter()
        .zip(&request.topics)
        .map(|(key, topic)| key.response(topic.partitions.len()))
        .collect();
    for (at, partition) in topic_of.into_iter().zip(pass.partitions) {
        topics[at].partitions.push(partition);
    }
    response(ErrorCode::None, session_id, topics)
}

/// Opens a session with what was just answered; 0 if there is no room for it, or it would be too large (LR-126).
fn open_session<'a>(
    node: &Node,
    version: i16,
    generation: u64,
    answers: impl ExactSizeIterator<
        Item = (
            (&'a TopicKey, &'a Wanted),
            &'a FetchPartitionResponse<Slice>,
        ),
    >,
) -> i32 {
    let now = node.shards.now();
    if answers.len() > SESSION_PARTITIONS_MAX || !node.fetch_sessions.has_room(now, answers.len()) {
        return 0;
    }
    let mut session = Session::new(version >= 13, generation);
    for ((key, wanted), answer) in answers {
        let Ok(()) = session.put(key, wanted.request, wanted.place) else {
            return 0;
        };
        session.told(key, answer);
    }
    node.fetch_sessions.open(now, session)
}

/// Answers a request of a session: all its partitions are read, those with news are told (LR-122).
async fn answer_news(
    node: &Node,
    client: &Client,
    version: i16,
    request: &FetchRequest,
) -> FetchResponse<Slice> {
    let continued = match continue_session(node, version, request) {
        Ok(continued) => continued,
        Err(code) => return response(code, 0, Vec::new()),
    };
    if continued.wanted.is_empty() {
        // LR-121.
        node.fetch_sessions.close(request.session_id);
        return response(ErrorCode::None, 0, Vec::new());
    }
    let pass = read_until_content(node, client, version, request, &continued.wanted).await;
    let mut session = lock(&continued.session);
    if session.expected_epoch() != continued.epoch {
        let code = ErrorCode::InvalidFetchSessionEpoch;
        return response(code, request.session_id, Vec::new());
    }
    if let Err(throttle_ms) = admit(node, client, &pass) {
        return throttled(request.session_id, throttle_ms);
    }
    let news = session.news(pass.partitions);
    response(ErrorCode::None, request.session_id, news)
}

/// Finds the session of a request and takes over what the request changes (LR-121).
fn continue_session(
    node: &Node,
    version: i16,
    request: &FetchRequest,
) -> Result<Continued, ErrorCode> {
    let id = request.session_id;
    let shared = node
        .fetch_sessions
        .find(node.shards.now(), id)
        .ok_or(ErrorCode::FetchSessionIdNotFound)?;
    // Accepted, changed and read under one lock: the answers are matched by their order.
    let mut session = lock(&shared);
    session.accept(request.session_epoch, version >= 13)?;
    let count_before = session.len();
    let is_whole = update(&mut session, node, version, request).is_ok();
    let count = session.len();
    let continued = Continued {
        epoch: session.expected_epoch(),
        wanted: session
            .wanted()
            .map(|(request, place)| Wanted { place, request })
            .collect(),
        session: Arc::clone(&shared),
    };
    drop(session);
    let fits = count == count_before || node.fetch_sessions.resize(id, count);
    if is_whole && fits {
        return Ok(continued);
    }
    // Too large to be kept: the client asks for everything and is told to do without a session.
    node.fetch_sessions.close(id);
    Err(ErrorCode::FetchSessionIdNotFound)
}

fn update(
    session: &mut Session,
    node: &Node,
    version: i16,
    request: &FetchRequest,
) -> Result<(), TooLarge> {
    // LR-128. Read before the places are looked up: a change in between is seen the next time.
    session.refresh(node.metadata.generation(), |key, index| {
        place(topic(node, key).as_deref(), version, index)
    });
    for topic in &request.topics {
        let (key, known) = look_up(node, topic.name.as_deref(), topic.id);
        for partition in &topic.partitions {
            let place = place(known.as_deref(), version, partition.index);
            session.put(&key, *partition, place)?;
        }
    }
    for topic in &request.forgotten {
        let (key, _) = look_up(node, topic.name.as_deref(), topic.id);
        for index in &topic.partitions {
            session.forget(key.clone(), *index);
        }
    }
    Ok(())
}

/// LR-112: there are no followers, so nobody may fetch as one, nor have a session as one.
fn is_follower(request: &FetchRequest) -> bool {
    request.replica_id >= 0
}

fn response(
    error_code: ErrorCode,
    session_id: i32,
    topics: Vec<FetchTopicResponse<Slice>>,
) -> FetchResponse<Slice> {
    FetchResponse {
        throttle_time_ms: 0,
        error_code,
        session_id,
        topics,
        node_endpoints: Vec::new(),
    }
}

/// LR-162: whether what was found may go out; if not, after how many milliseconds it may be asked for again.
fn admit(node: &Node, client: &Client, pass: &Pass) -> Result<(), i32> {
    let Some(limit) = client.quotas.fetch() else {
        return Ok(());
    };
    if pass.found_bytes == 0 {
        return Ok(());
    }
    let admitted = limit.admit(node.shards.now().monotonic_ms, pass.found_bytes);
    admitted.inspect_err(|throttle_ms| client.throttle(*throttle_ms))
}

/// LR-162: nothing, and a session stays as it was; there is none yet for one that asked for all.
fn throttled(session_id: i32, throttle_time_ms: i32) -> FetchResponse<Slice> {
    FetchResponse {
        throttle_time_ms,
        ..response(ErrorCode::None, session_id, Vec::new())
    }
}

/// The topic behind a name or id. The name of a topic that exists is not copied.
fn look_up(node: &Node, name: Option<&str>, id: TopicId) -> (TopicKey, Option<Arc<Topic>>) {
    let Some(name) = name else {
        return (TopicKey::Id(id), node.metadata.topic_by_id(id));
    };
    let known = node.metadata.topic(name);
    let name = match &known {
        Some(topic) => Arc::clone(&topic.name),
        None => Arc::from(name),
    };
    (TopicKey::Name(name), known)
}

fn topic(node: &Node, key: &TopicKey) -> Option<Arc<Topic>> {
    match key {
        TopicKey::Name(name) => node.metadata.topic(name),
        TopicKey::Id(id) => node.metadata.topic_by_id(*id),
    }
}

fn place(topic: Option<&Topic>, version: i16, index: i32) -> Place {
    let Some(topic) = topic else {
        return Err(if version >= 13 {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        });
    };
    topic
        .partition_id(index)
        .map(|id| (id, topic.leader_epoch()))
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// LR-100: the partitions behind the names or ids. One that is named twice is fetched once: each mention could bring a
/// whole batch.
///
/// Also the topics of the request as they are to be named in the response, and for each partition which it is of.
fn find(
    node: &Node,
    version: i16,
    request: &FetchRequest,
) -> (Vec<TopicKey>, Vec<usize>, Vec<Wanted>) {
    let mut keys = Vec::with_capacity(request.topics.len());
    let mut topic_of = Vec::new();
    let mut wanted = Vec::new();
    let mut seen = BTreeSet::new();
    for (topic_at, topic) in request.topics.iter().enumerate() {
        let (key, known) = look_up(node, topic.name.as_deref(), topic.id);
        keys.push(key);
        for partition in &topic.partitions {
            let place = if is_follower(request) {
                Err(ErrorCode::TopicAuthorizationFailed)
            } else {
                place(known.as_deref(), version, partition.index)
            };
            if let Ok((id, _)) = place
                && !seen.insert(id)
            {
                continue;
            }
            topic_of.push(topic_at);
            wanted.push(Wanted {
                place,
                request: *partition,
            });
        }
    }
    (keys, topic_of, wanted)
}

/// Reads, and if there is too little waits for more, up to the request's time (LR-104). What is returned is in memory:
/// writing it to the client does not wait for the disk.
async fn read_until_content(
    node: &Node,
    client: &Client,
    version: i16,
    request: &FetchRequest,
    wanted: &[Wanted],
) -> Pass {
    let mut pass = wait_until_content(node, client, version, request, wanted).await;
    let answers = pass.partitions.iter();
    let slices = answers.map(|partition| &partition.records[..]);
    for (at, error) in node.loading.load_slices(slices).await {
        tracing::error!(topic_partition = ?wanted[at].place, %error, "records can't be read");
        pass.partitions[at] = refused(node, version, &wanted[at], ErrorCode::KafkaStorageError);
    }
    pass
}

async fn wait_until_content(
    node: &Node,
    client: &Client,
    version: i16,
    request: &FetchRequest,
    wanted: &[Wanted],
) -> Pass {
    let limits = Limits::of(node, client, request);
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
    fn of(node: &Node, client: &Client, request: &FetchRequest) -> Limits {
        let quota = client.quotas.fetch();
        let server_max = node
            .config
            .fetch_max_bytes
            .min(RESPONSE_BYTES_MAX)
            .min(quota.map_or(usize::MAX, Limit::bytes_at_once));
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
                let message = |to| ShardMessage::Read { request, to };
                match node.ask_the_disk(id, message).await {
                    Ok(ShardReply::Read(outcome)) => outcome,
                    Ok(_) => Err(ErrorCode::NotLeaderOrFollower),
                    Err(code) => Err(code),
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
        code => code,
    };
    // Deleted since it was found, perhaps while the fetch was parked (11.4).
    let code = match (code, wanted.place) {
        (ErrorCode::UnknownTopicOrPartition, Ok((id, _))) => match node.absent(id) {
            ErrorCode::UnknownTopicOrPartition if version >= 13 => ErrorCode::UnknownTopicId,
            code => code,
        },
        (code, _) => code,
    };
    let mut response = FetchPartitionResponse::refusal(wanted.request.index, code);
    let is_about_the_leader = matches!(
        code,
        ErrorCode::FencedLeaderEpoch | ErrorCode::NotLeaderOrFollower
    );
    if let (true, Ok((_, leader_epoch)), 16..) = (is_about_the_leader, wanted.place, version) {
        // LR-110.
        response.current_leader = Some(CurrentLeader {
            leader_id: node.config.node_id,
            leader_epoch,
        });
    }
    response
}
