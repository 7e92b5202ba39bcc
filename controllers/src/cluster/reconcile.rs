//! One object after the other: its status is written, its finalizer put on and taken off, and people are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use crds::cause::Chain;
use crds::reason::Reason;
use crds::registration::ResourceKey;
use kube::runtime::controller::Action;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::decide::{FINALIZER, Known, Todo, next};
use super::kinds::{Declarable, Guarded, Seen};
use crate::effects::kubernetes::{ClusterError, Told, Writer};
use crate::look::{Report, announce, news};
use crate::source::cluster::Mark;
use crate::{backoff, crash};

/// When a deletion that waits is looked at again.
const DELETING: Duration = Duration::from_secs(1);
/// Longest wait for a turn and for the deletion; it is asked again.
const CLEAN_UP: Duration = Duration::from_secs(15);
/// When an object that changed while it was written is looked at again: its newer version comes by the watch anyway.
const CONFLICT: Duration = Duration::from_secs(5);

/// What the newest look found, for all objects.
#[derive(Default)]
pub struct Reports {
    pub by_key: HashMap<ResourceKey, Report>,
    /// Which objects they are about.
    pub marks: HashMap<ResourceKey, Mark>,
    /// When the set was read that they are about.
    pub read_at: Option<Instant>,
}

impl Reports {
    /// Whether the report under a name is about the object that has it now.
    pub fn is_about(&self, key: &ResourceKey, now: &HashMap<ResourceKey, Mark>) -> bool {
        let uid = |marks: &HashMap<ResourceKey, Mark>| marks.get(key).map(|mark| mark.uid.clone());
        uid(&self.marks) == uid(now)
    }
}

/// Deletes what belongs to an object; answered when it is done.
pub struct CleanUp {
    pub seen: Seen,
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What all reconciliations share.
pub struct Shared {
    pub writer: Writer,
    pub reports: watch::Receiver<Arc<Reports>>,
    pub clean_up: mpsc::Sender<CleanUp>,
    /// What people are still to be told.
    pub told: mpsc::Sender<Told>,
    /// By uid.
    pub deleting: Mutex<HashMap<String, Deleting>>,
    pub failures: Mutex<HashMap<ResourceKey, u32>>,
}

/// An object that is being deleted.
#[derive(Clone, Debug)]
pub struct Deleting {
    since: Instant,
    cleaned_up: bool,
    /// Why what belongs to it is still there.
    why: Option<String>,
}

/// Who panicked with it in hand left nothing half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what is next about one object.
pub async fn reconcile<K: Declarable>(object: Arc<Guarded<K>>, shared: Arc<Shared>) -> Result<Action, ClusterError> {
    let seen = Seen::of::<K>(&object);
    let going = seen.deleting && seen.is_held();
    let mut todo = shared.next(&seen);
    if todo.writes() {
        shared.writer.turns().take().await;
        // There may be more to say by now, or nothing.
        todo = shared.next(&seen);
    }
    let action = match todo {
        Todo::Nothing if going => Action::requeue(DELETING),
        Todo::Nothing => Action::await_change(),
        Todo::AddFinalizer => {
            let wanted: Vec<String> = seen.finalizers.iter().cloned().chain([FINALIZER.to_owned()]).collect();
            shared.writer.finalizers::<K>(&seen, &wanted).await?;
            crash::point("finalizer added");
            Action::await_change()
        }
        Todo::RemoveFinalizer => shared.let_go::<K>(&seen).await?,
        Todo::CleanUp => shared.clean_up(&seen).await,
        Todo::Abandon => shared.abandon::<K>(&seen).await?,
        Todo::WriteStatus(status) => {
            shared.writer.status::<K>(&seen, &status).await?;
            crash::point("status written");
            metrics::counter!("cornjacket_controllers_status_writes_total", "kind" => K::KIND.as_str()).increment(1);
            shared.tell(&seen, &status).await;
            Action::await_change()
        }
    };
    lock(&shared.failures).remove(&seen.key);
    Ok(action)
}

/// What becomes of an object whose reconciliation failed: it is tried again, later each time.
#[expect(clippy::needless_pass_by_value, reason = "a controller calls it like this")]
pub fn failed<K: Declarable>(object: Arc<Guarded<K>>, error: &ClusterError, shared: Arc<Shared>) -> Action {
    let seen = Seen::of::<K>(&object);
    if error.is_gone() {
        lock(&shared.failures).remove(&seen.key);
        lock(&shared.deleting).remove(&seen.uid);
        return Action::await_change();
    }
    if error.is_conflict() {
        return Action::requeue(CONFLICT);
    }
    let attempt = {
        let mut failures = lock(&shared.failures);
        let attempt = failures.entry(seen.key.clone()).or_insert(0);
        *attempt += 1;
        *attempt - 1
    };
    let wait = backoff::delay(attempt, rand::random());
    warn!(resource = %seen.key, error = %Chain(error), retry_in_ms = wait.as_millis(), "cannot reconcile");
    metrics::counter!("cornjacket_controllers_reconcile_failures_total", "kind" => K::KIND.as_str()).increment(1);
    Action::requeue(wait)
}

/// Tells people, one thing after the other, when nothing more urgent is to be written.
pub async fn tell(mut told: mpsc::Receiver<Told>, writer: Writer) {
    while let Some(told) = told.recv().await {
        writer.turns().take_late().await;
        writer.tell(&told).await;
        crash::point("event told");
    }
}

/// Says what is left behind of an object, before it goes, and with it perhaps its namespace.
pub async fn say_abandoned(writer: &Writer, seen: &Seen, why: &str) {
    let note = format!("what belongs to it is left behind, delete it by hand: {why}");
    warn!(resource = %seen.key, "{note}");
    metrics::counter!("cornjacket_controllers_deletions_abandoned_total").increment(1);
    writer.turns().take().await;
    writer.tell(&Told::of(seen, Reason::DeletionAbandoned.as_str(), true, &note)).await;
}

impl Shared {
    /// What is next by the newest report.
    fn next(&self, seen: &Seen) -> Todo {
        let reports = self.reports.borrow().clone();
        let deleting = (seen.deleting && seen.is_held()).then(|| self.deleting_since(seen));
        let known = Known {
            report: reports.by_key.get(&seen.key),
            mark: reports.marks.get(&seen.key),
            read_at: reports.read_at,
            deleting_since: deleting.as_ref().map(|d| d.since),
            deleting_for: seen.deleted_at.and_then(|at| (Utc::now() - at).to_std().ok()).unwrap_or_default(),
            cleaned_up: deleting.as_ref().is_some_and(|d| d.cleaned_up),
            now: Instant::now(),
        };
        next(seen, known)
    }

    fn deleting_since(&self, seen: &Seen) -> Deleting {
        let new = || Deleting { since: Instant::now(), cleaned_up: false, why: None };
        lock(&self.deleting).entry(seen.uid.clone()).or_insert_with(new).clone()
    }

    fn note(&self, seen: &Seen, note: impl FnOnce(&mut Deleting)) {
        if let Some(deleting) = lock(&self.deleting).get_mut(&seen.uid) {
            note(deleting);
        }
    }

    async fn clean_up(&self, seen: &Seen) -> Action {
        let (done, answer) = oneshot::channel();
        let asking = async {
            let sent = self.clean_up.send(CleanUp { seen: seen.clone(), done }).await;
            match (sent, answer.await) {
                (Ok(()), Ok(result)) => result,
                _ => Err("the controllers are stopping".to_owned()),
            }
        };
        let result = timeout(CLEAN_UP, asking)
            .await
            .unwrap_or_else(|_| Err("the databases are away, or others are deleted first".to_owned()));
        match result {
            Ok(()) => {
                crash::point("cleaned up");
                self.note(seen, |deleting| deleting.cleaned_up = true);
                Action::requeue(Duration::ZERO)
            }
            Err(why) => {
                info!(resource = %seen.key, why, "what belongs to it is not deleted yet");
                self.note(seen, |deleting| deleting.why = Some(why));
                Action::requeue(DELETING)
            }
        }
    }

    async fn let_go<K: Declarable>(&self, seen: &Seen) -> Result<Action, ClusterError> {
        self.writer.finalizers::<K>(seen, &seen.others()).await?;
        crash::point("finalizer removed");
        lock(&self.deleting).remove(&seen.uid);
        Ok(Action::await_change())
    }

    async fn abandon<K: Declarable>(&self, seen: &Seen) -> Result<Action, ClusterError> {
        let why = lock(&self.deleting).get(&seen.uid).and_then(|d| d.why.clone());
        let unreadable = || seen.resource.as_ref().err().map(|error| format!("the object cannot be read: {error}"));
        let why = why.or_else(unreadable).unwrap_or_else(|| "nobody could be asked to delete it".to_owned());
        say_abandoned(&self.writer, seen, &why).await;
        self.let_go::<K>(seen).await
    }

    /// Tells about transitions, in the log and as events.
    async fn tell(&self, seen: &Seen, status: &Value) {
        announce(&seen.key, &seen.key.to_string(), status, seen.status.as_ref());
        for is in news(status, seen.status.as_ref()) {
            // Nobody listens any more when all this ends.
            let _ = self.told.send(Told::of(seen, &is.reason, !is.is_true(), &is.message)).await;
        }
    }
}
