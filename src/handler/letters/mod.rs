//! Dead letters of the handler: an event and the projection that could not fold it.

mod store;

pub(super) use self::store::folded_anew;
use crate::dead_letters::{EVENT_HANDLER, NewLetter};
use crate::event::StoredEvent;

/// The letter about an event that a projection of this definition could not fold.
pub(super) fn of<'a>(
    event: &StoredEvent,
    projection_type: &'a str,
    definition: &'a str,
    cause: &str,
    retries: i32,
) -> NewLetter<'a> {
    NewLetter {
        consumer: EVENT_HANDLER,
        subject: Some(projection_type),
        event_id: Some(event.event_id),
        event_payload: event.envelope(),
        cause: format!("projection {projection_type}: {cause}").replace('\0', "\u{fffd}"),
        retries,
        place: Some((event.shard, event.position)),
        definition: Some(definition),
    }
}
