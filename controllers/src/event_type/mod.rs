//! Event types: what payloads look like, and which topic they go to.

pub mod compatibility;
mod mqtt;
pub mod resolve;
pub mod status;
