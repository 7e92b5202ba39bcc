//! The HTTP client of deliveries: one for all endpoints. Every address is judged when it is about to be dialled; redirects
//! are not followed here (see [`super::attempt`]); no proxy of the environment is used, since it would dial for us.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use url::{Host, Url};

use super::guard::{Guard, Refused};

/// Longest wait for a connection, if the attempt may take as long.
const CONNECT: Duration = Duration::from_secs(10);
/// Idle connections that are kept, an endpoint, and for how long.
const IDLE: (usize, Duration) = (32, Duration::from_secs(90));

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Finds the addresses of a name.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// As the system resolves names.
pub fn system_lookup() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) }))
}

/// Makes the client. `roots` are certificates of authorities that are trusted beside those of the system.
///
/// # Errors
/// The TLS library does not take what it is given.
pub fn client(guard: Arc<Guard>, lookup: Lookup, roots: Vec<Certificate>) -> Result<Client, reqwest::Error> {
    // Only the first of a process has to; the others are told that it is done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("cornjacket/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .dns_resolver(Guarded { guard, lookup })
        .tls_certs_merge(roots)
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(IDLE.0)
        .pool_idle_timeout(IDLE.1)
        .tcp_nodelay(true)
        .build()
}

/// An address that is written in the URL is resolved by nobody: it is judged here.
///
/// # Errors
/// It may not be dialled.
pub fn check_literal(guard: &Guard, url: &Url) -> Result<(), Refused> {
    match url.host() {
        Some(Host::Ipv4(address)) => guard.check(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => guard.check(IpAddr::V6(address)),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

struct Guarded {
    guard: Arc<Guard>,
    lookup: Lookup,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, addresses) = (self.guard.clone(), (self.lookup)(name.as_str().to_owned()));
        Box::pin(async move {
            let (mut allowed, mut refused) = (Vec::new(), None);
            for address in addresses.await? {
                match guard.check(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => Err(Box::new(why) as BoxError),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
