//! SQL of the handler's letters that is not every consumer's.

use sqlx::PgConnection;

use crate::dead_letters::EVENT_HANDLER;
use crate::handler::store::Progress;

/// Marks letters of a projection whose rows were built from the first event on by this definition, up to the progress's
/// cursors: events that it folded are in the rows now. Those that it could not fold have letters of its own. Events that
/// were gone before they could be read are in no row, and keep theirs.
pub async fn folded_anew(
    connection: &mut PgConnection,
    progress: &Progress,
    definition: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE dlq SET status = 'replayed', resolved_at = now(), reason = 'folded when the projection was built anew'
          WHERE consumer = $1 AND subject = $2 AND status = 'pending' AND definition IS DISTINCT FROM $3
            AND (position IS NULL OR position <= ($4::bigint[])[shard + 1])
            AND ($5::timestamptz IS NULL OR (event_payload->>'ingested_at')::timestamptz >= $5)",
    )
    .bind(EVENT_HANDLER)
    .bind(&progress.projection_type)
    .bind(definition)
    .bind(&progress.cursors)
    .bind(progress.history_from)
    .execute(connection)
    .await?;
    Ok(())
}
