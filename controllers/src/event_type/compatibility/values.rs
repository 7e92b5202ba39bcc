//! `enum` and `const`. Where values are listed, each is tried with the reader's schema, which decides all keywords.

use serde_json::Value;

use super::difference::brief;
use super::document::Sub;
use super::walk::Comparison;
use super::written::Written;

/// Values that one difference names.
const NAMED: usize = 3;

impl Comparison {
    /// Everything that may be written is in `values`.
    pub(super) fn listed<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>, values: &[Value]) {
        let Some(compiled) = reader.compiled() else {
            return self.differs(reader.at.clone(), named(values), "a schema that cannot be run".to_owned());
        };
        let refused: Vec<&Value> = values.iter().filter(|value| !compiled.accepts(value)).collect();
        let Some(first) = refused.first() else { return };
        let inner = reader.referred().chain(reader.list("allOf"));
        let blamed: Vec<Sub<'a>> = inner.filter(|schema| refuses_one(schema, &refused)).collect();
        if !blamed.is_empty() {
            return blamed.iter().for_each(|schema| self.accepts(schema, written));
        }
        let violations = compiled.validate(first);
        let rule = violations.first().filter(|found| found.pointer.is_empty()).map(|found| found.rule.as_str());
        let pointer = match rule.filter(|rule| reader.get(rule).is_some()) {
            Some(rule) => reader.place(rule),
            None => reader.at.clone(),
        };
        let accepted =
            rule.and_then(|rule| reader.get(rule)).map_or_else(|| "refused".to_owned(), |v| brief(&v.to_string()));
        self.differs(pointer, named(&refused), accepted);
    }

    /// The reader lists values, and the writer does not.
    pub(super) fn unlisted<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        for keyword in ["enum", "const"] {
            if let Some(accepted) = reader.get(keyword) {
                self.differs(reader.place(keyword), written.describe(), brief(&accepted.to_string()));
            }
        }
    }
}

fn refuses_one(schema: &Sub<'_>, values: &[&Value]) -> bool {
    schema.compiled().is_some_and(|compiled| values.iter().any(|value| !compiled.accepts(value)))
}

fn named<V: std::borrow::Borrow<Value>>(values: &[V]) -> String {
    let first: Vec<String> = values.iter().take(NAMED).map(|value| brief(&value.borrow().to_string())).collect();
    let dots = if values.len() > NAMED { ", …" } else { "" };
    format!("{}{dots}", first.join(", "))
}
