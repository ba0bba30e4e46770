//! States of transactions and groups, and codes of the log.

/// A word.
pub(super) struct Word {
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) remedy: &'static str,
}

const fn transaction(name: &'static str, text: &'static str, remedy: &'static str) -> Word {
    Word {
        kind: "state of a transaction",
        name,
        text,
        remedy,
    }
}

const fn group(name: &'static str, text: &'static str, remedy: &'static str) -> Word {
    Word {
        kind: "state of a group",
        name,
        text,
        remedy,
    }
}

const fn log(name: &'static str, text: &'static str, remedy: &'static str) -> Word {
    Word {
        kind: "code of the broker's log",
        name,
        text,
        remedy,
    }
}

/// All of them.
pub(super) const WORDS: &[Word] = &[
    transaction(
        "Empty",
        "The transactional id has a producer and no transaction is open.",
        "",
    ),
    transaction(
        "Ongoing",
        "A transaction is open: its records hold back readers of what is decided, on every partition that it has touched.",
        "if it stays so, tally txn why ID says since when and until when, tally txn abort ID ends it",
    ),
    transaction(
        "PrepareCommit",
        "The commit is decided and kept; its markers are being written to the partitions.",
        "nothing: it passes. If it stays, a partition can't be written to, and the broker's log says why",
    ),
    transaction(
        "PrepareAbort",
        "The abort is decided and kept; its markers are being written to the partitions.",
        "nothing: it passes. If it stays, a partition can't be written to, and the broker's log says why",
    ),
    transaction(
        "CompleteCommit",
        "The last transaction of this id was committed, and its markers are written.",
        "",
    ),
    transaction(
        "CompleteAbort",
        "The last transaction of this id was aborted, and its markers are written.",
        "",
    ),
    transaction(
        "PrepareEpochFence",
        "A newer producer has taken the id over while a transaction was open; that transaction is about to be aborted.",
        "nothing: it passes",
    ),
    transaction(
        "Dead",
        "The transactional id was forgotten, or is about to be.",
        "",
    ),
    group(
        "Empty",
        "The group has no members; what it has committed is kept until offsets.retention.minutes are over.",
        "",
    ),
    group(
        "PreparingRebalance",
        "Members join, or the group waits for those that it knows to join again.",
        "if it stays, a member is alive but does not ask again within its max.poll.interval.ms: tally group describe GROUP names the members",
    ),
    group(
        "CompletingRebalance",
        "All have joined; the group waits for its leader's assignment.",
        "if it stays, the leader (a client) hangs: tally group describe GROUP names the members",
    ),
    group(
        "Assigning",
        "A change of the group's members or topics is being turned into an assignment.",
        "",
    ),
    group(
        "Reconciling",
        "The assignment is decided; members are giving up and taking over partitions.",
        "",
    ),
    group("Stable", "Every member has its partitions.", ""),
    group("Dead", "The group is not there, or is being removed.", ""),
    log(
        "W1101 listener.foreign",
        "A client speaks TLS, or HTTP, to a listener of Kafka's protocol without encryption. It is said once for each address.",
        "TLS: set security.protocol=PLAINTEXT there; HTTP: health checks have a port of their own, tally.http.listeners",
    ),
    log(
        "W2101 txn.timeout",
        "A transaction was open for longer than its transaction.timeout.ms; it was aborted and its producer fenced.",
        "look for a processor that died, hangs, or needs longer than its timeout",
    ),
    log(
        "W2102 txn.fenced",
        "A newer producer took a transactional id over while a transaction was open.",
        "expected after a restart; else give every instance a transactional.id of its own",
    ),
    log(
        "W2103 request.late",
        "A request of the old transaction protocol came on a connection that its producer had left; it was not processed.",
        "nothing: its client has gone on. If there are many, look for a proxy that delays or pools connections",
    ),
    log(
        "W2104 txn.power_cut",
        "After a power cut open transactions were aborted and their producers fenced, because the last records may be lost.",
        "nothing: the application starts its producer again",
    ),
    log("I2105 txn.aborted", "A client aborted its transaction.", ""),
    log(
        "I2106 txn.expired",
        "A transactional id was not used for transactional.id.expiration.ms and was forgotten.",
        "nothing, or a longer time",
    ),
    log(
        "E2107 txn.hanging",
        "A transaction was open on a partition and no coordinator held it. It is aborted at the second look, so that readers go on.",
        "nothing, but no rule leads there: keep the log and the data, and report it",
    ),
    log(
        "W2108 txn.late",
        "A transaction has been open for longer than any client may ask for.",
        "tally txn hanging says whether somebody will end it, tally txn abort ends it",
    ),
    log(
        "I2109 txn.taken_over",
        "A newer producer took a transactional id over while nothing was open; the one before can't begin anything more.",
        "expected after a restart; else give every instance a transactional.id of its own",
    ),
    log(
        "I2110 producer.expired",
        "Producers appended nothing for producer.id.expiration.ms; their partitions have forgotten them.",
        "nothing, or a longer time",
    ),
    log(
        "W2111 txn.marker",
        "An operator's request (WriteTxnMarkers) ended a transaction on a partition, past its coordinator.",
        "nothing, if it was meant",
    ),
    log(
        "W2301 config.unused",
        "A topic was given a property, or a client a quota, that Kafka has and that does nothing here.",
        "tally explain PROPERTY says whether it will do something later; tally topic alter TOPIC --unset PROPERTY takes it back",
    ),
];
