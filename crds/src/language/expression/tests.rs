use serde_json::{Value as Json, json};

use super::*;

fn event(payload: &Json) -> Value {
    let at = chrono::DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
    event_value(&EventParts {
        event_id: "018c",
        event_type: "sensor.reading",
        aggregate_id: "device-001",
        timestamp: at,
        ingested_at: at,
        payload,
        metadata: &json!({"source": "http"}),
    })
}

fn run(text: &str, payload: &Json, state: &Json) -> Result<Json, EvaluationError> {
    let expression = Expression::compile(text, Scope::StateAndEvent).unwrap_or_else(|e| panic!("{text}: {e}"));
    expression.evaluate(&event(payload), Some(&to_cel(state)))
}

fn refused(text: &str) -> ExpressionError {
    Expression::compile(text, Scope::Event).map(drop).expect_err(text)
}

#[test]
fn expressions_read_the_event_and_the_state() {
    let payload = json!({"value": 72.5, "unit": "fahrenheit", "tags": ["a", "b"], "n": 3});
    let state = json!({"count": 4, "total": 10});
    for (text, expected) in [
        ("event.payload.value", json!(72.5)),
        ("event.payload['unit']", json!("fahrenheit")),
        ("event.aggregate_id + '/' + event.event_type", json!("device-001/sensor.reading")),
        ("has(state.count) ? state.count + 1 : 1", json!(5)),
        ("has(state.missing) ? state.missing + 1 : 1", json!(1)),
        ("has(event.payload.value.deeper)", json!(false)),
        ("state.total + event.payload.value", json!(82.5)),
        ("event.payload.value * 2 - 1", json!(144.0)),
        ("event.payload.n / 2", json!(1)),
        ("event.payload.n == 3.0", json!(true)),
        ("event.payload.n != 4", json!(true)),
        ("event.payload.value > 70 && event.payload.unit == 'fahrenheit'", json!(true)),
        ("event.timestamp", json!("2023-11-14T22:13:20Z")),
        ("event.ingested_at - event.timestamp", json!("0s")),
        ("duration('90m')", json!("5400s")),
        ("event.timestamp.getFullYear()", json!(2023)),
        ("event.payload.tags.map(t, t + '!')", json!(["a!", "b!"])),
        ("event.payload.tags.exists(t, t == 'b')", json!(true)),
        ("event.payload.tags.filter(t, t.matches('^a'))", json!(["a"])),
        ("{'unit': event.payload.unit, 'n': [1, 2u, null]}", json!({"unit": "fahrenheit", "n": [1, 2, null]})),
        ("b'abc'", json!("YWJj")),
        ("math.floor(event.payload.value)", json!(72.0)),
        ("event.payload.unit.upperAscii()", json!("FAHRENHEIT")),
        ("max(event.payload.value, 80.0)", json!(80.0)),
        ("optional.none().orValue(7)", json!(7)),
        ("event.metadata.source", json!("http")),
        ("[{'x': 1}].map(event, event.x)", json!([1])),
    ] {
        assert_eq!(run(text, &payload, &state), Ok(expected), "{text}");
    }
}

#[test]
fn without_a_state_the_state_is_empty() {
    let expression = Expression::compile("has(state.count)", Scope::StateAndEvent).expect("compiles");
    assert_eq!(expression.evaluate(&event(&json!({})), None), Ok(json!(false)));
}

#[test]
fn what_cannot_be_evaluated_is_an_error_that_says_why() {
    let payload = json!({"value": "text", "zero": 0, "none": null});
    for (text, part) in [
        ("event.payload.missing", "missing"),
        ("event.payload.value.deeper", ""),
        ("event.payload.value + 1", ""),
        ("1 / event.payload.zero", "zero"),
        ("0.0 / 0.0", "NaN"),
        ("1.0 / 0.0", "infinite"),
        ("optional.of(1)", "orValue"),
        ("timestamp('never')", ""),
        ("9223372036854775807 + 1", ""),
        ("event.timestamp + duration('9000000000s') * 1", ""),
    ] {
        let error = run(text, &payload, &json!({})).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn unknown_names_and_functions_do_not_compile() {
    assert!(refused("state.count").to_string().contains("knows event"));
    assert!(refused("evnt.payload").to_string().contains("'evnt'"));
    assert!(refused("event.payload.tags.map(t, u)").to_string().contains("'u'"));
    assert!(refused("t").to_string().contains("'t'"));
    assert!(refused("event.event_type.startWith('a')").to_string().contains("did you mean 'startsWith'?"));
    assert!(refused("math.flor(1.0)").to_string().contains("math.floor"));
    assert!(refused("event.paylod.value").to_string().contains("did you mean 'payload'?"));
    assert!(refused("has(event.value)").to_string().contains("event has no field 'value'"));
    assert_eq!(refused("1 +").to_string(), "syntax error at line 1, column 4: unexpected end");
    assert!(refused("Message{a: 1}").to_string().contains("message literal"));
    for text in ["", "event.", "1 +", "event payload", "'open", "((((", "a.b.", "?", "event.payload.map(1, 2)", "\u{0}"]
    {
        assert!(Expression::compile(text, Scope::Event).is_err(), "{text}");
    }
}

#[test]
fn patterns_are_checked_beforehand() {
    assert_eq!(refused("event.event_type.matches(event.aggregate_id)"), ExpressionError::PatternNotLiteral);
    assert!(matches!(refused("event.event_type.matches('(')"), ExpressionError::Pattern { .. }));
    assert!(matches!(refused("event.event_type.matches('(a{1000}){1000}')"), ExpressionError::Pattern { .. }));
}

#[test]
fn long_and_deep_texts_are_refused_without_harm() {
    assert_eq!(refused(&"1".repeat(TEXT_LIMIT + 1)), ExpressionError::TooLong(TEXT_LIMIT + 1));
    // On the stack of a worker thread.
    let texts = ["(", "[", "{1:", "1+", "a.", "1?1:", "f(", "event.payload.map(x,"];
    for text in texts.map(|part| part.repeat(TEXT_LIMIT / part.len() - 1) + "1") {
        let compiled = std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(move || Expression::compile(&text, Scope::Event).is_ok())
            .expect("a thread")
            .join();
        assert!(!compiled.expect("no panic"));
    }
}

#[test]
fn the_deepest_expression_runs_on_the_stack_of_a_worker() {
    let text = vec!["event.payload.n"; check::DEPTH_LIMIT - 2].join(" + ");
    let run = move || run(&text, &json!({"n": 1}), &json!({}));
    let result = std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join();
    assert_eq!(result.expect("no panic"), Ok(json!(check::DEPTH_LIMIT - 2)));
}

#[test]
fn a_costly_evaluation_ends_with_an_error() {
    let list: Vec<i32> = (0..2000).collect();
    let payload = json!({"l": list, "text": "x".repeat(100_000)});
    for text in [
        "event.payload.l.all(a, event.payload.l.all(b, event.payload.l.all(c, a + b + c >= 0)))",
        "event.payload.l.map(a, event.payload.l)",
        "event.payload.l.exists(a, event.payload.l.all(b, true) && false) || true",
        "[event.payload.text].map(t, t + t + t + t).map(t, t + t + t + t).map(t, t + t)",
    ] {
        assert_eq!(run(text, &payload, &json!({})), Err(EvaluationError::TooCostly), "{text}");
    }
    assert_eq!(run("event.payload.l.filter(a, a < 3)", &payload, &json!({})), Ok(json!([0, 1, 2])));
}

#[test]
fn every_listed_function_exists() {
    use cel::common::ast::{CallExpr, Expr, IdedExpr};
    for name in functions::FUNCTIONS {
        let call = CallExpr { func_name: (*name).to_owned(), target: None, args: Vec::new() };
        let result = Value::resolve(&IdedExpr { id: 0, expr: Expr::Call(call) }, functions::base());
        assert!(!matches!(result, Err(cel::ExecutionError::UndeclaredReference(_))), "{name}");
    }
}
