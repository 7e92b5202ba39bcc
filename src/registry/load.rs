//! From registration rows to a catalog. Pure: rows and the previous load go in, the next load and a verdict per row
//! come out. A row that cannot be loaded keeps what was loaded for its key before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::language::schema::PayloadSchema;
use crds::registration::{Compiled, EventType, ResourceKey, Topic};
use serde::Deserialize;
use serde_json::Value;

use super::catalog::{Catalog, LoadedEventType, LoadedProjection};
use crate::projection::Program;

/// One active row of `registration`.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: ResourceKey,
    pub generation: i64,
    pub hash: String,
    pub spec: Value,
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
}

#[derive(Clone)]
enum Item {
    EventType(Arc<LoadedEventType>),
    Topic { generation: i64, hash: String, spec: Topic },
    Projection(Arc<LoadedProjection>),
}

impl Item {
    fn version(&self) -> (i64, &str) {
        match self {
            Self::EventType(loaded) => (loaded.generation, &loaded.hash),
            Self::Topic { generation, hash, .. } => (*generation, hash),
            Self::Projection(loaded) => (loaded.generation, &loaded.hash),
        }
    }

    /// What no two resources may share.
    fn claim(&self) -> (u8, &str) {
        match self {
            Self::EventType(loaded) => (0, &loaded.spec.event_type),
            Self::Topic { spec, .. } => (1, &spec.topic_name),
            Self::Projection(loaded) => (2, &loaded.spec.projection_type),
        }
    }
}

impl Loaded {
    /// Loads the rows, all that are active. Unchanged ones are taken over as they are.
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
            Some(item) if item.version() == (row.generation, row.hash.as_str()) => Ok(item.clone()),
            _ => compile(row),
        }
    }

    fn insert(&mut self, key: &ResourceKey, item: Item) -> Result<(), String> {
        let claimed = self.items.iter().find(|(_, other)| other.claim() == item.claim());
        if let Some((holder, _)) = claimed {
            return Err(format!("'{}' is already served for {holder}: remove one of the two", item.claim().1));
        }
        self.items.insert(key.clone(), item);
        Ok(())
    }

    /// True where both run the same generations of the same resources.
    pub fn same_as(&self, other: &Self) -> bool {
        let versions = |loaded: &'_ Self| -> Vec<(ResourceKey, i64, String)> {
            let of = |(key, item): (&ResourceKey, &Item)| (key.clone(), item.version().0, item.version().1.to_owned());
            loaded.items.iter().map(of).collect()
        };
        versions(self) == versions(other)
    }

    /// The snapshot for readers.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for item in self.items.values() {
            match item {
                Item::EventType(loaded) => {
                    catalog.event_types.insert(loaded.spec.event_type.clone(), loaded.clone());
                }
                Item::Topic { spec, .. } => catalog.topics.push(spec.clone()),
                Item::Projection(loaded) => {
                    catalog.projections.insert(loaded.spec.projection_type.clone(), loaded.clone());
                }
            }
        }
        catalog
    }
}

fn compile(row: &Row) -> Result<Item, String> {
    let spec = Compiled::deserialize(&row.spec).map_err(|e| {
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
            let program = Arc::new(Program::compile(&spec)?);
            Item::Projection(Arc::new(LoadedProjection { key, generation, hash, spec, program }))
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
