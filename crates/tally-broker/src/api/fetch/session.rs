//! One fetch session (KIP-227): the partitions a client reads, with what it was told of each last, so that a request
//! need only name what it changes and a response only what has changed (log-and-fetch.md section 9.2).
//!
//! Invariants: every partition has one place in the order of reading and one entry in the index; there are never more
//! than [`SESSION_PARTITIONS_MAX`]. Pure. Names are shared, not copied, for each partition and each answer.

use super::Place;
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_protocol::request::FetchPartition;
use tally_protocol::response::{FetchPartitionResponse, FetchTopicResponse};
use tally_protocol::{ErrorCode, Offset, TopicId};

/// Most partitions of a session; who reads more gets full answers. With the bound on all sessions together it limits
/// the memory that clients can ask for.
pub(crate) const SESSION_PARTITIONS_MAX: usize = 1 << 16;
/// Longest name of a topic, bytes (11.1): one that can't exist is not kept.
const NAME_BYTES_MAX: usize = 249;
/// The epoch after which the epochs begin again with 1 (LR-120).
const EPOCH_MAX: i32 = i32::MAX;

/// A topic as the requests of a session name it: by name below version 13, by id from there on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Id(TopicId),
}

impl TopicKey {
    /// An answer for the topic, without partitions yet.
    pub(crate) fn response<T>(&self, partitions: usize) -> FetchTopicResponse<T> {
        let (name, id) = match self {
            TopicKey::Name(name) => (Some(Arc::clone(name)), TopicId::ZERO),
            TopicKey::Id(id) => (None, *id),
        };
        FetchTopicResponse {
            name,
            id,
            partitions: Vec::with_capacity(partitions),
        }
    }
}

/// A session has as many partitions as it may have, or a name is too long to be that of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// A partition of a session.
#[derive(Debug)]
struct Part {
    topic: TopicKey,
    request: FetchPartition,
    place: Place,
    /// What the client was told last; none after an error, so that its end is told (LR-122).
    high_watermark: Offset,
    log_start: Offset,
}

impl Part {
    /// Takes over what the client is told now; whether it is news (LR-122).
    fn tell<T>(&mut self, answer: &FetchPartitionResponse<T>) -> bool {
        let failed = answer.error_code != ErrorCode::None;
        let is_news = failed
            || !answer.records.is_empty()
            || answer.high_watermark != self.high_watermark
            || answer.log_start_offset != self.log_start
            || answer.diverging_epoch.is_some();
        self.high_watermark = if failed {
            Offset::NONE
        } else {
            answer.high_watermark
        };
        self.log_start = answer.log_start_offset;
        is_news
    }
}

/// The partitions that one client reads, in the order they are read.
#[derive(Debug)]
pub(crate) struct Session {
    by_id: bool,
    expected_epoch: i32,
    parts: BTreeMap<u64, Part>,
    index: BTreeMap<(TopicKey, i32), u64>,
    next_position: u64,
    /// The generation of the metadata that the places come from.
    generation: u64,
}

impl Session {
    /// Without partitions; `by_id` says how its requests name topics.
    pub(crate) fn new(by_id: bool, generation: u64) -> Session {
        Session {
            by_id,
            expected_epoch: 1,
            parts: BTreeMap::new(),
            index: BTreeMap::new(),
            next_position: 0,
            generation,
        }
    }

    /// How many partitions it has.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The epoch of the next request (LR-120).
    pub(crate) fn expected_epoch(&self) -> i32 {
        self.expected_epoch
    }

    /// Whether a request may go on with this session; if so the epoch moves on (section 9.2).
    pub(crate) fn accept(&mut self, epoch: i32, by_id: bool) -> Result<(), ErrorCode> {
        if epoch != self.expected_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if by_id != self.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        // LR-120: 0 is for new sessions and negative numbers for none.
        self.expected_epoch = if epoch == EPOCH_MAX { 1 } else { epoch + 1 };
        Ok(())
    }

    /// Finds the places again if the metadata has changed since.
    pub(crate) fn refresh(
        &mut self,
        generation: u64,
        mut find: impl FnMut(&TopicKey, i32) -> Place,
    ) {
        if generation == self.generation {
            return;
        }
        for part in self.parts.values_mut() {
            part.place = find(&part.topic, part.request.index);
        }
        self.generation = generation;
    }

    /// Adds a partition at the end, or replaces its parameters where it is (LR-121).
    pub(crate) fn put(
        &mut self,
        topic: &TopicKey,
        request: FetchPartition,
        place: Place,
    ) -> Result<(), TooLarge> {
        let key = (topic.clone(), request.index);
        let position = self.index.get(&key);
        if let Some(part) = position.and_then(|position| self.parts.get_mut(position)) {
            part.request = request;
            part.place = place;
            return Ok(());
        }
        let is_long = matches!(topic, TopicKey::Name(name) if name.len() > NAME_BYTES_MAX);
        if is_long || self.parts.len() >= SESSION_PARTITIONS_MAX {
            return Err(TooLarge);
        }
        let part = Part {
            topic: topic.clone(),
            request,
            place,
            high_watermark: Offset::NONE,
            log_start: Offset::NONE,
        };
        self.parts.insert(self.next_position, part);
        self.index.insert(key, self.next_position);
        self.next_position += 1;
        Ok(())
    }

    /// Removes a partition, if it is there (LR-121).
    pub(crate) fn forget(&mut self, topic: TopicKey, index: i32) {
        if let Some(position) = self.index.remove(&(topic, index)) {
            self.parts.remove(&position);
        }
    }

    /// What to read, in order.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (FetchPartition, Place)> {
        self.parts.values().map(|part| (part.request, part.place))
    }

    /// Notes the whole first answer, which was for `topic`'s partition `answer.index`.
    pub(crate) fn told<T>(&mut self, topic: &TopicKey, answer: &FetchPartitionResponse<T>) {
        let position = self.index.get(&(topic.clone(), answer.index));
        if let Some(part) = position.and_then(|position| self.parts.get_mut(position)) {
            part.tell(answer);
        }
    }

    /// Of the answers to [`Session::wanted`], in that order, those with news, by topic while they are neighbours
    /// (LR-113, LR-122). Who got records is read last from now on (LR-123).
    pub(crate) fn news<T>(
        &mut self,
        answers: Vec<FetchPartitionResponse<T>>,
    ) -> Vec<FetchTopicResponse<T>> {
        debug_assert_eq!(answers.len(), self.parts.len(), "an answer for each");
        let mut topics: Vec<FetchTopicResponse<T>> = Vec::new();
        let mut served = Vec::new();
        let mut last: Option<&TopicKey> = None;
        for ((position, part), answer) in self.parts.iter_mut().zip(answers) {
            if !part.tell(&answer) {
                continue;
            }
            if !answer.records.is_empty() {
                served.push(*position);
            }
            if last != Some(&part.topic) {
                topics.push(part.topic.response(1));
            }
            last = Some(&part.topic);
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(answer);
            }
        }
        for position in served {
            self.move_to_end(position);
        }
        topics
    }

    fn move_to_end(&mut self, position: u64) {
        let Some(part) = self.parts.remove(&position) else {
            return;
        };
        let key = (part.topic.clone(), part.request.index);
        self.index.insert(key, self.next_position);
        self.parts.insert(self.next_position, part);
        self.next_position += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::LeaderEpoch;

    fn name(name: &str) -> TopicKey {
        TopicKey::Name(Arc::from(name))
    }

    fn part(index: i32, offset: i64) -> FetchPartition {
        FetchPartition {
            index,
            current_leader_epoch: LeaderEpoch(-1),
            fetch_offset: Offset(offset),
            last_fetched_epoch: LeaderEpoch(-1),
            log_start_offset: Offset::NONE,
            max_bytes: 100,
        }
    }

    const NOWHERE: Place = Err(ErrorCode::UnknownTopicOrPartition);

    fn session(parts: &[(&str, i32)]) -> Session {
        let mut session = Session::new(false, 1);
        for (topic, index) in parts {
            session.put(&name(topic), part(*index, 0), NOWHERE).unwrap();
        }
        session
    }

    fn quiet(index: i32) -> FetchPartitionResponse<u8> {
        let mut answer = FetchPartitionResponse::refusal(index, ErrorCode::None);
        answer.high_watermark = Offset(5);
        answer.log_start_offset = Offset(0);
        answer
    }

    fn full(index: i32) -> FetchPartitionResponse<u8> {
        let mut answer = quiet(index);
        answer.records.push(1);
        answer
    }

    /// Topics and partitions of a response.
    fn seen(topics: &[FetchTopicResponse<u8>]) -> Vec<(&str, Vec<i32>)> {
        let indexes = |topic: &FetchTopicResponse<u8>| {
            let parts = topic.partitions.iter();
            parts.map(|part| part.index).collect()
        };
        topics
            .iter()
            .map(|topic| (topic.name.as_deref().unwrap_or("-"), indexes(topic)))
            .collect()
    }

    fn order(session: &Session) -> Vec<i32> {
        session.wanted().map(|(request, _)| request.index).collect()
    }

    #[test]
    fn l74_lr120_epochs_count_up_and_wrap_to_one() {
        let mut session = session(&[("a", 0)]);
        assert_eq!(session.accept(1, false), Ok(()));
        assert_eq!(session.accept(2, false), Ok(()));
        session.expected_epoch = i32::MAX;
        assert_eq!(session.accept(i32::MAX, false), Ok(()));
        assert_eq!(session.accept(1, false), Ok(()));
        assert_eq!(session.expected_epoch(), 2);
    }

    #[test]
    fn l71_a_refused_request_leaves_the_epoch_and_epoch_comes_before_naming() {
        let mut session = session(&[("a", 0)]);
        for (epoch, by_id) in [(0, false), (2, false), (2, true), (-2, false)] {
            let refused = session.accept(epoch, by_id);
            assert_eq!(refused, Err(ErrorCode::InvalidFetchSessionEpoch));
        }
        let refused = session.accept(1, true);
        assert_eq!(refused, Err(ErrorCode::FetchSessionTopicIdError));
        assert_eq!(session.accept(1, false), Ok(()));
    }

    #[test]
    fn lr121_partitions_are_added_replaced_and_forgotten() {
        let mut session = session(&[("a", 0), ("a", 1), ("b", 0)]);
        session.put(&name("a"), part(0, 9), NOWHERE).unwrap();
        assert_eq!(session.len(), 3);
        let offsets = session.wanted().map(|(request, _)| request.fetch_offset.0);
        assert_eq!(offsets.collect::<Vec<_>>(), [9, 0, 0]);
        session.forget(name("a"), 1);
        session.forget(name("a"), 7);
        session.forget(name("c"), 0);
        assert_eq!(session.len(), 2);
        session.forget(name("a"), 0);
        session.forget(name("b"), 0);
        assert_eq!((session.len(), session.index.len()), (0, 0));
    }

    #[test]
    fn lr122_only_news_is_told() {
        let mut session = session(&[("a", 0), ("a", 1), ("b", 0)]);
        let all = session.news(vec![quiet(0), quiet(1), quiet(0)]);
        assert_eq!(seen(&all), [("a", vec![0, 1]), ("b", vec![0])]);
        let none = session.news(vec![quiet(0), quiet(1), quiet(0)]);
        assert_eq!(seen(&none), []);
        let mut higher = quiet(1);
        higher.high_watermark = Offset(6);
        let mut shorter = quiet(0);
        shorter.log_start_offset = Offset(1);
        let news = session.news(vec![quiet(0), higher.clone(), shorter.clone()]);
        assert_eq!(seen(&news), [("a", vec![1]), ("b", vec![0])]);
        let mut diverging = quiet(0);
        diverging.diverging_epoch = Some((LeaderEpoch(0), Offset(3)));
        let news = session.news(vec![diverging, higher, shorter]);
        assert_eq!(seen(&news), [("a", vec![0])]);
    }

    #[test]
    fn l75_an_error_is_told_each_time_and_its_end_too() {
        let mut session = session(&[("a", 0)]);
        session.news(vec![quiet(0)]);
        let error = FetchPartitionResponse::refusal(0, ErrorCode::UnknownTopicId);
        for _ in 0..2 {
            assert_eq!(seen(&session.news(vec![error.clone()])), [("a", vec![0])]);
        }
        assert_eq!(seen(&session.news(vec![quiet(0)])), [("a", vec![0])]);
        assert_eq!(seen(&session.news(vec![quiet(0)])), []);
    }

    #[test]
    fn lr123_who_got_records_is_read_last() {
        let mut session = session(&[("a", 0), ("a", 1), ("a", 2)]);
        session.news(vec![full(0), quiet(1), full(2)]);
        assert_eq!(order(&session), [1, 0, 2]);
        session.news(vec![full(1), quiet(0), quiet(2)]);
        assert_eq!(order(&session), [0, 2, 1]);
        // The index follows.
        session.put(&name("a"), part(1, 4), NOWHERE).unwrap();
        session.forget(name("a"), 0);
        assert_eq!(order(&session), [2, 1]);
    }

    #[test]
    fn lr113_neighbours_of_a_topic_share_an_entry() {
        let mut session = session(&[("a", 0), ("b", 0), ("a", 1)]);
        let news = session.news(vec![quiet(0), quiet(0), quiet(1)]);
        assert_eq!(
            seen(&news),
            [("a", vec![0]), ("b", vec![0]), ("a", vec![1])]
        );
        // What is left out does not part neighbours.
        let news = session.news(vec![full(0), quiet(0), full(1)]);
        assert_eq!(seen(&news), [("a", vec![0, 1])]);
    }

    #[test]
    fn lr128_places_are_found_again_after_a_change() {
        let mut session = session(&[("a", 0)]);
        session.refresh(1, |_, _| panic!("nothing has changed"));
        session.refresh(2, |_, _| Err(ErrorCode::NotLeaderOrFollower));
        let places = session.wanted().map(|(_, place)| place);
        assert_eq!(
            places.collect::<Vec<_>>(),
            [Err(ErrorCode::NotLeaderOrFollower)]
        );
        session.refresh(2, |_, _| panic!("nothing has changed"));
    }

    #[test]
    fn the_length_of_names_is_bounded() {
        let mut session = session(&[]);
        let put = |session: &mut Session, length| {
            session.put(&name(&"n".repeat(length)), part(0, 0), NOWHERE)
        };
        assert_eq!(put(&mut session, 249), Ok(()));
        assert_eq!(put(&mut session, 250), Err(TooLarge));
    }

    #[test]
    fn the_number_of_partitions_is_bounded() {
        let mut session = Session::new(true, 1);
        let topic = TopicKey::Id(TopicId::ZERO);
        for index in 0..i32::try_from(SESSION_PARTITIONS_MAX).unwrap() {
            session.put(&topic, part(index, 0), NOWHERE).unwrap();
        }
        assert_eq!(session.put(&topic, part(-1, 0), NOWHERE), Err(TooLarge));
        assert_eq!(session.put(&topic, part(0, 1), NOWHERE), Ok(()));
        session.forget(topic.clone(), 0);
        assert_eq!(session.put(&topic, part(-1, 0), NOWHERE), Ok(()));
    }
}
