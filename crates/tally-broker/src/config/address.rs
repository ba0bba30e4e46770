//! Host and port as a person writes them, and the listeners made of them.
//!
//! `NAME://HOST:PORT` is Kafka's form: an empty host is every address there. `HOST:PORT` alone is Tally's short form: an
//! empty host is 127.0.0.1. One listener without encryption is all that is built yet.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::property::list;
use super::{ConfigError, Values};

/// A host and a port; the host is a name or an address without brackets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    /// Reads `HOST:PORT`, `[ADDRESS]:PORT` or `:PORT`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Address, String> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err("must be HOST:PORT".to_owned());
        };
        let Ok(port) = port.parse() else {
            return Err(format!("{port} is not a port (0 to 65535)"));
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) => inner,
            None if host.contains(':') => {
                return Err("an IPv6 address needs brackets: [::1]:9092".to_owned());
            }
            None => host,
        };
        if host
            .chars()
            .any(|c| c.is_whitespace() || "/@[]".contains(c))
        {
            return Err(format!("{host} is not a host name"));
        }
        Ok(Address {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The name of this host, for clients when the broker listens on every address.
pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// `listeners`: the one that clients use.
pub(super) fn listener(values: &Values) -> Result<Address, ConfigError> {
    let (is_named, mut address) = match only(values, "listeners")? {
        Some(found) => found,
        None => return Err(values.invalid("listeners", "must name a listener".to_owned())),
    };
    if address.host.is_empty() {
        address.host = if is_named { "0.0.0.0" } else { "127.0.0.1" }.to_owned();
    }
    Ok(address)
}

/// `advertised.listeners`, when given.
pub(super) fn advertised(values: &Values) -> Result<Option<Address>, ConfigError> {
    let Some((_, address)) = only(values, "advertised.listeners")? else {
        return Ok(None);
    };
    if address.host.is_empty() || address.host == "0.0.0.0" || address.host == "::" {
        return Err(values.invalid(
            "advertised.listeners",
            "clients cannot connect to a wildcard address; name this host".to_owned(),
        ));
    }
    Ok(Some(address))
}

/// `tally.http.listeners`: `off`, or one address.
pub(super) fn http(values: &Values) -> Result<Option<Address>, ConfigError> {
    const NAME: &str = "tally.http.listeners";
    let text = values.text(NAME).unwrap_or("off");
    if text == "off" {
        return Ok(None);
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let mut address = Address::parse(address).map_err(|reason| values.invalid(NAME, reason))?;
    if address.host.is_empty() {
        address.host = "127.0.0.1".to_owned();
    }
    Ok(Some(address))
}

/// `max.connections.per.ip.overrides`: connections that an address may have, by address.
pub(super) fn connection_limits(values: &Values) -> Result<BTreeMap<IpAddr, usize>, ConfigError> {
    let name = "max.connections.per.ip.overrides";
    let limit = |item: &str| {
        let (host, count) = item.rsplit_once(':')?;
        let host = host.trim().trim_start_matches('[').trim_end_matches(']');
        let host: IpAddr = host.parse().ok()?;
        Some((host.to_canonical(), count.trim().parse().ok()?))
    };
    let text = values.text(name).unwrap_or_default();
    let limits = list(text).map(|item| {
        limit(item).ok_or_else(|| {
            let reason = format!("{item} is not ADDRESS:COUNT; names of hosts are not looked up");
            values.invalid(name, reason)
        })
    });
    limits.collect()
}

/// The one listener of a list, controllers left out, and whether it was given with a name.
fn only(values: &Values, property: &str) -> Result<Option<(bool, Address)>, ConfigError> {
    let mut found = None;
    for item in list(values.text(property).unwrap_or_default()) {
        let (name, rest) = match item.split_once("://") {
            Some((name, rest)) => (Some(name), rest),
            None => (None, item),
        };
        if name.is_some_and(|name| is_controller(values, name)) {
            continue;
        }
        let protocol = protocol(values, name.unwrap_or("PLAINTEXT"));
        if protocol != Some("PLAINTEXT") {
            let reason = match protocol {
                Some(protocol) => format!("{protocol} is not built yet; only PLAINTEXT is"),
                None => format!("{item} has no row in listener.security.protocol.map"),
            };
            return Err(values.invalid(property, reason));
        }
        let address = Address::parse(rest).map_err(|reason| values.invalid(property, reason))?;
        if found.replace((name.is_some(), address)).is_some() {
            let reason = "more than one listener is not built yet";
            return Err(values.invalid(property, reason.to_owned()));
        }
    }
    Ok(found)
}

fn is_controller(values: &Values, name: &str) -> bool {
    list(values.text("controller.listener.names").unwrap_or_default())
        .any(|controller| controller.eq_ignore_ascii_case(name))
}

/// The security protocol that a listener's name stands for.
fn protocol<'a>(values: &'a Values, name: &str) -> Option<&'a str> {
    list(
        values
            .text("listener.security.protocol.map")
            .unwrap_or_default(),
    )
    .filter_map(|row| row.split_once(':'))
    .find(|(listener, _)| listener.eq_ignore_ascii_case(name))
    .map(|(_, protocol)| protocol)
}

#[cfg(test)]
mod tests {
    use super::super::Setting;
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let settings: Vec<Setting> = pairs
            .iter()
            .map(|(name, value)| Setting::new(*name, *value, "--set"))
            .collect();
        Values::collect(&settings).unwrap()
    }

    #[track_caller]
    fn check(listeners: &str, expected: Result<&str, &str>) {
        let values = values(&[
            ("listeners", listeners),
            ("controller.listener.names", "CONTROLLER"),
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT,SAFE:SSL",
            ),
        ]);
        match (listener(&values), expected) {
            (Ok(address), Ok(expected)) => assert_eq!(address.to_string(), expected),
            (Err(ConfigError::Invalid { reason, .. }), Err(expected)) => {
                assert_eq!(reason, expected);
            }
            (outcome, _) => panic!("{listeners}: {outcome:?}"),
        }
    }

    #[test]
    fn lr157_limits_of_addresses_are_read_in_both_families() {
        let name = "max.connections.per.ip.overrides";
        let given = [(name, "10.0.0.1:5, [::1]:7,::ffff:10.0.0.2:0")];
        let limits = connection_limits(&values(&given)).unwrap();
        let limits: Vec<_> = limits.iter().map(|(a, n)| format!("{a}={n}")).collect();
        assert_eq!(limits, ["10.0.0.1=5", "10.0.0.2=0", "::1=7"]);
        for wrong in ["10.0.0.1", "10.0.0.1:-1", "localhost:5", ":5"] {
            let outcome = connection_limits(&values(&[(name, wrong)]));
            assert!(
                matches!(outcome, Err(ConfigError::Invalid { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn listeners_are_read_in_both_forms() {
        check("localhost:9093", Ok("localhost:9093"));
        check(":9093", Ok("127.0.0.1:9093"));
        check("[::1]:0", Ok("[::1]:0"));
        check("PLAINTEXT://:9092", Ok("0.0.0.0:9092"));
        check(
            "OUTSIDE://10.0.0.1:9092,CONTROLLER://:9093",
            Ok("10.0.0.1:9092"),
        );
    }

    #[test]
    fn listeners_that_cannot_be_used_say_why() {
        check("9092", Err("must be HOST:PORT"));
        check("a:70000", Err("70000 is not a port (0 to 65535)"));
        check(
            "::1:9092",
            Err("an IPv6 address needs brackets: [::1]:9092"),
        );
        check(
            "SAFE://:9092",
            Err("SSL is not built yet; only PLAINTEXT is"),
        );
        check(
            "NEW://:9092",
            Err("NEW://:9092 has no row in listener.security.protocol.map"),
        );
        check("a:1,b:2", Err("more than one listener is not built yet"));
        check("", Err("must name a listener"));
    }

    #[test]
    fn http_is_off_or_an_address() {
        let http = |text| http(&values(&[("tally.http.listeners", text)])).unwrap();
        assert_eq!(http("off"), None);
        assert_eq!(http(":0").unwrap().to_string(), "127.0.0.1:0");
        assert_eq!(http("http://[::1]:9610").unwrap().to_string(), "[::1]:9610");
    }

    #[test]
    fn a_wildcard_is_not_advertised() {
        assert!(advertised(&values(&[("advertised.listeners", "0.0.0.0:9092")])).is_err());
        assert!(advertised(&values(&[("advertised.listeners", "PLAINTEXT://:9092")])).is_err());
        assert_eq!(advertised(&values(&[])), Ok(None));
    }
}
