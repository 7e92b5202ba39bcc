//! Dead letters: what a consumer gave up on, kept with the cause until somebody works through it.
//!
//! In: letters, which each consumer writes to the table `dlq` of its own database in the transaction that gives the event
//! up ([`store::write`]). Out, by HTTP and the command line: lists, causes, counts; a letter may be discarded, or asked to be
//! replayed. The consumer that failed does that itself, beside its other work ([`replay`]).
//!
//! Guarantees: a replay is marked in the transaction that carries its effect, so it is done once, whatever is killed; a
//! letter that fails again is pending again, with the new cause; of one lane (an aggregate's letters of one part of a
//! consumer) none is replayed before an earlier one that was asked for too and failed. Nothing is ever replayed unasked.

mod filter;
pub mod http;
mod letter;
pub mod replay;
pub mod store;

pub use filter::{BadFilter, Filter, Filters};
pub use http::{endpoints, openapi, routes};
pub use letter::{Known, Letter, NewLetter, Summary, WholeLetter};

/// Told after letters were asked to be replayed.
pub const CHANNEL: &str = "cornjacket_dead_letters";

/// Longest reason of a discard, in characters.
pub const MAX_REASON_CHARS: usize = 1_000;

/// Consumers of this release, as the column `consumer` names them.
pub const EVENT_HANDLER: &str = "event-handler";
pub const ACTIONS: &str = "actions";
pub const RELAY: &str = "relay";
pub const MQTT_INGRESS: &str = "mqtt-ingress";
pub const TSDB_WRITER: &str = "tsdb-writer";
