use chrono::DateTime;
use serde_json::json;
use uuid::Uuid;

use super::*;

fn program(when: Option<&str>, body: Option<&str>, key: Option<&str>) -> Program {
    let expression = |text: Option<&str>| text.map(|text| Expression::compile(text, Scope::Event).unwrap());
    let source = Source { event_types: vec!["sensor.reading".to_owned()], prefixes: vec!["user.".to_owned()] };
    Program { source, when: expression(when), body: expression(body), key: expression(key) }
}

fn event(event_type: &str, payload: Value) -> StoredEvent {
    let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    StoredEvent {
        shard: 1,
        position: 7,
        event_id: Uuid::from_u128(1),
        event_type: event_type.to_owned(),
        aggregate_id: "device-001".to_owned(),
        timestamp: at,
        payload,
        metadata: json!({"source": "http"}),
        ingested_at: at,
    }
}

fn hot() -> StoredEvent {
    event("sensor.reading", json!({"value": 72.5, "unit": "fahrenheit"}))
}

#[test]
fn an_event_is_delivered_as_it_is_stored_unless_told_otherwise() {
    let content = program(None, None, None).of(&hot()).unwrap().unwrap();
    let body: Value = serde_json::from_str(&content.body).unwrap();
    assert_eq!(body, hot().envelope());
    assert_eq!(body["payload"]["value"], 72.5);
    assert_eq!(content.key, "sensor.reading\ndevice-001");
}

#[test]
fn only_events_of_the_source_for_which_when_holds_are_delivered() {
    let when = program(Some("event.payload.value > 70.0"), None, None);
    assert!(when.of(&hot()).unwrap().is_some());
    assert!(when.of(&event("sensor.reading", json!({"value": 70.0}))).unwrap().is_none());
    assert!(when.of(&event("sensor.readings", json!({"value": 90.0}))).unwrap().is_none());
    assert!(program(None, None, None).of(&event("user.login", json!({}))).unwrap().is_some());
}

#[test]
fn body_and_key_are_what_their_expressions_make_of_the_event() {
    let program = program(None, Some("{'text': event.aggregate_id + ' is hot'}"), Some("event.payload.unit"));
    let content = program.of(&hot()).unwrap().unwrap();
    assert_eq!(content, Content { body: r#"{"text":"device-001 is hot"}"#.to_owned(), key: "fahrenheit".to_owned() });
}

#[test]
fn what_cannot_be_evaluated_names_the_field_and_the_value() {
    let error = |program: Program| program.of(&hot()).unwrap_err().to_string();
    assert_eq!(
        error(program(Some("event.payload.unit"), None, None)),
        "when: must be true or false, is \"fahrenheit\""
    );
    assert!(error(program(None, Some("event.payload.none"), None)).starts_with("body: "));
    assert!(error(program(None, None, Some("event.payload.value"))).ends_with("is 72.5"));
    assert!(error(program(None, None, Some("''"))).ends_with("is \"\""));
}
