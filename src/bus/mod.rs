//! The bus between the event store and its consumers, with two sources behind one reader: `embedded` (the event store
//! itself, read by cursors) and `kafka`.
//!
//! In: events that a relay has appended (embedded) or published (Kafka). Out: claims, each a transaction in which the
//! reader's progress has moved already, and the events that this progress stands for. Effects written in that
//! transaction happen exactly once.

pub mod embedded;
pub mod kafka;
pub mod partition;
mod reader;
pub mod retry;
pub mod wake;

pub use reader::{BusError, Claim, GROUP_LOCK, Lane, Reader, Wanted};

/// Where events go that no Topic resource routes elsewhere.
pub const DEFAULT_TOPIC: &str = "system-events";

/// The consumer group of the event handler.
pub const EVENT_HANDLER: &str = "event-handler";
