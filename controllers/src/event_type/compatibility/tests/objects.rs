use serde_json::{Value, json};

use super::{OK, Row, check};

fn closed(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn open(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn properties_are_added_and_removed() {
    let rows: Vec<Row> = vec![
        ("nothing", open(&json!({"a": {}})), open(&json!({"a": {}})), OK, OK),
        ("an optional property added", open(&json!({})), open(&json!({"a": {"type": "string"}})), OK, OK),
        ("one removed", open(&json!({"a": {"type": "string"}})), open(&json!({})), OK, OK),
        (
            "added to a closed object",
            closed(&json!({})),
            closed(&json!({"a": {"type": "string"}})),
            OK,
            &["/properties/a"],
        ),
        (
            "removed from a closed object",
            closed(&json!({"a": {}, "b": {}})),
            closed(&json!({"b": {}})),
            &["/properties/a"],
            OK,
        ),
        (
            "a required one added",
            open(&json!({})),
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
            &["/required"],
            OK,
        ),
        ("required no more", json!({"required": ["a", "b"]}), json!({"required": ["a"]}), OK, &["/required"]),
        (
            "two required",
            json!({}),
            json!({"type": "object", "required": ["a", "b"]}),
            &["/type", "/required", "/required"],
            OK,
        ),
        (
            "required and described at once",
            json!({"type": "object", "required": ["a"]}),
            open(&json!({"a": {"type": "string"}})),
            &["/properties/a/type"],
            &["/required"],
        ),
        (
            "a property forbidden",
            open(&json!({"a": {"type": "string"}})),
            open(&json!({"a": false})),
            &["/properties/a"],
            OK,
        ),
        (
            "a name with a slash",
            open(&json!({"a/b~": {"type": "string"}})),
            open(&json!({"a/b~": {"type": "number"}})),
            &["/properties/a~1b~0/type"],
            &["/properties/a~1b~0/type"],
        ),
        (
            "nested",
            open(&json!({"a": open(&json!({"b": {"type": "integer"}}))})),
            open(&json!({"a": open(&json!({"b": {"type": "number"}}))})),
            OK,
            &["/properties/a/properties/b/type"],
        ),
        (
            "several differences",
            open(&json!({"a": {"type": "string"}, "b": {"maximum": 5}, "c": {}})),
            open(&json!({"a": {"type": "boolean"}, "b": {"maximum": 3}, "c": {}})),
            &["/properties/a/type", "/properties/b/maximum"],
            &["/properties/a/type"],
        ),
    ];
    check(&rows);
}

#[test]
fn other_properties_are_opened_and_closed() {
    let rows: Vec<Row> = vec![
        ("closed", json!({"type": "object"}), closed(&json!({})), &["/additionalProperties"], OK),
        (
            "limited",
            open(&json!({})),
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            &["/additionalProperties/type"],
            OK,
        ),
        (
            "others narrowed",
            json!({"additionalProperties": {"type": "number"}}),
            json!({"additionalProperties": {"type": "integer"}}),
            &["/additionalProperties/type"],
            OK,
        ),
        (
            "a property is described of which others said something else",
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "properties": {"a": {"type": "number"}}, "additionalProperties": {"type": "string"}}),
            &["/properties/a/type"],
            &["/additionalProperties/type"],
        ),
        (
            "a property is described where others were said to be anything",
            json!({"type": "object", "additionalProperties": true}),
            json!({"type": "object", "additionalProperties": true, "properties": {"a": {"type": "number"}}}),
            &["/properties/a/type"],
            OK,
        ),
        (
            "closed in another word",
            closed(&json!({"a": {}})),
            json!({"type": "object", "properties": {"a": {}}, "unevaluatedProperties": false}),
            OK,
            OK,
        ),
        (
            "what is not evaluated beside alternatives",
            json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}], "unevaluatedProperties": false}),
            &["/unevaluatedProperties"],
            OK,
        ),
        (
            "a pattern of names narrowed",
            json!({"patternProperties": {"^x-": {"type": ["string", "number"]}}}),
            json!({"patternProperties": {"^x-": {"type": "string"}}}),
            &["/patternProperties/^x-/type"],
            OK,
        ),
        (
            "a pattern reaches a known property",
            open(&json!({"x-a": {"type": "number"}})),
            json!({"type": "object", "patternProperties": {"^x-": {"type": "string"}}}),
            &["/patternProperties/^x-/type"],
            &["/properties/x-a/type"],
        ),
        (
            "closed but for a pattern",
            closed(&json!({"x-a": {"type": "string"}})),
            json!({"type": "object", "patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": false}),
            OK,
            &["/additionalProperties"],
        ),
    ];
    check(&rows);
}

#[test]
fn names_counts_and_dependencies_are_compared() {
    let rows: Vec<Row> = vec![
        (
            "names limited",
            json!({"type": "object"}),
            json!({"type": "object", "propertyNames": {"maxLength": 3}}),
            &["/propertyNames/maxLength"],
            OK,
        ),
        (
            "names of a closed object limited",
            closed(&json!({"abc": {}, "abcd": {}})),
            json!({"type": "object", "properties": {"abc": {}, "abcd": {}}, "additionalProperties": false, "propertyNames": {"maxLength": 3}}),
            &["/propertyNames"],
            OK,
        ),
        (
            "names of any string",
            json!({"type": "object"}),
            json!({"type": "object", "propertyNames": {"type": "string"}}),
            OK,
            OK,
        ),
        ("more properties needed", json!({"minProperties": 1}), json!({"minProperties": 2}), &["/minProperties"], OK),
        (
            "needed properties counted",
            json!({"type": "object", "required": ["a", "b"]}),
            json!({"type": "object", "minProperties": 2}),
            OK,
            &["/required", "/required"],
        ),
        (
            "a closed object counted",
            closed(&json!({"a": {}, "b": {}})),
            json!({"type": "object", "maxProperties": 2}),
            OK,
            &["/additionalProperties"],
        ),
        (
            "one needs another",
            json!({"type": "object"}),
            json!({"type": "object", "dependentRequired": {"a": ["b"]}}),
            &["/dependentRequired/a"],
            OK,
        ),
        (
            "one that is always there needs nothing more",
            json!({"type": "object", "required": ["b"]}),
            json!({"type": "object", "dependentRequired": {"a": ["b"]}}),
            OK,
            &["/required"],
        ),
        (
            "a schema where a property is",
            json!({"type": "object", "dependentSchemas": {"a": {"required": ["b", "c"]}}}),
            json!({"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}}),
            OK,
            &["/dependentSchemas/a/required"],
        ),
    ];
    check(&rows);
}
