//! How webhooks are delivered: for `act` and `up`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use ipnet::IpNet;
use reqwest::Certificate;
use secrecy::{ExposeSecret, SecretString};

use crate::actions::client::system_lookup;
use crate::actions::guard::Guard;
use crate::actions::state::{Memory, Redis, State};
use crate::actions::{Bounds, Settings};

/// Attempts that one process makes at a time, at all endpoints together.
const UNDER_WAY: usize = 2_048;
/// Deliveries that are claimed in one go.
const AT_ONCE: usize = 256;

#[derive(Args, Clone)]
pub struct ActionArgs {
    /// Networks that webhooks may be delivered to though they are private, loopback, link-local or otherwise none of the public
    /// internet's, for example 10.1.0.0/16; a single address is a network too
    #[arg(long, env = "CORNJACKET_WEBHOOK_ALLOW", value_delimiter = ',', value_parser = network, value_name = "NETWORK")]
    webhook_allow: Vec<IpNet>,
    /// Redirects (307 and 308) of an endpoint that are followed; each address is judged as the first
    #[arg(long, env = "CORNJACKET_WEBHOOK_REDIRECTS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=10), value_name = "REDIRECTS")]
    webhook_redirects: u8,
    /// File with certificates (PEM) of authorities that endpoints' certificates may be of, beside those of the system
    #[arg(long, env = "CORNJACKET_WEBHOOK_CA_FILE", value_name = "FILE")]
    webhook_ca_file: Option<PathBuf>,
    /// Attempts at one endpoint that one process makes at a time
    #[arg(long, env = "CORNJACKET_WEBHOOK_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "ATTEMPTS")]
    webhook_concurrency: u16,
    /// Redis server (redis:// or rediss://) that keeps limits, breakers and keys of the deduplication, for several processes
    /// that deliver; without one each process has its own, lost when it stops
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<SecretString>,
    /// How long deliveries that ended are kept with their attempts, in hours
    #[arg(long, env = "CORNJACKET_DELIVERY_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(u64).range(1..=87_600), value_name = "HOURS")]
    delivery_retention_hours: u64,
}

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(address).map_err(|_| "must be a network, for example 10.1.0.0/16 or fd00::/8".to_owned())
}

impl ActionArgs {
    /// `beside`: networks that are allowed as well.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn settings(&self, beside: Vec<IpNet>) -> anyhow::Result<Settings> {
        let allowed = self.webhook_allow.iter().copied().chain(beside).collect();
        Ok(Settings {
            guard: Guard::new(allowed),
            lookup: system_lookup(),
            roots: self.roots()?,
            redirects: self.webhook_redirects,
            bounds: Bounds { per_endpoint: usize::from(self.webhook_concurrency), in_all: UNDER_WAY, at_once: AT_ONCE },
            keep: Duration::from_secs(self.delivery_retention_hours * 3_600),
        })
    }

    /// Where the state is that deliveries share.
    ///
    /// # Errors
    /// What is given is no URL of a Redis server.
    pub fn state(&self, namespace: &str) -> anyhow::Result<State> {
        let Some(url) = &self.redis_url else { return Ok(State::Memory(Memory::default())) };
        let redis = Redis::new(url.expose_secret(), namespace).map_err(|why| {
            anyhow::anyhow!(
                "--redis-url (REDIS_URL): {why}; write it as redis://user:password@host:6379/0, or rediss:// for TLS"
            )
        })?;
        Ok(State::Redis(redis))
    }

    fn roots(&self) -> anyhow::Result<Vec<Certificate>> {
        let Some(file) = &self.webhook_ca_file else { return Ok(Vec::new()) };
        let named = || format!("--webhook-ca-file '{}'", file.display());
        let pem = std::fs::read(file).with_context(named)?;
        let roots = Certificate::from_pem_bundle(&pem).with_context(named)?;
        anyhow::ensure!(!roots.is_empty(), "{}: there is no certificate in it", named());
        Ok(roots)
    }
}
