//! Why a condition is as it is: the closed list of reasons, each with what it means and who gives it.

/// Declares the list once: the enum, its words, the sentences of the table and, as groups, what gives each.
macro_rules! reasons {
    ($($by:literal { $($(#[doc = $meaning:literal])+ $name:ident,)+ })+) => {
        /// Reason of a condition or of a Kubernetes Event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($($(#[doc = $meaning])+ $name,)+)+
        }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// The word in `reason`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$name => stringify!($name),)+)+
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $($(Self::$name => concat!($($meaning),+).trim_ascii(),)+)+
                }
            }

            /// Whose status has it.
            pub fn given_by(self) -> &'static str {
                match self {
                    $($(Self::$name => $by,)+)+
                }
            }
        }
    };
}

reasons! {
    "every kind" {
        /// All that the resource asks for is done, and the data plane runs this generation.
        Available,
        /// Nobody has looked at the resource yet.
        Pending,
        /// spec.reconciliation is Paused: nothing is looked at or written.
        Paused,
        /// spec.managementPolicy is Observe: differences are reported, nothing is written.
        Observing,
        /// The manifest breaks a rule of its kind; the message names the field.
        InvalidSpec,
        /// The file cannot be read as a resource; the message names the line.
        InvalidManifest,
        /// The resource is valid, but this release cannot run it; the message names what it cannot.
        NotServed,
        /// Another resource claims the same name, type, prefix or default; the oldest keeps it.
        Conflict,
        /// Every live instance runs this generation.
        Acknowledged,
        /// Some live instance does not run this generation yet.
        AwaitingInstances,
        /// No instance of the role is alive.
        NoInstances,
        /// An instance cannot load the registration; the message is its error.
        LoadFailed,
    }
    "EventType" {
        /// All versions of the schema are compiled and the examples are valid.
        Compiled,
        /// A version's schema is no valid JSON Schema 2020-12 or is too large; the message names the version.
        InvalidSchema,
        /// An example is not valid under the version in force.
        InvalidExample,
        /// Each version is to its predecessor what spec.compatibility asks for.
        Compatible,
        /// spec.compatibility is None: versions are not compared.
        NotCompared,
        /// A version breaks spec.compatibility or differs from its text as served; the old one stays served.
        Incompatible,
        /// The topic is known.
        TopicResolved,
        /// spec.topicRef names a Topic that does not exist or is not valid.
        TopicNotFound,
        /// No topicRef and no prefix gives a topic, and no Topic is the default.
        Unroutable,
    }
    "Topic, WebhookAction" {
        /// A transient error; it is tried again by itself.
        Retrying,
    }
    "Topic" {
        /// The broker answers.
        BrokerReachable,
        /// The broker does not answer; it is tried again.
        BrokerUnreachable,
        /// The bus is the event store itself: there is no broker.
        EmbeddedBus,
        /// The topic exists as described.
        TopicExists,
        /// The topic was made.
        TopicCreated,
        /// The topic does not exist.
        TopicMissing,
        /// The broker refused a value; the message names the key.
        ConfigRejected,
        /// What is described and what exists are the same.
        InSync,
        /// What exists differs from what is described; status.drift lists it.
        DriftDetected,
        /// Partitions cannot decrease, or an increase lacks allowRepartition.
        RepartitionRefused,
        /// The topic existed before and spec.adoptionPolicy does not allow to take it over; the message names the differences.
        AdoptionRefused,
        /// The configuration is as described.
        ConfigApplied,
        /// The broker cannot do this to an existing topic.
        UnsupportedByBroker,
    }
    "Topic, Projection, WebhookAction (an Event of the deleted resource)" {
        /// What belongs to the deleted resource could not be deleted in time and was left behind. Where its namespace goes too no Event can be made: the log has it.
        DeletionAbandoned,
    }
    "Projection, WebhookAction" {
        /// An expression does not compile; the message names the field and the place.
        InvalidExpression,
    }
    "Projection" {
        /// The projection has read all events.
        CaughtUp,
        /// The projection is reading stored events.
        CatchingUp,
        /// The projection stopped at an event that it cannot fold.
        Halted,
        /// Events that a projection was to read were gone from the event store: its rows are made of what was left; the message says from when on.
        HistoryTruncated,
        /// The work is under way.
        Progressing,
        /// All steps of the migration plan are applied.
        MigrationsApplied,
        /// A step of the migration plan failed; the message is the database's. It is tried again.
        MigrationFailed,
        /// The database answers.
        DatabaseReachable,
        /// The database does not answer; it is tried again.
        DatabaseUnreachable,
        /// The change loses data and waits for the annotation cornjacket.io/approve with the plan's hash; the message has the command and the steps.
        ApprovalRequired,
        /// Nothing waits for approval.
        NoApprovalNeeded,
        /// The change loses data and spec.migrationPolicy denies that; what was registered before stays served.
        DestructiveDenied,
    }
    "WebhookAction" {
        /// All secrets are there.
        SecretsFound,
        /// A Secret or its key does not exist; what was registered before stays.
        SecretNotFound,
        /// The value of a Secret cannot be what it is used for; the message names the Secret and its key, never the value.
        SecretInvalid,
        /// The controllers may not read a Secret; the message names the value of the chart that lets them.
        SecretForbidden,
        /// The controllers have no key to seal secrets with, which the data plane is to read.
        NoSecretsKey,
        /// The endpoint takes deliveries.
        EndpointAnswers,
        /// Nothing was delivered to the endpoint yet, so that nobody knows how it answers.
        NotTried,
        /// The endpoint failed too often in a row and is left alone for a while: deliveries wait; the message says how it failed.
        CircuitOpen,
        /// The endpoint answered 410: it gets nothing until somebody enables it by `cornjacket action enable`; deliveries wait.
        EndpointGone,
        /// Somebody switched deliveries off by `cornjacket action disable`; deliveries wait, and the message says why.
        EndpointDisabled,
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The table of all reasons, in Markdown.
pub fn table() -> String {
    use std::fmt::Write;
    let mut text = String::from("# Reasons\n\n| Reason | Given by | Meaning |\n|---|---|---|\n");
    for reason in Reason::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{reason}` | {} | {} |", reason.given_by(), reason.meaning());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_one_word_with_a_sentence() {
        for reason in Reason::ALL {
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_alphanumeric()), "{reason}");
            assert!(reason.meaning().ends_with('.'), "{reason}: {}", reason.meaning());
        }
    }
}
