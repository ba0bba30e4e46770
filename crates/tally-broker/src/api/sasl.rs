//! SaslHandshake and SaslAuthenticate on a listener without SASL: refused, and the connection stays open
//! (api-matrix.md 5.2, rule 5).

use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;
use tally_protocol::ErrorCode;

pub(crate) fn handshake() -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ErrorCode::IllegalSaslState.code())
}

pub(crate) fn authenticate() -> SaslAuthenticateResponse {
    SaslAuthenticateResponse::default()
        .with_error_code(ErrorCode::IllegalSaslState.code())
        .with_error_message(Some(StrBytes::from_static_str("this listener has no SASL")))
}
