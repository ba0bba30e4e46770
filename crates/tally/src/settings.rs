//! Where the broker's properties come from, and what can be said of them without starting it.
//!
//! The strongest first: flags, the environment, the file. What was set at run time is stronger still and lies with the data, so
//! it is not seen here. What a property means is for `tally_broker::config`.

use std::fmt::Write;
use std::net::ToSocketAddrs;
use std::path::Path;

use rustix::fs::{Access, access};
use tally_broker::config::properties::{BROKER, broker_property};
use tally_broker::config::{Address, BrokerConfig, Setting, read_environment, read_properties};

use crate::args::{Serve, Shown};

/// All that was given, and what the person should know of it.
pub(crate) struct Given {
    pub(crate) settings: Vec<Setting>,
    pub(crate) warning: Option<String>,
}

/// Reads the file, the environment and the flags.
///
/// # Errors
/// What cannot be read, and where, for the person.
pub(crate) fn given(args: &Serve) -> Result<Given, String> {
    let mut settings = match &args.file {
        Some(file) => read_file(file)?,
        None => Vec::new(),
    };
    // A variable that is no text names no property and holds no value of one.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment = read_environment(variables).map_err(|error| error.to_string())?;
    settings.extend(environment.settings);
    settings.extend(args.settings());
    let unknown = environment.unknown;
    let warning = (!unknown.is_empty()).then(|| {
        format!(
            "environment: no property is meant by {} (KAFKA_LOG_RETENTION_MS would be log.retention.ms)",
            unknown.join(", ")
        )
    });
    Ok(Given { settings, warning })
}

fn read_file(path: &Path) -> Result<Vec<Setting>, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        format!("cannot read {shown}: byte {position} is not UTF-8 (write \\uXXXX instead)")
    })?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    read_properties(&name.to_string_lossy(), &text)
}

/// Looks at what the configuration names: addresses that resolve, a directory that can be written. Nothing is bound or made.
///
/// # Errors
/// What is wrong, for the person.
pub(crate) fn check(config: &BrokerConfig) -> Result<(), String> {
    check_address("listeners", Some(&config.listen))?;
    check_address("advertised.listeners", config.advertise.as_ref())?;
    check_address("tally.http.listeners", config.http.as_ref())?;
    check_directory(&config.data_dir)
}

fn check_address(property: &str, address: Option<&Address>) -> Result<(), String> {
    let Some(address) = address else {
        return Ok(());
    };
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    match found.map(|mut found| found.next()) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("{property}: {} has no address", address.host)),
        Err(error) => Err(format!(
            "{property}: {} cannot be resolved: {error}",
            address.host
        )),
    }
}

/// The directory can be written, or made in the nearest one above it that is there.
fn check_directory(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    let absolute =
        std::path::absolute(directory).map_err(|error| format!("log.dirs: {shown}: {error}"))?;
    let nearest = absolute
        .ancestors()
        .find(|path| path.symlink_metadata().is_ok())
        .unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(format!(
            "log.dirs: {shown}: {} is not a directory",
            nearest.display()
        ));
    }
    access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        format!(
            "log.dirs: {shown}: {} cannot be written: {error}",
            nearest.display()
        )
    })
}

/// The properties as a file that gives the same configuration; where each comes from is in a comment. Secrets are left out.
pub(crate) fn printed(config: &BrokerConfig, shown: Shown) -> String {
    let values = &config.values;
    let given = values.given().map(|(name, _)| name);
    let mut names: Vec<&str> = match shown {
        Shown::Differences => given.collect(),
        Shown::All => BROKER
            .iter()
            .map(|row| row.name)
            .filter(|name| !name.ends_with('*'))
            .chain(given)
            .collect(),
    };
    names.sort_unstable();
    names.dedup();
    let mut text = String::new();
    for name in names {
        let origin = values.origin(name).unwrap_or("default");
        let is_secret =
            broker_property(name).is_none_or(|row| row.is_sensitive() || row.name.ends_with('*'));
        let line = match values.text(name) {
            None => continue,
            Some(_) if is_secret => format!("# {name} is not shown ({origin})"),
            Some(value) => format!("# {origin}\n{name}={}", escaped(value)),
        };
        writeln!(text, "{line}").expect("memory takes every text");
    }
    text
}

/// A value that reads back as it is: backslashes doubled, nothing that ends a line.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        let settings = [
            Setting::new("log.dirs", "C:\\data", "--data"),
            Setting::new("num.partitions", "3", "--set"),
            Setting::new("ssl.key.password", "secret", "--set"),
        ];
        let (config, _) = BrokerConfig::from_settings(&settings).expect("good settings");
        let text = printed(&config, Shown::Differences);
        assert_eq!(
            text,
            "# --data\nlog.dirs=C:\\\\data\n# --set\nnum.partitions=3\n# ssl.key.password is not shown (--set)\n"
        );
        for shown in [Shown::Differences, Shown::All] {
            let read = read_properties("f", &printed(&config, shown)).expect("a good file");
            let (again, _) = BrokerConfig::from_settings(&read).expect("good settings");
            assert_eq!(again.data_dir, config.data_dir);
            assert_eq!(again.num_partitions, 3);
        }
    }
}
