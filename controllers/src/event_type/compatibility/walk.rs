//! Does a reader accept whatever is written? One schema of the reader at a time, down to the leaves.
//!
//! A pair that was met before is taken as compatible: if it is not, it was reported where it was met. That also ends
//! the comparison of recursive schemas, since payloads are finite.

use std::collections::{HashMap, HashSet};

use crds::language::schema::PayloadSchema;
use serde_json::json;

use super::difference::{Breaks, Difference, brief};
use super::document::Sub;
use super::same::{same, same_keyword};
use super::types::Types;
use super::written::Written;

/// Pairs that are compared before the schemas are too large.
const STEPS: usize = 10_000;
/// How deep a comparison goes.
const DEPTH: usize = 100;
/// Keywords that speak of alternatives.
const ALTERNATIVES: [&str; 4] = ["anyOf", "oneOf", "not", "if"];
const TOO_LARGE: &str = "too large to compare";

/// One direction of a comparison.
pub(super) struct Comparison {
    breaks: Breaks,
    differences: Vec<Difference>,
    steps: usize,
    depth: usize,
    /// Inside a trial the first difference ends it.
    pub trying: bool,
    /// A property that the writer does not describe may be there and be anything.
    pub strict: bool,
    compared: HashSet<String>,
    /// The same, in order.
    order: Vec<String>,
    patterns: HashMap<String, Option<PayloadSchema>>,
}

impl Comparison {
    pub fn new(breaks: Breaks) -> Self {
        Self {
            breaks,
            differences: Vec::new(),
            steps: 0,
            depth: 0,
            trying: false,
            strict: false,
            compared: HashSet::new(),
            order: Vec::new(),
            patterns: HashMap::new(),
        }
    }

    /// All differences between what is written and what is accepted.
    pub fn run(mut self, reader: &Sub<'_>, writer: &Sub<'_>) -> Vec<Difference> {
        self.accepts(reader, &Written::of(writer));
        self.differences
    }

    /// Reports where the reader may refuse what is written.
    pub fn accepts<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        if reader.is_anything() || self.has_failed() || !self.is_new(reader, written) {
            return;
        }
        if !self.step() || self.depth == DEPTH {
            return self.too_large(reader);
        }
        self.depth += 1;
        self.judge(reader, written);
        self.depth -= 1;
    }

    fn judge<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        if written.parts.iter().any(|part| same(reader, part)) || self.is_empty(written) {
            return;
        }
        if reader.is_nothing() {
            return self.differs(reader.at.clone(), written.describe(), "nothing".to_owned());
        }
        if reader.is_only_reference() {
            return self.in_place(reader, written);
        }
        if let Some(values) = written.values() {
            return self.listed(reader, written, &values);
        }
        let types = || {
            let kinds: Vec<_> = written.types.each().map(|one| written.within(one)).collect();
            let open =
                ALTERNATIVES.iter().any(|keyword| !is_kept(keyword, reader, written) && reader.get(keyword).is_some());
            (open && kinds.len() > 1).then_some(kinds)
        };
        if let Some(ways) = written.split().or_else(types) {
            return ways.iter().for_each(|way| self.accepts(reader, way));
        }
        self.in_place(reader, written);
        self.types(reader, written);
        self.ranges(reader, written);
        self.opaque(reader, written);
        if written.types.meets(Types::OBJECT) {
            self.objects(reader, &written.within(Types::OBJECT));
        }
        if written.types.meets(Types::ARRAY) {
            self.arrays(reader, &written.within(Types::ARRAY));
        }
        self.combinations(reader, written);
    }

    /// What a reference names, and all of `allOf`.
    fn in_place<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        if let Some(lost) = reader.lost() {
            self.undecided(reader, lost, written);
        }
        for inner in reader.referred().chain(reader.list("allOf")) {
            self.accepts(&inner, written);
        }
    }

    fn types<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let Some(accepted) = reader.get("type").map(Types::of) else { return };
        if !written.types.is_within(accepted) {
            self.differs(reader.place("type"), written.types.names(), accepted.names());
        }
    }

    /// A trial: what would be reported, without reporting it.
    pub fn holds(&mut self, claim: impl FnOnce(&mut Self)) -> bool {
        let outer = (std::mem::take(&mut self.differences), self.trying);
        let before = self.order.len();
        self.trying = true;
        claim(self);
        let holds = self.differences.is_empty();
        (self.differences, self.trying) = outer;
        if !holds {
            for key in self.order.drain(before..) {
                self.compared.remove(&key);
            }
        }
        holds
    }

    /// A trial that relies on nothing assumed so far, and takes what is not described as anything.
    pub fn holds_strictly(&mut self, claim: impl FnOnce(&mut Self)) -> bool {
        let outer = (std::mem::take(&mut self.compared), std::mem::take(&mut self.order), self.strict);
        self.strict = true;
        let holds = self.holds(claim);
        (self.compared, self.order, self.strict) = outer;
        holds
    }

    fn has_failed(&self) -> bool {
        self.trying && !self.differences.is_empty()
    }

    fn is_new<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) -> bool {
        let key = format!("{}{} {}", self.strict, reader.key(), written.key());
        let new = self.compared.insert(key.clone());
        if new {
            self.order.push(key);
        }
        new
    }

    /// False once the comparison has taken too long.
    pub fn step(&mut self) -> bool {
        self.steps += 1;
        self.steps <= STEPS
    }

    fn too_large(&mut self, reader: &Sub<'_>) {
        if !self.differences.iter().any(|difference| difference.now == TOO_LARGE) {
            self.report(reader.at.clone(), TOO_LARGE.to_owned(), TOO_LARGE.to_owned(), true);
        }
    }

    /// What is written may be refused.
    pub fn differs(&mut self, pointer: String, written: String, accepted: String) {
        self.report(pointer, written, accepted, false);
    }

    /// The reader's keyword may refuse what is written; it is not known whether it does.
    pub fn undecided<'a>(&mut self, reader: &Sub<'a>, keyword: &str, written: &Written<'a>) {
        let one = |value: &serde_json::Value| brief(&value.to_string());
        let theirs = written.all(keyword).next().map_or_else(|| format!("no {keyword}"), one);
        let ours = reader.get(keyword).map(one).unwrap_or_default();
        self.report(reader.place(keyword), theirs, ours, written.all(keyword).next().is_some());
    }

    fn report(&mut self, pointer: String, written: String, accepted: String, undecided: bool) {
        let (before, now) = match self.breaks {
            Breaks::Backward => (written, accepted),
            Breaks::Forward => (accepted, written),
        };
        let difference = Difference { pointer, before, now, breaks: self.breaks, undecided };
        if !self.differences.contains(&difference) {
            self.differences.push(difference);
        }
    }

    /// Whether a pattern is in a name; none if the pattern does not compile.
    pub fn matches(&mut self, pattern: &str, name: &str) -> Option<bool> {
        let compile = || PayloadSchema::compile(&json!({"pattern": pattern})).ok();
        let compiled = self.patterns.entry(pattern.to_owned()).or_insert_with(compile);
        compiled.as_ref().map(|compiled| compiled.accepts(&json!(name)))
    }
}

/// What the reader says by the keyword is said of what is written as well.
pub(super) fn is_kept(keyword: &str, reader: &Sub<'_>, written: &Written<'_>) -> bool {
    let keywords: &[&str] = match keyword {
        "if" => &["if", "then", "else"],
        "contains" => &["contains", "minContains", "maxContains"],
        _ => &[keyword],
    };
    written.parts.iter().any(|part| keywords.iter().all(|keyword| same_keyword(keyword, reader, part)))
}
