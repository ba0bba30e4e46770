//! What is measured: the cells, and the budget of each figure.

use crate::loads::Flow;
use crate::target::Kind;
use tally_testkit::batches::Codec;

/// A figure of a cell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Metric {
    /// Microseconds of the server's processor time per request or transaction.
    CpuMicros,
    /// Seconds of the server's processor time per GB (10^9 bytes) of batches.
    CpuPerGb,
    /// Requests or transactions per second.
    PerSecond,
    /// Half of the units were faster: milliseconds.
    P50,
    /// 99 % were faster.
    P99,
    /// 99.9 % were faster.
    P999,
    /// 99 % were faster, counted from when they were sent instead of from when they were due.
    SentP99,
    /// 99 % were sent with less delay: what the load itself is late.
    LateP99,
    /// 99 % of the EndTxn were faster.
    EndP99,
    /// Requests sent again, per unit.
    Again,
    /// Processors that were busy.
    Cores,
    /// MB (10^6 bytes) of memory of the process.
    MegaBytes,
    /// MB of it that is no file's.
    AnonymousMegaBytes,
    /// Bytes of anonymous memory for each thing that was made.
    BytesEach,
    /// Milliseconds of a start after a clean stop.
    StartMs,
    /// Milliseconds of a start after kill -9.
    StartAfterKillMs,
    /// Milliseconds of processor time of a start after a clean stop: what it takes on an idle machine at most.
    StartCpuMs,
    /// Share of the pages that were in memory before the cold read.
    Resident,
    /// Page faults of the runtime's threads that the kernel began twice, of the whole run: to wait for the disk, or only to have
    /// it read ahead.
    WorkerFaults,
}

impl Metric {
    /// How a table calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Metric::CpuMicros => "CPU us each",
            Metric::CpuPerGb => "CPU s/GB",
            Metric::PerSecond => "per second",
            Metric::P50 => "p50 ms",
            Metric::P99 => "p99 ms",
            Metric::P999 => "p99.9 ms",
            Metric::SentP99 => "p99 ms from when sent",
            Metric::LateP99 => "sent late, p99 ms",
            Metric::EndP99 => "EndTxn p99 ms",
            Metric::Again => "sent again, each",
            Metric::Cores => "cores busy",
            Metric::MegaBytes => "RSS MB",
            Metric::AnonymousMegaBytes => "anonymous MB",
            Metric::BytesEach => "bytes each",
            Metric::StartMs => "start ms",
            Metric::StartCpuMs => "start CPU ms",
            Metric::StartAfterKillMs => "start after kill -9 ms",
            Metric::Resident => "share in memory before",
            Metric::WorkerFaults => "major faults of workers",
        }
    }
}

/// What a figure of Tally is held to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Budget {
    /// At most so many times the floor's.
    FloorTimes(f64),
    /// At least so many times the floor's.
    FloorShare(f64),
    /// At most Kafka's divided by this.
    KafkaOver(f64),
    /// At least so many times Kafka's.
    KafkaTimes(f64),
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// At least this, where the disk syncs a small write within [`QUICK_SYNC_MS`].
    AtLeastWithQuickSync(f64),
    /// At most this, where it does.
    AtMostWithQuickSync(f64),
}

/// Milliseconds of an `fdatasync` of a file that is written over: budgets of durable transactions are for disks that do it
/// in that.
pub(crate) const QUICK_SYNC_MS: f64 = 0.2;

/// The load of a cell.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// Produce, as fast as it goes.
    Produce(ProduceCell),
    /// Produce at a fixed rate.
    PacedProduce(ProduceCell, u64),
    /// Records from a producer to a consumer that follows.
    EndToEnd(Rate),
    /// Four connections that read four partitions from memory.
    FetchHot {
        /// Bytes of one answer.
        bytes_max: i32,
    },
    /// One connection that reads what is not in memory.
    FetchCold {
        /// Bytes of one answer.
        bytes_max: i32,
    },
    /// The same small batches of many partitions again and again.
    FetchMany {
        /// How many.
        partitions: i32,
    },
    /// Transactions one after the other.
    Transactions {
        /// Which protocol.
        flow: Flow,
        /// Connections.
        producers: usize,
        /// Partitions of each transaction.
        partitions: i32,
        /// Whether an offset is committed too.
        has_offsets: bool,
    },
    /// A broker with nothing in it.
    Empty,
    /// Partitions that were never written to.
    IdlePartitions(i32),
    /// Connections on which nothing happens.
    IdleConnections(usize),
    /// Consumers to which nothing comes.
    IdleConsumers(usize),
    /// Idempotent producers that wrote one batch.
    IdleProducers(i32),
    /// Starts with a batch in each of so many partitions.
    Start(i32),
    /// A start after kill -9 with so many bytes that were never synced.
    Tail(u64),
}

/// How many records a second a producer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rate {
    /// So many.
    Fixed(u64),
    /// As many as go with what it may have in flight.
    Saturated,
    /// As many as go to Kafka; to the others as many as went to Kafka in the same round.
    AsKafka,
}

/// A load of Produce requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProduceCell {
    /// Bytes of a batch, uncompressed.
    pub(crate) bytes: usize,
    /// Records in it.
    pub(crate) records: usize,
    /// Partitions that get batches in turn.
    pub(crate) partitions: i32,
    /// Connections.
    pub(crate) connections: usize,
    /// Whether the producers are idempotent.
    pub(crate) is_idempotent: bool,
    /// How the batches are compressed.
    pub(crate) codec: Codec,
}

/// Something that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Its name, for --cells.
    pub(crate) name: String,
    /// What happens.
    pub(crate) load: Load,
    /// Who is measured.
    pub(crate) kinds: &'static [Kind],
    /// What is in the table, with what it is held to.
    pub(crate) rows: Vec<(Metric, Vec<Budget>)>,
    /// Settings of Tally beyond its defaults: then it runs as a process of its own.
    pub(crate) settings: &'static [&'static str],
    /// Processors that Tally may use, as taskset writes them: then too.
    pub(crate) processors: Option<&'static str>,
    /// The processor that the load keeps to meanwhile.
    pub(crate) load_on: Option<usize>,
    /// Load and programs keep their processors for themselves, with real-time scheduling.
    pub(crate) is_realtime: bool,
    /// Whether it has a budget: the others are measured by --full alone.
    pub(crate) has_budget: bool,
}

/// Rounds of a cell without a budget: nothing is decided by it.
pub(crate) const ROUNDS_MAX_WITHOUT_BUDGET: usize = 3;

/// Seconds that a round of latencies takes at least.
const LATENCY_SECONDS_MIN: f64 = 3.0;

impl Cell {
    /// How many of the wanted seconds a round of it takes: the 99th percentile of a few requests would be that of a few waits.
    pub(crate) fn seconds(&self, wanted: f64) -> f64 {
        match self.load {
            Load::PacedProduce(..) | Load::EndToEnd(_) => wanted.max(LATENCY_SECONDS_MIN),
            _ => wanted,
        }
    }

    /// How many of the wanted rounds it gets.
    pub(crate) fn rounds(&self, wanted: usize) -> usize {
        if self.has_budget {
            wanted
        } else {
            wanted.min(ROUNDS_MAX_WITHOUT_BUDGET)
        }
    }
}

const ALL: &[Kind] = &[Kind::Floor, Kind::Tally, Kind::Kafka];
const BROKERS: &[Kind] = &[Kind::Tally, Kind::Kafka];
const TALLY: &[Kind] = &[Kind::Tally];

fn cell(name: &str, load: Load, kinds: &'static [Kind], rows: Vec<(Metric, Vec<Budget>)>) -> Cell {
    Cell {
        name: name.to_owned(),
        load,
        kinds,
        has_budget: rows.iter().any(|(_, budgets)| !budgets.is_empty()),
        rows,
        settings: &[],
        processors: None,
        load_on: None,
        is_realtime: false,
    }
}

/// All cells.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = produce();
    cells.extend(fetch());
    cells.extend(transactions());
    cells.extend(durable());
    cells.extend(cores());
    cells.extend(latency());
    cells.extend(idle());
    cells
}

const fn produce_cell(bytes: usize, records: usize) -> ProduceCell {
    ProduceCell {
        bytes,
        records,
        partitions: 8,
        connections: 4,
        is_idempotent: true,
        codec: Codec::None,
    }
}

/// Small and large batches.
const SIZES: [(&str, usize, usize); 3] =
    [("170B", 170, 1), ("1.2KB", 1200, 1), ("64KB", 65_536, 64)];

fn produce() -> Vec<Cell> {
    let small = || {
        vec![
            (
                Metric::CpuMicros,
                vec![Budget::FloorTimes(1.5), Budget::KafkaOver(5.0)],
            ),
            (Metric::PerSecond, vec![Budget::KafkaTimes(4.0)]),
            (Metric::P50, vec![]),
            (Metric::P99, vec![Budget::KafkaOver(2.0)]),
            (Metric::P999, vec![]),
        ]
    };
    let large = || {
        vec![
            (
                Metric::CpuPerGb,
                vec![Budget::FloorTimes(1.3), Budget::KafkaOver(3.0)],
            ),
            (Metric::PerSecond, vec![]),
            (Metric::P50, vec![]),
            (Metric::P99, vec![Budget::KafkaOver(2.0)]),
            (Metric::P999, vec![]),
        ]
    };
    let mut cells = Vec::new();
    for (size, bytes, records) in SIZES {
        let rows = || if records == 1 { small() } else { large() };
        let load = produce_cell(bytes, records);
        cells.push(cell(
            &format!("produce-{size}"),
            Load::Produce(load),
            ALL,
            rows(),
        ));
        for (suffix, is_idempotent, partitions) in [
            ("-plain", false, 8),
            ("-1p", true, 1),
            ("-256p", true, 256),
            ("-1p-plain", false, 1),
            ("-256p-plain", false, 256),
        ] {
            let load = Load::Produce(ProduceCell {
                is_idempotent,
                partitions,
                ..load
            });
            let name = format!("produce-{size}{suffix}");
            cells.push(unbudgeted(&name, load, ALL, rows()));
        }
    }
    for (name, codec) in [
        ("gzip", Codec::Gzip),
        ("snappy", Codec::SnappyFramed),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ] {
        let load = ProduceCell {
            codec,
            ..produce_cell(65_536, 64)
        };
        cells.push(unbudgeted(
            &format!("produce-64KB-{name}"),
            Load::Produce(load),
            ALL,
            large(),
        ));
    }
    cells
}

fn unbudgeted(
    name: &str,
    load: Load,
    kinds: &'static [Kind],
    mut rows: Vec<(Metric, Vec<Budget>)>,
) -> Cell {
    rows.iter_mut().for_each(|(_, budgets)| budgets.clear());
    cell(name, load, kinds, rows)
}

fn fetch() -> Vec<Cell> {
    let rows = |times| {
        vec![
            (Metric::CpuPerGb, vec![Budget::FloorTimes(times)]),
            (Metric::P50, vec![]),
            (Metric::P99, vec![]),
        ]
    };
    let many = vec![
        (Metric::CpuMicros, vec![Budget::KafkaOver(2.0)]),
        (Metric::PerSecond, vec![]),
        (Metric::P99, vec![]),
    ];
    let cold = vec![
        (Metric::CpuPerGb, vec![Budget::FloorTimes(1.2)]),
        (Metric::Resident, vec![]),
        (Metric::WorkerFaults, vec![]),
        (Metric::P99, vec![]),
    ];
    vec![
        cell(
            "fetch-hot-1MB",
            Load::FetchHot { bytes_max: 1 << 20 },
            ALL,
            rows(1.0),
        ),
        cell(
            "fetch-hot-64KB",
            Load::FetchHot { bytes_max: 70_000 },
            ALL,
            rows(1.0),
        ),
        unbudgeted(
            "fetch-hot-4KB",
            Load::FetchHot { bytes_max: 4096 },
            ALL,
            rows(1.0),
        ),
        cell(
            "fetch-cold-1MB",
            Load::FetchCold { bytes_max: 1 << 20 },
            &[Kind::Floor, Kind::Tally],
            cold.clone(),
        ),
        unbudgeted(
            "fetch-cold-64KB",
            Load::FetchCold { bytes_max: 70_000 },
            &[Kind::Floor, Kind::Tally],
            cold,
        ),
        cell(
            "fetch-64p",
            Load::FetchMany { partitions: 64 },
            ALL,
            many.clone(),
        ),
        unbudgeted("fetch-1p", Load::FetchMany { partitions: 1 }, ALL, many),
    ]
}

fn transactions() -> Vec<Cell> {
    let rows = |flow| {
        let (cpu, times) = if flow == Flow::Tv1 {
            (80.0, 5.0)
        } else {
            (70.0, 15.0)
        };
        vec![
            (
                Metric::CpuMicros,
                vec![
                    Budget::AtMost(cpu),
                    Budget::FloorTimes(1.6),
                    Budget::KafkaOver(15.0),
                ],
            ),
            (
                Metric::PerSecond,
                vec![
                    Budget::AtLeast(10_000.0),
                    Budget::FloorShare(0.6),
                    Budget::KafkaTimes(times),
                ],
            ),
            (Metric::P50, vec![]),
            (Metric::P99, vec![]),
            (Metric::P999, vec![]),
            (Metric::EndP99, vec![Budget::AtMost(2.0)]),
            (Metric::Again, vec![]),
        ]
    };
    let mut cells = Vec::new();
    for (flow, name) in [(Flow::Tv1, "tv1"), (Flow::Tv2, "tv2")] {
        for (producers, partitions, has_offsets) in [
            (8, 3, false),
            (1, 1, false),
            (1, 3, false),
            (8, 1, false),
            (32, 1, false),
            (32, 3, false),
            (1, 1, true),
            (1, 3, true),
            (8, 1, true),
            (8, 3, true),
            (32, 1, true),
            (32, 3, true),
        ] {
            let offsets = if has_offsets { "-offsets" } else { "" };
            let name = format!("{name}-{producers}x{partitions}{offsets}");
            let load = Load::Transactions {
                flow,
                producers,
                partitions,
                has_offsets,
            };
            cells.push(if (producers, partitions, has_offsets) == (8, 3, false) {
                cell(&name, load, ALL, rows(flow))
            } else {
                unbudgeted(&name, load, ALL, rows(flow))
            });
        }
    }
    cells
}

/// The same with data and decisions synced before they are answered. Floor and Kafka sync nothing.
fn durable() -> Vec<Cell> {
    const COMMIT: &[&str] = &["tally.durability=commit"];
    const ALWAYS: &[&str] = &["tally.durability=always"];
    let rows = || {
        vec![
            (
                Metric::PerSecond,
                vec![
                    Budget::KafkaTimes(1.0),
                    Budget::AtLeastWithQuickSync(5000.0),
                ],
            ),
            (Metric::CpuMicros, vec![]),
            (Metric::P50, vec![]),
            (Metric::P99, vec![]),
            (Metric::P999, vec![]),
            (Metric::EndP99, vec![Budget::AtMostWithQuickSync(3.0)]),
        ]
    };
    let mut cells = Vec::new();
    for (mode, settings) in [("commit", COMMIT), ("always", ALWAYS)] {
        for (flow, name) in [(Flow::Tv1, "tv1"), (Flow::Tv2, "tv2")] {
            let load = Load::Transactions {
                flow,
                producers: 8,
                partitions: 3,
                has_offsets: false,
            };
            let name = format!("{name}-8x3-{mode}");
            let cell = if mode == "commit" {
                cell(&name, load, ALL, rows())
            } else {
                unbudgeted(&name, load, ALL, rows())
            };
            cells.push(Cell { settings, ..cell });
        }
        for (size, bytes, records) in SIZES {
            let load = Load::Produce(produce_cell(bytes, records));
            let cell = unbudgeted(&format!("produce-{size}-{mode}"), load, ALL, rows());
            cells.push(Cell { settings, ..cell });
        }
    }
    cells
}

/// Tally on one processor with the load on the other, and both on both. There is no third processor for the load, so rates of
/// the second do not show growth: that a unit costs no more does.
fn cores() -> Vec<Cell> {
    let rows =
        |cost| [cost, Metric::PerSecond, Metric::Cores, Metric::P99].map(|metric| (metric, vec![]));
    let transactions = Load::Transactions {
        flow: Flow::Tv2,
        producers: 8,
        partitions: 3,
        has_offsets: false,
    };
    let mut cells = Vec::new();
    for (name, load, cost) in [
        (
            "produce-170B",
            Load::Produce(produce_cell(170, 1)),
            Metric::CpuMicros,
        ),
        (
            "produce-64KB",
            Load::Produce(produce_cell(65_536, 64)),
            Metric::CpuPerGb,
        ),
        (
            "fetch-hot-64KB",
            Load::FetchHot { bytes_max: 70_000 },
            Metric::CpuPerGb,
        ),
        ("tv2-8x3", transactions, Metric::CpuMicros),
    ] {
        for (processors, load_on, which) in [("0", Some(1), "1core"), ("0,1", None, "2cores")] {
            let name = format!("{name}-{which}");
            let cell = unbudgeted(&name, load.clone(), TALLY, rows(cost).to_vec());
            cells.push(Cell {
                processors: Some(processors),
                load_on,
                ..cell
            });
        }
    }
    cells
}

fn latency() -> Vec<Cell> {
    let rows = |over| {
        vec![
            (Metric::P50, vec![]),
            (Metric::P99, vec![Budget::KafkaOver(over)]),
            (Metric::P999, vec![]),
            (Metric::SentP99, vec![]),
            (Metric::LateP99, vec![]),
            (Metric::PerSecond, vec![]),
            (Metric::Cores, vec![]),
        ]
    };
    let end_to_end = |name: &str, rate, over| cell(name, Load::EndToEnd(rate), BROKERS, rows(over));
    let paced = |rate| Load::PacedProduce(produce_cell(1200, 1), rate);
    let budgeted = [
        cell("latency-produce-2000", paced(2000), ALL, rows(3.0)),
        end_to_end("latency-end-to-end-1000", Rate::Fixed(1000), 3.0),
        end_to_end("latency-end-to-end-saturated", Rate::Saturated, 2.0),
        end_to_end("latency-end-to-end-as-kafka", Rate::AsKafka, 2.0),
    ];
    let realtime = budgeted.clone().map(|cell| {
        let name = format!("{}-rt", cell.name);
        Cell {
            is_realtime: true,
            ..unbudgeted(&name, cell.load, cell.kinds, cell.rows)
        }
    });
    let five_thousand = Load::EndToEnd(Rate::Fixed(5000));
    let others = [
        unbudgeted("latency-produce-10000", paced(10_000), ALL, rows(3.0)),
        unbudgeted("latency-end-to-end-5000", five_thousand, BROKERS, rows(3.0)),
    ];
    budgeted.into_iter().chain(others).chain(realtime).collect()
}

fn idle() -> Vec<Cell> {
    let each = |bytes| {
        vec![
            (Metric::BytesEach, vec![Budget::AtMost(bytes)]),
            (Metric::MegaBytes, vec![]),
        ]
    };
    let memory = vec![
        (Metric::MegaBytes, vec![Budget::AtMost(12.0)]),
        (Metric::AnonymousMegaBytes, vec![]),
        (Metric::StartMs, vec![]),
    ];
    let consumers = vec![
        (Metric::Cores, vec![Budget::AtMost(0.16)]),
        (Metric::CpuMicros, vec![Budget::AtMost(8.0)]),
        (Metric::PerSecond, vec![]),
        (Metric::MegaBytes, vec![]),
    ];
    let start = |ms| {
        let budget = if ms > 0.0 {
            vec![Budget::AtMost(ms)]
        } else {
            vec![]
        };
        vec![
            (Metric::StartMs, budget),
            (Metric::StartCpuMs, vec![]),
            (Metric::StartAfterKillMs, vec![]),
        ]
    };
    vec![
        cell("empty", Load::Empty, BROKERS, memory),
        cell(
            "idle-partitions-1000",
            Load::IdlePartitions(1000),
            TALLY,
            each(4096.0),
        ),
        cell(
            "idle-producers-100000",
            Load::IdleProducers(100_000),
            TALLY,
            each(400.0),
        ),
        cell(
            "idle-connections-10000",
            Load::IdleConnections(10_000),
            TALLY,
            each(2048.0),
        ),
        cell(
            "idle-consumers-10000",
            Load::IdleConsumers(10_000),
            TALLY,
            consumers,
        ),
        cell(
            "start-tail-1GB",
            Load::Tail(1_000_000_000),
            TALLY,
            vec![(Metric::StartAfterKillMs, vec![Budget::AtMost(1000.0)])],
        ),
        cell("start-1000p", Load::Start(1000), TALLY, start(50.0)),
        cell("start-10000p", Load::Start(10_000), TALLY, start(0.0)),
    ]
}
