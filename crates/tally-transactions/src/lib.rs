//! The transaction coordinator as a replayable state machine.
