//! How many instructions the released broker executes on its hot paths: counted under callgrind, and not more than is written
//! down in `hot_paths/instructions.txt`. A regression gate that no busy machine disturbs.
//!
//! A DescribeCluster between the parts of a run makes callgrind write down what was executed since the one before. Of
//! [`SLICES`] parts of [`ROUNDS`] rounds the middle one counts, so that work which comes once in a while does not. How long one
//! looks for a partition depends on the order of the topics' ids, which are random: all runs begin with the same directory, in
//! which the internal topics are ([`Template`]), and the topic of a path comes behind them. What is left of chance is small, and
//! of [`BROKERS`] brokers the cheapest counts.
//! Only the broker's own program counts, with what is compiled into it: how the C library copies and allocates depends on the
//! processor, and which way a thread is woken on chance. Run by `scripts/gates`, which builds the binary and finds valgrind.

#[path = "../hot_paths/limits.rs"]
mod limits;
#[path = "../hot_paths/steps.rs"]
mod steps;

use kafka_protocol::messages::{DescribeClusterRequest, MetadataRequest};
use limits::{Limits, Rows};
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use steps::{HOT_PATHS, HotPath};
use tally_testkit::client::Client;
use tally_testkit::waiting::{wait_for, wait_until};

/// Rounds that are not counted: buffers grow, files are mapped.
const WARM_UP: usize = 40;
/// Rounds of a part.
const ROUNDS: u64 = 30;
/// Parts that are counted.
const SLICES: usize = 3;
/// Brokers that do the same, each with ids of its own.
const BROKERS: usize = 2;
/// The same for what is written down, which is to be the least that there is.
const BROKERS_RECORDING: usize = 4;
/// Paths that are measured at a time.
const AT_A_TIME: usize = 2;
/// What the broker executes for a DescribeCluster and for nothing else here, as callgrind's patterns want it.
const MARK: &str = "*describe_cluster::handle*";

/// Of a thousand: what may be more with the compiler that the limits were written with. One in twenty more is always seen.
const TOLERANCE: u64 = 30;
/// The same with another compiler, which inlines and unrolls in another way.
const TOLERANCE_OTHER_COMPILER: u64 = 350;

/// A variable of `scripts/gates`.
fn given(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: this is run by scripts/gates"))
}

/// A broker, under callgrind or not.
struct Counted {
    child: Child,
    directory: tempfile::TempDir,
    /// Profiles that were written.
    marks: usize,
}

impl Counted {
    /// Under callgrind, on a copy of the template's data.
    fn start(template: &Template) -> Counted {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let copy = Command::new("cp")
            .args(["-r", &template.data(), &path("data")])
            .status();
        assert!(copy.expect("cp can be run").success());
        let valgrind = given("TALLY_GATES_VALGRIND");
        let mut words = valgrind.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        command.args(["--tool=callgrind", "--compress-strings=no"]);
        command.args(["--compress-pos=no", "--dump-line=no"]);
        command.arg(format!("--dump-before={MARK}"));
        command.arg(format!("--callgrind-out-file={}", path("profile")));
        command.arg(given("TALLY_GATES_BROKER"));
        Counted::spawn(command, directory)
    }

    fn spawn(mut command: Command, directory: tempfile::TempDir) -> Counted {
        let path = |name: &str| directory.path().join(name).display().to_string();
        command.args(["serve", "--exit-with-parent", "--http", "off"]);
        command.args(["--listen", "127.0.0.1:0"]);
        // Few partitions in one shard: then little depends on their ids.
        for setting in [
            "tally.shards=1",
            "offsets.topic.num.partitions=1",
            "transaction.state.log.num.partitions=1",
            "group.initial.rebalance.delay.ms=0",
        ] {
            command.args(["--set", setting]);
        }
        command.args(["--data", &path("data"), "--port-file", &path("port")]);
        // One worker: two of them wake each other, or not.
        command.env("TOKIO_WORKER_THREADS", "1");
        let log = fs::File::create(path("log")).expect("a file");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("it can be run");
        Counted {
            child,
            directory,
            marks: 0,
        }
    }

    fn address(&mut self) -> String {
        let port_file = self.directory.path().join("port");
        let address = wait_for("the broker's port", || {
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "{}", self.log());
            fs::read_to_string(&port_file).ok()
        });
        address.trim().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What was executed since the mark before.
    fn mark(&mut self, client: &mut Client) -> Counts {
        client.call(0, &DescribeClusterRequest::default());
        self.marks += 1;
        let file = self
            .directory
            .path()
            .join(format!("profile.{}", self.marks));
        let text = fs::read_to_string(&file);
        let text = text.unwrap_or_else(|error| {
            panic!(
                "callgrind has not stopped at {MARK} ({error}): {}",
                self.log()
            )
        });
        fs::remove_file(file).expect("a file of ours");
        read_profile(&text)
    }

    /// Ends it; its directory.
    fn stop(mut self) -> tempfile::TempDir {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "{status}: {}", self.log());
        self.directory
    }
}

/// A directory with the internal topics, whose ids are small and in the order of their names.
struct Template(tempfile::TempDir);

impl Template {
    /// Brokers are started until one has drawn such ids: one in seventy.
    fn make() -> Template {
        const TRIES: usize = 2000;
        /// First bytes of the ids.
        const SMALL_MAX: u8 = 0x2a;
        for _ in 0..TRIES {
            let directory = tempfile::tempdir().expect("a directory");
            let mut broker = Counted::spawn(Command::new(given("TALLY_GATES_BROKER")), directory);
            let mut client = Client::connect(&broker.address());
            client.wait_for_group("g");
            wait_until("the transactions' coordinator", || {
                client.find_coordinator("t", 1) == 0
            });
            let ids: Vec<[u8; 16]> = topics(&mut client).into_values().collect();
            drop(client);
            let directory = broker.stop();
            assert_eq!(ids.len(), 2, "the internal topics");
            if ids[0] < ids[1] && ids[1][0] < SMALL_MAX {
                return Template(directory);
            }
        }
        panic!("no broker of {TRIES} has drawn small ids");
    }

    fn data(&self) -> String {
        self.0.path().join("data").display().to_string()
    }
}

/// The ids of all topics by their names.
fn topics(client: &mut Client) -> BTreeMap<String, [u8; 16]> {
    let request = MetadataRequest::default().with_topics(None);
    let topics = client.call(12, &request).topics.into_iter();
    let named = topics.map(|topic| {
        let name = topic.name.expect("a topic of this broker");
        (name.to_string(), topic.topic_id.into_bytes())
    });
    named.collect()
}

/// Instructions by object and function.
type Counts = BTreeMap<(String, String), u64>;

/// What each function executed itself. A line with `calls=` is followed by one that has what the called function executed.
fn read_profile(text: &str) -> Counts {
    let mut counts = Counts::new();
    let (mut object, mut function) = (String::new(), String::new());
    let mut is_called = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            name.clone_into(&mut object);
        } else if let Some(name) = line.strip_prefix("fn=") {
            name.clone_into(&mut function);
        } else if line.starts_with("calls=") {
            is_called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let count = line.split_whitespace().nth(1);
            let count: u64 = count.and_then(|count| count.parse().ok()).unwrap_or(0);
            if !is_called {
                *counts
                    .entry((object.clone(), function.clone()))
                    .or_default() += count;
            }
            is_called = false;
        }
    }
    counts
}

/// Whether a function's instructions count: what is ours, and what was compiled into it.
fn is_counted(object: &str, function: &str) -> bool {
    const RUNTIME: [&str; 6] = [
        "tokio::",
        "<tokio::",
        "mio::",
        "<mio::",
        "std::",
        "parking_lot",
    ];
    let object_name = Path::new(object).file_name();
    object_name.is_some_and(|name| name == "tally")
        && !RUNTIME.iter().any(|prefix| function.starts_with(prefix))
}

fn sum(counts: &Counts) -> u64 {
    let counted = counts
        .iter()
        .filter(|((object, function), _)| is_counted(object, function));
    counted.map(|(_, count)| count).sum()
}

/// Instructions of one round, by the cheapest of some brokers.
fn measure(path: &HotPath, template: &Template, brokers: usize) -> u64 {
    let found = (0..brokers).map(|nth| measure_one(path, template, nth == 0));
    found.min().expect("at least one")
}

/// A broker, its address, and a client that is ready for the first step.
fn begin(path: &HotPath, template: &Template) -> (Counted, String, steps::Load) {
    loop {
        let mut broker = Counted::start(template);
        let address = broker.address();
        let load = path.begin(&address);
        let topics = topics(&mut Client::connect(&address));
        // Internal topics have names that come first.
        let ids: Vec<[u8; 16]> = topics.into_values().collect();
        if ids.is_sorted() {
            return (broker, address, load);
        }
        drop(load);
        broker.stop();
    }
}

fn measure_one(path: &HotPath, template: &Template, is_first: bool) -> u64 {
    let (mut broker, address, mut load) = begin(path, template);
    let mut client = Client::connect(&address);
    let mut rounds = |count: usize| {
        for _ in 0..count {
            path.steps.iter().for_each(|(_, step)| step(&mut load));
        }
    };
    rounds(WARM_UP);
    broker.mark(&mut client);
    // What a mark costs is in every part.
    let marks: Vec<Counts> = (0..SLICES).map(|_| broker.mark(&mut client)).collect();
    let parts = (0..SLICES).map(|_| {
        rounds(usize::try_from(ROUNDS).expect("a few"));
        broker.mark(&mut client)
    });
    let parts: Vec<Counts> = parts.collect();
    broker.stop();
    let (mark, part) = (middle(marks), middle(parts));
    if is_first && std::env::var_os("TALLY_GATES_SHOW").is_some() {
        show(path, &mark, &part);
    }
    let found = sum(&part).saturating_sub(sum(&mark)) / ROUNDS;
    assert!(found > 0, "{}: nothing was counted", path.name);
    found
}

/// The part of which half of the others were cheaper.
fn middle(mut parts: Vec<Counts>) -> Counts {
    parts.sort_by_key(sum);
    let middle = parts.len() / 2;
    parts.swap_remove(middle)
}

/// The functions that cost most in a round, counted or not.
fn show(path: &HotPath, mark: &Counts, part: &Counts) {
    let of_mark = |name| mark.get(name).copied().unwrap_or(0);
    let mut rows: Vec<_> = part
        .iter()
        .map(|(name, count)| (count.saturating_sub(of_mark(name)), name))
        .collect();
    rows.sort_unstable();
    for (count, (object, function)) in rows.iter().rev().take(40) {
        let mark = if is_counted(object, function) {
            "counted"
        } else {
            "-"
        };
        eprintln!("{} {:>8} {mark:<7} {function}", path.name, count / ROUNDS);
    }
}

/// A few paths at a time; the results in their order.
fn measure_all(brokers: usize) -> Vec<u64> {
    let template = Template::make();
    let next = AtomicUsize::new(0);
    let mut found: Vec<(usize, u64)> = std::thread::scope(|scope| {
        let work = || {
            let mut found = Vec::new();
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = HOT_PATHS.get(nth) else {
                    break found;
                };
                found.push((nth, measure(path, &template, brokers)));
            }
        };
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        let found = threads.into_iter().map(|thread| thread.join());
        found.flat_map(|found| found.expect("no panic")).collect()
    });
    found.sort_unstable();
    found.into_iter().map(|(_, count)| count).collect()
}

/// Whether so many instructions are too many.
fn judge(found: u64, limit: u64, tolerance: u64) -> Option<String> {
    let is_too_much = found * 1000 > limit * (1000 + tolerance);
    is_too_much.then(|| {
        let allowed = tolerance as f64 / 10.0;
        format!("{found} instructions, {limit} and {allowed} % more are allowed")
    })
}

/// Says so where `scripts/test` counts it.
fn skip(reason: &str) {
    let may_skip = std::env::var_os("TALLY_TEST_NO_SKIP").is_none();
    assert!(may_skip, "the instructions are not counted: {reason}");
    let name = "no_hot_path_executes_more_than_is_written_down";
    writeln!(std::io::stderr(), "skipped: {name}: {reason}").expect("standard error");
}

#[test]
fn no_hot_path_executes_more_than_is_written_down() {
    let compiler = given("TALLY_GATES_COMPILER");
    let limits = Limits::read("instructions.txt");
    if given("TALLY_GATES_VALGRIND").is_empty() {
        return skip("valgrind is not to be had");
    }
    let is_recording = std::env::var_os("TALLY_GATES_RECORD").is_some();
    if !is_recording && limits.note("architecture") != Some(ARCH) {
        return skip("the limits are another processor's");
    }
    let is_same = limits.note("compiler") == Some(&compiler);
    let tolerance = if is_same {
        TOLERANCE
    } else {
        TOLERANCE_OTHER_COMPILER
    };
    let brokers = if is_recording {
        BROKERS_RECORDING
    } else {
        BROKERS
    };
    let found = measure_all(brokers);
    let paths = HOT_PATHS.iter().map(|path| (path.name, "round"));
    let measured: Rows<1> = paths.zip(found.into_iter().map(|count| [count])).collect();
    for ((path, _), [count]) in &measured {
        eprintln!("{path} {count}");
    }
    let compiler = format!("compiler: {compiler}");
    let architecture = format!("architecture: {ARCH}");
    let notes = [
        "Instructions of the release binary for one round of a hot path, the C library and the runtime left out.",
        "Counted by `scripts/gates`; written anew by `scripts/gates --record`.",
        &compiler,
        &architecture,
    ];
    limits.check(&measured, &notes, |[found], [limit]| {
        judge(found, limit, tolerance)
    });
}

#[test]
fn one_in_twenty_more_is_seen() {
    assert_eq!(judge(102_900, 100_000, TOLERANCE), None);
    assert!(judge(105_000, 100_000, TOLERANCE).is_some());
    assert_eq!(judge(105_000, 100_000, TOLERANCE_OTHER_COMPILER), None);
}

#[test]
fn a_profile_is_read_without_what_was_called() {
    let text = "events: Ir\n\nob=/bin/tally\nfl=a.rs\nfn=ours\n12 5\nfi=b.rs\n3 2\ncob=/lib/libc.so\ncfn=memcpy\ncalls=1 0\n12 70\n\
                13 1\n\nob=/lib/libc.so\nfn=memcpy\n0 70\n";
    let counts = read_profile(text);
    let of = |object: &str, function: &str| counts[&(object.to_owned(), function.to_owned())];
    assert_eq!(of("/bin/tally", "ours"), 8);
    assert_eq!(of("/lib/libc.so", "memcpy"), 70);
    assert!(is_counted("/bin/tally", "ours") && !is_counted("/lib/libc.so", "memcpy"));
    assert!(!is_counted("/bin/tally", "tokio::runtime::park"));
}
