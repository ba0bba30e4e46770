//! What is measured: the floor, Tally, Apache Kafka, each a process with a directory and a port of its own.

use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tally_testkit::client::{Client, Producer};

/// How long a broker may take to start or to stop.
const START_MAX: Duration = Duration::from_secs(120);

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// This program's own.
    Floor,
    /// The binary of the project.
    Tally,
    /// Apache Kafka, by scripts/reference-kafka.
    Kafka,
    /// Somebody else's, that runs already.
    Other,
}

impl Kind {
    /// Its name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::Tally => "Tally",
            Kind::Kafka => "Kafka",
            Kind::Other => "other",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The tally binary.
    pub(crate) tally: PathBuf,
    /// scripts/reference-kafka.
    pub(crate) kafka: PathBuf,
    /// Where all data goes.
    pub(crate) directory: PathBuf,
    /// Processors that it may use, as taskset writes them; all if there is nothing.
    pub(crate) processors: Option<&'static str>,
}

impl Programs {
    /// The same, with data in a folder of its own.
    pub(crate) fn below(&self, folder: &str) -> Programs {
        Programs {
            directory: self.directory.join(folder),
            ..self.clone()
        }
    }
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Target {
    /// Which.
    pub(crate) kind: Kind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    programs: Programs,
    settings: Vec<String>,
    directory: PathBuf,
    child: Option<Child>,
    topic: RefCell<String>,
    /// How long the last start took.
    pub(crate) start: Duration,
}

impl Target {
    /// Starts a program on a new directory. `settings` are `KEY=VALUE`.
    pub(crate) fn start(programs: &Programs, kind: Kind, settings: &[&str]) -> Result<Target> {
        let directory = programs.directory.join(kind.name().to_lowercase());
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let mut target = Target {
            kind,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            programs: programs.clone(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            directory,
            child: None,
            topic: RefCell::default(),
            start: Duration::ZERO,
        };
        target.start_again()?;
        Ok(target)
    }

    /// A broker that runs already; its process is not ours, so there are no figures of it.
    pub(crate) fn other(programs: &Programs, address: SocketAddr) -> Target {
        Target {
            kind: Kind::Other,
            address,
            programs: programs.clone(),
            settings: Vec::new(),
            directory: programs.directory.join("other"),
            child: None,
            topic: RefCell::default(),
            start: Duration::ZERO,
        }
    }

    /// Starts it again on its data.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        let port_file = self.directory.join("port");
        if port_file.exists() {
            fs::remove_file(&port_file)?;
        }
        let mut command = self.command(&port_file)?;
        let began = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let address = loop {
            if let Some(status) = child.try_wait()? {
                bail!("{} ended at its start: {status}", self.kind.name());
            }
            if let Ok(address) = fs::read_to_string(&port_file) {
                break address;
            }
            ensure!(
                began.elapsed() < START_MAX,
                "{} does not start",
                self.kind.name()
            );
            std::thread::sleep(Duration::from_micros(200));
        };
        self.start = began.elapsed();
        self.child = Some(child);
        self.address = resolve(address.trim())?;
        Ok(())
    }

    fn command(&self, port_file: &Path) -> Result<Command> {
        let data = self.directory.join("data");
        let log = fs::File::create(self.directory.join("log"))?;
        let (program, verb) = match self.kind {
            Kind::Floor => (std::env::current_exe()?, Some("floor")),
            Kind::Tally => (self.programs.tally.clone(), Some("serve")),
            Kind::Kafka => (self.programs.kafka.clone(), None),
            Kind::Other => bail!("another's broker is not started from here"),
        };
        let mut command = match self.programs.processors {
            Some(processors) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", processors]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(verb);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        command
            .arg("--data")
            .arg(data)
            .arg("--port-file")
            .arg(port_file);
        if self.kind == Kind::Tally {
            command.args(["--listen", "127.0.0.1:0", "--exit-with-parent"]);
        }
        let flag = if self.kind == Kind::Kafka {
            "--property"
        } else {
            "--set"
        };
        for setting in &self.settings {
            command.args([flag, setting]);
        }
        Ok(command)
    }

    /// The number of its process, if that is ours.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it runs")?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if began.elapsed() > START_MAX {
                child.kill()?;
                bail!("{} does not stop", self.kind.name());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Kills it as kill -9 does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address.to_string())
    }

    /// Makes a topic that was never there before, and returns its name; the floor's come into being as they are used.
    pub(crate) fn new_topic(&self, partitions: i32) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-{number}");
        if self.kind != Kind::Floor {
            self.client().create_topic(&name, partitions, &[]);
        }
        self.topic.replace(name.clone());
        name
    }

    /// The topic that was made last.
    pub(crate) fn topic(&self) -> String {
        self.topic.borrow().clone()
    }

    /// Removes that topic with its data.
    pub(crate) fn delete_topic(&self) {
        use kafka_protocol::messages::DeleteTopicsRequest;
        use tally_testkit::client::topic_name;
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(&self.topic())])
            .with_timeout_ms(30_000);
        let mut client = self.client();
        if self.kind == Kind::Floor {
            // It removes all, and its answer has no body.
            client.send(4, &request);
            client.receive_frame();
        } else {
            client.call(4, &request);
        }
    }

    /// Producers, with transactional ids if there is a prefix for them.
    pub(crate) fn producers(&self, count: usize, ids: Option<&str>) -> Vec<Producer> {
        if self.kind == Kind::Floor {
            return (0..count)
                .map(|nth| Producer {
                    id: nth as i64,
                    epoch: 0,
                })
                .collect();
        }
        let mut client = self.client();
        let producers = (0..count).map(|nth| {
            let id = ids.map(|prefix| format!("{prefix}-{nth}"));
            init(&mut client, id.as_deref())
        });
        producers.collect()
    }

    /// Seconds of processor time that it has used, user and system; 0 for another's broker.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let Some(child) = &self.child else {
            return Ok(0.0);
        };
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        let ticks = stat_field(&stat, 14)? + stat_field(&stat, 15)?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Page faults that are counted as major, of the threads that serve connections: those that waited for the disk, and those that
    /// let go of the map to have more read ahead. Of Tally these are the first that its
    /// runtime has begun, one for each processor; those that may wait come later and have the same name.
    pub(crate) fn worker_faults(&self) -> Result<u64> {
        let Some(child) = &self.child else {
            return Ok(0);
        };
        let mut threads = Vec::new();
        for thread in fs::read_dir(format!("/proc/{}/task", child.id()))? {
            // One that may wait may have ended meanwhile.
            let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else {
                continue;
            };
            if self.kind != Kind::Tally || stat.contains("(tokio-") {
                let id = stat.split(' ').next().unwrap_or("").parse::<u64>()?;
                threads.push((stat_field(&stat, 22)?, id, stat_field(&stat, 12)?));
            }
        }
        ensure!(!threads.is_empty(), "{} has no threads", self.kind.name());
        threads.sort_unstable();
        let workers = std::thread::available_parallelism()?.get();
        Ok(threads.iter().take(workers).map(|thread| thread.2).sum())
    }

    /// Bytes of memory: all that are resident, and those of them that are no file's.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let Some(child) = &self.child else {
            return Ok((0, 0));
        };
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        let (all, anonymous) = of("VmRSS:")
            .zip(of("RssAnon:"))
            .context("/proc/PID/status")?;
        Ok((all << 10, anonymous << 10))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill().is_err() || child.wait().is_err();
        }
        let _kept = fs::remove_dir_all(&self.directory).is_err();
    }
}

/// A number of `/proc/PID/stat` by its place in proc(5). The name, which is the second, may hold anything.
fn stat_field(stat: &str, place: usize) -> Result<u64> {
    let behind = stat.rsplit_once(')').context("a process has a name")?.1;
    let field = behind.split_whitespace().nth(place - 3);
    Ok(field.context("a field of /proc/PID/stat")?.parse()?)
}

/// The address of `HOST:PORT`.
pub(crate) fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found = address
        .to_socket_addrs()
        .with_context(|| format!("the address {address}"))?;
    found
        .next()
        .with_context(|| format!("{address} has no address"))
}

/// InitProducerId, as often as the coordinator needs to come up.
fn init(client: &mut Client, id: Option<&str>) -> Producer {
    use kafka_protocol::messages::InitProducerIdRequest;
    use tally_testkit::client::{is_not_ready, transactional_id};
    let request = InitProducerIdRequest::default()
        .with_transactional_id(id.map(transactional_id))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    if let Some(id) = id {
        tally_testkit::waiting::wait_until("the transaction coordinator", || {
            client.find_coordinator(id, 1) == 0
        });
    }
    tally_testkit::waiting::wait_for("a producer id", || {
        let response = client.call(4, &request);
        let error = response.error_code;
        assert!(
            error == 0 || is_not_ready(error) || error == 51,
            "InitProducerId: {error}"
        );
        (error == 0).then_some(Producer {
            id: response.producer_id.0,
            epoch: response.producer_epoch,
        })
    })
}
