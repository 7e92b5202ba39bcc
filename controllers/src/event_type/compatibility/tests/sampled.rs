//! Random schemas and payloads: what is called compatible is so to the validator.

use crds::event_type::Compatibility;
use crds::language::schema::PayloadSchema;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::super::compare;

const NAMES: [&str; 3] = ["a", "b", "x-c"];

/// Whatever small schemas and payloads are about.
fn scalar() -> impl Strategy<Value = Value> {
    let values = [json!(null), json!(true), json!(false), json!(0), json!(1), json!(1.5), json!(2), json!(3), json!(4)];
    let texts = [json!(""), json!("a"), json!("ab"), json!("x-c"), json!("b1")];
    select([values.as_slice(), &texts].concat())
}

fn payload() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        let object = btree_map(select(vec!["a", "b", "x-c", "z"]), inner.clone(), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

fn one(keyword: &'static str, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<(String, Value)> {
    value.prop_map(move |value| (keyword.to_owned(), value)).boxed()
}

/// Keywords whose values are no schemas.
fn plain() -> impl Strategy<Value = (String, Value)> {
    let types = ["string", "number", "integer", "boolean", "null", "object", "array"];
    let number = || select(vec![json!(0), json!(1), json!(1.5), json!(2), json!(3)]);
    let count = || (0..4_u8).prop_map(Value::from);
    let bounds = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"].map(|keyword| one(keyword, number()));
    let counts = [
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minContains",
        "maxContains",
    ];
    let counts = counts.map(|keyword| one(keyword, count()));
    let names = || subsequence(NAMES.to_vec(), 0..=2).prop_map(|names| json!(names));
    let others = [
        one("type", subsequence(types.to_vec(), 1..=3).prop_map(|types| json!(types))),
        one("type", select(types.to_vec()).prop_map(Value::from)),
        one("type", select(vec![json!("object"), json!("array"), json!("integer")])),
        one("multipleOf", select(vec![json!(1), json!(2), json!(4), json!(0.5)])),
        one("pattern", select(vec![json!("a"), json!("^x-"), json!("1$")])),
        one("uniqueItems", any::<bool>().prop_map(Value::from)),
        one("required", names()),
        one("dependentRequired", names().prop_map(|names| json!({"a": names}))),
        one(
            "enum",
            vec(scalar(), 1..4).prop_map(|mut values| {
                values.dedup();
                json!(values)
            }),
        ),
        one("const", payload()),
    ];
    let all: Vec<_> = bounds.into_iter().chain(counts).chain(others).collect();
    proptest::strategy::Union::new(all)
}

/// Keywords whose values are schemas.
fn nesting(inner: &BoxedStrategy<Value>) -> impl Strategy<Value = (String, Value)> + use<> {
    let single = ["additionalProperties", "items", "contains", "not", "if", "then", "else", "unevaluatedProperties"];
    let listed = ["allOf", "anyOf", "oneOf", "prefixItems"];
    let single = single.map(|keyword| one(keyword, inner.clone()));
    let listed = listed.map(|keyword| one(keyword, vec(inner.clone(), 1..4).prop_map(Value::from)));
    let named = |names: Vec<&'static str>| {
        btree_map(select(names), inner.clone(), 1..3)
            .prop_map(|map| map.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect::<Value>())
    };
    let others = [
        one("properties", named(NAMES.to_vec())),
        one("properties", named(NAMES.to_vec())),
        one("patternProperties", named(vec!["^x-", "a"])),
        one("dependentSchemas", named(NAMES.to_vec())),
        one("propertyNames", inner.clone()),
        one("$ref", select(vec![json!("#/$defs/s"), json!("#/$defs/t")])),
    ];
    proptest::strategy::Union::new(single.into_iter().chain(listed).chain(others).collect::<Vec<_>>())
}

/// Each schema speaks of other properties, so that none is taken as not written.
fn schema() -> BoxedStrategy<Value> {
    let of = |keywords: Vec<(String, Value)>| {
        let mut fields: Map<String, Value> = keywords.into_iter().collect();
        if !fields.contains_key("unevaluatedProperties") {
            fields.entry("additionalProperties").or_insert(json!(true));
        }
        Value::Object(fields)
    };
    let leaf = prop_oneof![8 => vec(plain(), 1..4).prop_map(of), 1 => any::<bool>().prop_map(Value::from)];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        (vec(plain(), 0..3), vec(nesting(&inner.boxed()), 1..3))
            .prop_map(move |(plain, nesting)| of([plain, nesting].concat()))
    })
    .boxed()
}

fn document() -> impl Strategy<Value = Value> {
    (schema(), schema(), schema()).prop_map(|(mut top, s, t)| {
        if !top.is_object() {
            top = json!({"additionalProperties": true, "allOf": [top]});
        }
        top["$defs"] = json!({"s": s, "t": t});
        top
    })
}

/// One place of a schema changed, chosen by `at`.
fn changed(schema: &Value, at: usize, replacement: &Value) -> Value {
    let mut places = Vec::new();
    collect(schema, "", &mut places);
    let mut changed = schema.clone();
    let place = &places[at % places.len()];
    let (parent, name) = place.rsplit_once('/').unwrap_or_default();
    let name = name.replace("~1", "/").replace("~0", "~");
    match changed.pointer_mut(parent) {
        Some(Value::Object(fields)) if at.is_multiple_of(3) && !name.ends_with("Properties") => {
            drop(fields.remove(&name));
        }
        _ => {
            if let Some(value) = changed.pointer_mut(place) {
                *value = replacement.clone();
            }
        }
    }
    changed
}

fn collect(value: &Value, at: &str, places: &mut Vec<String>) {
    if !at.is_empty() {
        places.push(at.to_owned());
    }
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, inner)| {
            collect(inner, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), places);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| collect(inner, &format!("{at}/{index}"), places));
        }
        _ => {}
    }
}

fn holds(older: &Value, newer: &Value, payloads: &[Value]) -> Result<(), TestCaseError> {
    let (Ok(before), Ok(now)) = (PayloadSchema::compile(older), PayloadSchema::compile(newer)) else { return Ok(()) };
    prop_assert_eq!(compare(older, older, Compatibility::Full), Ok(()));
    for (mode, writer, reader) in [(Compatibility::Backward, &before, &now), (Compatibility::Forward, &now, &before)] {
        if compare(older, newer, mode).is_ok() {
            for payload in payloads {
                prop_assert!(
                    !writer.accepts(payload) || reader.accepts(payload),
                    "{:?} {} {} {}",
                    mode,
                    older,
                    newer,
                    payload
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn compatible_schemas_accept_what_the_other_accepts(
        older in document(), newer in document(), payloads in vec(payload(), 30)
    ) {
        holds(&older, &newer, &payloads)?;
    }

    #[test]
    fn a_schema_with_one_place_changed_accepts_what_the_other_accepts(
        older in document(), at in any::<usize>(),
        replacement in prop_oneof![schema(), scalar(), select(NAMES.to_vec()).prop_map(|name| json!([name]))],
        payloads in vec(payload(), 30)
    ) {
        let newer = changed(&older, at, &replacement);
        holds(&older, &newer, &payloads)?;
        holds(&newer, &older, &payloads)?;
    }
}
