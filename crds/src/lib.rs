//! What people may ask for, and the compiled form of it that the data plane runs. No client, no runtime.
//!

//! In: what someone wrote, as Kubernetes objects or as manifests. Out: the four kinds as types ([`topic`],
//! [`event_type`], [`projection`], [`webhook_action`]), and the compiled forms ([`registration`]). Nothing here reads
//! a clock, a network or a database.

pub mod condition;
pub mod event_type;
pub mod projection;
pub mod reason;
pub mod registration;
pub mod role;
pub mod routing;
pub mod shared;
pub mod topic;
pub mod webhook_action;

pub use event_type::EventType;
pub use projection::Projection;
pub use topic::Topic;
pub use webhook_action::WebhookAction;
