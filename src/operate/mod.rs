//! What an operator sees of a process: health, readiness, metrics, logs. Every role serves it on its own port.

pub mod http;
pub mod logs;
pub mod metrics;
mod readiness;

pub use readiness::{Gate, Readiness};
