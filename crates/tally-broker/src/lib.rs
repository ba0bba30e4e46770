//! Sockets, Kafka APIs, routing, metadata and configuration.
