//! Arrays: items by place and in general, how many must match, and whether they differ.

use super::difference::brief;
use super::document::Sub;
use super::number::Decimal;
use super::ranges::{at_least, at_most};
use super::same::same_keyword;
use super::walk::{Comparison, is_kept};
use super::written::Written;

impl Comparison {
    pub(super) fn arrays<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        self.items(reader, written);
        self.contains(reader, written);
        let unique = |value: &serde_json::Value| value == true;
        let few = at_most(written, "maxItems").is_some_and(|most| most <= Decimal::from(1));
        if reader.get("uniqueItems").is_some_and(unique) && !few && !written.all("uniqueItems").any(unique) {
            self.differs(reader.place("uniqueItems"), "equal items allowed".to_owned(), "refused".to_owned());
        }
        if reader.get("unevaluatedItems").is_some() && reader.rest().is_none() {
            self.undecided(reader, "unevaluatedItems", written);
        }
    }

    fn items<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let own = reader.list("prefixItems");
        let rest = reader.rest();
        let places = own.len().max(if rest.is_some() { written.prefix() } else { 0 });
        let most = at_most(written, "maxItems");
        let may_have = |index: usize| {
            let index = Decimal::from(i128::try_from(index).unwrap_or(i128::MAX));
            most.as_ref().is_none_or(|most| *most > index)
        };
        for index in (0..places).filter(|index| may_have(*index)) {
            if let Some(schema) = own.get(index).or(rest.as_ref()) {
                self.accepts(schema, &written.item(index));
            }
        }
        if let Some(rest) = rest.filter(|_| may_have(places)) {
            self.accepts(&rest, &written.item(places));
        }
    }

    fn contains<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let Some(schema) = reader.child("contains").filter(|_| !is_kept("contains", reader, written)) else { return };
        let least = fewest(reader);
        if least > Decimal::from(0) && !self.has_some(&schema, &least, written) {
            let theirs = written.all("contains").next().map_or("none needed".to_owned(), |v| brief(&v.to_string()));
            self.differs(reader.place("contains"), theirs, format!("{least} of {}", brief(&schema.schema.to_string())));
        }
        let Some(most) = reader.get("maxContains").and_then(Decimal::of) else { return };
        let counted = |part: &Sub<'a>| {
            same_keyword("contains", reader, part)
                && part.get("maxContains").and_then(Decimal::of).is_some_and(|n| n <= most)
        };
        if !written.parts.iter().any(counted) && at_most(written, "maxItems").is_none_or(|n| n > most) {
            self.undecided(reader, "maxContains", written);
        }
    }

    /// At least so many items are in the schema.
    fn has_some<'a>(&mut self, schema: &Sub<'a>, least: &Decimal, written: &Written<'a>) -> bool {
        let counted = written.parts.iter().filter(|part| fewest(part) >= *least);
        let counted: Vec<Sub<'a>> = counted.filter_map(|part| part.child("contains")).collect();
        if counted.iter().any(|theirs| self.holds(|trial| trial.accepts(schema, &Written::of(theirs)))) {
            return true;
        }
        at_least(written, "minItems") >= *least
            && (0..=written.prefix()).all(|index| self.holds(|trial| trial.accepts(schema, &written.item(index))))
    }
}

/// How many items `contains` asks for.
fn fewest(schema: &Sub<'_>) -> Decimal {
    schema.get("minContains").and_then(Decimal::of).unwrap_or_else(|| Decimal::from(1))
}
