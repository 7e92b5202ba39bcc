//! Who runs what is registered.

use crds::condition::{ConditionType, Finding, Status};
use crds::reason::Reason;
use crds::registration::ResourceKey;
use crds::role::Role;

use super::{Ack, DataPlane, Instance};
use crate::plan::Served;

/// How far the data plane has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub acked: i32,
    pub total: i32,
    pub finding: Finding,
}

/// Whether every live instance of the roles concerned runs what is registered, and each role has one.
pub fn propagation(key: &ResourceKey, served: Option<&Served>, data_plane: &DataPlane) -> Propagation {
    let finding =
        |status: Status, reason, message: String| Finding::new(ConditionType::Propagated, status, reason, message);
    let Some(served) = served else {
        let finding = finding(Status::Unknown, Reason::Pending, "nothing is registered".to_owned());
        return Propagation { acked: 0, total: 0, finding };
    };
    let roles = key.kind.acknowledged_by();
    let live: Vec<&Instance> = data_plane.instances.iter().filter(|i| roles.contains(&i.role)).collect();
    let said = data_plane.acks.get(key).map(Vec::as_slice).unwrap_or_default();
    let ack_of = |instance: &Instance| {
        said.iter().find(|a| a.instance == instance.id && a.role == instance.role && a.hash == served.hash)
    };
    let (mut acked, mut errors, mut waiting) = (0, Vec::new(), Vec::new());
    for instance in &live {
        match ack_of(instance) {
            Some(Ack { error: None, .. }) => acked += 1,
            Some(Ack { error: Some(error), .. }) => {
                errors.push(format!("{} on {}: {error}", instance.role, instance.host));
            }
            None => waiting.push(format!("{} on {}", instance.role, instance.host)),
        }
    }
    let total = i32::try_from(live.len()).unwrap_or(i32::MAX);
    let runs = by_role(roles, &live, |instance| ack_of(instance).is_some_and(|ack| ack.error.is_none()));
    let is_alive = |role: &Role| live.iter().any(|instance| instance.role == *role);
    let absent: Vec<&str> = roles.iter().filter(|role| !is_alive(role)).map(|role| role.as_str()).collect();
    let finding = if !absent.is_empty() {
        let message = format!("no instance of {} is alive: start one", absent.join(" and of "));
        finding(Status::Unknown, Reason::NoInstances, message)
    } else if !errors.is_empty() {
        finding(Status::False, Reason::LoadFailed, first_of(&errors))
    } else if !waiting.is_empty() {
        let message = format!("generation {} runs in {runs}; waiting for {}", served.generation, first_of(&waiting));
        finding(Status::False, Reason::AwaitingInstances, message)
    } else {
        let message = format!("generation {} runs in {runs}", served.generation);
        finding(Status::True, Reason::Acknowledged, message)
    };
    Propagation { acked, total, finding }
}

/// Live instances of one role that run what is registered.
pub fn running(key: &ResourceKey, served: Option<&Served>, role: Role, data_plane: &DataPlane) -> i32 {
    let Some(served) = served else { return 0 };
    let runs = |instance: &&Instance| {
        let said = data_plane.acks.get(key).map(Vec::as_slice).unwrap_or_default();
        let is_it = |ack: &&Ack| ack.instance == instance.id && ack.role == role && ack.hash == served.hash;
        instance.role == role && said.iter().find(is_it).is_some_and(|ack| ack.error.is_none())
    };
    i32::try_from(data_plane.instances.iter().filter(runs).count()).unwrap_or(i32::MAX)
}

/// `1 of 2 handle, 1 of 1 query`: for each role that lives, how many run it. One process may have several roles.
fn by_role(roles: &[Role], live: &[&Instance], runs: impl Fn(&Instance) -> bool) -> String {
    let said = roles.iter().filter_map(|role| {
        let of_role: Vec<_> = live.iter().filter(|instance| instance.role == *role).collect();
        let running = of_role.iter().filter(|instance| runs(instance)).count();
        (!of_role.is_empty()).then(|| format!("{running} of {} {role}", of_role.len()))
    });
    said.collect::<Vec<_>>().join(", ")
}

fn first_of(texts: &[String]) -> String {
    match texts {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}
