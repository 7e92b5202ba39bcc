//! The bus between the event store and its consumers, with two sources behind one reader: `embedded` (the event store
//! itself, read by cursors) and `kafka`.
//!
//! In: events that a relay has appended (embedded) or publishes (Kafka). Out: claims, each a transaction in which the
//! reader's progress has moved already, and the events that this progress stands for. Effects written in that
//! transaction happen exactly once.

pub mod partition;
pub mod wake;
