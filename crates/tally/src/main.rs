//! The `tally` command: `serve` runs the broker, `dump` and `verify log` look into its files while it does not run.
//! The other commands ask a running cluster, over the wire like anyone.

#![forbid(unsafe_code)]

mod args;
mod banner;
mod client;
mod commands;
mod container;
mod decode;
mod dump;
mod limits;
mod offline;
mod output;
mod port_file;
mod port_holder;
mod serve;
mod settings;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse() {
        args::Chosen::Serve(serve) => serve::run(&serve),
        args::Chosen::Dump(dump) => dump::run(&dump),
        args::Chosen::VerifyLog(verify) => verify::run(&verify),
        args::Chosen::Topic(topic) => commands::topic::run(&topic),
        args::Chosen::Txn(txn) => commands::txn::run(&txn),
        args::Chosen::Group(group) => commands::group::run(&group),
        args::Chosen::Produce(produce) => commands::produce::run(&produce),
        args::Chosen::Consume(consume) => commands::consume::run(&consume),
        args::Chosen::Cluster(cluster) => commands::cluster::run(&cluster),
        args::Chosen::Doctor(doctor) => commands::doctor::run(&doctor),
        args::Chosen::Explain(explain) => commands::explain::run(&explain),
        args::Chosen::Print(text) => {
            output::print_bytes(&text);
            ExitCode::SUCCESS
        }
        args::Chosen::Man(man) => commands::man(&man),
        args::Chosen::Health(health) => commands::health::run(&health),
    }
}
