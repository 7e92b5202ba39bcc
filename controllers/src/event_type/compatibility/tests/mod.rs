//! What is compatible, row by row, and sampled against the validator.

mod alternatives;
mod arrays;
mod messages;
mod objects;
mod sampled;
mod values;

use crds::event_type::Compatibility;
use serde_json::Value;

use super::{Breaks, Incompatible, compare};

/// What happened to a schema, the older and the newer one, the places that break payloads of the older one, and those
/// that break readers of the older one.
type Row = (&'static str, Value, Value, &'static [&'static str], &'static [&'static str]);

/// Compatible in that direction.
const OK: &[&str] = &[];

/// The pointers of the differences in one direction.
fn pointers(found: &Result<(), Incompatible>, breaks: Breaks) -> Vec<&str> {
    let differences = found.as_ref().err().into_iter().flat_map(|found| &found.differences);
    differences.filter(|difference| difference.breaks == breaks).map(|difference| difference.pointer.as_str()).collect()
}

fn check(rows: &[Row]) {
    let wrong: Vec<String> = rows.iter().filter_map(|row| checked(row).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn checked((what, older, newer, backward, forward): &Row) -> Result<(), String> {
    for schema in [older, newer] {
        compiles(schema).map_err(|error| format!("{what}: {error}"))?;
        compare(schema, schema, Compatibility::Full)
            .map_err(|found| format!("{what}: not equal to itself: {found}"))?;
    }
    let full = compare(older, newer, Compatibility::Full);
    let found = (pointers(&full, Breaks::Backward), pointers(&full, Breaks::Forward));
    let one_way = |mode| compare(older, newer, mode).is_ok();
    let ways = (one_way(Compatibility::Backward), one_way(Compatibility::Forward), one_way(Compatibility::None));
    if found == (backward.to_vec(), forward.to_vec()) && ways == (backward.is_empty(), forward.is_empty(), true) {
        return Ok(());
    }
    Err(format!("{what}: expected {backward:?} and {forward:?}, found {found:?} {ways:?}: {full:?}"))
}

/// Rows are schemas that a manifest may have.
fn compiles(schema: &Value) -> Result<(), crds::language::schema::SchemaError> {
    match schema {
        Value::Bool(_) => Ok(()),
        schema => crds::language::schema::PayloadSchema::compile(schema).map(drop),
    }
}
