//! What the API server refuses, with what `kubectl apply` prints of it: each rule, each field that cannot change, and what
//! is plainly wrong.

use std::collections::BTreeSet;

use crds::definition::schema;
use crds::registration::Kind;
use serde_json::Value;

use super::World;
use crate::harness::Bus;

/// Kind, the spec before (if any), the spec, and what is said.
type Row = (&'static str, Option<&'static str>, &'static str, &'static str);

const COLUMN: &str = "{name: v, type: Double, from: event.payload.v}";
const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const ROWS: &[Row] = &[
    ("Topic", Some("{topicName: a}"), "{topicName: b}", "topicName cannot change"),
    ("Topic", Some("{topicName: a}"), "{}", "topicName cannot change"),
    ("Topic", Some("{}"), "{topicName: other}", "topicName cannot change"),
    ("Topic", Some("{partitions: 3}"), "{partitions: 2}", "partitions cannot decrease"),
    ("Topic", Some("{partitions: 3}"), "{}", "partitions cannot decrease"),
    ("Topic", Some("{partitions: 3}"), "{partitions: 4}", "more partitions break the order"),
    ("Topic", None, "{prefixes: [room., room.]}", "spec.prefixes[1]: Duplicate value: \"room.\""),
    ("Topic", None, "{retention: 1h, config: {retention.ms: '1'}}", "give retention or config"),
    ("Topic", None, "{topicName: '..'}", "topicName cannot be"),
    ("Topic", None, "{topicName: 'a b'}", "spec.topicName in body should match"),
    ("Topic", None, "{partitions: 0}", "spec.partitions in body should be greater than or equal to 1"),
    ("Topic", None, "{partitions: many}", "spec.partitions in body must be of type integer"),
    ("Topic", None, "{retention: soon}", "spec.retention in body should match"),
    ("Topic", None, "{configPolicy: Both}", "spec.configPolicy: Unsupported value: \"Both\""),
    ("Topic", None, "{adoptionPolicy: Sometimes}", "spec.adoptionPolicy: Unsupported value: \"Sometimes\""),
    ("Topic", None, "{partition: 3}", "unknown field \"spec.partition\""),
    ("EventType", Some("{type: a}"), "{type: b}", "type cannot change: make a new EventType"),
    ("EventType", Some("{type: a}"), "{}", "type cannot change: make a new EventType"),
    (
        "EventType",
        None,
        "{versions: [{version: 1, schema: {}}, {version: 1, schema: {}}]}",
        "each version can be given once",
    ),
    (
        "EventType",
        None,
        "{versions: [{version: 1, schema: {}, deprecated: true}]}",
        "at least one version must not be deprecated",
    ),
    (
        "EventType",
        None,
        "{versions: [{version: 0, schema: {}}]}",
        "spec.versions[0].version in body should be greater than or equal to 1",
    ),
    ("EventType", None, "{versions: [{version: 1}]}", "spec.versions[0].schema: Required value"),
    ("EventType", None, "{validation: Perhaps}", "spec.validation: Unsupported value: \"Perhaps\""),
    ("EventType", None, "{compatibility: Sideways}", "spec.compatibility: Unsupported value: \"Sideways\""),
    ("EventType", None, "{schema: {}}", "unknown field \"spec.schema\""),
    ("Projection", None, "{latest: {}}", "spec.source: Required value"),
    ("Projection", None, "{source: {prefixes: [a]}}", "give exactly one of latest"),
    ("Projection", None, "{source: {prefixes: [a]}, latest: {}, merge: {}}", "give exactly one of latest"),
    ("Projection", None, "{source: {}, latest: {}}", "give exactly one of eventTypes"),
    ("Projection", None, "{source: {eventTypes: [a], prefixes: [b]}, latest: {}}", "give exactly one of eventTypes"),
    (
        "Projection",
        Some("{type: a, source: {prefixes: [a]}, latest: {}}"),
        "{type: b, source: {prefixes: [a]}, latest: {}}",
        "type cannot change: make a new Projection",
    ),
    (
        "Projection",
        Some("{source: {prefixes: [a]}, timeSeries: {table: t, columns: [COLUMN]}}"),
        "{source: {prefixes: [a]}, latest: {}}",
        "timeSeries cannot become",
    ),
    (
        "Projection",
        Some("{source: {prefixes: [a]}, latest: {}}"),
        "{source: {prefixes: [a]}, timeSeries: {table: t, columns: [COLUMN]}}",
        "timeSeries cannot be added",
    ),
    (
        "Projection",
        Some("{source: {prefixes: [a]}, timeSeries: {table: t, columns: [COLUMN]}}"),
        "{source: {prefixes: [a]}, timeSeries: {table: u, columns: [COLUMN]}}",
        "table cannot change",
    ),
    (
        "Projection",
        None,
        "{source: {prefixes: [a]}, retention: 7d, timeSeries: {table: t, columns: [COLUMN]}}",
        "a time series has timeSeries.retention",
    ),
    (
        "Projection",
        None,
        "{source: {prefixes: [a]}, indexes: [{field: a}], timeSeries: {table: t, columns: [COLUMN]}}",
        "indexes are on fields of a state",
    ),
    (
        "Projection",
        None,
        "{source: {prefixes: [a]}, rebuild: InPlace, timeSeries: {table: t, columns: [COLUMN]}}",
        "a time series is not rebuilt",
    ),
    (
        "Projection",
        None,
        "{source: {prefixes: [a]}, timeSeries: {table: t, columns: [COLUMN, COLUMN]}}",
        "each column can be given once",
    ),
    (
        "Projection",
        None,
        "{source: {prefixes: [a]}, latest: {}, onError: Shrug}",
        "spec.onError: Unsupported value: \"Shrug\"",
    ),
    ("WebhookAction", None, "{source: {prefixes: [a]}}", "spec.url: Required value"),
    ("WebhookAction", None, "{source: {}, url: 'https://a'}", "give exactly one of eventTypes"),
    (
        "WebhookAction",
        None,
        "{source: {prefixes: [a]}, url: 'https://a', signing: {secretRefs: [{name: ../a, key: b}]}}",
        "spec.signing.secretRefs[0].name in body should match",
    ),
    ("WebhookAction", None, "{source: {prefixes: [a]}, url: 'ftp://a'}", "spec.url in body should match"),
    (
        "WebhookAction",
        None,
        "{source: {prefixes: [a]}, url: 'https://a', headers: [{name: X}]}",
        "give exactly one of value and secretRef",
    ),
    (
        "WebhookAction",
        None,
        "{source: {prefixes: [a]}, url: 'https://a', headers: [{name: Webhook-Id, value: '1'}]}",
        "headers that start with webhook-",
    ),
    (
        "WebhookAction",
        None,
        "{source: {prefixes: [a]}, url: 'https://a', headers: [{name: X, value: '1'}, {name: x, value: '2'}]}",
        "each header can be given once",
    ),
];

/// The messages of the rules in a schema, however deep.
fn rules(schema: &Value, messages: &mut BTreeSet<String>) {
    let found = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    messages.extend(found.map(|rule| rule["message"].as_str().expect("each rule has a message").to_owned()));
    let parts = schema.as_object().into_iter().flat_map(|object| object.values());
    for part in parts.chain(schema.as_array().into_iter().flatten()) {
        rules(part, messages);
    }
}

fn manifest(kind: &str, name: &str, spec: &str) -> String {
    let spec = spec.replace("COLUMN", COLUMN);
    format!("apiVersion: cornjacket.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn each_rule_of_the_definitions_has_a_row_that_wants_its_message_and_no_other() {
    for kind in Kind::ALL {
        let mut messages = BTreeSet::new();
        rules(&schema(kind), &mut messages);
        let wanted: Vec<&str> = ROWS.iter().filter(|row| row.0 == kind.as_str()).map(|row| row.3).collect();
        let mut rows = BTreeSet::new();
        for wanted in wanted {
            let meant: Vec<&String> = messages.iter().filter(|message| message.contains(wanted)).collect();
            assert!(meant.len() < 2, "{kind}: '{wanted}' is in each of {meant:?}");
            rows.extend(meant.into_iter().cloned());
        }
        assert_eq!(rows, messages, "{kind}: left without, right with a rule that no row wants");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_these_manifests_is_refused_with_a_message_that_helps() {
    let world = World::new("refused", Bus::Embedded).await;
    let mut wrong = Vec::new();
    for (number, (kind, before, spec, message)) in ROWS.iter().enumerate() {
        let name = format!("r{number}");
        if let Some(before) = before {
            world.apply(&manifest(kind, &name, before));
        }
        match world.cluster.apply(&world.namespace, &manifest(kind, &name, spec)) {
            Ok(said) => wrong.push(format!("{kind} {spec} was accepted: {said}")),
            Err(said) if said.contains(message) && !said.contains("panic") => {}
            Err(said) => wrong.push(format!("{kind} {spec}: wanted '{message}', said: {said}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(world.cluster.apply(&world.namespace, &manifest("Topic", LONG, "{}")).is_ok(), "a long name is a name");
}
