use crds::registration::{Compiled, Kind};
use serde_json::Value;

use super::*;
use crate::plan::Registered;
use crate::testing::{key, topic};

const TOPIC: &str = "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {name: t}\nspec: {partitions: 1}\n";

fn files(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(path, text)| ((*path).to_owned(), Ok((*text).to_owned()))).collect()
}

/// One look: what the files declare, and the rows it leaves for the next.
fn look(
    texts: &[(&str, &str)],
    before: &BTreeMap<ResourceKey, StatusRow>,
) -> (Vec<Numbered>, BTreeMap<ResourceKey, StatusRow>) {
    let numbered = number(read(&files(texts), "default", before).found, before, &Registrations::new());
    let row = |n: &Numbered| {
        let Declared { key, generation, origin, .. } = n.declared.clone();
        (key, StatusRow { status: Value::Null, origin, generation, spec_hash: n.hash.clone() })
    };
    let rows = numbered.iter().map(row).collect();
    (numbered, rows)
}

fn generation(numbered: &[Numbered]) -> i64 {
    numbered[0].declared.generation
}

#[test]
fn the_generation_rises_with_the_spec_and_only_with_it() {
    let (first, rows) = look(&[("t.yaml", TOPIC)], &BTreeMap::new());
    assert_eq!((generation(&first), first[0].declared.origin.as_str()), (1, "t.yaml:1"));

    let relaid = format!("# a comment\n{}", TOPIC.replace("{partitions: 1}", "\n  partitions: 1"));
    let (again, rows) = look(&[("renamed.yaml", &relaid)], &rows);
    assert_eq!(generation(&again), 1, "the layout and the file do not matter");

    let (edited, _) = look(&[("t.yaml", &TOPIC.replace('1', "2").replace("v2alpha2", "v1alpha1"))], &rows);
    assert_eq!(generation(&edited), 2);
}

#[test]
fn what_was_registered_before_counts_on_from_its_tombstone() {
    let spec = Compiled::Topic(topic("t"));
    let tombstone = Registered { generation: 5, hash: spec.hash(), spec: Some(spec), active: false };
    let registered = Registrations::from([(key(Kind::Topic, "t"), tombstone)]);
    let reading = read(&files(&[("t.yaml", TOPIC)]), "default", &BTreeMap::new());
    assert_eq!(generation(&number(reading.found, &BTreeMap::new(), &registered)), 6);
}

#[test]
fn a_file_that_does_not_parse_still_declares_what_it_did() {
    let (_, rows) = look(&[("t.yaml", TOPIC)], &BTreeMap::new());
    let reading = read(&files(&[("t.yaml", "kind: [Topic")]), "default", &rows);
    assert_eq!(reading.complaints.len(), 1, "{:?}", reading.complaints);
    let (broken, rows) = look(&[("t.yaml", "kind: [Topic")], &rows);
    let unreadable = broken[0].declared.resource.clone().expect_err("broken");
    assert_eq!((unreadable.reason, generation(&broken)), (Reason::InvalidManifest, 2));
    assert!(unreadable.message.starts_with("t.yaml: line "), "{}", unreadable.message);

    let (still, _) = look(&[("t.yaml", "kind: [Topic")], &rows);
    assert_eq!(generation(&still), 2, "the same mistake is the same generation");

    let (moved, _) = look(&[("t.yaml", "kind: [Topic"), ("u.yaml", TOPIC)], &rows);
    assert!(moved[0].declared.resource.is_ok() && moved.len() == 1, "declared elsewhere meanwhile");

    let (gone, _) = look(&[], &rows);
    assert!(gone.is_empty(), "a file that is gone declares nothing");
}

#[test]
fn a_broken_resource_has_all_its_problems_in_one_message_and_hides_no_neighbour() {
    let broken = TOPIC.replace("partitions: 1", "partitions: 0, replicationFactor: none").replace("name: t", "name: b");
    let text = format!("{TOPIC}---\n{broken}");
    let (found, _) = look(&[("t.yaml", &text)], &BTreeMap::new());
    assert_eq!(found.len(), 2);
    assert!(found[0].declared.resource.is_ok());
    let unreadable = found[1].declared.resource.clone().expect_err("broken");
    assert_eq!(unreadable.reason, Reason::InvalidSpec);
    assert!(unreadable.message.contains("partitions") && unreadable.message.contains("replicationFactor"));
}

#[test]
fn a_name_declared_twice_counts_once_and_other_namespaces_not_at_all() {
    let elsewhere = TOPIC.replace("name: t", "name: u, namespace: other");
    let reading =
        read(&files(&[("a.yaml", TOPIC), ("b.yaml", TOPIC), ("c.yaml", &elsewhere)]), "default", &BTreeMap::new());
    assert_eq!(reading.found.len(), 1);
    assert_eq!(reading.found[0].origin, "a.yaml:1");
    assert_eq!(reading.complaints.len(), 2);
}
