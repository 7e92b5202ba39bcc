//! Objects of the charts whose kinds others define (Traefik, the Prometheus operator). No API server of the tests knows them:
//! their definitions are thousands of lines of others, and change with these. So what they require of what the chart uses
//! is listed here.

use serde_json::Value;

use super::charts::{EVERYTHING, render};

/// Kind, version, and what has to be there; `[]` stands for each of a list.
const REQUIRED: [(&str, &str, &[&str]); 3] = [
    (
        "IngressRoute",
        "traefik.io/v1alpha1",
        &[
            "spec.routes[].match",
            "spec.routes[].services[].name",
            "spec.routes[].services[].port",
            "spec.routes[].middlewares[].name",
        ],
    ),
    ("ServiceMonitor", "monitoring.coreos.com/v1", &["spec.selector.matchLabels", "spec.endpoints[].port"]),
    (
        "PrometheusRule",
        "monitoring.coreos.com/v1",
        &["spec.groups[].name", "spec.groups[].rules[].alert", "spec.groups[].rules[].expr"],
    ),
];

/// The values that a path leads to; what is not there, and an empty list, is null.
fn at<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    path.split('.').fold(vec![object], |found, part| {
        let values = |name: &str| found.iter().map(|value| &value[name]).collect::<Vec<_>>();
        let Some(name) = part.strip_suffix("[]") else { return values(part) };
        let elements = |list: &'a Value| match list.as_array() {
            Some(list) if !list.is_empty() => list.iter().collect(),
            _ => vec![&Value::Null],
        };
        values(name).into_iter().flat_map(elements).collect()
    })
}

#[test]
fn objects_of_foreign_kinds_have_what_their_definitions_require() {
    let objects = render("cornjacket", "somewhere", &EVERYTHING);
    for (kind, version, paths) in REQUIRED {
        let of_kind: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind).collect();
        let [object] = of_kind[..] else { panic!("{} of {kind}", of_kind.len()) };
        assert_eq!(object["apiVersion"], version, "{kind}");
        for path in paths {
            let found = at(object, path);
            let is_there = |value: &&Value| !value.is_null() && **value != "";
            assert!(found.iter().all(is_there), "{kind}: {path} is missing somewhere in {object}");
        }
    }
    assert_eq!(at(&objects[0], "spec.nothing[].name"), [&Value::Null], "what is missing is found to be");
}
