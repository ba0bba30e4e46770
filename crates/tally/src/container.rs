//! Whether this process is in a container, where the address that clients are told is easily one that leads nowhere.

use std::path::Path;

use tally_broker::config::BrokerConfig;

/// What container engines put at the root of the file system.
const TRACES: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
/// Variables that engines set: the first one is systemd's agreement, the second one is of Kubernetes.
const VARIABLES: [&str; 2] = ["container", "KUBERNETES_SERVICE_HOST"];

/// Whether this process is in a container.
pub(crate) fn is_one() -> bool {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    TRACES.iter().any(|trace| Path::new(trace).exists()) || VARIABLES.iter().any(is_set)
}

/// What to tell the person who starts it there: it listens for clients outside, and tells them to connect to themselves.
pub(crate) fn warning(config: &BrokerConfig) -> Option<String> {
    let is_wildcard = matches!(config.listen.host.as_str(), "0.0.0.0" | "::");
    let told = config
        .advertise
        .as_ref()
        .filter(|told| is_of_itself(&told.host))?;
    is_wildcard.then(|| {
        format!(
            "clients outside this container will be told {told}; set KAFKA_ADVERTISED_LISTENERS"
        )
    })
}

fn is_of_itself(host: &str) -> bool {
    host == "localhost" || host == "::1" || host.starts_with("127.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_broker::config::Setting;

    #[track_caller]
    fn check(listen: &str, advertise: Option<&str>, expected: Option<&str>) {
        let listen = [Setting::new("listeners", listen, "--listen")];
        let advertise =
            advertise.map(|told| Setting::new("advertised.listeners", told, "--advertise"));
        let settings: Vec<Setting> = listen.into_iter().chain(advertise).collect();
        let (config, _) = BrokerConfig::from_settings(&settings).expect("good settings");
        assert_eq!(warning(&config).as_deref(), expected);
    }

    #[test]
    fn who_is_told_to_connect_to_itself_is_warned_of() {
        let expected = "clients outside this container will be told localhost:9092; set KAFKA_ADVERTISED_LISTENERS";
        check("0.0.0.0:9092", Some("localhost:9092"), Some(expected));
        check(
            "PLAINTEXT://:9092",
            Some("PLAINTEXT://localhost:9092"),
            Some(expected),
        );
        check("0.0.0.0:9092", Some("broker:9092"), None);
        check("0.0.0.0:9092", None, None);
        check("127.0.0.1:9092", Some("localhost:9092"), None);
    }
}
