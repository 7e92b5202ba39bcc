//! `cornjacket crd`: the definitions of the four kinds, for `kubectl apply -f -`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use crds::registration::Kind;

use super::output::print;

#[derive(Args)]
pub struct CrdArgs {
    /// One kind only: EventType, Topic, Projection or WebhookAction; plural and short names will do
    kind: Option<Kind>,
    /// Write a file a kind into this folder, and the table of reasons, instead of printing
    #[arg(long, value_name = "DIR", conflicts_with = "kind")]
    write: Option<PathBuf>,
}

pub fn run(args: &CrdArgs) -> anyhow::Result<()> {
    if let Some(folder) = &args.write {
        return write_all(folder);
    }
    let kinds = args.kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let documents: Vec<String> = kinds.into_iter().map(crds::definition::yaml).collect();
    Ok(print(&documents.join("---\n"))?)
}

fn write_all(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let definitions =
        Kind::ALL.map(|kind| (format!("{}.yaml", kind.as_str().to_lowercase()), crds::definition::yaml(kind)));
    for (name, text) in definitions.into_iter().chain([("reasons.md".to_owned(), crds::reason::table())]) {
        let file = folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
