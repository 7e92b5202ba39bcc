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

/// Breaks: kind, spec before if any, spec, and the start of the message.
fn breaks() -> Vec<(Kind, Option<Value>, Value, &'static str)> {
    let a = json!({"eventTypes": ["a"]});
    let version =
        |v: i32, deprecated: bool| json!({"version": v, "schema": {"type": "object"}, "deprecated": deprecated});
    let series =
        |table: &str| json!({"table": table, "columns": [{"name": "v", "type": "Double", "from": "event.payload.v"}]});
    let twice = json!([{"name": "v", "type": "Text", "from": "'a'"}, {"name": "v", "type": "Text", "from": "'b'"}]);
    let header = |header: Value| json!({"source": a, "url": "https://example.com", "headers": [header]});
    let topic = Kind::Topic;
    let proj = Kind::Projection;
    let wha = Kind::WebhookAction;
    vec![
        (topic, Some(json!({"topicName": "a"})), json!({"topicName": "b"}), "topicName cannot change"),
        (topic, Some(json!({"topicName": "a"})), json!({}), "topicName cannot change"),
        (topic, Some(json!({})), json!({"topicName": "other"}), "topicName cannot change"),
        (topic, Some(json!({"partitions": 3})), json!({"partitions": 2}), "partitions cannot decrease"),
        (topic, Some(json!({"partitions": 3})), json!({}), "partitions cannot decrease"),
        (topic, Some(json!({"partitions": 3})), json!({"partitions": 4}), "more partitions break"),
        (topic, Some(json!({})), json!({"partitions": 2, "allowRepartition": false}), "more partitions break"),
        (topic, None, json!({"retention": "1h", "config": {"retention.ms": "1"}}), "give retention or config"),
        (topic, None, json!({"retention": "1h", "config": {"retention.ms": null}}), "give retention or config"),
        (topic, None, json!({"topicName": ".."}), "topicName cannot be"),
        (Kind::EventType, Some(json!({"type": "a"})), json!({"type": "b"}), "type cannot change: make a new EventType"),
        (Kind::EventType, Some(json!({"type": "a"})), json!({}), "type cannot change: make a new EventType"),
        (Kind::EventType, Some(json!({})), json!({"type": "a"}), "type cannot change: make a new EventType"),
        (
            Kind::EventType,
            None,
            json!({"versions": [version(1, false), version(1, false)]}),
            "each version can be given once",
        ),
        (Kind::EventType, None, json!({"versions": [version(1, true)]}), "at least one version must not be deprecated"),
        (
            proj,
            Some(json!({"type": "a", "source": a, "latest": {}})),
            json!({"type": "b", "source": a, "latest": {}}),
            "type cannot change: make a new Projection",
        ),
        (
            proj,
            Some(json!({"source": a, "latest": {}})),
            json!({"type": "b", "source": a, "latest": {}}),
            "type cannot change: make a new Projection",
        ),
        (proj, None, json!({"source": a}), "give exactly one of latest"),
        (proj, None, json!({"source": a, "latest": {}, "merge": {}}), "give exactly one of latest"),
        (
            proj,
            None,
            json!({"source": a, "fields": {"n": "1"}, "timeSeries": series("t")}),
            "give exactly one of latest",
        ),
        (proj, None, json!({"source": {}, "latest": {}}), "give exactly one of eventTypes"),
        (
            proj,
            None,
            json!({"source": {"eventTypes": ["a"], "prefixes": ["b"]}, "latest": {}}),
            "give exactly one of eventTypes",
        ),
        (
            proj,
            Some(json!({"source": a, "timeSeries": series("t")})),
            json!({"source": a, "latest": {}}),
            "timeSeries cannot become",
        ),
        (
            proj,
            Some(json!({"source": a, "latest": {}})),
            json!({"source": a, "timeSeries": series("t")}),
            "timeSeries cannot be added",
        ),
        (
            proj,
            Some(json!({"source": a, "timeSeries": series("t")})),
            json!({"source": a, "timeSeries": series("u")}),
            "table cannot change",
        ),
        (
            proj,
            None,
            json!({"source": a, "timeSeries": series("t"), "retention": "7d"}),
            "a time series has timeSeries.retention",
        ),
        (
            proj,
            None,
            json!({"source": a, "timeSeries": {"table": "t", "columns": twice}}),
            "each column can be given once",
        ),
        (wha, None, json!({"source": {}, "url": "https://example.com"}), "give exactly one of eventTypes"),
        (wha, None, header(json!({"name": "X"})), "give exactly one of value and secretRef"),
        (
            wha,
            None,
            header(json!({"name": "X", "value": "1", "secretRef": {"name": "s", "key": "k"}})),
            "give exactly one of value and secretRef",
        ),
        (wha, None, header(json!({"name": "Webhook-Id", "value": "1"})), "headers that start with webhook-"),
        (
            wha,
            None,
            json!({"source": a, "url": "https://example.com", "headers": [{"name": "X", "value": "1"}, {"name": "x", "value": "2"}]}),
            "each header can be given once",
        ),
    ]
}

#[test]
fn each_rule_is_kept() {
    let mut seen = BTreeSet::new();
    for (kind, old, new, message) in breaks() {
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
