//! Whether nothing can be written at all, and whether two schemas have no value in common. "No" may mean "unknown".

use super::document::Sub;
use super::number::Decimal;
use super::ranges::{at_least, at_most, leaves_no_number};
use super::same::same;
use super::types::Types;
use super::walk::Comparison;
use super::written::Written;

/// How far contradictions are followed into properties and alternatives.
const DEPTH: usize = 4;

impl Comparison {
    /// No value is in all the schemas.
    pub(super) fn is_empty(&mut self, written: &Written<'_>) -> bool {
        self.is_empty_within(written, DEPTH)
    }

    fn is_empty_within(&mut self, written: &Written<'_>, depth: usize) -> bool {
        if written.nothing || written.types.is_empty() {
            return true;
        }
        if depth == 0 || !self.step() {
            return false;
        }
        if let Some(values) = written.values() {
            return values.is_empty();
        }
        if leaves_no_size(written) || is_excluded(written) {
            return true;
        }
        if written.types == Types::OBJECT && self.lacks_a_required(written, depth) {
            return true;
        }
        written.split().is_some_and(|ways| ways.iter().all(|way| self.is_empty_within(way, depth - 1)))
    }

    /// A property must be there, and nothing may be in it.
    fn lacks_a_required(&mut self, written: &Written<'_>, depth: usize) -> bool {
        let names: Vec<&str> = written.required().collect();
        names
            .into_iter()
            .any(|name| self.property(written, name).is_some_and(|property| self.is_empty_within(&property, depth - 1)))
    }

    /// No value that is written is in the schema.
    pub(super) fn excludes<'a>(&mut self, written: &Written<'a>, schema: &Sub<'a>) -> bool {
        let both = written.and(schema);
        self.is_empty(&both) || self.contradicts(&both, DEPTH)
    }

    /// Everything in `both` is in a schema that does not hold.
    fn contradicts(&mut self, both: &Written<'_>, depth: usize) -> bool {
        if depth == 0 || !self.step() {
            return false;
        }
        let within = both.excluded.iter().any(|excluded| self.holds_strictly(|trial| trial.accepts(excluded, both)));
        within
            || both
                .split()
                .is_some_and(|ways| ways.iter().all(|way| self.is_empty(way) || self.contradicts(way, depth - 1)))
    }
}

fn is_excluded(written: &Written<'_>) -> bool {
    let holds = |excluded: &Sub<'_>| written.parts.iter().any(|part| same(excluded, part));
    written.excluded.iter().any(|excluded| excluded.is_anything() || holds(excluded))
}

fn leaves_no_size(written: &Written<'_>) -> bool {
    let crossed =
        |least: &str, most: &str| at_most(written, most).is_some_and(|most: Decimal| most < at_least(written, least));
    match written.types {
        Types::STRING => crossed("minLength", "maxLength"),
        Types::ARRAY => crossed("minItems", "maxItems"),
        Types::OBJECT => crossed("minProperties", "maxProperties"),
        types => types.is_within(Types::NUMBER) && leaves_no_number(written),
    }
}
