//! How a cluster is reached: the addresses, the client id, and who one is. From flags, and from a file of properties as Java
//! clients have them (`--client-config`).
//!
//! What such a file says of producers, consumers and serializers is not for the commands and is passed over; what it says of
//! security is honoured or refused, never passed over: a password must not go over a connection that was meant to be TLS.

use std::path::Path;

use tally_broker::config::{Setting, read_properties};

use super::failure::Failure;

/// What the commands call themselves.
const CLIENT_ID: &str = "tally";

/// Whom one connects as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// The client id of every request.
    pub(crate) client_id: String,
    /// Name and password for SASL PLAIN; `None`: nobody asks.
    pub(crate) login: Option<Login>,
}

/// Name and password. Neither is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(hidden)")
    }
}

impl Default for Access {
    fn default() -> Access {
        Access {
            client_id: CLIENT_ID.to_owned(),
            login: None,
        }
    }
}

/// What a file of properties says that concerns the commands.
#[derive(Debug, Default)]
pub(crate) struct ClientConfig {
    pub(crate) bootstrap: Option<String>,
    pub(crate) access: Access,
    properties: Vec<(String, String)>,
}

impl ClientConfig {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<ClientConfig, Failure> {
        let shown = path.display();
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::Usage(format!("--client-config: cannot read {shown}: {error}"))
        };
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
        let settings =
            read_properties(&shown.to_string(), &text).map_err(|error| unreadable(&error))?;
        ClientConfig::from_settings(settings)
    }

    fn from_settings(settings: Vec<Setting>) -> Result<ClientConfig, Failure> {
        let mut config = ClientConfig::default();
        let properties = settings.into_iter();
        config.properties = properties.map(|row| (row.name, row.value)).collect();
        let named = |config: &ClientConfig, name: &str| config.property(name).map(str::to_owned);
        config.bootstrap = named(&config, "bootstrap.servers");
        if let Some(client_id) = named(&config, "client.id") {
            config.access.client_id = client_id;
        }
        let protocol =
            named(&config, "security.protocol").unwrap_or_else(|| "PLAINTEXT".to_owned());
        match protocol.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => {}
            "SASL_PLAINTEXT" => {
                let mechanism =
                    named(&config, "sasl.mechanism").unwrap_or_else(|| "GSSAPI".to_owned());
                if mechanism != "PLAIN" {
                    return Err(Failure::Usage(format!(
                        "sasl.mechanism={mechanism} is not built into these commands: PLAIN is"
                    )));
                }
                let jaas = named(&config, "sasl.jaas.config").unwrap_or_default();
                config.access.login = Some(login(&jaas).ok_or_else(|| {
                    Failure::Usage(
                        "sasl.jaas.config needs username=\"...\" and password=\"...\"".to_owned(),
                    )
                })?);
            }
            other => {
                return Err(Failure::Usage(format!(
                    "security.protocol={other} is not built into these commands: PLAINTEXT and SASL_PLAINTEXT are"
                )));
            }
        }
        Ok(config)
    }

    /// One property; of a name that is there twice the last.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        let mut rows = self.properties.iter().rev();
        rows.find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The options of a line like `...PlainLoginModule required username="u" password="p";`.
fn login(jaas: &str) -> Option<Login> {
    Some(Login {
        user: option(jaas, "username")?,
        password: option(jaas, "password")?,
    })
}

/// One option. A value is in quotes, where a backslash takes what follows it as it is, or a bare word.
fn option(jaas: &str, name: &str) -> Option<String> {
    let mut rest = jaas;
    loop {
        let (before, behind) = rest.split_once(name)?;
        let is_whole = before.is_empty() || before.ends_with(char::is_whitespace);
        rest = behind;
        let Some(value) = behind.trim_start().strip_prefix('=') else {
            continue;
        };
        if !is_whole {
            continue;
        }
        let value = value.trim_start();
        let Some(quote) = value.chars().next().filter(|c| "\"'".contains(*c)) else {
            let bare = value.split(|c: char| c.is_whitespace() || c == ';').next();
            return bare.filter(|bare| !bare.is_empty()).map(str::to_owned);
        };
        let mut text = String::new();
        let mut chars = value.chars().skip(1);
        while let Some(c) = chars.next() {
            match c {
                '\\' => text.push(chars.next()?),
                c if c == quote => return Some(text),
                c => text.push(c),
            }
        }
        return None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<ClientConfig, Failure> {
        ClientConfig::from_settings(read_properties("f", text).unwrap())
    }

    #[test]
    fn a_java_clients_file_is_read() {
        let text = "bootstrap.servers=h:1,h:2\nclient.id=ops\nacks=all\nkey.serializer=x.Y\n";
        let config = config(text).unwrap();
        assert_eq!(config.bootstrap.as_deref(), Some("h:1,h:2"));
        assert_eq!(config.access.client_id, "ops");
        assert_eq!(config.access.login, None);
        assert_eq!(config.property("acks"), Some("all"));
        assert_eq!(config.property("linger.ms"), None);
    }

    #[test]
    fn a_login_is_found_in_sasl_jaas_config() {
        let text = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=org.apache.kafka.common.\
                    security.plain.PlainLoginModule required username=\"etl\" password=\"a \\\\\"b\\\\\\\\\";\n";
        let login = config(text).unwrap().access.login.unwrap();
        assert_eq!(
            (login.user.as_str(), login.password.as_str()),
            ("etl", "a \"b\\")
        );
        assert_eq!(format!("{login:?}"), "Login(hidden)");
        for broken in [
            "",
            "username=\"u\"",
            "username=\"u\" password=\"open",
            "my_username=\"u\" my_password=\"p\"",
        ] {
            assert!(login_of(broken).is_none(), "{broken}");
        }
        assert!(login_of("m required password=p username='u v';").is_some());
    }

    fn login_of(jaas: &str) -> Option<Login> {
        super::login(jaas)
    }

    #[test]
    fn security_that_is_not_built_is_refused() {
        for text in [
            "security.protocol=SSL",
            "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN",
            "security.protocol=SASL_PLAINTEXT",
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256",
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN",
        ] {
            let failure = config(text).unwrap_err();
            assert_eq!(failure.exit_code(), 2, "{text}");
        }
    }
}
