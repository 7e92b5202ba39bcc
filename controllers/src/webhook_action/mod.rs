//! Webhook actions: checked, so that a mistake shows early; this release does not run them.

pub mod resolve;
pub mod status;
