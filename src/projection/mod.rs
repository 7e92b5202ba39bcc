//! Projections: state folded from events.
//!
//! In: events of the store in shard order, and the rows they touch. Out: the rows after them. [`Program`] and
//! [`Working`] decide and know no database; [`store`] reads and writes the tables `projections`,
//! `projections_rebuild` and `projection_progress`.
//!
//! Every row remembers the position that last wrote it, per shard that feeds it, so that an event read twice is
//! folded once, whatever path it came by.

mod fold;
mod late;
mod program;
pub mod store;
#[cfg(test)]
mod tests;
mod working;

pub use fold::{FoldError, Folded, Row};
pub use late::Late;
pub use program::Program;
pub use working::{Failure, RowKey, Subject, Tally, Working};
