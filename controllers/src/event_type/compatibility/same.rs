//! Whether two schemas say the same, annotations and order aside: what is plainly equal need not be understood.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::document::Sub;
use super::number::equal;
use super::written::lists;

const SCHEMAS: [&str; 10] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "unevaluatedItems",
    "contains",
    "not",
    "if",
    "then",
    "else",
];
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const MAPS: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];
const SETS: [&str; 3] = ["required", "type", "enum"];
const VALUES: [&str; 20] = [
    "const",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "contentEncoding",
    "contentMediaType",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minContains",
    "maxContains",
    "minProperties",
    "maxProperties",
    "dependentRequired",
];
/// Parts of schemas that are looked at before two are taken as different.
const LIMIT: usize = 2_000;

/// Whether both say the same.
pub(super) fn same(one: &Sub<'_>, other: &Sub<'_>) -> bool {
    Comparing::default().schemas(one, other)
}

/// Whether both have the keyword, or neither, and say the same by it.
pub(super) fn same_keyword(keyword: &str, one: &Sub<'_>, other: &Sub<'_>) -> bool {
    Comparing::default().keyword(keyword, one, other)
}

#[derive(Default)]
struct Comparing {
    /// Targets of references under comparison, which are the same until shown otherwise.
    open: Vec<(String, String)>,
    /// Those that were found to differ, whatever was assumed meanwhile.
    different: HashSet<(String, String)>,
    looked_at: usize,
}

impl Comparing {
    fn schemas(&mut self, one: &Sub<'_>, other: &Sub<'_>) -> bool {
        self.looked_at += 1;
        if one.is(other) || (one.is_anything() && other.is_anything()) {
            return true;
        }
        let (Value::Object(fields), Value::Object(others)) = (one.schema, other.schema) else {
            return one.schema == other.schema;
        };
        let keywords: BTreeSet<&String> = fields.keys().chain(others.keys()).collect();
        self.looked_at < LIMIT && keywords.into_iter().all(|keyword| self.keyword(keyword, one, other))
    }

    fn keyword(&mut self, keyword: &str, one: &Sub<'_>, other: &Sub<'_>) -> bool {
        if let (Some(a), Some(b)) = (one.child(keyword), other.child(keyword)) {
            return match keyword {
                "$ref" | "$dynamicRef" => self.references(keyword, one, other),
                "prefixItems" => self.ordered(&one.list(keyword), &other.list(keyword)),
                _ if SCHEMAS.contains(&keyword) => self.schemas(&a, &b),
                _ if LISTS.contains(&keyword) => self.unordered(&one.list(keyword), other.list(keyword)),
                _ if MAPS.contains(&keyword) => self.maps(keyword, one, other),
                _ if SETS.contains(&keyword) => sets(a.schema, b.schema),
                _ if VALUES.contains(&keyword) => equal(a.schema, b.schema),
                _ => true,
            };
        }
        match one.child(keyword).or_else(|| other.child(keyword)) {
            Some(alone) => says_nothing(keyword, &alone),
            None => true,
        }
    }

    fn references(&mut self, keyword: &str, one: &Sub<'_>, other: &Sub<'_>) -> bool {
        let (Some(a), Some(b)) = (one.target(keyword), other.target(keyword)) else { return false };
        let pair = (a.key(), b.key());
        if self.open.contains(&pair) {
            return true;
        }
        if self.different.contains(&pair) {
            return false;
        }
        self.open.push(pair.clone());
        let same = self.schemas(&a, &b);
        if !same {
            self.different.insert(pair);
        }
        same
    }

    fn ordered(&mut self, one: &[Sub<'_>], other: &[Sub<'_>]) -> bool {
        one.len() == other.len() && one.iter().zip(other).all(|(a, b)| self.schemas(a, b))
    }

    fn unordered(&mut self, one: &[Sub<'_>], mut other: Vec<Sub<'_>>) -> bool {
        one.len() == other.len()
            && one.iter().all(|a| {
                let found = other.iter().position(|b| self.tried(a, b));
                found.map(|index| other.swap_remove(index)).is_some()
            })
    }

    /// What was assumed is forgotten where it does not hold.
    fn tried(&mut self, one: &Sub<'_>, other: &Sub<'_>) -> bool {
        let before = self.open.len();
        let same = self.schemas(one, other);
        if !same {
            self.open.truncate(before);
        }
        same
    }

    fn maps(&mut self, keyword: &str, one: &Sub<'_>, other: &Sub<'_>) -> bool {
        let (Some(a), Some(b)) = (one.map(keyword), other.map(keyword)) else { return false };
        a.len() == b.len()
            && a.keys().all(|name| match (one.entry(keyword, name), other.entry(keyword, name)) {
                (Some(a), Some(b)) => self.schemas(&a, &b),
                _ => false,
            })
    }
}

fn sets(one: &Value, other: &Value) -> bool {
    let (one, other) = (listed(one), listed(other));
    one.iter().all(|value| lists(&other, value)) && other.iter().all(|value| lists(&one, value))
}

fn listed(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])
}

/// The keyword is as good as not there.
fn says_nothing(keyword: &str, alone: &Sub<'_>) -> bool {
    let empty = match alone.schema {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(value) => !value,
        _ => false,
    };
    match keyword {
        "not" | "contains" | "if" | "$ref" | "$dynamicRef" | "prefixItems" => false,
        "required" | "properties" | "patternProperties" | "dependentSchemas" | "dependentRequired" | "uniqueItems" => {
            empty
        }
        "minLength" | "minItems" | "minProperties" => equal(alone.schema, &Value::from(0)),
        _ if SCHEMAS.contains(&keyword) => alone.is_anything(),
        _ => !(LISTS.contains(&keyword) || SETS.contains(&keyword) || VALUES.contains(&keyword)),
    }
}
