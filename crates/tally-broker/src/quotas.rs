//! Quotas of clients (log-and-fetch.md section 14.2): who may move how many bytes a second, and for how long one waits who has
//! moved more.
//!
//! Owns the rates of those who have a limit, and what a connection remembers of its own. What is set is in the metadata.
//! Invariants: who has no limit pays one comparison for a request; rates are kept for those who are connected or have
//! moved something lately, and beyond that within a bound.

pub(crate) mod entity;
mod rate;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::entity::Quota;
use self::rate::Rate;
pub(crate) use self::rate::Windows;
use self::table::{Sharing, Table};

/// What a rate costs besides the client id.
const RATE_BYTES: usize = 640;
/// Bytes that rates may have before those are looked for that nobody needs.
const KEPT_BYTES: usize = 4 << 20;
/// No generation of the table: what is remembered is of another client.
const STALE: u64 = u64::MAX;

type SharedRate = Arc<Mutex<Rate>>;

/// The limits of the client at the other end of a connection, as of one generation of the table.
#[derive(Default, Debug)]
pub(crate) struct Limits {
    generation: u64,
    own: Option<Box<Own>>,
}

#[derive(Debug)]
struct Own {
    produce: Option<Limit>,
    fetch: Option<Limit>,
}

/// How fast somebody may be, and how fast they have been.
#[derive(Debug)]
pub(crate) struct Limit {
    bytes_a_second: f64,
    windows: Windows,
    rate: SharedRate,
}

/// All rates that are compared with a limit.
#[derive(Debug)]
pub(crate) struct Rates {
    windows: Windows,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    rates: BTreeMap<RateOf, SharedRate>,
    bytes: usize,
    /// With more than that it is looked whom nobody needs.
    look_at_bytes: usize,
}

/// Whose rate it is, of what. There is one user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct RateOf {
    quota: Quota,
    sharing: Sharing,
    client_id: Option<Arc<str>>,
}

impl RateOf {
    fn bytes(&self) -> usize {
        RATE_BYTES + self.client_id.as_ref().map_or(0, |id| id.len())
    }
}

impl Limits {
    /// Whether they are those of this generation of the table.
    pub(crate) fn are_of(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// They are of another client.
    pub(crate) fn forget(&mut self) {
        self.generation = STALE;
    }

    /// For what is written.
    pub(crate) fn produce(&self) -> Option<&Limit> {
        self.own.as_ref()?.produce.as_ref()
    }

    /// For what is read.
    pub(crate) fn fetch(&self) -> Option<&Limit> {
        self.own.as_ref()?.fetch.as_ref()
    }
}

impl Limit {
    /// LR-161: counts a request that was carried out; for how many milliseconds its connection is not read.
    pub(crate) fn charge(&self, now_ms: u64, bytes: usize) -> i32 {
        let mut rate = lock(&self.rate);
        whole(rate.charge(self.windows, now_ms, bytes as f64, self.bytes_a_second))
    }

    /// LR-162: counts an answer, or says for how many milliseconds there is none.
    pub(crate) fn admit(&self, now_ms: u64, bytes: usize) -> Result<(), i32> {
        let mut rate = lock(&self.rate);
        rate.admit(self.windows, now_ms, bytes as f64, self.bytes_a_second)
            .map_err(whole)
    }

    /// LR-103: more than that is never given at once.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is cast to the nearest number there is, and this one is above 0"
    )]
    pub(crate) fn bytes_at_once(&self) -> usize {
        self.windows.bytes_at_once(self.bytes_a_second) as usize
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float is cast to the nearest number there is: nobody waits for longer than 24 days"
)]
fn whole(ms: f64) -> i32 {
    ms as i32
}

impl Rates {
    pub(crate) fn new(windows: Windows) -> Rates {
        Rates {
            windows,
            held: Mutex::new(Held {
                rates: BTreeMap::new(),
                bytes: 0,
                look_at_bytes: KEPT_BYTES,
            }),
        }
    }

    /// What holds for a client by this table.
    pub(crate) fn limits(
        &self,
        (generation, table): (u64, &Table),
        client_id: Option<&Arc<str>>,
        now_ms: u64,
    ) -> Limits {
        // Who has no client id has an empty one.
        let name = client_id.map_or("", |id| id);
        let limit = |quota| {
            let (bytes_a_second, sharing) = table.of_client(name, quota)?;
            let of = RateOf {
                quota,
                sharing,
                client_id: client_id.filter(|_| sharing != Sharing::User).cloned(),
            };
            Some(Limit {
                bytes_a_second,
                windows: self.windows,
                rate: self.find(of, now_ms),
            })
        };
        let own = Own {
            produce: limit(Quota::ProducerByteRate),
            fetch: limit(Quota::ConsumerByteRate),
        };
        let has_some = own.produce.is_some() || own.fetch.is_some();
        Limits {
            generation,
            own: has_some.then(|| Box::new(own)),
        }
    }

    fn find(&self, of: RateOf, now_ms: u64) -> SharedRate {
        let mut held = lock(&self.held);
        if let Some(rate) = held.rates.get(&of) {
            return Arc::clone(rate);
        }
        if held.bytes >= held.look_at_bytes {
            held.let_go(self.windows, now_ms);
        }
        let rate = SharedRate::default();
        held.bytes += of.bytes();
        held.rates.insert(of, Arc::clone(&rate));
        rate
    }
}

impl Held {
    /// Lets go of the rates of which nothing is counted any more, and if that is not enough of all whose clients are gone:
    /// one who comes with ever new client ids has no other limit than the others' memory.
    fn let_go(&mut self, windows: Windows, now_ms: u64) {
        self.keep(|rate| is_held(rate) || !lock(rate).is_idle(windows, now_ms));
        if self.bytes > KEPT_BYTES / 2 {
            self.keep(is_held);
        }
        // What is left belongs to connections, whose number is bounded.
        self.look_at_bytes = KEPT_BYTES.max(2 * self.bytes);
    }

    fn keep(&mut self, is_needed: impl Fn(&SharedRate) -> bool) {
        self.rates.retain(|_, rate| is_needed(rate));
        self.bytes = self.rates.keys().map(RateOf::bytes).sum();
    }
}

fn is_held(rate: &SharedRate) -> bool {
    Arc::strong_count(rate) > 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::entity::Entity;
    use super::*;

    fn rates() -> Rates {
        Rates::new(Windows::new(11, 1))
    }

    fn table(entity: (&str, Option<&str>), quota: Quota) -> Table {
        let mut table = Table::default();
        table.set(&Entity::new([entity]).unwrap(), quota, Some(1000.0));
        table
    }

    fn client(name: &str) -> Option<Arc<str>> {
        Some(Arc::from(name))
    }

    #[test]
    fn lr161_connections_with_one_client_id_share_its_rate() {
        let rates = rates();
        let table = table(("client-id", None), Quota::ProducerByteRate);
        let limits = |name: &str| rates.limits((1, &table), client(name).as_ref(), 0);
        let (one, other, else_) = (limits("a"), limits("a"), limits("b"));
        assert!(one.fetch().is_none());
        assert_eq!(one.produce().unwrap().charge(0, 10_000), 0);
        assert_eq!(other.produce().unwrap().charge(0, 1000), 1000);
        assert_eq!(else_.produce().unwrap().charge(0, 10_000), 0);
    }

    #[test]
    fn lr161_all_clients_of_a_user_share_its_rate() {
        let rates = rates();
        let table = table(("user", None), Quota::ConsumerByteRate);
        let limits = |name: &str| rates.limits((1, &table), client(name).as_ref(), 0);
        let (one, other) = (limits("a"), limits("b"));
        assert_eq!(one.fetch().unwrap().bytes_at_once(), 10_000);
        assert_eq!(one.fetch().unwrap().admit(0, 10_000), Ok(()));
        assert_eq!(other.fetch().unwrap().admit(0, 1000), Err(1000));
    }

    #[test]
    fn lr161_a_changed_limit_is_compared_with_what_was_moved_before_it() {
        let rates = rates();
        let mut table = table(("client-id", None), Quota::ProducerByteRate);
        let before = rates.limits((1, &table), client("a").as_ref(), 0);
        assert_eq!(before.produce().unwrap().charge(0, 9000), 0);
        let entity = Entity::new([("client-id", Some("a"))]).unwrap();
        table.set(&entity, Quota::ProducerByteRate, Some(500.0));
        assert!(before.are_of(1) && !before.are_of(2));
        let after = rates.limits((2, &table), client("a").as_ref(), 0);
        assert_eq!(after.produce().unwrap().charge(0, 1000), 10_000);
    }

    #[test]
    fn lr166_who_has_no_limit_has_nothing() {
        let limits = rates().limits((3, &Table::default()), client("a").as_ref(), 0);
        assert!(limits.own.is_none() && limits.are_of(3));
        let mut limits = Limits::default();
        assert!(limits.are_of(0));
        limits.forget();
        assert!(!limits.are_of(0));
    }

    #[test]
    fn lr160_ever_new_client_ids_take_no_more_memory_than_they_may() {
        let rates = rates();
        let table = table(("client-id", None), Quota::ProducerByteRate);
        let stays = rates.limits((1, &table), client("stays").as_ref(), 0);
        stays.produce().unwrap().charge(0, 50_000);
        for number in 0..20_000 {
            let other = client(&format!("{number:01000}"));
            let limits = rates.limits((1, &table), other.as_ref(), 0);
            limits.produce().unwrap().charge(0, 50_000);
        }
        let bytes = lock(&rates.held).bytes;
        assert!(bytes <= KEPT_BYTES + 2000, "{bytes}");
        // Whoever is connected is not forgotten.
        let again = rates.limits((1, &table), client("stays").as_ref(), 0);
        assert!(again.produce().unwrap().charge(0, 1) > 30_000);
    }

    #[test]
    fn lr160_no_limit_is_too_large_or_too_small_for_numbers() {
        let rates = rates();
        for limit in [1e-300, 1.0, 9e18, 1e300] {
            let mut table = Table::default();
            let entity = Entity::new([("user", None)]).unwrap();
            table.set(&entity, Quota::ConsumerByteRate, Some(limit));
            let limits = rates.limits((1, &table), None, 0);
            let fetch = limits.fetch().unwrap();
            assert!(fetch.bytes_at_once() > 0 || limit < 1.0);
            assert!(fetch.charge(0, usize::MAX) >= 0);
            assert!(
                fetch
                    .admit(0, usize::MAX)
                    .map_or_else(|ms| ms > 0, |()| true)
            );
        }
    }
}
