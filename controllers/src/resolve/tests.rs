use std::collections::BTreeMap;
use std::fmt::Write as _;

use crds::manifest;

use super::*;
use crate::plan::Registered;
use crate::testing::key;

const TOPICS: &str = "
Topic all {default: true}
Topic sensors {prefixes: [sensor.]}
";

/// Resources, one a line: `Kind name {spec}`.
fn declared(lines: &str) -> Vec<Declared> {
    let mut text = String::new();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let (kind, rest) = line.split_once(' ').expect("a kind");
        let (name, spec) = rest.split_once(' ').expect("a name");
        writeln!(
            text,
            "---\napiVersion: cornjacket.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}"
        )
        .expect("a string");
    }
    let reading = manifest::read("test.yaml", &text);
    assert!(reading.errors.is_empty(), "{:?}", reading.errors);
    let declared = |m: manifest::Manifest| Declared {
        key: key(m.resource.kind(), m.resource.name()),
        generation: 1,
        created: None,
        origin: m.origin.to_string(),
        resource: Ok(m.resource),
    };
    reading.manifests.into_iter().map(declared).collect()
}

fn outcomes(lines: &str, registered: &Registrations) -> BTreeMap<String, Outcome> {
    let resolutions = resolve(&declared(lines), registered, &Secrets::default());
    resolutions.into_iter().map(|r| (r.key.name, r.outcome)).collect()
}

/// What would be registered if all this were applied.
fn registered(lines: &str) -> Registrations {
    let row = |resolution: Resolution| {
        let form = resolution.outcome.to_run()?;
        let (hash, spec) = (form.digest().to_owned(), Some((**form).clone()));
        let row = Registered { generation: 1, hash, spec, active: true };
        Some((resolution.key, row))
    };
    resolve(&declared(lines), &Registrations::new(), &Secrets::default()).into_iter().filter_map(row).collect()
}

fn topic_of(outcome: &Outcome) -> &str {
    match outcome.to_run().map(|form| &**form) {
        Some(Compiled::EventType(spec)) => &spec.topic,
        _ => panic!("not an event type to run: {outcome:?}"),
    }
}

fn refusal(outcome: &Outcome) -> (Reason, &str) {
    match outcome {
        Outcome::Refused(failure) => (failure.reason, &failure.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn event_types_go_to_topic_ref_then_prefix_then_default() {
    let types = "
EventType a {type: sensor.reading}
EventType b {type: user.login}
EventType c {type: sensor.lab, topicRef: {name: all}}
EventType d {type: sensor.x, topicRef: {name: nowhere}}
";
    let outcomes = outcomes(&format!("{TOPICS}{types}"), &Registrations::new());
    assert_eq!(topic_of(&outcomes["a"]), "sensors");
    assert_eq!(topic_of(&outcomes["b"]), "all");
    assert_eq!(topic_of(&outcomes["c"]), "all");
    let (reason, message) = refusal(&outcomes["d"]);
    assert_eq!(reason, Reason::TopicNotFound);
    assert!(message.contains("'nowhere'") && message.contains("all, sensors"), "{message}");

    let alone = resolve(&declared("EventType b {type: user.login}"), &Registrations::new(), &Secrets::default());
    assert_eq!(refusal(&alone[0].outcome).0, Reason::Unroutable);
}

#[test]
fn a_broken_schema_or_example_names_its_place() {
    let lines = "
EventType a {versions: [{version: 1, schema: {type: object}}, {version: 2, schema: {type: sting}}]}
EventType b {versions: [{version: 1, schema: {type: object, required: [x]}}], examples: [{x: 1}, {y: 1}]}
EventType c {versions: [{version: 1, schema: {required: [x]}, deprecated: true}, {version: 2, schema: {}}], examples: [{y: 1}]}
";
    let outcomes = outcomes(&format!("{TOPICS}{lines}"), &Registrations::new());
    let (reason, message) = refusal(&outcomes["a"]);
    assert_eq!(reason, Reason::InvalidSchema);
    assert!(message.starts_with("spec.versions[1].schema (version 2): "), "{message}");
    let (reason, message) = refusal(&outcomes["b"]);
    assert_eq!(reason, Reason::InvalidExample);
    assert!(message.starts_with("spec.examples[1] is not valid under version 1: "), "{message}");
    assert_eq!(topic_of(&outcomes["c"]), "all", "examples are those of the version in force");
}

#[test]
fn a_name_claimed_twice_is_kept_by_who_is_registered_then_by_the_first_name() {
    let two = "EventType a {type: x}\nEventType b {type: x}\n";
    let fresh = outcomes(&format!("{TOPICS}{two}"), &Registrations::new());
    assert_eq!(topic_of(&fresh["a"]), "all");
    let (reason, message) = refusal(&fresh["b"]);
    assert_eq!(reason, Reason::Conflict);
    assert!(message.contains("EventType default/a"), "{message}");

    let held = registered(&format!("{TOPICS}EventType b {{type: x}}"));
    let later = outcomes(&format!("{TOPICS}{two}"), &held);
    assert_eq!(topic_of(&later["b"]), "all");
    assert_eq!(refusal(&later["a"]).0, Reason::Conflict);
}

#[test]
fn topics_share_no_name_prefix_or_default() {
    let lines = "
Topic a {default: true, prefixes: [x.]}
Topic b {default: true}
Topic c {prefixes: [x.]}
Topic d {topicName: a}
Topic e {prefixes: [x.y.]}
";
    let outcomes = outcomes(lines, &Registrations::new());
    for (name, what) in [("b", "default topic"), ("c", "prefix 'x.'"), ("d", "'a'")] {
        let (reason, message) = refusal(&outcomes[name]);
        assert_eq!(reason, Reason::Conflict);
        assert!(message.contains(what), "{name}: {message}");
    }
    assert!(outcomes["a"].to_run().is_some() && outcomes["e"].to_run().is_some());
}

#[test]
fn what_cannot_change_is_refused_with_the_way_out() {
    let before = registered(&format!(
        "{TOPICS}EventType a {{type: x}}\nProjection p {{type: x, source: {{prefixes: [x]}}, latest: {{}}}}\nTopic t {{partitions: 3}}"
    ));
    let after = outcomes(
        &format!(
            "{TOPICS}EventType a {{type: y}}\nProjection p {{type: y, source: {{prefixes: [x]}}, latest: {{}}}}\nTopic t {{partitions: 2}}"
        ),
        &before,
    );
    assert!(refusal(&after["a"]).1.contains("cannot change from 'x' to 'y'"));
    assert!(refusal(&after["p"]).1.contains("cannot change from 'x' to 'y'"));
    assert_eq!(refusal(&after["t"]).0, Reason::RepartitionRefused);
    let more = outcomes(&format!("{TOPICS}Topic t {{partitions: 4}}"), &before);
    assert!(refusal(&more["t"]).1.contains("allowRepartition"));
    let allowed = outcomes(&format!("{TOPICS}Topic t {{partitions: 4, allowRepartition: true}}"), &before);
    assert!(allowed["t"].to_run().is_some());
}

#[test]
fn a_refused_topic_routes_as_it_was_registered() {
    let before = registered(TOPICS);
    let broken = "
Topic all {default: true}
Topic sensors {topicName: renamed, prefixes: [sensor.]}
EventType a {type: sensor.reading}
";
    let outcomes = outcomes(broken, &before);
    assert_eq!(refusal(&outcomes["sensors"]).0, Reason::InvalidSpec);
    assert_eq!(topic_of(&outcomes["a"]), "sensors");
}

#[test]
fn expressions_are_checked_and_the_failure_names_the_field() {
    let lines = "
Projection a {source: {prefixes: [s]}, filter: 'event.payload.x > ', latest: {}}
Projection b {source: {prefixes: [s]}, fields: {count: 'state.count + nonsense'}}
Projection c {source: {prefixes: [s]}, key: 'state.x', latest: {}}
";
    let outcomes = outcomes(lines, &Registrations::new());
    for (name, place) in [("a", "spec.filter: "), ("b", "spec.fields.count: "), ("c", "spec.key: ")] {
        let (reason, message) = refusal(&outcomes[name]);
        assert_eq!(reason, Reason::InvalidExpression);
        assert!(message.starts_with(place), "{message}");
    }
}

#[test]
fn a_projection_whose_rows_several_partitions_feed_reads_the_event_store() {
    let types = "EventType r {type: sensor.reading}\nEventType o {type: sensor.odd, topicRef: {name: all}}\n";
    let reads = |projection: &str| {
        let lines = format!("{TOPICS}{types}Projection p {projection}");
        match outcomes(&lines, &Registrations::new())["p"].to_run().map(|form| &**form) {
            Some(Compiled::Projection(spec)) => spec.reads_event_store,
            other => panic!("{other:?}"),
        }
    };
    assert!(reads("{source: {eventTypes: [sensor.reading, user.login]}, merge: {}}"));
    assert!(reads("{source: {eventTypes: [sensor.reading, user.login]}, latest: {}}"));
    assert!(!reads("{source: {eventTypes: [sensor.reading]}, latest: {}}"));
    assert!(reads("{source: {eventTypes: [sensor.reading]}, key: event.payload.room, latest: {}}"));
    assert!(!reads("{source: {eventTypes: [sensor.reading]}, merge: {}}"));
    assert!(reads("{source: {prefixes: [sensor.]}, merge: {}}"), "sensor.odd goes elsewhere by topicRef");
    assert!(reads("{source: {prefixes: [se]}, fields: {n: '1'}}"), "a finer prefix goes elsewhere");
    assert!(!reads("{source: {prefixes: [user.]}, merge: {}}"));
}

#[test]
fn time_series_run_and_what_does_not_compile_says_so() {
    let lines = "
Projection ts {source: {prefixes: [s]}, timeSeries: {table: t, columns: [{name: v, type: Double, from: event.payload.value}]}}
Projection bad {source: {prefixes: [s]}, timeSeries: {table: u, columns: [{name: v, type: Double, from: nonsense}]}}
Projection named {source: {prefixes: [s]}, timeSeries: {table: v, columns: [{name: time, type: Double, from: '1'}]}}
WebhookAction w {source: {prefixes: [s]}, url: 'https://example.com/hook', when: nonsense}
";
    let outcomes = outcomes(lines, &Registrations::new());
    let Some(Compiled::Projection(ts)) = outcomes["ts"].to_run().map(|form| &**form) else { panic!("{outcomes:?}") };
    assert_eq!(ts.time_series().map(|series| series.table.as_str()), Some("t"));
    assert_eq!(refusal(&outcomes["bad"]).0, Reason::InvalidExpression);
    assert!(refusal(&outcomes["bad"]).1.starts_with("spec.timeSeries.columns[0].from: "));
    assert_eq!(refusal(&outcomes["named"]).0, Reason::InvalidSpec);
    assert_eq!(refusal(&outcomes["w"]).0, Reason::InvalidExpression);
}

#[test]
fn of_two_time_series_with_one_table_the_senior_has_it() {
    let lines = "
Projection a {source: {prefixes: [s]}, timeSeries: {table: t, columns: [{name: v, type: Double, from: '1.0'}]}}
Projection b {source: {prefixes: [s]}, timeSeries: {table: t, columns: [{name: v, type: Double, from: '1.0'}]}}
";
    let outcomes = outcomes(lines, &Registrations::new());
    assert!(outcomes["a"].to_run().is_some());
    let (reason, message) = refusal(&outcomes["b"]);
    assert_eq!(reason, Reason::Conflict);
    assert!(message.starts_with("the table 't' is claimed by Projection default/a"), "{message}");
}

#[test]
fn paused_and_observed_resources_are_left_alone() {
    let lines = "
EventType a {type: x, reconciliation: Paused}
EventType b {type: y, managementPolicy: Observe}
Topic t {managementPolicy: Observe}
";
    let set = format!("{TOPICS}{lines}");
    let resolutions = resolve(&declared(&set), &Registrations::new(), &Secrets::default());
    let of = |name: &str| resolutions.iter().find(|r| r.key.name == name).expect("declared");
    assert_eq!(of("a").outcome, Outcome::LeftAlone(Reason::Paused));
    assert_eq!(of("b").outcome, Outcome::LeftAlone(Reason::Observing));
    assert!(of("t").outcome.to_run().is_some() && !of("t").manages, "it routes, but is not made on the bus");
}

#[test]
fn the_samples_all_run() {
    let mut set = Vec::new();
    for text in [
        include_str!("../../../crds/samples/topics.yaml"),
        include_str!("../../../crds/samples/event-types.yaml"),
        include_str!("../../../crds/samples/projections.yaml"),
    ] {
        let manifests = manifest::read("sample", text).manifests;
        set.extend(manifests.into_iter().map(|m| Declared {
            key: key(m.resource.kind(), m.resource.name()),
            generation: 1,
            created: None,
            origin: m.origin.to_string(),
            resource: Ok(m.resource),
        }));
    }
    let resolutions = resolve(&set, &Registrations::new(), &Secrets::default());
    assert_eq!(resolutions.len(), 9);
    for resolution in resolutions {
        assert!(resolution.outcome.to_run().is_some(), "{resolution:?}");
    }
}

#[test]
fn a_version_must_fit_its_predecessor_and_its_own_text_as_served() {
    let of = |one: &str, two: &str, mode: &str| {
        format!(
            "{TOPICS}EventType a {{compatibility: {mode}, versions: [{{version: 1, schema: {{required: [{one}]}}}}, {{version: 2, schema: {{required: [{two}]}}}}]}}"
        )
    };
    let fresh = Registrations::new();
    let (reason, message) = match &outcomes(&of("x", "x, y", "Backward"), &fresh)["a"] {
        Outcome::Refused(failure) => (failure.reason, failure.message.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason, Reason::Incompatible);
    assert!(message.starts_with("version 2 is not compatible with version 1 (Backward): "), "{message}");
    assert!(outcomes(&of("x", "x, y", "Forward"), &fresh)["a"].to_run().is_some());
    assert!(outcomes(&of("x", "x, y", "None"), &fresh)["a"].to_run().is_some());

    let only = |version: u8, required: &str| {
        format!("{TOPICS}EventType a {{versions: [{{version: {version}, schema: {{required: [{required}]}}}}]}}")
    };
    let replaced = outcomes(&only(2, "x, y"), &registered(&only(1, "x")));
    assert!(refusal(&replaced["a"]).1.contains("version 1, which is served"), "{replaced:?}");
    assert!(outcomes(&only(2, "x"), &registered(&only(1, "x, y")))["a"].to_run().is_some());

    let served = registered(&of("x", "x", "Backward"));
    let edited = outcomes(&of("x, y", "x", "Backward"), &served);
    assert!(refusal(&edited["a"]).1.contains("version 1 as it is served"), "{edited:?}");
}

/// How many resources are compiled in each of several looks with one cache.
fn compiled_in(looks: &[(&str, &Registrations)]) -> Vec<u64> {
    let mut cache = Cache::default();
    let mut before = 0;
    let look = |(lines, registered): &(&str, &Registrations)| {
        let set = declared(lines);
        let cached = resolve_again(&mut cache, &set, registered, &Secrets::default());
        assert_eq!(cached, resolve(&set, registered, &Secrets::default()), "as without a cache");
        let compiled = cache.compilations() - before;
        before = cache.compilations();
        compiled
    };
    looks.iter().map(look).collect()
}

#[test]
fn only_what_a_change_concerns_is_compiled_again() {
    let types = "EventType a {type: sensor.reading}\nEventType b {type: user.login}\n";
    let projection = "Projection p {source: {eventTypes: [sensor.reading]}, latest: {}}\n";
    let all = format!("{TOPICS}{types}{projection}");
    let (none, held) = (Registrations::new(), registered(&all));
    let edited = all.replace("user.login}", "user.login, owner: me}");
    let moved = all.replace("[sensor.]", "[user.]");
    let fewer = format!("{TOPICS}{types}");
    assert_eq!(compiled_in(&[(&all, &none), (&all, &none)]), [5, 0]);
    assert_eq!(compiled_in(&[(&all, &none), (&all, &held), (&all, &held)]), [5, 5, 0], "compared with what is served");
    assert_eq!(compiled_in(&[(&all, &held), (&edited, &held)]), [5, 1]);
    assert_eq!(compiled_in(&[(&all, &none), (&moved, &none)]), [5, 3], "a Topic, and two EventTypes that go elsewhere");
    assert_eq!(compiled_in(&[(&all, &none), (&fewer, &none), (&all, &none)]), [5, 0, 1], "what is gone is forgotten");
}

#[test]
fn a_projection_is_compiled_again_when_its_sources_part() {
    let types = "EventType r {type: sensor.reading}\nEventType o {type: sensor.odd}\n";
    let lines = format!("{TOPICS}{types}Projection p {{source: {{prefixes: [sensor.]}}, latest: {{}}}}\n");
    let apart = lines.replace("sensor.odd}", "sensor.odd, topicRef: {name: all}}");
    let none = Registrations::new();
    assert_eq!(compiled_in(&[(&lines, &none), (&apart, &none)]), [5, 2]);
}

#[test]
fn of_several_claims_that_others_hold_the_most_senior_is_named() {
    let lines = "Topic a {prefixes: [x.]}\nTopic b {default: true}\nTopic c {default: true, prefixes: [y., x.]}\n";
    let outcomes = outcomes(lines, &Registrations::new());
    let (reason, message) = refusal(&outcomes["c"]);
    assert_eq!(reason, Reason::Conflict);
    assert!(message.starts_with("the prefix 'x.' is claimed by Topic default/a"), "{message}");
}
