//! How resources are made true: resolve, plan, apply, status.
//!
//! ```text
//! source ──▶ resolve ──▶ plan ──▶ effects: registrations, topics ──▶ status
//! ```
//!
//! In: a whole set of declared resources ([`resource`]), and what is registered now. Out: registrations that the
//! data plane loads, topics that were missing on the bus, and a status per resource that says whether it is really
//! served. A resource that cannot run never reaches the data plane: what it was before goes on.
//!
//! [`resolve`], [`plan`] and [`status`] are pure and know no source and no home of status; [`effects`] is thin.

pub mod backoff;
mod cycle;
pub mod effects;
pub mod event_type;
pub mod plan;
pub mod projection;
pub mod resolve;
pub mod resource;
mod run;
pub mod source;
pub mod status;
pub mod topic;
mod topics;
pub mod webhook_action;

pub use run::{Config, State, run};

#[cfg(test)]
mod testing;
