//! Consumer groups and committed offsets as a replayable state machine.
