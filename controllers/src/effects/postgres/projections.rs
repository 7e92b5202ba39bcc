//! The rows of projections as the controllers see them: how far the handler has come, and what may be lost.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::rows::read_progress;
use super::{DatabaseError, Seat, catalog, failed};
use crate::crash;
use crate::projection::migration::Catalog;
use crate::projection::migration::rows::History;
use crate::status::Progress;

/// Rows that are deleted at a time.
const PAGE: i64 = 5_000;

impl Seat {
    /// How far the handler has come with each projection, where this is its database.
    pub async fn progress(&mut self) -> Result<BTreeMap<String, Progress>, DatabaseError> {
        let present: bool = sqlx::query_scalar("SELECT to_regclass('projection_progress') IS NOT NULL")
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed("look for projection progress"))?;
        if !present {
            return Ok(BTreeMap::new());
        }
        let rows = sqlx::query(
            "SELECT projection_type, message, history_from, live_hash::text AS live_hash, target_hash::text AS target_hash,
                    live_history_from, beside, behind, (SELECT sum(c) FROM unnest(cursors) c)::bigint AS read,
                    CASE WHEN status = 'catching_up' AND NOT beside AND live_hash = target_hash AND behind < 4096
                         THEN 'following' ELSE status END AS status FROM projection_progress",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read projection progress"))?;
        rows.iter().map(read_progress).collect::<Result<_, _>>().map_err(failed("read projection progress"))
    }

    /// What this database has of the tables of projections, where it is the handler's.
    pub async fn catalog(&mut self) -> Result<Option<Catalog>, DatabaseError> {
        catalog::read(&mut self.connection).await
    }

    /// Whether a projection has rows.
    pub async fn has_rows(&mut self, projection_type: &str) -> Result<bool, DatabaseError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM projections WHERE projection_type = $1)")
            .bind(projection_type)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed("look for the rows of a projection"))
    }

    /// How much of the events this database still has; `None` where it has no event store.
    pub async fn history(&mut self) -> Result<Option<History>, DatabaseError> {
        let doing = "look how far the event store goes back";
        let present: bool = sqlx::query_scalar("SELECT to_regclass('event_store') IS NOT NULL")
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed(doing))?;
        if !present {
            return Ok(None);
        }
        // Positions have no gap and begin at 1: a question a shard, each answered by the index.
        let (whole, oldest): (bool, Option<DateTime<Utc>>) = sqlx::query_as(
            "SELECT NOT EXISTS (SELECT FROM outbox_shard h WHERE h.position > 0 AND (SELECT s.position FROM event_store s
                      WHERE s.shard = h.shard AND s.position = 1 LIMIT 1) IS NULL),
                    (SELECT ingested_at FROM event_store ORDER BY event_id LIMIT 1)",
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed(doing))?;
        Ok(Some(if whole { History::Whole } else { History::From(oldest) }))
    }

    /// Deletes the rows of a projection that is no longer registered, some at a time. How far it had come goes first: were rows
    /// left behind, and the projection made anew, it would read everything again and not take them for whole.
    pub async fn delete_projection(&mut self, projection_type: &str) -> Result<Deletion, DatabaseError> {
        let doing = "delete the rows of a projection";
        let (taken, fed): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM registration WHERE kind = 'Projection' AND state = 'active' AND spec->>'type' = $1),
                    EXISTS (SELECT FROM projection_progress WHERE projection_type = $1 AND status <> 'removed')
                AND EXISTS (SELECT FROM instance WHERE role = 'handle' AND heartbeat_at > now() - interval '15 seconds')",
        )
        .bind(projection_type)
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed(doing))?;
        if taken {
            // The rows are those of another resource, which had the name first.
            return Ok(Deletion::Done);
        }
        if fed {
            return Ok(Deletion::Fed);
        }
        sqlx::query("DELETE FROM projection_progress WHERE projection_type = $1")
            .bind(projection_type)
            .execute(&mut self.connection)
            .await
            .map_err(failed(doing))?;
        crash::point("progress deleted");
        let deleted = sqlx::query(
            "DELETE FROM projections WHERE projection_id IN
             (SELECT projection_id FROM projections WHERE projection_type = $1 LIMIT $2)",
        )
        .bind(projection_type)
        .bind(PAGE)
        .execute(&mut self.connection)
        .await
        .map_err(failed(doing))?;
        Ok(if deleted.rows_affected() > 0 { Deletion::More } else { Deletion::Done })
    }
}

/// How far a deletion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Done,
    /// There may be more rows.
    More,
    /// A process that is alive still feeds them.
    Fed,
}
