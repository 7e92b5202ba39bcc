use serde_json::json;

use super::*;

fn reading() -> PayloadSchema {
    PayloadSchema::compile(&json!({
        "type": "object",
        "required": ["value", "unit"],
        "properties": {
            "value": {"type": "number", "maximum": 1000},
            "unit": {"$ref": "#/$defs/unit"},
            "at": {"type": "string", "format": "date-time"},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}}
        },
        "additionalProperties": false,
        "$defs": {"unit": {"enum": ["celsius", "fahrenheit"]}}
    }))
    .expect("compiles")
}

#[test]
fn violations_name_pointer_rule_value_and_message() {
    let schema = reading();
    assert!(schema.validate(&json!({"value": 72.5, "unit": "fahrenheit"})).is_empty());
    for (payload, pointer, rule, value, message) in [
        (json!({"value": 1}), "", "required", r#"{"value":1}"#, "unit is required"),
        (json!({"value": "x", "unit": "celsius"}), "/value", "type", "\"x\"", "number"),
        (json!({"value": 1001, "unit": "celsius"}), "/value", "maximum", "1001", "1000"),
        (json!({"value": 1, "unit": "kelvin"}), "/unit", "enum", "\"kelvin\"", "celsius"),
        (json!({"value": 1, "unit": "celsius", "at": "soon"}), "/at", "format", "\"soon\"", "date-time"),
        (json!({"value": 1, "unit": "celsius", "tags": ["a", "B"]}), "/tags/1", "pattern", "\"B\"", "^[a-z]+$"),
        (json!([1]), "", "type", "[1]", "object"),
    ] {
        let found = schema.validate(&payload);
        let first = found.first().unwrap_or_else(|| panic!("{payload} is accepted"));
        assert_eq!(
            (first.pointer.as_str(), first.rule.as_str(), first.value.as_str()),
            (pointer, rule, value),
            "{payload}"
        );
        assert!(first.message.contains(message), "{payload}: {}", first.message);
    }
    let unexpected = schema.validate(&json!({"value": 1, "unit": "celsius", "extra": 1}));
    assert_eq!(unexpected[0].rule, "additionalProperties");
    assert!(unexpected[0].message.contains("extra"));
}

#[test]
fn long_values_and_many_violations_are_cut() {
    let schema = PayloadSchema::compile(&json!({"items": {"type": "string", "maxLength": 5}})).expect("compiles");
    let found = schema.validate(&json!(vec!["long".repeat(1000); 100]));
    assert_eq!(found.len(), 20);
    assert_eq!(found[0].value.chars().count(), 121);
    assert!(found[0].message.chars().count() <= 500);
}

#[test]
fn what_is_no_payload_schema_is_refused_with_the_way_out() {
    let deep = (0..80).fold(json!({}), |inner, _| json!({"items": inner}));
    for (schema, part) in [
        (json!(true), "must be an object"),
        (json!({"type": "strin"}), "schema/type"),
        (json!({"minimum": "x"}), "schema/minimum"),
        (json!({"$ref": "https://example.com/schema.json"}), "nothing is fetched"),
        (json!({"properties": {"a": {"$ref": "other.json#/a"}}}), "schema/properties/a/$ref"),
        (json!({"$ref": "#/$defs/missing"}), "names nothing"),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "leave it out"),
        (json!({"description": "x".repeat(SIZE_LIMIT)}), "bytes"),
        (deep, "levels deep"),
        (json!({"pattern": "a".repeat(PATTERN_LIMIT + 1)}), "the pattern has"),
        (json!({"patternProperties": {"(": {}}}), "schema"),
        (json!({"pattern": "("}), "schema/pattern"),
        (json!({"pattern": "(a{1000}){1000}"}), "schema"),
        (json!({"$ref": "#"}), "leads back to itself"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}),
            "leads back",
        ),
    ] {
        let error = PayloadSchema::compile(&schema).map(drop).expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn references_that_multiply_are_refused_and_recursive_ones_work() {
    let mut defs = serde_json::Map::new();
    defs.insert("d0".into(), json!({"type": "object"}));
    for i in 1..40 {
        let inner = json!({"$ref": format!("#/$defs/d{}", i - 1)});
        defs.insert(format!("d{i}"), json!({"allOf": [inner, inner]}));
    }
    let bomb = json!({"$ref": "#/$defs/d39", "$defs": defs});
    assert_eq!(PayloadSchema::compile(&bomb).map(drop), Err(SchemaError::TooCostly));

    let tree = json!({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}});
    let tree = PayloadSchema::compile(&tree).expect("compiles");
    assert!(tree.validate(&json!({"children": [{"children": []}]})).is_empty());
    assert_eq!(tree.validate(&json!({"children": [{"children": [1]}]}))[0].pointer, "/children/0/children/0");
}

#[test]
fn data_within_a_schema_is_not_taken_for_one() {
    let schema = json!({"const": {"$ref": "https://example.com"}, "properties": {"const": {"type": "string"}, "$ref": {"type": "string"}}});
    assert!(PayloadSchema::compile(&schema).is_ok());
}

#[test]
fn a_misspelt_type_is_named_with_the_one_that_is_meant() {
    let schema = json!({"type": "object", "properties": {"by": {"type": "sting"}}});
    let said = PayloadSchema::compile(&schema).expect_err("refused").to_string();
    assert!(
        said.starts_with("schema/properties/by/type: 'sting' is no type") && said.ends_with("did you mean 'string'?"),
        "{said}"
    );
}

#[test]
fn a_part_is_compiled_with_what_its_references_name() {
    let schema = json!({
        "properties": {"a/b %": {"items": {"$ref": "#/$defs/unit"}}, "c": {"maximum": 3}},
        "$defs": {"unit": {"enum": ["celsius"]}}
    });
    let units = PayloadSchema::compile_part(&schema, "/properties/a~1b %").expect("compiles");
    assert!(units.accepts(&json!(["celsius"])) && !units.accepts(&json!(["kelvin"])));
    let number = PayloadSchema::compile_part(&schema, "/properties/c").expect("compiles");
    assert!(number.accepts(&json!(3)) && !number.accepts(&json!(4)));
    assert!(PayloadSchema::compile_part(&schema, "/properties/d").is_err());
}
