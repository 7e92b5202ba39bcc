//! Topics: which events go where, and that the bus has what they go to.

pub mod differences;
pub mod plan;
pub mod resolve;
pub mod settle;
pub mod status;
pub mod wanted;
