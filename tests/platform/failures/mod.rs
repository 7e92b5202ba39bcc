//! Each row of the failure table: what a client was told is accepted is stored once, in order, and folded exactly.
//!
//! One of these tests runs at a time on each bus, for they measure how quickly the platform recovers, and those on Kafka
//! share a broker that they may stop. Those that compare rates run alone.

mod broker;
mod controllers;
mod freeze;
mod joins;
mod keyless;
mod kill;
mod load;
mod measure;
mod postgres;
mod reroute;
mod resources;
mod silent;
mod table;
mod up;
mod verify;
mod wake;
mod xmin;

use tokio::sync::{Mutex, MutexGuard};

use crate::harness::{Bus, Database, OwnKafka, Platform, Process};

use load::{Load, Pace};
use verify::verify;

/// The right to run on a bus, and the broker of these tests.
struct Turn {
    kind: Kind,
    kafka: Option<OwnKafka>,
}

impl Turn {
    const fn on(kind: Kind) -> Mutex<Self> {
        Mutex::const_new(Self { kind, kafka: None })
    }
}

static EMBEDDED: Mutex<Turn> = Turn::on(Kind::Embedded);
static KAFKA: Mutex<Turn> = Turn::on(Kind::Kafka);

/// Of those who compare rates: the turns on both buses, the one wanted first.
async fn alone(kind: Kind) -> [MutexGuard<'static, Turn>; 2] {
    // In one order, whoever asks.
    let (embedded, kafka) = (turn(Kind::Embedded).await, turn(Kind::Kafka).await);
    match kind {
        Kind::Embedded => [embedded, kafka],
        Kind::Kafka => [kafka, embedded],
    }
}

async fn turn(kind: Kind) -> MutexGuard<'static, Turn> {
    match kind {
        Kind::Embedded => EMBEDDED.lock().await,
        Kind::Kafka => KAFKA.lock().await,
    }
}

impl Turn {
    /// The broker, running, whatever a test before did to it.
    fn kafka(&mut self) -> &mut OwnKafka {
        tokio::task::block_in_place(|| {
            let kafka = self.kafka.get_or_insert_with(|| OwnKafka::start_new("kafka-failures"));
            kafka.ensure_running();
            kafka
        })
    }

    fn bus(&mut self) -> Bus {
        match self.kind {
            Kind::Embedded => Bus::Embedded,
            Kind::Kafka => Bus::Kafka(self.kafka().brokers()),
        }
    }
}

/// Which bus a test is run on.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Embedded,
    Kafka,
}

/// A platform whose every role runs, and clients that post.
struct Running {
    platform: Platform,
    ingest: Process,
    relay: Process,
    handle: Process,
    controllers: Process,
    load: Load,
}

impl Running {
    async fn start(name: &str, database: Database, bus: Bus) -> Self {
        Self::of(Platform::new(name, database, bus), Pace::Steady).await
    }

    /// Starts one process a role, then the clients, and waits until events reach the projections.
    async fn of(platform: Platform, pace: Pace) -> Self {
        let controllers = platform.controllers().ready().await;
        let (ingest, relay, handle) =
            tokio::join!(platform.ingest().ready(), platform.relay("").ready(), platform.handle("").ready());
        let load = Load::start(&ingest.url("/api/v1/events"), pace);
        let running = Self { platform, ingest, relay, handle, controllers, load };
        running.load.more(50).await;
        let pool = running.platform.database().pool().await;
        verify::until_projected(&pool, 1).await;
        running
    }

    /// Ends the clients, and proves what the platform promised them.
    async fn settle(self) {
        let outcome = self.load.finish().await;
        verify(&self.platform.database().pool().await, &outcome).await;
    }
}
