//! Projections: which state is kept, and from which events.

pub mod migration;
pub mod resolve;
pub mod status;
