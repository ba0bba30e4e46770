//! Requests of quotas, credentials and tokens, with something in every field.

use super::*;

pub(super) fn request(key: i16, version: i16) -> Vec<u8> {
    match key {
        api::CREATE_DELEGATION_TOKEN => create_delegation_token(version),
        api::RENEW_DELEGATION_TOKEN => encoded(
            &RenewDelegationTokenRequest::default().with_hmac(Bytes::from_static(b"hmac")),
            version,
        ),
        api::EXPIRE_DELEGATION_TOKEN => encoded(
            &ExpireDelegationTokenRequest::default().with_hmac(Bytes::from_static(b"hmac")),
            version,
        ),
        api::DESCRIBE_DELEGATION_TOKEN => describe_delegation_token(version),
        api::DESCRIBE_CLIENT_QUOTAS => describe_client_quotas(version),
        api::ALTER_CLIENT_QUOTAS => alter_client_quotas(version),
        api::DESCRIBE_USER_SCRAM_CREDENTIALS => describe_scram(version),
        api::ALTER_USER_SCRAM_CREDENTIALS => alter_scram(version),
        other => panic!("key {other} is not described"),
    }
}

fn create_delegation_token(version: i16) -> Vec<u8> {
    use create_delegation_token_request::CreatableRenewers;
    let renewer = CreatableRenewers::default()
        .with_principal_type(text("User"))
        .with_principal_name(text("a"));
    let mut request = CreateDelegationTokenRequest::default().with_renewers(vec![renewer; 2]);
    if version >= 3 {
        request.owner_principal_type = Some(text("User"));
        request.owner_principal_name = Some(text("b"));
    }
    encoded(&request, version)
}

fn describe_delegation_token(version: i16) -> Vec<u8> {
    use describe_delegation_token_request::DescribeDelegationTokenOwner;
    let owner = DescribeDelegationTokenOwner::default()
        .with_principal_type(text("User"))
        .with_principal_name(text("a"));
    let request = DescribeDelegationTokenRequest::default().with_owners(Some(vec![owner; 2]));
    encoded(&request, version)
}

fn describe_client_quotas(version: i16) -> Vec<u8> {
    use describe_client_quotas_request::ComponentData;
    let component = ComponentData::default()
        .with_entity_type(text("user"))
        .with_match(Some(text("a")));
    let request = DescribeClientQuotasRequest::default().with_components(vec![component; 2]);
    encoded(&request, version)
}

fn alter_client_quotas(version: i16) -> Vec<u8> {
    use alter_client_quotas_request::{EntityData, EntryData, OpData};
    let entity = EntityData::default()
        .with_entity_type(text("user"))
        .with_entity_name(Some(text("a")));
    let operation = OpData::default()
        .with_key(text("producer_byte_rate"))
        .with_value(1.5);
    let entry = EntryData::default()
        .with_entity(vec![entity; 2])
        .with_ops(vec![operation; 2]);
    encoded(
        &AlterClientQuotasRequest::default().with_entries(vec![entry; 2]),
        version,
    )
}

fn describe_scram(version: i16) -> Vec<u8> {
    use describe_user_scram_credentials_request::UserName;
    let user = UserName::default().with_name(text("a"));
    let request = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user; 2]));
    encoded(&request, version)
}

fn alter_scram(version: i16) -> Vec<u8> {
    use alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion};
    let deletion = ScramCredentialDeletion::default().with_name(text("a"));
    let upsertion = ScramCredentialUpsertion::default()
        .with_name(text("b"))
        .with_salt(Bytes::from_static(b"salt"))
        .with_salted_password(Bytes::from_static(b"password"));
    let request = AlterUserScramCredentialsRequest::default()
        .with_deletions(vec![deletion; 2])
        .with_upsertions(vec![upsertion; 2]);
    encoded(&request, version)
}
