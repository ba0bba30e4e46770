//! What a topic is told and what does nothing here is said in the log (W2301), of each property that is not honoured and of no
//! other, when a topic is made and when it is changed.

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use rustix::process::Signal;
use tally_broker::config::properties::TOPIC;
use tally_broker::config::property::{Kind, Property, Range, Status};
use tally_testkit::client::{Client, text};

use crate::{Served, new_dir};

/// A value that the property can have.
fn value(row: &Property) -> String {
    let least = match row.range {
        Range::Between(least, _) => least,
        _ => 1,
    };
    match (&row.range, row.kind) {
        // What is stored otherwise than it came is refused.
        _ if row.name == "compression.type" => "producer".to_owned(),
        (Range::OneOf(values) | Range::SomeOf(values), _) => values[0].to_owned(),
        (_, Kind::Boolean) => "true".to_owned(),
        (_, Kind::List) => String::new(),
        (_, Kind::Double) => "0.5".to_owned(),
        // A longest lag below the shortest is refused.
        _ if row.name == "min.compaction.lag.ms" => "0".to_owned(),
        _ => least.to_string(),
    }
}

/// The topics that a line of the log says it of.
fn said(log: &str, property: &str) -> Vec<String> {
    let word = format!("property=\"{property}\"");
    let lines = log
        .lines()
        .filter(|line| line.contains("W2301 config.unused") && line.contains(&word));
    let topic = |line: &str| {
        let name = line.split("topic=").nth(1).expect("a topic");
        name.split(' ').next().expect("a name").to_owned()
    };
    lines.map(topic).collect()
}

#[test]
fn what_a_topic_is_told_in_vain_is_said_in_the_log() {
    let dir = new_dir();
    let served = Served::start(dir.path(), &[]);
    let mut client = Client::connect(&served.address.to_string());
    for row in TOPIC {
        let value = value(row);
        client.create_topic(&format!("made-{}", row.name), 1, &[(row.name, &value)]);
    }
    client.create_topic("changed", 1, &[]);
    for row in TOPIC {
        let config = AlterableConfig::default()
            .with_name(text(row.name))
            .with_config_operation(0)
            .with_value(Some(text(&value(row))));
        let of_topic = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("changed"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![of_topic]);
        let response = client.call(1, &request);
        assert_eq!(response.responses[0].error_code, 0, "{}", row.name);
    }
    served.signal(Signal::TERM);
    let (_, _, log) = served.ended();
    for row in TOPIC {
        let topics = said(&log, row.name);
        if row.status == Status::Honoured {
            assert!(topics.is_empty(), "{}: {topics:?}", row.name);
        } else {
            assert_eq!(topics[0], format!("made-{}", row.name), "{log}");
            assert!(topics[1..].iter().any(|topic| topic == "changed"), "{log}");
        }
    }
}
