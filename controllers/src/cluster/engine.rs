//! Looks at the whole set, and hands out what is to be said of each object.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use crds::registration::{Kind, ResourceKey};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::reconcile::{CleanUp, Reports};
use super::scale::{Asked, asked};
use super::secrets;
use crate::effects::kubernetes::ClusterError;
use crate::look::{Previous, Report};
use crate::resource::Declared;
use crate::run::LOOK;
use crate::session::{Platform, Session, SessionError, within};
use crate::source::cluster::{Mark, Snapshot, Stores};
use crate::status::away;
use crate::webhook_action::secrets::{Secrets, references};

/// Keys of objects that there is something new to say about, by kind.
pub type Touch = HashMap<Kind, mpsc::Sender<ResourceKey>>;

/// Looks at the whole set, and hands out what is to be said of each object.
pub struct Engine {
    publish: watch::Sender<Arc<Reports>>,
    touch: Touch,
    pub clean_ups: mpsc::Receiver<CleanUp>,
    before: Arc<Reports>,
    secrets: secrets::Secrets,
    /// What projections ask of the handler.
    ask: watch::Sender<Option<Asked>>,
    /// How many pods of the handler the installation is set to, where they are ours to set.
    installed: Option<i32>,
}

impl Engine {
    pub fn new(
        (publish, touch): (watch::Sender<Arc<Reports>>, Touch),
        clean_ups: mpsc::Receiver<CleanUp>,
        secrets: secrets::Secrets,
        (ask, installed): (watch::Sender<Option<Asked>>, Option<i32>),
    ) -> Self {
        Self { publish, touch, clean_ups, before: Arc::default(), secrets, ask, installed }
    }

    /// Makes the set true as far as it can be now, and says what came of it.
    pub async fn look(
        &mut self,
        platform: &Platform,
        session: &mut Session,
        stores: &Stores,
    ) -> Result<(), SessionError> {
        let bus = session.bus.borrow_and_update().clone();
        let Snapshot { set, statuses, marks, read_at } = self.snapshot(stores);
        if self.is_asked(&marks) {
            session.asked.notify_one();
            self.secrets.read_again();
        }
        if let Some(installed) = self.installed {
            self.ask.send_if_modified(|before| before.replace(asked(&set, installed)) != *before);
        }
        let found = self.secrets.about(references(&set)).await;
        let secrets = Secrets::new(platform.secrets_key.clone(), found);
        let registered = within(LOOK, session.look.home().registered()).await?;
        let before = &*self.before;
        let previous: &Previous<'_> = &|key| newest(before, &statuses, &marks, key);
        let reports = within(LOOK, session.look.run(&set, registered, previous, &bus, &secrets)).await?;
        let by_key = reports.into_iter().map(|report| (report.key.clone(), report)).collect();
        self.hand_out(Reports { by_key, marks, read_at: Some(read_at) }).await?;
        Ok(())
    }

    /// Nothing could be looked at: what is new is told so, what was looked at before stays as it was.
    pub async fn say_away(&mut self, stores: &Stores, error: &str) -> Result<(), ClusterError> {
        let Snapshot { set, statuses, marks, .. } = self.snapshot(stores);
        let now = Utc::now();
        let report = |declared: Declared| {
            let previous = newest(&self.before, &statuses, &marks, &declared.key);
            let status = away::document(&declared, previous, error, now);
            let same = || self.before.by_key.get(&declared.key).filter(|_| self.before.is_about(&declared.key, &marks));
            let Some(status) = status else { return same().map(|report| (report.key.clone(), report.clone())) };
            let Declared { key, generation, origin, .. } = declared;
            Some((key.clone(), Report { key, generation, origin, status }))
        };
        let by_key = set.into_iter().filter_map(report).collect();
        // What is deleted waits for a real look, and so does a wish for one.
        let answered = |key: &ResourceKey| self.before.marks.get(key).and_then(|mark| mark.requested_at.clone());
        let marks = marks.iter().map(|(key, mark)| (key.clone(), Mark { requested_at: answered(key), ..mark.clone() }));
        self.hand_out(Reports { by_key, marks: marks.collect(), read_at: self.before.read_at }).await
    }

    /// Whether somebody asks for a look who did not before.
    fn is_asked(&self, marks: &HashMap<ResourceKey, Mark>) -> bool {
        let wish = |mark: Option<&Mark>| mark.and_then(|mark| mark.requested_at.clone());
        let is_new = |(key, mark): (&ResourceKey, &Mark)| {
            mark.requested_at.is_some() && wish(self.before.marks.get(key)) != mark.requested_at
        };
        self.before.read_at.is_some() && marks.iter().any(is_new)
    }

    /// Everything that is declared, with the statuses of what was not reported yet.
    fn snapshot(&self, stores: &Stores) -> Snapshot {
        stores.snapshot(|key| !self.before.by_key.contains_key(key))
    }

    async fn hand_out(&mut self, reports: Reports) -> Result<(), ClusterError> {
        let is_news = |report: &&Report| {
            let is_same = self.before.by_key.get(&report.key) == Some(*report);
            !is_same || self.before.marks.get(&report.key) != reports.marks.get(&report.key)
        };
        let news: Vec<ResourceKey> = reports.by_key.values().filter(is_news).map(|r| r.key.clone()).collect();
        self.before = Arc::new(reports);
        self.publish.send_replace(self.before.clone());
        for key in news {
            if let Some(touch) = self.touch.get(&key.kind) {
                touch.send(key).await.map_err(|_| ClusterError::WatchEnded)?;
            }
        }
        Ok(())
    }
}

/// What was reported last may not be written yet: its times of transition stay.
fn newest<'a>(
    before: &'a Reports,
    statuses: &'a HashMap<ResourceKey, Value>,
    marks: &HashMap<ResourceKey, Mark>,
    key: &ResourceKey,
) -> Option<&'a Value> {
    let reported = before.by_key.get(key).filter(|_| before.is_about(key, marks));
    reported.map(|report| &report.status).or_else(|| statuses.get(key))
}

/// Deletes what belongs to an object that is going.
pub async fn answer(session: &mut Session, request: CleanUp) {
    let CleanUp { seen, done } = request;
    let begun = Instant::now();
    let result = match seen.resource.as_ref() {
        Ok(resource) => session.delete(resource).await,
        Err(_) => Ok(()),
    };
    if result.is_ok() {
        info!(resource = %seen.key, seconds = begun.elapsed().as_secs_f64(), "nothing is left to delete of what belonged to it");
    }
    // The reconciliation that asked may have been given up.
    let _ = done.send(result);
}
