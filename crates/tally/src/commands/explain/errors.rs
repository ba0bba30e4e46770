//! The errors of the Kafka protocol: what each means for the person who meets it, and what to do.

use kafka_protocol::error::ResponseError;

use crate::client::error_name;

/// What is said of an error.
pub(super) struct Row {
    pub(super) code: i16,
    pub(super) text: &'static str,
    pub(super) remedy: &'static str,
}

impl Row {
    /// Whether clients try it again by themselves.
    pub(super) fn is_retriable(&self) -> bool {
        ResponseError::try_from_code(self.code).is_some_and(|error| error.is_retriable())
    }
}

/// The name of an error without its number: `PRODUCER_FENCED`.
pub(super) fn name(code: i16) -> String {
    let name = match code {
        0 => "NONE".to_owned(),
        code => error_name(code),
    };
    name.split(' ').next().unwrap_or_default().to_owned()
}

/// The error with this number or name, however its letters are written.
pub(super) fn find(word: &str) -> Option<&'static Row> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_uppercase();
    let wanted = plain(word);
    let code = word.parse::<i16>().ok();
    ROWS.iter()
        .find(|row| Some(row.code) == code || plain(&name(row.code)) == wanted)
}

const fn row(code: i16, text: &'static str, remedy: &'static str) -> Row {
    Row { code, text, remedy }
}

/// All of them, by number.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row(-1, "The broker met something that it did not expect.", "look into the broker's log at that time"),
    row(0, "No error.", ""),
    row(1, "The offset asked for is not (or no longer) in the partition.", "let the reader begin at the start or the end (auto.offset.reset), or tally group reset GROUP --to earliest"),
    row(2, "A batch arrived with a checksum that does not match, or is malformed.", "if it repeats, suspect the network, a proxy or the client"),
    row(3, "The topic or partition is not there, or the user may not know of it.", "check the name; tally topic create NAME makes one"),
    row(4, "The size asked for in a fetch makes no sense.", "mend the client"),
    row(5, "The partition has no leader at the moment.", "wait; if it stays, look for a broker that is down"),
    row(6, "The broker asked is not the leader of the partition any more.", "nothing: clients ask for the leader anew"),
    row(7, "The broker could not do it within the time of the request; it may still happen.", "look for a broker that is overloaded or waits for replicas"),
    row(8, "The broker is not available.", "wait, or look for a broker that is down"),
    row(9, "The replica is not available at the broker asked.", "nothing: clients ask for the metadata anew"),
    row(10, "A record or batch is larger than max.message.bytes of the topic.", "make batches smaller (batch.size, compression) or raise max.message.bytes"),
    row(11, "A controller of an earlier epoch has spoken.", "nothing: brokers settle it"),
    row(12, "The metadata string of an offset commit is longer than offset.metadata.max.bytes.", "commit less metadata"),
    row(13, "The connection was lost before an answer came.", "nothing: clients connect again; if it repeats, look at the network"),
    row(14, "The coordinator is reading its log after a start or a move.", "wait a moment"),
    row(15, "The coordinator can't be found or can't be used yet.", "wait a moment; if it stays, look at the internal topics' partitions"),
    row(16, "The broker asked does not coordinate this group or transactional id.", "nothing: clients look for the coordinator anew"),
    row(17, "The name of the topic is not allowed, or the topic is internal.", "names have 1 to 249 letters, digits, dots, underscores and hyphens"),
    row(18, "The batches of a request are larger than a segment.", "make requests smaller or raise segment.bytes"),
    row(19, "Fewer replicas are in sync than min.insync.replicas asks for.", "bring replicas back, or lower min.insync.replicas"),
    row(20, "It was written, but fewer replicas than min.insync.replicas have it.", "bring replicas back; an idempotent producer may try again"),
    row(21, "acks is none of 0, 1 and -1 (all).", "mend the client"),
    row(22, "The member speaks of a generation of the group that is over.", "nothing: the client joins again"),
    row(23, "The member's protocols do not fit those of the group.", "use one assignor (partition.assignment.strategy) in all members; to change it, keep the old one in the list until all have the new one"),
    row(24, "The group id is empty or not valid.", "set group.id"),
    row(25, "The group does not know the member, or it was put out because it was silent for too long.", "nothing: the client joins again; if it repeats, raise max.poll.interval.ms or do less between polls"),
    row(26, "The session timeout is not between group.min.session.timeout.ms and group.max.session.timeout.ms.", "change session.timeout.ms"),
    row(27, "The group is giving out its partitions anew.", "nothing: the client joins again"),
    row(28, "The committed offsets are too many for one record.", "commit less at once"),
    row(29, "The user may not do this with the topic.", "have the right granted, or check the user"),
    row(30, "The user may not do this with the group.", "have the right granted, or check the user"),
    row(31, "The user may not do this with the cluster.", "have the right granted, or check the user"),
    row(32, "A timestamp lies too far in the past or the future (message.timestamp.before.max.ms, after.max.ms).", "check the producer's clock"),
    row(33, "The broker does not offer this SASL mechanism.", "use one of sasl.enabled.mechanisms"),
    row(34, "The request does not fit the state of the authentication.", "use security.protocol=PLAINTEXT where the listener has no SASL"),
    row(35, "The broker does not serve this version of the request.", "use a newer broker or an older client"),
    row(36, "A topic of this name is there already.", "choose another name, or --if-not-exists"),
    row(37, "The number of partitions is not possible: zero, or fewer than there are.", "ask for more partitions than there are"),
    row(38, "The replication factor is larger than the number of brokers, or zero.", "use 1 or -1 on one broker"),
    row(39, "The assignment of replicas makes no sense.", "name brokers that are there, each once"),
    row(40, "A property or its value is not valid.", "tally explain PROPERTY says what is allowed"),
    row(41, "The broker asked is not the controller.", "nothing: clients ask for the controller anew"),
    row(42, "The request makes no sense in itself.", "mend the client; the broker's log may say more"),
    row(43, "The log's format is too old for the request.", ""),
    row(44, "A policy of the cluster does not allow it.", "ask who runs the cluster"),
    row(45, "A batch of an idempotent producer came with a gap before it: one is missing.", "for a transaction: abort and begin anew; else start the producer again. If it repeats, an earlier batch was lost or given up"),
    row(46, "A batch came that is older than the batches that the broker remembers of its producer: it was written before.", "nothing"),
    row(47, "The producer's epoch is not the current one of its id: a newer instance has taken over.", "close this producer; give every instance a transactional.id of its own"),
    row(48, "The transaction is in a state that does not allow it: no transaction is open, or it is being ended the other way.", "abort and begin anew; tally txn why ID says what happened"),
    row(49, "The producer id does not belong to this transactional id: the id expired, or was fenced after a power cut.", "start the producer again"),
    row(50, "transaction.timeout.ms is larger than the broker's transaction.max.timeout.ms.", "lower the one or raise the other"),
    row(51, "The transaction before is still being ended, or another request of the same id is under way.", "nothing: clients try again; if it stays, tally txn why ID"),
    row(52, "The coordinator that wrote a marker has been replaced.", "nothing: the new one goes on"),
    row(53, "The user may not use this transactional id.", "have the right granted, or check the user"),
    row(54, "The broker has no authorizer: there are no rights to show or change.", ""),
    row(55, "It was not tried, because another part of the request was refused.", "look at the other error"),
    row(56, "The disk refused: full, broken, or a part of the log can't be read.", "look into the broker's log, and at the disk's free space"),
    row(57, "The log directory is not one of the broker's.", "see tally cluster brokers"),
    row(58, "Name or password were not accepted.", "check sasl.jaas.config"),
    row(59, "The broker does not remember the producer: all its records are gone by retention.", "nothing: current clients begin anew by themselves"),
    row(60, "The partition is being moved.", "wait until it is done"),
    row(61, "Delegation tokens are not set up.", ""),
    row(62, "The delegation token is not there.", ""),
    row(63, "The user does not own the delegation token.", ""),
    row(64, "Delegation tokens can't be asked for over this kind of connection.", ""),
    row(65, "The user may not do this with delegation tokens.", "have the right granted"),
    row(66, "The delegation token has expired.", "get a new one"),
    row(67, "The kind of principal is not valid.", ""),
    row(68, "The group has members.", "stop them first: tally group describe GROUP names them"),
    row(69, "There is no group of this name.", "tally group list shows those that there are"),
    row(70, "The broker does not know the fetch session any more.", "nothing: clients begin a new one"),
    row(71, "The fetch session is at another point than the client.", "nothing: clients begin a new one"),
    row(72, "The broker has no listener of this name for clients.", "check advertised.listeners of all brokers"),
    row(73, "delete.topic.enable is false.", "set it to true"),
    row(74, "The client's leader epoch is older than the partition's.", "nothing: clients ask for the metadata anew"),
    row(75, "The client's leader epoch is newer than the broker's.", "nothing: the broker catches up"),
    row(76, "The codec is not known, or not allowed in this version.", "use another compression.type"),
    row(77, "A broker of an earlier registration has spoken.", ""),
    row(78, "The high watermark of a new leader is not known yet.", "nothing: clients try again"),
    row(79, "The group gives the new member an id to join with.", "nothing: the client joins with it"),
    row(80, "The preferred leader can't be elected.", "bring that broker back"),
    row(81, "The group has group.max.size members.", "raise group.max.size"),
    row(82, "Another member with the same group.instance.id has taken over.", "give every instance a group.instance.id of its own"),
    row(83, "No replica that is in sync can become the leader.", "bring brokers back"),
    row(84, "The partition has the leader that was asked for.", ""),
    row(85, "Nothing is being moved.", ""),
    row(86, "The group has a member that is subscribed to the topic.", "stop it first"),
    row(87, "A record was refused: no key in a compacted topic, a wrong timestamp, a malformed batch.", "the message names the record"),
    row(88, "An open transaction commits offsets of the group: what is committed is not decided yet.", "wait; tally txn why GROUP names the transaction"),
    row(89, "A quota is used up.", "wait as long as the answer says"),
    row(90, "A newer instance with the same transactional.id has taken over.", "close this producer; give every instance a transactional.id of its own. tally txn why ID says who it was"),
    row(91, "What was asked for is not there.", ""),
    row(92, "A thing is named twice in a request.", ""),
    row(93, "The credential is not acceptable.", ""),
    row(94, "The sets of voters differ.", ""),
    row(95, "An update is older than what holds.", "ask for the state anew"),
    row(96, "Features could not be updated.", "the message says why; tally cluster features shows what is possible"),
    row(97, "The principal could not be read.", ""),
    row(98, "The snapshot is not there.", ""),
    row(99, "The position is outside of the snapshot.", ""),
    row(100, "The topic id is not known: the topic was deleted or made anew.", "nothing: clients ask for the metadata anew"),
    row(101, "A broker with this id is registered.", "give every broker an id of its own"),
    row(102, "The broker id is not registered.", ""),
    row(103, "The topic id belongs to another topic.", "nothing: clients ask for the metadata anew"),
    row(104, "The cluster has another id.", "check which cluster the address belongs to"),
    row(105, "No coordinator knows the transactional id: never used, or expired.", "tally txn list shows those that there are"),
    row(106, "The topic ids of a fetch session do not fit together.", "nothing: clients begin a new session"),
    row(107, "The replica can't be among those in sync.", ""),
    row(108, "The request changed the leader.", ""),
    row(109, "The offset lies in tiered storage.", ""),
    row(110, "The member's epoch is not the one that the group knows.", "nothing: the client joins again"),
    row(111, "The group.instance.id is still used by a member that has not left.", "wait for its session timeout, or stop it"),
    row(112, "The assignor is not one of group.consumer.assignors.", "use uniform or range (group.remote.assignor)"),
    row(113, "The member's epoch is older than the group's.", "nothing: the client asks again"),
    row(114, "The request came to a controller's listener instead of a broker's, or the other way round.", "check the address"),
    row(115, "The endpoint type is not supported.", ""),
    row(116, "The controller id is not known.", ""),
    row(117, "The metrics subscription is not known.", "nothing: clients ask for it anew"),
    row(118, "The metrics are larger than telemetry.max.bytes.", ""),
    row(119, "The broker's registration is not valid.", "look into its log"),
    row(120, "The transaction can go no further and has to be aborted.", "abort and begin a new one; the producer stays as it is"),
    row(121, "The record's state does not allow it.", ""),
    row(122, "The share session is not known.", "nothing: clients begin a new one"),
    row(123, "The share session is at another point than the client.", "nothing: clients begin a new one"),
    row(124, "The state epoch is not the current one.", ""),
    row(125, "The voter's key does not fit.", ""),
    row(126, "The voter is there already.", ""),
    row(127, "The voter is not there.", ""),
    row(128, "The regular expression of a subscription is not valid.", "check it; RE2's syntax is the one"),
    row(129, "The client speaks to another cluster or broker than it thinks.", "nothing: clients begin at bootstrap.servers again"),
    row(130, "The topology of a Streams application is not valid.", ""),
    row(131, "The epoch of a Streams topology is not valid.", ""),
    row(132, "A Streams topology was replaced by a newer one.", ""),
    row(133, "There are too many share sessions.", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_row_and_a_name() {
        let codes: Vec<i16> = ROWS.iter().map(|row| row.code).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
        for row in ROWS {
            assert!(
                row.text.ends_with('.') && !name(row.code).is_empty(),
                "{}",
                row.code
            );
        }
        assert_eq!(name(0), "NONE");
        assert_eq!(name(133), "SHARE_SESSION_LIMIT_REACHED");
    }
}
