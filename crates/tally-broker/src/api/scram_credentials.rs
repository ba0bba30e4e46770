//! DescribeUserScramCredentials and AlterUserScramCredentials: no listener asks for a password, so there are none. What
//! Apache Kafka refuses is refused with its code; a password that it would keep is refused too (35), because one that is
//! kept and never asked for protects nothing.

use crate::api::topics::text;
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use tally_protocol::ErrorCode;

/// How often a password may be hashed.
const ITERATIONS: std::ops::RangeInclusive<i32> = 4096..=16384;

pub(crate) fn describe(
    request: &DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut asked: BTreeMap<&str, bool> = BTreeMap::new();
    for user in request.users.iter().flatten() {
        asked
            .entry(user.name.as_str())
            .and_modify(|twice| *twice = true)
            .or_insert(false);
    }
    let results = asked.into_iter().map(|(user, twice)| {
        let (code, message) = if twice {
            (ErrorCode::DuplicateResource, "the user is asked for twice")
        } else {
            (ErrorCode::ResourceNotFound, "the user has no credentials")
        };
        DescribeUserScramCredentialsResult::default()
            .with_user(text(user))
            .with_error_code(code.code())
            .with_error_message(Some(text(message)))
    });
    DescribeUserScramCredentialsResponse::default().with_results(results.collect())
}

pub(crate) fn alter(
    request: &AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let mut refused: BTreeMap<&str, (ErrorCode, &'static str)> = BTreeMap::new();
    let deletions = request.deletions.iter().map(|deletion| {
        (
            deletion.name.as_str(),
            refuse_deletion(&deletion.name, deletion.mechanism),
        )
    });
    let upsertions = request
        .upsertions
        .iter()
        .map(|upsertion| (upsertion.name.as_str(), refuse_upsertion(upsertion)));
    // A user has one row, whatever was asked for it. What is wrong in itself outweighs being asked twice.
    for (user, refusal) in deletions.chain(upsertions) {
        match refused.entry(user) {
            Entry::Vacant(row) => {
                row.insert(refusal);
            }
            Entry::Occupied(mut row) => {
                if is_possible(row.get().0) {
                    row.insert((
                        ErrorCode::DuplicateResource,
                        "the user is to be changed twice",
                    ));
                }
            }
        }
    }
    let results = refused.into_iter().map(|(user, (code, message))| {
        AlterUserScramCredentialsResult::default()
            .with_user(text(user))
            .with_error_code(code.code())
            .with_error_message(Some(text(message)))
    });
    AlterUserScramCredentialsResponse::default().with_results(results.collect())
}

/// Whether the change would be made if there were credentials.
fn is_possible(code: ErrorCode) -> bool {
    code == ErrorCode::UnsupportedVersion
}

fn refuse_deletion(user: &str, mechanism: i8) -> (ErrorCode, &'static str) {
    refuse_name(user, mechanism).unwrap_or((
        ErrorCode::ResourceNotFound,
        "the user has no credentials of this mechanism",
    ))
}

fn refuse_upsertion(upsertion: &ScramCredentialUpsertion) -> (ErrorCode, &'static str) {
    if let Some(refusal) = refuse_name(&upsertion.name, upsertion.mechanism) {
        refusal
    } else if !ITERATIONS.contains(&upsertion.iterations) {
        (
            ErrorCode::UnacceptableCredential,
            "iterations must be from 4096 to 16384",
        )
    } else {
        (
            ErrorCode::UnsupportedVersion,
            "SCRAM is not built: no listener would ask for this password",
        )
    }
}

fn refuse_name(user: &str, mechanism: i8) -> Option<(ErrorCode, &'static str)> {
    // SCRAM-SHA-256 and SCRAM-SHA-512.
    if ![1, 2].contains(&mechanism) {
        Some((
            ErrorCode::UnsupportedSaslMechanism,
            "mechanisms are 1, SCRAM-SHA-256, and 2, SCRAM-SHA-512",
        ))
    } else if user.is_empty() {
        Some((
            ErrorCode::UnacceptableCredential,
            "the user's name is empty",
        ))
    } else {
        None
    }
}
