//! Events as expressions see them: for every room that evaluates any.

use crds::language::expression::{EventParts, event_value};

use crate::event::StoredEvent;

/// The variable `event`.
pub fn event(event: &StoredEvent) -> cel::Value {
    event_value(&EventParts {
        event_id: &event.event_id.to_string(),
        event_type: &event.event_type,
        aggregate_id: &event.aggregate_id,
        timestamp: event.timestamp,
        ingested_at: event.ingested_at,
        payload: &event.payload,
        metadata: &event.metadata,
    })
}
