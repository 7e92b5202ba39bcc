//! Which of several controllers is active: the one that holds the lease.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::effects::kubernetes::{ClusterError, MANAGER, ask};

/// Name of the Lease.
pub const NAME: &str = "cornjacket-controllers";
/// Seconds after which the lease of a holder that renews it no longer is free, and how long before it renews.
const DURATION: u64 = 9;
const GRACE: u64 = 3;
/// How often who waits looks whether the lease was given back.
const LOOK: Duration = Duration::from_secs(1);

/// Namespace and name of the Lease for a namespace that is watched: several that are watched from one need a name each.
pub fn place<'a>(watched: &'a str, own: Option<&'a str>) -> (&'a str, String) {
    match own {
        Some(own) if own != watched => (own, format!("{NAME}-{watched}")),
        _ => (watched, NAME.to_owned()),
    }
}

/// The lease: held, or waited for. Dropping it gives it back, so that another need not wait until it expires.
pub struct Lease {
    holds: watch::Receiver<bool>,
    api: Api<Object>,
    name: String,
}

/// Ends when the lease has been given back.
pub type GivenBack = JoinHandle<kube_lease_manager::Result<LeaseManager>>;

impl Lease {
    pub async fn compete(
        client: Client,
        (namespace, name): (&str, String),
        identity: &str,
    ) -> Result<(Self, GivenBack), ClusterError> {
        let api = Api::namespaced(client.clone(), namespace);
        let manager = LeaseManagerBuilder::new(client, name.clone())
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(DURATION)
            .with_grace(GRACE)
            .with_field_manager(format!("{MANAGER}-{identity}"))
            .build()
            .await
            .map_err(|error| ClusterError::Lease(Box::new(error)))?;
        let (holds, task) = manager.watch().await;
        Ok((Self { holds, api, name }, task))
    }

    /// Waits until this process holds it. False: who held it gave it back. The manager would find out when it expires, so
    /// compete anew.
    pub async fn held(&mut self) -> Result<bool, ClusterError> {
        let (api, name) = (self.api.clone(), self.name.clone());
        tokio::select! {
            held = self.until(true) => held.map(|()| true),
            () = given_back(api, name) => Ok(false),
        }
    }

    /// Waits until it does no longer.
    pub async fn lost(&mut self) -> Result<Infallible, ClusterError> {
        self.until(false).await?;
        Err(ClusterError::LeaseLost)
    }

    async fn until(&mut self, holds: bool) -> Result<(), ClusterError> {
        self.holds.wait_for(|now| *now == holds).await.map(|_| ()).map_err(|_| ClusterError::LeaseLost)
    }
}

/// Returns when nobody holds the lease.
async fn given_back(api: Api<Object>, name: String) {
    loop {
        sleep(LOOK).await;
        let lease = ask("look at the lease", api.get_opt(&name)).await;
        let holder = |lease: Object| lease.spec.and_then(|spec| spec.holder_identity).filter(|who| !who.is_empty());
        if lease.is_ok_and(|lease| lease.and_then(holder).is_none()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_that_is_watched_has_a_lease() {
        assert_eq!(place("a", None), ("a", NAME.to_owned()));
        assert_eq!(place("a", Some("a")), ("a", NAME.to_owned()));
        assert_eq!(place("a", Some("b")), ("b", format!("{NAME}-a")));
    }
}
