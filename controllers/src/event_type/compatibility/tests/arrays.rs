use serde_json::{Value, json};

use super::{OK, Row, check};

#[test]
fn items_are_compared_by_place_and_in_general() {
    let list = |items: Value| json!({"type": "array", "items": items});
    let rows: Vec<Row> = vec![
        ("items described", json!({"type": "array"}), list(json!({"type": "integer"})), &["/items/type"], OK),
        ("items widened", list(json!({"type": "integer"})), list(json!({"type": "number"})), OK, &["/items/type"]),
        (
            "nested items",
            list(list(json!({"maximum": 3}))),
            list(list(json!({"maximum": 2}))),
            &["/items/items/maximum"],
            OK,
        ),
        (
            "a first item of its own",
            list(json!({"type": "string"})),
            json!({"type": "array", "prefixItems": [{"type": "string", "maxLength": 1}], "items": {"type": "string"}}),
            &["/prefixItems/0/maxLength"],
            OK,
        ),
        (
            "a longer row of items",
            json!({"type": "array", "prefixItems": [{}], "items": false}),
            json!({"type": "array", "prefixItems": [{}, {"type": "string"}], "items": false}),
            OK,
            &["/items"],
        ),
        ("fewer", json!({"type": "array", "maxItems": 3}), json!({"type": "array", "maxItems": 2}), &["/maxItems"], OK),
        (
            "items that cannot be",
            json!({"type": "array", "maxItems": 0}),
            list(json!({"type": "string"})),
            OK,
            &["/maxItems"],
        ),
        ("unique", json!({"type": "array"}), json!({"type": "array", "uniqueItems": true}), &["/uniqueItems"], OK),
        (
            "one is unique",
            json!({"type": "array", "maxItems": 1}),
            json!({"type": "array", "uniqueItems": true}),
            OK,
            &["/maxItems"],
        ),
        (
            "one of a kind needed",
            list(json!({"type": "number"})),
            json!({"type": "array", "items": {"type": "number"}, "contains": {"minimum": 5}}),
            &["/contains"],
            OK,
        ),
        (
            "one is always there",
            json!({"type": "array", "items": {"type": "number"}, "minItems": 1}),
            json!({"type": "array", "contains": {"type": "number"}}),
            OK,
            &["/minItems", "/items/type"],
        ),
        (
            "fewer of a kind needed",
            json!({"type": "array", "contains": {"const": 1}, "minContains": 2}),
            json!({"type": "array", "contains": {"enum": [1, 2]}, "minContains": 1}),
            OK,
            &["/contains"],
        ),
        (
            "at most some of a kind",
            json!({"type": "array", "contains": {"const": 1}, "maxContains": 2}),
            json!({"type": "array", "contains": {"const": 1}, "maxContains": 1}),
            &["/maxContains"],
            OK,
        ),
    ];
    check(&rows);
}
