use serde_json::{Value, json};

use super::{OK, Row, check};

fn shape(kind: &str, field: &str) -> Value {
    json!({"type": "object", "required": ["kind"], "properties": {"kind": {"const": kind}, field: {"type": "number"}}})
}

#[test]
fn alternatives_are_taken_apart() {
    let rows: Vec<Row> = vec![
        (
            "one added",
            json!({"anyOf": [{"type": "string"}]}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            OK,
            &["/anyOf"],
        ),
        (
            "a list of types",
            json!({"type": ["string", "null"]}),
            json!({"anyOf": [{"type": "null"}, {"type": "string"}]}),
            OK,
            OK,
        ),
        (
            "one narrowed",
            json!({"anyOf": [{"type": "string"}, {"type": "number"}]}),
            json!({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "number"}]}),
            &["/anyOf/0/maxLength"],
            OK,
        ),
        (
            "a shape added",
            json!({"oneOf": [shape("a", "x"), shape("b", "y")]}),
            json!({"oneOf": [shape("b", "y"), shape("a", "x"), shape("c", "z")]}),
            OK,
            &["/oneOf"],
        ),
        (
            "one shape to several",
            shape("a", "x"),
            json!({"oneOf": [shape("a", "x"), shape("b", "y")]}),
            OK,
            &["/properties/kind/const"],
        ),
        (
            "several that overlap",
            json!({"type": "integer"}),
            json!({"oneOf": [{"type": "integer"}, {"minimum": 3}]}),
            &["/oneOf"],
            &["/type"],
        ),
        (
            "all of them",
            json!({"type": "string", "maxLength": 3}),
            json!({"allOf": [{"type": "string"}, {"maxLength": 3}]}),
            OK,
            OK,
        ),
        (
            "one more to fulfil",
            json!({"allOf": [{"type": "string"}]}),
            json!({"allOf": [{"type": "string"}, {"maxLength": 3}]}),
            &["/allOf/1/maxLength"],
            OK,
        ),
        ("excluded by type", json!({"type": "string"}), json!({"not": {"type": "number"}}), OK, &["/type"]),
        ("less excluded", json!({"not": {"type": "number"}}), json!({"not": {"type": "integer"}}), OK, &["/not"]),
        (
            "excluded otherwise",
            json!({"not": {"pattern": "a"}}),
            json!({"not": {"pattern": "b"}}),
            &["/not"],
            &["/not"],
        ),
        (
            "a condition that never holds",
            json!({"type": "object", "required": ["k"], "properties": {"k": {"const": "b"}}}),
            json!({"if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["x"]}}),
            OK,
            &["/type", "/required", "/properties/k/const"],
        ),
        (
            "the consequence narrowed",
            json!({"type": "number", "if": {"minimum": 5}, "then": {"maximum": 9}, "else": {"multipleOf": 4}}),
            json!({"type": "number", "if": {"minimum": 5}, "then": {"maximum": 8}, "else": {"multipleOf": 2}}),
            &["/then/maximum"],
            &["/else/multipleOf"],
        ),
    ];
    check(&rows);
}

#[test]
fn references_are_followed() {
    let referring =
        |unit: Value| json!({"type": "object", "properties": {"u": {"$ref": "#/$defs/unit"}}, "$defs": {"unit": unit}});
    let tree = |value: Value| json!({"type": "object", "properties": {"value": value, "children": {"type": "array", "items": {"$ref": "#"}}}});
    let list = |next: Value, value: Value| {
        json!({
            "$ref": "#/$defs/node",
            "$defs": {"node": {"type": "object", "properties": {"value": value, "next": {"anyOf": [{"type": "null"}, {"$ref": next}]}}}}
        })
    };
    let node = "#/$defs/node";
    let rows: Vec<Row> = vec![
        (
            "another target, the same text",
            referring(json!({"type": "string"})),
            referring(json!({"type": "number"})),
            &["/$defs/unit/type"],
            &["/$defs/unit/type"],
        ),
        (
            "a reference instead of the text",
            json!({"type": "object", "properties": {"u": {"enum": ["m"]}}}),
            referring(json!({"enum": ["m"]})),
            OK,
            OK,
        ),
        (
            "renamed",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"maximum": 3}}}),
            json!({"$ref": "#/$defs/b", "$defs": {"b": {"maximum": 3}}}),
            OK,
            OK,
        ),
        (
            "by an anchor",
            json!({"maximum": 3}),
            json!({"$ref": "#a", "$defs": {"b": {"$anchor": "a", "maximum": 2}}}),
            &["/$defs/b/maximum"],
            OK,
        ),
        ("recursive, the same", tree(json!({"type": "integer"})), tree(json!({"type": "integer"})), OK, OK),
        (
            "recursive, widened",
            tree(json!({"type": "integer"})),
            tree(json!({"type": "number"})),
            OK,
            &["/properties/value/type"],
        ),
        (
            "recursive in alternatives",
            list(json!(node), json!({"maximum": 3})),
            list(json!(node), json!({"maximum": 4})),
            OK,
            &["/$defs/node/properties/value/maximum"],
        ),
        (
            "a reference beside other keywords",
            json!({"$ref": "#/$defs/a", "minimum": 1, "$defs": {"a": {"type": "number", "maximum": 3}}}),
            json!({"type": "number", "minimum": 1, "maximum": 3}),
            OK,
            OK,
        ),
        (
            "a definition that nothing refers to",
            json!({"type": "string", "$defs": {"a": {"type": "string"}}}),
            json!({"type": "string", "$defs": {"a": {"type": "number"}}}),
            OK,
            OK,
        ),
    ];
    check(&rows);
}
