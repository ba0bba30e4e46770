//! What a run prints: one line of a table, and when it failed, what was found and the ends of the logs.

use std::path::Path;
use std::time::Duration;

use crate::application;
use crate::client::tail;
use crate::plan::Control;
use crate::run::Outcome;

/// The head of the table. Kills are the broker's + the processors'.
pub(crate) const HEAD: &str = "client                   records  transactions  kills  cuts    lost  doubled    torn   other  seconds  seed";
/// Lines of each log that are shown.
const TAIL_LINES: usize = 15;

/// What a run was, beside what came of it.
pub(crate) struct About<'a> {
    pub(crate) client: &'a str,
    pub(crate) records: u64,
    pub(crate) seed: u64,
    pub(crate) control: Option<Control>,
    pub(crate) time: Duration,
}

/// Prints the line of this run, and says whether it is as it must be.
pub(crate) fn print(about: &About<'_>, outcome: &Outcome, logs: &Path) -> bool {
    let found = &outcome.findings;
    let About {
        client, control, ..
    } = *about;
    let cuts: u64 = outcome.cuts.values().sum();
    let (name, good) = match control {
        None => (client.to_owned(), found.is_clean()),
        Some(Control::NoIdempotence) => (
            format!("{client} no-idempotence"),
            cuts > 0 && found.doubled > 0,
        ),
        Some(Control::OffsetsFirst) => (
            format!("{client} offsets-first"),
            outcome.processor_kills > 0 && found.lost > 0,
        ),
    };
    println!(
        "{name:<25}{:>7} {:>13} {:>6} {:>5} {:>7} {:>8} {:>7} {:>7} {:>8.1}  {}",
        about.records,
        outcome.transactions,
        format!("{}+{}", outcome.broker_kills, outcome.processor_kills),
        cuts,
        found.lost,
        found.doubled,
        found.torn,
        found.other,
        about.time.as_secs_f64(),
        about.seed
    );
    eprintln!("{client}: answers taken away: {:?}", outcome.cuts);
    let text = found.examples.join("\n");
    // The directory is the caller's to keep; a run is not worse for a note that could not be left there.
    std::fs::write(logs.join("findings.txt"), &text).ok();
    if !good {
        match control {
            None => eprintln!("{text}"),
            Some(_) => eprintln!("the judge has not seen the fault that was forced\n{text}"),
        }
        eprintln!("logs are in {}", logs.display());
    }
    good
}

/// Prints the line of an application's run, and says whether it is as it must be.
pub(crate) fn print_application(
    about: &About<'_>,
    outcome: &application::Outcome,
    logs: &Path,
) -> bool {
    let found = &outcome.findings;
    println!(
        "{}: {} records, {} broker kills, {} kills ({} with its state wiped), {} cuts: {} lost, {} doubled, {} other; {:.1} s, seed {}",
        about.client,
        about.records,
        outcome.broker_kills,
        outcome.kills,
        outcome.wiped,
        outcome.cuts,
        found.lost,
        found.doubled,
        found.other,
        about.time.as_secs_f64(),
        about.seed
    );
    if !found.is_clean() {
        eprintln!("{}", found.examples.join("\n"));
        print_logs(logs);
        eprintln!("logs are in {}", logs.display());
    }
    found.is_clean()
}

/// Shows the ends of all logs of a run that came to no end.
pub(crate) fn print_logs(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut logs: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for log in logs {
        eprintln!("--- {}\n{}", log.display(), tail(&log, TAIL_LINES));
    }
}
