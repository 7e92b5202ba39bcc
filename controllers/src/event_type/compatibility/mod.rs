//! Whether one payload schema accepts what another accepts. Pure and bounded.
//!
//! In: two JSON Schemas that compile. Out: each difference, with the place in the schema that refuses, what was accepted
//! before and what is now, and whom it hurts. Guaranteed: what is called compatible is, with one exception that
//! [`properties`] explains; what cannot be decided is a difference; and schemas that say the same are compatible,
//! however they are annotated. References are followed, alternatives taken apart, listed values tried one by one.

mod arrays;
mod combinations;
mod difference;
mod document;
mod empty;
mod number;
mod properties;
mod ranges;
mod same;
#[cfg(test)]
mod tests;
mod types;
mod values;
mod walk;
mod written;

use crds::event_type::Compatibility;
use serde_json::Value;

pub use difference::{Breaks, Difference, Incompatible};
use document::Document;
use walk::Comparison;

/// Compares a newer schema with an older one.
///
/// # Errors
/// All places where a payload that must be accepted may not be.
pub fn compare(older: &Value, newer: &Value, mode: Compatibility) -> Result<(), Incompatible> {
    let (backward, forward) = match mode {
        Compatibility::None => (false, false),
        Compatibility::Backward => (true, false),
        Compatibility::Forward => (false, true),
        Compatibility::Full => (true, true),
    };
    let (older, newer) = (Document::new(older, 'o'), Document::new(newer, 'n'));
    let (older, newer) = (older.top(), newer.top());
    let mut incompatible = Incompatible::default();
    if backward {
        incompatible.extend(Comparison::new(Breaks::Backward).run(&newer, &older));
    }
    if forward {
        incompatible.extend(Comparison::new(Breaks::Forward).run(&older, &newer));
    }
    if incompatible.differences.is_empty() { Ok(()) } else { Err(incompatible) }
}
