//! ListTransactions (L-2): what every coordinator of this broker holds.

use crate::api::Node;
use crate::api::topics::text;
use crate::metadata::TRANSACTION_STATE;
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId as WireProducerId,
    TransactionalId,
};
use regex::Regex;
use tally_protocol::records::transaction_log::TransactionState;
use tally_protocol::{ErrorCode, ProducerId};
use tally_shard::{Inspected, Inspection};
use tally_transactions::{ListFilter, Listing};

/// All states, to find them by name.
const STATES: [TransactionState; 8] = [
    TransactionState::Empty,
    TransactionState::Ongoing,
    TransactionState::PrepareCommit,
    TransactionState::PrepareAbort,
    TransactionState::CompleteCommit,
    TransactionState::CompleteAbort,
    TransactionState::Dead,
    TransactionState::PrepareEpochFence,
];

pub(crate) async fn handle(
    node: &Node,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let mut response = ListTransactionsResponse::default();
    let mut states = Vec::new();
    for name in &request.state_filters {
        match STATES.iter().find(|state| state.name() == name.as_str()) {
            Some(state) => states.push(*state),
            None => response.unknown_state_filters.push(name.clone()),
        }
    }
    let pattern = request.transactional_id_pattern.as_deref();
    let pattern = match pattern
        .filter(|pattern| !pattern.is_empty())
        .map(whole_match)
    {
        Some(Err(_)) => {
            response.error_code = ErrorCode::InvalidRegularExpression.code();
            return response;
        }
        Some(Ok(pattern)) => Some(pattern),
        None => None,
    };
    let producer_ids = request
        .producer_id_filters
        .iter()
        .map(|id| ProducerId(id.0));
    let filter = ListFilter {
        states: (!request.state_filters.is_empty()).then_some(states),
        producer_ids: (!request.producer_id_filters.is_empty()).then(|| producer_ids.collect()),
        longer_than_ms: Some(request.duration_filter).filter(|limit_ms| *limit_ms >= 0),
    };
    match every_transaction(node, &filter).await {
        Ok(listings) => {
            let wanted = listings.iter().filter(|listing| {
                let pattern = pattern.as_ref();
                pattern.is_none_or(|pattern| pattern.is_match(&listing.transactional_id))
            });
            response.transaction_states = wanted.map(listed).collect();
        }
        Err(code) => response.error_code = code.code(),
    }
    response
}

/// A coordinator that loads makes the whole answer 14; one that is not here is left out.
async fn every_transaction(node: &Node, filter: &ListFilter) -> Result<Vec<Listing>, ErrorCode> {
    let mut all = Vec::new();
    let states = node.metadata.topic(TRANSACTION_STATE);
    for id in states.iter().flat_map(|topic| topic.partition_ids()) {
        let what = Inspection::Transactions(filter.clone());
        match node.inspect(id, what).await {
            Ok(Inspected::Transactions(listings)) => all.extend(listings),
            Err(ErrorCode::NotCoordinator) => {}
            Err(code) => return Err(code),
            Ok(_) => return Err(ErrorCode::UnknownServerError),
        }
    }
    Ok(all)
}

fn listed(listing: &Listing) -> ListedTransaction {
    ListedTransaction::default()
        .with_transactional_id(TransactionalId(text(&listing.transactional_id)))
        .with_producer_id(WireProducerId(listing.producer_id.0))
        .with_transaction_state(text(listing.state.name()))
}

/// A pattern that matches whole ids. RE2 in all that ids need: same alternation, classes, repetitions and flags, no look
/// around, no time beyond linear; `\Q...\E` is resolved here. Beyond RE2 the crate knows operators inside of classes
/// (`[a-z&&[^b]]`).
fn whole_match(pattern: &str) -> Result<Regex, regex::Error> {
    let pattern = without_quotes(pattern);
    // By itself first: `a)(b` must not become sound by what is put around it.
    Regex::new(&pattern)?;
    Regex::new(&format!(r"\A(?:{pattern})\z"))
}

/// Replaces `\Q...\E` by the same text with its special characters escaped.
fn without_quotes(pattern: &str) -> String {
    let mut plain = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        if let Some(quoted) = escape.strip_prefix(r"\Q") {
            let (text, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            plain.push_str(&regex::escape(text));
            rest = after;
        } else {
            let length = escape.chars().take(2).map(char::len_utf8).sum();
            let (escape, after) = escape.split_at(length);
            plain.push_str(escape);
            rest = after;
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, id: &str, matches: bool) {
        let compiled = whole_match(pattern).unwrap();
        assert_eq!(compiled.is_match(id), matches, "{pattern} on {id}");
    }

    #[test]
    fn l2_a_pattern_matches_whole_ids() {
        check("pay", "pay", true);
        check("pay", "pay-1", false);
        check("pay.*", "pay-1", true);
        check("a|ab", "ab", true);
        check("(?i)PAY", "pay", true);
        check(r"pay-\d+", "pay-17", true);
        check("pay", "pay\n", false);
    }

    #[test]
    fn l2_quotes_are_text() {
        check(r"\Qa.b\E", "a.b", true);
        check(r"\Qa.b\E", "axb", false);
        check(r"\Qa.b\E.*", "a.bc", true);
        check(r"\Q(", "(", true);
        check(r"\\Q", r"\Q", true);
    }

    #[test]
    fn l2_bad_patterns_are_refused() {
        for pattern in ["(", "a)(b", "*", r"\", "(?=a)", r"(a)\1", "(?x)a # b"] {
            assert!(whole_match(pattern).is_err(), "{pattern}");
        }
    }
}
