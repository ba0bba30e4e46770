//! Which quotas are set, and which of them holds for a client.
//!
//! Invariant: no entity is in the table without a quota.

use std::collections::BTreeMap;

use super::entity::{Entity, EntityType, Quota};

/// As whom everybody speaks: nobody has to say who they are.
pub(crate) const EVERYBODY: &str = "ANONYMOUS";

/// All quotas, by whom they are for.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Table(BTreeMap<Entity, BTreeMap<Quota, f64>>);

/// What a part of an entity has to be for a filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Match {
    /// This name, or the default.
    Is(Option<String>),
    /// Any.
    Any,
}

/// Who shares the rate that a quota is compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Sharing {
    /// All clients of the user.
    User,
    /// All connections with a client id, of one user or of all.
    Client,
    UserAndClient,
}

impl Table {
    /// How many entities have quotas.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The quota of an entity itself.
    pub(crate) fn get(&self, entity: &Entity, quota: Quota) -> Option<f64> {
        self.0.get(entity)?.get(&quota).copied()
    }

    /// Whether an entity has quotas.
    pub(crate) fn has(&self, entity: &Entity) -> bool {
        self.0.contains_key(entity)
    }

    /// Sets a quota, or takes it away.
    pub(crate) fn set(&mut self, entity: &Entity, quota: Quota, value: Option<f64>) {
        let quotas = self.0.entry(entity.clone()).or_default();
        match value {
            Some(value) => quotas.insert(quota, value),
            None => quotas.remove(&quota),
        };
        if quotas.is_empty() {
            self.0.remove(entity);
        }
    }

    /// The entities that a filter lets through; a strict one only those that have no part besides.
    pub(crate) fn filtered<'a>(
        &'a self,
        filter: &'a BTreeMap<EntityType, Match>,
        strict: bool,
    ) -> impl Iterator<Item = (&'a Entity, &'a BTreeMap<Quota, f64>)> {
        let fits = |entity: &Entity, (kind, wanted): (&EntityType, &Match)| match entity.part(*kind)
        {
            Some(name) => match wanted {
                Match::Is(wanted) => name == wanted.as_deref(),
                Match::Any => true,
            },
            None => false,
        };
        self.0.iter().filter(move |(entity, _)| {
            (!strict || entity.len() == filter.len())
                && filter.iter().all(|part| fits(entity, part))
        })
    }

    /// The quota that holds for a client: the closest to it that is set (14.2), and who shares it.
    pub(crate) fn of_client(&self, client_id: &str, quota: Quota) -> Option<(f64, Sharing)> {
        let user = |name| Some(Some(name));
        let (me, client) = (user(EVERYBODY), user(client_id));
        let default = Some(None);
        let closest = [
            (me, client, Sharing::UserAndClient),
            (me, default, Sharing::UserAndClient),
            (me, None, Sharing::User),
            (default, client, Sharing::UserAndClient),
            (default, default, Sharing::UserAndClient),
            (default, None, Sharing::User),
            (None, client, Sharing::Client),
            (None, default, Sharing::Client),
        ];
        closest.into_iter().find_map(|(user, client, sharing)| {
            let limit = self.get(&Entity::of_client(user, client), quota)?;
            Some((limit, sharing))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(parts: &[(&str, Option<&str>)]) -> Entity {
        Entity::new(parts.iter().copied()).unwrap()
    }

    /// From the weakest to the strongest: each is stronger than all before it.
    #[test]
    fn lr160_the_closest_quota_holds() {
        let (name, me) = (Some("c"), Some(EVERYBODY));
        let rising = [
            (entity(&[("client-id", None)]), Sharing::Client),
            (entity(&[("client-id", name)]), Sharing::Client),
            (entity(&[("user", None)]), Sharing::User),
            (
                entity(&[("user", None), ("client-id", None)]),
                Sharing::UserAndClient,
            ),
            (
                entity(&[("user", None), ("client-id", name)]),
                Sharing::UserAndClient,
            ),
            (entity(&[("user", me)]), Sharing::User),
            (
                entity(&[("user", me), ("client-id", None)]),
                Sharing::UserAndClient,
            ),
            (
                entity(&[("user", me), ("client-id", name)]),
                Sharing::UserAndClient,
            ),
        ];
        let mut table = Table::default();
        let quota = Quota::ProducerByteRate;
        assert_eq!(table.of_client("c", quota), None);
        for (limit, (entity, sharing)) in (1..).map(f64::from).zip(&rising) {
            table.set(entity, quota, Some(limit));
            assert_eq!(table.of_client("c", quota), Some((limit, *sharing)));
            assert_eq!(table.of_client("c", Quota::ConsumerByteRate), None);
        }
        assert_eq!(
            table.of_client("d", quota),
            Some((7.0, Sharing::UserAndClient))
        );
        for (entity, _) in &rising {
            table.set(entity, quota, None);
        }
        assert!(table.is_empty());
    }

    #[test]
    fn lr160_a_quota_of_somebody_else_holds_nobody_back() {
        let mut table = Table::default();
        let quota = Quota::ConsumerByteRate;
        table.set(&entity(&[("user", Some("else"))]), quota, Some(1.0));
        let other = entity(&[("client-id", Some("else")), ("user", Some("else"))]);
        table.set(&other, quota, Some(1.0));
        assert_eq!(table.of_client("else", quota), None);
        // No client id is an empty one, for which the default holds.
        table.set(&entity(&[("client-id", None)]), quota, Some(2.0));
        assert_eq!(table.of_client("", quota), Some((2.0, Sharing::Client)));
    }

    #[test]
    fn lr166_a_filter_lets_through_what_it_names() {
        let mut table = Table::default();
        let all = [
            entity(&[("user", Some("u"))]),
            entity(&[("user", None)]),
            entity(&[("user", Some("u")), ("client-id", Some("c"))]),
            entity(&[("client-id", Some("c"))]),
            entity(&[("ip", None)]),
        ];
        for entity in &all {
            table.set(entity, Quota::RequestPercentage, Some(50.0));
        }
        let is = |name: Option<&str>| Match::Is(name.map(str::to_owned));
        let count = |filter: &[(EntityType, Match)], strict| {
            let filter = filter.iter().cloned().collect();
            table.filtered(&filter, strict).count()
        };
        use EntityType::{ClientId, Ip, User};
        assert_eq!(count(&[], false), 5);
        assert_eq!(count(&[], true), 0);
        assert_eq!(count(&[(User, Match::Any)], false), 3);
        assert_eq!(count(&[(User, Match::Any)], true), 2);
        assert_eq!(count(&[(User, is(None))], false), 1);
        assert_eq!(count(&[(User, is(Some("u")))], false), 2);
        assert_eq!(count(&[(User, is(Some("u")))], true), 1);
        let both = [(User, Match::Any), (ClientId, is(Some("c")))];
        assert_eq!(count(&both, true), 1);
        assert_eq!(count(&[(Ip, is(Some("127.0.0.1")))], false), 0);
        assert_eq!(count(&[(Ip, Match::Any)], true), 1);
    }
}
