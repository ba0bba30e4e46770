//! CreateDelegationToken, RenewDelegationToken, ExpireDelegationToken and DescribeDelegationToken: a token is given to who has
//! shown who he is, which nobody can on a plain listener. Apache Kafka refuses it there with the same code (64).

use crate::api::topics::text;
use kafka_protocol::messages::{
    CreateDelegationTokenResponse, DescribeDelegationTokenResponse, ExpireDelegationTokenResponse,
    RenewDelegationTokenResponse,
};
use tally_protocol::ErrorCode;

const CODE: i16 = ErrorCode::DelegationTokenRequestNotAllowed.code();
/// Who has not shown who he is.
const NOBODY: &str = "ANONYMOUS";
/// No time at all.
const NEVER: i64 = -1;

pub(crate) fn create() -> CreateDelegationTokenResponse {
    CreateDelegationTokenResponse::default()
        .with_error_code(CODE)
        .with_principal_type(text("User"))
        .with_principal_name(text(NOBODY))
        .with_issue_timestamp_ms(NEVER)
        .with_expiry_timestamp_ms(NEVER)
        .with_max_timestamp_ms(NEVER)
}

pub(crate) fn renew() -> RenewDelegationTokenResponse {
    RenewDelegationTokenResponse::default()
        .with_error_code(CODE)
        .with_expiry_timestamp_ms(NEVER)
}

pub(crate) fn expire() -> ExpireDelegationTokenResponse {
    ExpireDelegationTokenResponse::default()
        .with_error_code(CODE)
        .with_expiry_timestamp_ms(NEVER)
}

pub(crate) fn describe() -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse::default().with_error_code(CODE)
}
