//! Whether a plan that loses data may go on. Pure.

use crds::condition::{ConditionType, Finding};
use crds::projection::Destructive;
use crds::reason::Reason;
use crds::registration::ResourceKey;
use crds::shared::APPROVE;

use super::{Class, Plan, Step};
use crate::resolve::{Failure, Outcome};

/// A generation that is not registered until somebody approves what it loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub plan_hash: String,
    /// The way on, and the steps.
    pub message: String,
}

/// What keeps a resource with this plan from being registered. `approved` is the value of the annotation.
pub fn held(
    key: &ResourceKey,
    generation: i64,
    plan: &Plan,
    policy: Destructive,
    approved: Option<&str>,
) -> Option<Outcome> {
    if !plan.is_destructive() {
        return None;
    }
    let hash = plan.hash();
    match policy {
        Destructive::Allow => None,
        Destructive::RequireApproval if approved.map(str::trim) == Some(hash.as_str()) => None,
        Destructive::RequireApproval => {
            let message = request(key, generation, plan, &hash, approved);
            Some(Outcome::Held(Held { plan_hash: hash, message }))
        }
        Destructive::Deny => Some(Outcome::Refused(denied(generation, plan))),
    }
}

impl Held {
    pub fn finding(&self) -> Finding {
        Finding::new(ConditionType::ApprovalRequired, true, Reason::ApprovalRequired, self.message.clone())
    }
}

/// The command comes before the steps: a long message is cut at its end.
fn request(key: &ResourceKey, generation: i64, plan: &Plan, hash: &str, approved: Option<&str>) -> String {
    let other = if approved.is_some() { " (the annotation approves another plan)" } else { "" };
    format!(
        "generation {generation} loses data and waits for an approval{other}: kubectl annotate projection/{} -n {} \
         {APPROVE}={hash} --overwrite; in a directory of manifests, write that under metadata.annotations. Steps: {}",
        key.name,
        key.namespace,
        steps(plan)
    )
}

fn denied(generation: i64, plan: &Plan) -> Failure {
    let message = format!(
        "generation {generation} loses data and spec.migrationPolicy.destructive is Deny: change it to RequireApproval, or \
         take the change back. Steps: {}",
        steps(plan)
    );
    Failure::new(Reason::DestructiveDenied, message).of(ConditionType::ApprovalRequired)
}

/// What loses data first.
fn steps(plan: &Plan) -> String {
    let of = |class: Class| plan.steps.iter().filter(move |step| step.class == class);
    let word = |step: &Step| format!("[{}] {}: {}", step.class.as_str(), step.purpose, step.statement);
    of(Class::Destructive).chain(of(Class::Additive)).map(word).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use crds::registration::Kind;

    use super::super::Way;
    use super::*;
    use crate::testing::key;

    fn step(class: Class, purpose: &str) -> Step {
        let (name, statement) = (purpose.to_owned(), "SELECT 1".to_owned());
        Step { name, statement, class, way: Way::Registration, purpose: purpose.to_owned() }
    }

    fn plan(steps: Vec<Step>) -> Plan {
        Plan { projection_type: "p".to_owned(), steps }
    }

    fn destructive() -> Plan {
        plan(vec![step(Class::Additive, "build"), step(Class::Destructive, "delete")])
    }

    fn of(plan: &Plan, policy: Destructive, approved: Option<&str>) -> Option<Outcome> {
        held(&key(Kind::Projection, "p"), 4, plan, policy, approved)
    }

    #[test]
    fn what_loses_nothing_goes_on_under_every_policy() {
        let additive = plan(vec![step(Class::Additive, "build")]);
        for policy in [Destructive::Deny, Destructive::RequireApproval, Destructive::Allow] {
            assert_eq!(of(&additive, policy, None), None);
        }
        assert_eq!(of(&plan(Vec::new()), Destructive::Deny, None), None);
    }

    #[test]
    fn the_approval_of_this_very_plan_lets_it_go_on() {
        let (plan, hash) = (destructive(), destructive().hash());
        assert_eq!(of(&plan, Destructive::RequireApproval, Some(&hash)), None);
        assert_eq!(of(&plan, Destructive::RequireApproval, Some(&format!("{hash}\n"))), None);
        assert_eq!(of(&plan, Destructive::Allow, None), None);
        for other in [None, Some(""), Some("yes"), Some(&hash[..63])] {
            assert!(matches!(of(&plan, Destructive::RequireApproval, other), Some(Outcome::Held(_))), "{other:?}");
        }
        assert!(matches!(of(&plan, Destructive::Deny, Some(&hash)), Some(Outcome::Refused(_))), "Deny is no question");
    }

    #[test]
    fn the_message_gives_the_command_and_what_is_lost_first() {
        let Some(Outcome::Held(held)) = of(&destructive(), Destructive::RequireApproval, None) else { panic!("held") };
        let command = format!(
            "kubectl annotate projection/p -n default cornjacket.io/approve={} --overwrite",
            destructive().hash()
        );
        assert_eq!(held.plan_hash, destructive().hash());
        assert!(held.message.contains(&command), "{}", held.message);
        assert!(
            held.message.ends_with("Steps: [destructive] delete: SELECT 1; [additive] build: SELECT 1"),
            "{}",
            held.message
        );
        let Some(Outcome::Held(other)) = of(&destructive(), Destructive::RequireApproval, Some("old")) else {
            panic!("held")
        };
        assert!(other.message.contains("approves another plan"), "{}", other.message);
    }

    #[test]
    fn a_denial_names_the_policy_and_what_it_would_lose() {
        let Some(Outcome::Refused(failure)) = of(&destructive(), Destructive::Deny, None) else { panic!("refused") };
        assert_eq!(
            (failure.reason, failure.condition),
            (Reason::DestructiveDenied, Some(ConditionType::ApprovalRequired))
        );
        assert!(
            failure.message.contains("Deny") && failure.message.contains("[destructive] delete"),
            "{}",
            failure.message
        );
    }
}
