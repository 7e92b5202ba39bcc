//! Everything that touches the outside world: thin, so that every decision stays testable without it.

pub mod kafka;
pub mod kubernetes;
pub mod listen;
pub mod postgres;
pub mod rule;
