//! Time series: rows are the events, exactly once, and answers are what the rows say.

mod exports;
mod faults;
mod queries;
mod rows;
mod tables;
pub mod world;
