//! Keeps the tables of projections and of time series as they are declared, beside the looks: a step may take hours, and no look waits for it.
//! What fails is said, and tried again with backoff.

use std::time::Duration;

use crds::cause::Chain;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::backoff;
use crate::effects::postgres::DatabaseError;
use crate::effects::postgres::guard::Badge;
use crate::effects::postgres::migrations::{Books, Migrator, PROJECTIONS, SERIES};
use crate::projection::migration::{Catalog, Plan, Step, indexes, series};

/// While another process migrates, it is asked again after this long.
const BUSY: Duration = Duration::from_secs(2);
/// How often it is looked whether what was done was enough, should no look say so.
const EVERY: Duration = Duration::from_secs(20);

/// What is wanted of tables of one sort.
pub trait Wanted: Clone + PartialEq + Send + Sync {
    const BOOKS: Books;
    /// What there is.
    type Found: Send + Sync;

    fn find(migrator: &mut Migrator) -> impl Future<Output = Result<Self::Found, DatabaseError>> + Send;
    /// The names of steps that the ledger has as unfinished, and whose work is there.
    fn finished(there: &Self::Found) -> Vec<String>;
    /// The plans to be carried out.
    fn to_run(wanted: &[Self], there: &Self::Found) -> Vec<Plan>;
}

impl Wanted for indexes::Wanted {
    const BOOKS: Books = PROJECTIONS;
    type Found = Catalog;

    async fn find(migrator: &mut Migrator) -> Result<Catalog, DatabaseError> {
        migrator.catalog().await
    }

    fn finished(there: &Catalog) -> Vec<String> {
        indexes::finished(there)
    }

    fn to_run(wanted: &[Self], there: &Catalog) -> Vec<Plan> {
        indexes::to_run(wanted, there)
    }
}

impl Wanted for series::Wanted {
    const BOOKS: Books = SERIES;
    type Found = series::Tables;

    async fn find(migrator: &mut Migrator) -> Result<series::Tables, DatabaseError> {
        migrator.series().await
    }

    /// A step and its row of the ledger are one transaction.
    fn finished(_: &series::Tables) -> Vec<String> {
        Vec::new()
    }

    fn to_run(wanted: &[Self], there: &series::Tables) -> Vec<Plan> {
        series::to_run(wanted, there)
    }
}

/// What a look found to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work<W> {
    pub wanted: Vec<W>,
    /// The hashes of the plans that are outstanding; none: nothing is to be done.
    pub outstanding: Vec<String>,
}

impl<W> Default for Work<W> {
    fn default() -> Self {
        Self { wanted: Vec::new(), outstanding: Vec::new() }
    }
}

/// How the work goes, as far as the ledger does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Going {
    /// Steps that were taken or refused: it changed something, look again.
    pub steps: u64,
    /// Why nothing can be done at the moment.
    pub trouble: Option<String>,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Done,
    /// The database refused some step.
    Refused,
    /// Another process migrates.
    Busy,
    /// What is wanted has changed meanwhile.
    Changed,
}

/// Runs for ever; drop it to stop. Works for the seat with this badge.
pub async fn keep<W: Wanted>(
    database: PgConnectOptions,
    badge: Badge,
    mut work: watch::Receiver<Work<W>>,
    going: watch::Sender<Going>,
) {
    let mut failures = 0;
    loop {
        let now = work.borrow_and_update().clone();
        if now.outstanding.is_empty() {
            failures = 0;
            going.send_if_modified(|going| going.trouble.take().is_some());
            if work.changed().await.is_err() {
                return;
            }
            continue;
        }
        let ended = round(&database, &badge, &now.wanted, &work, &going).await;
        let trouble = ended.as_ref().err().map(|error| Chain(error).to_string());
        let pause = match &ended {
            Ok(Round::Changed) => Duration::ZERO,
            Ok(Round::Busy) => BUSY,
            Ok(Round::Done) => EVERY,
            Ok(Round::Refused) | Err(_) => backoff::delay(failures, rand::random()),
        };
        failures = if matches!(ended, Ok(Round::Refused) | Err(_)) { failures + 1 } else { 0 };
        if let Some(error) = &trouble {
            warn!(error, retry_in_ms = pause.as_millis(), "cannot migrate tables");
        }
        going.send_if_modified(|before| {
            let changed = before.trouble != trouble;
            before.trouble = trouble;
            changed
        });
        tokio::select! {
            () = sleep(pause) => {}
            changed = work.changed() => if changed.is_err() { return },
        }
    }
}

/// Takes every step that is outstanding, those of a plan until one is refused.
async fn round<W: Wanted>(
    database: &PgConnectOptions,
    badge: &Badge,
    wanted: &[W],
    work: &watch::Receiver<Work<W>>,
    going: &watch::Sender<Going>,
) -> Result<Round, DatabaseError> {
    let mut migrator = Migrator::connect(database.clone(), badge.clone(), W::BOOKS).await?;
    if !migrator.lock().await? {
        return Ok(Round::Busy);
    }
    for step in W::finished(&W::find(&mut migrator).await?) {
        migrator.finish(&step).await?;
        info!(step, "a step of a migration was done by a process that did not live to note it");
        going.send_modify(|going| going.steps += 1);
    }
    let mut refused = false;
    for plan in W::to_run(wanted, &W::find(&mut migrator).await?) {
        for step in &plan.steps {
            if work.borrow().wanted != wanted {
                return Ok(Round::Changed);
            }
            let taken = migrator.take(&plan, step).await?;
            tell(&plan, step, &taken);
            going.send_modify(|going| going.steps += 1);
            if taken.is_err() {
                refused = true;
                break;
            }
        }
    }
    Ok(if refused { Round::Refused } else { Round::Done })
}

fn tell(plan: &Plan, step: &Step, taken: &Result<(), String>) {
    let projection = &plan.projection_type;
    match taken {
        Ok(()) => {
            metrics::counter!("cornjacket_controllers_migration_steps_total").increment(1);
            info!(projection, step = step.name, statement = step.statement, "migrated: {}", step.purpose);
        }
        Err(error) => {
            metrics::counter!("cornjacket_controllers_migration_failures_total").increment(1);
            warn!(projection, step = step.name, error, "cannot {}: it is tried again", step.purpose);
        }
    }
}
