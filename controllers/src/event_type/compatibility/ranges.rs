//! Bounds of numbers, lengths and counts, and keywords whose values say nothing to us: `pattern`, `format`.

use serde_json::Value;

use super::document::Sub;
use super::number::{Decimal, equal};
use super::types::Types;
use super::walk::Comparison;
use super::written::Written;

/// Lengths and counts: the least, the most, and of what.
const SIZES: [(&str, &str, Types); 3] = [
    ("minLength", "maxLength", Types::STRING),
    ("minItems", "maxItems", Types::ARRAY),
    ("minProperties", "maxProperties", Types::OBJECT),
];
/// Satisfied by nothing but themselves.
const OPAQUE: [&str; 2] = ["pattern", "format"];

/// An end of a range of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    value: Decimal,
    /// The value itself is outside.
    exclusive: bool,
    keyword: &'static str,
}

/// Which end of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Lower,
    Upper,
}

impl End {
    fn keywords(self) -> [&'static str; 2] {
        match self {
            Self::Lower => ["minimum", "exclusiveMinimum"],
            Self::Upper => ["maximum", "exclusiveMaximum"],
        }
    }

    fn bounds(self, schema: &Sub<'_>) -> Vec<Bound> {
        let bound = |keyword: &'static str| {
            let value = schema.get(keyword).and_then(Decimal::of)?;
            Some(Bound { value, exclusive: keyword.starts_with("exclusive"), keyword })
        };
        self.keywords().into_iter().filter_map(bound).collect()
    }

    /// `inner` leaves nothing that `outer` does not.
    fn is_within(self, inner: &Bound, outer: &Bound) -> bool {
        let further = match self {
            Self::Lower => inner.value > outer.value,
            Self::Upper => inner.value < outer.value,
        };
        further || (inner.value == outer.value && (inner.exclusive || !outer.exclusive))
    }

    /// The tightest bound of what is written; of whole numbers, the first one within.
    pub fn of(self, written: &Written<'_>) -> Option<Bound> {
        let bounds = written.parts.iter().flat_map(|part| self.bounds(part));
        let tightest = bounds.reduce(|one, other| if self.is_within(&one, &other) { one } else { other })?;
        let whole = !written.types.meets(Types::FRACTION);
        Some(if whole { self.first_whole(&tightest).unwrap_or(tightest) } else { tightest })
    }

    fn first_whole(self, bound: &Bound) -> Option<Bound> {
        let step = if self == Self::Lower { 1 } else { -1 };
        let whole = bound.value.rounded(self == Self::Lower)?;
        let outside = bound.exclusive && bound.value.is_whole();
        let value = Decimal::from(whole.checked_add(if outside { step } else { 0 })?);
        Some(Bound { value, exclusive: false, keyword: self.keywords()[0] })
    }
}

/// No number is within the bounds.
pub(super) fn leaves_no_number(written: &Written<'_>) -> bool {
    match (End::Lower.of(written), End::Upper.of(written)) {
        (Some(lower), Some(upper)) => {
            lower.value > upper.value || (lower.value == upper.value && (lower.exclusive || upper.exclusive))
        }
        _ => false,
    }
}

/// The most items or characters or properties, where that is bounded.
pub(super) fn at_most(written: &Written<'_>, keyword: &str) -> Option<Decimal> {
    let said = written.all(keyword).filter_map(Decimal::of);
    let closed = |part: &Sub<'_>| match keyword {
        "maxItems" if part.rest().is_some_and(|rest| rest.is_nothing()) => Some(part.list("prefixItems").len()),
        "maxProperties"
            if part.additional().is_some_and(|rest| rest.is_nothing()) && part.map("patternProperties").is_none() =>
        {
            Some(part.map("properties").map_or(0, serde_json::Map::len))
        }
        _ => None,
    };
    let implied = written.parts.iter().filter_map(closed).filter_map(|count| i128::try_from(count).ok());
    said.chain(implied.map(Decimal::from)).min()
}

/// The fewest of them.
pub(super) fn at_least(written: &Written<'_>, keyword: &str) -> Decimal {
    let said = written.all(keyword).filter_map(Decimal::of);
    let required = written.all("required").filter_map(Value::as_array).map(|names| {
        let distinct: std::collections::BTreeSet<&str> = names.iter().filter_map(Value::as_str).collect();
        i128::try_from(distinct.len()).unwrap_or_default()
    });
    let implied = required.filter(|_| keyword == "minProperties");
    said.chain(implied.map(Decimal::from)).max().unwrap_or_else(|| Decimal::from(0))
}

impl Comparison {
    pub(super) fn ranges<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let numbers = written.within(Types::NUMBER);
        if !numbers.types.is_empty() && !leaves_no_number(&numbers) {
            self.bounds(reader, &numbers);
            self.multiples(reader, &numbers);
        }
        for (least, most, of) in SIZES {
            if written.types.meets(of) {
                self.sizes(reader, written, least, most);
            }
        }
    }

    fn bounds<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        for end in [End::Lower, End::Upper] {
            let theirs = end.of(written);
            for bound in end.bounds(reader) {
                if !theirs.as_ref().is_some_and(|theirs| end.is_within(theirs, &bound)) {
                    let said = |bound: &Bound| format!("{} {}", bound.keyword, bound.value);
                    let theirs = theirs.as_ref().map_or_else(|| format!("no {}", bound.keyword), said);
                    self.differs(reader.place(bound.keyword), theirs, said(&bound));
                }
            }
        }
    }

    fn multiples<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let Some(divisor) = reader.get("multipleOf").and_then(Decimal::of) else { return };
        let whole = (!written.types.meets(Types::FRACTION)).then(|| Decimal::from(1));
        let theirs: Vec<Decimal> = written.all("multipleOf").filter_map(Decimal::of).collect();
        if theirs.iter().chain(&whole).any(|n| n.is_multiple_of(&divisor) == Some(true)) {
            return;
        }
        let theirs = theirs.first().map_or_else(|| "any".to_owned(), |n| format!("multiples of {n}"));
        self.differs(reader.place("multipleOf"), theirs, format!("multiples of {divisor}"));
    }

    fn sizes<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>, least: &str, most: &str) {
        if let Some(bound) = reader.get(least).and_then(Decimal::of) {
            let theirs = at_least(written, least);
            if theirs < bound {
                self.differs(reader.place(least), theirs.to_string(), bound.to_string());
            }
        }
        if let Some(bound) = reader.get(most).and_then(Decimal::of) {
            let theirs = at_most(written, most);
            if theirs.as_ref().is_none_or(|theirs| *theirs > bound) {
                let theirs = theirs.map_or_else(|| format!("no {most}"), |theirs| theirs.to_string());
                self.differs(reader.place(most), theirs, bound.to_string());
            }
        }
    }

    /// Keywords that only their own kind satisfies, and those for values that are listed.
    pub(super) fn opaque<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        self.unlisted(reader, written);
        for keyword in OPAQUE {
            let Some(accepted) = reader.get(keyword).filter(|_| written.types.meets(Types::STRING)) else { continue };
            if !written.all(keyword).any(|theirs| equal(theirs, accepted)) {
                self.undecided(reader, keyword, written);
            }
        }
    }
}
