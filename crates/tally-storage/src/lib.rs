//! Segments, indexes, recovery and the journal, reader and metadata seams.
