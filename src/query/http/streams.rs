//! Server-Sent Events: a projection as it changes, and the event store as it grows.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as QueryString, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use futures::stream::unfold;
use serde::Serialize;

use super::parameters::{Parameters, checked_name};
use super::projections::unreadable;
use crate::operate::http::Problem;
use crate::query::events::stream::{EventStream, Item as EventItem, Start as EventStart};
use crate::query::events::{Beginning, Wanted};
use crate::query::store::Selection;
use crate::query::stream::{Item, ProjectionStream, Start};
use crate::query::{Query, QueryError};

/// Keeps idle connections open through proxies.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Proxies that buffer answers hold a stream back; this header tells nginx not to.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// A projection as it changes (Server-Sent Events)
///
/// `event: projection` with the row as data: the newest state of every key that changed, intermediate states
/// coalesced. Come back with the id of the last event as `Last-Event-ID` (browsers do it by themselves) to go on
/// where the connection broke: no key's newest state is missed, none comes twice. `event: reset` says that the id is
/// not of this database as it stands; all rows follow. Rows that are deleted are not told.
#[utoipa::path(
    get, path = "/api/v1/projections/{projection_type}/stream", operation_id = "stream_projection", tag = "Projections",
    params(
        ("projection_type" = String, Path, description = "For example sensor_state"),
        ("aggregate_id" = Option<String>, Query, description = "Only this aggregate"),
        ("filter" = Option<Vec<String>>, Query, description = "As for the rows of a projection"),
        ("from" = Option<String>, Query, description = "now (default): changes only; snapshot: all rows first"),
        ("last_event_id" = Option<String>, Query, description = "As the header, for clients that cannot set it"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received"),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter or Last-Event-ID"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Too many streams are open"),
    ),
)]
pub async fn projection(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    QueryString(pairs): QueryString<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, QueryError> {
    let Path(projection_type) = path.map_err(|e| unreadable(&e))?;
    let parameters = Parameters::new(pairs, &["aggregate_id", "filter", "from", "last_event_id"])?;
    let projection_type = checked_name("projection_type", &projection_type)?;
    let (conditions, filters) = parameters.filters()?;
    let from = match parameters.get("from") {
        None | Some("now") => Start::Now,
        Some("snapshot") => Start::Snapshot,
        Some(text) => return Err(QueryError::parameter("from", text, "must be now or snapshot")),
    };
    let start = last_event_id(&headers, &parameters)?.map_or(from, Start::Behind);
    let selection = Selection { projection_type, aggregate_id: parameters.name("aggregate_id")?, conditions };
    let stream = ProjectionStream::open(query, selection, &filters, start).await?;
    let items = unfold(stream, |mut stream| async {
        let item = stream.next().await?;
        Some((Ok(sent_projection(item)), stream))
    });
    Ok(answer(items))
}

fn sent_projection(item: Item) -> Sent {
    match item {
        // An id without data: the client keeps it, and nobody is told.
        Item::Position(id) => Sent::default().id(id),
        Item::Reset => Sent::default().event("reset").data("{}"),
        Item::Projection(row, id) => data("projection", &row, id),
    }
}

/// The event store as it grows (Server-Sent Events)
///
/// `event: event` with the event as data. Events of an aggregate come in order; events of different aggregates come
/// roughly in the order of acceptance. Come back with the id of the last one as `Last-Event-ID` to go on where the
/// connection broke. `event: end` ends a stream that does not follow.
#[utoipa::path(
    get, path = "/api/v1/events/stream", operation_id = "stream_events", tag = "Events",
    params(
        ("event_type" = Option<String>, Query, description = "Only events of this type"),
        ("aggregate_id" = Option<String>, Query, description = "Only events of this aggregate"),
        ("from" = Option<String>, Query, description = "now (default), earliest, a time such as 2026-01-31T12:00:00Z (what was accepted since), or an event id"),
        ("follow" = Option<bool>, Query, description = "true (default): go on with what comes; false: end where the event store ends now"),
        ("last_event_id" = Option<String>, Query, description = "As the header, for clients that cannot set it"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received"),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter or Last-Event-ID"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Too many streams are open"),
    ),
)]
pub async fn events(
    State(query): State<Query>,
    QueryString(pairs): QueryString<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, QueryError> {
    let known = ["event_type", "aggregate_id", "from", "follow", "last_event_id"];
    let parameters = Parameters::new(pairs, &known)?;
    let wanted = Wanted { event_type: parameters.name("event_type")?, aggregate_id: parameters.name("aggregate_id")? };
    let from = EventStart::At(parameters.parsed("from")?.unwrap_or(Beginning::Now));
    let start = last_event_id(&headers, &parameters)?.map_or(from, EventStart::Behind);
    let stream = EventStream::open(query, wanted, start, parameters.flag("follow", true)?).await?;
    let items = unfold(stream, |mut stream| async {
        let item = stream.next().await?;
        Some((Ok(sent_event(item)), stream))
    });
    Ok(answer(items))
}

fn sent_event(item: EventItem) -> Sent {
    match item {
        EventItem::Position(id) => Sent::default().id(id),
        EventItem::End => Sent::default().event("end").data("{}"),
        EventItem::Event(event, id) => data("event", &event, id),
    }
}

fn data<T: Serialize>(name: &str, value: &T, id: String) -> Sent {
    let text = serde_json::to_string(value).unwrap_or_default();
    Sent::default().event(name).id(id).data(text)
}

fn answer(items: impl Stream<Item = Result<Sent, Infallible>> + Send + 'static) -> Response {
    ([UNBUFFERED], Sse::new(items).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat"))).into_response()
}

/// The header, else the parameter. An empty one is none.
fn last_event_id(headers: &HeaderMap, parameters: &Parameters) -> Result<Option<String>, QueryError> {
    let header = headers.get("last-event-id");
    let header = header.map(|value| value.to_str().map_err(|_| QueryError::BadEventId("not text".to_owned())));
    let id = header.transpose()?.or_else(|| parameters.get("last_event_id"));
    Ok(id.filter(|id| !id.is_empty()).map(str::to_owned))
}
