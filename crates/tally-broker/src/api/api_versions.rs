//! ApiVersions (api-matrix.md 5.1): what is served, and the finalized features that switch clients to the new
//! transaction flow.

use crate::api::{Answer, Client, Node};
use crate::metadata::features::{FEATURES, GROUP_VERSION, METADATA_VERSION, TRANSACTION_VERSION};
use bytes::BufMut;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::StrBytes;
use tally_protocol::frame::RequestHead;
use tally_protocol::request::parse_api_versions;
use tally_protocol::{ErrorCode, api_table};

/// Answers an ApiVersions request of a served version.
pub(crate) fn answer(node: &Node, client: &mut Client, head: &RequestHead, body: &[u8]) -> Answer {
    let version = head.api_version;
    let request = match parse_api_versions(version, body) {
        Ok(request) => request,
        Err(malformed) => {
            return Answer::Close(format!(
                "ApiVersions version {version} request: {malformed}"
            ));
        }
    };
    let mut response = ApiVersionsResponse::default();
    if version >= 3
        && !(is_software_word(&request.software_name)
            && is_software_word(&request.software_version))
    {
        response.error_code = ErrorCode::InvalidRequest.code();
        return super::encode(head, &response);
    }
    if request.cluster_id.as_deref().is_some_and(|id| {
        id != node.metadata.cluster_id() || request.node_id != node.config.node_id
    }) {
        // KIP-1242: this address now belongs to somebody else.
        response.error_code = ErrorCode::RebootstrapRequired.code();
        return super::encode(head, &response);
    }
    if version >= 3 {
        let (name, number) = (&request.software_name, &request.software_version);
        client.set_software(format!("{name} {number}").trim_end());
    }
    response.api_keys = api_table::APIS
        .iter()
        .map(|api| {
            ApiVersion::default()
                .with_api_key(api.key)
                .with_min_version(api.listed_min)
                .with_max_version(api.listed_max(node.config.unstable_api_versions))
        })
        .collect();
    if version >= 3 {
        features(node, version, &mut response);
    }
    super::encode(head, &response)
}

/// The answer to a version that is not served: in the form of version 0, with the one row of ApiVersions itself.
pub(crate) fn unsupported(correlation_id: i32) -> Answer {
    let api = api_table::lookup(api_table::API_VERSIONS).expect("ApiVersions is in the table");
    let mut frame = Vec::with_capacity(20);
    frame.put_i32(16);
    frame.put_i32(correlation_id);
    frame.put_i16(ErrorCode::UnsupportedVersion.code());
    frame.put_i32(1);
    frame.put_i16(api.key);
    frame.put_i16(api.listed_min);
    frame.put_i16(api.max);
    Answer::Frame(frame)
}

fn features(node: &Node, version: i16, response: &mut ApiVersionsResponse) {
    response.supported_features = FEATURES
        .into_iter()
        // KAFKA-17492: clients before 3.9 can't read a supported feature whose minimum is 0.
        .filter(|feature| version >= 4 || feature.min > 0)
        .map(|feature| {
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_static_str(feature.name))
                .with_min_version(feature.min)
                .with_max_version(feature.max)
        })
        .collect();
    let finalized = node.metadata.finalized();
    let levels = [
        (GROUP_VERSION.name, finalized.group_version),
        (METADATA_VERSION.name, METADATA_VERSION.max),
        (TRANSACTION_VERSION.name, finalized.transaction_version),
    ];
    response.finalized_features = levels
        .into_iter()
        .filter(|(_, level)| *level > 0)
        .map(|(name, level)| {
            FinalizedFeatureKey::default()
                .with_name(StrBytes::from_static_str(name))
                .with_max_version_level(level)
                .with_min_version_level(level)
        })
        .collect();
    response.finalized_features_epoch = finalized.epoch;
}

/// Letters, digits, and dots and dashes inside (KIP-511).
fn is_software_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter()
        .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words_follow_kip_511() {
        for word in ["a", "apache-kafka-java", "4.3.1", "0"] {
            assert!(is_software_word(word), "{word}");
        }
        for word in ["", "-", "a-", ".a", "a b", "ä"] {
            assert!(!is_software_word(word), "{word}");
        }
    }
}
