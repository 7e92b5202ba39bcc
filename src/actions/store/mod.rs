//! SQL of deliveries.

pub mod attempts;
pub mod endpoints;
pub mod intake;
pub mod lists;
pub mod upkeep;
