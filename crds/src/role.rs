//! The data-plane roles, and which of them must run a resource before it counts as ready.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::registration::Kind;

/// What an instance does. One process may have several roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Ingest,
    Relay,
    Handle,
    Query,
    Act,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Relay, Self::Handle, Self::Query, Self::Act];

    /// The word for it in the command line and in the tables `instance` and `registration_ack`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Relay => "relay",
            Self::Handle => "handle",
            Self::Query => "query",
            Self::Act => "act",
        }
    }

    /// The role of that name, if there is one.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Kind {
    /// The roles whose every live instance must acknowledge a resource of this kind.
    pub fn acknowledged_by(self) -> &'static [Role] {
        match self {
            Self::EventType => &[Role::Ingest, Role::Relay],
            Self::Topic => &[Role::Relay],
            Self::Projection => &[Role::Handle, Role::Query],
            Self::WebhookAction => &[Role::Act],
        }
    }
}
