//! Indexes on fields of the state, as projections declare them (`spec.indexes`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::registration::sha256;

use super::{Catalog, Class, Plan, State, Step, Way, literal};

/// Begins the name of every index that is ours; what is named otherwise is left alone.
pub const PREFIX: &str = "projections_state_";

/// What a registered projection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub projection_type: String,
    /// Fields at the top of the state.
    pub fields: Vec<String>,
    /// False where nothing may be written: under `Observe`, and while the resource is paused.
    pub writes: bool,
}

/// An index that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// False for what a build that ended half-way leaves.
    pub valid: bool,
    /// The projection whose rows it holds, where that can be told.
    pub projection_type: Option<String>,
}

/// Our indexes on the rows, by name.
pub type Existing = BTreeMap<String, Found>;

/// The name of an index: the same for the same projection type and field, in every process and release.
pub fn name(projection_type: &str, field: &str) -> String {
    let digest = sha256(&format!("{projection_type}\0{field}"));
    format!("{PREFIX}{}", &digest[..16])
}

/// A plan for each projection that has something outstanding: what goes, what comes, and then the statistics of what came.
pub fn plans(wanted: &[Wanted], catalog: &Catalog) -> Vec<Plan> {
    let mut goes = unwanted(wanted, catalog);
    let mut plans = Vec::new();
    for wanted in wanted {
        let mut steps = goes.remove(&wanted.projection_type).unwrap_or_default();
        steps.extend(missing(&wanted.projection_type, &wanted.fields, catalog));
        plans.push(Plan { projection_type: wanted.projection_type.clone(), steps });
    }
    plans.extend(goes.into_iter().map(|(projection_type, steps)| Plan { projection_type, steps }));
    plans.retain(|plan| !plan.steps.is_empty());
    plans
}

/// The plans of which nobody said that nothing is to be written for now.
pub fn to_run(wanted: &[Wanted], catalog: &Catalog) -> Vec<Plan> {
    let mut plans = plans(wanted, catalog);
    let left_alone = |plan: &Plan| wanted.iter().any(|w| w.projection_type == plan.projection_type && !w.writes);
    plans.retain(|plan| !left_alone(plan));
    plans
}

/// Steps to indexes that no projection declares any more, by the projection that they are of.
fn unwanted(wanted: &[Wanted], catalog: &Catalog) -> BTreeMap<String, Vec<Step>> {
    let names = |wanted: &Wanted| -> Vec<String> {
        wanted.fields.iter().map(|field| name(&wanted.projection_type, field)).collect()
    };
    let declared: BTreeSet<String> = wanted.iter().flat_map(names).collect();
    let mut steps: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    for (name, found) in catalog.indexes.iter().filter(|(name, _)| !declared.contains(*name)) {
        let projection_type = found.projection_type.clone().unwrap_or_default();
        let purpose = format!("drop the index {name}, which no projection declares any more");
        steps.entry(projection_type).or_default().push(drop(name, purpose));
    }
    steps
}

/// Steps to the indexes of one projection on these fields.
pub fn missing(projection_type: &str, fields: &[String], catalog: &Catalog) -> Vec<Step> {
    let mut steps = Vec::new();
    for field in fields {
        let name = name(projection_type, field);
        let found = catalog.indexes.get(&name);
        if found.is_some_and(|found| found.valid) {
            continue;
        }
        if found.is_some() {
            steps.push(drop(&name, format!("drop the half-built index on '{field}'")));
        }
        steps.push(create(projection_type, field, &name));
    }
    if !steps.is_empty() || lacks_statistics(projection_type, fields, catalog) {
        steps.push(analyze(projection_type));
    }
    steps
}

/// An index was built and the statistics were not taken since. One that an earlier release built has them long ago.
fn lacks_statistics(projection_type: &str, fields: &[String], catalog: &Catalog) -> bool {
    let id = |step: &Step| catalog.ledger.get(&step.name).filter(|entry| entry.state == State::Done).map(|e| e.id);
    let taken = id(&analyze(projection_type)).unwrap_or(0);
    let built = |field: &String| {
        // A row that says `started` beside an index that is there: the process died in between.
        catalog.ledger.get(&create_name(&name(projection_type, field))).map_or(0, |entry| entry.id)
    };
    fields.iter().any(|field| built(field) > taken)
}

/// The names of the steps that the ledger has as unfinished, and whose work is there.
pub fn finished(catalog: &Catalog) -> Vec<String> {
    let is_there = |step: &str| {
        let valid = |name: &str| catalog.indexes.get(name).map(|found| found.valid);
        match (step.strip_prefix(CREATE), step.strip_prefix(DROP)) {
            (Some(name), _) => valid(name) == Some(true),
            (_, Some(name)) => valid(name).is_none(),
            _ => false,
        }
    };
    let open = catalog.ledger.iter().filter(|(_, entry)| entry.state != State::Done);
    open.map(|(step, _)| step).filter(|step| is_there(step)).cloned().collect()
}

const CREATE: &str = "create index ";
const DROP: &str = "drop index ";

fn create_name(index: &str) -> String {
    format!("{CREATE}{index}")
}

fn create(projection_type: &str, field: &str, name: &str) -> Step {
    Step {
        name: create_name(name),
        statement: format!(
            "CREATE INDEX CONCURRENTLY {name} ON projections (state_index_key(state -> {})) WHERE projection_type = {}",
            literal(field),
            literal(projection_type)
        ),
        class: Class::Additive,
        way: Way::Concurrently,
        purpose: format!("build the index on '{field}'"),
    }
}

fn drop(name: &str, purpose: String) -> Step {
    let statement = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
    Step { name: format!("{DROP}{name}"), statement, class: Class::Additive, way: Way::Concurrently, purpose }
}

/// An index on an expression has no statistics of its own until they are taken, and is not chosen as it should be.
fn analyze(projection_type: &str) -> Step {
    Step {
        name: format!("analyze {projection_type}"),
        statement: "ANALYZE projections".to_owned(),
        class: Class::Additive,
        way: Way::Transaction,
        purpose: "take the statistics that make queries use its indexes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    fn wanted(projection_type: &str, fields: &[&str]) -> Wanted {
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        Wanted { projection_type: projection_type.to_owned(), fields, writes: true }
    }

    /// Indexes by projection type and field, and whether they are valid.
    fn catalog(indexes: &[(&str, &str, bool)]) -> Catalog {
        let found = |&(projection_type, field, valid): &(&str, &str, bool)| {
            (name(projection_type, field), Found { valid, projection_type: Some(projection_type.to_owned()) })
        };
        Catalog { indexes: indexes.iter().map(found).collect(), ..Catalog::default() }
    }

    fn noted(mut catalog: Catalog, rows: &[(String, State)]) -> Catalog {
        for ((step, state), id) in rows.iter().zip(1..) {
            catalog.ledger.insert(step.clone(), Entry { id, state: state.clone() });
        }
        catalog
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.name.as_str()).collect()
    }

    #[test]
    fn names_are_short_and_tell_types_and_fields_apart() {
        let of_value = name("sensor_state", "value");
        assert!(of_value.starts_with(PREFIX) && of_value.len() <= 63, "{of_value}");
        assert_ne!(name("a", "bc"), name("ab", "c"));
        // As earlier releases named them: their indexes are taken over.
        assert_eq!(name("indexed", "value"), "projections_state_3dd5057d0844e9de");
    }

    #[test]
    fn what_is_missing_is_built_and_what_is_no_longer_declared_is_dropped() {
        let catalog = catalog(&[("p", "kept", true), ("p", "half", false), ("p", "gone", true)]);
        let plans = plans(&[wanted("p", &["kept", "new", "half"])], &catalog);
        let [plan] = plans.as_slice() else { panic!("{plans:?}") };
        let [gone, new, half] = ["gone", "new", "half"].map(|field| name("p", field));
        assert_eq!(
            names(plan),
            [
                format!("drop index {gone}"),
                format!("create index {new}"),
                format!("drop index {half}"),
                format!("create index {half}"),
                "analyze p".to_owned()
            ]
        );
        assert!(plan.steps.iter().all(|step| step.class == Class::Additive), "an index holds no data of its own");
    }

    #[test]
    fn what_nobody_declares_is_dropped_for_whom_it_was() {
        let mut catalog = catalog(&[("removed", "a", true)]);
        let unknown = format!("{PREFIX}0");
        catalog.indexes.insert(unknown.clone(), Found { valid: true, projection_type: None });
        let plans = plans(&[wanted("p", &[])], &catalog);
        assert_eq!(plans.iter().map(|plan| plan.projection_type.as_str()).collect::<Vec<_>>(), ["", "removed"]);
        assert_eq!(names(&plans[0]), [format!("drop index {unknown}")]);
    }

    #[test]
    fn of_a_projection_that_is_left_alone_nothing_is_built_or_dropped() {
        let catalog = catalog(&[("p", "gone", true)]);
        let paused = Wanted { writes: false, ..wanted("p", &["new"]) };
        assert_eq!(plans(std::slice::from_ref(&paused), &catalog).len(), 1, "it is still told");
        assert_eq!(to_run(&[paused], &catalog), []);
    }

    #[test]
    fn indexes_of_an_earlier_release_are_taken_over_as_they_are() {
        let catalog = catalog(&[("p", "a", true), ("q", "a", true)]);
        assert_eq!(plans(&[wanted("p", &["a"]), wanted("q", &["a"])], &catalog), []);
        assert_eq!(plans(&[], &Catalog::default()), []);
    }

    #[test]
    fn statistics_are_taken_once_after_an_index_was_built() {
        let (build, analyze) = (create_name(&name("p", "a")), "analyze p".to_owned());
        let with_it = catalog(&[("p", "a", true)]);
        let outstanding = |rows: &[(String, State)]| {
            let plans = plans(&[wanted("p", &["a"])], &noted(with_it.clone(), rows));
            plans.iter().map(|plan| plan.steps.len()).sum::<usize>()
        };
        assert_eq!(outstanding(&[(build.clone(), State::Done)]), 1);
        assert_eq!(outstanding(&[(build.clone(), State::Done), (analyze.clone(), State::Done)]), 0);
        let died = State::Failed("no".to_owned());
        assert_eq!(outstanding(&[(build.clone(), State::Done), (analyze.clone(), died)]), 1);
        assert_eq!(outstanding(&[(analyze, State::Done), (build, State::Started)]), 1, "built anew since");
    }

    #[test]
    fn work_that_is_there_finishes_the_row_of_a_process_that_died() {
        let [built, half, gone, there] = ["built", "half", "gone", "there"].map(|field| name("p", field));
        let catalog = catalog(&[("p", "built", true), ("p", "half", false), ("p", "there", true)]);
        let rows = [
            (create_name(&built), State::Started),
            (create_name(&half), State::Started),
            (format!("{DROP}{gone}"), State::Failed("no".to_owned())),
            (format!("{DROP}{there}"), State::Started),
            (create_name(&there), State::Done),
        ];
        assert_eq!(finished(&noted(catalog, &rows)), [create_name(&built), format!("{DROP}{gone}")]);
    }

    #[test]
    fn a_statement_quotes_what_people_wrote() {
        let step = create("it's", "a'b", "projections_state_1");
        assert_eq!(
            step.statement,
            "CREATE INDEX CONCURRENTLY projections_state_1 ON projections (state_index_key(state -> 'a''b')) \
             WHERE projection_type = 'it''s'"
        );
    }
}
