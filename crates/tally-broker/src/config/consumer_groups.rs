//! What the broker's and a group's properties say to groups of the `consumer` protocol.

use super::{Overrides, Values};
use tally_groups::{Assignor, Assignors, ConsumerSettings, MigrationPolicy};

/// What holds for a group that has no numbers of its own.
pub(super) fn defaults(values: &Values) -> ConsumerSettings {
    ConsumerSettings {
        session_timeout_ms: values.int("group.consumer.session.timeout.ms"),
        heartbeat_interval_ms: values.int("group.consumer.heartbeat.interval.ms"),
        assignment_interval_ms: values.int("group.consumer.assignment.interval.ms"),
    }
}

/// The assignors; all of them when none is named.
pub(super) fn assignors(values: &Values) -> Assignors {
    let named = values.text("group.consumer.assignors").unwrap_or_default();
    let mut named = named
        .split(',')
        .filter_map(|name| Assignor::of_name(name.trim()));
    match named.next() {
        Some(first) => Assignors::new(first, named),
        None => Assignors::new(Assignor::Uniform, [Assignor::Range]),
    }
}

pub(super) fn migration_policy(values: &Values) -> MigrationPolicy {
    match values.text("group.consumer.migration.policy") {
        Some("disabled") => MigrationPolicy::Disabled,
        Some("upgrade") => MigrationPolicy::Upgrade,
        Some("downgrade") => MigrationPolicy::Downgrade,
        _ => MigrationPolicy::Bidirectional,
    }
}

/// What holds for a group with these settings of its own, which were checked when they were made.
pub(crate) fn of_group(broker: ConsumerSettings, own: &Overrides) -> ConsumerSettings {
    let number = |name: &str, otherwise: i32| {
        let own = own.get(name).and_then(|value| value.trim().parse().ok());
        own.unwrap_or(otherwise)
    };
    ConsumerSettings {
        session_timeout_ms: number("consumer.session.timeout.ms", broker.session_timeout_ms),
        heartbeat_interval_ms: number(
            "consumer.heartbeat.interval.ms",
            broker.heartbeat_interval_ms,
        ),
        assignment_interval_ms: number(
            "consumer.assignment.interval.ms",
            broker.assignment_interval_ms,
        ),
    }
}
