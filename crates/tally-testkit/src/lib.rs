//! Simulated parts, builders and a wire client for tests.
