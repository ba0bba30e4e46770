//! `tally produce`: records from lines, idempotent unless told otherwise, in transactions if an id is given.

mod batch;
mod lines;
mod sender;
mod transaction;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::Receiver;

use clap::{Args, ValueEnum};

use self::batch::Record;
use self::lines::{Chunk, LineForm};
use self::sender::{Acks, Sender};
use super::place::Place;
use super::record_format::parse as parse_form;
use super::{Common, Done, finish};
use crate::client::{ClientConfig, Failure};
use crate::output::{Rows, Value, remark};

/// `tally produce`.
#[derive(Args, Debug)]
pub(crate) struct Produce {
    /// The topic
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The key of every record
    #[arg(short, long, value_name = "KEY", allow_hyphen_values = true)]
    key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// The partition [default: by the key as Java clients choose, else one after the other]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// What a line holds: %k key, %v value, %h headers as NAME=VALUE,..., %t topic, %p partition, %T time in milliseconds
    #[arg(short, long, value_name = "FORMAT", default_value = "%v")]
    format: String,
    /// Whose acknowledgement is waited for [default: all]
    #[arg(long, value_name = "all|1|0", value_parser = parse_acks)]
    acks: Option<Acks>,
    /// Compress batches
    #[arg(short = 'z', long, value_name = "CODEC")]
    compress: Option<Codec>,
    /// Nothing is written twice, whatever is lost on the way [default: true, with --acks all]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    idempotent: Option<bool>,
    /// Write in a transaction of this transactional id: all that is read, or --txn-size records at a time
    #[arg(long, visible_alias = "transactional-id", value_name = "ID")]
    txn: Option<String>,
    /// Commit after so many records
    #[arg(long, value_name = "N", requires = "txn", value_parser = clap::value_parser!(u64).range(1..))]
    txn_size: Option<u64>,
    /// Abort the transactions instead
    #[arg(long, requires = "txn")]
    abort: bool,
    /// An empty value is null: it deletes its key in a compacted topic
    #[arg(long)]
    tombstone: bool,
    /// Read lines from here [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// How batches are compressed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    fn id(self) -> i16 {
        use tally_protocol::compression::{GZIP, LZ4, NONE, SNAPPY, ZSTD};
        match self {
            Codec::None => NONE,
            Codec::Gzip => GZIP,
            Codec::Snappy => SNAPPY,
            Codec::Lz4 => LZ4,
            Codec::Zstd => ZSTD,
        }
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

fn parse_acks(text: &str) -> Result<Acks, String> {
    match text {
        "all" | "-1" => Ok(Acks::All),
        "1" => Ok(Acks::Leader),
        "0" => Ok(Acks::Nobody),
        _ => Err("must be all, 1 or 0".to_owned()),
    }
}

/// Runs `tally produce`.
pub(crate) fn run(produce: &Produce) -> ExitCode {
    finish(produce_lines(produce))
}

/// How records are sent: by flags, else by `--client-config`, else Kafka's defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Settings {
    acks: Acks,
    codec: i16,
    is_idempotent: bool,
    transactional_id: Option<String>,
    transaction_timeout_ms: i32,
}

/// As Java's `transaction.timeout.ms`.
const TRANSACTION_TIMEOUT_MS: i32 = 60_000;

impl Settings {
    fn new(produce: &Produce, config: &ClientConfig) -> Result<Settings, Failure> {
        let wrong =
            |name: &str, value: &str| Failure::Usage(format!("{name}={value} is not valid"));
        let acks = match (produce.acks, config.property("acks")) {
            (Some(acks), _) => Some(acks),
            (None, Some(text)) => Some(parse_acks(text).map_err(|_| wrong("acks", text))?),
            (None, None) => None,
        };
        let codec = match (produce.compress, config.property("compression.type")) {
            (Some(codec), _) => codec,
            (None, Some(text)) => {
                Codec::from_str(text, true).map_err(|_| wrong("compression.type", text))?
            }
            (None, None) => Codec::None,
        };
        let idempotent = match (produce.idempotent, config.property("enable.idempotence")) {
            (Some(is), _) => Some(is),
            (None, Some(text)) => Some(
                text.parse()
                    .map_err(|_| wrong("enable.idempotence", text))?,
            ),
            (None, None) => None,
        };
        let configured = config.property("transactional.id").map(str::to_owned);
        let transactional_id = produce.txn.clone().or(configured);
        let is_all = acks.unwrap_or(Acks::All) == Acks::All;
        let must = idempotent == Some(true) || transactional_id.is_some();
        if must && !is_all {
            let what = "an idempotent producer needs --acks all: it must know what was written";
            return Err(Failure::Usage(what.to_owned()));
        }
        if transactional_id.is_some() && idempotent == Some(false) {
            let what = "transactions need an idempotent producer: leave out --idempotent=false";
            return Err(Failure::Usage(what.to_owned()));
        }
        let timeout = config.property("transaction.timeout.ms");
        let transaction_timeout_ms = match timeout {
            Some(text) => text
                .parse()
                .map_err(|_| wrong("transaction.timeout.ms", text))?,
            None => TRANSACTION_TIMEOUT_MS,
        };
        Ok(Settings {
            acks: acks.unwrap_or(Acks::All),
            codec: codec.id(),
            is_idempotent: idempotent.unwrap_or(is_all),
            transactional_id,
            transaction_timeout_ms,
        })
    }
}

fn produce_lines(produce: &Produce) -> Result<Done, Failure> {
    let pieces = parse_form(&produce.format)
        .map_err(|error| Failure::Usage(format!("--format {}: {error}", produce.format)))?;
    let form = LineForm::new(pieces)
        .map_err(|error| Failure::Usage(format!("--format {}: {error}", produce.format)))?;
    let config = produce.common.reach.config()?;
    let settings = Settings::new(produce, &config)?;
    let input: Box<dyn Read + Send> =
        match &produce.file {
            Some(path) => Box::new(File::open(path).map_err(|error| {
                Failure::Usage(format!("cannot read {}: {error}", path.display()))
            })?),
            None => Box::new(io::stdin()),
        };
    let cluster = produce.common.open()?;
    let mut sender = Sender::open(cluster, &settings)?;
    sender.partitions(&produce.topic)?;
    let chunks = lines::read(input);
    let mut run = Run {
        produce,
        form,
        sender,
        line: 0,
        in_transaction: 0,
    };
    let outcome = run.all(&chunks);
    if outcome.is_err() {
        run.sender.give_up();
    }
    run.report();
    outcome.map(|()| Done::Well)
}

struct Run<'a> {
    produce: &'a Produce,
    form: LineForm,
    sender: Sender,
    /// Lines read so far.
    line: u64,
    /// Records in the transaction that is open.
    in_transaction: u64,
}

impl Run<'_> {
    fn all(&mut self, chunks: &Receiver<Chunk>) -> Result<(), Failure> {
        loop {
            // What is there goes out before more is waited for: a person's line at once, a file's in large batches.
            let chunk = match chunks.try_recv() {
                Ok(chunk) => Ok(chunk),
                Err(_) => {
                    self.sender.flush()?;
                    chunks.recv()
                }
            };
            let Ok(chunk) = chunk else { break };
            let lines = chunk.map_err(|error| Failure::Usage(format!("the input: {error}")))?;
            for line in lines {
                self.line(&line)?;
            }
        }
        self.sender.flush()?;
        self.sender.end(!self.produce.abort)?;
        self.sender.confirm()
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.line += 1;
        let number = self.line;
        let parsed = self.form.record(line);
        let record = parsed.map_err(|error| Failure::Usage(format!("line {number}: {error}")))?;
        let record = self.complete(record);
        let topic = record.topic.clone();
        let topic = topic.unwrap_or_else(|| self.produce.topic.clone());
        let wanted = record.partition.or(self.produce.partition);
        self.sender.add(&topic, wanted, &record)?;
        self.in_transaction += 1;
        if self.produce.txn_size == Some(self.in_transaction) {
            self.in_transaction = 0;
            self.sender.flush()?;
            self.sender.end(!self.produce.abort)?;
        }
        Ok(())
    }

    /// Adds what the flags say of every record.
    fn complete(&self, mut record: Record) -> Record {
        if let Some(key) = &self.produce.key {
            record.key.get_or_insert_with(|| key.clone().into_bytes());
        }
        let headers = self.produce.headers.iter();
        record.headers.extend(headers.map(|(name, value)| {
            let value = Some(value.clone().into_bytes());
            (name.clone().into_bytes(), value)
        }));
        if self.produce.tombstone && record.value.as_ref().is_some_and(Vec::is_empty) {
            record.value = None;
        }
        record
    }

    /// What was written.
    fn report(&self) {
        let mut rows = Rows::new(self.produce.common.output);
        let written: BTreeMap<&Place, _> = self.sender.written().iter().collect();
        for (place, written) in written {
            let known = |offset: i64| Value::from((offset >= 0).then_some(offset));
            rows.row(
                "produced",
                vec![
                    ("topic", Value::from(place.topic.as_str())),
                    ("partition", Value::from(place.partition)),
                    ("records", Value::from(written.records)),
                    ("first_offset", known(written.first_offset)),
                    ("last_offset", known(written.last_offset)),
                ],
            );
        }
        if let Some(transactions) = self.sender.transactions() {
            rows.row(
                "txn",
                vec![
                    ("transactional_id", Value::from(transactions.id.as_str())),
                    ("producer_id", Value::from(transactions.producer_id)),
                    ("producer_epoch", Value::from(transactions.producer_epoch)),
                    ("committed", Value::from(transactions.committed)),
                    ("aborted", Value::from(transactions.aborted)),
                ],
            );
        }
        rows.finish();
        remark(1, || format!("{} lines were read", self.line));
    }
}
