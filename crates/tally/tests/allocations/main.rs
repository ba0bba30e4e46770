//! How often the broker asks for memory on its hot paths: counted, and not more than is written down in
//! `hot_paths/allocations.txt`. A regression gate that no busy machine disturbs.
//!
//! A broker of this process, all of which runs on one thread, serves one client on another thread. Every allocation and
//! reallocation of the broker's thread counts; between two requests it is asked how many there were, which it answers once it
//! is done with the one before.

#[path = "../hot_paths/limits.rs"]
mod limits;
#[path = "../hot_paths/steps.rs"]
mod steps;

use limits::{Limits, Rows};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use steps::{HOT_PATHS, HotPath};
use tally_broker::config::{BrokerConfig, Setting};
use tally_broker::{Broker, Loggers};

/// Rounds that are not counted: buffers grow, files are mapped.
const WARM_UP: usize = 50;
/// Rounds that are.
const ROUNDS: usize = 100;

/// The system's allocator, which counts for one thread.
struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that is about to end has no such variable any more.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps what this trait asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A broker on a thread of its own.
struct Counted {
    address: String,
    ask: Option<tokio::sync::mpsc::UnboundedSender<mpsc::Sender<u64>>>,
    thread: Option<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Counted {
    fn start() -> Counted {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = [
            (
                "log.dirs",
                directory.path().join("data").display().to_string(),
            ),
            ("listeners", "PLAINTEXT://127.0.0.1:0".to_owned()),
            ("tally.shards", "8".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ];
        let settings: Vec<Setting> = settings
            .into_iter()
            .map(|(name, value)| Setting::new(name, value, "the gate"))
            .collect();
        let config = BrokerConfig::from_settings(&settings)
            .expect("settings of the table")
            .0;
        let (tell, told) = mpsc::channel();
        let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<mpsc::Sender<u64>>();
        let thread = std::thread::spawn(move || {
            IS_COUNTED.set(true);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async {
                let broker = Broker::start(config, Loggers::fixed())
                    .await
                    .expect("it starts");
                tell.send(broker.local_addr().to_string())
                    .expect("somebody waits");
                while let Some(to) = asked.recv().await {
                    to.send(COUNT.load(Ordering::Relaxed))
                        .expect("somebody waits");
                }
                broker.shutdown().await.expect("it stops");
            });
        });
        Counted {
            address: told.recv().expect("the broker starts"),
            ask: Some(ask),
            thread: Some(thread),
            directory,
        }
    }

    /// How many there have been, once the broker does nothing.
    fn count(&self) -> u64 {
        let (to, answer) = mpsc::channel();
        let ask = self.ask.as_ref().expect("it runs");
        ask.send(to).expect("it runs");
        answer.recv().expect("it runs")
    }

    /// Usual number of each step, and the sum of all rounds.
    fn measure(&self, path: &HotPath) -> Vec<[u64; 2]> {
        let mut load = path.begin(&self.address);
        let mut counts = vec![Vec::new(); path.steps.len()];
        // What asking costs: the answer is made by the broker's thread. The broker's own work may fall in between, now and then.
        let once = || {
            let begun = self.count();
            self.count() - begun
        };
        let asking = (0..10).map(|_| once()).min().expect("ten times");
        for round in 0..WARM_UP + ROUNDS {
            for ((_, step), counts) in path.steps.iter().zip(&mut counts) {
                let before = self.count();
                step(&mut load);
                let after = self.count();
                if round >= WARM_UP {
                    counts.push(after - before - asking);
                }
            }
        }
        let numbers = counts.into_iter().map(|mut counts: Vec<u64>| {
            counts.sort_unstable();
            [counts[counts.len() / 2], counts.iter().sum()]
        });
        numbers.collect()
    }

    fn stop(mut self) {
        drop(self.ask.take());
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the broker does not panic");
        drop(self.directory);
    }
}

/// More than usual is too much by one; of the sum, in which buffers are that grow now and then, a twentieth is let pass.
fn judge([usual, all]: [u64; 2], [usual_max, all_max]: [u64; 2]) -> Option<String> {
    let is_too_much = usual > usual_max || all > all_max + all_max / 20 + 5;
    is_too_much.then(|| {
        format!(
            "{usual} allocations, {all} in {ROUNDS} rounds; {usual_max} and {all_max} are allowed"
        )
    })
}

#[test]
fn no_hot_path_allocates_more_than_is_written_down() {
    let broker = Counted::start();
    let mut measured: Rows<2> = Vec::new();
    for path in &HOT_PATHS {
        let numbers = broker.measure(path);
        let steps = path.steps.iter().map(|(name, _)| (path.name, *name));
        measured.extend(steps.zip(numbers));
    }
    broker.stop();
    let notes = [
        "Allocations and reallocations of the broker for one request: the usual number, and the sum of 100.",
        "Counted by `cargo test -p tally --test allocations`; with TALLY_GATES_RECORD=1 written anew.",
    ];
    Limits::read("allocations.txt").check(&measured, &notes, judge);
}

#[test]
fn one_more_is_too_much() {
    assert_eq!(judge([9, 900], [9, 900]), None);
    assert_eq!(judge([9, 940], [9, 900]), None, "a buffer that grew");
    for found in [[10, 900], [9, 951]] {
        assert!(judge(found, [9, 900]).is_some(), "{found:?}");
    }
}
