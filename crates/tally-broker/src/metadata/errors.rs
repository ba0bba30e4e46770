//! Why the metadata is not opened, and why a topic is not made, grown or deleted: what a client is told, and the sentence.

use super::{NameError, PARTITIONS_MAX};
use crate::config::{ChangeError, TopicConfigError};
use std::sync::Arc;
use tally_protocol::error_code::ErrorCode;
use tally_storage::MetaError;

/// Why the metadata cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] MetaError),
    /// A value that this version did not write.
    #[error("metadata {key} is {value:?}, which this version cannot read")]
    Unreadable {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The data belongs to a broker with another number.
    #[error("this data belongs to node {stored}, but node.id is {configured}")]
    OtherNode {
        /// Whose data it is.
        stored: i32,
        /// What was configured.
        configured: i32,
    },
    /// The data belongs to another cluster.
    #[error("this data belongs to cluster {stored}, but tally.cluster.id is {configured}")]
    OtherCluster {
        /// Whose data it is.
        stored: String,
        /// What was configured.
        configured: String,
    },
    /// What was set at run time does not go together with what is given at start.
    #[error("with what was set at run time: {0}")]
    Dynamic(ChangeError),
    /// A setting of a stored topic is refused now.
    #[error("topic {topic}: {error}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with its settings.
        error: TopicConfigError,
    },
}

/// Why a topic is not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateTopicError {
    /// The name is not allowed, or too like another one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is there already.
    #[error("topic {0} already exists; choose another name, or delete it first")]
    Exists(String),
    /// A partition count that no topic may have.
    #[error("{0} partitions asked; a topic has 1 to {PARTITIONS_MAX}")]
    Partitions(i32),
    /// Its settings are refused.
    #[error(transparent)]
    Config(#[from] TopicConfigError),
    /// The store failed; nothing was created.
    #[error(transparent)]
    Store(#[from] Arc<MetaError>),
}

impl CreateTopicError {
    /// What a client is told.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            CreateTopicError::Name(_) => ErrorCode::InvalidTopicException,
            CreateTopicError::Exists(_) => ErrorCode::TopicAlreadyExists,
            CreateTopicError::Partitions(_) => ErrorCode::InvalidPartitions,
            CreateTopicError::Config(_) => ErrorCode::InvalidConfig,
            CreateTopicError::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a topic is not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteTopicError {
    /// There is no such topic.
    #[error("there is no topic {0}")]
    Unknown(String),
    /// The broker needs it (LN-9).
    #[error("{0} is an internal topic, which the broker needs: it cannot be deleted")]
    Internal(String),
    /// The store failed; the topic is still there.
    #[error(transparent)]
    Store(#[from] MetaError),
}

impl DeleteTopicError {
    /// What a client is told, when it asked by name.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            DeleteTopicError::Unknown(_) => ErrorCode::UnknownTopicOrPartition,
            DeleteTopicError::Internal(_) => ErrorCode::InvalidTopicException,
            DeleteTopicError::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a topic gets no more partitions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrowTopicError {
    /// There is no such topic.
    #[error("there is no topic {0}")]
    Unknown(String),
    /// Which coordinator is asked hangs on its partition count (LN-9).
    #[error(
        "{0} is an internal topic, whose keys are looked for by its number of partitions: it cannot grow"
    )]
    Internal(String),
    /// Not more than there are, or more than a topic may have.
    #[error(
        "topic {name}: {wanted} partitions asked; it has {count}, and can get more only, up to {PARTITIONS_MAX}"
    )]
    Partitions {
        /// The topic.
        name: String,
        /// What was asked for.
        wanted: i32,
        /// What there is.
        count: i32,
    },
    /// The store failed; the topic is as it was.
    #[error(transparent)]
    Store(#[from] MetaError),
}

impl GrowTopicError {
    /// What a client is told.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            GrowTopicError::Unknown(_) => ErrorCode::UnknownTopicOrPartition,
            GrowTopicError::Internal(_) => ErrorCode::InvalidTopicException,
            GrowTopicError::Partitions { .. } => ErrorCode::InvalidPartitions,
            GrowTopicError::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}
