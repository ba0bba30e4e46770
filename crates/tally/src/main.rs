//! The `tally` command: `serve` runs the broker. Client-side commands come later; they will speak the wire like anyone.

#![forbid(unsafe_code)]

mod args;
mod banner;
mod limits;
mod output;
mod port_file;
mod port_holder;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    let serve = args::parse();
    serve::run(&serve)
}
