//! One writer: takes requests from its queue, writes them in groups, answers after the commit, and finds its way back
//! to a database that went away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::event::ShardSet;

use super::flush::{Flush, Write};
use super::health::Health;
use super::instruments::Instruments;
use super::job::Job;
use super::store::{Connector, Store, StoreError};
use super::{Entry, OnCommit, RefusedBy, Settings};

/// Pauses between attempts: from the first, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// The task.
pub(super) struct Writer {
    queue: mpsc::Receiver<Job>,
    /// Taken from the queue, not yet written.
    held: VecDeque<Job>,
    connector: Connector,
    store: Option<Store>,
    settings: Settings,
    health: Arc<Health>,
    instruments: Instruments,
    on_commit: OnCommit,
    pause: Duration,
}

impl Writer {
    pub fn new(
        queue: mpsc::Receiver<Job>,
        connector: Connector,
        settings: Settings,
        health: Arc<Health>,
        instruments: Instruments,
        on_commit: OnCommit,
    ) -> Self {
        let pause = FIRST_PAUSE;
        Self { queue, held: VecDeque::new(), connector, store: None, settings, health, instruments, on_commit, pause }
    }

    /// Writes until `stop` is cancelled; what is queued then is still written.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        loop {
            if self.store.is_none() && !self.find_database(&stop).await {
                break;
            }
            if self.held.is_empty() && !self.wait_for_job(&stop).await {
                break;
            }
            if !self.held.is_empty() {
                self.flush().await;
            }
        }
        self.queue.close();
        self.pull();
        while !self.held.is_empty() {
            self.flush().await;
            self.pull();
        }
        if let Some(store) = self.store.take() {
            store.close().await;
        }
        // All callers may be gone before the stage is: that is no early end.
        stop.cancelled().await;
        Ok(())
    }

    /// Waits until there is a job, or the connection turns out to be lost. False: it is time to stop.
    async fn wait_for_job(&mut self, stop: &CancellationToken) -> bool {
        let ping = tokio::time::sleep(self.settings.ping_every);
        tokio::select! {
            biased;
            job = self.queue.recv() => {
                let more = job.is_some();
                self.held.extend(job);
                more
            }
            () = stop.cancelled() => false,
            () = ping => {
                if let Some(Err(e)) = maybe(self.store.as_mut().map(Store::ping)).await {
                    self.lose(&e);
                }
                true
            }
        }
    }

    /// Connects, with pauses, while events that waited too long are refused. False: it is time to stop.
    async fn find_database(&mut self, stop: &CancellationToken) -> bool {
        let since = Instant::now();
        while !self.connect().await {
            if since.elapsed() + self.pause >= self.settings.patience {
                self.health.refuse();
            }
            let pause = self.next_pause();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return false,
            }
            self.refuse_expired();
        }
        true
    }

    /// One attempt to connect.
    async fn connect(&mut self) -> bool {
        match self.connector.connect().await {
            Ok(store) => {
                info!("outbox writer connected");
                self.store = Some(store);
                self.pause = FIRST_PAUSE;
                self.instruments.connects.increment(1);
                self.health.connected();
                true
            }
            Err(e) => {
                self.lose(&e);
                false
            }
        }
    }

    fn lose(&mut self, error: &StoreError) {
        warn!(%error, "outbox writer: the database is away: {error}");
        self.store = None;
        self.health.lost(&error.to_string());
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LAST_PAUSE);
        pause.mul_f32(rand::random_range(0.5..1.0))
    }

    fn refuse_expired(&mut self) {
        self.pull();
        while self.held.front().is_some_and(|job| job.queued_at.elapsed() >= self.settings.patience) {
            if let Some(job) = self.held.pop_front() {
                job.refuse(&RefusedBy::Unavailable(self.health.reason()));
            }
        }
    }

    fn pull(&mut self) {
        while let Ok(job) = self.queue.try_recv() {
            self.held.push_back(job);
        }
    }

    /// Takes what fits into one flush: at least one job.
    fn gather(&mut self) -> Vec<Job> {
        let (mut jobs, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < self.settings.flush_rows && bytes < self.settings.flush_bytes {
            let Some(job) = self.held.pop_front().or_else(|| self.queue.try_recv().ok()) else { break };
            rows += job.entries.len();
            bytes += job.entries.iter().map(|e| e.envelope.len()).sum::<usize>();
            jobs.push(job);
        }
        jobs
    }

    /// Writes one group and answers it.
    async fn flush(&mut self) {
        let mut jobs = self.gather();
        let sizes: Vec<usize> = jobs.iter().map(|job| job.entries.len()).collect();
        let mut flush = Flush::new(jobs.iter_mut().map(|job| (std::mem::take(&mut job.entries), job.together)));
        let started = Instant::now();
        let until = started + self.settings.patience;
        while let Some((write, rows)) = flush.next() {
            self.write(&mut flush, write, &rows, until).await;
        }
        self.instruments.flush_rows.record(u32::try_from(flush.rows()).unwrap_or(u32::MAX));
        self.instruments.flush_seconds.record(started.elapsed());
        let mut outcomes = flush.finish().into_iter();
        for (job, size) in jobs.into_iter().zip(sizes) {
            job.answer(outcomes.by_ref().take(size).collect());
        }
    }

    /// Writes one part of a group: until it is settled, split, or `until` has passed.
    async fn write(&mut self, flush: &mut Flush, write: Write, rows: &[usize], until: Instant) {
        let mut again = false;
        loop {
            let error = match &mut self.store {
                Some(store) => {
                    let entries: Vec<&Entry> = rows.iter().map(|i| flush.entry(*i)).collect();
                    match store.insert(&entries, again, write.transaction).await {
                        Ok(answers) => {
                            self.pause = FIRST_PAUSE;
                            (self.on_commit)(entries.iter().map(|e| e.shard).collect::<ShardSet>());
                            return flush.settle(&write, rows, &answers);
                        }
                        Err(StoreError::Data(reason)) => {
                            self.instruments.refused_rows.increment(u64::from(rows.len() == 1));
                            return flush.split(write, &reason);
                        }
                        Err(error) => error,
                    }
                }
                None => StoreError::Lost(self.health.reason()),
            };
            again = true;
            self.instruments.retries.increment(1);
            if !self.recover(&error, until).await {
                return flush.give_up(&write, &RefusedBy::Unavailable(error.to_string()));
            }
        }
    }

    /// After an error: reconnects if need be. False when `until` has passed.
    async fn recover(&mut self, error: &StoreError, until: Instant) -> bool {
        if matches!(error, StoreError::Lost(_)) && self.store.is_some() {
            self.lose(error);
        } else {
            let pause = self.next_pause();
            tokio::time::sleep(pause).await;
        }
        if Instant::now() >= until {
            return false;
        }
        if self.store.is_none() {
            self.connect().await;
        }
        true
    }
}

async fn maybe<F: Future>(future: Option<F>) -> Option<F::Output> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}
