//! One look: a whole set of resources is resolved, planned, applied and reported, wherever it was declared.

mod hold;
mod ready;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use crds::registration::{Compiled, Kind, ResourceKey};
use serde_json::Value;
use tokio::sync::watch;
use tracing::info;

use self::hold::Projections;
pub use self::ready::{Said, announce, news};
use crate::crash;
use crate::effects::postgres::{DatabaseError, Deletion, Seat};
use crate::migrations::{Going, Work};
use crate::plan::{self, Registrations, Served, Step};
use crate::projection;
use crate::projection::migration::{indexes, series};
use crate::resolve::{self, Cache, Outcome, Resolution};
use crate::resource::{Declared, Resource};
use crate::status::{self, DataPlane, Facts};
use crate::topic::status::{Bus, is_claimable};
use crate::topic::wanted::{Rules, Wanted};
use crate::webhook_action::secrets::Secrets;
use crate::webhook_action::vault::{self, Change};

/// The databases that a look writes to, and what it asks of the broker.
pub struct Look {
    namespace: String,
    home: Seat,
    others: Vec<Seat>,
    wanted_topics: watch::Sender<Vec<Wanted>>,
    /// What the last look compiled.
    cache: Cache,
    migrations: Migrations<indexes::Wanted>,
    series_migrations: Migrations<series::Wanted>,
    /// Label selector of the handler's pods, where there are pods.
    handler_selector: Option<String>,
}

/// How a look speaks with who migrates tables of one sort.
pub struct Migrations<W> {
    pub work: watch::Sender<Work<W>>,
    pub going: watch::Receiver<Going>,
}

impl<W: PartialEq> Migrations<W> {
    /// Says what is to be done, where that is something else than before.
    fn tell(&self, work: Work<W>) {
        self.work.send_if_modified(|before| {
            let changed = *before != work;
            *before = work;
            changed
        });
    }
}

/// The status of a resource as it stands.
pub type Previous<'a> = dyn Fn(&ResourceKey) -> Option<&'a Value> + Sync + 'a;

/// What a look found out about a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub key: ResourceKey,
    pub generation: i64,
    /// Where it is declared, for people.
    pub origin: String,
    /// As under `.status` in a cluster.
    pub status: Value,
}

/// What runs after the steps of a look.
struct Applied {
    served: BTreeMap<ResourceKey, Served>,
    registered: Arc<Registrations>,
}

impl Look {
    pub fn new(
        namespace: String,
        (home, others): (Seat, Vec<Seat>),
        wanted_topics: watch::Sender<Vec<Wanted>>,
        (migrations, series_migrations): (Migrations<indexes::Wanted>, Migrations<series::Wanted>),
        handler_selector: Option<String>,
    ) -> Self {
        let cache = Cache::default();
        Self { namespace, home, others, wanted_topics, cache, migrations, series_migrations, handler_selector }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The handler's database, which says what is registered everywhere.
    pub fn home(&mut self) -> &mut Seat {
        &mut self.home
    }

    /// The database of the deliveries, unless it is only read: a replica.
    pub fn of_actions(&mut self) -> Option<&mut Seat> {
        self.seats().find(|seat| seat.is_of_actions)
    }

    /// The home first.
    fn seats(&mut self) -> impl Iterator<Item = &mut Seat> {
        std::iter::once(&mut self.home).chain(&mut self.others)
    }

    /// Makes a set of resources true, as far as it can be now. `previous` are the statuses as they stand. A look that fails
    /// half-way is begun anew: doing it twice does no harm.
    pub async fn run(
        &mut self,
        set: &[Declared],
        registered: Arc<Registrations>,
        previous: &Previous<'_>,
        bus: &Bus,
        secrets: &Secrets,
    ) -> Result<Vec<Report>, DatabaseError> {
        let before = self.cache.compilations();
        let mut resolutions = resolve::resolve_again(&mut self.cache, set, &registered, secrets);
        metrics::counter!("cornjacket_controllers_compiled_total").increment(self.cache.compilations() - before);
        let mut projections = self.hold(set, &mut resolutions, &registered).await?;
        let applied = self.apply(&resolutions, registered, (secrets, &projections)).await?;
        self.want_topics(set, &resolutions, &applied, bus).await?;
        self.want_migrations(&resolutions, &applied, &mut projections);
        let reports = self.reports(&resolutions, &applied, (bus, &projections), previous).await?;
        metrics::counter!("cornjacket_controllers_looks_total").increment(1);
        count(&reports);
        Ok(reports)
    }

    /// The database of the time series.
    fn series_seat(&mut self) -> Option<&mut Seat> {
        self.seats().find(|seat| seat.keeps_series)
    }

    /// Drops the table of a time series that is no longer registered.
    pub async fn delete_series(&mut self, projection_type: &str, table: &str) -> Result<Deletion, DatabaseError> {
        let has_handler = self.home.has_handler().await?;
        match self.series_seat() {
            Some(seat) => seat.delete_series(projection_type, table, has_handler).await,
            None => Ok(Deletion::Done),
        }
    }

    /// Removes registrations whose resources go, before anybody looks at the rest again.
    pub async fn remove(&mut self, keys: &[ResourceKey]) -> Result<(), DatabaseError> {
        let steps: Vec<Step> = keys.iter().map(|key| Step::Remove { key: key.clone() }).collect();
        for seat in self.others.iter_mut().chain([&mut self.home]) {
            seat.apply(&steps, &[], &[]).await?;
        }
        Ok(())
    }

    /// A session that says nothing for long is taken for frozen.
    pub async fn keep_seats(&mut self) -> Result<(), DatabaseError> {
        for seat in self.seats() {
            seat.take().await?;
        }
        Ok(())
    }

    async fn apply(
        &mut self,
        resolutions: &[Resolution],
        registered: Arc<Registrations>,
        (secrets, projections): (&Secrets, &Projections),
    ) -> Result<Applied, DatabaseError> {
        for seat in &mut self.others {
            let theirs = seat.registered().await?;
            let steps = plan::plan(resolutions, &theirs);
            let changes = vaulted(seat, &steps, &theirs, secrets).await?;
            seat.apply(&steps, &changes, &[]).await?;
            if steps.iter().any(Step::is_change) {
                crash::point("registered elsewhere");
            }
        }
        let steps = plan::plan(resolutions, &registered);
        // The home comes last: what it says is registered, is registered everywhere.
        let changes = vaulted(&mut self.home, &steps, &registered, secrets).await?;
        self.home.apply(&steps, &changes, &projections.approved).await?;
        if steps.iter().any(Step::is_change) {
            crash::point("registered");
        }
        for step in &steps {
            match step {
                Step::Register { key, generation, .. } => info!(resource = %key, generation, "registered"),
                Step::Remove { key } => info!(resource = %key, "no longer registered"),
                Step::Keep { .. } => {}
            }
        }
        Ok(Applied { served: plan::served(&steps, &registered), registered })
    }

    /// Tells what is wanted of the broker. A claim for a topic is on record before anything is written to it.
    async fn want_topics(
        &mut self,
        set: &[Declared],
        resolutions: &[Resolution],
        applied: &Applied,
        bus: &Bus,
    ) -> Result<(), DatabaseError> {
        if *bus == Bus::Embedded {
            return Ok(());
        }
        let claims = self.home.topic_claims().await?;
        let mut wanted = wanted_topics(set, resolutions, applied, &claims);
        let mut new = Vec::new();
        for topic in wanted.iter_mut().filter(|topic| is_claimable(topic, bus)) {
            topic.claimed = true;
            new.push(topic.resource.clone());
        }
        if !new.is_empty() {
            self.home.claim_topics(&new).await?;
            crash::point("topics claimed");
        }
        self.wanted_topics.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
        Ok(())
    }

    async fn reports(
        &mut self,
        resolutions: &[Resolution],
        applied: &Applied,
        (bus, projections): (&Bus, &Projections),
        previous: &Previous<'_>,
    ) -> Result<Vec<Report>, DatabaseError> {
        let data_plane = self.data_plane().await?;
        let endpoints = match self.of_actions() {
            Some(seat) => seat.endpoints().await?,
            None => BTreeMap::new(),
        };
        let going = self.migrations.going.borrow().clone();
        let series_going = self.series_migrations.going.borrow().clone();
        let now = Utc::now();
        let report = |resolution: &Resolution| {
            let key = &resolution.key;
            let spec = spec_of(resolution, applied);
            let facts = Facts {
                resolution,
                served: applied.served.get(key),
                spec,
                data_plane: &data_plane,
                bus,
                projection: projection::status::Seen {
                    trouble: going.trouble.as_deref(),
                    selector: self.handler_selector.as_deref(),
                    ..projections.seen(projection_type(spec), series_going.trouble.as_deref())
                },
                endpoint: endpoints.get(&key.name).filter(|_| key.kind == Kind::WebhookAction),
            };
            Report {
                key: key.clone(),
                generation: resolution.generation,
                origin: resolution.origin.clone(),
                status: status_of(&facts, previous(key), now),
            }
        };
        Ok(resolutions.iter().map(report).collect())
    }

    async fn data_plane(&mut self) -> Result<DataPlane, DatabaseError> {
        let mut data_plane = DataPlane::default();
        for seat in self.seats() {
            data_plane.add(seat.instances().await?, seat.acks().await?);
        }
        Ok(data_plane)
    }
}

/// What is to change about the sealed values that a database holds.
async fn vaulted(
    seat: &mut Seat,
    steps: &[Step],
    registered: &Registrations,
    secrets: &Secrets,
) -> Result<Vec<Change>, DatabaseError> {
    let stored = seat.stored_secrets().await?;
    if seat.is_of_actions {
        return Ok(vault::plan(steps, registered, &stored, seat.namespace(), secrets, rand::random));
    }
    Ok(vault::clear(&stored))
}

/// Every topic that is registered; those whose resource is refused or paused are only compared, in their last good form.
fn wanted_topics(
    set: &[Declared],
    resolutions: &[Resolution],
    applied: &Applied,
    claims: &BTreeSet<String>,
) -> Vec<Wanted> {
    let declared = |resource: &Declared| match &resource.resource {
        Ok(Resource::Topic(topic)) => Some((resource.key.clone(), topic.clone())),
        _ => None,
    };
    let declared: BTreeMap<_, _> = set.iter().filter_map(declared).collect();
    let wanted = |resolution: &Resolution| {
        let Some(Compiled::Topic(spec)) = spec_of(resolution, applied) else { return None };
        let writes = resolution.manages && matches!(resolution.outcome, Outcome::Run(_));
        let rules = declared.get(&resolution.key).map(|topic| Rules::of(topic, writes)).unwrap_or_default();
        let resource = resolution.key.name.clone();
        let claimed = claims.contains(&resource);
        Some(Wanted { resource, generation: resolution.generation, spec: spec.clone(), rules, claimed })
    };
    resolutions.iter().filter_map(wanted).collect()
}

/// The form that runs after this look: the new one, or the last good one.
fn spec_of<'a>(resolution: &'a Resolution, applied: &'a Applied) -> Option<&'a Compiled> {
    let last_good = || applied.registered.get(&resolution.key).and_then(|row| row.spec.as_ref());
    applied.served.get(&resolution.key).and_then(|_| resolution.outcome.to_run().map(|form| &**form).or_else(last_good))
}

/// What was said of a generation stands until the broker has been asked about it: a process that starts says nothing new.
fn status_of(facts: &Facts<'_>, previous: Option<&Value>, now: DateTime<Utc>) -> Value {
    let generation = facts.resolution.generation;
    let said = previous.filter(|status| status["observedGeneration"] == generation && facts.await_broker());
    said.cloned().unwrap_or_else(|| status::document(facts, previous, now))
}

fn projection_type(spec: Option<&Compiled>) -> Option<&str> {
    match spec {
        Some(Compiled::Projection(spec)) => Some(&spec.projection_type),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; nobody declares 2^52 resources")]
fn count(reports: &[Report]) {
    for kind in Kind::ALL {
        let of_kind = reports.iter().filter(|report| report.key.kind == kind);
        let ready = of_kind.clone().filter(|report| Said::ready(&report.status).is_true()).count();
        metrics::gauge!("cornjacket_controllers_resources", "kind" => kind.as_str()).set(of_kind.count() as f64);
        metrics::gauge!("cornjacket_controllers_resources_ready", "kind" => kind.as_str()).set(ready as f64);
    }
}
