//! A schema document and its parts: where they are, what references name, which values they accept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crds::language::schema::PayloadSchema;
use serde_json::{Map, Value};

/// Keywords that apply schemas to the value itself.
const IN_PLACE: [&str; 10] =
    ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"];

const REFERENCES: [&str; 2] = ["$ref", "$dynamicRef"];
/// What a reference and annotations of it are written with.
const BESIDE: [&str; 5] = ["$ref", "title", "description", "$comment", "$defs"];
/// Keywords that name a schema for references.
const ANCHORS: [&str; 2] = ["$anchor", "$dynamicAnchor"];

/// One of the two schemas.
pub(super) struct Document<'a> {
    root: &'a Value,
    /// Tells the two apart in keys.
    name: char,
    /// References count from elsewhere than the top.
    rebased: bool,
    compiled: RefCell<HashMap<String, Option<Rc<PayloadSchema>>>>,
}

impl<'a> Document<'a> {
    pub fn new(root: &'a Value, name: char) -> Self {
        let rebased = root.as_object().is_some_and(|fields| fields.values().any(names_itself));
        Self { root, name, rebased, compiled: RefCell::default() }
    }

    pub fn top(&'a self) -> Sub<'a> {
        Sub { document: self, schema: self.root, at: String::new() }
    }
}

fn names_itself(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.get("$id").is_some_and(Value::is_string) || fields.values().any(names_itself),
        Value::Array(items) => items.iter().any(names_itself),
        _ => false,
    }
}

/// A schema within a document.
#[derive(Clone)]
pub(super) struct Sub<'a> {
    document: &'a Document<'a>,
    pub schema: &'a Value,
    /// JSON pointer to it.
    pub at: String,
}

impl<'a> Sub<'a> {
    /// Says which schema it is, in which document.
    pub fn key(&self) -> String {
        format!("{}{}", self.document.name, self.at)
    }

    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema)
    }

    pub fn get(&self, keyword: &str) -> Option<&'a Value> {
        self.schema.as_object()?.get(keyword)
    }

    /// The pointer to one of its keywords.
    pub fn place(&self, keyword: &str) -> String {
        format!("{}/{keyword}", self.at)
    }

    /// The schema that is a keyword's value.
    pub fn child(&self, keyword: &str) -> Option<Self> {
        Some(Self { document: self.document, schema: self.get(keyword)?, at: self.place(keyword) })
    }

    /// The schemas in a keyword's list.
    pub fn list(&self, keyword: &str) -> Vec<Self> {
        let items = self.get(keyword).and_then(Value::as_array).into_iter().flatten().enumerate();
        items
            .map(|(index, schema)| Self {
                document: self.document,
                schema,
                at: format!("{}/{keyword}/{index}", self.at),
            })
            .collect()
    }

    /// What a keyword maps names to, for keywords that do.
    pub fn map(&self, keyword: &str) -> Option<&'a Map<String, Value>> {
        self.get(keyword)?.as_object()
    }

    /// The schema that a keyword maps a name to.
    pub fn entry(&self, keyword: &str, name: &str) -> Option<Self> {
        let schema = self.map(keyword)?.get(name)?;
        let at = format!("{}/{keyword}/{}", self.at, name.replace('~', "~0").replace('/', "~1"));
        Some(Self { document: self.document, schema, at })
    }

    /// What references name. In a document of one piece a dynamic one is like any other.
    pub fn referred(&self) -> impl Iterator<Item = Self> {
        REFERENCES.into_iter().filter_map(|keyword| self.target(keyword))
    }

    /// It says nothing beside what a reference names, and that is known.
    pub fn is_only_reference(&self) -> bool {
        let says_more = |fields: &Map<String, Value>| fields.keys().any(|keyword| !BESIDE.contains(&keyword.as_str()));
        self.target("$ref").is_some() && !self.schema.as_object().is_some_and(says_more)
    }

    /// A reference whose target is unknown.
    pub fn lost(&self) -> Option<&'static str> {
        REFERENCES.into_iter().find(|keyword| self.get(keyword).is_some() && self.target(keyword).is_none())
    }

    /// What one reference names: none if there is no such keyword or its target is unknown.
    pub fn target(&self, keyword: &str) -> Option<Self> {
        let fragment = decoded(self.get(keyword)?.as_str()?.strip_prefix('#')?)?;
        if self.document.rebased {
            return None;
        }
        let at = if fragment.is_empty() || fragment.starts_with('/') {
            fragment
        } else {
            anchored(self.document.root, &fragment, String::new())?
        };
        let schema = self.document.root.pointer(&at).filter(|schema| schema.is_object() || schema.is_boolean())?;
        Some(Self { document: self.document, schema, at })
    }

    /// What holds for properties that it does not describe.
    pub fn additional(&self) -> Option<Self> {
        self.child("additionalProperties").or_else(|| self.unevaluated("unevaluatedProperties"))
    }

    /// What holds for items after those of `prefixItems`.
    pub fn rest(&self) -> Option<Self> {
        self.child("items").or_else(|| self.unevaluated("unevaluatedItems").filter(|_| self.get("contains").is_none()))
    }

    /// What is not evaluated is what this very schema leaves open, unless others look at the value as well.
    fn unevaluated(&self, keyword: &str) -> Option<Self> {
        self.child(keyword).filter(|_| self.evaluates_alone())
    }

    pub fn evaluates_alone(&self) -> bool {
        !IN_PLACE.iter().any(|keyword| self.get(keyword).is_some())
    }

    /// Every value is valid.
    pub fn is_anything(&self) -> bool {
        self.schema == &Value::Bool(true) || self.schema.as_object().is_some_and(Map::is_empty)
    }

    /// No value is valid, by its own word.
    pub fn is_nothing(&self) -> bool {
        self.schema == &Value::Bool(false)
    }

    /// It, compiled; none if it does not compile by itself.
    pub fn compiled(&self) -> Option<Rc<PayloadSchema>> {
        if let Some(known) = self.document.compiled.borrow().get(&self.at) {
            return known.clone();
        }
        let compiled = PayloadSchema::compile_part(self.document.root, &self.at).ok().map(Rc::new);
        self.document.compiled.borrow_mut().insert(self.at.clone(), compiled.clone());
        compiled
    }
}

/// The pointer to the schema with that anchor.
fn anchored(value: &Value, name: &str, at: String) -> Option<String> {
    match value {
        Value::Object(fields) if ANCHORS.iter().any(|anchor| fields.get(*anchor).is_some_and(|a| a == name)) => {
            Some(at)
        }
        Value::Object(fields) => fields.iter().find_map(|(key, inner)| {
            anchored(inner, name, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")))
        }),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, inner)| anchored(inner, name, format!("{at}/{index}")))
        }
        _ => None,
    }
}

/// Without percent signs.
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.bytes();
    while let Some(byte) = rest.next() {
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let plain = if byte == b'%' { digit(rest.next())? * 16 + digit(rest.next())? } else { u32::from(byte) };
        bytes.push(u8::try_from(plain).ok()?);
    }
    String::from_utf8(bytes).ok()
}
