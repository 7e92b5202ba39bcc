//! This interface, described for `GET /openapi.json`.

use utoipa::OpenApi;

use super::{batch, event, event_types};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cornjacket ingestion",
        description = "Events in. An event is answered with 202 only after it is stored; every refusal names the field, \
            its value and the rule.",
    ),
    paths(event::post, batch::post, event_types::list, event_types::one),
    tags((name = "ingest", description = "Events in"))
)]
struct Description;

/// The description of what [`super::routes`] serves.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_route_is_described() {
        let description = super::openapi();
        let paths: Vec<_> = description.paths.paths.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            ["/api/v1/event-types", "/api/v1/event-types/{event_type}", "/api/v1/events", "/api/v1/events/batch"]
        );
    }
}
