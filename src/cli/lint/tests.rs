use super::*;

const HEAD: &str = "apiVersion: cornjacket.io/v1alpha1";

fn found(text: &str) -> Vec<String> {
    lint(&[("a.yaml".to_owned(), text.to_owned())]).findings.iter().map(ToString::to_string).collect()
}

fn event_type(name: &str, spec: &str) -> String {
    format!("---\n{HEAD}\nkind: EventType\nmetadata:\n  name: {name}\nspec:\n{spec}\n")
}

fn topic(name: &str, spec: &str) -> String {
    format!("---\n{HEAD}\nkind: Topic\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn the_samples_have_no_findings() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/samples");
    let read = |file: PathBuf| (file.display().to_string(), std::fs::read_to_string(file).expect("a sample"));
    let files: Vec<_> = manifest::files(&folder).expect("the samples").into_iter().map(read).collect();
    let report = lint(&files);
    assert_eq!((report.findings, report.resources), (Vec::new(), 11));
}

#[test]
fn the_examples_of_the_page_on_webhooks_have_no_findings() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webhooks.md");
    let text = std::fs::read_to_string(page).expect("the page");
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let report = lint(&[("page.yaml".to_owned(), blocks.join("---\n"))]);
    assert_eq!((report.findings, report.resources, blocks.len()), (Vec::new(), 1, 2));
}

#[test]
fn a_webhook_is_checked_with_the_secrets_beside_it_and_others_may_be_in_a_cluster() {
    let secret = |name: &str, values: &str| {
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {values}\n")
    };
    let action = format!(
        "---\n{HEAD}\nkind: WebhookAction\nmetadata: {{name: w}}\nspec:\n  source: {{prefixes: [a]}}\n  url: https://example.com/\n  \
         signing: {{secretRefs: [{{name: hooks, key: signing}}]}}\n"
    );
    assert_eq!(found(&(action.clone() + &secret("other", "{}"))), Vec::<String>::new());
    for (secrets, expected) in [
        (
            secret("hooks", "{a: b}"),
            "a.yaml:8: error: WebhookAction/w: spec.signing.secretRefs[0]: the Secret 'hooks' has no key 'signing'",
        ),
        (
            secret("hooks", "{signing: xyzzy}"),
            "a.yaml:8: error: WebhookAction/w: spec.signing.secretRefs[0]: key 'signing' of the Secret 'hooks' cannot be used: it has 5 bytes",
        ),
        (secret("a", "{}") + &secret("a", "{}"), "a.yaml:15: error: Secret/a: is declared at a.yaml:10 already"),
        (secret("hooks", "{a: 1}"), "a.yaml:13: error: stringData.a: its value must be a text"),
    ] {
        let found = found(&(action.clone() + &secrets));
        assert!(found.iter().any(|finding| finding.starts_with(expected)), "{expected}\n{found:#?}");
        assert!(!found.iter().any(|finding| finding.contains("xyzzy")), "{found:#?}");
    }
}

#[test]
fn each_kind_of_mistake_is_named_with_its_line() {
    let rest = topic("rest", "{default: true}");
    let schema = "  versions:\n  - version: 1\n    schema: {type: object, required: [value]}\n  examples:\n  - value: 1\n  - other: 1";
    let projection = |fold: &str| {
        format!("---\n{HEAD}\nkind: Projection\nmetadata: {{name: p}}\nspec:\n  source: {{eventTypes: [a]}}\n{fold}\n")
    };
    for (text, line, expected) in [
        (topic("a", "{partition: 1}"), 5, "Topic/a: spec.partition: unknown field: did you mean 'partitions'?"),
        (event_type("a", "  description: no topic"), 2, "EventType/a: no Topic has a prefix"),
        (rest.clone() + &event_type("a", "  topicRef: {name: none}"), 12, "EventType/a: spec.topicRef names"),
        (rest.clone() + &event_type("a", schema), 17, "EventType/a: spec.examples[1] is not valid"),
        (
            rest.clone() + &event_type("a", "  versions:\n  - version: 1\n    schema: {type: objekt}"),
            14,
            "EventType/a: spec.versions[0].schema",
        ),
        (rest.clone() + &event_type("a", "  {}") + &event_type("b", "  type: a"), 14, "EventType/b: 'a' is claimed by"),
        (rest.clone() + &topic("other", "{default: true}"), 2, "Topic/rest: to be the default topic is claimed"),
        (topic("a", "{prefixes: [x.]}") + &topic("b", "{prefixes: [x.]}"), 7, "Topic/b: the prefix 'x.' is claimed"),
        (topic("a", "{}") + &topic("a", "{}"), 7, "Topic/a: is declared at a.yaml:2 already"),
        (
            projection("  latest: {}\n  filter: evnt.payload.x == 1"),
            8,
            "Projection/p: spec.filter: unknown name 'evnt'",
        ),
        (projection("  fields:\n    a: '1'\n    b: state.a +"), 9, "Projection/p: spec.fields.b: syntax error"),
    ] {
        let found = found(&text);
        let expected = format!("a.yaml:{line}: error: {expected}");
        assert!(found.iter().any(|finding| finding.starts_with(&expected)), "{expected}\n{found:#?}");
    }
}

#[test]
fn a_source_that_nothing_goes_into_is_a_warning() {
    let projection = |source: &str| {
        format!("---\n{HEAD}\nkind: Projection\nmetadata: {{name: p}}\nspec:\n  source: {source}\n  latest: {{}}\n")
    };
    let set =
        topic("rest", "{default: true}") + &topic("t", "{prefixes: [user.]}") + &event_type("door.opened", "  {}");
    for good in ["{eventTypes: [door.opened, user.login]}", "{prefixes: [door.]}", "{prefixes: [user]}"] {
        assert_eq!(found(&(set.clone() + &projection(good))), Vec::<String>::new(), "{good}");
    }
    for (bad, named) in [
        (
            "{eventTypes: [door.opened, door.opend]}",
            "warning: Projection/p: spec.source.eventTypes[1]: no EventType 'door.opend'",
        ),
        (
            "{prefixes: [dor.]}",
            "warning: Projection/p: spec.source.prefixes[0]: no EventType among the manifests begins with 'dor.'",
        ),
    ] {
        let report = lint(&[("a.yaml".to_owned(), set.clone() + &projection(bad))]);
        assert_eq!((report.errors, report.warnings), (0, 1), "{bad}");
        assert!(report.findings[0].to_string().contains(named), "{}", report.findings[0]);
    }
}
