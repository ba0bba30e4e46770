//! `tally serve`: opens the broker, says so, waits to be told to stop.
//!
//! Exit codes: 0 stopped clean; 1 the stop was forced or failed; 2 it could not start: configuration, data directory, port.
//! A second Ctrl-C or SIGTERM ends the process at once, which is as safe as kill -9.

pub(crate) mod first_topics;
mod log;

use std::io::{self, Read};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tally_broker::config::{Address, BrokerConfig};
use tally_broker::{Broker, Loggers, StartError, StopProgress};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::Serve;
use crate::output::{complain, print};
use crate::{banner, container, limits, port_file, port_holder, settings};

/// Longest time that a clean stop may take without getting on.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that the disk may take for what the system has kept for it.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

const EXIT_FORCED: u8 = 1;
const EXIT_UNUSABLE: u8 = 2;
/// What shells report for a process that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the broker until it is told to stop.
pub(crate) fn run(args: &Serve) -> ExitCode {
    let began = Instant::now();
    match start_runtime(args, began) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            complain(&message);
            ExitCode::from(EXIT_UNUSABLE)
        }
    }
}

fn start_runtime(args: &Serve, began: Instant) -> Result<u8, String> {
    let loggers = log::start(args.log.as_deref(), args.log_format)?;
    let given = settings::given(args)?;
    let (config, warnings) =
        BrokerConfig::from_settings(&given.settings).map_err(|error| error.to_string())?;
    for warning in warnings
        .iter()
        .map(ToString::to_string)
        .chain(given.warning)
    {
        tracing::warn!("{warning}");
    }
    if args.check_config {
        settings::check(&config)?;
    }
    if let Some(shown) = args.print_config {
        print(&settings::printed(&config, shown));
    } else if args.check_config {
        print("the configuration can be used\n");
    }
    if args.check_config || args.print_config.is_some() {
        return Ok(0);
    }
    if let Some(warning) = container::warning(&config).filter(|_| container::is_one()) {
        tracing::warn!("{warning}");
    }
    limits::raise_open_files();
    if let Some(path) = &args.port_file {
        port_file::remove(path)
            .map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let outcome = runtime.block_on(serve(args, (config, loggers), began));
    // Whatever still runs (a stop that was forced) must not hold the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    args: &Serve,
    (config, loggers): (BrokerConfig, Loggers),
    began: Instant,
) -> Result<u8, String> {
    let mut stop = Stop::listen(args.exit_with_parent, args.max_lifetime)
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let broker = tokio::select! {
        started = Broker::start(config.clone(), loggers) => {
            started.map_err(|error| explain(&error, &config.listen))?
        }
        // Recovery can be done again, so there is nothing to wait for.
        reason = stop.requested() => {
            tracing::info!(reason, "stopped before it was ready");
            return Ok(0);
        }
    };
    let made = match make_ready(args, &broker).await {
        Ok(made) => made,
        Err(message) => {
            // It was up: what it has is left as by any other stop.
            return Err(match broker.shutdown().await {
                Ok(_) => message,
                Err(error) => format!("{message}; {error}"),
            });
        }
    };
    let mut summary = broker.summary().clone();
    summary.topic_count += made;
    print(&banner::banner(
        &config,
        &summary,
        broker.local_addr(),
        began.elapsed(),
    ));
    // Test frameworks wait for these words of Kafka's log.
    tracing::info!("Transitioning from RECOVERY to RUNNING");

    let reason = stop.requested().await;
    tracing::info!(reason, "stopping");
    let progress = broker.stop_progress();
    tokio::select! {
        stopped = broker.shutdown() => Ok(match stopped {
            Ok(left_open) => {
                print(&banner::farewell(&left_open));
                0
            }
            Err(error) => {
                complain(&format!("stopped, not clean: {error}; the next start recovers"));
                EXIT_FORCED
            }
        }),
        waited = out_of_patience(&progress) => {
            complain(&format!("stopped by force after {waited} s; the next start recovers"));
            Ok(EXIT_FORCED)
        }
        _ = stop.signalled() => {
            complain("stopped at once; the next start recovers");
            Ok(EXIT_INTERRUPTED)
        }
    }
}

/// Makes what is there before anybody is told that the broker is ready, then tells. How many topics it made.
async fn make_ready(args: &Serve, broker: &Broker) -> Result<usize, String> {
    let made = make_topics(args, broker).await?;
    broker.become_ready();
    if let Some(path) = &args.port_file {
        port_file::write(path, broker.local_addr())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(made)
}

/// The topics of `--topics`; a broker that can't have them does not become ready.
async fn make_topics(args: &Serve, broker: &Broker) -> Result<usize, String> {
    if args.topics.is_empty() {
        return Ok(0);
    }
    let (address, topics) = (broker.local_addr(), args.topics.clone());
    let making = tokio::task::spawn_blocking(move || first_topics::make(address, &topics));
    making.await.map_err(|error| format!("--topics: {error}"))?
}

/// Returns when a stop does not get on any more: after how many seconds. Ten thousand partitions take their time; what is
/// forced is no better than what is killed.
async fn out_of_patience(progress: &StopProgress) -> u64 {
    let began = Instant::now();
    let mut synced_since = None;
    loop {
        let steps = progress.steps();
        tokio::time::sleep(STOP_TIMEOUT).await;
        if progress.is_syncing() {
            let since = *synced_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= SYNC_TIMEOUT {
                return began.elapsed().as_secs();
            }
            tracing::info!("stopping: the disk is not done yet");
        } else if progress.steps() == steps {
            return began.elapsed().as_secs();
        } else {
            tracing::info!(
                steps = progress.steps(),
                "stopping: there are many partitions"
            );
        }
    }
}

/// What to tell the person: who has the port, when that is the matter.
fn explain(error: &StartError, listen: &Address) -> String {
    let StartError::Listen { address, source } = error else {
        return error.to_string();
    };
    if source.kind() != io::ErrorKind::AddrInUse {
        return error.to_string();
    }
    let port = Address::parse(address).map_or(listen.port, |address| address.port);
    let holder = port_holder::holder_of(port)
        .map(|holder| format!(" by pid {} ({})", holder.pid, holder.name))
        .unwrap_or_default();
    let flag = if *address == listen.to_string() {
        "--listen"
    } else {
        "--http"
    };
    let other = port.checked_add(1).unwrap_or(0);
    format!("port {port} is taken{holder}. Use {flag} :{other}, or stop it.")
}

/// Everything that tells the broker to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Gets a message when standard input ends; never, when nobody asked for that.
    parent: mpsc::Receiver<()>,
    /// Keeps `parent` open.
    _keep: mpsc::Sender<()>,
    /// The longest time to run.
    until: Option<tokio::time::Instant>,
}

impl Stop {
    fn listen(with_parent: bool, lifetime: Option<Duration>) -> io::Result<Stop> {
        let (sender, parent) = mpsc::channel(1);
        if with_parent {
            let sender = sender.clone();
            // A thread, because a read of standard input cannot be given up.
            std::thread::Builder::new()
                .name("parent".to_owned())
                .spawn(move || wait_for_parent(&sender))?;
        }
        Ok(Stop {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            parent,
            _keep: sender,
            until: lifetime.and_then(|lifetime| tokio::time::Instant::now().checked_add(lifetime)),
        })
    }

    /// Why the broker has to stop, once it has to.
    async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.parent.recv() => "standard input was closed",
            () = end_of(self.until) => "--max-lifetime is over",
        }
    }

    /// The next signal.
    async fn signalled(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns at that time; never, if there is none.
async fn end_of(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Reads standard input to its end: the parent process has closed it, or is gone.
fn wait_for_parent(ended: &mpsc::Sender<()>) {
    let mut buffer = [0; 1024];
    loop {
        match io::stdin().lock().read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if ended.blocking_send(()).is_err() {
        tracing::debug!("nobody waits for standard input any more");
    }
}
