use std::sync::Arc;

use crds::manifest::{self, Resource};
use crds::registration::Compiled;
use crds::secret::{PlatformKey, SecretSlice};
use serde_json::{Value, json};

use super::super::secrets::{Found, State};
use super::*;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn action(spec: &str) -> crds::WebhookAction {
    let text = format!("apiVersion: cornjacket.io/v1alpha1\nkind: WebhookAction\nmetadata: {{name: a}}\nspec: {spec}");
    let mut reading = manifest::read("a.yaml", &text);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    match reading.manifests.remove(0).resource {
        Resource::WebhookAction(action) => *action,
        other => panic!("{other:?}"),
    }
}

fn present(values: &[(&str, &str)]) -> State {
    let value = |(key, value): &(&str, &str)| ((*key).to_owned(), SecretSlice::from(value.as_bytes().to_vec()));
    State::Present { version: "1".into(), values: values.iter().map(value).collect() }
}

fn secrets(state: State) -> Secrets {
    let key = Some(Arc::new(PlatformKey::new(&[1; 32])));
    Secrets::new(key, Arc::new(Found::from([("hooks".to_owned(), state)])))
}

fn compiled(spec: &str, secrets: &Secrets) -> Result<(Value, Vec<Finding>), Failure> {
    let mut findings = Vec::new();
    let spec = compile(&action(spec), secrets, &mut findings)?;
    Ok((serde_json::to_value(Compiled::WebhookAction(Box::new(spec))).expect("it serialises"), findings))
}

fn refused(spec: &str, secrets: &Secrets) -> Failure {
    compiled(spec, secrets).expect_err("refused")
}

const SIGNED: &str = "{source: {prefixes: [a.]}, url: 'https://example.com/', \
    headers: [{name: Authorization, secretRef: {name: hooks, key: token}}], signing: {secretRefs: [{name: hooks, key: signing}]}}";

#[test]
fn what_is_not_said_is_the_default_and_in_the_compiled_form() {
    let (spec, findings) =
        compiled("{source: {eventTypes: [a]}, url: 'https://example.com/'}", &Secrets::default()).expect("compiles");
    let expected = json!({
        "kind": "WebhookAction",
        "source": {"eventTypes": ["a"]},
        "url": "https://example.com/",
        "timeoutMs": 30_000,
        "retry": {"maxAttempts": 5, "backoffMs": [1000, 2000, 4000, 8000, 16_000], "jitter": "Equal"},
        "rateLimit": {"deliveries": 10, "perMs": 60_000, "maxWaiting": 10_000, "maxWaitMs": 86_400_000},
        "deduplication": {"windowMs": 300_000},
        "circuitBreaker": {"failures": 5, "cooldownMs": 300_000},
        "ordering": "None",
    });
    assert_eq!((spec, findings.len()), (expected, 0));
}

#[test]
fn what_is_said_is_in_the_compiled_form_and_comes_back_from_it() {
    let spec = "{source: {prefixes: [a.]}, when: 'event.payload.hot', url: 'https://example.com/', body: 'event.payload', \
        headers: [{name: X-A, value: b}], timeout: 1s500ms, retry: {maxAttempts: 2, backoff: [3s], jitter: Full}, \
        rateLimit: {deliveries: 7, per: 1s, maxWaiting: 8, maxWait: 1h}, deduplication: {window: 1m, key: event.event_id}, \
        circuitBreaker: {failures: 3, cooldown: 2s}, ordering: PerAggregate}";
    let (spec, _) = compiled(spec, &Secrets::default()).expect("compiles");
    let expected = json!({
        "kind": "WebhookAction",
        "source": {"prefixes": ["a."]},
        "when": "event.payload.hot",
        "url": "https://example.com/",
        "headers": [{"name": "X-A", "value": "b"}],
        "body": "event.payload",
        "timeoutMs": 1500,
        "retry": {"maxAttempts": 2, "backoffMs": [3000], "jitter": "Full"},
        "rateLimit": {"deliveries": 7, "perMs": 1000, "maxWaiting": 8, "maxWaitMs": 3_600_000},
        "deduplication": {"windowMs": 60_000, "key": "event.event_id"},
        "circuitBreaker": {"failures": 3, "cooldownMs": 2000},
        "ordering": "PerAggregate",
    });
    assert_eq!(spec, expected);
    let back: Compiled = serde_json::from_value(spec.clone()).expect("reads");
    assert_eq!(serde_json::to_value(back).expect("serialises"), spec);
}

#[test]
fn the_hash_changes_with_a_value_and_the_value_is_not_in_it() {
    let of =
        |token: &str| compiled(SIGNED, &secrets(present(&[("token", token), ("signing", KEY)]))).expect("compiles");
    let (first, findings) = of("Bearer xyzzy");
    let (second, _) = of("Bearer plugh");
    assert_eq!(first, of("Bearer xyzzy").0);
    assert_ne!(first, second);
    assert_eq!(first["signing"], second["signing"]);
    assert_eq!(first["headers"][0]["secret"]["name"], "hooks");
    let shown = first.to_string();
    assert!(!shown.contains("xyzzy") && !shown.contains("MfKQ"), "{shown}");
    let said: Vec<_> = findings.iter().map(|f| (f.condition, f.reason)).collect();
    assert_eq!(said, [(ConditionType::SecretResolved, Reason::SecretsFound)]);
    assert!(findings[0].message.starts_with("2 value(s)"), "{}", findings[0].message);
    let back: Compiled = serde_json::from_value(first.clone()).expect("reads");
    assert_eq!(serde_json::to_value(back).expect("serialises"), first);
}

#[test]
fn each_expression_is_checked_and_its_field_named() {
    for (field, expected) in [
        ("when: evnt.payload.x", "spec.when: unknown name 'evnt'"),
        ("body: state.x", "spec.body: unknown name 'state'"),
        ("deduplication: {key: event.event_ids}", "spec.deduplication.key: event has no field 'event_ids'"),
    ] {
        let spec = format!("{{source: {{prefixes: [a]}}, url: 'https://example.com/', {field}}}");
        let failure = refused(&spec, &Secrets::default());
        assert_eq!((failure.reason, failure.condition), (Reason::InvalidExpression, None));
        assert!(failure.message.starts_with(expected), "{}", failure.message);
    }
}

#[test]
fn what_is_wrong_with_a_secret_is_said_by_name_and_key() {
    let good = [("token", "Bearer xyzzy"), ("signing", KEY)];
    let with = |key: &str, value: &str| {
        secrets(present(&good.map(|(name, fit)| (name, if name == key { value } else { fit }))))
    };
    for (secrets, reason, expected) in [
        (
            Secrets::new(None, Arc::default()),
            Reason::NoSecretsKey,
            "spec.headers[0].secretRef: the controllers have no key to seal the Secret 'hooks' under",
        ),
        (
            secrets(State::Absent),
            Reason::SecretNotFound,
            "spec.headers[0].secretRef: there is no Secret 'hooks' in the namespace 'default'",
        ),
        (
            secrets(present(&good[..1])),
            Reason::SecretNotFound,
            "spec.signing.secretRefs[0]: the Secret 'hooks' has no key 'signing'",
        ),
        (
            secrets(State::Forbidden),
            Reason::SecretForbidden,
            "spec.headers[0].secretRef: the controllers may not read the Secret 'hooks': add it to webhooks.secretNames",
        ),
        (
            secrets(State::Away("no answer".into())),
            Reason::Retrying,
            "spec.headers[0].secretRef: the Secret 'hooks' cannot be read: no answer",
        ),
        (
            with("token", "Bearer plugh\n"),
            Reason::SecretInvalid,
            "spec.headers[0].secretRef: key 'token' of the Secret 'hooks' cannot be used: it ends with a line break",
        ),
        (
            with("signing", "plugh"),
            Reason::SecretInvalid,
            "spec.signing.secretRefs[0]: key 'signing' of the Secret 'hooks' cannot be used: it has 5 bytes",
        ),
        (
            with("signing", "whsec_plugh"),
            Reason::SecretInvalid,
            "spec.signing.secretRefs[0]: key 'signing' of the Secret 'hooks' cannot be used: what follows whsec_",
        ),
    ] {
        let failure = refused(SIGNED, &secrets);
        assert_eq!((failure.reason, failure.condition), (reason, Some(ConditionType::SecretResolved)), "{failure:?}");
        assert!(failure.message.starts_with(expected), "{}", failure.message);
        assert!(!failure.message.contains("plugh") && !failure.message.contains("Bearer"), "{}", failure.message);
    }
}

#[test]
fn a_secret_that_may_be_elsewhere_keeps_nothing_from_compiling() {
    let (spec, _) = compiled(SIGNED, &Secrets::of_manifests([])).expect("compiles");
    assert_eq!(spec["signing"][0]["digest"], "");
}

#[test]
fn references_are_those_of_actions_that_are_looked_at() {
    use crate::resource::Declared;
    use crate::testing::key;
    let declared = |name: &str, spec: &str| Declared {
        key: key(crds::registration::Kind::WebhookAction, name),
        generation: 1,
        created: None,
        origin: String::new(),
        resource: Ok(Resource::WebhookAction(Box::new(action(spec)))),
    };
    let paused = SIGNED.replace("hooks", "other").replace("{source", "{reconciliation: Paused, source");
    let set = [declared("a", SIGNED), declared("b", &SIGNED.replace("token", "more")), declared("c", &paused)];
    let found = super::super::secrets::references(&set);
    let found: Vec<(&str, Vec<&str>)> =
        found.iter().map(|(name, keys)| (name.as_str(), keys.iter().map(String::as_str).collect())).collect();
    assert_eq!(found, [("hooks", vec!["more", "signing", "token"])]);
}

#[test]
fn a_name_that_leads_elsewhere_is_refused_and_never_asked_for() {
    let mut action = action(SIGNED);
    let signing = action.spec.signing.as_mut().expect("signed");
    signing.secret_refs[0].name = "../../other/secrets/hooks".to_owned();
    let known = secrets(present(&[("token", "a"), ("signing", KEY)]));
    let failure = compile(&action, &known, &mut Vec::new()).expect_err("refused");
    assert_eq!((failure.reason, failure.condition), (Reason::InvalidSpec, Some(ConditionType::SecretResolved)));
    assert!(
        failure.message.starts_with("spec.signing.secretRefs[0]: \"../../other/secrets/hooks\" is no name"),
        "{failure:?}"
    );
    let declared = crate::resource::Declared {
        key: crate::testing::key(crds::registration::Kind::WebhookAction, "a"),
        generation: 1,
        created: None,
        origin: String::new(),
        resource: Ok(Resource::WebhookAction(Box::new(action))),
    };
    let found = super::super::secrets::references(&[declared]);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["hooks"]);
}
