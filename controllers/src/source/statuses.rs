//! A directory as the source of resources, and the table `resource_status` as the home of their status.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crds::cause::Chain;
use crds::registration::ResourceKey;
use crds::secret::PlatformKey;
use tracing::warn;

use super::declare::{self, Numbered, Reading};
use super::directory::{Files, SourceError};
use crate::effects::postgres::DatabaseError;
use crate::look::{Look, Report, announce};
use crate::status::StatusRow;
use crate::topic::status::Bus;
use crate::webhook_action::secrets::{Secrets, found};

/// What is remembered from one look to the next.
#[derive(Default)]
pub struct Statuses {
    rows: Option<BTreeMap<ResourceKey, StatusRow>>,
    /// Files of which nothing was wrong, and what they declare.
    read: Option<(Files, Reading)>,
    /// Said already, so that the log says it once.
    complaints: Vec<String>,
}

impl Statuses {
    /// Makes what the files declare true, as far as it can be now, and writes down what came of it.
    pub async fn look(
        &mut self,
        look: &mut Look,
        files: Result<Files, SourceError>,
        bus: &Bus,
        key: Option<&Arc<PlatformKey>>,
    ) -> Result<(), DatabaseError> {
        let files = match files {
            Ok(files) => files,
            Err(error) => {
                // An empty directory removes everything; one that cannot be read, nothing.
                self.complain(vec![Chain(&error).to_string()]);
                return look.keep_seats().await;
            }
        };
        if self.rows.is_none() {
            self.rows = Some(look.home().statuses().await?);
        }
        let before = self.rows.clone().unwrap_or_default();
        let registered = look.home().registered().await?;
        let reading = self.read(files, look.namespace(), &before);
        self.complain(reading.complaints.clone());
        let secrets = Secrets::new(key.cloned(), Arc::new(found(&reading.secrets)));
        let declared = declare::number(reading.found, &before, &registered);
        let set: Vec<_> = declared.iter().map(|numbered| numbered.declared.clone()).collect();
        let reports = look.run(&set, registered, &|key| before.get(key).map(|row| &row.status), bus, &secrets).await?;
        self.keep(look, &reports, &declared, &before).await
    }

    /// Files that have not changed are not read again.
    fn read(&mut self, files: Files, namespace: &str, before: &BTreeMap<ResourceKey, StatusRow>) -> Reading {
        if let Some((_, reading)) = self.read.as_ref().filter(|(read, _)| *read == files) {
            return reading.clone();
        }
        let reading = declare::read(&files, namespace, before);
        self.read = reading.complaints.is_empty().then(|| (files, reading.clone()));
        reading
    }

    async fn keep(
        &mut self,
        look: &mut Look,
        reports: &[Report],
        declared: &[Numbered],
        before: &BTreeMap<ResourceKey, StatusRow>,
    ) -> Result<(), DatabaseError> {
        let hashes: HashMap<_, _> = declared.iter().map(|n| (&n.declared.key, &n.hash)).collect();
        let row = |report: &Report| StatusRow {
            status: report.status.clone(),
            origin: report.origin.clone(),
            generation: report.generation,
            spec_hash: hashes.get(&report.key).map(|hash| (*hash).clone()).unwrap_or_default(),
        };
        let after: BTreeMap<_, _> = reports.iter().map(|report| (report.key.clone(), row(report))).collect();
        let news: Vec<_> = after.iter().filter(|(key, row)| before.get(*key) != Some(*row)).collect();
        let gone: Vec<_> = before.keys().filter(|key| !after.contains_key(key)).collect();
        look.home().write_statuses(&news).await?;
        look.home().remove_statuses(&gone).await?;
        for report in reports.iter().filter(|report| before.get(&report.key) != after.get(&report.key)) {
            let was = before.get(&report.key).map(|row| &row.status);
            announce(&report.key, &report.origin, &report.status, was);
        }
        self.rows = Some(after);
        Ok(())
    }

    fn complain(&mut self, complaints: Vec<String>) {
        for complaint in complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            warn!("{complaint}; what was registered stays");
        }
        self.complaints = complaints;
    }
}
