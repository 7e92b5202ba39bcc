//! Keeps changed definitions of projections back while what they would lose is not approved, and says what is to be done
//! to the tables.

use std::collections::{BTreeMap, BTreeSet};

use crds::condition::ConditionType;
use crds::reason::Reason;
use crds::registration::{self, Compiled, ResourceKey};
use crds::shared::APPROVE;

use super::{Applied, Look, spec_of};
use crate::effects::postgres::DatabaseError;
use crate::migrations::Work;
use crate::plan::Registrations;
use crate::projection::migration::indexes::{self, Wanted};
use crate::projection::migration::rows::{self, Fate, History, Rows};
use crate::projection::migration::series::{self, Tables};
use crate::projection::migration::{Catalog, Plan, approval};
use crate::projection::status::{Seen, SeenSeries};
use crate::resolve::{Failure, Outcome, Resolution};
use crate::resource::{Declared, Resource};
use crate::status::{Progress, SeriesProgress};

/// What a look knows of projections.
#[derive(Default)]
pub(super) struct Projections {
    progress: BTreeMap<String, Progress>,
    /// `None` where the database has no tables of projections yet.
    catalog: Option<Catalog>,
    /// Plans that lose data and may go on: they come true when the definition is registered.
    pub approved: Vec<Plan>,
    /// What is outstanding, by projection type.
    plans: BTreeMap<String, Plan>,
    series: Series,
}

/// What a look knows of time series.
#[derive(Default)]
struct Series {
    progress: BTreeMap<String, SeriesProgress>,
    /// `None` where the database has no place for them yet.
    tables: Option<Tables>,
    /// Those whose table may lose data to become as declared, by projection type.
    may_lose: BTreeSet<String>,
    plans: BTreeMap<String, Plan>,
}

impl Projections {
    /// What is known of one of them; why no step can be taken, and the selector of its pods, are known elsewhere.
    pub fn seen<'a>(&'a self, projection_type: Option<&str>, series_trouble: Option<&'a str>) -> Seen<'a> {
        Seen {
            series: SeenSeries {
                progress: projection_type.and_then(|name| self.series.progress.get(name)),
                tables: self.series.tables.as_ref(),
                plan: projection_type.and_then(|name| self.series.plans.get(name)),
                trouble: series_trouble,
            },
            progress: projection_type.and_then(|name| self.progress.get(name)),
            catalog: self.catalog.as_ref(),
            plan: projection_type.and_then(|name| self.plans.get(name)),
            ..Seen::default()
        }
    }
}

impl Look {
    /// Reads what there is, and holds what loses data and is not approved.
    pub(super) async fn hold(
        &mut self,
        set: &[Declared],
        resolutions: &mut [Resolution],
        registered: &Registrations,
    ) -> Result<Projections, DatabaseError> {
        let (progress, catalog) = (self.home.progress().await?, self.home.catalog().await?);
        let mut known = Projections { progress, catalog, ..Projections::default() };
        known.series = self.series().await?;
        for resolution in resolutions {
            let Some(Compiled::Projection(new)) = resolution.outcome.to_run().map(|form| &**form) else { continue };
            let before = registered.get(&resolution.key).filter(|row| row.active).and_then(|row| row.spec.as_ref());
            let plan = match self.plan(new, before, &known).await? {
                Ok(Some(plan)) => plan,
                Ok(None) => continue,
                Err(failure) => {
                    resolution.outcome = Outcome::Refused(failure);
                    continue;
                }
            };
            let Some(resource) = declared(set, &resolution.key) else { continue };
            let policy = resource.spec.migration_policy.and_then(|policy| policy.destructive).unwrap_or_default();
            let annotations = resource.metadata.annotations.as_ref();
            let approved = annotations.and_then(|all| all.get(APPROVE)).map(String::as_str);
            match approval::held(&resolution.key, resolution.generation, &plan, policy, approved) {
                Some(held) => resolution.outcome = held,
                None if new.time_series().is_none() => known.approved.push(plan),
                None if plan.is_destructive() => {
                    known.series.may_lose.insert(plan.projection_type);
                }
                None => {}
            }
        }
        Ok(known)
    }

    /// What there is of time series, in whichever database that is.
    async fn series(&mut self) -> Result<Series, DatabaseError> {
        let Some(seat) = self.series_seat() else { return Ok(Series::default()) };
        let Some(tables) = seat.series_tables().await? else { return Ok(Series::default()) };
        let progress = seat.series_progress().await?;
        Ok(Series { progress, tables: Some(tables), ..Series::default() })
    }

    /// What a definition asks to be done that may lose data; or why it cannot be.
    async fn plan(
        &mut self,
        new: &registration::Projection,
        before: Option<&Compiled>,
        known: &Projections,
    ) -> Result<Result<Option<Plan>, Failure>, DatabaseError> {
        match (new.time_series(), &known.series.tables) {
            (Some(series), Some(tables)) => {
                let plan = series::plan(&new.projection_type, series, tables);
                let refused = |taken: series::Taken| {
                    Failure::new(Reason::Conflict, taken.to_string()).of(ConditionType::Conflict)
                };
                Ok(plan.map(Some).map_err(refused))
            }
            (Some(_), None) => Ok(Ok(None)),
            (None, _) => self.losses(new, before, known).await.map(Ok),
        }
    }

    /// The plan of a changed definition that loses data.
    async fn losses(
        &mut self,
        new: &registration::Projection,
        before: Option<&Compiled>,
        known: &Projections,
    ) -> Result<Option<Plan>, DatabaseError> {
        let before = match before {
            Some(Compiled::Projection(before)) => Some(before),
            _ => None,
        };
        let rows = known.progress.get(&new.projection_type).map(|progress| &progress.rows);
        let (Some(fate), Some(rows)) = (rows::fate(new, before, rows), rows) else { return Ok(None) };
        if !self.home.has_rows(&new.projection_type).await? {
            return Ok(None);
        }
        let history = self.history().await?;
        Ok(plan_of(new, fate, rows, history, known.catalog.as_ref()))
    }

    /// How far the event store goes back, in whichever database it is.
    async fn history(&mut self) -> Result<History, DatabaseError> {
        for seat in self.seats() {
            if let Some(history) = seat.history().await? {
                return Ok(history);
            }
        }
        // Nothing can be rebuilt from a store that nobody knows of.
        Ok(History::From(None))
    }

    /// Tells what is to be done to the tables for what is registered now.
    pub(super) fn want_migrations(&self, resolutions: &[Resolution], applied: &Applied, known: &mut Projections) {
        self.want_series(resolutions, applied, &mut known.series);
        let Some(catalog) = &known.catalog else { return };
        let wanted: Vec<Wanted> = resolutions.iter().filter_map(|resolution| wanted(resolution, applied)).collect();
        let outstanding = indexes::to_run(&wanted, catalog).iter().map(Plan::hash).collect();
        let plans = indexes::plans(&wanted, catalog).into_iter();
        known.plans = plans.map(|plan| (plan.projection_type.clone(), plan)).collect();
        self.migrations.tell(Work { wanted, outstanding });
    }

    /// The same for time series.
    fn want_series(&self, resolutions: &[Resolution], applied: &Applied, known: &mut Series) {
        let Some(tables) = &known.tables else { return };
        let of = |resolution| wanted_series(resolution, applied, &known.may_lose);
        let wanted: Vec<series::Wanted> = resolutions.iter().filter_map(of).collect();
        let plan = |wanted: &series::Wanted| series::plan(&wanted.projection_type, &wanted.series, tables).ok();
        known.plans = wanted.iter().filter_map(plan).map(|plan| (plan.projection_type.clone(), plan)).collect();
        let outstanding = series::to_run(&wanted, tables).iter().map(Plan::hash).collect();
        self.series_migrations.tell(Work { wanted, outstanding });
    }
}

/// What a registered time series wants of its table.
fn wanted_series(resolution: &Resolution, applied: &Applied, may_lose: &BTreeSet<String>) -> Option<series::Wanted> {
    let Some(Compiled::Projection(spec)) = spec_of(resolution, applied) else { return None };
    Some(series::Wanted {
        projection_type: spec.projection_type.clone(),
        series: spec.time_series()?.clone(),
        writes: !matches!(resolution.outcome, Outcome::LeftAlone(_)),
        may_lose: may_lose.contains(&spec.projection_type),
    })
}

/// What a registered projection wants of the tables. Nothing is written for one that asks to be left alone.
fn wanted(resolution: &Resolution, applied: &Applied) -> Option<Wanted> {
    let Some(Compiled::Projection(spec)) = spec_of(resolution, applied) else { return None };
    Some(Wanted {
        projection_type: spec.projection_type.clone(),
        fields: spec.indexes.clone(),
        writes: !matches!(resolution.outcome, Outcome::LeftAlone(_)),
    })
}

/// All steps of a change that loses data.
fn plan_of(
    new: &registration::Projection,
    fate: Fate,
    rows: &Rows,
    history: History,
    catalog: Option<&Catalog>,
) -> Option<Plan> {
    let step = rows::step(new, fate, rows, history)?;
    let mut steps = catalog.map(|has| indexes::missing(&new.projection_type, &new.indexes, has)).unwrap_or_default();
    steps.push(step);
    Some(Plan { projection_type: new.projection_type.clone(), steps })
}

fn declared<'a>(set: &'a [Declared], key: &ResourceKey) -> Option<&'a crds::Projection> {
    let declared = set.iter().find(|declared| declared.key == *key)?;
    match &declared.resource {
        Ok(Resource::Projection(projection)) => Some(projection),
        _ => None,
    }
}
