//! Quotas that nobody has set, and passwords and tokens, which are not there: the answers of Apache Kafka where nobody has set any, and where it would
//! keep what is asked, a refusal (35).

use crate::corner::Corner;
use bytes::Bytes;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterUserScramCredentialsRequest, CreateDelegationTokenRequest,
    DescribeClientQuotasRequest, DescribeDelegationTokenRequest,
    DescribeUserScramCredentialsRequest, ExpireDelegationTokenRequest, RenewDelegationTokenRequest,
};
use tally_testkit::client::{text, unique};

const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_REQUEST: i16 = 42;
const DELEGATION_TOKEN_REQUEST_NOT_ALLOWED: i16 = 64;
const RESOURCE_NOT_FOUND: i16 = 91;
const DUPLICATE_RESOURCE: i16 = 92;
const UNACCEPTABLE_CREDENTIAL: i16 = 93;

fn component(entity_type: &str, match_type: i8, name: Option<&str>) -> ComponentData {
    ComponentData::default()
        .with_entity_type(text(entity_type))
        .with_match_type(match_type)
        .with_match(name.map(text))
}

#[test]
fn quotas_that_nobody_has_set_are_not_shown() {
    let mut corner = Corner::new();
    let nobody = unique("nobody");
    let named = component("user", 0, Some(&nobody));
    for (components, code) in [
        (vec![named.clone()], 0),
        (vec![named.clone(), component("client-id", 2, None)], 0),
        (vec![named.clone(), component("client-id", 1, None)], 0),
        (vec![component("ip", 2, None)], 0),
        (
            vec![named.clone(), component("ip", 2, None)],
            INVALID_REQUEST,
        ),
        (vec![named.clone(); 2], INVALID_REQUEST),
        (vec![component("", 2, None)], INVALID_REQUEST),
        (vec![component("user", 3, None)], INVALID_REQUEST),
        (vec![component("user", 0, None)], INVALID_REQUEST),
        (vec![component("user", 1, Some("a"))], INVALID_REQUEST),
        (vec![component("galaxy", 2, None)], UNSUPPORTED_VERSION),
    ] {
        for version in 0..=1 {
            let request = DescribeClientQuotasRequest::default()
                .with_components(components.clone())
                .with_strict(true);
            let shown = corner.call(version, &request);
            assert_eq!(shown.error_code, code, "v{version} {components:?}");
            assert!(code == 0 || shown.error_message.is_some());
            assert_eq!(shown.entries.is_some(), code == 0);
            assert!(shown.entries.is_none_or(|entries| entries.is_empty()));
        }
    }
}

fn entity(entity_type: &str, name: &str) -> EntityData {
    EntityData::default()
        .with_entity_type(text(entity_type))
        .with_entity_name(Some(text(name)))
}

fn change(entity: Vec<EntityData>, key: &str, value: Option<f64>) -> EntryData {
    let operation = OpData::default()
        .with_key(text(key))
        .with_value(value.unwrap_or_default())
        .with_remove(value.is_none());
    EntryData::default()
        .with_entity(entity)
        .with_ops(vec![operation])
}

#[test]
fn lr165_a_quota_is_checked() {
    let mut corner = Corner::new();
    let nobody = unique("nobody");
    let user = || vec![entity("user", &nobody)];
    let cases = [
        (change(user(), "producer_byte_rate", None), 0),
        (change(user(), "producer_byte_rate", Some(1e6)), 0),
        (
            change(user(), "producer_bite_rate", Some(1e6)),
            INVALID_REQUEST,
        ),
        (change(user(), "producer_bite_rate", None), 0),
        (
            change(user(), "connection_creation_rate", Some(1.0)),
            INVALID_REQUEST,
        ),
        (change(vec![], "producer_byte_rate", None), INVALID_REQUEST),
        (
            change(vec![entity("galaxy", "a")], "producer_byte_rate", None),
            INVALID_REQUEST,
        ),
        (
            change(
                vec![entity("ip", "127.0.0.9"), entity("user", "a")],
                "connection_creation_rate",
                None,
            ),
            INVALID_REQUEST,
        ),
        (
            change(
                vec![entity("ip", "127.0.0.9")],
                "connection_creation_rate",
                None,
            ),
            0,
        ),
        (
            change(
                vec![entity("user", &nobody), entity("client-id", "c")],
                "request_percentage",
                Some(50.0),
            ),
            0,
        ),
    ];
    for (entry, code) in cases {
        for version in 0..=1 {
            let request = AlterClientQuotasRequest::default()
                .with_entries(vec![entry.clone()])
                .with_validate_only(true);
            let [row] = &corner.call(version, &request).entries[..] else {
                panic!("one row for {entry:?}");
            };
            assert_eq!(row.error_code, code, "v{version} {entry:?} {row:?}");
            assert_eq!(row.entity.len(), entry.entity.len());
        }
    }
}

#[test]
fn there_are_no_passwords_to_show() {
    let mut corner = Corner::new();
    let nobody = unique("nobody");
    let user = |name: &str| UserName::default().with_name(text(name));
    let request = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![
        user(&nobody),
        user("twice"),
        user("twice"),
    ]));
    let shown = corner.call(0, &request);
    assert_eq!(shown.error_code, 0);
    let mut rows: Vec<(String, i16)> = shown
        .results
        .iter()
        .map(|row| (row.user.to_string(), row.error_code))
        .collect();
    rows.sort();
    assert_eq!(
        rows,
        [
            (nobody, RESOURCE_NOT_FOUND),
            ("twice".to_owned(), DUPLICATE_RESOURCE)
        ]
    );
    for users in [None, Some(Vec::new())] {
        let request = DescribeUserScramCredentialsRequest::default().with_users(users);
        let shown = corner.call(0, &request);
        assert_eq!((shown.error_code, shown.results.len()), (0, 0));
    }
}

#[test]
fn a_password_that_nobody_asks_for_is_not_taken() {
    let mut corner = Corner::new();
    let nobody = unique("nobody");
    let remove = |name: &str, mechanism: i8| {
        let deletion = ScramCredentialDeletion::default()
            .with_name(text(name))
            .with_mechanism(mechanism);
        AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion])
    };
    let set = |name: &str, mechanism: i8, iterations: i32| {
        let upsertion = ScramCredentialUpsertion::default()
            .with_name(text(name))
            .with_mechanism(mechanism)
            .with_iterations(iterations)
            .with_salt(Bytes::from_static(b"salt"))
            .with_salted_password(Bytes::from_static(b"password"));
        AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion])
    };
    let twice = {
        let mut request = set(&nobody, 1, 4096);
        request.upsertions.extend(set(&nobody, 1, 8192).upsertions);
        request
    };
    let mut cases = vec![
        (remove(&nobody, 1), RESOURCE_NOT_FOUND),
        (remove(&nobody, 7), UNSUPPORTED_SASL_MECHANISM),
        (remove("", 1), UNACCEPTABLE_CREDENTIAL),
        (set("", 1, 4096), UNACCEPTABLE_CREDENTIAL),
        (set(&nobody, 0, 4096), UNSUPPORTED_SASL_MECHANISM),
        (set(&nobody, 1, 4095), UNACCEPTABLE_CREDENTIAL),
        (set(&nobody, 2, 16385), UNACCEPTABLE_CREDENTIAL),
        (twice, DUPLICATE_RESOURCE),
    ];
    if !corner.is_kafka {
        cases.push((set(&nobody, 1, 4096), UNSUPPORTED_VERSION));
    }
    for (request, code) in cases {
        let [row] = &corner.call(0, &request).results[..] else {
            panic!("one row for {request:?}");
        };
        assert_eq!(row.error_code, code, "{request:?} {row:?}");
        assert!(row.error_message.is_some());
    }
}

#[test]
fn tokens_are_for_those_who_have_shown_who_they_are() {
    let mut corner = Corner::new();
    for version in 1..=3 {
        let made = corner.call(version, &CreateDelegationTokenRequest::default());
        assert_eq!(made.error_code, DELEGATION_TOKEN_REQUEST_NOT_ALLOWED);
        assert_eq!(
            (made.principal_type.as_str(), made.principal_name.as_str()),
            ("User", "ANONYMOUS")
        );
        assert!(made.hmac.is_empty() && made.token_id.is_empty());
        let shown = corner.call(version, &DescribeDelegationTokenRequest::default());
        assert_eq!(shown.error_code, DELEGATION_TOKEN_REQUEST_NOT_ALLOWED);
        assert!(shown.tokens.is_empty());
    }
    for version in 1..=2 {
        let renewed = corner.call(version, &RenewDelegationTokenRequest::default());
        assert_eq!(renewed.error_code, DELEGATION_TOKEN_REQUEST_NOT_ALLOWED);
        let expired = corner.call(version, &ExpireDelegationTokenRequest::default());
        assert_eq!(expired.error_code, DELEGATION_TOKEN_REQUEST_NOT_ALLOWED);
    }
}
