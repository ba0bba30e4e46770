//! The error codes that Tally answers, under Kafka's names and numbers.

/// An error code of the Kafka protocol. `code()` is the number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i16)]
pub enum ErrorCode {
    /// UNKNOWN_SERVER_ERROR.
    UnknownServerError = -1,
    /// NONE.
    None = 0,
    /// OFFSET_OUT_OF_RANGE.
    OffsetOutOfRange = 1,
    /// CORRUPT_MESSAGE.
    CorruptMessage = 2,
    /// UNKNOWN_TOPIC_OR_PARTITION.
    UnknownTopicOrPartition = 3,
    /// LEADER_NOT_AVAILABLE.
    LeaderNotAvailable = 5,
    /// NOT_LEADER_OR_FOLLOWER.
    NotLeaderOrFollower = 6,
    /// REQUEST_TIMED_OUT.
    RequestTimedOut = 7,
    /// MESSAGE_TOO_LARGE.
    MessageTooLarge = 10,
    /// OFFSET_METADATA_TOO_LARGE.
    OffsetMetadataTooLarge = 12,
    /// COORDINATOR_LOAD_IN_PROGRESS.
    CoordinatorLoadInProgress = 14,
    /// COORDINATOR_NOT_AVAILABLE.
    CoordinatorNotAvailable = 15,
    /// NOT_COORDINATOR.
    NotCoordinator = 16,
    /// INVALID_TOPIC_EXCEPTION.
    InvalidTopicException = 17,
    /// RECORD_LIST_TOO_LARGE.
    RecordListTooLarge = 18,
    /// NOT_ENOUGH_REPLICAS.
    NotEnoughReplicas = 19,
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND.
    NotEnoughReplicasAfterAppend = 20,
    /// INVALID_REQUIRED_ACKS.
    InvalidRequiredAcks = 21,
    /// ILLEGAL_GENERATION.
    IllegalGeneration = 22,
    /// INCONSISTENT_GROUP_PROTOCOL.
    InconsistentGroupProtocol = 23,
    /// INVALID_GROUP_ID.
    InvalidGroupId = 24,
    /// UNKNOWN_MEMBER_ID.
    UnknownMemberId = 25,
    /// INVALID_SESSION_TIMEOUT.
    InvalidSessionTimeout = 26,
    /// REBALANCE_IN_PROGRESS.
    RebalanceInProgress = 27,
    /// TOPIC_AUTHORIZATION_FAILED.
    TopicAuthorizationFailed = 29,
    /// GROUP_AUTHORIZATION_FAILED.
    GroupAuthorizationFailed = 30,
    /// CLUSTER_AUTHORIZATION_FAILED.
    ClusterAuthorizationFailed = 31,
    /// INVALID_TIMESTAMP.
    InvalidTimestamp = 32,
    /// UNSUPPORTED_SASL_MECHANISM.
    UnsupportedSaslMechanism = 33,
    /// ILLEGAL_SASL_STATE.
    IllegalSaslState = 34,
    /// UNSUPPORTED_VERSION.
    UnsupportedVersion = 35,
    /// TOPIC_ALREADY_EXISTS.
    TopicAlreadyExists = 36,
    /// INVALID_PARTITIONS.
    InvalidPartitions = 37,
    /// INVALID_REPLICATION_FACTOR.
    InvalidReplicationFactor = 38,
    /// INVALID_REPLICA_ASSIGNMENT.
    InvalidReplicaAssignment = 39,
    /// INVALID_CONFIG.
    InvalidConfig = 40,
    /// NOT_CONTROLLER.
    NotController = 41,
    /// INVALID_REQUEST.
    InvalidRequest = 42,
    /// POLICY_VIOLATION.
    PolicyViolation = 44,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrderSequenceNumber = 45,
    /// INVALID_PRODUCER_EPOCH.
    InvalidProducerEpoch = 47,
    /// INVALID_TXN_STATE.
    InvalidTxnState = 48,
    /// INVALID_PRODUCER_ID_MAPPING.
    InvalidProducerIdMapping = 49,
    /// INVALID_TRANSACTION_TIMEOUT.
    InvalidTransactionTimeout = 50,
    /// CONCURRENT_TRANSACTIONS.
    ConcurrentTransactions = 51,
    /// TRANSACTION_COORDINATOR_FENCED.
    TransactionCoordinatorFenced = 52,
    /// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
    TransactionalIdAuthorizationFailed = 53,
    /// SECURITY_DISABLED.
    SecurityDisabled = 54,
    /// OPERATION_NOT_ATTEMPTED.
    OperationNotAttempted = 55,
    /// KAFKA_STORAGE_ERROR.
    KafkaStorageError = 56,
    /// LOG_DIR_NOT_FOUND.
    LogDirNotFound = 57,
    /// DELEGATION_TOKEN_REQUEST_NOT_ALLOWED.
    DelegationTokenRequestNotAllowed = 64,
    /// NON_EMPTY_GROUP.
    NonEmptyGroup = 68,
    /// GROUP_ID_NOT_FOUND.
    GroupIdNotFound = 69,
    /// FETCH_SESSION_ID_NOT_FOUND.
    FetchSessionIdNotFound = 70,
    /// INVALID_FETCH_SESSION_EPOCH.
    InvalidFetchSessionEpoch = 71,
    /// TOPIC_DELETION_DISABLED.
    TopicDeletionDisabled = 73,
    /// FENCED_LEADER_EPOCH.
    FencedLeaderEpoch = 74,
    /// UNKNOWN_LEADER_EPOCH.
    UnknownLeaderEpoch = 75,
    /// UNSUPPORTED_COMPRESSION_TYPE.
    UnsupportedCompressionType = 76,
    /// MEMBER_ID_REQUIRED.
    MemberIdRequired = 79,
    /// GROUP_MAX_SIZE_REACHED.
    GroupMaxSizeReached = 81,
    /// FENCED_INSTANCE_ID.
    FencedInstanceId = 82,
    /// ELECTION_NOT_NEEDED.
    ElectionNotNeeded = 84,
    /// NO_REASSIGNMENT_IN_PROGRESS.
    NoReassignmentInProgress = 85,
    /// GROUP_SUBSCRIBED_TO_TOPIC.
    GroupSubscribedToTopic = 86,
    /// INVALID_RECORD.
    InvalidRecord = 87,
    /// UNSTABLE_OFFSET_COMMIT.
    UnstableOffsetCommit = 88,
    /// PRODUCER_FENCED.
    ProducerFenced = 90,
    /// RESOURCE_NOT_FOUND.
    ResourceNotFound = 91,
    /// DUPLICATE_RESOURCE.
    DuplicateResource = 92,
    /// UNACCEPTABLE_CREDENTIAL.
    UnacceptableCredential = 93,
    /// INVALID_UPDATE_VERSION.
    InvalidUpdateVersion = 95,
    /// UNKNOWN_TOPIC_ID.
    UnknownTopicId = 100,
    /// INCONSISTENT_TOPIC_ID.
    InconsistentTopicId = 103,
    /// TRANSACTIONAL_ID_NOT_FOUND.
    TransactionalIdNotFound = 105,
    /// FETCH_SESSION_TOPIC_ID_ERROR.
    FetchSessionTopicIdError = 106,
    /// FENCED_MEMBER_EPOCH.
    FencedMemberEpoch = 110,
    /// UNRELEASED_INSTANCE_ID.
    UnreleasedInstanceId = 111,
    /// UNSUPPORTED_ASSIGNOR.
    UnsupportedAssignor = 112,
    /// STALE_MEMBER_EPOCH.
    StaleMemberEpoch = 113,
    /// MISMATCHED_ENDPOINT_TYPE.
    MismatchedEndpointType = 114,
    /// UNSUPPORTED_ENDPOINT_TYPE.
    UnsupportedEndpointType = 115,
    /// TRANSACTION_ABORTABLE.
    TransactionAbortable = 120,
    /// INVALID_REGULAR_EXPRESSION.
    InvalidRegularExpression = 128,
    /// REBOOTSTRAP_REQUIRED.
    RebootstrapRequired = 129,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this says that nothing went wrong.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, ErrorCode::None)
    }
}
