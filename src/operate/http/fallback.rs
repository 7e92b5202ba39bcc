//! What answers where nothing else does: errors have one form on every port.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::json;

use super::problem;

/// Adds answers for paths and methods that are not served.
pub fn with_fallbacks(routes: Router) -> Router {
    routes.fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

async fn no_such_path(uri: Uri) -> Response {
    refusal(StatusCode::NOT_FOUND, "no such path", &format!("{} is not served on this port", shown(uri.path())))
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    let detail = format!("{} does not take {}", shown(uri.path()), shown(method.as_str()));
    refusal(StatusCode::METHOD_NOT_ALLOWED, "no such method", &detail)
}

fn refusal(status: StatusCode, title: &str, detail: &str) -> Response {
    let kind = format!("urn:cornjacket:problem:{}", title.replace(' ', "-"));
    let body = json!({"error": detail, "type": kind, "title": title, "status": status.as_u16(), "detail": detail});
    problem(status, &body, None)
}

/// A caller's text, cut to what a message can hold.
fn shown(text: &str) -> String {
    text.chars().take(120).collect()
}
