//! From registration rows to a catalog. Pure: rows and the previous load go in, the next load and a verdict per row
//! come out. A row that cannot be loaded keeps what was loaded for its key before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::language::schema::PayloadSchema;
use crds::registration::{Compiled, EventType, Kind, ResourceKey, Topic};
use serde::Deserialize;
use serde_json::Value;

use super::catalog::{Catalog, LoadedAction, LoadedEventType, LoadedProjection, LoadedSeries};
use crate::actions;
use crate::projection::Program;
use crate::time_series;

/// One active row of `registration`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: ResourceKey,
    pub generation: i64,
    pub hash: String,
    /// `None` where it was not read.
    pub spec: Option<Value>,
}

/// Whether a row runs here, to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub key: ResourceKey,
    pub hash: String,
    /// Why it does not run.
    pub outcome: Result<(), String>,
}

/// What is loaded, by resource.
#[derive(Default)]
pub struct Loaded {
    items: BTreeMap<ResourceKey, Item>,
    /// Who has what no two resources may share.
    claims: BTreeMap<(Kind, String), ResourceKey>,
}

#[derive(Clone)]
enum Item {
    EventType(Arc<LoadedEventType>),
    Topic { generation: i64, hash: String, spec: Topic },
    Projection(Arc<LoadedProjection>),
    Series(Arc<LoadedSeries>),
    WebhookAction(Arc<LoadedAction>),
}

impl Item {
    fn version(&self) -> (i64, &str) {
        match self {
            Self::EventType(loaded) => (loaded.generation, &loaded.hash),
            Self::Topic { generation, hash, .. } => (*generation, hash),
            Self::Projection(loaded) => (loaded.generation, &loaded.hash),
            Self::Series(loaded) => (loaded.generation, &loaded.hash),
            Self::WebhookAction(loaded) => (loaded.generation, &loaded.hash),
        }
    }

    /// What no two resources may share. An action shares nothing.
    fn claim(&self) -> Option<(Kind, String)> {
        let (kind, name) = match self {
            Self::EventType(loaded) => (Kind::EventType, &loaded.spec.event_type),
            Self::Topic { spec, .. } => (Kind::Topic, &spec.topic_name),
            Self::Projection(loaded) => (Kind::Projection, &loaded.spec.projection_type),
            Self::Series(loaded) => (Kind::Projection, &loaded.spec.projection_type),
            Self::WebhookAction(_) => return None,
        };
        Some((kind, name.clone()))
    }
}

impl Loaded {
    /// Whether a row is loaded as it is, so that its spec need not be read.
    pub fn has(&self, row: &Row) -> bool {
        self.items.get(&row.key).is_some_and(|item| item.version() == (row.generation, row.hash.as_str()))
    }

    /// Loads the rows, all that are active. Unchanged ones are taken over as they are; of others the spec was read.
    pub fn next(&self, rows: &[Row]) -> (Self, Vec<Verdict>) {
        let mut next = Self::default();
        let mut verdicts = Vec::with_capacity(rows.len());
        let mut failed = Vec::new();
        for row in rows {
            let outcome = self.item(row).and_then(|item| next.insert(&row.key, item));
            if outcome.is_err() {
                failed.push(&row.key);
            }
            verdicts.push(Verdict { key: row.key.clone(), hash: row.hash.clone(), outcome });
        }
        for key in failed {
            if let Some(last_good) = self.items.get(key) {
                // Its name may have been claimed by a row that did load: then that one serves it.
                let _ = next.insert(key, last_good.clone());
            }
        }
        (next, verdicts)
    }

    fn item(&self, row: &Row) -> Result<Item, String> {
        match self.items.get(&row.key) {
            Some(item) if self.has(row) => Ok(item.clone()),
            _ => compile(row),
        }
    }

    fn insert(&mut self, key: &ResourceKey, item: Item) -> Result<(), String> {
        if let Some(claim) = item.claim() {
            if let Some(holder) = self.claims.get(&claim) {
                return Err(format!("'{}' is already served for {holder}: remove one of the two", claim.1));
            }
            self.claims.insert(claim, key.clone());
        }
        self.items.insert(key.clone(), item);
        Ok(())
    }

    /// True where both run the same generations of the same resources.
    pub fn same_as(&self, other: &Self) -> bool {
        self.versions().eq(other.versions())
    }

    fn versions(&self) -> impl Iterator<Item = (&ResourceKey, (i64, &str))> {
        self.items.iter().map(|(key, item)| (key, item.version()))
    }

    /// The snapshot for readers.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog { loaded: true, ..Catalog::default() };
        for item in self.items.values() {
            match item {
                Item::EventType(loaded) => {
                    catalog.event_types.insert(loaded.spec.event_type.clone(), loaded.clone());
                }
                Item::Topic { spec, .. } => catalog.topics.push(spec.clone()),
                Item::Projection(loaded) => {
                    catalog.projections.insert(loaded.spec.projection_type.clone(), loaded.clone());
                }
                Item::Series(loaded) => {
                    catalog.series.insert(loaded.spec.projection_type.clone(), loaded.clone());
                }
                Item::WebhookAction(loaded) => {
                    catalog.actions.insert(loaded.key.name.clone(), loaded.clone());
                }
            }
        }
        catalog
    }
}

fn compile(row: &Row) -> Result<Item, String> {
    let spec = row.spec.as_ref().unwrap_or(&Value::Null);
    let spec = Compiled::deserialize(spec).map_err(|e| {
        format!("this release ({}) cannot read the registration: {e}; upgrade it", env!("CARGO_PKG_VERSION"))
    })?;
    let (key, generation, hash) = (row.key.clone(), row.generation, row.hash.clone());
    Ok(match spec {
        Compiled::Topic(spec) => Item::Topic { generation, hash, spec },
        Compiled::EventType(spec) => {
            let schemas = compile_schemas(&spec)?;
            Item::EventType(Arc::new(LoadedEventType { key, generation, hash, spec, schemas }))
        }
        Compiled::Projection(spec) => {
            if let Some(series) = spec.time_series().cloned() {
                let program = time_series::Program::compile(&spec, &series)?;
                let loaded = LoadedSeries { key, generation, hash, spec, series, program };
                return Ok(Item::Series(Arc::new(loaded)));
            }
            let program = Arc::new(Program::compile(&spec)?);
            Item::Projection(Arc::new(LoadedProjection { key, generation, hash, spec, program }))
        }
        Compiled::WebhookAction(spec) => {
            let program = Arc::new(actions::Program::compile(&spec)?);
            Item::WebhookAction(Arc::new(LoadedAction { key, generation, hash, spec: *spec, program }))
        }
    })
}

fn compile_schemas(spec: &EventType) -> Result<BTreeMap<i32, PayloadSchema>, String> {
    let compile = |v: &crds::registration::SchemaVersion| {
        let schema = PayloadSchema::compile(&v.schema).map_err(|e| format!("schema version {}: {e}", v.version))?;
        Ok((v.version, schema))
    };
    spec.versions.iter().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use crds::registration::Kind;
    use serde_json::json;

    use super::*;

    fn row(name: &str, generation: i64, spec: Value) -> Row {
        let key = ResourceKey { namespace: "default".into(), kind: Kind::EventType, name: name.into() };
        Row { key, generation, hash: format!("{name}-{generation}"), spec: Some(spec) }
    }

    fn event_type(event_type: &str, schema: &Value) -> Value {
        let versions = json!([{"version": 1, "schema": schema}]);
        json!({"kind": "EventType", "type": event_type, "topic": "t", "validation": "Enforce", "versions": versions})
    }

    #[test]
    fn a_row_that_cannot_be_loaded_keeps_what_was_loaded_before() {
        let (first, verdicts) = Loaded::default().next(&[row("a", 1, event_type("x", &json!({"type": "object"})))]);
        assert_eq!(verdicts[0].outcome, Ok(()));

        let broken = [row("a", 2, event_type("x", &json!({"type": "sting"}))), row("b", 1, json!({"kind": "Later"}))];
        let (second, verdicts) = first.next(&broken);
        assert!(verdicts[0].outcome.as_ref().is_err_and(|e| e.starts_with("schema version 1: ")), "{verdicts:?}");
        assert!(verdicts[1].outcome.as_ref().is_err_and(|e| e.ends_with("upgrade it")), "{verdicts:?}");
        assert_eq!((verdicts[0].hash.as_str(), second.catalog().event_types["x"].generation), ("a-2", 1));
        assert!(second.same_as(&first));

        let (gone, _) = second.next(&[]);
        assert!(gone.catalog().event_types.is_empty() && !gone.same_as(&first));
    }

    #[test]
    fn what_did_not_change_is_not_compiled_again() {
        let rows = [row("a", 1, event_type("x", &json!({}))), row("b", 1, event_type("y", &json!({})))];
        let (first, _) = Loaded::default().next(&rows);
        let unread = Row { spec: None, ..rows[0].clone() };
        let changed = row("b", 2, event_type("y", &json!({})));
        assert!(first.has(&unread) && !first.has(&changed));
        let (second, verdicts) = first.next(&[unread, changed]);
        assert!(verdicts.iter().all(|verdict| verdict.outcome.is_ok()), "{verdicts:?}");
        let of = |loaded: &Loaded, name: &str| loaded.catalog().event_types[name].clone();
        assert!(Arc::ptr_eq(&of(&first, "x"), &of(&second, "x")));
        assert!(!Arc::ptr_eq(&of(&first, "y"), &of(&second, "y")));
    }

    #[test]
    fn a_name_is_served_for_one_resource() {
        let same = || event_type("x", &json!({}));
        let (loaded, verdicts) = Loaded::default().next(&[row("a", 1, same()), row("b", 1, same())]);
        assert!(verdicts[1].outcome.as_ref().is_err_and(|e| e.contains("EventType default/a")), "{verdicts:?}");
        assert_eq!(loaded.catalog().event_types["x"].key.name, "a");
    }

    #[test]
    fn events_without_a_version_are_checked_against_the_highest_that_is_not_deprecated() {
        let versions = json!([
            {"version": 1, "schema": {}}, {"version": 2, "schema": {}}, {"version": 3, "schema": {}, "deprecated": true}
        ]);
        let spec =
            json!({"kind": "EventType", "type": "x", "topic": "t", "validation": "Enforce", "versions": versions});
        let (loaded, _) = Loaded::default().next(&[row("a", 1, spec)]);
        let loaded = loaded.catalog().event_types["x"].clone();
        let version = |requested| loaded.schema_for(requested).map(|s| s.map(|s| (s.version, s.deprecated)));
        assert_eq!(version(None), Ok(Some((2, false))));
        assert_eq!(version(Some(3)), Ok(Some((3, true))));
        assert_eq!(
            version(Some(4)).map_err(|e| e.to_string()),
            Err("schema version 4 of 'x' does not exist: it has 1, 2, 3".to_owned())
        );
    }
}
