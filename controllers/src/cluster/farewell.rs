//! The last thing that controllers do whose namespace is being deleted. Its pods end before its resources go, and who holds
//! resources and has ended lets nothing go: so what they describe is deleted now, and they are let go.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::cause::Chain;
use crds::registration::{Kind, ResourceKey};
use crds::{Projection, Topic, WebhookAction};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, Resource as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use super::Settings;
use super::kinds::{Declarable, Guarded, Seen};
use super::reconcile::say_abandoned;
use crate::effects::kubernetes::{ClusterError, Writer, ask};
use crate::run::State;
use crate::session::{Platform, Session, SessionError};

/// Longest time for what resources describe to be deleted.
const CLEAN_UP: Duration = Duration::from_secs(12);
/// Of the time that a stop may take, what is kept for letting go.
const LET_GO: Duration = Duration::from_secs(3);
/// Between two tries to delete something.
const PAUSE: Duration = Duration::from_millis(200);
/// Tries to let go of an object that is changed meanwhile.
const TRIES: usize = 3;

/// Lets go of everything, where the namespace is being deleted.
pub async fn farewell(platform: &Platform, settings: &Settings, state: &watch::Sender<State>) {
    match let_go(platform, settings, state).await {
        Ok(()) => {}
        Err(error) => warn!(error = %Chain(&error), "resources that are held may outlive their namespace"),
    }
}

async fn let_go(platform: &Platform, settings: &Settings, state: &watch::Sender<State>) -> Result<(), ClusterError> {
    let (client, namespace) = (&settings.client, platform.namespace.as_str());
    match is_going(client, namespace).await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        // An older role does not allow to ask.
        Err(error) if error.is_forbidden() => {
            debug!(error = %Chain(&error), "whether the namespace is going is not known");
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let held = held(client, namespace).await?;
    if held.is_empty() {
        return Ok(());
    }
    info!(
        resources = held.len(),
        "the namespace goes and these controllers with it: what its resources hold goes first"
    );
    let left = clean_up(platform, state, settings, &held).await;
    let writer = Writer::new(client.clone(), settings.turns.clone(), namespace.to_owned(), settings.identity.clone());
    for seen in &held {
        if let Some(why) = left.get(&seen.key) {
            say_abandoned(&writer, seen, why).await;
        }
    }
    for _ in 0..TRIES {
        let still_held = self::held(client, namespace).await?;
        if still_held.is_empty() {
            break;
        }
        for seen in &still_held {
            release(&writer, seen).await;
        }
    }
    Ok(())
}

async fn is_going(client: &Client, namespace: &str) -> Result<bool, ClusterError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = ask("look at the namespace", api.get_opt(namespace)).await?;
    Ok(namespace.is_none_or(|namespace| namespace.meta().deletion_timestamp.is_some()))
}

async fn held(client: &Client, namespace: &str) -> Result<Vec<Seen>, ClusterError> {
    let mut held = held_of::<Topic>(client, namespace).await?;
    held.extend(held_of::<Projection>(client, namespace).await?);
    held.extend(held_of::<WebhookAction>(client, namespace).await?);
    Ok(held)
}

async fn held_of<K: Declarable>(client: &Client, namespace: &str) -> Result<Vec<Seen>, ClusterError> {
    let api: Api<Guarded<K>> = Api::namespaced(client.clone(), namespace);
    let objects = ask("list the resources", api.list(&ListParams::default())).await?;
    Ok(objects.iter().map(Seen::of::<K>).filter(Seen::is_held).collect())
}

/// Deletes what the objects describe, as far as that can be done in time. What is left, with the reason.
async fn clean_up(
    platform: &Platform,
    state: &watch::Sender<State>,
    settings: &Settings,
    held: &[Seen],
) -> BTreeMap<ResourceKey, String> {
    let until = Instant::now() + CLEAN_UP.min(settings.stop.saturating_sub(LET_GO));
    let mut left: BTreeMap<_, _> = held
        .iter()
        .filter(|seen| seen.deletes())
        .map(|seen| (seen.key.clone(), "there was no time left".to_owned()))
        .collect();
    let deleting = async {
        let mut session = Session::begin(platform, state).await?;
        let keys: Vec<ResourceKey> = left.keys().cloned().collect();
        session.look.remove(&keys).await?;
        while !left.is_empty() {
            for seen in held {
                if let (true, Ok(resource)) = (left.contains_key(&seen.key), &seen.resource) {
                    match session.delete(resource).await {
                        Ok(()) => left.remove(&seen.key),
                        Err(why) => left.insert(seen.key.clone(), why),
                    };
                }
            }
            sleep(PAUSE).await;
        }
        Ok::<(), SessionError>(())
    };
    if let Ok(Err(error)) = timeout_at(until, deleting).await {
        let why = Chain(&error).to_string();
        for said in left.values_mut() {
            said.clone_from(&why);
        }
    }
    left
}

/// One that changed meanwhile is looked at again; one that cannot be let go keeps none of the others.
async fn release(writer: &Writer, seen: &Seen) {
    let released = match seen.key.kind {
        Kind::Topic => writer.finalizers::<Topic>(seen, &seen.others()).await,
        Kind::Projection => writer.finalizers::<Projection>(seen, &seen.others()).await,
        Kind::WebhookAction => writer.finalizers::<WebhookAction>(seen, &seen.others()).await,
        Kind::EventType => Ok(()),
    };
    match released {
        Err(error) if !error.is_conflict() => {
            warn!(resource = %seen.key, error = %Chain(&error), "cannot let go of it");
        }
        _ => {}
    }
}
