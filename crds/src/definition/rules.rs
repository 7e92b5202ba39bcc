//! Every rule of every kind, broken once and kept once, through the same evaluation that a client without a cluster has.

use std::collections::BTreeSet;

use kube::core::cel::{ScopeContext, ValidationErrors, WarningKind, analyze_rule, compile_schema};
use serde_json::{Value, json};

use super::schema;
use crate::registration::Kind;
use crate::{EventType, Projection, Topic, WebhookAction};

fn object(kind: Kind, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": crate::shared::API_VERSION, "kind": kind.as_str(), "metadata": {"name": name}, "spec": spec})
}

/// What breaks when `new` is written, over `old` if there is one.
fn broken(kind: Kind, old: Option<&Value>, new: &Value) -> Vec<String> {
    macro_rules! check {
        ($kind:ty) => {{
            let typed = |v: &Value| serde_json::from_value::<$kind>(v.clone()).unwrap_or_else(|e| panic!("{v}: {e}"));
            match old {
                Some(old) => typed(new).validate_cel_update(&typed(old)),
                None => typed(new).validate_cel(),
            }
        }};
    }
    let result: Result<(), ValidationErrors> = match kind {
        Kind::Topic => check!(Topic),
        Kind::EventType => check!(EventType),
        Kind::Projection => check!(Projection),
        Kind::WebhookAction => check!(WebhookAction),
    };
    result.err().into_iter().flat_map(ValidationErrors::into_vec).map(|e| e.message).collect()
}

/// A broken rule: the spec before if any, the spec, and the start of the message.
type Break = (Option<Value>, Value, &'static str);

fn topics() -> Vec<Break> {
    vec![
        (Some(json!({"topicName": "a"})), json!({"topicName": "b"}), "topicName cannot change"),
        (Some(json!({"topicName": "a"})), json!({}), "topicName cannot change"),
        (Some(json!({})), json!({"topicName": "other"}), "topicName cannot change"),
        (Some(json!({"partitions": 3})), json!({"partitions": 2}), "partitions cannot decrease"),
        (Some(json!({"partitions": 3})), json!({}), "partitions cannot decrease"),
        (Some(json!({"partitions": 3})), json!({"partitions": 4}), "more partitions break"),
        (Some(json!({})), json!({"partitions": 2, "allowRepartition": false}), "more partitions break"),
        (None, json!({"retention": "1h", "config": {"retention.ms": "1"}}), "give retention or config"),
        (None, json!({"retention": "1h", "config": {"retention.ms": null}}), "give retention or config"),
        (None, json!({"topicName": ".."}), "topicName cannot be"),
    ]
}

fn event_types() -> Vec<Break> {
    let version = |deprecated: bool| json!({"version": 1, "schema": {"type": "object"}, "deprecated": deprecated});
    vec![
        (Some(json!({"type": "a"})), json!({"type": "b"}), "type cannot change: make a new EventType"),
        (Some(json!({"type": "a"})), json!({}), "type cannot change: make a new EventType"),
        (Some(json!({})), json!({"type": "a"}), "type cannot change: make a new EventType"),
        (None, json!({"versions": [version(false), version(false)]}), "each version can be given once"),
        (None, json!({"versions": [version(true)]}), "at least one version must not be deprecated"),
    ]
}

fn projections() -> Vec<Break> {
    let column = json!({"name": "v", "type": "Double", "from": "event.payload.v"});
    let series =
        |table: &str| json!({"source": {"prefixes": ["a"]}, "timeSeries": {"table": table, "columns": [column]}});
    let latest = |more: Value| {
        let mut spec = json!({"source": {"eventTypes": ["a"]}, "latest": {}});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec
    };
    let twice = json!({"source": {"prefixes": ["a"]}, "timeSeries": {"table": "t", "columns": [column, column]}});
    let with = |field: &str, value: Value| {
        let mut spec = series("t");
        spec[field] = value;
        spec
    };
    let kept = with("retention", json!("7d"));
    vec![
        (Some(latest(json!({"type": "a"}))), latest(json!({"type": "b"})), "type cannot change: make a new Projection"),
        (Some(latest(json!({}))), latest(json!({"type": "b"})), "type cannot change: make a new Projection"),
        (None, json!({"source": {"eventTypes": ["a"]}}), "give exactly one of latest"),
        (None, latest(json!({"merge": {}})), "give exactly one of latest"),
        (None, latest(json!({"fields": {"n": "1"}})), "give exactly one of latest"),
        (None, json!({"source": {}, "latest": {}}), "give exactly one of eventTypes"),
        (None, latest(json!({"source": {"eventTypes": ["a"], "prefixes": ["b"]}})), "give exactly one of eventTypes"),
        (Some(series("t")), latest(json!({})), "timeSeries cannot become"),
        (Some(latest(json!({}))), series("t"), "timeSeries cannot be added"),
        (Some(series("t")), series("u"), "table cannot change"),
        (None, kept, "a time series has timeSeries.retention"),
        (None, with("indexes", json!([{"field": "a"}])), "indexes are on fields of a state"),
        (None, with("rebuild", json!("InPlace")), "a time series is not rebuilt"),
        (None, twice, "each column can be given once"),
    ]
}

fn actions() -> Vec<Break> {
    let headers =
        |headers: Value| json!({"source": {"prefixes": ["a"]}, "url": "https://example.com", "headers": headers});
    let both = json!([{"name": "X", "value": "1", "secretRef": {"name": "s", "key": "k"}}]);
    let twice = json!([{"name": "X", "value": "1"}, {"name": "x", "value": "2"}]);
    vec![
        (None, json!({"source": {}, "url": "https://example.com"}), "give exactly one of eventTypes"),
        (None, headers(json!([{"name": "X"}])), "give exactly one of value and secretRef"),
        (None, headers(both), "give exactly one of value and secretRef"),
        (None, headers(json!([{"name": "Webhook-Id", "value": "1"}])), "headers that start with webhook-"),
        (None, headers(twice), "each header can be given once"),
    ]
}

#[test]
fn each_rule_is_kept() {
    let mut seen = BTreeSet::new();
    let all = [topics(), event_types(), projections(), actions()];
    let kinds = [Kind::Topic, Kind::EventType, Kind::Projection, Kind::WebhookAction];
    for (kind, (old, new, message)) in kinds.into_iter().zip(all).flat_map(|(k, b)| b.into_iter().map(move |b| (k, b)))
    {
        let (old, new) = (old.map(|spec| object(kind, "n", &spec)), object(kind, "n", &new));
        let found = broken(kind, old.as_ref(), &new);
        assert!(found.iter().any(|m| m.starts_with(message)), "{new}: wanted '{message}', found {found:?}");
        seen.extend(found.into_iter().map(|message| (kind, message)));
    }
    let untried: Vec<_> =
        rules().into_iter().filter(|(kind, _, message)| !seen.contains(&(*kind, message.clone()))).collect();
    assert!(untried.is_empty(), "no test breaks {untried:#?}");
}

#[test]
fn what_is_right_breaks_no_rule() {
    let a = json!({"prefixes": ["a"]});
    let series = json!({"table": "t", "columns": [{"name": "v", "type": "Double", "from": "event.payload.v"}]});
    let versions = json!([{"version": 1, "schema": {}, "deprecated": true}, {"version": 2, "schema": {}}]);
    let headers = json!([{"name": "A", "value": ""}, {"name": "B", "secretRef": {"name": "s", "key": "k"}}]);
    for (kind, old, new) in [
        (Kind::Topic, json!({}), json!({"topicName": "n"})),
        (Kind::Topic, json!({"topicName": "n"}), json!({})),
        (Kind::Topic, json!({"topicName": "a"}), json!({"topicName": "a", "default": true})),
        (Kind::Topic, json!({}), json!({"partitions": 1})),
        (Kind::Topic, json!({"partitions": 1}), json!({"partitions": 6, "allowRepartition": true})),
        (Kind::Topic, json!({"partitions": 6, "allowRepartition": true}), json!({"partitions": 6})),
        (Kind::Topic, json!({}), json!({"retention": "1h", "config": {"cleanup.policy": null}})),
        (Kind::EventType, json!({}), json!({"type": "n"})),
        (Kind::EventType, json!({"versions": []}), json!({"versions": versions})),
        (Kind::Projection, json!({"source": a, "latest": {}}), json!({"type": "n", "source": a, "merge": {}})),
        (Kind::Projection, json!({"source": a, "timeSeries": series}), json!({"source": a, "timeSeries": series})),
        (
            Kind::Projection,
            json!({"source": a, "latest": {}}),
            json!({"source": a, "fields": {"n": "1"}, "retention": "7d"}),
        ),
        (
            Kind::WebhookAction,
            json!({"source": a, "url": "https://a"}),
            json!({"source": a, "url": "https://b", "headers": headers}),
        ),
    ] {
        let (old, new) = (object(kind, "n", &old), object(kind, "n", &new));
        assert_eq!(broken(kind, Some(&old), &new), Vec::<String>::new(), "{new}");
        assert_eq!(broken(kind, None, &new), Vec::<String>::new(), "{new}");
    }
}

#[test]
fn no_rule_costs_more_than_an_api_server_allows() {
    for kind in Kind::ALL {
        visit(&schema(kind), &mut |part, rule| {
            let warnings = analyze_rule(rule, &compile_schema(part), ScopeContext::CrdValidation);
            let serious: Vec<_> = warnings.iter().filter(|w| w.kind != WarningKind::WrongScope).collect();
            assert!(serious.is_empty(), "{kind}: {rule}: {serious:?}");
        });
    }
}

/// All rules: kind, rule and message.
fn rules() -> Vec<(Kind, String, String)> {
    let mut rules = Vec::new();
    for kind in Kind::ALL {
        visit(&schema(kind), &mut |part, rule| {
            let all = part["x-kubernetes-validations"].as_array().into_iter().flatten();
            let message = all.filter(|r| r["rule"] == rule).map(|r| r["message"].as_str().expect("a message")).next();
            rules.push((kind, rule.to_owned(), message.expect("found").to_owned()));
        });
    }
    assert!(rules.len() > 15, "{rules:?}");
    rules
}

fn visit(schema: &Value, found: &mut dyn FnMut(&Value, &str)) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found(schema, rule["rule"].as_str().expect("a rule"));
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|part| visit(part, found)),
        Value::Array(items) => items.iter().for_each(|part| visit(part, found)),
        _ => {}
    }
}
