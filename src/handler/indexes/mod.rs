//! Indexes on fields of the state, as projections declare them (`spec.indexes`).
//!
//! In: the catalog and the indexes that exist. Out: indexes, and rows of `projection_index` that say how far they are.
//! They are built beside everything else, by one process at a time; whatever fails is said and tried again, and events
//! are folded meanwhile as ever.

mod plan;
mod store;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::plan::{Declared, Step};
use crate::registry::Catalog;

/// How often it is looked at whether all is there; also after every change of the catalog.
const EVERY: Duration = Duration::from_secs(20);
/// A build reads the whole table once, and waits for older transactions.
const DEADLINE: Duration = Duration::from_hours(2);

pub(super) struct Indexes {
    pub pool: PgPool,
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

impl Indexes {
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut failing = false;
        // Before the first load the catalog is empty, which must not be taken for "no index is declared".
        let mut waited = stop.run_until_cancelled(self.catalog.changed()).await;
        while waited.is_some() {
            let declared = declared(&self.catalog.borrow_and_update());
            let round = timeout(DEADLINE, self.round(&declared));
            let Some(ended) = stop.run_until_cancelled(round).await else { break };
            match ended.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        warn!(%error, "cannot look after the indexes of projections: trying again until it can");
                    }
                    failing = true;
                }
            }
            let pause = async {
                tokio::select! {
                    changed = self.catalog.changed() => if changed.is_err() { sleep(EVERY).await; },
                    () = sleep(EVERY) => {}
                }
                Ok(())
            };
            waited = stop.run_until_cancelled(pause).await;
        }
        Ok(())
    }

    async fn round(&self, declared: &BTreeSet<Declared>) -> Result<(), sqlx::Error> {
        if !plan::plan(declared, &store::existing(&self.pool).await?).is_empty() {
            self.build(declared).await?;
        }
        let existing = store::existing(&self.pool).await?;
        let known = store::known(&self.pool).await?;
        for index in declared.iter().filter(|index| existing.get(&index.name()) == Some(&true)) {
            let is_noted = |row: &store::Known| is_about(row, index) && row.status == "built";
            if !known.iter().any(is_noted) {
                store::note(&self.pool, index, "built", None).await?;
            }
        }
        for row in known {
            let index = Declared { projection_type: row.projection_type, field: row.field };
            if !declared.contains(&index) {
                store::forget(&self.pool, &index).await?;
            }
        }
        Ok(())
    }

    /// Takes the steps, on a connection of its own that ends with them, and the lock with it.
    async fn build(&self, declared: &BTreeSet<Declared>) -> Result<(), sqlx::Error> {
        let options = self.pool.connect_options().as_ref().clone();
        let mut connection = options.options([("statement_timeout", "0")]).connect().await?;
        if store::lock(&mut connection).await? {
            for step in plan::plan(declared, &store::existing(&self.pool).await?) {
                self.take(&mut connection, &step).await?;
            }
        }
        // Whatever the goodbye brings, the connection is gone.
        let _ = connection.close().await;
        Ok(())
    }

    async fn take(&self, connection: &mut PgConnection, step: &Step) -> Result<(), sqlx::Error> {
        let index = match step {
            Step::Drop(name) => {
                store::drop(connection, name).await?;
                info!(index = name, "dropped an index that no projection declares any more, or that was half-built");
                return Ok(());
            }
            Step::Build(index) => index,
        };
        let (projection, field) = (&index.projection_type, &index.field);
        store::note(&self.pool, index, "building", None).await?;
        let Err(why) = self.make(connection, index).await else {
            counter!("cornjacket_handler_indexes_built_total").increment(1);
            info!(projection, field, "built the index on a field of the state");
            return store::note(&self.pool, index, "built", None).await;
        };
        counter!("cornjacket_handler_index_failures_total").increment(1);
        warn!(projection, field, error = why, "the index on a field of the state cannot be built: it is tried again");
        store::note(&self.pool, index, "failed", Some(&why)).await
    }

    /// Builds one index, or says why it is not there.
    async fn make(&self, connection: &mut PgConnection, index: &Declared) -> Result<(), String> {
        store::build(connection, index).await.map_err(|error| error.to_string())?;
        let existing = store::existing(&self.pool).await.map_err(|error| error.to_string())?;
        if existing.get(&index.name()) == Some(&true) {
            return Ok(());
        }
        Err(format!("something else in the database is named {}: rename or drop it", index.name()))
    }
}

fn declared(catalog: &Catalog) -> BTreeSet<Declared> {
    let of = |projection_type: &String, fields: &[String]| -> Vec<Declared> {
        let index = |field: &String| Declared { projection_type: projection_type.clone(), field: field.clone() };
        fields.iter().map(index).collect()
    };
    catalog.projections.iter().flat_map(|(name, loaded)| of(name, &loaded.spec.indexes)).collect()
}

fn is_about(row: &store::Known, index: &Declared) -> bool {
    row.projection_type == index.projection_type && row.field == index.field
}
