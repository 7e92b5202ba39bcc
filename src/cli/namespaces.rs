//! The databases of the namespaces that controllers watch: one namespace is one platform, with databases of its own.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};

use super::url;
use crate::database::Urls;

/// The databases of each namespace: those that `dir` names for it, or the only ones there are.
///
/// # Errors
/// Several namespaces would share databases, or a file cannot be read.
pub fn databases(namespaces: &[String], dir: Option<&Path>, only: &Urls) -> anyhow::Result<BTreeMap<String, Urls>> {
    let Some(dir) = dir else {
        anyhow::ensure!(
            namespaces.len() == 1,
            "--watch-namespace {}: each namespace is a platform with databases of its own: name them by \
             --namespace-databases (CORNJACKET_NAMESPACE_DATABASES)",
            namespaces.join(",")
        );
        return Ok(namespaces.iter().map(|namespace| (namespace.clone(), only.clone())).collect());
    };
    let mut databases = BTreeMap::new();
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for namespace in namespaces {
        let urls = urls(dir, namespace)?;
        for url in [&urls.ingestion, &urls.eventhandler, &urls.tsdb, &urls.actions] {
            if let Some(owner) = owners.insert(url.expose_secret().to_owned(), namespace)
                && owner != namespace
            {
                anyhow::bail!(
                    "{}: the namespaces {owner} and {namespace} name one database: give each its own",
                    dir.display()
                );
            }
        }
        databases.insert(namespace.clone(), urls);
    }
    Ok(databases)
}

fn urls(dir: &Path, namespace: &str) -> anyhow::Result<Urls> {
    let urls =
        Urls::new(read(dir, namespace, "INGESTION_DATABASE_URL")?, read(dir, namespace, "EVENTHANDLER_DATABASE_URL")?);
    let own = |name: &str, default: SecretString| {
        if dir.join(namespace).join(name).exists() { read(dir, namespace, name) } else { Ok(default) }
    };
    Ok(Urls { tsdb: own("TSDB_DATABASE_URL", urls.tsdb)?, actions: own("ACTIONS_DATABASE_URL", urls.actions)?, ..urls })
}

fn read(dir: &Path, namespace: &str, name: &str) -> anyhow::Result<SecretString> {
    let file = dir.join(namespace).join(name);
    let shown = file.display();
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{shown}: cannot be read (it holds a database URL of the namespace {namespace})"))?;
    url::check(text.trim()).map_err(|why| anyhow::anyhow!("{shown}: not the URL of a database: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Urls {
        Urls::one(&SecretString::from("postgres://u:hunter2@host/db".to_owned()))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn one_namespace_has_the_only_databases_and_several_need_their_own() {
        assert_eq!(databases(&names(&["a"]), None, &one()).expect("one").len(), 1);
        let error = databases(&names(&["a", "b"]), None, &one()).err().expect("refused").to_string();
        assert!(error.contains("--namespace-databases"), "{error}");
    }

    #[test]
    fn each_namespace_has_a_directory_and_none_shares_a_database() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |namespace: &str, database: &str| {
            std::fs::create_dir_all(dir.path().join(namespace)).expect("our own directory");
            for name in ["INGESTION_DATABASE_URL", "EVENTHANDLER_DATABASE_URL"] {
                let url = format!("postgres://u:hunter2@host/{database}\n");
                std::fs::write(dir.path().join(namespace).join(name), url).expect("our own directory");
            }
        };
        write("a", "one");
        let error = |namespaces| {
            let refused = databases(&names(namespaces), Some(dir.path()), &one()).err().expect("refused");
            let said = format!("{refused:#}");
            assert!(!said.contains("hunter2"), "{said}");
            said
        };
        assert!(error(&["a", "b"]).contains("b/INGESTION_DATABASE_URL"));
        write("b", "one");
        assert!(error(&["a", "b"]).contains("the namespaces a and b name one database"));
        write("b", "two");
        let both = databases(&names(&["a", "b"]), Some(dir.path()), &one()).expect("two");
        assert_eq!(both["b"].ingestion.expose_secret(), "postgres://u:hunter2@host/two");
        assert_eq!(both["b"].actions.expose_secret(), both["b"].eventhandler.expose_secret(), "unless it is named");
        let own = |namespace: &str, database: &str| {
            let file = dir.path().join(namespace).join("ACTIONS_DATABASE_URL");
            std::fs::write(file, format!("postgres://u:hunter2@host/{database}")).expect("our own directory");
        };
        own("b", "three");
        let both = databases(&names(&["a", "b"]), Some(dir.path()), &one()).expect("three");
        assert_eq!(both["b"].actions.expose_secret(), "postgres://u:hunter2@host/three");
        own("b", "one");
        assert!(error(&["a", "b"]).contains("the namespaces a and b name one database"));
    }
}
