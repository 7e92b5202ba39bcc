//! What is registered: read as far as it is not known yet, and written in few statements.

use std::collections::HashSet;
use std::sync::Arc;

use crds::registration::ResourceKey;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection};

use super::rows::{Head, read_head, read_spec};
use super::{DatabaseError, Seat, failed, migrations, secrets};
use crate::crash;
use crate::plan::{Registered, Registrations, Step};
use crate::projection::migration::{Plan, Way};
use crate::resolve::Form;
use crate::webhook_action::vault::Change;

/// Rows that are written, or whose specs are read, in one statement.
const ROWS: usize = 500;

impl Seat {
    /// Everything registered, with the tombstones: their generations go on. A spec that is known by its hash is not read
    /// again.
    pub async fn registered(&mut self) -> Result<Arc<Registrations>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT kind, name, generation, hash::text AS hash, state = 'active' AS active
             FROM registration WHERE namespace = $1",
        )
        .bind(&self.namespace)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read registrations"))?;
        let read = |row: &PgRow| read_head(row, &self.namespace);
        let heads = rows.iter().filter_map(|row| read(row).transpose()).collect::<Result<Vec<_>, _>>();
        let heads = heads.map_err(failed("read registrations"))?;
        let new: Vec<&Head> = heads.iter().filter(|head| !self.knows(head)).collect();
        let mut specs = Vec::with_capacity(new.len());
        for some in new.chunks(ROWS) {
            specs.extend(self.specs(some).await?);
        }
        self.learn(&heads, specs);
        Ok(self.known.clone())
    }

    fn knows(&self, head: &Head) -> bool {
        self.known.get(&head.key).is_some_and(|row| row.hash == head.hash)
    }

    async fn specs(&mut self, of: &[&Head]) -> Result<Vec<(ResourceKey, Registered)>, DatabaseError> {
        let kinds: Vec<&str> = of.iter().map(|head| head.key.kind.as_str()).collect();
        let names: Vec<&str> = of.iter().map(|head| head.key.name.as_str()).collect();
        let rows = sqlx::query(
            "SELECT kind, name, generation, hash::text AS hash, state = 'active' AS active, spec FROM registration
             WHERE namespace = $1 AND (kind, name) IN (SELECT * FROM unnest($2::text[], $3::text[]))",
        )
        .bind(&self.namespace)
        .bind(kinds)
        .bind(names)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read registrations"))?;
        let read = |row: &PgRow| read_spec(row, &self.namespace);
        rows.iter()
            .filter_map(|row| read(row).transpose())
            .collect::<Result<_, _>>()
            .map_err(failed("read registrations"))
    }

    /// Copies nothing where nothing changed.
    fn learn(&mut self, heads: &[Head], specs: Vec<(ResourceKey, Registered)>) {
        let present = heads.len();
        let same = |row: &Registered, head: &Head| row.generation == head.generation && row.active == head.active;
        let changed: Vec<&Head> =
            heads.iter().filter(|head| self.known.get(&head.key).is_none_or(|row| !same(row, head))).collect();
        if changed.is_empty() && specs.is_empty() && self.known.len() == present {
            return;
        }
        let known = Arc::make_mut(&mut self.known);
        for head in changed {
            if let Some(row) = known.get_mut(&head.key) {
                (row.generation, row.active) = (head.generation, head.active);
            }
        }
        known.extend(specs);
        if known.len() != present {
            let present: HashSet<&ResourceKey> = heads.iter().map(|head| &head.key).collect();
            known.retain(|key, _| present.contains(key));
        }
    }

    /// Carries steps out in one transaction, with the sealed values that they need, and wakes the data plane. The ledger gets
    /// the steps of `plans` that come true by it: what the handler will do to rows.
    pub async fn apply(&mut self, steps: &[Step], changes: &[Change], plans: &[Plan]) -> Result<(), DatabaseError> {
        let (mut registered, mut removed) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Keep { .. } => {}
                Step::Register { key, generation, form } => registered.push((key, *generation, form)),
                Step::Remove { key } => removed.push(key),
            }
        }
        if registered.is_empty() && removed.is_empty() && changes.is_empty() {
            return Ok(());
        }
        let namespace = self.namespace.clone();
        let mut transaction = self.connection.begin().await.map_err(failed("begin a transaction"))?;
        for some in registered.chunks(ROWS) {
            register(&mut transaction, &namespace, some).await?;
        }
        for some in removed.chunks(ROWS) {
            remove(&mut transaction, &namespace, some).await?;
        }
        for change in changes {
            secrets::change(&mut transaction, &namespace, change).await?;
        }
        for plan in plans {
            crash::point("migration.registration");
            for step in plan.steps.iter().filter(|step| step.way == Way::Registration) {
                migrations::note(&mut transaction, migrations::PROJECTIONS, plan, step, ("done", None))
                    .await
                    .map_err(failed("write the ledger"))?;
            }
        }
        sqlx::query("SELECT pg_notify('cornjacket_registration', '')")
            .execute(&mut *transaction)
            .await
            .map_err(failed("wake the data plane"))?;
        transaction.commit().await.map_err(failed("commit registrations"))
    }
}

async fn register(
    connection: &mut PgConnection,
    namespace: &str,
    rows: &[(&ResourceKey, i64, &Form)],
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO registration (namespace, kind, name, generation, hash, spec, state)
         SELECT $1, kind, name, generation, hash, spec, 'active'
         FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[])
              AS new (kind, name, generation, hash, spec)
         ON CONFLICT (namespace, kind, name) DO UPDATE SET generation = excluded.generation, hash = excluded.hash,
         spec = excluded.spec, state = 'active', updated_at = now(),
         topic_claimed = registration.topic_claimed AND registration.state = 'active'",
    )
    .bind(namespace)
    .bind(rows.iter().map(|(key, ..)| key.kind.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(key, ..)| key.name.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, generation, _)| *generation).collect::<Vec<_>>())
    .bind(rows.iter().map(|(.., form)| form.digest()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(.., form)| sqlx::types::Json(&***form)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(failed("write registrations"))?;
    Ok(())
}

async fn remove(connection: &mut PgConnection, namespace: &str, keys: &[&ResourceKey]) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE registration SET state = 'removed', updated_at = now()
         WHERE namespace = $1 AND state = 'active' AND (kind, name) IN (SELECT * FROM unnest($2::text[], $3::text[]))",
    )
    .bind(namespace)
    .bind(keys.iter().map(|key| key.kind.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(failed("remove registrations"))?;
    Ok(())
}
