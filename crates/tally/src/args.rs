//! The command line. The flags of `serve` are an interface: other programs start the broker with them.
//!
//! A flag is short for a property; nothing here knows what a property means.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tally_broker::config::Setting;

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
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// Run the broker until it is told to stop
    Serve(Serve),
}

/// The flags of `tally serve`.
#[derive(Args, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serve {
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

    /// Address of the HTTP port for /livez and /readyz, or off [default: off]
    #[arg(long, value_name = "HOST:PORT|off")]
    pub(crate) http: Option<String>,

    /// Number of this broker [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) node_id: Option<String>,

    /// What an answer promises: os (survives kill -9, not power loss) [default: os]
    #[arg(long, value_name = "MODE")]
    pub(crate) durability: Option<String>,

    /// Write HOST:PORT of the Kafka listener to this file when the broker is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,

    /// Stop when standard input is closed
    #[arg(long)]
    pub(crate) exit_with_parent: bool,

    /// What to log, in the form of RUST_LOG, which it wins over [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// Reads the command line; a mistake in it ends the process with code 2.
pub(crate) fn parse() -> Serve {
    serve_of(Command::parse())
}

fn serve_of(command: Command) -> Serve {
    match command.subcommand {
        Some(Subcommands::Serve(serve)) => serve,
        None => command.serve,
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
    /// The properties that were given, each with the flag that gave it.
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
        let by_name = self
            .properties
            .iter()
            .map(|(name, value)| Setting::new(name.as_str(), value.as_str(), "--set"));
        by_flag.chain(by_name).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[track_caller]
    fn parsed(line: &str) -> Serve {
        serve_of(Command::try_parse_from(line.split(' ')).unwrap())
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
        assert!(serve.exit_with_parent);
        assert_eq!(serve.port_file, Some(PathBuf::from("f")));
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            "tally --set k",
            "tally --set =v",
            "tally srve",
            "tally serve --port 1",
        ] {
            assert!(Command::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
