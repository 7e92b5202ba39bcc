//! Whether the service does its work: both databases answer and have their tables.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Query, events, failure, store};
use crate::operate::Gate;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Longest look.
const LOOK: Duration = Duration::from_secs(3);

/// Opens and closes the gate, until the service stops. A change is logged once.
///
/// # Errors
/// None: it returns when stopped.
pub(super) async fn watch(query: Query, gate: Gate) -> Result<(), Infallible> {
    let mut last = Some("connecting".to_owned());
    loop {
        let now = tokio::select! {
            now = pending(&query) => now,
            () = query.stop().cancelled() => return Ok(()),
        };
        match &now {
            None => gate.open(),
            Some(why) => gate.close(why),
        }
        match (&now, last == now) {
            (None, false) => info!("query serves"),
            (Some(why), false) => warn!(%why, "query cannot serve"),
            _ => {}
        }
        last = now;
        tokio::select! {
            () = sleep(EVERY) => {}
            () = query.stop().cancelled() => return Ok(()),
        }
    }
}

/// What is being waited for.
async fn pending(query: &Query) -> Option<String> {
    let (projections, events) = tokio::join!(
        timeout(LOOK, store::probe(query.projections())),
        timeout(LOOK, events::store::probe(query.events()))
    );
    if !matches!(projections, Ok(Ok(()))) {
        return Some(format!("projections: {}", failure(projections)));
    }
    (!matches!(events, Ok(Ok(())))).then(|| format!("event store: {}", failure(events)))
}
