//! DescribeClientQuotas and AlterClientQuotas (KIP-546, LR-165): quotas are shown, and kept once they have been checked. What
//! is kept and does nothing is said in the log (LR-166).

use crate::api::Node;
use crate::api::topics::text;
use crate::metadata::{AlterMode, QuotaChange, QuotaError};
use crate::quotas::entity::{Entity, EntityType, Quota};
use crate::quotas::table::{EVERYBODY, Match};
use kafka_protocol::messages::alter_client_quotas_request::EntryData as AskedEntry;
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{
    EntityData as ShownEntity, EntryData as ShownEntry, ValueData,
};
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};
use std::collections::{BTreeMap, BTreeSet};
use tally_protocol::ErrorCode;

/// How a component is matched: by its name, by being the default, by being named at all.
const MATCHES_NAME: i8 = 0;
const MATCHES_DEFAULT: i8 = 1;
const MATCHES_ANY: i8 = 2;

type Refusal = (ErrorCode, String);

pub(crate) fn describe(
    node: &Node,
    request: &DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let response = DescribeClientQuotasResponse::default();
    match read_filter(&request.components) {
        Ok(filter) => {
            let (_, table) = node.metadata.quotas();
            let shown = table.filtered(&filter, request.strict);
            response
                // As Kafka answers: empty, not null.
                .with_error_message(Some(text("")))
                .with_entries(Some(shown.map(show).collect()))
        }
        Err((code, message)) => response
            .with_error_code(code.code())
            .with_error_message(Some(text(&message)))
            .with_entries(None),
    }
}

fn show((entity, quotas): (&Entity, &BTreeMap<Quota, f64>)) -> ShownEntry {
    let entity = entity.parts().map(|(kind, name)| {
        ShownEntity::default()
            .with_entity_type(text(kind.name()))
            .with_entity_name(name.map(text))
    });
    let values = quotas.iter().map(|(quota, value)| {
        ValueData::default()
            .with_key(text(quota.name()))
            .with_value(*value)
    });
    ShownEntry::default()
        .with_entity(entity.collect())
        .with_values(values.collect())
}

fn read_filter(components: &[ComponentData]) -> Result<BTreeMap<EntityType, Match>, Refusal> {
    let mut filter = BTreeMap::new();
    for component in components {
        let entity = component.entity_type.as_str();
        if entity.is_empty() {
            return Err(invalid("an entity type is empty".to_owned()));
        }
        let Some(kind) = EntityType::named(entity) else {
            return Err((
                ErrorCode::UnsupportedVersion,
                format!("entity type {entity}: there are user, client-id and ip"),
            ));
        };
        let wanted = match (component.match_type, component._match.as_deref()) {
            (MATCHES_NAME, Some(name)) => Match::Is(Some(name.to_owned())),
            (MATCHES_DEFAULT, None) => Match::Is(None),
            (MATCHES_ANY, None) => Match::Any,
            (MATCHES_NAME..=MATCHES_ANY, _) => {
                return Err(invalid(format!(
                    "entity type {entity}: a name belongs to match type 0, and to it alone"
                )));
            }
            (other, _) => return Err(invalid(format!("there is no match type {other}"))),
        };
        if filter.insert(kind, wanted).is_some() {
            return Err(invalid(format!("entity type {entity} is filtered twice")));
        }
    }
    if filter.contains_key(&EntityType::Ip) && filter.len() > 1 {
        return Err(invalid("ip goes with no other entity type".to_owned()));
    }
    Ok(filter)
}

pub(crate) fn alter(node: &Node, request: &AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let read: Vec<Result<QuotaChange, Refusal>> =
        refuse_twice(request.entries.iter().map(read_change).collect());
    let changes: Vec<QuotaChange> = read.iter().flatten().cloned().collect();
    let mode = if request.validate_only {
        AlterMode::Check
    } else {
        AlterMode::Apply
    };
    let altered = node.metadata.alter_quotas(&changes, mode);
    let mut altered = match altered {
        Ok(results) => results
            .into_iter()
            .map(|result| result.map_err(refusal))
            .collect(),
        // The store failed: nothing of it all has changed.
        Err(error) => vec![Err((ErrorCode::KafkaStorageError, error.to_string())); changes.len()],
    }
    .into_iter();
    let entries = request.entries.iter().zip(read).map(|(asked, read)| {
        let result = read.and_then(|change| {
            altered.next().unwrap_or(Ok(()))?;
            if mode == AlterMode::Apply {
                warn_of_what_does_nothing(&change);
            }
            Ok(())
        });
        answer(asked, result)
    });
    AlterClientQuotasResponse::default().with_entries(entries.collect())
}

fn answer(asked: &AskedEntry, result: Result<(), Refusal>) -> EntryData {
    let entity = asked.entity.iter().map(|entity| {
        EntityData::default()
            .with_entity_type(entity.entity_type.clone())
            .with_entity_name(entity.entity_name.clone())
    });
    let entry = EntryData::default().with_entity(entity.collect());
    match result {
        Ok(()) => entry.with_error_message(None),
        Err((code, message)) => entry
            .with_error_code(code.code())
            .with_error_message(Some(text(&message))),
    }
}

fn refusal(error: QuotaError) -> Refusal {
    let code = match error {
        QuotaError::TooMany => ErrorCode::PolicyViolation,
    };
    (code, error.to_string())
}

/// Of an entity that is named twice nothing changes: it could not be said which of the two holds.
fn refuse_twice(
    mut changes: Vec<Result<QuotaChange, Refusal>>,
) -> Vec<Result<QuotaChange, Refusal>> {
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for change in changes.iter().flatten() {
        if !seen.insert(change.entity.clone()) {
            twice.insert(change.entity.clone());
        }
    }
    for change in &mut changes {
        if let Ok(QuotaChange { entity, .. }) = change
            && twice.contains(entity)
        {
            *change = Err(invalid(format!("{entity} is named twice")));
        }
    }
    changes
}

fn read_change(asked: &AskedEntry) -> Result<QuotaChange, Refusal> {
    let parts = asked.entity.iter();
    let parts = parts.map(|part| (part.entity_type.as_str(), part.entity_name.as_deref()));
    let entity = Entity::new(parts).map_err(invalid)?;
    let mut seen = BTreeSet::new();
    let mut quotas = BTreeMap::new();
    for operation in &asked.ops {
        let key = operation.key.as_str();
        if !seen.insert(key) {
            return Err(invalid(format!("{key} is named twice")));
        }
        let quota = Quota::named(key).filter(|quota| entity.can_have(*quota));
        match quota {
            Some(quota) if operation.remove => {
                quotas.insert(quota, None);
            }
            Some(quota) => {
                quota.check(operation.value).map_err(invalid)?;
                quotas.insert(quota, Some(operation.value));
            }
            // Taking away is always possible, also what there is no quota of.
            None if operation.remove => {}
            None => return Err(invalid(format!("{key}: {entity} can't have such a quota"))),
        }
    }
    Ok(QuotaChange { entity, quotas })
}

/// What is accepted as Apache Kafka accepts it and does nothing here is said.
fn warn_of_what_does_nothing(change: &QuotaChange) {
    let entity = &change.entity;
    let set = change.quotas.iter().filter(|(_, value)| value.is_some());
    let named = entity.part(EntityType::User).flatten();
    let is_of_nobody = named.is_some_and(|user| user != EVERYBODY);
    for (quota, _) in set.filter(|(quota, _)| is_of_nobody || !quota.is_enforced()) {
        // Quoted: whoever sets a quota chooses the names, and must not write lines of the log.
        let entity = entity.to_string();
        tracing::warn!(
            entity,
            quota = quota.name(),
            "W2301 config.unused: it is set, and does nothing"
        );
    }
}

fn invalid(message: String) -> Refusal {
    (ErrorCode::InvalidRequest, message)
}
