//! How many pods of the handler there are: as many as the projection that asks for most.

use std::time::Duration;

use crds::cause::Chain;
use crds::registration::Kind;
use crds::shared::{ManagementPolicy, Reconciliation};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::backoff;
use crate::effects::kubernetes::{ClusterError, Scaler};
use crate::resource::{Declared, Resource, policies};

/// Between two looks at a Deployment that has as many pods as are wanted: how soon what somebody else changed is put back.
const EVERY: Duration = Duration::from_secs(15);

/// The handler's Deployment, where its size is ours to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerDeployment {
    pub namespace: String,
    pub name: String,
    /// How many pods the installation is set to.
    pub replicas: i32,
}

/// What projections ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The most that one asks for; `None` where there are none.
    most: Option<i32>,
    /// One is paused or only observed: nothing that it may rely on is taken away.
    keeps: bool,
}

/// What the declared projections ask for. One that says nothing asks for what the installation is set to.
pub fn asked(set: &[Declared], installed: i32) -> Asked {
    let mut asked = Asked::default();
    for declared in set.iter().filter(|declared| declared.key.kind == Kind::Projection) {
        let Ok(resource @ Resource::Projection(projection)) = &declared.resource else {
            // What it asks for cannot be read.
            asked.keeps = true;
            continue;
        };
        let policies = policies(resource);
        if policies.reconciliation == Reconciliation::Active && policies.management == ManagementPolicy::Manage {
            asked.most = asked.most.max(Some(projection.spec.replicas.unwrap_or(installed)));
        } else {
            asked.keeps = true;
        }
    }
    asked
}

impl Asked {
    /// The pods that there are to be, where there are `now` and the installation is set to `installed`.
    fn wanted(self, now: i32, installed: i32) -> i32 {
        let most = self.most.unwrap_or(installed);
        if self.keeps { most.max(now) } else { most }
    }
}

/// Runs for ever; drop it to stop. Nothing is done before it is known what is asked for.
pub async fn keep(scaler: Scaler, installed: i32, mut asked: watch::Receiver<Option<Asked>>) {
    let mut failures = 0;
    loop {
        let now = *asked.borrow_and_update();
        let pause = match now {
            None => EVERY,
            Some(asked) => match scale(&scaler, installed, asked).await {
                Ok(()) => {
                    failures = 0;
                    EVERY
                }
                Err(error) => {
                    let pause = backoff::delay(failures, rand::random());
                    failures += 1;
                    warn!(error = %Chain(&error), retry_in_ms = pause.as_millis(), "the handler cannot be scaled");
                    metrics::counter!("cornjacket_controllers_scale_failures_total").increment(1);
                    pause
                }
            },
        };
        tokio::select! {
            () = sleep(pause) => {}
            changed = asked.changed() => if changed.is_err() { return },
        }
    }
}

async fn scale(scaler: &Scaler, installed: i32, asked: Asked) -> Result<(), ClusterError> {
    let is = scaler.size().await?;
    let wanted = asked.wanted(is.replicas, installed);
    if wanted != is.replicas {
        scaler.resize(&is, wanted).await?;
        info!(was = is.replicas, replicas = wanted, "handler scaled to what projections ask for");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Unreadable;
    use crate::testing::key;

    fn declared(replicas: Option<i32>, reconciliation: Reconciliation) -> Declared {
        let mut projection = crds::Projection::new("p", crds::projection::ProjectionSpec::default());
        projection.spec.replicas = replicas;
        projection.spec.reconciliation = Some(reconciliation);
        Declared {
            key: key(Kind::Projection, "p"),
            generation: 1,
            created: None,
            origin: "here".into(),
            resource: Ok(Resource::Projection(Box::new(projection))),
        }
    }

    fn active(replicas: Option<i32>) -> Declared {
        declared(replicas, Reconciliation::Active)
    }

    #[test]
    fn as_many_run_as_the_projection_that_asks_for_most() {
        let wanted = |set: &[Declared], now| asked(set, 2).wanted(now, 2);
        assert_eq!(wanted(&[], 5), 2, "what the installation is set to");
        assert_eq!(wanted(&[active(Some(3)), active(Some(1))], 2), 3);
        assert_eq!(wanted(&[active(Some(1))], 2), 1);
        assert_eq!(wanted(&[active(Some(1)), active(None)], 1), 2, "who says nothing asks for the installation's");
        assert_eq!(wanted(&[active(Some(0))], 2), 0);
    }

    #[test]
    fn nothing_is_taken_away_while_a_projection_is_left_alone_or_cannot_be_read() {
        let wanted = |set: &[Declared], now| asked(set, 2).wanted(now, 2);
        let paused = declared(Some(4), Reconciliation::Paused);
        assert_eq!(wanted(&[active(Some(1)), paused.clone()], 4), 4);
        assert_eq!(wanted(&[active(Some(5)), paused], 4), 5);
        let unreadable = Unreadable { reason: crds::reason::Reason::InvalidSpec, message: "no".into() };
        let broken = Declared { resource: Err(unreadable), ..active(None) };
        assert_eq!(wanted(&[active(Some(1)), broken], 3), 3);
    }
}
