//! What keeps a release running while the next one migrates: a migration only adds. Pods of the version before hold no
//! more than their statements to the tables, so what those name must stay, and what they leave out must have a value.

use std::collections::BTreeSet;

use super::{Service, sets};

/// Migrations that were changed or taken back before anything was released.
const BEFORE_THE_FIRST_RELEASE: [(&str, i64); 5] =
    [("shared", 2), ("ingestion", 1), ("eventhandler", 5), ("tsdb", 0), ("actions", 0)];

/// Stands in the comment of a statement that takes away what no release still running needs.
const FREE: &str = "not needed since ";

/// The statements of a migration, each with the comment lines since the one before.
fn statements(sql: &str) -> Vec<(String, String)> {
    let (mut all, mut comment, mut statement) = (Vec::new(), String::new(), String::new());
    for line in sql.lines() {
        let (code, said) = line.split_once("--").unwrap_or((line, ""));
        comment.push_str(said);
        statement.push_str(code);
        statement.push(' ');
        if code.trim_end().ends_with(';') {
            let words = statement.split_whitespace().collect::<Vec<_>>().join(" ");
            all.push((std::mem::take(&mut comment), words.to_uppercase()));
            statement.clear();
        }
    }
    all
}

/// The table that a statement makes.
fn made(statement: &str) -> Option<&str> {
    let after = ["CREATE TABLE ", "CREATE UNLOGGED TABLE "].iter().find_map(|start| statement.strip_prefix(start))?;
    after.split([' ', '(']).next()
}

/// What in a statement an older release could stumble over; of the tables made `before` it, older ones know nothing.
fn takes_away(statement: &str, before: &[String]) -> Option<&'static str> {
    let is = |word: &str| statement.contains(word);
    let of_new_table = before.iter().any(|table| {
        let starts = ["ALTER TABLE", "ON"].map(|word| format!("{word} {table} "));
        statement.starts_with(&starts[0]) || is(&starts[1])
    });
    if statement.starts_with("DROP ") || is(" DROP COLUMN") || is(" DROP CONSTRAINT") || is("TRUNCATE ") {
        return Some("takes something away");
    }
    if is(" RENAME ") || is(" SET DATA TYPE") || (is("ALTER COLUMN") && is(" TYPE ")) {
        return Some("gives something another name or type");
    }
    if made(statement).is_some() || of_new_table {
        return None;
    }
    if is("SET NOT NULL") || is("ADD CONSTRAINT") || is("ADD CHECK") || is("CREATE UNIQUE INDEX") {
        return Some("refuses rows that an older release writes");
    }
    let columns = statement.split("ADD COLUMN").skip(1);
    let mut bare = columns.filter(|column| column.contains("NOT NULL") && !column.contains("DEFAULT"));
    bare.next().map(|_| "adds a column that an older release leaves out")
}

/// The statements of a migration: comment, text, and what of it an older release could stumble over.
fn stumbles(sql: &str) -> Vec<(String, String, Option<&'static str>)> {
    let mut before = Vec::new();
    let judged = statements(sql).into_iter().map(|(comment, statement)| {
        let why = takes_away(&statement, &before);
        before.extend(made(&statement).map(ToOwned::to_owned));
        (comment, statement, why)
    });
    judged.collect()
}

#[test]
fn a_migration_takes_nothing_from_the_release_before() {
    let services = BTreeSet::from([Service::Ingestion, Service::EventHandler, Service::Tsdb, Service::Actions]);
    for set in sets(&services) {
        let first = BEFORE_THE_FIRST_RELEASE.iter().find(|(name, _)| *name == set.name).expect("listed").1;
        for migration in set.migrator.iter().filter(|migration| migration.version > first) {
            for (comment, statement, why) in stumbles(migration.sql.as_str()) {
                let why = why.filter(|_| !comment.contains(FREE));
                assert_eq!(why, None, "{} migration {}: {statement}", set.name, migration.version);
            }
        }
    }
}

#[test]
fn what_an_older_release_could_stumble_over_is_told_from_what_it_could_not() {
    let stumbles = |sql: &str| stumbles(sql).iter().any(|(_, _, why)| why.is_some());
    for sql in [
        "ALTER TABLE outbox\n    -- With a default.\n    ADD COLUMN a text NOT NULL DEFAULT '', ADD COLUMN b text;",
        "CREATE TABLE a (b text NOT NULL, CHECK (b <> ''), UNIQUE (b));",
        "CREATE INDEX a ON outbox (seq);",
        "CREATE TABLE a (b text);\nCREATE UNIQUE INDEX c ON a (b);\nALTER TABLE a ADD CHECK (b <> '');",
        "-- DROP TABLE outbox;\nINSERT INTO a SELECT 1;",
        "ALTER TABLE outbox ALTER COLUMN event_payload SET STORAGE EXTERNAL;",
    ] {
        assert!(!stumbles(sql), "{sql}");
    }
    for sql in [
        "ALTER TABLE outbox\n    DROP COLUMN seq;",
        "DROP INDEX a;",
        "ALTER TABLE outbox RENAME COLUMN seq TO a;",
        "ALTER TABLE outbox ALTER COLUMN shard TYPE integer;",
        "ALTER TABLE outbox ALTER COLUMN position SET NOT NULL;",
        "ALTER TABLE outbox ADD COLUMN a text DEFAULT '', ADD COLUMN b text NOT NULL;",
        "CREATE UNIQUE INDEX a ON outbox (seq);",
        "CREATE TABLE a (b text);\nCREATE UNIQUE INDEX c ON outbox (seq);",
        "ALTER TABLE outbox ADD CONSTRAINT a CHECK (seq > 0);",
    ] {
        assert!(stumbles(sql), "{sql}");
    }
}
