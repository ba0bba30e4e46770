//! The fetch sessions of this broker (KIP-227, LR-126, LR-127): which there are, how long they have not been used, and
//! who has to make room when all slots are taken.
//!
//! Invariants: never more sessions than slots, nor more partitions in all than [`PARTITIONS_MAX`]. Without a session a
//! client gets full answers, so no client can take from another more than that. A session belongs to no connection.
//! Pure: time comes in as [`Now`], the seed of the ids too. No lock of a session is taken under the lock of the cache.

use super::session::Session;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tally_protocol::Now;

/// Most partitions of all sessions together: some 250 bytes each, and a name of at most 249 more.
const PARTITIONS_MAX: usize = 1 << 18;
/// How long a session has its slot for sure (LR-126).
const EVICTION_MS: u64 = 120_000;

/// A session that more than one request may ask for.
pub(crate) type SharedSession = Arc<Mutex<Session>>;

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    cache: Mutex<Cache>,
}

impl Sessions {
    /// Without sessions; `slots` is `max.incremental.fetch.session.cache.slots`, the ids follow from `seed`.
    pub(crate) fn new(slots: usize, seed: u64) -> Sessions {
        Sessions {
            cache: Mutex::new(Cache {
                slots,
                seed,
                counter: 0,
                entries: BTreeMap::new(),
                partition_count: 0,
                all_safe_until_ms: 0,
            }),
        }
    }

    /// Whether a session of so many partitions could be opened: asked before it is made.
    pub(crate) fn has_room(&self, now: Now, partitions: usize) -> bool {
        lock(&self.cache).room(now, partitions) != Room::None
    }

    /// Keeps a session; its id, or 0 if there is no room.
    pub(crate) fn open(&self, now: Now, session: Session) -> i32 {
        let (id, _evicted) = lock(&self.cache).open(now, session);
        id
    }

    /// The session of this id, used just now.
    pub(crate) fn find(&self, now: Now, id: i32) -> Option<SharedSession> {
        lock(&self.cache).find(now, id)
    }

    /// Ends a session, if there is one of this id.
    pub(crate) fn close(&self, id: i32) {
        // What may be large is freed without the lock.
        let _closed = lock(&self.cache).close(id);
    }

    /// Notes how many partitions a session has now; false if they were too many and it has ended.
    #[must_use]
    pub(crate) fn resize(&self, id: i32, partitions: usize) -> bool {
        let too_large = lock(&self.cache).resize(id, partitions);
        too_large.is_none()
    }
}

/// Takes a lock whose holders leave its value whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Entry {
    session: SharedSession,
    partitions: usize,
    created_ms: u64,
    used_ms: u64,
}

/// Whether a session fits.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    Evicting(i32),
    None,
}

#[derive(Debug)]
struct Cache {
    slots: usize,
    seed: u64,
    counter: u64,
    entries: BTreeMap<i32, Entry>,
    partition_count: usize,
    /// Until then no session can have to go: none is older. Thousands that ask in vain look at this alone.
    all_safe_until_ms: u64,
}

impl Cache {
    fn room(&mut self, now: Now, partitions: usize) -> Room {
        if self.slots == 0 || partitions == 0 {
            return Room::None;
        }
        let all = self.partition_count + partitions;
        if self.entries.len() < self.slots && all <= PARTITIONS_MAX {
            return Room::Free;
        }
        if now.monotonic_ms <= self.all_safe_until_ms {
            return Room::None;
        }
        let oldest = self.entries.values().map(|entry| entry.created_ms).min();
        self.all_safe_until_ms = oldest.map_or(0, |created_ms| created_ms + EVICTION_MS);
        match self.victim(now, partitions) {
            Some((id, entry)) if all - entry.partitions <= PARTITIONS_MAX => Room::Evicting(id),
            _ => Room::None,
        }
    }

    /// LR-126: who has been idle for longest, if that is long; else the smallest of those that have had their time, if
    /// it is smaller than the new one.
    fn victim(&self, now: Now, partitions: usize) -> Option<(i32, &Entry)> {
        let is_over = |since_ms: u64| now.monotonic_ms.saturating_sub(since_ms) > EVICTION_MS;
        let entries = || self.entries.iter().map(|(id, entry)| (*id, entry));
        entries()
            .min_by_key(|(_, entry)| entry.used_ms)
            .filter(|(_, entry)| is_over(entry.used_ms))
            .or_else(|| {
                entries()
                    .filter(|(_, entry)| is_over(entry.created_ms))
                    .min_by_key(|(_, entry)| entry.partitions)
                    .filter(|(_, entry)| entry.partitions < partitions)
            })
    }

    fn open(&mut self, now: Now, session: Session) -> (i32, Option<SharedSession>) {
        let partitions = session.len();
        let evicted = match self.room(now, partitions) {
            Room::Free => None,
            Room::Evicting(id) => self.close(id),
            Room::None => return (0, None),
        };
        let id = self.new_id();
        self.partition_count += partitions;
        let entry = Entry {
            session: Arc::new(Mutex::new(session)),
            partitions,
            created_ms: now.monotonic_ms,
            used_ms: now.monotonic_ms,
        };
        self.entries.insert(id, entry);
        (id, evicted)
    }

    fn find(&mut self, now: Now, id: i32) -> Option<SharedSession> {
        let entry = self.entries.get_mut(&id)?;
        entry.used_ms = now.monotonic_ms;
        Some(Arc::clone(&entry.session))
    }

    fn close(&mut self, id: i32) -> Option<SharedSession> {
        let entry = self.entries.remove(&id)?;
        self.partition_count -= entry.partitions;
        Some(entry.session)
    }

    /// The session, if it had to go.
    fn resize(&mut self, id: i32, partitions: usize) -> Option<SharedSession> {
        // One that was closed meanwhile counts for nothing.
        let entry = self.entries.get_mut(&id)?;
        self.partition_count = self.partition_count - entry.partitions + partitions;
        entry.partitions = partitions;
        if self.partition_count > PARTITIONS_MAX {
            return self.close(id);
        }
        None
    }

    /// A positive number that is not in use and that nobody can guess (LR-126).
    fn new_id(&mut self) -> i32 {
        loop {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(self.seed);
            hasher.write_u64(self.counter);
            self.counter += 1;
            let id = i32::try_from(hasher.finish() >> 33).expect("31 bits are left");
            if id > 0 && !self.entries.contains_key(&id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::TopicKey;
    use super::*;
    use tally_protocol::request::FetchPartition;
    use tally_protocol::{ErrorCode, LeaderEpoch, Offset, TopicId};

    fn at(monotonic_ms: u64) -> Now {
        Now {
            monotonic_ms,
            wall_ms: 0,
        }
    }

    fn session(partitions: i32) -> Session {
        let mut session = Session::new(true, 1);
        for index in 0..partitions {
            let request = FetchPartition {
                index,
                current_leader_epoch: LeaderEpoch(-1),
                fetch_offset: Offset(0),
                last_fetched_epoch: LeaderEpoch(-1),
                log_start_offset: Offset::NONE,
                max_bytes: 1,
            };
            let topic = TopicKey::Id(TopicId::ZERO);
            session
                .put(&topic, request, Err(ErrorCode::UnknownTopicId))
                .unwrap();
        }
        session
    }

    /// Opens one if there is room, as a request does.
    fn open(sessions: &Sessions, now_ms: u64, partitions: i32) -> i32 {
        let count = usize::try_from(partitions).unwrap();
        let has_room = sessions.has_room(at(now_ms), count);
        let id = sessions.open(at(now_ms), session(partitions));
        assert_eq!(has_room, id > 0);
        id
    }

    fn has(sessions: &Sessions, id: i32) -> bool {
        lock(&sessions.cache).entries.contains_key(&id)
    }

    #[test]
    fn ids_are_positive_and_differ_and_follow_from_the_seed() {
        let ids = |seed| {
            let sessions = Sessions::new(100, seed);
            (0..100)
                .map(|_| open(&sessions, 0, 1))
                .collect::<Vec<i32>>()
        };
        let first = ids(7);
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 100);
        assert!(first.iter().all(|id| *id > 0));
        assert_eq!(first, ids(7));
        assert_ne!(first, ids(8));
    }

    #[test]
    fn l70_a_session_is_found_until_it_is_closed() {
        let sessions = Sessions::new(10, 1);
        let id = open(&sessions, 0, 2);
        let found = sessions.find(at(0), id).unwrap();
        assert_eq!(lock(&found).len(), 2);
        assert!(sessions.find(at(0), id ^ 1).is_none());
        sessions.close(id);
        sessions.close(id);
        assert!(sessions.find(at(0), id).is_none());
        assert_eq!(lock(&sessions.cache).partition_count, 0);
    }

    #[test]
    fn without_slots_or_partitions_there_is_no_session() {
        assert_eq!(open(&Sessions::new(0, 1), 0, 1), 0);
        assert_eq!(open(&Sessions::new(1, 1), 0, 0), 0);
    }

    #[test]
    fn l73_the_longest_idle_makes_room_after_two_minutes() {
        let sessions = Sessions::new(2, 1);
        let first = open(&sessions, 0, 1);
        let second = open(&sessions, 1000, 1);
        assert_eq!(open(&sessions, 2000, 1), 0, "the third gets none");
        assert!(sessions.find(at(50_000), first).is_some());
        assert_eq!(open(&sessions, 121_000, 1), 0, "idle for 120 s, not more");
        let third = open(&sessions, 121_001, 1);
        assert!(third > 0);
        assert!(has(&sessions, first) && !has(&sessions, second));
    }

    #[test]
    fn lr126_a_larger_one_takes_the_slot_of_the_smallest_old_one() {
        let sessions = Sessions::new(3, 1);
        let small = open(&sessions, 0, 2);
        let large = open(&sessions, 0, 5);
        let young = open(&sessions, 100_000, 1);
        for id in [small, large, young] {
            assert!(sessions.find(at(120_000), id).is_some());
        }
        assert_eq!(open(&sessions, 120_000, 9), 0, "all are young");
        assert_eq!(open(&sessions, 120_001, 2), 0, "not larger");
        let new = open(&sessions, 120_001, 3);
        assert!(new > 0);
        assert!(!has(&sessions, small) && has(&sessions, large) && has(&sessions, young));
    }

    #[test]
    fn all_partitions_are_bounded() {
        let sessions = Sessions::new(100, 1);
        let id = open(&sessions, 0, 1);
        let other = open(&sessions, 0, 1);
        assert!(sessions.resize(id, PARTITIONS_MAX - 1));
        assert_eq!(open(&sessions, 0, 1), 0);
        assert!(!sessions.resize(other, 2), "it ends");
        assert!(!has(&sessions, other));
        assert!(has(&sessions, id));
        assert!(open(&sessions, 0, 1) > 0);
        assert!(sessions.resize(other, 1000), "of no account any more");
        assert_eq!(lock(&sessions.cache).partition_count, PARTITIONS_MAX);
        sessions.close(id);
        assert_eq!(lock(&sessions.cache).partition_count, 1);
    }

    #[test]
    fn only_an_eviction_that_makes_room_is_done() {
        let sessions = Sessions::new(100, 1);
        let small = open(&sessions, 0, 1);
        let large = open(&sessions, 1, 1);
        assert!(sessions.resize(large, PARTITIONS_MAX - 1));
        assert_eq!(open(&sessions, 120_001, 2), 0);
        assert!(has(&sessions, small));
        assert!(open(&sessions, 120_001, 1) > 0);
        assert!(!has(&sessions, small));
    }
}
