//! The Kafka APIs: one file each, named after the API. A handler turns a request into commands and results into the
//! response of the request's version; error codes are translated per version here and nowhere else.
//!
//! What can't be read, or is not served, closes the connection (api-matrix.md section 6); a field value that makes no
//! sense is an error code in the body.

mod acls;
mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod altering;
mod api_versions;
mod client_quotas;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delegation_tokens;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod elect_leaders;
mod end_txn;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sasl;
mod scram_credentials;
mod sync_group;
mod topics;
mod transaction;
mod txn_offset_commit;
mod update_features;
mod write_txn_markers;

pub(crate) use fetch::Sessions as FetchSessions;
pub(crate) use init_producer_id::{Owners, PlainProducerIds};

use crate::config::{Address, BrokerConfig, Durability};
use crate::loggers::Loggers;
use crate::metadata::{CONSUMER_OFFSETS, Metadata, TRANSACTION_STATE};
use crate::quotas::{Limits as Quotas, Rates};
use crate::server::foreign::Foreigners;
use crate::server::heard::Heard;
use crate::server::loading::Loading;
use crate::server::request_memory::RequestMemory;
use crate::server::shards::{Asked, Shards};
use crate::started::Started;
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{
    CreateDelegationTokenRequest, DescribeAclsRequest, DescribeDelegationTokenRequest,
    ExpireDelegationTokenRequest, HeartbeatRequest, JoinGroupRequest,
    ListPartitionReassignmentsRequest, RenewDelegationTokenRequest, SaslAuthenticateRequest,
    SaslHandshakeRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use tally_groups as groups;
use tally_protocol::frame::{self, HeadError, RequestHead};
use tally_protocol::ids::coordinator_partition;
use tally_protocol::request::FromBody;
use tally_protocol::response::Piece;
use tally_protocol::{ErrorCode, Offset, PartitionId, ProducerEpoch, ProducerId, api_table};
use tally_shard::{
    Call, Calls, Inspected, Inspection, ReplyTo, ShardMessage, ShardReply, Speaker, WaiterId,
};
use tally_storage::Slice;
use tally_transactions as transactions;
use tokio::sync::Notify;

/// The topics that clients may not write to (P-8); the third is reserved for share groups.
pub(crate) const INTERNAL_TOPICS: [&str; 3] =
    [CONSUMER_OFFSETS, TRANSACTION_STATE, "__share_group_state"];

/// What one lookup may need from the disk, one after the other: every segment of the largest answer, and a walk over the
/// headers of one.
const LOADS_A_LOOKUP_MAX: usize = 8192;

/// Bytes a response may have: its length is a positive int32.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// What all handlers share.
pub(crate) struct Node {
    /// What was given at start. What can be set at run time is in [`Metadata::config`].
    pub(crate) config: Arc<BrokerConfig>,
    /// Where clients are told to find this broker.
    pub(crate) advertised: Address,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) shards: Arc<Shards>,
    pub(crate) producer_ids: PlainProducerIds,
    pub(crate) owners: Owners,
    pub(crate) loggers: Loggers,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) loading: Loading,
    pub(crate) request_memory: Arc<RequestMemory>,
    pub(crate) rates: Rates,
    pub(crate) foreigners: Foreigners,
    pub(crate) started: Started,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// How its parked fetches are found.
    pub(crate) waiter: WaiterId,
    pub(crate) bell: Arc<Notify>,
    client_id: Option<Arc<str>>,
    /// How fast it may be.
    pub(crate) quotas: Quotas,
    /// For how many milliseconds nothing more is read of it, once it has its answer (LR-161).
    throttle_ms: AtomicI32,
    /// What it calls itself in ApiVersions (KIP-511): name and version.
    software: Option<Arc<str>>,
    /// Its place in the order in which connections were accepted.
    number: u64,
    /// When it spoke last.
    pub(crate) heard: Arc<Heard>,
    /// A request of this connection came too late (D-8): it is not answered, the connection is closed.
    overtaken: AtomicBool,
    /// What the last few producers have asked their coordinator on this connection, oldest first (D-8).
    carried: Mutex<Vec<(ProducerId, ProducerEpoch, Calls)>>,
}

/// Producers of one connection whose requests are kept in mind. A client has a connection for each of its producers.
const CARRIED_MAX: usize = 8;

/// What goes back for a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing: a Produce with acks=0.
    Nothing,
    /// A whole frame.
    Frame(Vec<u8>),
    /// A whole frame, the records in place.
    Pieces(Vec<Piece<Slice>>),
    /// No answer: the connection is closed, for the reason to be logged.
    Close(String),
    /// No answer: the connection is closed, because a request of this API came on it too late (D-8).
    Late(&'static str),
}

impl Client {
    /// A connection that has not said who it is.
    pub(crate) fn new(peer: SocketAddr, waiter: WaiterId, bell: Arc<Notify>) -> Client {
        Client {
            peer,
            waiter,
            bell,
            client_id: None,
            quotas: Quotas::default(),
            throttle_ms: AtomicI32::new(0),
            software: None,
            number: waiter.0,
            heard: Arc::new(Heard::new()),
            overtaken: AtomicBool::new(false),
            carried: Mutex::new(Vec::new()),
        }
    }

    /// Who speaks, for a request of the old transaction flow.
    pub(crate) fn speaker(
        &self,
        call: Call,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
    ) -> Speaker {
        Speaker {
            call,
            producer_id,
            producer_epoch,
            connection: self.number,
            carried: self.carry(call, producer_id, producer_epoch),
        }
    }

    /// Notes what is asked of the coordinator; returns all that this connection has carried for the producer.
    fn carry(&self, call: Call, producer_id: ProducerId, producer_epoch: ProducerEpoch) -> Calls {
        let mut carried = self
            .carried
            .lock()
            .expect("nobody panics while holding this lock");
        let of_producer = carried
            .iter_mut()
            .find(|(id, epoch, _)| (*id, *epoch) == (producer_id, producer_epoch));
        let is_asked = matches!(call, Call::AddPartitions | Call::AddOffsets | Call::EndTxn);
        match of_producer {
            Some((_, _, calls)) if is_asked => {
                *calls = calls.with(call);
                *calls
            }
            Some((_, _, calls)) => *calls,
            None if is_asked => {
                if carried.len() >= CARRIED_MAX {
                    carried.remove(0);
                }
                let calls = Calls::default().with(call);
                carried.push((producer_id, producer_epoch, calls));
                calls
            }
            None => Calls::default(),
        }
    }

    /// A request of this connection came too late (D-8).
    pub(crate) fn is_overtaken(&self) -> bool {
        self.overtaken.load(Ordering::Relaxed)
    }

    /// Name and version of its software; empty if it has not said.
    pub(crate) fn software(&self) -> &str {
        self.software.as_deref().unwrap_or_default()
    }

    /// Keeps what it calls itself.
    pub(crate) fn set_software(&mut self, software: &str) {
        self.software = Some(Arc::from(software));
    }

    /// Looks up how fast it may be, if that may have changed.
    fn follow_quotas(&mut self, node: &Node) {
        if self.quotas.are_of(node.metadata.quota_generation()) {
            return;
        }
        let (generation, table) = node.metadata.quotas();
        let now_ms = node.shards.now().monotonic_ms;
        let table = (generation, &*table);
        self.quotas = node.rates.limits(table, self.client_id.as_ref(), now_ms);
    }

    /// It has moved more than it may: nothing more is read of it for so long (LR-161, LR-162).
    fn throttle(&self, ms: i32) {
        self.throttle_ms.store(ms, Ordering::Relaxed);
    }

    /// For how many milliseconds nothing is to be read, asked once.
    pub(crate) fn take_throttle_ms(&mut self) -> i32 {
        std::mem::take(self.throttle_ms.get_mut())
    }

    /// The client id of the last request; empty if there was none.
    pub(crate) fn id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }
}

impl Node {
    /// The partition whose owner coordinates a transactional id (S-6).
    pub(crate) fn transaction_partition(&self, transactional_id: &str) -> Option<PartitionId> {
        self.coordinator(TRANSACTION_STATE, transactional_id)
            .map(|(id, _)| id)
    }

    /// The partition whose owner coordinates a group, with its number.
    pub(crate) fn group_partition(&self, group: &str) -> Option<(PartitionId, i32)> {
        self.coordinator(CONSUMER_OFFSETS, group)
    }

    fn coordinator(&self, topic: &str, key: &str) -> Option<(PartitionId, i32)> {
        let topic = self.metadata.topic(topic)?;
        let index = coordinator_partition(key, topic.partition_count);
        Some((
            PartitionId {
                topic: topic.id,
                index,
            },
            index,
        ))
    }

    /// in `commit` an offset is not synced before the records below it are. Called before the offset is written down:
    /// what is handed over first can't be lost alone. In `always` an append has seen to that.
    pub(crate) fn secure_input<'a>(&self, offsets: impl IntoIterator<Item = (&'a str, i32, i64)>) {
        if self.config.durability != Durability::Commit {
            return;
        }
        for (topic, partition, offset) in offsets {
            if let Some(id) = self.metadata.partition_id(topic, partition) {
                let upto = Some(Offset(offset));
                self.shards.tell(id, ShardMessage::Secure { upto });
            }
        }
    }

    /// Asks a transaction coordinator.
    pub(crate) async fn transaction(
        &self,
        transactional_id: &str,
        command: transactions::Command,
    ) -> Result<transactions::Response, ErrorCode> {
        let id = self
            .transaction_partition(transactional_id)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let message = |to| ShardMessage::Transaction { command, to };
        match self.ask(id, message).await {
            Some(ShardReply::Transaction(response)) => response,
            _ => Err(ErrorCode::NotCoordinator),
        }
    }

    /// The same in the old flow, where the connection says what the request does not: which transaction it belongs to.
    pub(crate) async fn transaction_in_order(
        &self,
        client: &Client,
        speaker: Speaker,
        transactional_id: &str,
        command: transactions::Command,
    ) -> Result<transactions::Response, ErrorCode> {
        let id = self
            .transaction_partition(transactional_id)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let message = |to| ShardMessage::Transaction { command, to };
        let reply = self.ask_in_order(id, Some(speaker), message).reply().await;
        match self.unless_overtaken(client, reply) {
            Some(ShardReply::Transaction(response)) => response,
            _ => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Hands a message to the owner of `id`, to be handled unless `speaker` was overtaken (D-8).
    pub(crate) fn ask_in_order(
        &self,
        id: PartitionId,
        speaker: Option<Speaker>,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
    ) -> Asked {
        match speaker.filter(|_| self.config.guard_ordered_sessions) {
            None => self.shards.ask(id, message),
            Some(speaker) => self.shards.ask(id, |to| ShardMessage::InOrder {
                speaker,
                message: Box::new(message(to)),
                to,
            }),
        }
    }

    /// Takes out the reply to a request that was overtaken: its connection is closed instead.
    pub(crate) fn unless_overtaken(
        &self,
        client: &Client,
        reply: Option<ShardReply>,
    ) -> Option<ShardReply> {
        if let Some(ShardReply::Overtaken) = reply {
            client.overtaken.store(true, Ordering::Relaxed);
            return None;
        }
        reply
    }

    /// Asks the coordinator of a group; `size_bytes` bounds the records it may write.
    pub(crate) async fn group(
        &self,
        group: &str,
        command: groups::Command,
        size_bytes: usize,
    ) -> Result<groups::Response, ErrorCode> {
        let (id, _) = self
            .group_partition(group)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        match self
            .shards
            .ask(id, |to| ShardMessage::Group {
                command,
                size_bytes,
                to,
            })
            .reply()
            .await
        {
            Some(ShardReply::Group(response)) => response,
            _ => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Looks at what a partition keeps.
    pub(crate) async fn inspect(
        &self,
        id: PartitionId,
        what: Inspection,
    ) -> Result<Inspected, ErrorCode> {
        match self.ask(id, |to| ShardMessage::Inspect { what, to }).await {
            Some(ShardReply::Inspected(seen)) => seen,
            _ => Err(ErrorCode::NotCoordinator),
        }
    }

    /// What to say of a partition that its owner does not have: it has been deleted since it was looked up, is being
    /// made, or could not be opened; then it is to be asked for again, not to be given up (LR-100).
    pub(crate) fn absent(&self, id: PartitionId) -> ErrorCode {
        match self.metadata.topic_by_id(id.topic) {
            Some(_) => ErrorCode::NotLeaderOrFollower,
            None => ErrorCode::UnknownTopicOrPartition,
        }
    }

    /// Asks the owner of a partition; `None` when the broker is stopping.
    pub(crate) async fn ask(
        &self,
        id: PartitionId,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
    ) -> Option<ShardReply> {
        self.shards.ask(id, message).reply().await
    }

    /// Asks the owner of a partition for what may have to come from the disk first.
    pub(crate) async fn ask_the_disk(
        &self,
        id: PartitionId,
        message: impl Fn(ReplyTo) -> ShardMessage,
    ) -> Result<ShardReply, ErrorCode> {
        for _ in 0..LOADS_A_LOOKUP_MAX {
            match self.ask(id, &message).await {
                Some(ShardReply::Cold(cold)) => self.loading.load(id, cold).await?,
                Some(reply) => return Ok(reply),
                None => return Err(ErrorCode::NotLeaderOrFollower),
            }
        }
        tracing::error!(partition = %id, "what is read from the disk does not stay in memory");
        Err(ErrorCode::KafkaStorageError)
    }
}

/// Answers one frame.
pub(crate) async fn answer(node: &Arc<Node>, client: &mut Client, mut frame: BytesMut) -> Answer {
    let head = match RequestHead::parse(&frame) {
        Ok(head) => head,
        Err(HeadError::ApiVersionsVersion { correlation_id, .. }) => {
            return api_versions::unsupported(correlation_id);
        }
        Err(error) => return Answer::Close(error.to_string()),
    };
    if head.api_version > head.api.listed_max(node.config.unstable_api_versions) {
        return Answer::Close(format!(
            "{} version {} is not switched on",
            head.api.name, head.api_version
        ));
    }
    if head.client_id_bytes(&frame) != client.client_id.as_deref().map(str::as_bytes) {
        client.client_id = head.client_id(&frame).map(Arc::from);
        client.quotas.forget();
    }
    frame.advance(head.body_at);
    let body = frame;
    let answer = match head.api_key {
        api_table::PRODUCE => {
            client.follow_quotas(node);
            produce::answer(node, client, &head, body).await
        }
        api_table::FETCH => {
            client.follow_quotas(node);
            return fetch::answer(node, client, &head, body.freeze()).await;
        }
        api_table::API_VERSIONS => return api_versions::answer(node, client, &head, &body),
        _ => dispatch(node, client, &head, body.freeze()).await,
    };
    if client.is_overtaken() {
        return Answer::Late(head.api.name);
    }
    answer
}

/// The APIs whose bodies the codec crate reads and writes.
async fn dispatch(node: &Arc<Node>, client: &Client, head: &RequestHead, body: Bytes) -> Answer {
    match head.api_key {
        api_table::JOIN_GROUP
        | api_table::SYNC_GROUP
        | api_table::HEARTBEAT
        | api_table::LEAVE_GROUP
        | api_table::CONSUMER_GROUP_HEARTBEAT
        | api_table::OFFSET_COMMIT
        | api_table::OFFSET_FETCH => groups(node, client, head, body).await,
        api_table::INIT_PRODUCER_ID
        | api_table::ADD_PARTITIONS_TO_TXN
        | api_table::ADD_OFFSETS_TO_TXN
        | api_table::END_TXN
        | api_table::TXN_OFFSET_COMMIT => transactions(node, client, head, body).await,
        api_table::CREATE_TOPICS
        | api_table::DELETE_TOPICS
        | api_table::DELETE_RECORDS
        | api_table::DESCRIBE_CONFIGS
        | api_table::ALTER_CONFIGS
        | api_table::INCREMENTAL_ALTER_CONFIGS
        | api_table::DESCRIBE_CLUSTER => administration(node, head, body).await,
        api_table::LIST_GROUPS
        | api_table::DESCRIBE_GROUPS
        | api_table::CONSUMER_GROUP_DESCRIBE
        | api_table::DELETE_GROUPS
        | api_table::OFFSET_DELETE
        | api_table::LIST_TRANSACTIONS
        | api_table::DESCRIBE_TRANSACTIONS
        | api_table::DESCRIBE_PRODUCERS
        | api_table::WRITE_TXN_MARKERS => coordination(node, head, body).await,
        api_table::CREATE_PARTITIONS
        | api_table::DESCRIBE_LOG_DIRS
        | api_table::ELECT_LEADERS
        | api_table::ALTER_PARTITION_REASSIGNMENTS
        | api_table::LIST_PARTITION_REASSIGNMENTS
        | api_table::LIST_CONFIG_RESOURCES
        | api_table::DESCRIBE_TOPIC_PARTITIONS => layout(node, head, body).await,
        api_table::ALTER_REPLICA_LOG_DIRS
        | api_table::DESCRIBE_QUORUM
        | api_table::UPDATE_FEATURES
        | api_table::DESCRIBE_ACLS
        | api_table::CREATE_ACLS
        | api_table::DELETE_ACLS => cluster(node, head, body).await,
        api_table::CREATE_DELEGATION_TOKEN
        | api_table::RENEW_DELEGATION_TOKEN
        | api_table::EXPIRE_DELEGATION_TOKEN
        | api_table::DESCRIBE_DELEGATION_TOKEN
        | api_table::DESCRIBE_CLIENT_QUOTAS
        | api_table::ALTER_CLIENT_QUOTAS
        | api_table::DESCRIBE_USER_SCRAM_CREDENTIALS
        | api_table::ALTER_USER_SCRAM_CREDENTIALS => security(node, head, body).await,
        _ => reading(node, head, body).await,
    }
}

/// Groups and their offsets.
async fn groups(node: &Node, client: &Client, head: &RequestHead, body: Bytes) -> Answer {
    let v = head.api_version;
    match head.api_key {
        api_table::JOIN_GROUP => {
            serve(head, body, async |q: JoinGroupRequest| {
                join_group::handle(node, client, v, q).await
            })
            .await
        }
        api_table::SYNC_GROUP => {
            serve(head, body, async |q: SyncGroupRequest| {
                sync_group::handle(node, v, q).await
            })
            .await
        }
        api_table::HEARTBEAT => {
            serve(head, body, async |q: HeartbeatRequest| {
                heartbeat::handle(node, q).await
            })
            .await
        }
        api_table::LEAVE_GROUP => {
            serve(head, body, async |q| leave_group::handle(node, v, q).await).await
        }
        api_table::CONSUMER_GROUP_HEARTBEAT => {
            serve(head, body, async |q| {
                consumer_group_heartbeat::handle(node, client, v, q).await
            })
            .await
        }
        api_table::OFFSET_COMMIT => {
            serve(head, body, async |q| {
                offset_commit::handle(node, v, q).await
            })
            .await
        }
        api_table::OFFSET_FETCH => {
            serve(head, body, async |q| offset_fetch::handle(node, v, q).await).await
        }
        _ => no_handler(head),
    }
}

/// Producer ids and transactions.
async fn transactions(node: &Node, client: &Client, head: &RequestHead, body: Bytes) -> Answer {
    let v = head.api_version;
    match head.api_key {
        api_table::INIT_PRODUCER_ID => {
            serve(head, body, async |q| {
                init_producer_id::handle(node, client, v, q).await
            })
            .await
        }
        api_table::ADD_PARTITIONS_TO_TXN => {
            serve(head, body, async |q| {
                add_partitions_to_txn::handle(node, client, v, q).await
            })
            .await
        }
        api_table::ADD_OFFSETS_TO_TXN => {
            serve(head, body, async |q| {
                add_offsets_to_txn::handle(node, client, v, q).await
            })
            .await
        }
        api_table::END_TXN => {
            serve(head, body, async |q| {
                end_txn::handle(node, client, v, q).await
            })
            .await
        }
        api_table::TXN_OFFSET_COMMIT => {
            serve(head, body, async |q| {
                txn_offset_commit::handle(node, client, v, q).await
            })
            .await
        }
        _ => no_handler(head),
    }
}

/// Topics, their records and settings.
async fn administration(node: &Node, head: &RequestHead, body: Bytes) -> Answer {
    let v = head.api_version;
    match head.api_key {
        api_table::CREATE_TOPICS => {
            serve(head, body, async |q| create_topics::handle(node, v, q)).await
        }
        api_table::DELETE_TOPICS => {
            serve(head, body, async |q| delete_topics::handle(node, v, q)).await
        }
        api_table::DELETE_RECORDS => {
            serve(head, body, async |q| delete_records::handle(node, q).await).await
        }
        api_table::DESCRIBE_CONFIGS => {
            serve(head, body, async |q| describe_configs::handle(node, v, q)).await
        }
        api_table::ALTER_CONFIGS => {
            serve(head, body, async |q| alter_configs::handle(node, q)).await
        }
        api_table::INCREMENTAL_ALTER_CONFIGS => {
            serve(head, body, async |q| {
                incremental_alter_configs::handle(node, q)
            })
            .await
        }
        api_table::DESCRIBE_CLUSTER => {
            serve(head, body, async |q| describe_cluster::handle(node, v, q)).await
        }
        _ => no_handler(head),
    }
}

/// What operators ask of the coordinators and of producers' states.
async fn coordination(node: &Node, head: &RequestHead, body: Bytes) -> Answer {
    let v = head.api_version;
    match head.api_key {
        api_table::LIST_GROUPS => {
            serve(head, body, async |q| list_groups::handle(node, v, q).await).await
        }
        api_table::DESCRIBE_GROUPS => {
            serve(head, body, async |q| {
                describe_groups::handle(node, v, q).await
            })
            .await
        }
        api_table::CONSUMER_GROUP_DESCRIBE => {
            serve(head, body, async |q| {
                consumer_group_describe::handle(node, v, q).await
            })
            .await
        }
        api_table::DELETE_GROUPS => {
            serve(head, body, async |q| delete_groups::handle(node, q).await).await
        }
        api_table::OFFSET_DELETE => {
            serve(head, body, async |q| offset_delete::handle(node, q).await).await
        }
        api_table::LIST_TRANSACTIONS => {
            serve(head, body, async |q| {
                list_transactions::handle(node, q).await
            })
            .await
        }
        api_table::DESCRIBE_TRANSACTIONS => {
            serve(head, body, async |q| {
                describe_transactions::handle(node, q).await
            })
            .await
        }
        api_table::DESCRIBE_PRODUCERS => {
            serve(head, body, async |q| {
                describe_producers::handle(node, q).await
            })
            .await
        }
        api_table::WRITE_TXN_MARKERS => {
            serve(head, body, async |q| {
                write_txn_markers::handle(node, q).await
            })
            .await
        }
        _ => no_handler(head),
    }
}

/// What operators ask about where partitions are, and to have more of them.
async fn layout(node: &Node, head: &RequestHead, body: Bytes) -> Answer {
    let v = head.api_version;
    match head.api_key {
        api_table::CREATE_PARTITIONS => {
            serve(head, body, async |q| create_partitions::handle(node, q)).await
        }
        api_table::DESCRIBE_LOG_DIRS => {
            let answer = serve(head, body, async |q| {
                describe_log_dirs::handle(node, v, q).await
            })
            .await;
            match answer {
                Answer::Frame(frame) if v >= 5 => {
                    Answer::Frame(describe_log_dirs::not_cordoned(frame))
                }
                answer => answer,
            }
        }
        api_table::ELECT_LEADERS => {
            serve(head, body, async |q| elect_leaders::handle(node, v, q)).await
        }
        api_table::ALTER_PARTITION_REASSIGNMENTS => {
            serve(head, body, async |q| {
                alter_partition_reassignments::handle(node, v, q)
            })
            .await
        }
        api_table::LIST_CONFIG_RESOURCES => {
            serve(head, body, async |q| {
                list_config_resources::handle(node, v, q)
            })
            .await
        }
        api_table::DESCRIBE_TOPIC_PARTITIONS => {
            serve(head, body, async |q| {
                describe_topic_partitions::handle(node, q)
            })
            .await
        }
        api_table::LIST_PARTITION_REASSIGNMENTS => {
            serve(head, body, async |_: ListPartitionReassignmentsRequest| {
                list_partition_reassignments::handle()
            })
            .await
        }
        _ => no_handler(head),
    }
}

/// What operators ask of the cluster itself: its quorum, features, directories, rules of access.
async fn cluster(node: &Node, head: &RequestHead, body: Bytes) -> Answer {
    let v = head.api_version;
    match head.api_key {
        api_table::ALTER_REPLICA_LOG_DIRS => {
            serve(head, body, async |q| {
                alter_replica_log_dirs::handle(node, q)
            })
            .await
        }
        api_table::DESCRIBE_QUORUM => {
            serve(head, body, async |q| describe_quorum::handle(node, v, q)).await
        }
        api_table::UPDATE_FEATURES => {
            serve(head, body, async |q| update_features::handle(node, v, q)).await
        }
        api_table::DESCRIBE_ACLS => {
            serve(head, body, async |_: DescribeAclsRequest| acls::describe()).await
        }
        api_table::CREATE_ACLS => serve(head, body, async |q| acls::create(&q)).await,
        api_table::DELETE_ACLS => serve(head, body, async |q| acls::delete(&q)).await,
        _ => no_handler(head),
    }
}

/// Quotas; tokens and credentials, of which there are none.
async fn security(node: &Node, head: &RequestHead, body: Bytes) -> Answer {
    match head.api_key {
        api_table::CREATE_DELEGATION_TOKEN => {
            serve(head, body, async |_: CreateDelegationTokenRequest| {
                delegation_tokens::create()
            })
            .await
        }
        api_table::RENEW_DELEGATION_TOKEN => {
            serve(head, body, async |_: RenewDelegationTokenRequest| {
                delegation_tokens::renew()
            })
            .await
        }
        api_table::EXPIRE_DELEGATION_TOKEN => {
            serve(head, body, async |_: ExpireDelegationTokenRequest| {
                delegation_tokens::expire()
            })
            .await
        }
        api_table::DESCRIBE_DELEGATION_TOKEN => {
            serve(head, body, async |_: DescribeDelegationTokenRequest| {
                delegation_tokens::describe()
            })
            .await
        }
        api_table::DESCRIBE_CLIENT_QUOTAS => {
            serve(head, body, async |q| client_quotas::describe(node, &q)).await
        }
        api_table::ALTER_CLIENT_QUOTAS => {
            serve(head, body, async |q| client_quotas::alter(node, &q)).await
        }
        api_table::DESCRIBE_USER_SCRAM_CREDENTIALS => {
            serve(head, body, async |q| scram_credentials::describe(&q)).await
        }
        api_table::ALTER_USER_SCRAM_CREDENTIALS => {
            serve(head, body, async |q| scram_credentials::alter(&q)).await
        }
        _ => no_handler(head),
    }
}

/// What clients ask before and while they read and write.
async fn reading(node: &Node, head: &RequestHead, body: Bytes) -> Answer {
    let v = head.api_version;
    match head.api_key {
        api_table::LIST_OFFSETS => {
            serve(head, body, async |q| list_offsets::handle(node, v, q).await).await
        }
        api_table::METADATA => serve(head, body, async |q| metadata::handle(node, v, q)).await,
        api_table::FIND_COORDINATOR => {
            serve(head, body, async |q| find_coordinator::handle(node, v, &q)).await
        }
        api_table::OFFSET_FOR_LEADER_EPOCH => {
            serve(head, body, async |q| {
                offset_for_leader_epoch::handle(node, q).await
            })
            .await
        }
        api_table::SASL_HANDSHAKE => {
            serve(head, body, async |_: SaslHandshakeRequest| {
                sasl::handshake()
            })
            .await
        }
        api_table::SASL_AUTHENTICATE => {
            serve(head, body, async |_: SaslAuthenticateRequest| {
                sasl::authenticate()
            })
            .await
        }
        _ => no_handler(head),
    }
}

/// A row of the table without a handler: a mistake of ours, found by the test that asks every API.
fn no_handler(head: &RequestHead) -> Answer {
    Answer::Close(format!("{} has no handler", head.api.name))
}

/// Decodes, handles, encodes.
async fn serve<Q, R, H>(head: &RequestHead, body: Bytes, handle: H) -> Answer
where
    Q: FromBody,
    R: Encodable + HeaderVersion,
    H: AsyncFnOnce(Q) -> R,
{
    let request = match Q::from_body(head.api_version, &body) {
        Ok(request) => request,
        Err(error) => {
            return Answer::Close(format!(
                "{} version {} request: {error}",
                head.api.name, head.api_version
            ));
        }
    };
    let response = handle(request).await;
    encode(head, &response)
}

/// A whole response frame.
fn encode<R: Encodable + HeaderVersion>(head: &RequestHead, response: &R) -> Answer {
    let version = head.api.crate_version(head.api_version);
    let encoded = || -> anyhow::Result<Vec<u8>> {
        let body_bytes = response.compute_size(version)?;
        anyhow::ensure!(
            body_bytes <= RESPONSE_BYTES_MAX,
            "{body_bytes} bytes, allowed are {RESPONSE_BYTES_MAX}"
        );
        let mut frame = Vec::with_capacity(frame::RESPONSE_HEAD_BYTES_MAX + body_bytes);
        frame::begin_response(&mut frame, head.api, head.api_version, head.correlation_id);
        response.encode(&mut frame, version)?;
        frame::finish_response(&mut frame);
        Ok(frame)
    };
    match encoded() {
        Ok(frame) => Answer::Frame(frame),
        Err(error) => {
            tracing::error!(api = head.api.name, version, %error, "response not encoded");
            Answer::Close("a response of ours could not be encoded".to_owned())
        }
    }
}
