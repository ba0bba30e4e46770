//! The first screen: what runs, where, with what data, and what an answer promises. And the last line.

use std::net::SocketAddr;
use std::time::Duration;

use tally_broker::Summary;
use tally_broker::config::BrokerConfig;

use crate::output::in_line;

/// The banner of a broker that is ready after `took`.
pub(crate) fn banner(
    config: &BrokerConfig,
    summary: &Summary,
    kafka: SocketAddr,
    took: Duration,
) -> String {
    let data = format!(
        "{}  ({})",
        summary.data_dir.display(),
        state_of_data(summary)
    );
    let durability = format!(
        "{}: {}",
        config.durability.name(),
        config.durability.promise()
    );
    let listener = format!("PLAINTEXT {kafka}");
    let http = match summary.http {
        Some(address) => format!("http://{address}/readyz"),
        None => "off".to_owned(),
    };
    let topics = summary.topic_count.to_string();
    let advertised = config.advertised(kafka).to_string();
    let told = if advertised == kafka.to_string() {
        String::new()
    } else {
        format!("  clients     told to use {advertised}\n")
    };
    let memory = match config.durability.name() {
        "memory" => "MEMORY MODE: all data is gone when this process ends\n",
        _ => "",
    };
    format!(
        "tally {version}  node {node}  cluster {cluster}\n{memory}{data}{kafka}{told}{topics}ready in {ms} ms, stop with Ctrl-C\n",
        version = env!("CARGO_PKG_VERSION"),
        node = summary.node_id,
        cluster = summary.cluster_id,
        data = row(("data", &data), ("durability", &durability)),
        kafka = row(("kafka", &listener), ("http", &http)),
        topics = row(("topics", &topics), ("auto-create", &auto_create(config))),
        ms = took.as_millis(),
    )
}

/// Transactional ids that the last line names.
const LEFT_OPEN_SHOWN: usize = 10;

/// The last line of a clean stop: which transactions outlive it.
pub(crate) fn farewell(left_open: &[String]) -> String {
    let count = left_open.len();
    if count == 0 {
        return "stopped clean\n".to_owned();
    }
    let noun = if count == 1 {
        "transaction"
    } else {
        "transactions"
    };
    let shown = left_open.iter().take(LEFT_OPEN_SHOWN);
    let shown: Vec<_> = shown.map(|id| in_line(id)).collect();
    let shown = shown.join(", ");
    let more = if count > LEFT_OPEN_SHOWN { ", …" } else { "" };
    format!("stopped clean, {count} {noun} left open ({shown}{more})\n")
}

fn state_of_data(summary: &Summary) -> &'static str {
    match (summary.is_new, summary.was_clean) {
        (true, _) => "new",
        (false, true) => "existing, was stopped clean",
        (false, false) => "existing, recovered after a crash",
    }
}

fn auto_create(config: &BrokerConfig) -> String {
    match (config.auto_create_topics_enable, config.num_partitions) {
        (false, _) => "off".to_owned(),
        (true, 1) => "on (1 partition)".to_owned(),
        (true, count) => format!("on ({count} partitions)"),
    }
}

fn row(left: (&str, &str), right: (&str, &str)) -> String {
    format!(
        "  {:<10}  {:<38}  {:<11} {}\n",
        left.0, left.1, right.0, right.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(is_new: bool, was_clean: bool, http: Option<SocketAddr>, expected: &str) {
        let summary = Summary {
            cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
            node_id: 1,
            is_new,
            data_dir: "./tally-data".into(),
            topic_count: 2,
            was_clean,
            http,
        };
        let kafka = SocketAddr::from(([127, 0, 0, 1], 9092));
        let config = BrokerConfig::default();
        let text = banner(&config, &summary, kafka, Duration::from_millis(41));
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(
            first.ends_with("  node 1  cluster 4L6g3nShT-eMCtK--X86sw"),
            "{first}"
        );
        assert_eq!(rest, expected);
    }

    #[test]
    fn the_last_line_names_what_is_left_open() {
        let ids: Vec<String> = (0..12).map(|index| format!("etl-{index}")).collect();
        assert_eq!(farewell(&[]), "stopped clean\n");
        assert_eq!(
            farewell(&ids[..1]),
            "stopped clean, 1 transaction left open (etl-0)\n"
        );
        assert_eq!(
            farewell(&ids[..2]),
            "stopped clean, 2 transactions left open (etl-0, etl-1)\n"
        );
        assert!(farewell(&ids).ends_with("etl-8, etl-9, …)\n"));
        assert_eq!(
            farewell(&["a\nb\u{1b}[2J\u{e9}".to_owned()]),
            "stopped clean, 1 transaction left open (a\\nb\\u{1b}[2J\u{e9})\n"
        );
    }

    #[test]
    fn the_first_screen_says_where_and_how_safe() {
        check(
            true,
            true,
            None,
            "  data        ./tally-data  (new)                     durability  os: survives kill -9, not power loss\n  \
             kafka       PLAINTEXT 127.0.0.1:9092                http        off\n  \
             topics      2                                       auto-create on (1 partition)\n\
             ready in 41 ms, stop with Ctrl-C\n",
        );
        check(
            false,
            false,
            Some(SocketAddr::from(([127, 0, 0, 1], 9610))),
            "  data        ./tally-data  (existing, recovered after a crash)  durability  os: survives kill -9, not power loss\n  \
             kafka       PLAINTEXT 127.0.0.1:9092                http        http://127.0.0.1:9610/readyz\n  \
             topics      2                                       auto-create on (1 partition)\n\
             ready in 41 ms, stop with Ctrl-C\n",
        );
    }
}
