//! What to write, from what is wanted and what is registered. Pure.
//!
//! A refused resource keeps what was registered for it, as long as nobody else has claimed the name it serves; what
//! is no longer declared is removed.

use std::collections::{BTreeMap, BTreeSet};

use crds::registration::{Compiled, Kind, ResourceKey};

use crate::resolve::{Form, Outcome, Resolution};

/// A row of `registration`, tombstones included.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    pub generation: i64,
    pub hash: String,
    /// `None` where this release cannot read it.
    pub spec: Option<Compiled>,
    /// False for a tombstone.
    pub active: bool,
}

/// All registrations of a namespace.
pub type Registrations = BTreeMap<ResourceKey, Registered>;

/// One thing to do about a registration.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write it, new or changed.
    Register { key: ResourceKey, generation: i64, form: Form },
    /// Leave it as it is.
    Keep { key: ResourceKey },
    /// Make it a tombstone.
    Remove { key: ResourceKey },
}

impl Step {
    /// Whether it writes something.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Keep { .. })
    }
}

/// What the data plane should run for a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub generation: i64,
    pub hash: String,
}

/// The name that a compiled resource answers to: no two of a kind may share it. An action has none.
pub fn claim(spec: &Compiled) -> Option<(Kind, &str)> {
    Some(match spec {
        Compiled::EventType(spec) => (Kind::EventType, &spec.event_type),
        Compiled::Topic(spec) => (Kind::Topic, &spec.topic_name),
        Compiled::Projection(spec) => (Kind::Projection, &spec.projection_type),
        Compiled::WebhookAction(_) => return None,
    })
}

/// The steps from what is registered to what is wanted, in the order in which they are to be done.
pub fn plan(resolutions: &[Resolution], registered: &Registrations) -> Vec<Step> {
    let claimed: BTreeSet<(Kind, &str)> =
        resolutions.iter().filter_map(|r| r.outcome.to_run()).filter_map(|form| claim(form)).collect();
    let mut steps = Vec::new();
    for resolution in resolutions {
        let before = registered.get(&resolution.key).filter(|r| r.active);
        match (resolution.outcome.to_run(), before) {
            (Some(form), before) => steps.push(register_or_keep(resolution, form, before)),
            (None, Some(before)) => {
                let taken = before.spec.as_ref().and_then(claim).is_some_and(|claim| claimed.contains(&claim));
                let key = resolution.key.clone();
                steps.push(if taken { Step::Remove { key } } else { Step::Keep { key } });
            }
            (None, None) => {}
        }
    }
    let declared: BTreeSet<&ResourceKey> = resolutions.iter().map(|r| &r.key).collect();
    let gone = registered.iter().filter(|(key, r)| r.active && !declared.contains(key));
    steps.extend(gone.map(|(key, _)| Step::Remove { key: key.clone() }));
    steps
}

fn register_or_keep(resolution: &Resolution, form: &Form, before: Option<&Registered>) -> Step {
    let (key, generation) = (resolution.key.clone(), resolution.generation);
    match before {
        Some(before) if before.hash == form.digest() && before.generation == generation => Step::Keep { key },
        _ => Step::Register { key, generation, form: form.clone() },
    }
}

/// What runs once the steps are done.
pub fn served(steps: &[Step], registered: &Registrations) -> BTreeMap<ResourceKey, Served> {
    let mut served = BTreeMap::new();
    for step in steps {
        match step {
            Step::Register { key, generation, form } => {
                served.insert(key.clone(), Served { generation: *generation, hash: form.digest().to_owned() });
            }
            Step::Keep { key } => {
                if let Some(row) = registered.get(key) {
                    served.insert(key.clone(), Served { generation: row.generation, hash: row.hash.clone() });
                }
            }
            Step::Remove { .. } => {}
        }
    }
    served
}

impl Outcome {
    /// What is to be registered, if anything is.
    pub fn to_run(&self) -> Option<&Form> {
        match self {
            Self::Run(form) => Some(form),
            Self::Refused(_) | Self::Held(_) | Self::LeftAlone(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::reason::Reason;

    use super::*;
    use crate::resolve::Failure;
    use crate::testing::{key, topic};

    fn resolution(name: &str, generation: i64, outcome: Outcome) -> Resolution {
        Resolution {
            key: key(Kind::Topic, name),
            generation,
            origin: "t.yaml:1".into(),
            outcome,
            manages: true,
            findings: Vec::new(),
        }
    }

    fn run(topic_name: &str) -> Outcome {
        Outcome::Run(Compiled::Topic(topic(topic_name)).into())
    }

    fn refused() -> Outcome {
        Outcome::Refused(Failure::new(Reason::InvalidSpec, "broken"))
    }

    fn rows(rows: &[(&str, i64, &str, bool)]) -> Registrations {
        let row = |(name, generation, topic_name, active): &(&str, i64, &str, bool)| {
            let spec = Compiled::Topic(topic(topic_name));
            let row = Registered { generation: *generation, hash: spec.hash(), spec: Some(spec), active: *active };
            (key(Kind::Topic, name), row)
        };
        rows.iter().map(row).collect()
    }

    fn words(steps: &[Step]) -> Vec<String> {
        let word = |step: &Step| match step {
            Step::Register { key, generation, .. } => format!("register {} {generation}", key.name),
            Step::Keep { key } => format!("keep {}", key.name),
            Step::Remove { key } => format!("remove {}", key.name),
        };
        steps.iter().map(word).collect()
    }

    #[test]
    fn only_what_differs_is_written() {
        let registered = rows(&[("same", 1, "same", true), ("edited", 1, "before", true), ("gone", 4, "gone", true)]);
        let wanted = [
            resolution("same", 1, run("same")),
            resolution("edited", 2, run("edited")),
            resolution("new", 1, run("n")),
        ];
        let steps = plan(&wanted, &registered);
        assert_eq!(words(&steps), ["keep same", "register edited 2", "register new 1", "remove gone"]);
        assert_eq!(served(&steps, &registered).len(), 3);
    }

    #[test]
    fn a_broken_edit_keeps_the_last_good_version() {
        let registered = rows(&[("a", 3, "a", true)]);
        let steps = plan(&[resolution("a", 4, refused())], &registered);
        assert_eq!(words(&steps), ["keep a"]);
        assert_eq!(served(&steps, &registered)[&key(Kind::Topic, "a")].generation, 3);
    }

    #[test]
    fn a_last_good_version_gives_way_to_whoever_holds_its_name_now() {
        let registered = rows(&[("b", 1, "shared", true)]);
        let steps = plan(&[resolution("a", 1, run("shared")), resolution("b", 1, refused())], &registered);
        assert_eq!(words(&steps), ["register a 1", "remove b"]);
    }

    #[test]
    fn a_tombstone_is_no_last_good_version_and_is_not_removed_again() {
        let registered = rows(&[("a", 3, "a", false), ("b", 1, "b", false)]);
        assert_eq!(words(&plan(&[resolution("a", 4, refused())], &registered)), [""; 0]);
        assert_eq!(words(&plan(&[resolution("a", 4, run("a"))], &registered)), ["register a 4"]);
    }
}
