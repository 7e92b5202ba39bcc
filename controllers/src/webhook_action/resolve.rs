//! What is wrong with a WebhookAction; at least that this release does not deliver. Pure.

use crds::WebhookAction;
use crds::language::expression::Scope;
use crds::reason::Reason;

use crate::projection::resolve::check;
use crate::resolve::Failure;

/// The first thing that keeps the action from running.
pub fn refuse(resource: &WebhookAction) -> Failure {
    let spec = &resource.spec;
    let key = spec.deduplication.as_ref().and_then(|d| d.key.as_ref());
    let expressions =
        [("spec.when", spec.when.as_ref()), ("spec.body", spec.body.as_ref()), ("spec.deduplication.key", key)];
    for (place, text) in expressions {
        if let Some(Err(failure)) = text.map(|text| check(place, text, Scope::Event)) {
            return failure;
        }
    }
    Failure::new(
        Reason::NotServed,
        "the action is valid, but this release does not deliver webhooks: remove it until a release that does",
    )
}
