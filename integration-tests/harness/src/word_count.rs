//! The stateful word count: a Kafka Streams application with exactly_once_v2, a repartition topic and a changelog.
//!
//! Each of 50 words goes in as often as every other, in an order drawn from the seed. The application has to write 1, 2, 3 and so on
//! for each of them, without a gap and without a second time, and to end with the same table in its store, in the changelog
//! and in the output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};

use crate::api::{Api, END_TXN, PRODUCE, TXN_OFFSET_COMMIT};
use crate::application::{Application, Findings, directory};
use crate::journal::Journal;
use crate::reader;
use crate::rng::Rng;

const APPLICATION_ID: &str = "word-count";
const WORDS_TOPIC: &str = "words";
const COUNTS_TOPIC: &str = "word-counts";
/// The names that the library makes of the application's and the store's.
const REPARTITION_TOPIC: &str = "word-count-by-word-repartition";
const CHANGELOG_TOPIC: &str = "word-count-counts-changelog";
const PARTITIONS: i32 = 4;
const WORDS: u64 = 50;
/// What may be in the input and not yet counted: some transactions' worth.
const WINDOW: u64 = 600;
const SEND_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct WordCount {
    words: Vec<u64>,
    sent: usize,
    state: PathBuf,
    producer: Option<ThreadedProducer<DefaultProducerContext>>,
}

impl WordCount {
    pub(crate) fn new(seed: u64, records: u64, workdir: &Path) -> Result<Self> {
        ensure!(
            records > 0 && records.is_multiple_of(WORDS),
            "--records must be a multiple of {WORDS}"
        );
        let mut words: Vec<u64> = (0..records).map(|i| i % WORDS).collect();
        let mut rng = Rng::new(seed);
        for last in (1..words.len()).rev() {
            let other = usize::try_from(rng.below(last as u64 + 1))?;
            words.swap(last, other);
        }
        Ok(Self {
            words,
            sent: 0,
            state: directory(workdir, "state")?,
            producer: None,
        })
    }

    fn each(&self) -> u64 {
        self.words.len() as u64 / WORDS
    }

    /// The input as it was meant, and all of it processed by the group.
    fn judge_input(&self, bootstrap: &str, found: &mut Findings) -> Result<()> {
        for partition in 0..PARTITIONS {
            let first = usize::try_from(partition)?;
            let sent = self.words[first..]
                .iter()
                .step_by(usize::try_from(PARTITIONS)?);
            let sent: Vec<String> = sent.map(|word| name(*word)).collect();
            let there = reader::read_with(bootstrap, WORDS_TOPIC, partition..partition + 1, text)?;
            let there: Vec<String> = there.into_iter().map(|(_, value)| value).collect();
            found.compare(&format!("{WORDS_TOPIC}-{partition}"), &sent, &there);
        }
        let offsets = reader::offsets(bootstrap, APPLICATION_ID, WORDS_TOPIC, PARTITIONS)?;
        if offsets.iter().any(|(committed, end)| committed != end) {
            found.other(format!("committed offsets and ends: {offsets:?}"));
        }
        Ok(())
    }

    /// 1, 2, 3 and so on for each word.
    fn judge_counts(&self, bootstrap: &str, found: &mut Findings) -> Result<()> {
        let mut counts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (word, count) in reader::read_with(bootstrap, COUNTS_TOPIC, 0..PARTITIONS, text)? {
            counts.entry(word).or_default().push(count);
        }
        let expected: Vec<String> = (1..=self.each()).map(|count| count.to_string()).collect();
        for word in (0..WORDS).map(name) {
            let there = counts.remove(&word).unwrap_or_default();
            found.compare(&word, &expected, &there);
        }
        for word in counts.keys() {
            found.other(format!("{word} was never put in"));
        }
        Ok(())
    }

    /// The table: every word with the same count.
    fn judge_table(&self, what: &str, table: &BTreeMap<String, i64>, found: &mut Findings) {
        let each = i64::try_from(self.each()).ok();
        for word in (0..WORDS).map(name) {
            if table.get(&word).copied() != each {
                found.other(format!("{what}: {word} has {:?}", table.get(&word)));
            }
        }
        if table.len() as u64 != WORDS {
            found.other(format!("{what} has {} words", table.len()));
        }
    }
}

impl Application for WordCount {
    fn output(&self) -> Vec<String> {
        vec![COUNTS_TOPIC.to_owned()]
    }

    fn output_partitions(&self) -> i32 {
        PARTITIONS
    }

    fn expected(&self) -> u64 {
        self.words.len() as u64
    }

    fn targets(&self) -> &'static [Api] {
        &[PRODUCE, END_TXN, TXN_OFFSET_COMMIT]
    }

    fn has_state(&self) -> bool {
        true
    }

    async fn prepare(&mut self, bootstrap: &str) -> Result<()> {
        reader::create(bootstrap, &[WORDS_TOPIC.to_owned()], PARTITIONS).await?;
        let producer = reader::config(bootstrap)
            .set("enable.idempotence", "true")
            .set("delivery.timeout.ms", "600000")
            .create()?;
        self.producer = Some(producer);
        Ok(())
    }

    fn arguments(&mut self, bootstrap: &str) -> Result<Vec<String>> {
        let state = self.state.display().to_string();
        let pairs = [
            ("--bootstrap", bootstrap),
            ("--group", APPLICATION_ID),
            ("--transactional-id", APPLICATION_ID),
            // Without its state it does not know its former transactional ids, and has to wait for so long.
            ("--transaction-timeout-ms", "10000"),
            ("--state-dir", &state),
            ("--in", WORDS_TOPIC),
            ("--out", COUNTS_TOPIC),
        ];
        let arguments = pairs.into_iter().flat_map(|(name, value)| [name, value]);
        Ok(std::iter::once("word-count")
            .chain(arguments)
            .map(str::to_owned)
            .collect())
    }

    async fn feed(&mut self, seen: u64, _: &mut Journal) -> Result<()> {
        let producer = self.producer.as_ref().context("it is prepared first")?;
        let allowed = usize::try_from(seen + WINDOW)?.min(self.words.len());
        while self.sent < allowed {
            let word = name(self.words[self.sent]);
            let partition = i32::try_from(self.sent)? % PARTITIONS;
            let record = BaseRecord::<(), String>::to(WORDS_TOPIC)
                .partition(partition)
                .payload(&word);
            producer.send(record).map_err(|(error, _)| error)?;
            self.sent += 1;
        }
        Ok(())
    }

    fn wipe(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.state)?;
        Ok(std::fs::create_dir_all(&self.state)?)
    }

    fn judge(&self, bootstrap: &str, logs: &[PathBuf], found: &mut Findings) -> Result<()> {
        use rdkafka::producer::Producer;
        let producer = self.producer.as_ref().context("it is prepared first")?;
        producer.flush(SEND_TIMEOUT)?;
        self.judge_input(bootstrap, found)?;
        self.judge_counts(bootstrap, found)?;
        // What the library keeps for itself: the last value of each key, and nothing open in the topic in between.
        let changelog = reader::read_with(bootstrap, CHANGELOG_TOPIC, 0..PARTITIONS, |message| {
            let bytes = message.payload().unwrap_or_default();
            let count = i64::from_be_bytes(bytes.try_into().context("not a Long")?);
            Ok((key(message), count))
        })?;
        self.judge_table("the changelog", &changelog.into_iter().collect(), found);
        reader::read_with(bootstrap, REPARTITION_TOPIC, 0..PARTITIONS, text)?;
        let log = std::fs::read_to_string(logs.last().context("it was started")?)?;
        let table = log
            .lines()
            .filter_map(|line| line.strip_prefix("table ")?.split_once(' '));
        let table: Result<BTreeMap<String, i64>> = table
            .map(|(word, count)| Ok((word.to_owned(), count.parse()?)))
            .collect();
        self.judge_table("the store", &table?, found);
        Ok(())
    }
}

fn name(word: u64) -> String {
    format!("word-{word:02}")
}

fn key(message: &impl Message) -> String {
    String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned()
}

fn text(message: &rdkafka::message::BorrowedMessage<'_>) -> Result<(String, String)> {
    let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
    Ok((key(message), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_goes_in_equally_often_in_an_order_of_the_seed() {
        let directory = std::env::temp_dir();
        let words = |seed| WordCount::new(seed, 1_000, &directory).map(|app| app.words);
        let of = words(7).expect("a multiple of the words");
        assert_ne!(of, words(8).expect("a multiple of the words"));
        for word in 0..WORDS {
            assert_eq!(of.iter().filter(|one| **one == word).count(), 20);
        }
        assert!(words(7).is_ok_and(|again| again == of));
        assert!(WordCount::new(7, 1_001, &directory).is_err());
    }
}
