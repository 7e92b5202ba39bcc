use crds::event_type::Compatibility;
use serde_json::{Map, Value, json};

use super::super::compare;

fn said(older: &Value, newer: &Value, mode: Compatibility) -> String {
    compare(older, newer, mode).expect_err("incompatible").to_string()
}

#[test]
fn a_difference_says_where_what_was_what_is_and_whom_it_hurts() {
    let of = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    assert_eq!(
        said(&of(json!({"type": "string"})), &of(json!({"type": "number", "minimum": 1})), Compatibility::Full),
        "payloads of the older one may fail: /properties/a/type: string before, number now; \
         readers of the older one may fail: /properties/a/type: string before, number now"
    );
    assert_eq!(
        said(&of(json!({"enum": ["a", "b"]})), &of(json!({"const": "a"})), Compatibility::Backward),
        "payloads of the older one may fail: /properties/a/const: \"b\" before, \"a\" now"
    );
    assert_eq!(
        said(&json!({"pattern": "a"}), &json!({"pattern": "b"}), Compatibility::Forward),
        "readers of the older one may fail: /pattern: cannot be compared, \"a\" before, \"b\" now"
    );
}

#[test]
fn many_differences_are_named_as_far_as_they_fit_and_then_counted() {
    let of = |count: usize, name: &str, kind: &str| {
        let properties: Map<String, Value> =
            (0..count).map(|index| (format!("{name}{index:03}"), json!({"type": kind}))).collect();
        json!({"type": "object", "properties": properties})
    };
    let text = said(&of(20, "field", "string"), &of(20, "field", "number"), Compatibility::Backward);
    assert!(
        text.contains("/properties/field000/type: string before") && text.ends_with("/properties/field019/type"),
        "{text}"
    );
    let text = said(&of(200, "field", "string"), &of(200, "field", "number"), Compatibility::Backward);
    assert!(text.contains("/properties/field019/type; and 180 more"), "{text}");
    let long = "long".repeat(100);
    let text = said(&of(30, &long, "string"), &of(30, &long, "number"), Compatibility::Full);
    assert!(text.contains(" more") && text.len() <= 800, "{text}");
}

#[test]
fn a_comparison_ends_however_large_the_schemas_are() {
    // Each of many alternatives with each, at every depth.
    let deep = |limit: i64| {
        json!({"$ref": "#/$defs/d12", "$defs": (0..=12).map(|level| {
            let inner = if level == 0 { json!({"maximum": limit}) } else { json!({"$ref": format!("#/$defs/d{}", level - 1)}) };
            let one = |kind: &str| json!({"properties": {"x": inner, "y": {"type": kind}}});
            (format!("d{level}"), json!({"anyOf": [one("string"), one("number"), one("null")]}))
        }).collect::<Map<String, Value>>()})
    };
    let found = compare(&deep(3), &deep(2), Compatibility::Full).expect_err("incompatible");
    assert!(!found.differences.is_empty());
}
