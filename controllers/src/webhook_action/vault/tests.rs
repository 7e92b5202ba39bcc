use std::slice::from_ref;
use std::sync::Arc;

use crds::registration::{HeaderValue, Kind};
use crds::secret::{PlatformKey, SecretSlice};

use super::super::secrets::{Found, State};
use super::*;
use crate::plan::Registered;
use crate::testing::{action, key};

const NAMESPACE: &str = "default";

fn platform() -> PlatformKey {
    PlatformKey::new(&[1; 32])
}

fn place(key: &str) -> Place<'_> {
    Place { namespace: NAMESPACE, name: "hooks", key }
}

fn version(key: &str, value: &str) -> SecretVersion {
    let digest = platform().digest(place(key), value.as_bytes());
    SecretVersion { name: "hooks".into(), key: key.into(), digest }
}

fn secrets(values: &[(&str, &str)]) -> Secrets {
    let value = |(key, value): &(&str, &str)| ((*key).to_owned(), SecretSlice::from(value.as_bytes().to_vec()));
    let state = State::Present { version: String::new(), values: values.iter().map(value).collect() };
    Secrets::new(Some(Arc::new(platform())), Arc::new(Found::from([("hooks".to_owned(), state)])))
}

fn spec(versions: &[SecretVersion]) -> Compiled {
    let header = |version: &SecretVersion| crds::registration::Header {
        name: "x".into(),
        value: HeaderValue::Secret(version.clone()),
    };
    let headers = versions.iter().map(header).collect();
    Compiled::WebhookAction(Box::new(crds::registration::WebhookAction { headers, ..action() }))
}

fn register(name: &str, versions: &[SecretVersion]) -> Step {
    Step::Register { key: key(Kind::WebhookAction, name), generation: 1, form: spec(versions).into() }
}

fn registered(name: &str, spec: Option<Compiled>) -> Registrations {
    let row = Registered { generation: 1, hash: String::new(), spec, active: true };
    Registrations::from([(key(Kind::WebhookAction, name), row)])
}

fn planned(steps: &[Step], registered: &Registrations, stored: &[SecretVersion], secrets: &Secrets) -> Vec<Change> {
    plan(steps, registered, &stored.iter().cloned().collect(), NAMESPACE, secrets, || [5; NONCE_BYTES])
}

#[test]
fn a_value_is_sealed_once_and_opens_at_its_place() {
    let (a, steps) = (version("a", "xyzzy"), [register("one", &[version("a", "xyzzy")])]);
    let changes = planned(&steps, &Registrations::new(), &[], &secrets(&[("a", "xyzzy")]));
    let [Change::Keep { version, sealed, key_id }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(version, &a);
    let opened = platform().open(key_id, place("a"), sealed).expect("it opens");
    assert_eq!(opened.expose_secret(), b"xyzzy");
    assert_eq!(planned(&steps, &Registrations::new(), &[a], &secrets(&[("a", "xyzzy")])), []);
}

#[test]
fn a_rotated_value_takes_the_place_of_the_old_one_only_where_nothing_needs_that() {
    let (old, new) = (version("a", "old"), version("a", "new"));
    let now = secrets(&[("a", "new")]);
    let first = planned(&[register("one", from_ref(&new))], &Registrations::new(), from_ref(&old), &now);
    assert!(
        matches!(first.as_slice(), [Change::Keep { version, .. }, Change::Delete { version: gone }] if *version == new && *gone == old),
        "{first:?}"
    );
    // Another action is refused for a reason of its own, and runs on with the old one.
    let last_good = registered("two", Some(spec(from_ref(&old))));
    let steps = [register("one", from_ref(&new)), Step::Keep { key: key(Kind::WebhookAction, "two") }];
    assert_eq!(planned(&steps, &last_good, &[old, new], &now), []);
}

#[test]
fn what_is_referred_to_no_more_is_deleted_and_what_a_last_good_version_needs_is_not() {
    let a = version("a", "xyzzy");
    let last_good = registered("one", Some(spec(from_ref(&a))));
    let one = || key(Kind::WebhookAction, "one");
    let gone = secrets(&[]);
    assert_eq!(planned(&[Step::Keep { key: one() }], &last_good, from_ref(&a), &gone), []);
    let removed = planned(&[Step::Remove { key: one() }], &last_good, from_ref(&a), &gone);
    assert_eq!(removed, [Change::Delete { version: a.clone() }]);
    assert_eq!(planned(&[register("one", &[])], &last_good, from_ref(&a), &gone), [Change::Delete { version: a }]);
}

#[test]
fn nothing_is_deleted_while_a_registration_cannot_be_read() {
    let a = version("a", "xyzzy");
    let steps = [Step::Keep { key: key(Kind::WebhookAction, "newer") }];
    assert_eq!(planned(&steps, &registered("newer", None), &[a], &secrets(&[])), []);
}
