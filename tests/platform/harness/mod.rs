//! What every test stands on: real services started once per run, real processes of the platform, and waiting on
//! conditions. Nothing here outlives the run (see `reaper`).
//!
//! | Variable | Meaning | Default |
//! |---|---|---|
//! | `TEST_POSTGRES_BIN` | directory of PostgreSQL's programs | found as `cornjacket up` finds them |
//! | `KAFKA_HOME` | an unpacked Apache Kafka (its `libs`) | `.services/kafka`, fetched by `scripts/kafka` |

pub mod http;
mod ports;
mod postgres;
mod reaper;
mod server;
mod wait;

pub use ports::free_port;
pub use postgres::{Database, OwnPostgres, fresh_database};
pub use server::Server;
pub use wait::eventually;
