//! Metadata and DescribeCluster: L80.

use crate::corner::Corner;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{DescribeClusterRequest, MetadataRequest, MetadataResponse};
use tally_testkit::client::{topic_name, unique};
use tally_testkit::waiting::wait_until;

fn request(names: Option<&[&str]>, may_create: bool) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    MetadataRequest::default()
        .with_topics(names.map(|names| names.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(may_create)
}

fn names(response: &MetadataResponse) -> Vec<String> {
    let topics = response.topics.iter();
    topics
        .filter_map(|topic| Some(topic.name.as_ref()?.0.to_string()))
        .collect()
}

#[test]
fn l80_which_topics_are_asked_for() {
    let mut corner = Corner::with_topic(3, &[]);
    let topic = corner.topic.clone();
    let all_v0 = corner.call(0, &request(Some(&[]), true));
    assert!(names(&all_v0).contains(&topic));
    for version in [1, 4, 9, 12, 13] {
        let all = corner.call(version, &request(None, true));
        assert!(names(&all).contains(&topic), "v{version}");
        let none = corner.call(version, &request(Some(&[]), true));
        assert!(none.topics.is_empty(), "v{version}");
    }
    for version in 0..=13 {
        let one = corner.call(version, &request(Some(&[&topic]), true));
        assert_eq!(names(&one), std::slice::from_ref(&topic), "v{version}");
        assert_eq!(one.topics[0].partitions.len(), 3);
        let node = one.brokers[0].node_id;
        assert_eq!(one.topics[0].partitions[0].leader_id, node);
        assert_eq!(one.topics[0].partitions[0].replica_nodes, [node]);
        assert_eq!(one.topics[0].partitions[0].isr_nodes, [node]);
    }
}

#[test]
fn l80_the_broker_tells_its_address() {
    let mut corner = Corner::new();
    let response = corner.call(9, &request(Some(&[]), false));
    let broker = &response.brokers[0];
    let told = format!("{}:{}", &*broker.host, broker.port);
    assert_eq!(told, corner.address);
    let cluster = response.cluster_id.expect("a cluster id");
    assert_eq!(cluster.len(), 22, "LR-135: {cluster:?}");
    let described = corner.call(1, &DescribeClusterRequest::default().with_endpoint_type(1));
    assert_eq!(described.error_code, 0);
    assert_eq!(described.cluster_id, cluster);
    assert_eq!(described.brokers[0].port, broker.port);
    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    let refused = corner.call(1, &controllers);
    assert_eq!(
        (refused.error_code, &*refused.cluster_id),
        (114, ""),
        "LR-137"
    );
}

#[test]
fn l80_topics_are_created_on_request() {
    let mut corner = Corner::new();
    let name = unique("auto");
    let refused = corner.call(4, &request(Some(&[&name]), false));
    assert_eq!(refused.topics[0].error_code, 3);
    let first = corner.call(4, &request(Some(&[&name]), true));
    if !corner.is_kafka {
        assert_eq!(first.topics[0].error_code, 0, "LN-7: at once");
        assert_eq!(first.topics[0].partitions.len(), 1);
    }
    wait_until("the topic is there", || {
        let again = corner.call(4, &request(Some(&[&name]), true));
        again.topics[0].error_code == 0
    });
    for bad in ["a b", "", ".", "..", &"x".repeat(250)] {
        let response = corner.call(4, &request(Some(&[bad]), true));
        assert_eq!(response.topics[0].error_code, 17, "{bad:?}");
    }
}

#[test]
fn l80_topics_by_id() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let id = corner.topic_id(&topic);
    assert!(!id.is_nil());
    let by_id = |id| {
        let topic = MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    let response = corner.call(12, &by_id(id));
    assert_eq!(names(&response), [topic]);
    let response = corner.call(12, &by_id(uuid::Uuid::from_u128(3)));
    assert_eq!(response.topics[0].error_code, 100);
    assert_eq!(response.topics[0].name, None);
    let response = corner.call(10, &by_id(id));
    assert_eq!(response.topics[0].error_code, 42, "LR-130");
}
