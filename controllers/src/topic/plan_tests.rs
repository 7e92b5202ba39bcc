use crds::topic::ConfigPolicy;

use super::*;
use crate::testing;
use crate::topic::differences::Setting;

/// One partition, one copy, `retention.ms` 5 set for it, and a default that is not.
fn actual() -> Actual {
    let setting = |value: &str, own| Setting { value: Some(value.into()), own };
    let config =
        [("retention.ms".to_owned(), setting("5", true)), ("max.message.bytes".to_owned(), setting("100", false))];
    Actual { id: None, partitions: 1, replication: 1, config: Ok(config.into()) }
}

fn wanted(config: &[(&str, &str)]) -> Wanted {
    let mut wanted = testing::wanted("t");
    wanted.spec.config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    wanted
}

/// What is done, in short.
fn done(wanted: &Wanted, actual: Option<&Actual>) -> String {
    let plan = plan(wanted, actual);
    let mut words = Vec::new();
    words.extend(plan.claim.then(|| "claim".to_owned()));
    words.extend(plan.create.then(|| "create".to_owned()));
    words.extend(plan.partitions.map(|total| format!("partitions {total}")));
    words.extend(plan.alterations.iter().map(|alteration| match alteration {
        Alteration::Set { key, value } => format!("{key}={value}"),
        Alteration::Reset { key } => format!("{key} reset"),
    }));
    words.extend(plan.blocked.map(|blocked| blocked.reason.to_string()));
    words.join(", ")
}

#[test]
fn a_missing_topic_is_claimed_and_then_made_and_never_by_who_only_observes() {
    let mut topic = wanted(&[]);
    assert_eq!(done(&topic, None), "create");
    topic.claimed = false;
    assert_eq!(done(&topic, None), "claim");
    topic.rules.writes = false;
    assert_eq!(done(&topic, None), "");
}

#[test]
fn merge_changes_what_is_named_and_exact_resets_the_rest() {
    type Case = (&'static [(&'static str, &'static str)], ConfigPolicy, &'static [&'static str], &'static str);
    let table: &[Case] = &[
        (&[], ConfigPolicy::Merge, &[], ""),
        (&[("retention.ms", "5")], ConfigPolicy::Merge, &[], ""),
        (&[("retention.ms", "6")], ConfigPolicy::Merge, &[], "retention.ms=6"),
        (&[("max.message.bytes", "100")], ConfigPolicy::Merge, &[], ""),
        (&[("segment.ms", "7"), ("retention.ms", "6")], ConfigPolicy::Merge, &[], "retention.ms=6, segment.ms=7"),
        (&[], ConfigPolicy::Exact, &[], "retention.ms reset"),
        (&[("retention.ms", "5")], ConfigPolicy::Exact, &[], ""),
        (&[("max.message.bytes", "9")], ConfigPolicy::Exact, &[], "max.message.bytes=9, retention.ms reset"),
        (&[], ConfigPolicy::Exact, &["retention.ms"], ""),
        (&[], ConfigPolicy::Merge, &["retention.ms"], ""),
    ];
    for (config, policy, unmanaged, expected) in table {
        let mut topic = wanted(config);
        topic.rules.config = *policy;
        topic.rules.unmanaged = unmanaged.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(done(&topic, Some(&actual())), *expected, "{config:?} {policy:?} {unmanaged:?}");
        topic.rules.writes = false;
        assert_eq!(done(&topic, Some(&actual())), "", "observed: {config:?} {policy:?}");
        assert_eq!(plan(&topic, Some(&actual())).drift.is_empty(), expected.is_empty());
    }
}

#[test]
fn partitions_are_added_where_that_was_accepted_and_never_taken_away() {
    let mut topic = wanted(&[("retention.ms", "6")]);
    topic.spec.partitions = 3;
    assert_eq!(done(&topic, Some(&actual())), "retention.ms=6, RepartitionRefused");
    topic.rules.allow_repartition = true;
    assert_eq!(done(&topic, Some(&actual())), "partitions 3, retention.ms=6");
    let more = Actual { partitions: 5, ..actual() };
    assert_eq!(done(&topic, Some(&more)), "retention.ms=6");
    assert_eq!(words(&plan(&wanted(&[]), Some(&more)).drift, 1), "partitions is 5, described is 1");
}

#[test]
fn copies_are_changed_only_where_the_broker_can() {
    let mut topic = wanted(&[]);
    topic.spec.replication_factor = 3;
    assert_eq!(done(&topic, Some(&actual())), "UnsupportedByBroker");
    let mut redpanda = actual();
    let remote = Setting { value: Some("false".into()), own: false };
    redpanda.config.as_mut().expect("it is known").insert("redpanda.remote.read".into(), remote);
    assert_eq!(done(&topic, Some(&redpanda)), "replication.factor=3");
    topic.spec.replication_factor = -1;
    assert_eq!(done(&topic, Some(&actual())), "", "the broker's own default is any number");
}

#[test]
fn a_topic_that_existed_before_is_taken_over_as_the_policy_allows() {
    use AdoptionPolicy::{Always, IfIdentical, Never};
    for (adoption, value, expected) in [
        (IfIdentical, "5", "claim"),
        (IfIdentical, "6", "AdoptionRefused"),
        (Always, "6", "claim"),
        (Never, "5", "AdoptionRefused"),
    ] {
        let mut topic = wanted(&[("retention.ms", value)]);
        (topic.claimed, topic.rules.adoption) = (false, adoption);
        assert_eq!(done(&topic, Some(&actual())), expected, "{adoption:?} {value}");
        topic.claimed = true;
        assert_ne!(done(&topic, Some(&actual())), expected, "{adoption:?} {value}: once claimed, it is ours");
    }
    let mut topic = wanted(&[("retention.ms", "6")]);
    topic.claimed = false;
    let message = plan(&topic, Some(&actual())).blocked.expect("refused").message;
    assert!(message.contains("retention.ms is 5, described is 6"), "{message}");
}

#[test]
fn configuration_that_cannot_be_read_is_neither_written_nor_taken_over() {
    let unreadable = Actual { config: Err("not allowed".into()), ..actual() };
    for claimed in [true, false] {
        let topic = Wanted { claimed, ..wanted(&[("retention.ms", "6")]) };
        assert_eq!(done(&topic, Some(&unreadable)), "Retrying");
    }
}

#[test]
fn calls_are_as_few_as_the_broker_takes() {
    let sizes = |items: &[usize]| calls(items, |n| *n).iter().map(|call| call.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&[]), [0; 0]);
    assert_eq!(sizes(&[2; 1000]), [1000]);
    assert_eq!(sizes(&[RECORDS, 1, RECORDS * 2, 1, 1]), [1, 1, 1, 2]);
}
