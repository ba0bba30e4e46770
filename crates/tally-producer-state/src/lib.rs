//! Per-partition producer state: duplicates, epochs, open transactions, aborted transactions.
