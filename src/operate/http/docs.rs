//! `/openapi.json` and `/docs`, a page to read it that loads nothing from elsewhere.

use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;

/// Renders whatever `/openapi.json` beside it says.
const PAGE: &str = include_str!("docs.html");
/// The page runs its own script and asks its own origin, nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

/// Serves a description (OpenAPI, as JSON) and the page.
pub fn docs(openapi: String) -> Router {
    let openapi = bytes::Bytes::from(openapi);
    let description = move || {
        let openapi = openapi.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], openapi).into_response() }
    };
    let page = || async { ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE)) };
    Router::new().route("/openapi.json", get(description)).route("/docs", get(page))
}
