//! One look: what is declared is resolved, planned, applied and reported.

use std::collections::BTreeMap;

use chrono::Utc;
use crds::cause::Chain;
use crds::reason::Reason;
use crds::registration::{Compiled, ResourceKey, Topic};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::effects::postgres::{DatabaseError, Seat};
use crate::plan::{self, Registrations, Served, Step};
use crate::resolve::{self, Outcome, Resolution};
use crate::source::declare::{self, Numbered};
use crate::source::directory::{Files, SourceError};
use crate::status::{self, DataPlane, Facts, Progress, StatusRow};
use crate::topic::status::Bus;

/// A look failed half-way; the next begins anew, and doing it twice does no harm.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What one look needs, and remembers for the next.
pub struct Cycle {
    namespace: String,
    home: Seat,
    others: Vec<Seat>,
    wanted_topics: watch::Sender<Vec<Topic>>,
    statuses: Option<BTreeMap<ResourceKey, StatusRow>>,
    /// Said already, so that the log says it once.
    complaints: Vec<String>,
}

/// What runs after the steps of a look.
struct Applied {
    served: BTreeMap<ResourceKey, Served>,
    registered: Registrations,
}

impl Cycle {
    pub fn new(namespace: String, home: Seat, others: Vec<Seat>, wanted_topics: watch::Sender<Vec<Topic>>) -> Self {
        Self { namespace, home, others, wanted_topics, statuses: None, complaints: Vec::new() }
    }

    /// Makes what the files declare true, as far as it can be now.
    pub async fn run(&mut self, files: Result<Files, SourceError>, bus: &Bus) -> Result<(), CycleError> {
        let files = match files {
            Ok(files) => files,
            Err(error) => {
                // An empty directory removes everything; one that cannot be read, nothing.
                self.complain(vec![Chain(&error).to_string()]);
                return self.keep_seats().await;
            }
        };
        if self.statuses.is_none() {
            self.statuses = Some(self.home.statuses().await?);
        }
        let before = self.statuses.clone().unwrap_or_default();
        let registered = self.home.registered().await?;
        let reading = declare::read(&files, &self.namespace, &before);
        self.complain(reading.complaints.clone());
        let declared = declare::number(reading.found, &before, &registered);
        let set: Vec<_> = declared.iter().map(|numbered| numbered.declared.clone()).collect();
        let resolutions = resolve::resolve(&set, &registered);

        let applied = self.apply(&resolutions, registered).await?;
        self.want_topics(&resolutions);
        self.report(&resolutions, &declared, &applied, bus, before).await
    }

    async fn apply(&mut self, resolutions: &[Resolution], registered: Registrations) -> Result<Applied, CycleError> {
        for seat in &mut self.others {
            let theirs = seat.registered().await?;
            seat.apply(&plan::plan(resolutions, &theirs)).await?;
        }
        let steps = plan::plan(resolutions, &registered);
        // The home comes last: what it says is registered, is registered everywhere.
        self.home.apply(&steps).await?;
        for step in &steps {
            match step {
                Step::Register { key, generation, .. } => info!(resource = %key, generation, "registered"),
                Step::Remove { key } => info!(resource = %key, "removed: its data stays"),
                Step::Keep { .. } => {}
            }
        }
        Ok(Applied { served: plan::served(&steps, &registered), registered })
    }

    fn want_topics(&self, resolutions: &[Resolution]) {
        let topic = |resolution: &Resolution| match (&resolution.outcome, resolution.manages) {
            (Outcome::Run(Compiled::Topic(topic)), true) => Some(topic.clone()),
            _ => None,
        };
        let wanted: Vec<Topic> = resolutions.iter().filter_map(topic).collect();
        self.wanted_topics.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    async fn report(
        &mut self,
        resolutions: &[Resolution],
        declared: &[Numbered],
        applied: &Applied,
        bus: &Bus,
        before: BTreeMap<ResourceKey, StatusRow>,
    ) -> Result<(), CycleError> {
        let data_plane = self.data_plane().await?;
        let progress = self.home.progress().await?;
        let now = Utc::now();
        let mut after = BTreeMap::new();
        for resolution in resolutions {
            let key = &resolution.key;
            let spec = spec_of(resolution, applied);
            let facts = Facts {
                resolution,
                served: applied.served.get(key),
                spec,
                data_plane: &data_plane,
                bus,
                progress: progress_of(spec, &progress),
            };
            let row = StatusRow {
                status: status::document(&facts, before.get(key).map(|row| &row.status), now),
                origin: resolution.origin.clone(),
                generation: resolution.generation,
                spec_hash: declared
                    .iter()
                    .find(|n| n.declared.key == *key)
                    .map_or_else(String::new, |n| n.hash.clone()),
            };
            if before.get(key) != Some(&row) {
                self.home.write_status(key, &row).await?;
                announce(key, before.get(key), &row);
            }
            after.insert(key.clone(), row);
        }
        for key in before.keys().filter(|key| !after.contains_key(key)) {
            self.home.remove_status(key).await?;
        }
        count(&after);
        self.statuses = Some(after);
        Ok(())
    }

    /// A session that says nothing for long is taken for frozen.
    async fn keep_seats(&mut self) -> Result<(), CycleError> {
        for seat in std::iter::once(&mut self.home).chain(&mut self.others) {
            seat.take().await?;
        }
        Ok(())
    }

    async fn data_plane(&mut self) -> Result<DataPlane, CycleError> {
        let mut data_plane = DataPlane::default();
        for seat in std::iter::once(&mut self.home).chain(&mut self.others) {
            data_plane.instances.extend(seat.instances().await?);
            data_plane.acks.extend(seat.acks().await?);
        }
        Ok(data_plane)
    }

    fn complain(&mut self, complaints: Vec<String>) {
        for complaint in complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            warn!("{complaint}; what was registered stays");
        }
        self.complaints = complaints;
    }
}

/// The form that runs after this look: the new one, or the last good one.
fn spec_of<'a>(resolution: &'a Resolution, applied: &'a Applied) -> Option<&'a Compiled> {
    let last_good = || applied.registered.get(&resolution.key).and_then(|row| row.spec.as_ref());
    applied.served.get(&resolution.key).and_then(|_| resolution.outcome.to_run().or_else(last_good))
}

fn progress_of<'a>(spec: Option<&Compiled>, progress: &'a BTreeMap<String, Progress>) -> Option<&'a Progress> {
    match spec {
        Some(Compiled::Projection(spec)) => progress.get(&spec.projection_type),
        _ => None,
    }
}

/// One log line a transition of `Ready`.
fn announce(key: &ResourceKey, before: Option<&StatusRow>, after: &StatusRow) {
    let (was, is) = (before.map(|row| ready(&row.status)), ready(&after.status));
    if was.as_ref() == Some(&is) {
        return;
    }
    let (status, reason, message) = is;
    if status == "True" {
        info!(resource = %key, "ready: {message}");
    } else {
        // On the way there, which takes a moment, is no news.
        let on_the_way =
            [Reason::AwaitingInstances, Reason::Progressing, Reason::Pending].iter().any(|r| r.as_str() == reason);
        if on_the_way {
            debug!(resource = %key, reason, origin = after.origin, "not ready yet: {message}");
        } else {
            warn!(resource = %key, reason, origin = after.origin, "not ready: {message}");
        }
    }
}

/// Status, reason and message of `Ready`.
fn ready(status: &serde_json::Value) -> (String, String, String) {
    let conditions = status.get("conditions").and_then(|list| list.as_array());
    let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
    let text = |field: &str| ready.and_then(|c| c[field].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; nobody declares 2^52 resources")]
fn count(statuses: &BTreeMap<ResourceKey, StatusRow>) {
    for kind in crds::registration::Kind::ALL {
        let of_kind = statuses.iter().filter(|(key, _)| key.kind == kind);
        let ready_ones = of_kind.clone().filter(|(_, row)| ready(&row.status).0 == "True").count();
        metrics::gauge!("cornjacket_controllers_resources", "kind" => kind.as_str()).set(of_kind.count() as f64);
        metrics::gauge!("cornjacket_controllers_resources_ready", "kind" => kind.as_str()).set(ready_ones as f64);
    }
}
