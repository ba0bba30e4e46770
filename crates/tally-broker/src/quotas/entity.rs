//! Whom a quota is for, and what quotas there are, in Kafka's words (KIP-546).
//!
//! Invariant: an [`Entity`] is a user, a client id, both, or an address; of each a name or the default.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Bytes of a name at most: each change writes all metadata anew.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// What a part of an entity is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum EntityType {
    ClientId,
    Ip,
    User,
}

impl EntityType {
    /// The type of this name.
    pub(crate) fn named(name: &str) -> Option<EntityType> {
        [EntityType::ClientId, EntityType::Ip, EntityType::User]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Its name in requests.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            EntityType::ClientId => "client-id",
            EntityType::Ip => "ip",
            EntityType::User => "user",
        }
    }
}

/// A limit that an entity may have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Quota {
    ConnectionCreationRate,
    ConsumerByteRate,
    ControllerMutationRate,
    ProducerByteRate,
    RequestPercentage,
}

impl Quota {
    const ALL: [Quota; 5] = [
        Quota::ConnectionCreationRate,
        Quota::ConsumerByteRate,
        Quota::ControllerMutationRate,
        Quota::ProducerByteRate,
        Quota::RequestPercentage,
    ];

    /// The quota of this name.
    pub(crate) fn named(name: &str) -> Option<Quota> {
        Quota::ALL.into_iter().find(|quota| quota.name() == name)
    }

    /// Its name in requests.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Quota::ConnectionCreationRate => "connection_creation_rate",
            Quota::ConsumerByteRate => "consumer_byte_rate",
            Quota::ControllerMutationRate => "controller_mutation_rate",
            Quota::ProducerByteRate => "producer_byte_rate",
            Quota::RequestPercentage => "request_percentage",
        }
    }

    /// Whether anybody is held to it: the others are kept and shown (LR-166).
    pub(crate) const fn is_enforced(self) -> bool {
        matches!(self, Quota::ConsumerByteRate | Quota::ProducerByteRate)
    }

    /// LR-165: what is wrong with a value.
    pub(crate) fn check(self, value: f64) -> Result<(), String> {
        let name = self.name();
        // Written so that what is no number is refused too.
        if !(value.is_finite() && value > 0.0) {
            return Err(format!("{name}: {value}, a quota is more than 0"));
        }
        let most = match self {
            Quota::ConnectionCreationRate => f64::from(i32::MAX),
            Quota::ConsumerByteRate | Quota::ProducerByteRate => i64::MAX as f64,
            Quota::ControllerMutationRate | Quota::RequestPercentage => return Ok(()),
        };
        if value > most || value.fract() > 1e-6 {
            return Err(format!(
                "{name}: {value}, a whole number up to {most} is wanted"
            ));
        }
        Ok(())
    }
}

/// Whom a quota is for; a part without a name is the default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Entity(BTreeMap<EntityType, Option<String>>);

impl Entity {
    /// LR-165: the entity of these parts, or what is wrong with them.
    pub(crate) fn new<'a>(
        parts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Entity, String> {
        let mut entity = BTreeMap::new();
        for (kind, name) in parts {
            let Some(entity_type) = EntityType::named(kind) else {
                return Err(format!(
                    "{kind}: quotas are for a user, a client-id or an ip"
                ));
            };
            if name.is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
                return Err(format!(
                    "a {kind} is named by 1 to {NAME_BYTES_MAX} bytes; without a name it is the default"
                ));
            }
            let is_address = |name: &str| name.parse::<IpAddr>().is_ok();
            if entity_type == EntityType::Ip && name.is_some_and(|name| !is_address(name)) {
                return Err("the ip is no address".to_owned());
            }
            if entity
                .insert(entity_type, name.map(str::to_owned))
                .is_some()
            {
                return Err(format!("{kind} is given twice"));
            }
        }
        if entity.is_empty() {
            return Err("a quota is for a user, a client-id, both, or an ip".to_owned());
        }
        if entity.len() > 1 && entity.contains_key(&EntityType::Ip) {
            return Err("an ip goes with nothing else".to_owned());
        }
        Ok(Entity(entity))
    }

    /// A user, a client id, or both, of names that were not checked.
    pub(super) fn of_client(user: Option<Option<&str>>, client: Option<Option<&str>>) -> Entity {
        let user = user.map(|name| (EntityType::User, name.map(str::to_owned)));
        let client = client.map(|name| (EntityType::ClientId, name.map(str::to_owned)));
        Entity(user.into_iter().chain(client).collect())
    }

    /// Its parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (EntityType, Option<&str>)> {
        self.0.iter().map(|(kind, name)| (*kind, name.as_deref()))
    }

    /// How many parts it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Its part of this type: the name, or `None` for the default.
    pub(crate) fn part(&self, kind: EntityType) -> Option<Option<&str>> {
        self.0.get(&kind).map(Option::as_deref)
    }

    /// Whether it can have this quota (LR-165).
    pub(crate) fn can_have(&self, quota: Quota) -> bool {
        let is_address = self.0.contains_key(&EntityType::Ip);
        is_address == matches!(quota, Quota::ConnectionCreationRate)
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, name)) in self.parts().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let (kind, name) = (kind.name(), name.unwrap_or("<default>"));
            write!(f, "{comma}{kind} {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lr165_what_makes_no_entity_is_refused() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        let wrong: [&[(&str, Option<&str>)]; 8] = [
            &[],
            &[("galaxy", Some("a"))],
            &[("user", Some(""))],
            &[("user", Some(&long))],
            &[("user", Some("a")), ("user", None)],
            &[("ip", Some("somewhere"))],
            &[("ip", Some("127.0.0.1")), ("user", Some("a"))],
            &[("ip", None), ("client-id", None)],
        ];
        for parts in wrong {
            assert!(Entity::new(parts.iter().copied()).is_err(), "{parts:?}");
        }
        let right: [&[(&str, Option<&str>)]; 5] = [
            &[("user", None)],
            &[("client-id", Some("<default>"))],
            &[("client-id", None), ("user", Some("a/b=c"))],
            &[("ip", None)],
            &[("ip", Some("::1"))],
        ];
        for parts in right {
            assert!(Entity::new(parts.iter().copied()).is_ok(), "{parts:?}");
        }
    }

    #[test]
    fn lr165_what_is_no_limit_is_refused() {
        for quota in Quota::ALL {
            for value in [0.0, -1.0, f64::NAN, f64::INFINITY, -f64::INFINITY] {
                assert!(quota.check(value).is_err(), "{quota:?} {value}");
            }
            assert_eq!(quota.check(1.0), Ok(()));
            let may_be_a_part = [Quota::RequestPercentage, Quota::ControllerMutationRate];
            assert_eq!(quota.check(0.5).is_ok(), may_be_a_part.contains(&quota));
        }
        assert!(Quota::ConnectionCreationRate.check(3e9).is_err());
        assert!(Quota::ProducerByteRate.check(1e19).is_err());
        assert!(Quota::ProducerByteRate.check(3e9).is_ok());
    }

    #[test]
    fn lr165_an_address_has_another_quota_than_a_client() {
        let ip = Entity::new([("ip", None)]).unwrap();
        let user = Entity::new([("user", None)]).unwrap();
        for quota in Quota::ALL {
            assert_ne!(ip.can_have(quota), user.can_have(quota), "{quota:?}");
        }
        assert!(ip.can_have(Quota::ConnectionCreationRate));
    }
}
