//! What operators ask of the cluster itself: its quorum, its features, its directories.

use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, DescribeLogDirsRequest, DescribeQuorumRequest,
    UpdateFeaturesRequest,
};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, text, topic_name};

#[test]
fn l87_a_partition_stays_in_its_directory() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    let shown = corner.call(4, &DescribeLogDirsRequest::default().with_topics(None));
    let own = shown.results[0].log_dir.to_string();
    let moved = |path: &str, topic: &str, partitions: &[i32]| {
        let topic = AlterReplicaLogDirTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.to_vec());
        AlterReplicaLogDir::default()
            .with_path(text(path))
            .with_topics(vec![topic])
    };
    for version in 1..=2 {
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![
            moved(&own, &topic, &[0, 7]),
            moved("/no/such/directory", &topic, &[1]),
            moved(&own, "unknown", &[0]),
        ]);
        let mut seen: Vec<(String, i32, i16)> = corner
            .call(version, &request)
            .results
            .iter()
            .flat_map(|row| {
                let name = row.topic_name.to_string();
                let rows = row.partitions.iter();
                rows.map(move |p| (name.clone(), p.partition_index, p.error_code))
            })
            .collect();
        seen.sort();
        let row = |name: &str, index, code| (name.to_owned(), index, code);
        let mut expected = vec![
            row(&topic, 0, 0),
            row(&topic, 1, 57),
            row(&topic, 7, 3),
            row("unknown", 0, 3),
        ];
        expected.sort();
        assert_eq!(seen, expected);
    }
}

fn quorum_of(topics: &[(&str, &[i32])]) -> DescribeQuorumRequest {
    let topics = topics.iter().map(|(name, partitions)| {
        let partitions = partitions.iter();
        let partitions =
            partitions.map(|index| PartitionData::default().with_partition_index(*index));
        TopicData::default()
            .with_topic_name(topic_name(name))
            .with_partitions(partitions.collect())
    });
    DescribeQuorumRequest::default().with_topics(topics.collect())
}

#[test]
fn the_node_is_its_own_quorum() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let me = corner.topic(&topic).partitions[0].leader_id;
    for version in 0..=2 {
        let shown = corner.call(version, &quorum_of(&[("__cluster_metadata", &[0])]));
        assert_eq!(shown.error_code, 0);
        let partition = &shown.topics[0].partitions[0];
        assert_eq!(shown.topics[0].topic_name, topic_name("__cluster_metadata"));
        assert_eq!((partition.partition_index, partition.error_code), (0, 0));
        assert_eq!(partition.leader_id, me);
        assert!(partition.leader_epoch > 0 && partition.high_watermark > 0);
        assert!(partition.observers.is_empty());
        let [voter] = &partition.current_voters[..] else {
            panic!("{partition:?}");
        };
        assert_eq!(voter.replica_id, me);
        assert!(voter.log_end_offset >= partition.high_watermark);
        if version >= 1 {
            assert!(voter.last_fetch_timestamp > 0 && voter.last_caught_up_timestamp > 0);
        }
        if version >= 2 {
            assert_eq!(shown.nodes.len(), 1);
            assert_eq!(shown.nodes[0].node_id, me);
            assert!(!shown.nodes[0].listeners.is_empty());
        }
    }
    for (asked, rows) in [
        (&[("__cluster_metadata", &[1][..])][..], 1),
        (&[("__cluster_metadata", &[0, 1])], 2),
        (&[(topic.as_str(), &[0])], 1),
        (&[("__cluster_metadata", &[0]), ("other", &[0])], 2),
        (&[], 0),
    ] {
        let shown = corner.call(2, &quorum_of(asked));
        let codes = shown.topics.iter().flat_map(|row| &row.partitions);
        let codes: Vec<i16> = codes.map(|row| row.error_code).collect();
        assert_eq!(codes, vec![3; rows], "{asked:?}");
        assert_eq!(shown.error_code, 0);
    }
}

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;

/// The code of an update of one feature, and of its row if there is one.
fn update(
    client: &mut Client,
    version: i16,
    (feature, level, kind): (&str, i16, i8),
    validate_only: bool,
) -> (i16, Option<i16>) {
    let mut update = FeatureUpdateKey::default()
        .with_feature(text(feature))
        .with_max_version_level(level);
    if version == 0 {
        update.allow_downgrade = kind != UPGRADE;
    } else {
        update.upgrade_type = kind;
    }
    let request = UpdateFeaturesRequest::default()
        .with_timeout_ms(30_000)
        .with_feature_updates(vec![update])
        .with_validate_only(validate_only);
    let response = client.call(version, &request);
    assert_eq!(
        response.error_code != 0,
        response.error_message.is_some_and(|text| !text.is_empty())
    );
    let row = response.results.first().map(|row| row.error_code);
    (response.error_code, row)
}

/// The finalized level of transaction.version, and the epoch.
fn finalized(client: &mut Client) -> (i16, i64) {
    let versions = client.api_versions(4);
    let mut features = versions.finalized_features.iter();
    let level = features
        .find(|feature| feature.name == text("transaction.version"))
        .map_or(0, |feature| feature.max_version_level);
    (level, versions.finalized_features_epoch)
}

#[test]
fn features_that_make_no_sense_are_refused() {
    let mut corner = Corner::new();
    let before = finalized(&mut corner);
    for version in 0..=2 {
        for bad in [
            ("no.such.feature", 1, UPGRADE),
            ("transaction.version", 3, UPGRADE),
            ("transaction.version", -1, UPGRADE),
            ("transaction.version", 1, UPGRADE),
            ("metadata.version", 6, SAFE_DOWNGRADE),
        ] {
            assert_eq!(
                update(&mut corner, version, bad, false).0,
                95,
                "v{version} {bad:?}"
            );
        }
    }
    for kind in [0, 4] {
        let bad = ("transaction.version", 2, kind);
        assert_eq!(update(&mut corner, 1, bad, false).0, 95, "{kind}");
    }
    let same = ("transaction.version", 2, UPGRADE);
    assert_eq!(update(&mut corner, 1, same, false), (0, Some(0)));
    assert_eq!(update(&mut corner, 2, same, false), (0, None));
    // Apache Kafka's epoch is an offset of its metadata, which go on.
    assert_eq!(finalized(&mut corner).0, before.0);
}

#[test]
fn the_transaction_version_is_changed_for_good() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    let (level, first) = finalized(&mut client);
    assert_eq!(level, 2);
    let down = ("transaction.version", 0, SAFE_DOWNGRADE);
    assert_eq!(update(&mut client, 1, down, true), (0, Some(0)));
    assert_eq!(finalized(&mut client).0, 2, "it was only checked");
    assert_eq!(update(&mut client, 2, down, false), (0, None));
    let (level, second) = finalized(&mut client);
    assert!(level == 0 && second > first, "{first} {second}");

    broker.kill_and_start();
    let mut client = broker.client();
    let (level, again) = finalized(&mut client);
    assert!(level == 0 && again >= second, "{second} {again}");
    let up = ("transaction.version", 2, UPGRADE);
    assert_eq!(update(&mut client, 0, up, false), (0, Some(0)));
    let (level, third) = finalized(&mut client);
    assert!(level == 2 && third > again, "{again} {third}");
}
