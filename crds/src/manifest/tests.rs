use super::*;

fn errors(text: &str) -> Vec<String> {
    read("a.yaml", text).errors.iter().map(ToString::to_string).collect()
}

fn projection(spec: &str) -> String {
    format!("apiVersion: cornjacket.io/v1alpha1\nkind: Projection\nmetadata:\n  name: p\nspec:\n{spec}")
}

#[test]
fn the_samples_are_valid_and_complete() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let mut kinds = Vec::new();
    for file in files(&folder).expect("the samples") {
        let text = std::fs::read_to_string(&file).expect("a file");
        let reading = read(&file.to_string_lossy(), &text);
        assert!(reading.errors.is_empty(), "{:#?}", reading.errors);
        kinds.extend(reading.manifests.iter().map(|m| m.resource.kind()));
    }
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!((count(Kind::Topic), count(Kind::EventType), count(Kind::Projection)), (3, 3, 3));
}

#[test]
fn a_bad_document_does_not_hide_its_neighbours() {
    let topic = |name: &str| {
        format!("apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {{name: {name}}}\nspec: {{}}\n")
    };
    let text = format!(
        "# first\n{}---\nspec: [unclosed\n---\n{}--- # comment only\n---\n{}",
        topic("a"),
        topic("b"),
        topic("c")
    );
    let reading = read("a.yaml", &text);
    let found: Vec<_> = reading.manifests.iter().map(|m| (m.resource.name(), m.origin.line)).collect();
    assert_eq!(found, [("a", 2), ("b", 9), ("c", 15)]);
    assert_eq!(reading.errors.len(), 1);
    assert!(reading.errors[0].to_string().starts_with("a.yaml:7: cannot be read"), "{}", reading.errors[0]);
}

#[test]
fn lists_and_json_are_read_too() {
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "cornjacket.io/v1alpha1", "kind": "Topic", "metadata": {"name": "a"}, "spec": {}},
        {"apiVersion": "cornjacket.io/v1alpha1", "kind": "Topic", "metadata": {"name": "b"}, "spec": {"partitions": 0}}
    ]}"#;
    let reading = read("a.json", list);
    assert_eq!(reading.manifests[0].origin.line, 2);
    assert!(
        reading.errors[0].to_string().starts_with("a.json:3: Topic/b: spec.partitions: 0 is less than"),
        "{:?}",
        reading.errors
    );
    let tabs = "{\n\t\"apiVersion\": \"cornjacket.io/v1alpha1\",\n\t\"kind\": \"Topic\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"spec\": {}\n}";
    assert_eq!(read("a.json", tabs).manifests.len(), 1);
}

#[test]
fn errors_name_the_line_the_field_and_the_way_out() {
    for (spec, expected) in [
        (
            "  source:\n    eventTypes: [a]\n  latest: {}\n  filer: x",
            "a.yaml:9: Projection/p: spec.filer: unknown field: did you mean 'filter'?",
        ),
        (
            "  source:\n    eventType: [a]\n  latest: {}",
            "a.yaml:7: Projection/p: spec.source.eventType: unknown field: did you mean 'eventTypes'?",
        ),
        (
            "  source:\n    eventTypes: [a]\n  latest: {depth: 1}",
            "a.yaml:8: Projection/p: spec.latest.depth: unknown field: it takes no settings",
        ),
        ("  latest: {}", "a.yaml:6: Projection/p: spec: source is missing"),
        (
            "  source:\n    eventTypes: []\n  latest: {}",
            "a.yaml:7: Projection/p: spec.source.eventTypes: [] has less than 1 item",
        ),
        (
            "  source:\n    eventTypes: [a]\n  latest: {}\n  startFrom: Newest",
            "a.yaml:9: Projection/p: spec.startFrom: \"Newest\" is not one of",
        ),
        (
            "  source:\n    eventTypes: [a]\n  latest: {}\n  retention: 7 days",
            "a.yaml:9: Projection/p: spec.retention: \"7 days\" does not match",
        ),
        (
            "  source:\n    eventTypes: [a]\n    prefixes: [b]\n  latest: {}",
            "a.yaml:7: Projection/p: spec.source: give exactly one of eventTypes and prefixes",
        ),
        (
            "  source:\n    eventTypes: [a]\n  latest: {}\n  merge: {}",
            "a.yaml:6: Projection/p: spec: give exactly one of latest, merge, fields and timeSeries",
        ),
        (
            "  source:\n    eventTypes: [a]\n  key: 1\n  latest: {}",
            "a.yaml:8: Projection/p: spec.key: 1 is not of type",
        ),
    ] {
        let found = errors(&projection(spec));
        assert!(found.iter().any(|e| e.starts_with(expected)), "{expected}\n{found:#?}");
    }
}

#[test]
fn foreign_and_nameless_documents_are_refused() {
    for (text, expected) in [
        ("kind: ConfigMap\napiVersion: v1", "a.yaml:1: kind: 'ConfigMap': use one of Topic, EventType"),
        (
            "kind: Projecton\napiVersion: cornjacket.io/v1alpha1",
            "a.yaml:1: kind: 'Projecton': did you mean Projection?",
        ),
        (
            "kind: Topic\napiVersion: cornjacket.io/v1",
            "a.yaml:2: Topic: apiVersion: 'cornjacket.io/v1': write apiVersion: cornjacket.io/v1alpha1",
        ),
        ("just text", "a.yaml:1: a manifest is an object"),
        ("apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nspec: {}", "a.yaml:1: Topic: metadata: is missing"),
        (
            "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata:\n  name: A_b\nspec: {}",
            "a.yaml:4: Topic/A_b: metadata.name: 'A_b' is no name",
        ),
        (
            "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata:\n  name: a\n  lables: {}\nspec: {}",
            "a.yaml:5: Topic/a: metadata.lables: unknown field: did you mean 'labels'?",
        ),
        ("kind: Topic\nkind: Topic", "a.yaml:2: cannot be read"),
    ] {
        let found = errors(text);
        assert!(found.iter().any(|e| e.starts_with(expected)), "{expected}\n{found:#?}");
    }
}

#[test]
fn explicit_nulls_are_as_absent_except_in_a_topics_config() {
    let text = "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {name: a}\nspec:\n  topicName: null\n  partitions: ~\n  config:\n    retention.ms: null\n    cleanup.policy: compact\n";
    let reading = read("a.yaml", text);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let Resource::Topic(topic) = &reading.manifests[0].resource else { panic!("a topic") };
    assert_eq!((topic.topic_name(), topic.spec.partitions()), ("a", 1));
    assert_eq!(topic.spec.managed_config(), [("cleanup.policy".to_owned(), "compact".to_owned())].into());
    assert_eq!(topic.spec.config.as_ref().expect("config").len(), 2);
}

#[test]
fn a_manifest_knows_where_its_fields_are() {
    let reading = read("a.yaml", &projection("  source:\n    eventTypes:\n    - a\n  fields:\n    count: '1'\n"));
    let manifest = &reading.manifests[0];
    assert_eq!(manifest.origin_of("/spec/fields/count").to_string(), "a.yaml:10");
    assert_eq!(manifest.origin_of("/spec/filter").line, 6);
}

#[test]
fn changes_are_held_to_the_rules_of_the_api_server() {
    let resource = |partitions: u8| {
        let text = format!(
            "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {{name: a}}\nspec: {{partitions: {partitions}}}\n"
        );
        read("a.yaml", &text).manifests.remove(0).resource
    };
    assert!(resource(2).follows(&resource(2)).is_ok());
    assert!(resource(1).follows(&resource(2)).expect_err("fewer").contains("cannot decrease"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    #[test]
    fn a_damaged_file_is_read_or_refused(at in 0_usize..2000, cut in 0_usize..40, put in "[ \\n:#&*|>!%@`{}\\[\\]a-z0-9\"'-]{0,12}") {
        let sample = include_str!("../../samples/event-types.yaml");
        let start = (0..=at.min(sample.len())).rev().find(|i| sample.is_char_boundary(*i)).unwrap_or(0);
        let end = (start + cut).min(sample.len());
        let damaged = format!("{}{put}{}", &sample[..start], &sample[end..]);
        let reading = read("a.yaml", &damaged);
        proptest::prop_assert!(reading.errors.iter().all(|error| error.origin.line <= damaged.lines().count().max(1)));
    }
}

fn secret(rest: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: hooks}}\n{rest}\n")
}

#[test]
fn a_secret_beside_resources_is_read_and_not_shown() {
    let text = secret("type: Opaque\ndata: {a: cGx1Z2g=, b: cGx1\x20Z2g=}\nstringData: {b: xyzzy, c.d_e-f: ''}");
    let reading = read("a.yaml", &text);
    assert_eq!(reading.errors, []);
    let found = &reading.secrets[0];
    assert_eq!((found.name.as_str(), found.namespace.as_str(), found.origin.line), ("hooks", "default", 1));
    let values = found.values.iter().map(|(key, value)| (key.as_str(), secrecy::ExposeSecret::expose_secret(value)));
    assert_eq!(values.collect::<Vec<_>>(), [("a", b"plugh".as_slice()), ("b", b"xyzzy"), ("c.d_e-f", b"")]);
    let shown = format!("{reading:?}");
    assert!(!shown.contains("xyzzy") && !shown.contains("cGx1Z2g"), "{shown}");
}

#[test]
fn what_is_wrong_with_a_secret_is_said_without_its_values() {
    for (text, expected) in [
        (secret("data: {a: xyzzy!}"), "a.yaml:4: data.a: its value is not base64: write plain text under stringData"),
        (secret("stringData: {a: 4711}"), "a.yaml:4: stringData.a: its value must be a text: put it in quotes"),
        (secret("stringData: [xyzzy]"), "a.yaml:4: stringData: must be an object of keys and values"),
        (secret("stringData: {a/b: xyzzy}"), "a.yaml:4: stringData.a/b: 'a/b' is no key"),
        (secret("stringdata: {a: xyzzy}"), "a.yaml:4: stringdata: unknown field: did you mean 'stringData'?"),
        (secret("spec: {a: xyzzy}"), "a.yaml:4: spec: unknown field: a Secret has apiVersion, kind"),
        (secret("data: {}").replace("v1", "v2"), "a.yaml:1: apiVersion: a Secret has apiVersion: v1"),
        (secret("data: {}").replace("hooks", "Hooks"), "a.yaml:3: metadata.name: 'Hooks' is no name"),
        (secret("data: {}").replace("Secret", "Secrets"), "a.yaml:2: kind: 'Secrets': did you mean Secret?"),
        (
            "apiVersion: cornjacket.io/v1alpha1\nkind: WebhookAction\nmetadata: {name: a}\nspec: {source: {prefixes: [a]}, url: 'https://u:xyzzy@example.com'}".to_owned(),
            "a.yaml:4: WebhookAction/a: spec.url: \"https://…@example.com\" does not match",
        ),
    ] {
        let errors = errors(&text);
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected}\n{errors:#?}");
        assert!(!errors.iter().any(|error| error.contains("xyzzy") || error.contains("4711")), "{errors:#?}");
    }
}
