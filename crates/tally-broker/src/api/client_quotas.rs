//! DescribeClientQuotas and AlterClientQuotas: there are no quotas. None is shown, what Apache Kafka refuses is refused with its
//! code, taking one away changes nothing, and setting one is refused (35): a limit that nobody keeps must not be shown as set.

use crate::api::topics::text;
use kafka_protocol::messages::alter_client_quotas_request::{
    EntityData as AskedEntity, EntryData as AskedEntry,
};
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use tally_protocol::ErrorCode;

const USER: &str = "user";
const CLIENT: &str = "client-id";
const IP: &str = "ip";

/// Quotas of users and clients, and of addresses.
const OF_CLIENTS: &[&str] = &[
    "consumer_byte_rate",
    "controller_mutation_rate",
    "producer_byte_rate",
    "request_percentage",
];
const OF_ADDRESSES: &[&str] = &["connection_creation_rate"];

/// How a component is matched: by its name, by being the default, by being named at all.
const MATCHES_NAME: i8 = 0;
const MATCHES_DEFAULT: i8 = 1;
const MATCHES_ANY: i8 = 2;

type Refusal = (ErrorCode, String);

pub(crate) fn describe(request: &DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    let response = DescribeClientQuotasResponse::default();
    match check_filter(&request.components) {
        Ok(()) => response
            // As Kafka answers: empty, not null.
            .with_error_message(Some(text("")))
            .with_entries(Some(Vec::new())),
        Err((code, message)) => response
            .with_error_code(code.code())
            .with_error_message(Some(text(&message)))
            .with_entries(None),
    }
}

fn check_filter(components: &[ComponentData]) -> Result<(), Refusal> {
    let mut types = BTreeSet::new();
    for component in components {
        let entity = component.entity_type.as_str();
        let named = component._match.is_some();
        if entity.is_empty() {
            return Err(invalid("an entity type is empty".to_owned()));
        }
        if !types.insert(entity) {
            return Err(invalid(format!("entity type {entity} is filtered twice")));
        }
        let wants_name = match component.match_type {
            MATCHES_NAME => true,
            MATCHES_DEFAULT | MATCHES_ANY => false,
            other => return Err(invalid(format!("there is no match type {other}"))),
        };
        if named != wants_name {
            return Err(invalid(format!(
                "entity type {entity}: a name belongs to match type 0, and to it alone"
            )));
        }
    }
    if let Some(other) = types.iter().find(|name| ![USER, CLIENT, IP].contains(name)) {
        return Err((
            ErrorCode::UnsupportedVersion,
            format!("entity type {other}: there are user, client-id and ip"),
        ));
    }
    if types.contains(IP) && types.len() > 1 {
        return Err(invalid("ip goes with no other entity type".to_owned()));
    }
    Ok(())
}

pub(crate) fn alter(request: &AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let entries = request.entries.iter().map(|asked| {
        let entity = asked.entity.iter().map(|entity| {
            EntityData::default()
                .with_entity_type(entity.entity_type.clone())
                .with_entity_name(entity.entity_name.clone())
        });
        let entry = EntryData::default().with_entity(entity.collect());
        match refuse(asked) {
            Ok(()) => entry.with_error_message(None),
            Err((code, message)) => entry
                .with_error_code(code.code())
                .with_error_message(Some(text(&message))),
        }
    });
    AlterClientQuotasResponse::default().with_entries(entries.collect())
}

fn refuse(asked: &AskedEntry) -> Result<(), Refusal> {
    let keys = keys_of(&asked.entity)?;
    // Taking away is always possible, also what never was, and what there is no quota of.
    let mut set = asked
        .ops
        .iter()
        .filter(|operation| !operation.remove)
        .map(|operation| operation.key.as_str());
    if let Some(key) = set.clone().find(|key| !keys.contains(key)) {
        return Err(invalid(format!("{key}: quotas here are {keys:?}")));
    }
    match set.next() {
        Some(key) => Err((
            ErrorCode::UnsupportedVersion,
            format!("{key}: quotas are not built"),
        )),
        None => Ok(()),
    }
}

/// The quotas that there are for such an entity.
fn keys_of(entity: &[AskedEntity]) -> Result<&'static [&'static str], Refusal> {
    let mut types = BTreeSet::new();
    for part in entity {
        let name = part.entity_name.as_deref();
        let kind = part.entity_type.as_str();
        if !types.insert(kind) || name.is_some_and(str::is_empty) {
            return Err(invalid(format!(
                "entity type {kind} is given twice, or without a name"
            )));
        }
        if kind == IP && name.is_some_and(|name| name.parse::<IpAddr>().is_err()) {
            return Err(invalid("the ip is no address".to_owned()));
        }
    }
    let types: Vec<&str> = types.into_iter().collect();
    match types[..] {
        [IP] => Ok(OF_ADDRESSES),
        [USER] | [CLIENT] | [CLIENT, USER] => Ok(OF_CLIENTS),
        _ => Err(invalid(
            "quotas are for a user, a client-id, both, or an ip".to_owned(),
        )),
    }
}

fn invalid(message: String) -> Refusal {
    (ErrorCode::InvalidRequest, message)
}
