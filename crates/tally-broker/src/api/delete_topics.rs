//! DeleteTopics (log-and-fetch.md 11.4, LN-9).

use crate::api::Node;
use crate::api::topics::{self, text, topic_name};
use crate::metadata::Topic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_protocol::{ErrorCode, TopicId};
use uuid::Uuid;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let wanted: Vec<DeleteTopicState> = if version >= 6 {
        request.topics
    } else {
        request
            .topic_names
            .into_iter()
            .map(|name| DeleteTopicState::default().with_name(Some(name)))
            .collect()
    };
    let mut mentions: BTreeMap<Key<'_>, usize> = BTreeMap::new();
    for topic in &wanted {
        *mentions.entry(key(topic)).or_default() += 1;
    }
    let responses = wanted
        .iter()
        .map(|topic| {
            let outcome = if mentions.get(&key(topic)).is_some_and(|count| *count > 1) {
                Err((
                    ErrorCode::InvalidRequest,
                    "the request names this topic twice".to_owned(),
                ))
            } else {
                one(node, version, topic)
            };
            result(version, topic, outcome)
        })
        .collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

/// What makes two topics of a request the same.
type Key<'a> = (Option<&'a str>, Option<Uuid>);

fn key(topic: &DeleteTopicState) -> Key<'_> {
    match &topic.name {
        Some(name) => (Some(name.as_str()), None),
        None => (None, Some(topic.topic_id)),
    }
}

type Outcome = Result<Arc<Topic>, (ErrorCode, String)>;

fn one(node: &Node, version: i16, wanted: &DeleteTopicState) -> Outcome {
    if !node.config.delete_topic_enable {
        let code = if version >= 3 {
            ErrorCode::TopicDeletionDisabled
        } else {
            ErrorCode::InvalidRequest
        };
        return Err((code, "delete.topic.enable is false".to_owned()));
    }
    let name: Arc<str> = match (&wanted.name, wanted.topic_id.is_nil()) {
        (Some(name), true) => Arc::from(name.as_str()),
        (None, false) => match node
            .metadata
            .topic_by_id(TopicId(wanted.topic_id.into_bytes()))
        {
            Some(topic) => Arc::clone(&topic.name),
            None => return Err((ErrorCode::UnknownTopicId, "no topic has this id".to_owned())),
        },
        _ => {
            return Err((
                ErrorCode::InvalidRequest,
                "give either a name or an id".to_owned(),
            ));
        }
    };
    topics::delete(node, &name).map_err(|error| (error.code(), error.to_string()))
}

fn result(version: i16, wanted: &DeleteTopicState, outcome: Outcome) -> DeletableTopicResult {
    let mut result = DeletableTopicResult::default();
    result.name = wanted.name.clone();
    result.topic_id = wanted.topic_id;
    match outcome {
        Ok(topic) => {
            result.name = Some(topic_name(&topic.name));
            result.topic_id = if version >= 6 {
                Uuid::from_bytes(topic.id.0)
            } else {
                Uuid::nil()
            };
        }
        Err((code, message)) => {
            result.error_code = code.code();
            result.error_message = (version >= 5).then(|| text(&message));
        }
    }
    result
}
