//! Bodies of requests that change something.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::problem::BAD_PARAMETER;

/// A body that says that it is JSON: no form of a web page can send one, so no page that somebody looks at can change
/// anything. One that is left out stands for `{}`.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

/// Why a body is refused: 400, with a sentence that names what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadBody(String);

impl IntoResponse for BadBody {
    fn into_response(self) -> Response {
        BAD_PARAMETER.answer(self.0, None)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = BadBody;

    async fn from_request(request: Request, state: &S) -> Result<Self, BadBody> {
        let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !is_json(given) {
            let shown: String = given.chars().take(60).collect();
            return Err(BadBody(format!("content-type: '{shown}' must be application/json")));
        }
        let body = Bytes::from_request(request, state).await;
        read(&body.map_err(|error| BadBody(format!("the body: {}", error.body_text())))?).map(Self)
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadBody> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| BadBody(format!("the body: {error}")))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Why {
        reason: String,
    }

    #[test]
    fn no_form_of_a_web_page_is_json() {
        for given in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
        {
            assert!(!is_json(given), "{given}");
        }
        assert!(is_json("Application/JSON; charset=utf-8"));
    }

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        assert_eq!(read::<Why>(br#"{"reason":"a test"}"#).unwrap(), Why { reason: "a test".to_owned() });
        let said = |body: &str| read::<Why>(body.as_bytes()).unwrap_err().to_string();
        assert!(said("").starts_with("the body: missing field `reason`"), "{}", said(""));
        assert!(said(r#"{"reason":"","consumr":"relay"}"#).contains("unknown field `consumr`"));
        assert!(said("reason=x").starts_with("the body: expected value"), "{}", said("reason=x"));
    }
}
