//! Properties from environment variables, by the rule of Kafka's container image.
//!
//! `KAFKA_LOG_RETENTION_MS` is `log.retention.ms`: behind the prefix `_` is a dot, `__` an underscore, `___` a hyphen, and
//! letters are small. Tally's own begin with `TALLY_`, and `CLUSTER_ID` is `tally.cluster.id`.
//!
//! An environment holds much that is not meant for the broker (`KAFKA_HEAP_OPTS`, the addresses that container platforms
//! put there): a name that is no property is refused when it looks like a misspelt one, and else only named in a warning.

use super::properties::{ALIASES, broker_property, similar_broker_property};
use super::{ConfigError, Level, Setting};

/// Variables of Kafka's scripts and of its clients, which are no properties of a broker.
const NOT_PROPERTIES: &[&str] = &[
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_DEBUG",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_OPTS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_VERSION",
];

/// What an environment sets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FromEnvironment {
    /// The properties, by the names of their variables.
    pub settings: Vec<Setting>,
    /// Variables that begin with `KAFKA_` and name no property, by name.
    pub unknown: Vec<String>,
}

/// Reads the variables that set properties.
///
/// # Errors
/// [`ConfigError::Unknown`] when a variable seems to be a misspelt property.
pub fn read_environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<FromEnvironment, ConfigError> {
    let mut variables: Vec<(String, String)> = variables.into_iter().collect();
    variables.sort();
    let mut read = FromEnvironment::default();
    for (variable, value) in variables {
        let is_tallys = variable.starts_with("TALLY_");
        let name = match variable.strip_prefix("KAFKA_") {
            Some(rest) => property_name(rest),
            None if is_tallys => property_name(&variable),
            None if variable == "CLUSTER_ID" => "tally.cluster.id".to_owned(),
            None => continue,
        };
        let is_known = broker_property(&name).is_some()
            || ALIASES.iter().any(|(alias, _)| *alias == name.as_str());
        if is_known {
            let origin = format!("environment {variable}");
            read.settings
                .push(Setting::new(name, value, origin).at(Level::Environment));
        } else if NOT_PROPERTIES.contains(&variable.as_str()) {
            // Meant for others.
        } else if let Some(meant) = similar_broker_property(&name) {
            return Err(ConfigError::Unknown {
                name,
                origin: format!("environment {variable}"),
                suggestion: Some(meant),
            });
        } else if !is_tallys {
            // Others of TALLY_ are for Tally's clients and tests.
            read.unknown.push(variable);
        }
    }
    Ok(read)
}

/// The property that the rest of a variable's name stands for.
fn property_name(rest: &str) -> String {
    rest.to_ascii_lowercase()
        .replace("___", "-")
        .replace("__", "\0")
        .replace('_', ".")
        .replace('\0', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<FromEnvironment, ConfigError> {
        read_environment(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn underscores_stand_for_dots_underscores_and_hyphens() {
        assert_eq!(property_name("LOG_RETENTION_MS"), "log.retention.ms");
        assert_eq!(property_name("A__B_C___D"), "a_b.c-d");
    }

    #[test]
    fn variables_set_properties() {
        let read = read(&[
            ("PATH", "/bin"),
            ("KAFKA_LOG_RETENTION_MS", "5"),
            ("KAFKA_BROKER_ID", "3"),
            ("TALLY_SHARDS", "2"),
            ("CLUSTER_ID", "4L6g3nShT-eMCtK--X86sw"),
            ("KAFKA_HEAP_OPTS", "-Xmx1G"),
            ("KAFKA_SERVICE_HOST", "10.0.0.1"),
            ("TALLY_TEST_CACHE", "somewhere"),
        ])
        .unwrap();
        let settings: Vec<String> = read
            .settings
            .iter()
            .map(|setting| format!("{}={} {}", setting.name, setting.value, setting.origin))
            .collect();
        assert_eq!(
            settings,
            [
                "tally.cluster.id=4L6g3nShT-eMCtK--X86sw environment CLUSTER_ID",
                "broker.id=3 environment KAFKA_BROKER_ID",
                "log.retention.ms=5 environment KAFKA_LOG_RETENTION_MS",
                "tally.shards=2 environment TALLY_SHARDS",
            ]
        );
        assert_eq!(read.unknown, ["KAFKA_SERVICE_HOST"]);
    }

    #[test]
    fn a_misspelt_variable_is_refused() {
        let error = read(&[("KAFKA_LOG_RETENSION_MS", "5")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "log.retension.ms: unknown property. Did you mean log.retention.ms? \
             (environment KAFKA_LOG_RETENSION_MS)"
        );
    }
}
