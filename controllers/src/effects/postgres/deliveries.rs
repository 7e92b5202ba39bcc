//! What the actions database knows of endpoints, and the deliveries of an action that is deleted.

use std::collections::BTreeMap;

use super::rows::read_endpoint;
use super::{DatabaseError, Deletion, Seat, failed};
use crate::webhook_action::status::Endpoint;

/// Deliveries that are deleted at a time, their attempts with them.
const PAGE: i64 = 2_000;

impl Seat {
    /// What is known of the endpoint of each action, where this is the database of the deliveries.
    pub async fn endpoints(&mut self) -> Result<BTreeMap<String, Endpoint>, DatabaseError> {
        let doing = "read what is known of endpoints";
        if !self.is_of_actions || !self.has_deliveries(doing).await? {
            return Ok(BTreeMap::new());
        }
        let rows = sqlx::query(
            "SELECT action, CASE WHEN state = 'disabled' THEN coalesce(reason, 'no reason is given') END AS disabled, gone,
                    healthy, message FROM action_config",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed(doing))?;
        rows.iter().map(read_endpoint).collect::<Result<_, _>>().map_err(failed(doing))
    }

    /// Deletes the deliveries of an action that is no longer registered, some at a time. What a process that is alive has under
    /// way ends first: were its row gone, nobody could say what became of it.
    pub async fn delete_deliveries(&mut self, action: &str) -> Result<Deletion, DatabaseError> {
        let doing = "delete the deliveries of an action";
        if !self.has_deliveries(doing).await? {
            return Ok(Deletion::Done);
        }
        let (alive, held): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM instance WHERE role = 'act' AND heartbeat_at > now() - interval '15 seconds'),
                    EXISTS (SELECT FROM action_config WHERE action = $1)",
        )
        .bind(action)
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed(doing))?;
        let deleted = sqlx::query(
            "DELETE FROM delivery WHERE delivery_id IN
             (SELECT delivery_id FROM delivery WHERE action = $1 AND (claimed_by IS NULL OR NOT $2) LIMIT $3
              FOR UPDATE SKIP LOCKED)",
        )
        .bind(action)
        .bind(alive)
        .bind(PAGE)
        .execute(&mut self.connection)
        .await
        .map_err(failed(doing))?;
        if deleted.rows_affected() > 0 {
            return Ok(Deletion::More);
        }
        // Who delivers forgets the endpoint last, when nothing of it waits or is under way any more.
        if held && alive {
            return Ok(Deletion::Fed);
        }
        sqlx::query("DELETE FROM action_config WHERE action = $1")
            .bind(action)
            .execute(&mut self.connection)
            .await
            .map_err(failed(doing))?;
        Ok(Deletion::Done)
    }

    async fn has_deliveries(&mut self, doing: &'static str) -> Result<bool, DatabaseError> {
        sqlx::query_scalar("SELECT to_regclass('delivery') IS NOT NULL AND to_regclass('action_config') IS NOT NULL")
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed(doing))
    }
}
