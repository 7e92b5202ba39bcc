use serde_json::json;

use super::{OK, Row, check};

#[test]
fn types_are_widened_and_narrowed() {
    let rows: Vec<Row> = vec![
        ("anything", json!({}), json!(true), OK, OK),
        ("nothing", json!(true), json!(false), &[""], OK),
        ("whole numbers to numbers", json!({"type": "integer"}), json!({"type": "number"}), OK, &["/type"]),
        ("null allowed", json!({"type": "number"}), json!({"type": ["number", "null"]}), OK, &["/type"]),
        ("in a list", json!({"type": "string"}), json!({"type": ["string"]}), OK, OK),
        ("another order", json!({"type": ["string", "null"]}), json!({"type": ["null", "string"]}), OK, OK),
        ("another type", json!({"type": "string"}), json!({"type": "number"}), &["/type"], &["/type"]),
        ("limited", json!({}), json!({"type": "number"}), &["/type"], OK),
        ("integer is within number", json!({"type": ["integer", "number"]}), json!({"type": "number"}), OK, OK),
        (
            "annotations",
            json!({"title": "a", "type": "string", "deprecated": true, "$comment": "x"}),
            json!({"description": "b", "default": "c", "examples": ["d"], "type": "string"}),
            OK,
            OK,
        ),
    ];
    check(&rows);
}

#[test]
fn listed_values_are_tried_one_by_one() {
    let rows: Vec<Row> = vec![
        ("a value added", json!({"enum": ["a", "b"]}), json!({"enum": ["a", "b", "c"]}), OK, &["/enum"]),
        ("one value to several", json!({"const": 1}), json!({"enum": [1, 2]}), OK, &["/const"]),
        ("reordered", json!({"enum": [1, 2]}), json!({"enum": [2, 1.0]}), OK, OK),
        ("listed to typed", json!({"enum": ["a", "bc"]}), json!({"type": "string", "maxLength": 2}), OK, &["/enum"]),
        (
            "a listed value too long",
            json!({"enum": ["a", "bcd"]}),
            json!({"type": "string", "maxLength": 2}),
            &["/maxLength"],
            &["/enum"],
        ),
        ("a value that never was valid", json!({"type": "string", "enum": ["a", 1]}), json!({"const": "a"}), OK, OK),
        ("a boolean is two values", json!({"type": "boolean"}), json!({"enum": [false, true]}), OK, OK),
        ("null is one", json!({"type": ["null"]}), json!({"const": null}), OK, OK),
        (
            "listed objects",
            json!({"const": {"a": 1}}),
            json!({"properties": {"a": {"type": "string"}}}),
            &[""],
            &["/const"],
        ),
        ("limited to values", json!({"type": "string"}), json!({"type": "string", "enum": ["a"]}), &["/enum"], OK),
        (
            "values behind a reference",
            json!({"enum": ["a", "b"]}),
            json!({"$ref": "#/$defs/one", "$defs": {"one": {"enum": ["a"]}}}),
            &["/$defs/one/enum"],
            OK,
        ),
    ];
    check(&rows);
}

#[test]
fn bounds_are_compared_with_each_other_exactly() {
    let number = |bounds: serde_json::Value| {
        let mut schema = json!({"type": "number"});
        schema.as_object_mut().expect("an object").extend(bounds.as_object().expect("an object").clone());
        schema
    };
    let whole = |bounds: serde_json::Value| {
        let mut schema = number(bounds);
        schema["type"] = json!("integer");
        schema
    };
    let rows: Vec<Row> = vec![
        ("a higher minimum", number(json!({"minimum": 0})), number(json!({"minimum": 5})), &["/minimum"], OK),
        ("no maximum", number(json!({"maximum": 5})), number(json!({})), OK, &["/maximum"]),
        (
            "exclusive",
            number(json!({"minimum": 0})),
            number(json!({"exclusiveMinimum": 0})),
            &["/exclusiveMinimum"],
            OK,
        ),
        (
            "exclusive, further",
            number(json!({"maximum": 5})),
            number(json!({"exclusiveMaximum": 6})),
            OK,
            &["/maximum"],
        ),
        ("the same whole numbers", whole(json!({"exclusiveMinimum": 0})), whole(json!({"minimum": 1})), OK, OK),
        ("between whole numbers", whole(json!({"maximum": 2.5})), whole(json!({"maximum": 2})), OK, OK),
        (
            "more than a float can tell apart",
            whole(json!({"maximum": 9_007_199_254_740_993_u64})),
            whole(json!({"maximum": 9_007_199_254_740_992_u64})),
            &["/maximum"],
            OK,
        ),
        ("written otherwise", number(json!({"minimum": 1})), number(json!({"minimum": 1.0})), OK, OK),
        ("multiples", number(json!({"multipleOf": 10})), number(json!({"multipleOf": 5})), OK, &["/multipleOf"]),
        (
            "decimal multiples",
            number(json!({"multipleOf": 0.01})),
            number(json!({"multipleOf": 0.1})),
            &["/multipleOf"],
            OK,
        ),
        ("whole is a multiple of one", json!({"type": "integer"}), json!({"type": "integer", "multipleOf": 1}), OK, OK),
        ("bounds of what is no number", json!({"type": "string"}), json!({"type": "string", "minimum": 3}), OK, OK),
        (
            "listed values are within",
            json!({"enum": [1, 5]}),
            json!({"minimum": 1, "exclusiveMaximum": 6}),
            OK,
            &["/enum"],
        ),
        ("shorter", json!({"maxLength": 9}), json!({"maxLength": 8}), &["/maxLength"], OK),
        (
            "at least nothing",
            json!({}),
            json!({"minLength": 0, "minItems": 0, "uniqueItems": false, "required": []}),
            OK,
            OK,
        ),
        ("another pattern", json!({"pattern": "^a"}), json!({"pattern": "^b"}), &["/pattern"], &["/pattern"]),
        ("a format", json!({"type": "string"}), json!({"type": "string", "format": "date"}), &["/format"], OK),
        ("a pattern for numbers", json!({"type": "number"}), json!({"type": "number", "pattern": "a"}), OK, OK),
    ];
    check(&rows);
}
