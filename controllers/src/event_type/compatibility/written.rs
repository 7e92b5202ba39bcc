//! What a payload may be: schemas that all hold for it, with references and `allOf` followed, and alternatives decided
//! one by one.

use serde_json::Value;

use super::document::Sub;
use super::number::{Decimal, equal};
use super::types::Types;

/// The values that some schemas accept together. Leaving a schema out makes it more, which errs on the safe side.
#[derive(Clone)]
pub(super) struct Written<'a> {
    pub parts: Vec<Sub<'a>>,
    /// Within which types.
    pub types: Types,
    /// Schemas that do not hold.
    pub excluded: Vec<Sub<'a>>,
    /// Keys of alternatives that are decided.
    decided: Vec<String>,
    /// One of the schemas is `false`.
    pub nothing: bool,
}

impl<'a> Written<'a> {
    pub fn anything() -> Self {
        Self { parts: Vec::new(), types: Types::ALL, excluded: Vec::new(), decided: Vec::new(), nothing: false }
    }

    pub fn of(schema: &Sub<'a>) -> Self {
        Self::anything().and(schema)
    }

    /// Nothing is said of the values, which is to say that they may be anything.
    pub fn is_anything(&self) -> bool {
        self.parts.is_empty()
    }

    /// Those of the values that the schema accepts as well.
    pub fn and(&self, schema: &Sub<'a>) -> Self {
        let mut both = self.clone();
        both.add(schema);
        both
    }

    pub fn add(&mut self, schema: &Sub<'a>) {
        self.nothing |= schema.is_nothing();
        if schema.schema.is_boolean() || schema.is_anything() || self.parts.iter().any(|part| part.is(schema)) {
            return;
        }
        self.parts.push(schema.clone());
        if let Some(types) = schema.get("type") {
            self.types = self.types.and(Types::of(types));
        }
        self.excluded.extend(schema.child("not"));
        for inner in schema.referred().chain(schema.list("allOf")) {
            self.add(&inner);
        }
    }

    /// Those of the values that the schema does not accept.
    pub fn except(&self, schema: &Sub<'a>) -> Self {
        let mut rest = self.clone();
        rest.excluded.push(schema.clone());
        rest
    }

    pub fn within(&self, types: Types) -> Self {
        Self { types: self.types.and(types), ..self.clone() }
    }

    /// Says which values these are, to remember what was compared.
    pub fn key(&self) -> String {
        let mut parts: Vec<String> = self.parts.iter().map(Sub::key).collect();
        parts.sort_unstable();
        let mut excluded: Vec<String> = self.excluded.iter().map(Sub::key).collect();
        excluded.sort_unstable();
        format!("{:?}{}{parts:?}{excluded:?}{:?}", self.types, self.nothing, self.decided)
    }

    /// The values of a keyword, wherever it is.
    pub fn all(&self, keyword: &str) -> impl Iterator<Item = &'a Value> {
        self.parts.iter().filter_map(move |part| part.get(keyword))
    }

    /// One set of values for each way in which an alternative that is still open may be decided.
    pub fn split(&self) -> Option<Vec<Self>> {
        self.parts.iter().find_map(|part| {
            let choices = ["anyOf", "oneOf"].into_iter().find_map(|keyword| self.chosen(part, keyword));
            choices.or_else(|| self.conditions(part))
        })
    }

    fn chosen(&self, part: &Sub<'a>, keyword: &str) -> Option<Vec<Self>> {
        let key = format!("{}/{keyword}", part.key());
        let choices = part.list(keyword);
        if choices.is_empty() || self.is_decided(&key) {
            return None;
        }
        let one = |(index, choice): (usize, &Sub<'a>)| {
            let mut chosen = self.decided(format!("{key}/{index}"));
            chosen.add(choice);
            if keyword == "oneOf" {
                let others = choices.iter().enumerate().filter(|(other, _)| *other != index);
                chosen.excluded.extend(others.map(|(_, other)| other.clone()));
            }
            chosen
        };
        Some(choices.iter().enumerate().map(one).collect())
    }

    fn conditions(&self, part: &Sub<'a>) -> Option<Vec<Self>> {
        let key = format!("{}/if", part.key());
        let condition = part.child("if")?;
        let (then, otherwise) = (part.child("then"), part.child("else"));
        if self.is_decided(&key) || (then.is_none() && otherwise.is_none()) {
            return None;
        }
        let (mut holds, mut fails) = (self.decided(format!("{key}/0")), self.decided(format!("{key}/1")));
        holds.add(&condition);
        fails.excluded.push(condition);
        if let Some(then) = then {
            holds.add(&then);
        }
        if let Some(otherwise) = otherwise {
            fails.add(&otherwise);
        }
        Some(vec![holds, fails])
    }

    fn is_decided(&self, key: &str) -> bool {
        self.decided.iter().any(|one| one.rsplit_once('/').is_some_and(|(decided, _)| decided == key))
    }

    fn decided(&self, key: String) -> Self {
        let mut decided = self.clone();
        decided.decided.push(key);
        decided.decided.sort_unstable();
        decided
    }

    /// The values one by one, where they are listed; those that break a schema are left out.
    pub fn values(&self) -> Option<Vec<Value>> {
        let constant = self.all("const").next().map(|value| vec![value.clone()]);
        let listed = || self.all("enum").next().and_then(Value::as_array).cloned();
        let values = constant.or_else(listed).or_else(|| {
            let few = self.types.is_within(Types::NULL) || self.types.is_within(Types::BOOLEAN);
            (few && !self.types.is_empty()).then(|| vec![Value::Null, Value::Bool(false), Value::Bool(true)])
        })?;
        Some(values.into_iter().filter(|value| self.may_be(value)).collect())
    }

    fn may_be(&self, value: &Value) -> bool {
        // What a reference names is a part itself.
        let valid =
            |part: &Sub<'a>| part.is_only_reference() || part.compiled().is_none_or(|schema| schema.accepts(value));
        self.types.meets(type_of(value)) && !self.nothing && self.parts.iter().all(valid)
    }

    /// Properties that every value has.
    pub fn required(&self) -> impl Iterator<Item = &'a str> {
        self.all("required").filter_map(Value::as_array).flatten().filter_map(Value::as_str)
    }

    pub fn requires(&self, name: &str) -> bool {
        self.required().any(|required| required == name)
    }

    /// What an item may be.
    pub fn item(&self, index: usize) -> Self {
        let mut item = Self::anything();
        for part in &self.parts {
            let own = part.list("prefixItems").into_iter().nth(index);
            own.or_else(|| part.rest()).iter().for_each(|schema| item.add(schema));
        }
        item
    }

    /// How many items have schemas of their own.
    pub fn prefix(&self) -> usize {
        self.parts.iter().map(|part| part.list("prefixItems").len()).max().unwrap_or_default()
    }

    /// For people.
    pub fn describe(&self) -> String {
        if self.nothing { "nothing".to_owned() } else { self.types.names() }
    }
}

pub(super) fn type_of(value: &Value) -> Types {
    match value {
        Value::Null => Types::NULL,
        Value::Bool(_) => Types::BOOLEAN,
        Value::String(_) => Types::STRING,
        Value::Array(_) => Types::ARRAY,
        Value::Object(_) => Types::OBJECT,
        Value::Number(number) if Decimal::from(number).is_whole() => Types::INTEGER,
        Value::Number(_) => Types::FRACTION,
    }
}

/// Whether a list has the value.
pub(super) fn lists(values: &[Value], value: &Value) -> bool {
    values.iter().any(|one| equal(one, value))
}
