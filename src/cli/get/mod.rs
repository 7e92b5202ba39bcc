//! `cornjacket get`: what is declared, what runs of it, and why not.

mod silence;
mod store;
pub(in crate::cli) mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use clap::{Args, ValueEnum};
use crds::registration::Kind;
use secrecy::SecretString;
use serde_json::{Value, json};

use self::store::Entry;
use super::output::print;
use super::up::database_url;
use super::url::DatabaseUrl;
use crate::database;

/// How long the database may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct GetArgs {
    /// eventtype, topic, projection or webhookaction; also plural (eventtypes, event-types), by short name (et, tp, proj, wha),
    /// or with a name (projection/sensor-state); default: all
    #[arg(value_parser = what, value_name = "KIND[/NAME]")]
    what: Option<What>,
    /// Only the resource of this name
    #[arg(requires = "what")]
    name: Option<String>,
    /// How it is printed: `wide` has whole messages and where each resource was read
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// The platform instance
    #[arg(short, long, env = "CORNJACKET_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Database of the projections, where statuses are kept; default: the one of the `up` that runs on --data-dir
    #[arg(long, env = "EVENTHANDLER_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true)]
    database_url: Option<SecretString>,
    /// Data directory of `up`
    #[arg(long, env = "CORNJACKET_DATA_DIR", default_value = ".cornjacket", value_name = "DIR")]
    data_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Json,
    Yaml,
}

/// A kind, and a name where one is given with it as kubectl takes it and as the table prints it: `projection/sensor-state`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct What {
    kind: Kind,
    name: Option<String>,
}

fn what(word: &str) -> Result<What, String> {
    let (kind, name) = word.split_once('/').map_or((word, None), |(kind, name)| (kind, Some(name.to_owned())));
    Ok(What { kind: kind.parse::<Kind>().map_err(|e| format!("{e}, or nothing for all"))?, name })
}

impl GetArgs {
    fn kind(&self) -> Option<Kind> {
        self.what.as_ref().map(|what| what.kind)
    }

    fn name(&self) -> anyhow::Result<Option<&str>> {
        let with_kind = self.what.as_ref().and_then(|what| what.name.as_deref());
        if let (Some(one), Some(two)) = (with_kind, &self.name) {
            anyhow::bail!("two names are given, '{one}' and '{two}': give one");
        }
        Ok(with_kind.or(self.name.as_deref()))
    }
}

pub async fn run(args: GetArgs) -> anyhow::Result<()> {
    let url = find_database(&args)?;
    let pool = database::pool(&url, "get", 1)?;
    let read = store::read(&pool, &args.namespace);
    let read = tokio::time::timeout(ANSWER, read).await.context("the database does not answer")?;
    let (mut entries, life, waiting) = read.with_context(|| unreadable(&args))?;
    for entry in &mut entries {
        silence::tell(entry, &life);
    }
    for note in silence::note(&life).into_iter().chain(table::waiting(&waiting)) {
        eprintln!("{note}");
    }
    entries.retain(|entry| args.kind().is_none_or(|kind| kind == entry.kind));
    if let (Some(kind), Some(name)) = (args.kind(), args.name()?) {
        entries.retain(|entry| entry.name == name);
        anyhow::ensure!(!entries.is_empty(), "there is no {kind} '{name}' in the namespace '{}'", args.namespace);
    }
    Ok(print(&rendered(&entries, &args)?)?)
}

/// What to say where the database cannot be read.
fn unreadable(args: &GetArgs) -> String {
    match args.database_url {
        Some(_) => "cannot read what is registered; is the platform running, and migrated?".to_owned(),
        None => format!(
            "nothing is running on '{0}', or its PostgreSQL is away: start it by `cornjacket up --data-dir {0}`",
            args.data_dir.display()
        ),
    }
}

/// The flag or its variable, else what `up` wrote.
fn find_database(args: &GetArgs) -> anyhow::Result<SecretString> {
    if let Some(url) = &args.database_url {
        return Ok(url.clone());
    }
    database_url::read(&args.data_dir).context(
        "no database is named: set --database-url or EVENTHANDLER_DATABASE_URL, or --data-dir to that of a running `up`",
    )
}

fn rendered(entries: &[Entry], args: &GetArgs) -> anyhow::Result<String> {
    Ok(match args.output {
        None | Some(Output::Wide) => {
            if entries.is_empty() {
                eprintln!("nothing is declared in the namespace '{}'", args.namespace);
            }
            table::render(entries, args.what.is_none(), args.output.is_some(), Utc::now())
        }
        Some(Output::Json) => serde_json::to_string_pretty(&document(entries, args.name()?.is_some()))? + "\n",
        Some(Output::Yaml) => serde_saphyr::to_string(&document(entries, args.name()?.is_some()))?,
    })
}

/// One object where one was named, else a list, as kubectl prints them.
fn document(entries: &[Entry], one: bool) -> Value {
    let mut items: Vec<Value> = entries.iter().map(object).collect();
    if one && items.len() == 1 {
        return items.swap_remove(0);
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn object(entry: &Entry) -> Value {
    let mut object = json!({
        "apiVersion": crds::shared::API_VERSION,
        "kind": entry.kind,
        "metadata": {
            "namespace": entry.namespace,
            "name": entry.name,
            "generation": entry.generation,
            "creationTimestamp": entry.created_at,
            "annotations": {"cornjacket.io/origin": entry.origin},
        },
        "status": entry.status,
    });
    if let Some(registered) = &entry.registered {
        object["registration"] = json!({
            "generation": registered.generation,
            "hash": registered.hash,
            "updatedAt": registered.updated_at,
            "spec": registered.spec,
        });
    }
    if let Some(letters) = entry.dead_letters {
        object["deadLetters"] = json!(letters);
    }
    if let Some(progress) = &entry.progress {
        object["progress"] = json!({
            "status": progress.status,
            "behind": progress.behind,
            "message": progress.message,
            "historyFrom": progress.history_from,
            "updatedAt": progress.updated_at,
        });
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_taken_as_kubectl_takes_them_and_listed_where_one_is_refused() {
        for word in
            ["EventType", "eventtype", "eventtypes", "event-type", "event-types", "et", "eventtypes.cornjacket.io"]
        {
            assert_eq!(what(word), Ok(What { kind: Kind::EventType, name: None }), "{word}");
        }
        for (word, kind) in
            [("tp", Kind::Topic), ("Projections", Kind::Projection), ("webhook-actions", Kind::WebhookAction)]
        {
            assert_eq!(what(word), Ok(What { kind, name: None }), "{word}");
        }
        let named = What { kind: Kind::Projection, name: Some("sensor-state".to_owned()) };
        assert_eq!(what("projection/sensor-state"), Ok(named));
        let refused = what("events").expect_err("no kind");
        for known in ["'events'", "eventtype (et)", "topic (tp)", "projection (proj)", "webhookaction (wha)", "all"] {
            assert!(refused.contains(known), "{refused}");
        }
    }
}
