//! DeleteTopics (log-and-fetch.md 11.4, LN-9).

use crate::api::Node;
use crate::api::topics::{self, text, topic_name};
use crate::metadata::{Topic, base64url};
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
    // Before any is deleted: the same topic may be there by its name and by its id.
    let keys: Vec<Key> = wanted.iter().map(|topic| key(node, topic)).collect();
    let mut mentions: BTreeMap<&Key, usize> = BTreeMap::new();
    for key in &keys {
        *mentions.entry(key).or_default() += 1;
    }
    let responses = wanted
        .iter()
        .zip(&keys)
        .map(|(topic, key)| {
            let outcome = if mentions.get(key).is_some_and(|count| *count > 1) {
                Err((
                    ErrorCode::InvalidRequest,
                    topics::named_twice(&named(topic)),
                ))
            } else {
                one(node, version, topic)
            };
            result(version, topic, outcome)
        })
        .collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

/// What makes two topics of a request the same: the name, or the id of what has none.
type Key = (Option<Arc<str>>, Option<Uuid>);

fn key(node: &Node, topic: &DeleteTopicState) -> Key {
    match &topic.name {
        Some(name) => (Some(Arc::from(name.as_str())), None),
        None => {
            let id = TopicId(topic.topic_id.into_bytes());
            match node.metadata.topic_by_id(id) {
                Some(known) => (Some(Arc::clone(&known.name)), None),
                None => (None, Some(topic.topic_id)),
            }
        }
    }
}

/// How the request calls the topic.
fn named(topic: &DeleteTopicState) -> String {
    match &topic.name {
        Some(name) => name.as_str().to_owned(),
        None => base64url(topic.topic_id.into_bytes()),
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
        let message = format!(
            "topic {} stays, because delete.topic.enable is false: start the broker with true to delete topics",
            named(wanted)
        );
        return Err((code, message));
    }
    let name: Arc<str> = match (&wanted.name, wanted.topic_id.is_nil()) {
        (Some(name), true) => Arc::from(name.as_str()),
        (None, false) => match node
            .metadata
            .topic_by_id(TopicId(wanted.topic_id.into_bytes()))
        {
            Some(topic) => Arc::clone(&topic.name),
            None => {
                let message = format!("there is no topic with the id {}", named(wanted));
                return Err((ErrorCode::UnknownTopicId, message));
            }
        },
        _ => {
            let message = "a topic is named by its name or by its id: give one of them".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
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
