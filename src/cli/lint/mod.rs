//! `cornjacket lint`: checks manifests without a database, a broker or a cluster.
//!
//! What it accepts is what runs: files are read as the directory source reads them, and resolved by the controllers'
//! own resolution.

mod finding;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use controllers::resolve::{Failure, Outcome, resolve};
use controllers::resource::Declared;
use controllers::webhook_action::secrets::Secrets;
use crds::manifest::{self, Manifest, Secret};
use crds::reason::Reason;
use crds::registration::ResourceKey;

use super::output::{Output, print};
use finding::{Finding, Report, Severity};

#[derive(Args)]
pub struct LintArgs {
    /// Manifests (.yaml, .yml, .json), or folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A line a finding, or one JSON document
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Prints what is wrong. Fails if anything is.
pub fn run(args: &LintArgs) -> anyhow::Result<()> {
    let mut texts = Vec::new();
    for path in &args.paths {
        let files = manifest::files(path).with_context(|| format!("cannot read {}", path.display()))?;
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            texts.push((file.display().to_string(), text));
        }
    }
    let report = lint(&texts);
    match args.output {
        Output::Text => report.findings.iter().try_for_each(|finding| print(&format!("{finding}\n")))?,
        Output::Json => print(&(serde_json::to_string_pretty(&report)? + "\n"))?,
    }
    let summary = report.to_string();
    if report.errors > 0 {
        bail!(summary);
    }
    if args.output == Output::Text {
        print(&format!("{summary}\n"))?;
    }
    Ok(())
}

/// Checks the files, each with its text, as one set.
fn lint(files: &[(String, String)]) -> Report {
    let (mut manifests, mut secrets) = (Vec::new(), Vec::new());
    let mut findings = BTreeSet::new();
    for (file, text) in files {
        let reading = manifest::read(file, text);
        findings.extend(reading.errors.into_iter().map(Finding::from));
        manifests.extend(reading.manifests);
        secrets.extend(reading.secrets);
    }
    let resources = manifests.len();
    let set = once_each(manifests, &mut findings);
    let secrets = each_secret_once(secrets, &mut findings);
    findings.extend(unresolved(&set, &secrets));
    findings.extend(set.iter().flat_map(|(key, manifest)| sources::unknown(key, manifest, &set)));
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    Report { findings: findings.into_iter().collect(), files: files.len(), resources, errors, warnings }
}

/// The manifests by key; a second one of the same key is a finding.
fn once_each(manifests: Vec<Manifest>, findings: &mut BTreeSet<Finding>) -> BTreeMap<ResourceKey, Manifest> {
    let mut kept: BTreeMap<ResourceKey, Manifest> = BTreeMap::new();
    for manifest in manifests {
        let key = manifest.resource.key();
        match kept.get(&key) {
            Some(first) => {
                let message = format!("is declared at {} already: remove one of the two", first.origin);
                findings.insert(Finding::new(&manifest, Severity::Error, Reason::Conflict, &message));
            }
            None => {
                kept.insert(key, manifest);
            }
        }
    }
    kept
}

/// The same for Secrets, which actions refer to.
fn each_secret_once(secrets: Vec<Secret>, findings: &mut BTreeSet<Finding>) -> Vec<Secret> {
    let mut kept: Vec<Secret> = Vec::new();
    for secret in secrets {
        let same = kept.iter().find(|other| (&other.namespace, &other.name) == (&secret.namespace, &secret.name));
        match same {
            Some(first) => {
                let message = format!("is declared at {} already: remove one of the two", first.origin);
                findings.insert(Finding::of_secret(&secret, &message));
            }
            None => kept.push(secret),
        }
    }
    kept
}

/// What keeps resources from running together, namespace by namespace. A Secret that is not among the manifests may be in a
/// cluster.
fn unresolved(manifests: &BTreeMap<ResourceKey, Manifest>, secrets: &[Secret]) -> Vec<Finding> {
    let namespaces: BTreeSet<&str> = manifests.keys().map(|key| key.namespace.as_str()).collect();
    let mut findings = Vec::new();
    for namespace in namespaces {
        let of_namespace = manifests.iter().filter(|(key, _)| key.namespace == namespace);
        let set: Vec<Declared> = of_namespace.map(|(key, manifest)| declared(key, manifest)).collect();
        let secrets = Secrets::of_manifests(secrets.iter().filter(|secret| secret.namespace == namespace));
        for resolution in resolve(&set, &BTreeMap::new(), &secrets) {
            if let Outcome::Refused(Failure { reason, message, .. }) = &resolution.outcome {
                let severity = if *reason == Reason::NotServed { Severity::Warning } else { Severity::Error };
                findings.push(Finding::new(&manifests[&resolution.key], severity, *reason, message));
            }
        }
    }
    findings
}

fn declared(key: &ResourceKey, manifest: &Manifest) -> Declared {
    Declared {
        key: key.clone(),
        generation: 1,
        created: None,
        origin: manifest.origin.to_string(),
        resource: Ok(manifest.resource.clone()),
    }
}

#[cfg(test)]
mod tests;
