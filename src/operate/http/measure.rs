//! Metrics of an HTTP service: requests by route and status, and how long an answer took to begin.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

/// Counts and times every request of these routes. `service` is the role: `ingest`, `query`, ….
pub fn measured(routes: Router, service: &'static str) -> Router {
    routes.layer(from_fn(move |request, next| measure(service, request, next)))
}

async fn measure(service: &'static str, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let start = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    let labels = [("service", service.to_owned()), ("route", route), ("method", method.to_owned())];
    metrics::histogram!("cornjacket_http_request_duration_seconds", &labels).record(start.elapsed().as_secs_f64());
    metrics::counter!("cornjacket_http_requests_total", "service" => service, "route" => labels[1].1.clone(),
        "method" => method, "status" => status)
    .increment(1);
    response
}

/// A closed set: a caller's own methods must not become labels.
fn known(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
