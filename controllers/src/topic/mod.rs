//! Topics: which events go where, and whether the bus has what they go to.

pub mod plan;
pub mod resolve;
pub mod status;
