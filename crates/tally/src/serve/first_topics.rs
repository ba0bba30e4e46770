//! `tally serve --topics`: topics that are there before anybody is told that the broker is ready.
//!
//! They are made as every client makes them, over the broker's own listener, so that the same rules hold.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};

use crate::client::{ClientConfig, Connection, error_name, text};

const CREATE_NEWEST: i16 = 7;
/// TOPIC_ALREADY_EXISTS.
const EXISTS: i16 = 36;
/// On a slow disk ten thousand partitions take their time.
const TIMEOUT: Duration = Duration::from_secs(120);

/// `NAME[:PARTITIONS[:POLICY]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FirstTopic {
    name: String,
    partitions: Option<i32>,
    policy: Option<String>,
}

impl FromStr for FirstTopic {
    type Err = String;

    fn from_str(spec: &str) -> Result<FirstTopic, String> {
        let wrong = || format!("{spec}: must be NAME[:PARTITIONS[:compact or delete]]");
        let mut words = spec.split(':');
        let name = words
            .next()
            .filter(|name| !name.is_empty())
            .ok_or_else(wrong)?;
        let partitions = words
            .next()
            .map(|word| word.parse().ok().filter(|count| *count > 0));
        let policy = words.next();
        let is_known = policy.is_none_or(|policy| matches!(policy, "compact" | "delete"));
        if partitions == Some(None) || !is_known || words.next().is_some() {
            return Err(wrong());
        }
        Ok(FirstTopic {
            name: name.to_owned(),
            partitions: partitions.flatten(),
            policy: policy.map(str::to_owned),
        })
    }
}

impl FirstTopic {
    fn request(&self) -> CreatableTopic {
        let policy = self.policy.iter().map(|policy| {
            CreatableTopicConfig::default()
                .with_name(text("cleanup.policy"))
                .with_value(Some(text(policy)))
        });
        CreatableTopic::default()
            .with_name(TopicName(text(&self.name)))
            .with_num_partitions(self.partitions.unwrap_or(-1))
            .with_replication_factor(-1)
            .with_configs(policy.collect())
    }
}

/// Makes those that are not there; returns how many that were. Waits for the broker.
///
/// # Errors
/// Which topic can't be made, and why, for the person.
pub(crate) fn make(address: SocketAddr, topics: &[FirstTopic]) -> Result<usize, String> {
    let access = ClientConfig::default().access;
    let failed = |why: String| format!("--topics: {why}");
    let mut connection = Connection::open(&address.to_string(), &access, Instant::now() + TIMEOUT)
        .map_err(|failure| failed(failure.to_string()))?;
    let timeout_ms = i32::try_from(TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    let request = CreateTopicsRequest::default()
        .with_topics(topics.iter().map(FirstTopic::request).collect())
        .with_timeout_ms(timeout_ms);
    let answer = connection
        .call(CREATE_NEWEST, &request)
        .map_err(|failure| failed(failure.to_string()))?;
    let mut made = 0;
    for result in answer.topics {
        match result.error_code {
            0 => made += 1,
            EXISTS => {}
            code => {
                let why = result.error_message.map(|why| why.to_string());
                let why = why.unwrap_or_else(|| error_name(code));
                return Err(failed(format!("{}: {why}", result.name.0)));
            }
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_a_name_and_perhaps_partitions_and_a_policy() {
        let read = |spec: &str| spec.parse::<FirstTopic>();
        let topic = |partitions, policy: Option<&str>| FirstTopic {
            name: "a".to_owned(),
            partitions,
            policy: policy.map(str::to_owned),
        };
        assert_eq!(read("a"), Ok(topic(None, None)));
        assert_eq!(read("a:6"), Ok(topic(Some(6), None)));
        assert_eq!(read("a:1:compact"), Ok(topic(Some(1), Some("compact"))));
        for wrong in [
            "",
            ":1",
            "a:",
            "a:0",
            "a:-1",
            "a:x",
            "a:1:",
            "a:1:drop",
            "a:1:delete:2",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
