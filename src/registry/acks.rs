//! What this instance has to say about each registration, per role: that it runs, or why not.
//!
//! Reports come in from the loader and from roles; the registry's task writes those that changed to
//! `registration_ack`. Nothing is lost while the database is away: the newest report per resource is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::registration::{Kind, ResourceKey};
use crds::role::Role;
use tokio::sync::Notify;

use super::load::Verdict;
use crate::database::storable;

/// Longest error text that is stored, in characters.
const MAX_ERROR_CHARS: usize = 1000;

/// Where roles report. Cheap to clone.
#[derive(Clone, Default)]
pub struct Acks {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: Mutex<BTreeMap<(Role, ResourceKey), Entry>>,
    changed: Notify,
}

struct Entry {
    hash: String,
    error: Option<String>,
    /// The hash that the role last reported as running.
    running: Option<String>,
    written: bool,
}

/// One row of `registration_ack` to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub role: Role,
    pub key: ResourceKey,
    pub hash: String,
    pub error: Option<String>,
}

impl Acks {
    /// The handler runs a projection of this hash, its rows being really fed by that definition, or says why it does
    /// not. Saying the same again costs nothing. Every other role and kind is reported when it is loaded, but for the
    /// actions.
    pub fn report(&self, key: &ResourceKey, hash: &str, outcome: Result<(), String>) {
        self.set(Role::Handle, key, hash, outcome);
    }

    /// Deliveries are made by an action of this hash, its secrets being opened; or why not.
    pub fn report_action(&self, key: &ResourceKey, hash: &str, outcome: Result<(), String>) {
        self.set(Role::Act, key, hash, outcome);
    }

    fn set(&self, role: Role, key: &ResourceKey, hash: &str, outcome: Result<(), String>) {
        let error = outcome.err().map(|text| storable(&text, MAX_ERROR_CHARS));
        let mut entries = self.entries();
        let known = entries.get(&(role, key.clone()));
        if known.is_some_and(|e| e.hash == hash && e.error == error) {
            return;
        }
        let running = if error.is_none() { Some(hash.to_owned()) } else { known.and_then(|e| e.running.clone()) };
        entries.insert((role, key.clone()), Entry { hash: hash.to_owned(), error, running, written: false });
        drop(entries);
        self.inner.changed.notify_one();
    }

    /// Takes over what the loader found, for the roles of this instance. What is no longer registered is forgotten.
    pub(super) fn loaded(&self, roles: &[Role], verdicts: &[Verdict]) {
        let present: BTreeSet<&ResourceKey> = verdicts.iter().map(|v| &v.key).collect();
        self.entries().retain(|(_, key), _| present.contains(key));
        for verdict in verdicts {
            for role in verdict.key.kind.acknowledged_by().iter().filter(|role| roles.contains(role)) {
                let waits_for_role = reports_itself(*role, verdict.key.kind) && verdict.outcome.is_ok();
                if !waits_for_role || self.last_running(*role, &verdict.key).as_deref() == Some(&verdict.hash) {
                    self.set(*role, &verdict.key, &verdict.hash, verdict.outcome.clone());
                }
            }
        }
    }

    fn last_running(&self, role: Role, key: &ResourceKey) -> Option<String> {
        self.entries().get(&(role, key.clone())).and_then(|entry| entry.running.clone())
    }

    /// What has not been written yet.
    pub(super) fn unwritten(&self) -> Vec<Ack> {
        let entries = self.entries();
        let ack = |((role, key), entry): (&(Role, ResourceKey), &Entry)| Ack {
            role: *role,
            key: key.clone(),
            hash: entry.hash.clone(),
            error: entry.error.clone(),
        };
        entries.iter().filter(|(_, entry)| !entry.written).map(ack).collect()
    }

    /// These rows are committed. One that was reported anew meanwhile stays unwritten.
    pub(super) fn written(&self, acks: &[Ack]) {
        let mut entries = self.entries();
        for ack in acks {
            if let Some(entry) = entries.get_mut(&(ack.role, ack.key.clone())) {
                entry.written = entry.hash == ack.hash && entry.error == ack.error;
            }
        }
    }

    /// The rows may be gone: all are to be written again.
    pub(super) fn rewrite(&self) {
        self.entries().values_mut().for_each(|entry| entry.written = false);
    }

    /// Waits for a report that says something new.
    pub(super) async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<(Role, ResourceKey), Entry>> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loading is not yet running: the handler says when rows follow a new definition, and who delivers webhooks when it has
/// the secrets that it needs.
fn reports_itself(role: Role, kind: Kind) -> bool {
    matches!((role, kind), (Role::Handle, Kind::Projection) | (Role::Act, Kind::WebhookAction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: Kind, hash: &str, outcome: Result<(), String>) -> Verdict {
        let key = ResourceKey { namespace: "default".into(), kind, name: "x".into() };
        Verdict { key, hash: hash.into(), outcome }
    }

    fn unwritten(acks: &Acks) -> Vec<(Role, String, Option<String>)> {
        acks.unwritten().into_iter().map(|a| (a.role, a.hash, a.error)).collect()
    }

    #[test]
    fn roles_that_run_what_they_load_acknowledge_at_once() {
        let acks = Acks::default();
        acks.loaded(&[Role::Ingest, Role::Query], &[verdict(Kind::EventType, "a", Ok(()))]);
        assert_eq!(unwritten(&acks), [(Role::Ingest, "a".into(), None)]);
        acks.written(&acks.unwritten());
        acks.loaded(&[Role::Ingest, Role::Query], &[verdict(Kind::EventType, "a", Ok(()))]);
        assert!(acks.unwritten().is_empty());
        acks.rewrite();
        assert_eq!(acks.unwritten().len(), 1);
        acks.loaded(&[Role::Ingest, Role::Query], &[]);
        assert!(acks.unwritten().is_empty());
    }

    #[test]
    fn the_handler_acknowledges_a_projection_when_it_runs_it() {
        let acks = Acks::default();
        let good = verdict(Kind::Projection, "a", Ok(()));
        acks.loaded(&[Role::Handle], std::slice::from_ref(&good));
        assert!(acks.unwritten().is_empty());
        acks.report(&good.key, "a", Ok(()));
        assert_eq!(unwritten(&acks), [(Role::Handle, "a".into(), None)]);
        acks.loaded(&[Role::Handle], &[verdict(Kind::Projection, "b", Err("no".into()))]);
        assert_eq!(unwritten(&acks), [(Role::Handle, "b".into(), Some("no".into()))]);
        acks.loaded(&[Role::Handle], &[good]);
        assert_eq!(unwritten(&acks), [(Role::Handle, "a".into(), None)], "it never stopped running that one");
    }

    #[test]
    fn a_report_made_while_an_older_one_is_written_is_not_lost() {
        let acks = Acks::default();
        let key = verdict(Kind::Projection, "a", Ok(())).key;
        acks.report(&key, "a", Err("reading the event store".into()));
        let batch = acks.unwritten();
        acks.report(&key, "a", Ok(()));
        acks.written(&batch);
        assert_eq!(unwritten(&acks), [(Role::Handle, "a".into(), None)]);
    }
}
