//! A Projection's compiled form: expressions checked, the way of reading decided. Pure.

use std::collections::BTreeSet;

use crds::language::expression::{Expression, Scope};
use crds::projection::ProjectionSpec;
use crds::reason::Reason;
use crds::registration::{Compiled, Fold, Projection, Source};

use super::series;
use crate::resolve::{Failure, Known};

/// Compiles a Projection, compared with what was registered for it before. `several_topics`: its events come by more than
/// one.
pub(crate) fn compile(
    resource: &crds::Projection,
    before: Option<&Compiled>,
    several_topics: bool,
) -> Result<Projection, Failure> {
    let spec = &resource.spec;
    let projection_type = resource.projection_type();
    if let Some(Compiled::Projection(before)) = before {
        check_change(projection_type, before)?;
        check_table(spec, before)?;
    }
    check_expressions(spec)?;
    let fold = fold(spec)?;
    // A broker keeps order within a partition only: rows that several partitions feed need the event store's.
    let reads_event_store = spec.key.is_some() || several_topics || spec.time_series.is_some();
    Ok(Projection {
        projection_type: projection_type.to_owned(),
        source: source(spec),
        filter: spec.filter.clone(),
        key: spec.key.clone(),
        fold,
        start_from: spec.start_from.unwrap_or_default(),
        on_error: spec.on_error.unwrap_or_default(),
        rebuild: spec.rebuild.unwrap_or_default(),
        retention_seconds: spec.retention.as_ref().map(|r| i64::try_from(r.length().as_secs()).unwrap_or(i64::MAX)),
        indexes: spec.indexes.iter().flatten().map(|index| index.field.clone()).collect(),
        reads_event_store,
    })
}

fn check_change(projection_type: &str, before: &Projection) -> Result<(), Failure> {
    if projection_type == before.projection_type {
        return Ok(());
    }
    let message = format!(
        "spec.type cannot change from '{}' to '{projection_type}': make a new Projection, move its readers, then \
         delete this one",
        before.projection_type
    );
    Err(Failure::new(Reason::InvalidSpec, message))
}

/// What an API server refuses by the schema's rules, and a directory of manifests does not know.
fn check_table(spec: &ProjectionSpec, before: &Projection) -> Result<(), Failure> {
    let message = match (&spec.time_series, before.time_series()) {
        (Some(new), Some(old)) if new.table != old.table => format!(
            "spec.timeSeries.table cannot change from '{}' to '{}': make a new Projection",
            old.table, new.table
        ),
        (Some(_), None) => {
            "timeSeries cannot be added to a projection of another kind: make a new Projection".to_owned()
        }
        (None, Some(_)) => "timeSeries cannot become another kind of projection: make a new Projection".to_owned(),
        _ => return Ok(()),
    };
    Err(Failure::new(Reason::InvalidSpec, message))
}

fn fold(spec: &ProjectionSpec) -> Result<Fold, Failure> {
    match (&spec.latest, &spec.merge, &spec.fields, &spec.time_series) {
        (Some(_), None, None, None) => Ok(Fold::Latest),
        (None, Some(_), None, None) => Ok(Fold::Merge),
        (None, None, Some(fields), None) => Ok(Fold::Fields(fields.clone())),
        (None, None, None, Some(table)) => series::compile(table).map(Fold::TimeSeries),
        _ => Err(Failure::new(Reason::InvalidSpec, "give exactly one of latest, merge, fields and timeSeries")),
    }
}

fn check_expressions(spec: &ProjectionSpec) -> Result<(), Failure> {
    let event_only = [("spec.filter", &spec.filter), ("spec.key", &spec.key)];
    for (place, text) in event_only {
        if let Some(text) = text {
            check(place, text, Scope::Event)?;
        }
    }
    for (name, text) in spec.fields.iter().flatten() {
        check(&format!("spec.fields.{name}"), text, Scope::StateAndEvent)?;
    }
    for (index, column) in spec.time_series.iter().flat_map(|table| &table.columns).enumerate() {
        check(&format!("spec.timeSeries.columns[{index}].from"), &column.from, Scope::Event)?;
    }
    Ok(())
}

/// An expression of a resource compiles, or the failure names its place.
pub(crate) fn check(place: &str, text: &str, scope: Scope) -> Result<(), Failure> {
    let checked = Expression::compile(text, scope);
    checked.map(drop).map_err(|error| Failure::new(Reason::InvalidExpression, format!("{place}: {error}")))
}

fn source(spec: &ProjectionSpec) -> Source {
    Source {
        event_types: spec.source.event_types.clone().unwrap_or_default(),
        prefixes: spec.source.prefixes.clone().unwrap_or_default(),
    }
}

/// Whether events of its source may come through more than one topic.
pub(crate) fn reads_several_topics(resource: &crds::Projection, known: &Known) -> bool {
    topics_of(&source(&resource.spec), known).len() > 1
}

/// Every topic that an event of the source may come through.
fn topics_of<'a>(source: &Source, known: &'a Known) -> BTreeSet<&'a str> {
    let registered = known.event_types.iter().filter(|(name, _)| source.matches(name)).map(|(_, topic)| topic.as_str());
    let mut topics: BTreeSet<&str> = registered.collect();
    let unregistered = |name: &str| !known.event_types.contains_key(name);
    let named = source.event_types.iter().filter(|name| unregistered(name));
    let routed = named.chain(&source.prefixes).filter_map(|name| known.routes.route(name));
    topics.extend(routed.map(|route| route.topic_name));
    // Types that nobody has registered: those under a longer prefix than the source's may go elsewhere.
    let finer = known.topics.values().filter(|topic| {
        topic.prefixes.iter().any(|prefix| source.prefixes.iter().any(|p| prefix.starts_with(p.as_str())))
    });
    topics.extend(finer.map(|topic| topic.topic_name.as_str()));
    topics
}
