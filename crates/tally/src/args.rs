//! The command line. The flags of `serve` are an interface: other programs start the broker with them.
//!
//! A flag is short for a property; nothing here knows what a property means.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tally_broker::config::Setting;

use crate::commands::cluster::ClusterCommand;
use crate::commands::consume::Consume;
use crate::commands::doctor::Doctor;
use crate::commands::explain::Explain;
use crate::commands::group::Group;
use crate::commands::health::Health;
use crate::commands::produce::Produce;
use crate::commands::topic::Topic;
use crate::commands::txn::Txn;
use crate::commands::{Talk, parse_duration};
use crate::output::Format;
use crate::serve::first_topics::FirstTopic;

/// What is run: `tally` alone is `tally serve`.
#[derive(Parser, Debug)]
#[command(
    name = "tally",
    version,
    about = "A broker that unchanged Kafka clients can use, made for exactly-once: idempotent producers, transactions \
             and read-process-write. `tally` alone is `tally serve`.",
    args_conflicts_with_subcommands = true
)]
struct Command {
    #[command(subcommand)]
    subcommand: Option<Subcommands>,
    #[command(flatten)]
    serve: Serve,
    /// For scripts that ask for it: nothing is written in colours, here or elsewhere
    #[arg(long = "no-color", global = true)]
    _no_color: bool,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Run the broker until it is told to stop
    Serve(Box<ServeFile>),
    /// Show what a data directory or one of its files holds; needs no broker and changes nothing
    Dump(Dump),
    /// Check what is there
    #[command(subcommand)]
    Verify(Verify),
    /// Topics: list, show, make, change, remove and empty them
    Topic(Box<Topic>),
    /// Transactions: which there are, what they hold up, and the end of those that nobody ends
    Txn(Box<Txn>),
    /// Groups: which there are, who is in them, how far behind they are, and their offsets changed
    Group(Box<Group>),
    /// Write records, one a line
    Produce(Box<Produce>),
    /// Read records, to the end or on and on
    Consume(Box<Consume>),
    /// The cluster: what it is and promises, its brokers, features and configuration
    Cluster(Box<ClusterCommand>),
    /// Say what is right and what is not: addresses, topics, transactions, groups, disks
    Doctor(Box<Doctor>),
    /// Say what an error, a property, a state or a code of the log means, and what to do
    Explain(Explain),
    /// Print what a shell needs to complete these commands
    Completion(Completion),
    /// Write a manual page for every command into a directory
    Man(Man),
    /// Ask a broker's health page whether it is ready; exit code 3 if it is not
    Health(Health),
    /// Say which version this is
    Version(Version),
}

/// The flags of `tally man`.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Where to; it must be there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    /// Writes the pages.
    pub(crate) fn write(&self) -> std::io::Result<()> {
        clap_mangen::generate_to(Command::command(), &self.directory)
    }

    /// Where to.
    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory
    }
}

/// The flags of `tally version`.
#[derive(Args, Debug)]
struct Version {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Version {
    fn text(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        if self.json {
            format!("{{\"name\":\"tally\",\"version\":\"{version}\"}}\n")
        } else {
            format!("tally {version}\n")
        }
    }
}

/// The flags of `tally completion`.
#[derive(Args, Debug)]
struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Subcommand, Debug)]
enum Verify {
    /// Check the data directory of a stopped broker, or a copy of one; changes nothing without --repair
    Log(VerifyLog),
}

/// What the command line asks for.
pub(crate) enum Chosen {
    /// `tally serve`.
    Serve(Box<Serve>),
    /// `tally dump`.
    Dump(Dump),
    /// `tally verify log`.
    VerifyLog(VerifyLog),
    /// `tally topic`.
    Topic(Box<Topic>),
    /// `tally txn`.
    Txn(Box<Txn>),
    /// `tally group`.
    Group(Box<Group>),
    /// `tally produce`.
    Produce(Box<Produce>),
    /// `tally consume`.
    Consume(Box<Consume>),
    /// `tally cluster`.
    Cluster(Box<ClusterCommand>),
    /// `tally doctor`.
    Doctor(Box<Doctor>),
    /// `tally explain`.
    Explain(Explain),
    /// `tally completion` and `tally version`: what is printed.
    Print(Vec<u8>),
    /// `tally man`.
    Man(Man),
    /// `tally health`.
    Health(Health),
}

/// The flags of `tally dump`.
#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// A file, a partition as TOPIC:PARTITION or by its directory, or a data directory [default: the data directory]
    #[arg(value_name = "FILE|TOPIC:PARTITION|DIR")]
    pub(crate) target: Option<String>,

    /// Data directory [default: ./tally-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Begin with the batch that holds this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub(crate) from: i64,

    /// Show the records in the batches too, decompressed, those of the coordinators decoded
    #[arg(long)]
    pub(crate) records: bool,

    /// Show bytes as hexadecimal digits: of batches, keys, values and unknown files
    #[arg(long)]
    pub(crate) raw: bool,

    /// Show control batches alone
    #[arg(long)]
    pub(crate) markers: bool,

    /// How to write it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// The flags of `tally verify log`.
#[derive(Args, Debug)]
pub(crate) struct VerifyLog {
    /// Data directories [default: ./tally-data]
    #[arg(value_name = "DIR")]
    pub(crate) directories: Vec<PathBuf>,

    /// Mend what is damaged: it leaves the log, and is kept in a directory repaired-N beside it; then check again
    #[arg(long)]
    pub(crate) repair: bool,

    /// Say what --repair would do, and change nothing
    #[arg(long, requires = "repair")]
    pub(crate) dry_run: bool,

    /// Only this partition
    #[arg(long, value_name = "TOPIC:PARTITION")]
    pub(crate) partition: Option<String>,

    /// Also decompress every batch and read every record
    #[arg(long)]
    pub(crate) deep: bool,

    /// Offsets may be missing in every topic: log.cleanup.policy of the broker is compact
    #[arg(long)]
    pub(crate) compacted: bool,

    /// How to write it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// What `tally serve` takes, and `tally` alone does not: there a first word is a subcommand.
#[derive(Args, Debug)]
struct ServeFile {
    /// File of properties, as Kafka's server.properties; the environment (KAFKA_LOG_RETENTION_MS for log.retention.ms) is
    /// stronger than it, flags are stronger than both
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    serve: Serve,
}

/// The flags of `tally serve`.
#[derive(Args, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serve {
    /// That of [`ServeFile`].
    #[arg(skip)]
    pub(crate) file: Option<PathBuf>,

    /// Data directory [default: ./tally-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,

    /// Address for Kafka clients; port 0 chooses one, an empty host is 127.0.0.1 [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,

    /// Address that clients are told to connect to [default: the one listened on]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,

    /// Any property, by Kafka's name or tally.*; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_property)]
    pub(crate) properties: Vec<(String, String)>,

    /// Address of the HTTP port for /livez, /readyz and /startupz, or off [default: off]
    #[arg(long, value_name = "HOST:PORT|off")]
    pub(crate) http: Option<String>,

    /// Number of this broker [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) node_id: Option<String>,

    /// What an answer promises: os (survives kill -9, not power loss), commit, always, memory [default: os]
    #[arg(long, value_name = "MODE")]
    pub(crate) durability: Option<String>,

    /// Keep nothing: short for --durability memory
    #[arg(long, conflicts_with = "durability")]
    pub(crate) memory: bool,

    /// Topics that are made before the broker says that it is ready, unless they are there: NAME[:PARTITIONS[:compact|delete]],…
    #[arg(long, value_name = "SPEC", value_delimiter = ',')]
    pub(crate) topics: Vec<FirstTopic>,

    /// Stop after this time (10m), in case nobody else does
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) max_lifetime: Option<Duration>,

    /// Write HOST:PORT of the Kafka listener to this file when the broker is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,

    /// Stop when standard input is closed
    #[arg(long)]
    pub(crate) exit_with_parent: bool,

    /// Check the configuration and what it names, without starting; the exit code is 0 or 2
    #[arg(long)]
    pub(crate) check_config: bool,

    /// Print the properties that were given, or all of them, as a file of properties, without starting
    #[arg(
        long,
        value_name = "WHICH",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "differences"
    )]
    pub(crate) print_config: Option<Shown>,

    /// What to log, in the form of RUST_LOG, which it wins over [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// How the log is written, on standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
}

/// How the log is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Which properties are printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// Those that were given
    Differences,
    /// All, with their defaults
    All,
}

/// Reads the command line; a mistake in it ends the process with code 2.
pub(crate) fn parse() -> Chosen {
    chosen(Command::parse())
}

fn chosen(command: Command) -> Chosen {
    match command.subcommand {
        Some(Subcommands::Serve(given)) => {
            let ServeFile { file, serve } = *given;
            Chosen::Serve(Box::new(Serve { file, ..serve }))
        }
        Some(Subcommands::Dump(dump)) => Chosen::Dump(dump),
        Some(Subcommands::Verify(Verify::Log(verify))) => Chosen::VerifyLog(verify),
        Some(Subcommands::Topic(topic)) => Chosen::Topic(topic),
        Some(Subcommands::Txn(txn)) => Chosen::Txn(txn),
        Some(Subcommands::Group(group)) => Chosen::Group(group),
        Some(Subcommands::Produce(produce)) => Chosen::Produce(produce),
        Some(Subcommands::Consume(consume)) => Chosen::Consume(consume),
        Some(Subcommands::Cluster(cluster)) => Chosen::Cluster(cluster),
        Some(Subcommands::Doctor(doctor)) => Chosen::Doctor(doctor),
        Some(Subcommands::Explain(explain)) => Chosen::Explain(explain),
        Some(Subcommands::Completion(Completion { shell })) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Command::command(), "tally", &mut script);
            Chosen::Print(script)
        }
        Some(Subcommands::Man(man)) => Chosen::Man(man),
        Some(Subcommands::Health(health)) => Chosen::Health(health),
        Some(Subcommands::Version(version)) => Chosen::Print(version.text().into_bytes()),
        None => Chosen::Serve(Box::new(command.serve)),
    }
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

impl Serve {
    /// The properties that were given by flags, each with the flag that gave it.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let flags = [
            ("--data", "log.dirs", &self.data),
            ("--listen", "listeners", &self.listen),
            ("--advertise", "advertised.listeners", &self.advertise),
            ("--http", "tally.http.listeners", &self.http),
            ("--node-id", "node.id", &self.node_id),
            ("--durability", "tally.durability", &self.durability),
        ];
        let by_flag = flags.into_iter().filter_map(|(flag, name, value)| {
            value
                .as_ref()
                .map(|value| Setting::new(name, value.as_str(), flag))
        });
        let in_memory = self
            .memory
            .then(|| Setting::new("tally.durability", "memory", "--memory"));
        let by_name = self
            .properties
            .iter()
            .map(|(name, value)| Setting::new(name.as_str(), value.as_str(), "--set"));
        by_flag.chain(in_memory).chain(by_name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(line: &str) -> Serve {
        match chosen(Command::try_parse_from(line.split(' ')).unwrap()) {
            Chosen::Serve(serve) => *serve,
            _ => panic!("{line} is tally serve"),
        }
    }

    #[test]
    fn the_command_is_well_formed() {
        Command::command().debug_assert();
    }

    #[test]
    fn tally_alone_is_tally_serve() {
        assert_eq!(parsed("tally"), Serve::default());
        assert_eq!(parsed("tally serve"), Serve::default());
        assert_eq!(
            parsed("tally --listen :0"),
            parsed("tally serve --listen :0")
        );
    }

    #[test]
    fn a_script_may_ask_for_no_colours_anywhere() {
        for line in [
            "tally --no-color",
            "tally serve --no-color",
            "tally explain 3 --no-color",
            "tally topic list --no-color",
        ] {
            let command = Command::try_parse_from(line.split(' ')).unwrap();
            assert!(command._no_color, "{line}");
        }
    }

    #[test]
    fn flags_are_short_for_properties() {
        let serve = parsed(
            "tally serve --data d --listen h:1 --advertise a:2 --set k=v=w --set l= --http off --node-id 3 \
             --port-file f --exit-with-parent --durability os",
        );
        let settings: Vec<String> = serve
            .settings()
            .into_iter()
            .map(|setting| format!("{}={} {}", setting.name, setting.value, setting.origin))
            .collect();
        assert_eq!(
            settings,
            [
                "log.dirs=d --data",
                "listeners=h:1 --listen",
                "advertised.listeners=a:2 --advertise",
                "tally.http.listeners=off --http",
                "node.id=3 --node-id",
                "tally.durability=os --durability",
                "k=v=w --set",
                "l= --set",
            ]
        );
        assert_eq!(serve.file, None);
        assert!(serve.exit_with_parent);
        assert_eq!(serve.port_file, Some(PathBuf::from("f")));
    }

    #[test]
    fn a_file_of_properties_is_named_first_or_last() {
        for line in ["tally serve f --node-id 3", "tally serve --node-id 3 f"] {
            assert_eq!(parsed(line).file, Some(PathBuf::from("f")), "{line}");
        }
        let shown = |line| parsed(line).print_config;
        assert_eq!(shown("tally serve f"), None);
        assert_eq!(
            shown("tally serve --print-config f"),
            Some(Shown::Differences)
        );
        assert_eq!(shown("tally --print-config=all"), Some(Shown::All));
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            "tally --set k",
            "tally --set =v",
            "tally srve",
            "tally serve --port 1",
            "tally serve f g",
            "tally serve --print-config=some",
            "tally serve --memory --durability os",
            "tally serve --topics a:0",
            "tally serve --max-lifetime x",
        ] {
            assert!(Command::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
