//! What every test stands on: real services started once per run, real processes of the platform, and waiting on
//! conditions. Nothing here outlives the run (see `reaper`).
//!
//! | Variable | Meaning | Default |
//! |---|---|---|
//! | `TEST_POSTGRES_BIN` | directory of PostgreSQL's programs | found as `cornjacket up` finds them |
//! | `KUBEBUILDER_ASSETS` | directory of kube-apiserver, kube-controller-manager, etcd and kubectl | found or built by `scripts/install-kubernetes` |
//! | `TEST_PATIENCE` | how many times longer than expected something may take | 1; `make test` sets 3 |
//! | `KAFKA_HOME` | an unpacked Apache Kafka (its `libs`) | `.services/kafka`, fetched by `scripts/kafka-libs` |

mod authority;
mod cluster;
pub mod http;
mod kafka;
mod line;
mod mosquitto;
mod platform;
mod ports;
mod postgres;
mod process;
mod reaper;
mod receiver;
mod redis;
mod server;
mod wait;

pub use authority::Authority;
pub use cluster::{Cluster, shared_cluster};
pub use kafka::{OwnKafka, SASL_PASSWORD, SASL_USER, administered, shared_kafka, shared_kafka_with_sasl, topic_prefix};
pub use line::in_front_of;
pub use mosquitto::Mosquitto;
pub use platform::{Bus, Platform, by_mqtt, sensor_resources};
pub use ports::free_port;
pub use postgres::{Database, OwnPostgres, fresh_database};
pub use process::{Launch, Process};
pub use reaper::stop_at_end;
pub use receiver::{Answer, Certificate, Received, Receiver};
pub use redis::{OwnRedis, shared_redis};
pub use server::Server;
pub use wait::{eventually, patient, promised};
