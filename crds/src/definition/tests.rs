use std::path::Path;

use super::*;

fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&Value, &str)) {
    visit(schema, path);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            walk(&schema[part], &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn generated_files_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
    for kind in Kind::ALL {
        let file = folder.join(format!("{}.yaml", kind.as_str().to_lowercase()));
        let stored = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(stored == yaml(kind), "{} is stale: run `cornjacket crd --write crds/generated`", file.display());
    }
    let reasons = std::fs::read_to_string(folder.join("reasons.md")).unwrap_or_default();
    assert!(reasons == crate::reason::table(), "reasons.md is stale: run `cornjacket crd --write crds/generated`");
}

#[test]
fn every_field_however_deep_is_described_in_words_and_none_is_unsigned_or_nullable() {
    for kind in Kind::ALL {
        walk(&schema(kind), kind.as_str(), &mut |field, path| {
            let standard =
                ["apiVersion", "kind", "metadata"].iter().any(|name| path.ends_with(&format!("{kind}.{name}")));
            let element = path.ends_with("[]");
            let words = field["description"].as_str().unwrap_or_default().split_whitespace().count();
            assert!(standard || element || words >= 3, "{path} is described in {words} words");
            let format = field["format"].as_str().unwrap_or_default();
            assert!(!format.starts_with("uint"), "{path}: {format}");
            assert!(field.get("nullable").is_none() || path == "Topic.spec.config[]", "{path} is nullable");
            assert!(field.get("anyOf").is_none() && field.get("oneOf").is_none(), "{path} is not structural");
        });
    }
}

#[test]
fn nothing_has_a_default_but_the_status() {
    for kind in Kind::ALL {
        walk(&schema(kind), kind.as_str(), &mut |field, path| {
            let expected = (path == format!("{kind}.status")).then(|| json!({"observedGeneration": -1}));
            assert_eq!(field.get("default"), expected.as_ref(), "{path}");
        });
    }
}

#[test]
fn what_people_write_is_bounded() {
    for kind in Kind::ALL {
        walk(&schema(kind)["properties"]["spec"], "spec", &mut |field, path| {
            let bounded = match field["type"].as_str() {
                Some("string") => field["enum"].is_array() || field["maxLength"].is_i64(),
                Some("array") => field["maxItems"].is_i64(),
                Some("integer") => field["minimum"].is_i64() && field["maximum"].is_i64(),
                Some("object") if field["additionalProperties"].is_object() => field["maxProperties"].is_i64(),
                _ => true,
            };
            assert!(bounded, "{kind} {path} has no bound");
        });
    }
}

#[test]
fn names_columns_and_subresources_are_as_people_expect() {
    for (kind, short) in
        [(Kind::Topic, "tp"), (Kind::EventType, "et"), (Kind::Projection, "proj"), (Kind::WebhookAction, "wha")]
    {
        let definition = definition(kind);
        let spec = &definition["spec"];
        assert_eq!(spec["group"], crate::shared::GROUP);
        assert_eq!(spec["scope"], "Namespaced");
        assert_eq!(spec["names"]["shortNames"], json!([short]));
        assert_eq!(spec["names"]["categories"], json!(["cornjacket"]));
        let version = &spec["versions"][0];
        assert_eq!(version["name"], crate::shared::VERSION);
        assert!(version["subresources"]["status"].is_object());
        assert_eq!(version["subresources"]["scale"].is_object(), kind == Kind::Projection);
        let columns: Vec<_> = version["additionalPrinterColumns"].as_array().expect("columns").iter().collect();
        assert_eq!((&columns[0]["name"], &columns[1]["name"]), (&json!("READY"), &json!("REASON")));
        let wide: Vec<_> = columns.iter().filter(|c| c["priority"] == 1).filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(wide, if kind == Kind::Projection { vec!["REBUILT", "MESSAGE"] } else { vec!["MESSAGE"] });
        assert!(columns.iter().any(|c| c["name"] == "AGE"));
    }
}
