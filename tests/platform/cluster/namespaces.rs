//! One process rules several namespaces: each is a platform with databases of its own.

use sqlx::PgPool;
use tempfile::TempDir;

use super::{TOPIC, World, acknowledging, event_type};
use crate::harness::{Bus, Database, Launch, Platform, fresh_database};

/// A namespace beside that of a world, and its database.
pub struct Second {
    pub namespace: String,
    pub database: Database,
    databases: TempDir,
}

impl Second {
    pub async fn beside(world: &World) -> Self {
        let (namespace, database) = (world.cluster.fresh_namespace(), fresh_database().await);
        let databases = tempfile::tempdir().unwrap();
        for (namespace, database) in [(&world.namespace, world.platform.database()), (&namespace, &database)] {
            let directory = databases.path().join(namespace);
            std::fs::create_dir(&directory).unwrap();
            for name in ["INGESTION_DATABASE_URL", "EVENTHANDLER_DATABASE_URL"] {
                std::fs::write(directory.join(name), format!("{}\n", database.url)).unwrap();
            }
        }
        Self { namespace, database, databases }
    }

    /// Controllers that watch both namespaces.
    pub fn ruled_by(&self, launch: Launch, world: &World) -> Launch {
        launch
            .env("CORNJACKET_WATCH_NAMESPACE", format!("{},{}", world.namespace, self.namespace))
            .env("CORNJACKET_NAMESPACE_DATABASES", self.databases.path().display().to_string())
            .env("POD_NAMESPACE", &world.namespace)
    }
}

async fn event_types(pool: &PgPool) -> Vec<String> {
    let question = "SELECT name FROM registration WHERE kind = 'EventType' AND state = 'active' ORDER BY name";
    sqlx::query_scalar(question).fetch_all(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_rules_several_namespaces_each_with_a_lease_and_databases_of_its_own() {
    let world = World::new("several", Bus::Embedded).await;
    let second = Second::beside(&world).await;
    let launch = second.ruled_by(world.platform.controllers_of(&world.kubeconfig(), ""), &world);
    let _controllers = launch.ready().await;
    let _first = world.data_plane();
    let _second = acknowledging(&second.database.url, &second.namespace);
    for (namespace, name) in [(&world.namespace, "room.left"), (&second.namespace, "room.entered")] {
        world.cluster.apply(namespace, &format!("{TOPIC}{}", event_type(name, "{}"))).unwrap();
    }
    for namespace in [&world.namespace, &second.namespace] {
        let all = ["wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "topics,eventtypes", "--all"];
        world.cluster.must(&all);
    }
    assert_eq!(event_types(&world.pool).await, ["room.left"]);
    assert_eq!(event_types(&second.database.pool().await).await, ["room.entered"]);
    for lease in ["cornjacket-controllers".to_owned(), format!("cornjacket-controllers-{}", second.namespace)] {
        assert!(world.get("lease", &lease).unwrap()["spec"]["holderIdentity"].is_string(), "{lease}");
    }
}

#[tokio::test]
async fn several_namespaces_with_one_database_are_refused() {
    let platform = Platform::new("several-refused", fresh_database().await, Bus::Embedded);
    let launch = platform.controllers_of("/nowhere".as_ref(), "").env("CORNJACKET_WATCH_NAMESPACE", "a,b");
    let output = launch.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--namespace-databases"), "{said}");
}
