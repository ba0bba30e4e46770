//! ListGroups (GR-100): what every coordinator of this broker holds.

use crate::api::Node;
use crate::api::topics::text;
use crate::metadata::CONSUMER_OFFSETS;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;
use tally_groups::GroupListing;
use tally_protocol::ErrorCode;
use tally_shard::{Inspected, Inspection};

/// The first version that filters by state and shows it.
const STATES: i16 = 4;
/// The first version that filters by type and shows it.
const TYPES: i16 = 5;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let mut response = ListGroupsResponse::default();
    match every_group(node).await {
        Ok(groups) => {
            response.groups = groups
                .into_iter()
                .filter(|group| wants_type(&request.types_filter, group.kind.name()))
                .filter(|group| wants_state(&request.states_filter, group.state.name()))
                .map(|group| listed(version, &group))
                .collect();
        }
        Err(code) => response.error_code = code.code(),
    }
    response
}

/// A coordinator that loads makes the whole answer 14; one that is not here is left out (GR-11).
async fn every_group(node: &Node) -> Result<Vec<GroupListing>, ErrorCode> {
    let mut all = Vec::new();
    let offsets = node.metadata.topic(CONSUMER_OFFSETS);
    for id in offsets.iter().flat_map(|topic| topic.partition_ids()) {
        match node.inspect(id, Inspection::Groups).await {
            Ok(Inspected::Groups(groups)) => all.extend(groups),
            Err(ErrorCode::NotCoordinator) => {}
            Err(code) => return Err(code),
            Ok(_) => return Err(ErrorCode::UnknownServerError),
        }
    }
    Ok(all)
}

/// No filter wants everything; a name that means nothing wants nothing.
fn wants_type(filter: &[StrBytes], kind: &str) -> bool {
    filter.is_empty() || filter.iter().any(|name| name.eq_ignore_ascii_case(kind))
}

fn wants_state(filter: &[StrBytes], state: &str) -> bool {
    filter.is_empty()
        || filter
            .iter()
            .any(|name| name.trim().eq_ignore_ascii_case(state))
}

fn listed(version: i16, group: &GroupListing) -> ListedGroup {
    let mut row = ListedGroup::default();
    row.group_id = GroupId(text(&group.group));
    row.protocol_type = text(&group.protocol_type);
    if version >= STATES {
        row.group_state = text(group.state.name());
    }
    if version >= TYPES {
        row.group_type = text(group.kind.name());
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gr100_filters_know_no_case_and_unknown_names_match_nothing() {
        let filter = |names: &[&str]| names.iter().map(|name| text(name)).collect::<Vec<_>>();
        for (names, wanted) in [
            (&[][..], true),
            (&["classic"], true),
            (&["Consumer", "CLASSIC"], true),
            (&["consumer"], false),
            (&["nonsense"], false),
        ] {
            assert_eq!(wants_type(&filter(names), "classic"), wanted, "{names:?}");
        }
        for (names, wanted) in [
            (&[][..], true),
            (&[" stable "], true),
            (&["Empty", "STABLE"], true),
            (&["Empty"], false),
            (&["nonsense"], false),
        ] {
            assert_eq!(wants_state(&filter(names), "Stable"), wanted, "{names:?}");
        }
    }
}
