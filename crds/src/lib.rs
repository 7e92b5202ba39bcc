//! What people may ask for, and the compiled form of it that the data plane runs. No client, no runtime.

//! In: what someone wrote, as Kubernetes objects or as manifests. Out: the four kinds as types ([`topic`],
//! [`event_type`], [`projection`], [`webhook_action`]), the compiled forms ([`registration`]), and how values of Secrets are kept
//! for them ([`secret`]). Nothing here reads a clock, a network or a database.

pub mod backoff;
pub mod cause;
pub mod condition;
pub mod definition;
mod duration;
pub mod event_type;
pub mod language;
pub mod manifest;
pub mod projection;
pub mod reason;
pub mod registration;
pub mod role;
pub mod routing;
pub mod secret;
pub mod shared;
pub mod topic;
pub mod webhook_action;

pub use event_type::EventType;
pub use projection::Projection;
pub use topic::Topic;
pub use webhook_action::WebhookAction;

/// The known word that is meant by a misspelt one, where one is close enough.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
