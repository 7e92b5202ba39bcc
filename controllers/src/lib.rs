//! How resources are made true: resolve, plan, apply, status.
//!
//! ```text
//! source ──▶ resolve ──▶ plan ──▶ effects: registrations, topics ──▶ status
//! ```
//!
//! In: a whole set of declared resources ([`resource`]), and what is registered now. Out: registrations that the
//! data plane loads, topics on the bus that are as described, and a status per resource that says whether it is really
//! served. A resource that cannot run never reaches the data plane: what it was before goes on.
//!
//! [`resolve`], [`plan`] and [`status`] are pure and know no source and no home of status; [`effects`] is thin.

pub mod backoff;
pub mod cluster;
pub mod crash;
pub mod effects;
pub mod event_type;
mod look;
mod migrations;
pub mod plan;
pub mod projection;
pub mod resolve;
pub mod resource;
mod run;
mod session;
pub mod source;
pub mod status;
pub mod topic;
mod topics;
pub mod webhook_action;

pub use run::{Config, Source, State, run};
pub use session::{DRIFT_SECONDS, Platform};

/// Default of [`cluster::Settings::secrets`], in seconds.
pub const SECRET_SECONDS: u64 = 30;

#[cfg(test)]
mod testing;
