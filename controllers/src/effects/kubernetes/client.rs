//! A client of the API server that counts what it asks.

use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::util::MapRequestLayer;

/// Every request counts, answered or not, in `cornjacket_controllers_api_requests_total`.
pub fn connect(config: Config) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapRequestLayer::new(counted)).build())
}

fn counted(request: Request<Body>) -> Request<Body> {
    let (verb, resource) = named(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
    metrics::counter!("cornjacket_controllers_api_requests_total", "verb" => verb, "resource" => resource).increment(1);
    request
}

/// Verb and resource, as RBAC names them. What is no resource is `other`.
fn named(method: &Method, path: &str, query: &str) -> (&'static str, String) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let versions = match parts.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return (verb(method, true, query), "other".to_owned()),
    };
    let mut parts: Vec<&str> = parts.skip(versions).collect();
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts.drain(..2);
    }
    let resource = match parts[..] {
        [] => "other".to_owned(),
        [resource] | [resource, _] => resource.to_owned(),
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
    };
    (verb(method, parts.len() > 1, query), resource)
}

fn verb(method: &Method, is_named: bool, query: &str) -> &'static str {
    let watches = || query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    match *method {
        Method::GET if watches() => "watch",
        Method::GET if is_named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_as_in_rights() {
        let ours = "/apis/cornjacket.io/v1alpha1/namespaces/n/topics";
        let of = |method: Method, path: &str, query: &str| {
            let (verb, resource) = named(&method, path, query);
            format!("{verb} {resource}")
        };
        assert_eq!(of(Method::GET, ours, "limit=500"), "list topics");
        assert_eq!(of(Method::GET, ours, "&watch=true&timeoutSeconds=290"), "watch topics");
        assert_eq!(of(Method::GET, &format!("{ours}/a"), ""), "get topics");
        assert_eq!(of(Method::PATCH, &format!("{ours}/a/status"), "force=true"), "patch topics/status");
        assert_eq!(of(Method::POST, "/apis/events.k8s.io/v1/namespaces/n/events", ""), "create events");
        assert_eq!(of(Method::GET, "/api/v1/namespaces/n", ""), "get namespaces");
        assert_eq!(of(Method::GET, "/version", ""), "get other");
    }
}
