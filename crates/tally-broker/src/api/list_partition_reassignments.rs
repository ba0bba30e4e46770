//! ListPartitionReassignments (log-and-fetch.md 11.6): with one broker nothing is ever under way.

use kafka_protocol::messages::ListPartitionReassignmentsResponse;

pub(crate) fn handle() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
