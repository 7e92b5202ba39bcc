//! Projections: which state is kept, and from which events.

pub mod migration;
pub mod resolve;
mod series;
pub mod status;
