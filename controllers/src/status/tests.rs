use std::collections::BTreeMap;

use crds::topic::Drift;
use serde_json::json;

use super::*;
use crate::resolve::Failure;
use crate::testing::{self, key, topic};
use crate::topic::differences::{Actual, differences};
use crate::topic::plan::Blocked;
use crate::topic::status::{Existing, Seen, Standing};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).expect("in range")
}

fn instance(id: &str, role: Role) -> Instance {
    Instance { id: id.into(), role, host: format!("host-{id}") }
}

fn ack(id: &str, role: Role, hash: &str, error: Option<&str>) -> Ack {
    let key = key(Kind::Projection, "p");
    Ack { instance: id.into(), role, key, hash: hash.into(), error: error.map(str::to_owned) }
}

fn data_plane(instances: Vec<Instance>, acks: Vec<Ack>) -> DataPlane {
    let mut data_plane = DataPlane::default();
    data_plane.add(instances, acks);
    data_plane
}

fn propagated(instances: Vec<Instance>, acks: Vec<Ack>) -> (Status, Reason, String, i32, i32) {
    let served = Served { generation: 7, hash: "new".into() };
    let p = propagation(&key(Kind::Projection, "p"), Some(&served), &data_plane(instances, acks));
    (p.finding.status, p.finding.reason, p.finding.message, p.acked, p.total)
}

#[test]
fn every_live_instance_of_the_roles_concerned_must_acknowledge_this_very_hash() {
    let two = || vec![instance("h", Role::Handle), instance("q", Role::Query), instance("i", Role::Ingest)];
    let runs = |role, id| ack(id, role, "new", None);

    let (status, reason, ..) = propagated(vec![instance("i", Role::Ingest)], Vec::new());
    assert_eq!((status, reason), (Status::Unknown, Reason::NoInstances));
    let (status, reason, message, ..) = propagated(vec![instance("q", Role::Query)], vec![runs(Role::Query, "q")]);
    assert_eq!((status, reason), (Status::Unknown, Reason::NoInstances));
    assert_eq!(message, "no instance of handle is alive: start one");

    let old = ack("q", Role::Query, "old", None);
    let (status, reason, message, acked, total) = propagated(two(), vec![runs(Role::Handle, "h"), old]);
    assert_eq!((status, reason, acked, total), (Status::False, Reason::AwaitingInstances, 1, 2));
    assert_eq!(message, "generation 7 runs in 1 of 1 handle, 0 of 1 query; waiting for query on host-q");

    let (status, reason, message, ..) =
        propagated(two(), vec![runs(Role::Handle, "h"), ack("q", Role::Query, "new", Some("cannot load"))]);
    assert_eq!((status, reason), (Status::False, Reason::LoadFailed));
    assert_eq!(message, "query on host-q: cannot load");

    let (status, reason, message, acked, total) =
        propagated(two(), vec![runs(Role::Handle, "h"), runs(Role::Query, "q")]);
    assert_eq!((status, reason, acked, total), (Status::True, Reason::Acknowledged, 2, 2));
    assert_eq!(message, "generation 7 runs in 1 of 1 handle, 1 of 1 query");
}

struct Case {
    resolution: Resolution,
    served: Option<Served>,
    data_plane: DataPlane,
    bus: Bus,
}

impl Case {
    /// A Topic that a relay runs, on the embedded bus.
    fn ready(generation: i64) -> Self {
        let spec = Compiled::Topic(topic("t"));
        let (key, hash) = (key(Kind::Topic, "t"), spec.hash());
        let ack = Ack { instance: "r".into(), role: Role::Relay, key: key.clone(), hash: hash.clone(), error: None };
        Self {
            resolution: Resolution {
                key,
                generation,
                origin: "t.yaml:1".into(),
                outcome: Outcome::Run(spec.into()),
                manages: true,
                findings: Vec::new(),
            },
            served: Some(Served { generation, hash }),
            data_plane: data_plane(vec![instance("r", Role::Relay)], vec![ack]),
            bus: Bus::Embedded,
        }
    }

    fn document(&self, previous: Option<&Value>, second: i64) -> Value {
        let spec = Compiled::Topic(topic("t"));
        let facts = Facts {
            resolution: &self.resolution,
            served: self.served.as_ref(),
            spec: self.served.as_ref().map(|_| &spec),
            data_plane: &self.data_plane,
            bus: &self.bus,
            projection: crate::projection::status::Seen::default(),
            endpoint: None,
        };
        document(&facts, previous, at(second))
    }
}

fn condition(document: &Value, name: &str) -> Option<(String, String, String)> {
    let found = document["conditions"].as_array()?.iter().find(|c| c["type"] == name)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

fn ready(document: &Value) -> (String, String) {
    let (status, reason, _) = condition(document, "Ready").expect("always there");
    (status, reason)
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn ready_means_acknowledged_and_equal_facts_give_an_equal_document() {
    let case = Case::ready(2);
    let first = case.document(None, 100);
    assert_eq!(ready(&first), is("True", "Available"));
    assert_eq!(first["observedGeneration"], 2);
    assert_eq!(first["dataPlane"]["ackedReplicas"], 1);
    assert!(condition(&first, "Stalled").is_none() && condition(&first, "Reconciling").is_none());
    assert_eq!(case.document(Some(&first), 200), first);

    let mut silent = Case::ready(2);
    silent.data_plane.acks.clear();
    let waiting = silent.document(Some(&first), 300);
    assert_eq!(ready(&waiting), is("False", "AwaitingInstances"));
    assert!(condition(&waiting, "Reconciling").is_some());
}

#[test]
fn a_refusal_is_stalled_and_says_what_is_still_served() {
    let mut case = Case::ready(3);
    let failure = Failure::new(Reason::InvalidSchema, "version 2: no type 'sting'").of(ConditionType::SchemaCompiled);
    case.resolution.generation = 4;
    case.resolution.outcome = Outcome::Refused(failure);
    let document = case.document(None, 1);
    let (status, reason, message) = condition(&document, "Ready").expect("always there");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InvalidSchema"));
    assert_eq!(message, "version 2: no type 'sting'; generation 3 is still served");
    assert!(condition(&document, "Stalled").is_some());
    assert_eq!(condition(&document, "SchemaCompiled").map(|c| c.0), Some("False".into()));
    assert_eq!(condition(&document, "Propagated").map(|c| c.0), Some("True".into()), "of what is served");
    let of_generation = |condition: &str| {
        let conditions = document["conditions"].as_array().expect("a list").iter();
        conditions.filter(|c| c["type"] == condition).map(|c| c["observedGeneration"].clone()).next()
    };
    let about = ["Ready", "SchemaCompiled", "Propagated"].map(of_generation);
    assert_eq!(about, [Some(json!(4)), Some(json!(4)), Some(json!(3))], "each says which generation it is about");

    case.served = None;
    let (.., message) = condition(&case.document(None, 1), "Ready").expect("always there");
    assert!(message.ends_with("nothing is served for it"), "{message}");
}

#[test]
fn a_refusal_that_trying_again_may_mend_is_not_stalled() {
    let mut case = Case::ready(3);
    let failure = Failure::new(Reason::Retrying, "the Secret 'a' cannot be read").of(ConditionType::SecretResolved);
    case.resolution.outcome = Outcome::Refused(failure);
    let document = case.document(None, 1);
    assert_eq!(ready(&document), is("False", "Retrying"));
    assert!(condition(&document, "Stalled").is_none() && condition(&document, "Reconciling").is_some());
    assert_eq!(condition(&document, "SecretResolved").map(|c| c.0), Some("False".into()));
}

/// A WebhookAction that is delivered, by an endpoint of which this is known.
fn delivered(endpoint: Option<&Endpoint>, outcome: impl FnOnce(Outcome) -> Outcome) -> Value {
    let spec = Compiled::WebhookAction(Box::new(testing::action()));
    let (key, hash) = (key(Kind::WebhookAction, "w"), spec.hash());
    let ack = Ack { instance: "a".into(), role: Role::Act, key: key.clone(), hash: hash.clone(), error: None };
    let case = Case::ready(2);
    let facts = Facts {
        resolution: &Resolution { key, outcome: outcome(Outcome::Run(spec.clone().into())), ..case.resolution },
        served: Some(&Served { generation: 1, hash }),
        spec: Some(&spec),
        data_plane: &data_plane(vec![instance("a", Role::Act)], vec![ack]),
        bus: &Bus::Embedded,
        projection: crate::projection::status::Seen::default(),
        endpoint,
    };
    document(&facts, None, at(1))
}

#[test]
fn an_endpoint_that_is_unwell_keeps_no_action_from_being_ready() {
    let open = Endpoint { healthy: Some(false), message: Some("answered 500".into()), ..Endpoint::default() };
    let document = delivered(Some(&open), |run| run);
    assert_eq!(ready(&document), is("True", "Available"));
    assert!(condition(&document, "Ready").is_some_and(|ready| ready.2.contains("1 of 1 act")), "{document}");
    assert_eq!(condition(&document, "EndpointHealthy").map(|c| (c.0, c.1)), Some(is("False", "CircuitOpen")));
    let untried = delivered(None, |run| run);
    assert_eq!(ready(&untried), is("True", "Available"));
    assert_eq!(condition(&untried, "EndpointHealthy").map(|c| (c.0, c.1)), Some(is("Unknown", "NotTried")));
}

#[test]
fn what_is_said_of_an_endpoint_is_of_the_generation_that_is_served() {
    let of_generation = |document: &Value| {
        let all = document["conditions"].as_array().into_iter().flatten();
        all.clone().find(|c| c["type"] == "EndpointHealthy").map(|c| c["observedGeneration"].clone())
    };
    assert_eq!(of_generation(&delivered(None, |run| run)), Some(json!(2)));
    let refused = |_| Outcome::Refused(Failure::new(Reason::SecretNotFound, "no Secret"));
    assert_eq!(of_generation(&delivered(None, refused)), Some(json!(1)));
}

#[test]
fn a_paused_resource_is_as_ready_as_what_is_served() {
    let mut case = Case::ready(1);
    case.resolution.outcome = Outcome::LeftAlone(Reason::Paused);
    assert_eq!(ready(&case.document(None, 1)), is("True", "Paused"));
    case.served = None;
    assert_eq!(ready(&case.document(None, 1)), is("False", "Paused"));
}

#[test]
fn a_topic_waits_for_its_broker_and_what_the_broker_refuses_is_stalled() {
    let with = |bus| Case { bus, ..Case::ready(1) }.document(None, 1);
    assert_eq!(ready(&with(Bus::Unknown)), is("False", "Pending"));
    let away = with(Bus::Unreachable("connection refused".into()));
    assert_eq!(ready(&away), is("False", "BrokerUnreachable"));
    assert!(condition(&away, "Reconciling").is_some() && condition(&away, "Stalled").is_none());

    assert_eq!(ready(&with(answered(None, Standing::Claimable))), is("False", "TopicMissing"));
    assert_eq!(ready(&with(answered(Some(1), Standing::Claimable))), is("False", "Pending"));
    for reason in
        [Reason::ConfigRejected, Reason::AdoptionRefused, Reason::RepartitionRefused, Reason::UnsupportedByBroker]
    {
        let blocked = |reason| Standing::Blocked(Blocked { reason, message: "the broker refuses".into() });
        let refused = with(answered(Some(1), blocked(reason)));
        assert_eq!(ready(&refused), is("False", reason.as_str()));
        assert_eq!(condition(&refused, "ConfigApplied").map(|c| c.1), Some(reason.to_string()));
        assert!(condition(&refused, "Stalled").is_some());
        let trying = with(answered(None, blocked(Reason::Retrying)));
        assert!(condition(&trying, "Stalled").is_none() && condition(&trying, "Reconciling").is_some());
    }
}

#[test]
fn differences_are_listed_up_to_a_bound_and_an_answer_about_another_generation_is_none() {
    let with = |bus| Case { bus, ..Case::ready(1) }.document(None, 1);
    let drifted = with(answered(Some(6), Standing::Applied));
    assert_eq!(ready(&drifted), is("True", "Available"));
    assert_eq!(condition(&drifted, "Drifted").map(|c| c.1), Some("DriftDetected".into()));
    assert_eq!(drifted["drift"], json!([{"key": "partitions", "desired": "1", "actual": "6"}]));
    assert_eq!((&drifted["topicId"], &drifted["partitions"]), (&json!("id"), &json!(6)));

    let Bus::Kafka(mut kafka) = answered(Some(1), Standing::Observed) else { unreachable!("it answered") };
    let seen = kafka.topics.get_mut("t").expect("it is there");
    let entry = |n| Drift { key: format!("k{n:02}"), desired: None, actual: Some("1".into()) };
    seen.drift = (0..40).map(entry).collect();
    let document = with(Bus::Kafka(kafka.clone()));
    assert_eq!(document["drift"].as_array().map(Vec::len), Some(32));
    assert!(condition(&document, "Drifted").is_some_and(|(_, _, m)| m.contains("k07") && m.contains("and 32 more")));

    kafka.topics.get_mut("t").expect("it is there").wanted.generation = 2;
    assert_eq!(ready(&with(Bus::Kafka(kafka))), is("False", "Pending"));
}

fn answered(partitions: Option<i32>, standing: Standing) -> Bus {
    let wanted = testing::wanted("t");
    let actual = |partitions| Actual { id: Some("id".into()), partitions, replication: 1, config: Ok(BTreeMap::new()) };
    let actual = partitions.map(actual);
    let drift = actual.as_ref().map(|actual| differences(&wanted, actual)).unwrap_or_default();
    let seen = Seen { wanted, exists: actual.as_ref().map(Existing::of), created: false, drift, standing };
    Bus::Kafka(topic::status::Kafka { topics: [("t".to_owned(), seen)].into() })
}
