//! Whatever is written, and whatever event comes: an answer or an error, never a panic.

use proptest::prelude::*;
use serde_json::json;

use super::{Expression, Scope, to_cel};

/// Pieces of expressions, so that many of what they make compiles.
const PIECES: [&str; 47] = [
    "event",
    ".payload",
    ".l",
    ".s",
    ".n",
    ".missing",
    "['s']",
    "[0]",
    "state",
    ".count",
    "1",
    "2.5",
    "-1",
    "0",
    "3u",
    "'a'",
    "b'a'",
    "true",
    "null",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " != ",
    " < ",
    " in ",
    " && ",
    " || ",
    "!",
    " ? ",
    " : ",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "has(",
    "size(",
    "int(",
    ".map(x, x",
    ".filter(x, x > 1",
    ".timestamp",
    "duration('1h')",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES.as_slice()), 1..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_compiles_is_evaluated_or_refused(text in soup(), n in any::<i64>(), f in any::<f64>(), s in ".{0,20}") {
        let event = to_cel(&json!({"payload": {"l": [1, f, n], "s": s, "n": n}, "timestamp": "2024-01-01T00:00:00Z"}));
        if let Ok(expression) = Expression::compile(&text, Scope::StateAndEvent) {
            let state = to_cel(&json!({"count": n}));
            let _ = expression.evaluate(&event, Some(&state));
        }
    }

    #[test]
    fn any_text_compiles_or_is_refused(text in "\\PC{0,60}") {
        let _ = Expression::compile(&text, Scope::Event);
    }
}

#[test]
fn values_of_json_come_back_as_they_were() {
    let json = json!({"a": [1, 2.5, -3, null, true, "x", u64::MAX, i64::MIN], "b": {"c": {}}});
    let expression = Expression::compile("event", Scope::Event).expect("compiles");
    assert_eq!(expression.evaluate(&to_cel(&json), None), Ok(json));
}
