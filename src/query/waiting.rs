//! Waits until a projection has passed an event, or the time is up.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::events::store::locate;
use super::store::progress;
use super::wait::{Place, Whereabouts, passed};
use super::{Query, QueryError, series};
use crate::registry::LoadedSeries;

/// Between two looks: the first, and the longest.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(200);

/// Returns when the rows of the projection have what the event means for them. A projection that does not read such
/// events, or that is not registered (any more), is not waited for.
///
/// # Errors
/// The event is unknown, the time is up, too many wait, or the database failed.
pub async fn until_passed(
    query: &Query,
    projection_type: &str,
    event_id: Uuid,
    limit: Duration,
) -> Result<(), QueryError> {
    let _permit = query.waiter_permit()?;
    let deadline = Instant::now() + limit;
    let mut state = String::from(IN_OUTBOX);
    let waiting = async {
        let place = until_stored(query, event_id).await?;
        until_folded(query, projection_type, &place, &mut state).await
    };
    match timeout_at(deadline, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(QueryError::NotPassed { projection_type: projection_type.to_owned(), event_id, waited: limit, state })
        }
    }
}

const IN_OUTBOX: &str = "the event is still in the outbox";

/// The same for a time series: returns when its table has what the event means for it.
///
/// # Errors
/// As [`until_passed`].
pub async fn until_written(
    query: &Query,
    loaded: &LoadedSeries,
    event_id: Uuid,
    limit: Duration,
) -> Result<(), QueryError> {
    let _permit = query.waiter_permit()?;
    let deadline = Instant::now() + limit;
    let mut state = IN_OUTBOX;
    let waiting = async {
        let place = until_stored(query, event_id).await?;
        state = "the writer of the time series has not come to it";
        let mut pause = SHORTEST;
        while loaded.spec.source.matches(&place.event_type)
            && series::store::position(query.series(), &loaded.series.table, place.shard).await? < place.position
        {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
        Ok(())
    };
    let ended = timeout_at(deadline, waiting).await;
    ended.unwrap_or_else(|_| {
        let (projection_type, state) = (loaded.spec.projection_type.clone(), state.to_owned());
        Err(QueryError::NotPassed { projection_type, event_id, waited: limit, state })
    })
}

async fn until_stored(query: &Query, event_id: Uuid) -> Result<Place, QueryError> {
    let mut pause = SHORTEST;
    let mut news = query.event_news();
    loop {
        match locate(query.events(), event_id).await? {
            Whereabouts::Stored(place) => return Ok(place),
            Whereabouts::Unknown => return Err(QueryError::UnknownEvent(event_id)),
            Whereabouts::Accepted => {}
        }
        tokio::select! {
            Ok(()) = news.changed() => {}
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST);
    }
}

async fn until_folded(
    query: &Query,
    projection_type: &str,
    place: &Place,
    state: &mut String,
) -> Result<(), QueryError> {
    let mut pause = SHORTEST;
    let mut news = query.projection_news(projection_type);
    loop {
        let catalog = query.catalog();
        let registered = catalog.projections.get(projection_type);
        if registered.is_some_and(|p| !p.spec.source.matches(&place.event_type)) {
            return Ok(());
        }
        let topic = catalog.topic_for(&place.event_type);
        match progress(query.projections(), projection_type, place, topic).await? {
            Some(progress) if passed(&progress, place.position) => return Ok(()),
            Some(progress) if progress.status == "removed" && registered.is_none() => return Ok(()),
            Some(progress) => *state = format!("the projection is {}", progress.status),
            None if registered.is_none() => return Ok(()),
            None => "the handler has not taken it up yet".clone_into(state),
        }
        tokio::select! {
            Ok(()) = news.changed() => {}
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST);
    }
}
