//! Webhook actions in a cluster: Secrets that are referred to are read, and no others; endpoints are told; deliveries go with
//! an action that deletes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crds::secret::{Place, PlatformKey};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::charts::{PRODUCTION, render};
use super::{SOON, World};
use crate::harness::{Answer, Bus, Launch, Receiver, eventually};
use crate::webhook_health::try_out;

/// A value that occurs nowhere else.
const TOKEN: &str = "xyzzy-plugh-2718";

fn action(name: &str, secret: &str) -> String {
    format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: WebhookAction\nmetadata: {{name: {name}}}\nspec:\n  source: {{prefixes: [room.]}}\n  \
         url: https://example.com/hook\n  headers: [{{name: Authorization, secretRef: {{name: {secret}, key: token}}}}]\n---\n"
    )
}

fn key() -> PlatformKey {
    PlatformKey::new(&[42; 32])
}

/// Secrets are read again every second.
fn with_key(launch: Launch) -> Launch {
    launch.env("CORNJACKET_SECRETS_KEY", STANDARD.encode([42; 32])).env("CORNJACKET_SECRET_SECONDS", "1")
}

impl World {
    fn make_secret(&self, name: &str, token: &str) {
        let data = json!({"token": STANDARD.encode(token), "other": STANDARD.encode("of no concern")});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
        self.apply(&secret.to_string());
    }

    /// The values that are sealed for this namespace, opened at their places.
    async fn sealed(&self) -> Vec<String> {
        let rows: Vec<(String, String, Vec<u8>, String)> = sqlx::query_as(
            "SELECT name, key, sealed, key_id::text FROM registration_secret WHERE namespace = $1 ORDER BY name, key",
        )
        .bind(&self.namespace)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let open = |(name, value_key, sealed, id): &(String, String, Vec<u8>, String)| {
            let place = Place { namespace: &self.namespace, name, key: value_key };
            let value = key().open(id, place, sealed).expect("sealed at its place");
            format!("{name}/{value_key}: {}", String::from_utf8_lossy(value.expose_secret()))
        };
        rows.iter().map(open).collect()
    }

    async fn until_sealed(&self, wanted: &[&str]) {
        eventually(SOON, || async {
            let sealed = self.sealed().await;
            if sealed == wanted { Ok(()) } else { Err(format!("{sealed:?}")) }
        })
        .await;
    }

    fn desired_hash(&self, name: &str) -> Value {
        self.get("webhookaction", name).unwrap_or_default()["status"]["dataPlane"]["desiredHash"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_comes_later_wakes_its_action_and_so_does_one_that_is_rotated() {
    let world = World::new("webhooks", Bus::Embedded).await;
    let launch = with_key(world.platform.controllers_of(&world.kubeconfig(), "")).env("CORNJACKET_LOG", "trace");
    let controllers = launch.ready().await;
    world.apply(&(action("tell", "hooks") + &action("other", "elsewhere")));
    let message = world.until_ready_is("webhookaction", "tell", "False", "SecretNotFound").await;
    assert!(message.contains("there is no Secret 'hooks'") && message.contains(&world.namespace), "{message}");

    world.make_secret("hooks", TOKEN);
    let message = world.until_ready_is("webhookaction", "tell", "False", "NoInstances").await;
    assert!(message.contains("no instance of act is alive"), "{message}");
    world.until_sealed(&[&format!("hooks/token: {TOKEN}")]).await;
    let propagated = world.condition("webhookaction", "tell", "Propagated").unwrap();
    assert_eq!((propagated.0.as_str(), propagated.1.as_str()), ("Unknown", "NoInstances"));
    let resolved = world.condition("webhookaction", "tell", "SecretResolved").unwrap();
    assert_eq!((resolved.0.as_str(), resolved.1.as_str()), ("True", "SecretsFound"));

    // A Secret that stays as it is costs its reading and nothing further.
    let version = || world.get("webhookaction", "tell").unwrap()["metadata"]["resourceVersion"].clone();
    let (quiet, reads) = (version(), "cornjacket_controllers_secret_reads_total");
    let read = controllers.metric(reads).await.unwrap_or_default();
    eventually(SOON, || async { controllers.metric(reads).await.unwrap_or_default() > read + 4.0 }).await;
    assert_eq!(version(), quiet);

    let before = world.desired_hash("tell");
    world.make_secret("hooks", &format!("{TOKEN}-rotated"));
    world.until_sealed(&[&format!("hooks/token: {TOKEN}-rotated")]).await;
    eventually(SOON, || async { world.desired_hash("tell") != before }).await;

    world.kubectl(&["delete", "secret", "hooks"]);
    let message = world.until_ready_is("webhookaction", "tell", "False", "SecretNotFound").await;
    assert!(message.ends_with("generation 1 is still served"), "{message}");
    assert_eq!(world.sealed().await, [format!("hooks/token: {TOKEN}-rotated")], "what runs finds its value");
    world.kubectl(&["delete", "webhookaction", "tell"]);
    world.until_sealed(&[]).await;

    let objects = world.kubectl(&["get", "cornjacket,events.events.k8s.io", "-o", "json"]);
    for (place, shown) in [("the cluster", objects), ("the log", controllers.log())] {
        for form in [TOKEN.to_owned(), STANDARD.encode(TOKEN)] {
            assert!(!shown.contains(form.trim_end_matches('=')), "{place} shows a secret");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_read_the_secrets_that_the_chart_names_and_say_which_they_may_not() {
    let world = World::new("webhooks-allowed", Bus::Embedded).await;
    let arguments = [PRODUCTION.as_slice(), &["--set", "webhooks.secretNames={hooks}"]].concat();
    let rules = render("cornjacket", &world.namespace, &arguments);
    let rules: Vec<Value> =
        rules.into_iter().filter(|o| ["Role", "RoleBinding"].iter().any(|kind| o["kind"] == *kind)).collect();
    world.apply(&rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n"));
    let account = format!("system:serviceaccount:{}:cornjacket-controllers", world.namespace);
    let file = format!("webhooks-{}", world.namespace);
    world.cluster.write_kubeconfig(&file, &account, None);
    world.make_secret("hooks", TOKEN);
    world.make_secret("elsewhere", TOKEN);
    let _controllers = with_key(world.platform.controllers_of(&world.cluster.kubeconfig(&file), "")).ready().await;
    world.apply(&(action("tell", "hooks") + &action("other", "elsewhere")));
    world.until_ready_is("webhookaction", "tell", "False", "NoInstances").await;
    let message = world.until_ready_is("webhookaction", "other", "False", "SecretForbidden").await;
    assert!(message.contains("'elsewhere'") && message.contains("webhooks.secretNames"), "{message}");
    world.until_sealed(&[&format!("hooks/token: {TOKEN}")]).await;

    let may = |verb: &str, what: &str| {
        let output = world.cluster.kubectl(&["auth", "can-i", verb, what, "-n", &world.namespace, "--as", &account]);
        output.status.success()
    };
    assert!(may("get", "secrets/hooks"));
    for (verb, what) in [
        ("get", "secrets/elsewhere"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("watch", "secrets/hooks"),
        ("update", "secrets/hooks"),
    ] {
        assert!(!may(verb, what), "{verb} {what}");
    }
}

/// One failure opens the breaker, for a second.
const DELIVERED: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: WebhookAction
metadata: {name: NAME}
spec:
  source: {prefixes: [room.]}
  url: URL
  deletionPolicy: POLICY
  circuitBreaker: {failures: 1, cooldown: 1s}
  retry: {maxAttempts: 20, backoff: [100ms]}
---
";

impl World {
    fn deliver_to(&self, name: &str, url: &str, policy: &str) {
        self.apply(&DELIVERED.replace("NAME", name).replace("URL", url).replace("POLICY", policy));
    }

    async fn until_endpoint_is(&self, name: &str, reason: &str) {
        eventually(SOON, || async {
            let is = self.condition("webhookaction", name, "EndpointHealthy").ok_or("no condition")?;
            if is.1 == reason { Ok(()) } else { Err(format!("{is:?}")) }
        })
        .await;
    }

    /// Reasons of the Events about an action, and how often each was told.
    fn told_of(&self, name: &str) -> Vec<(String, u64)> {
        let events: Value =
            serde_json::from_str(&self.kubectl(&["get", "events.events.k8s.io", "-o", "json"])).unwrap();
        let about = events["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["name"] == name);
        let times = |event: &Value| event["series"]["count"].as_u64().unwrap_or(1);
        let mut told: Vec<_> =
            about.map(|event| (event["reason"].as_str().unwrap_or_default().to_owned(), times(event))).collect();
        told.sort();
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stops_and_comes_back_is_told_once_each_and_its_action_stays_ready() {
    let (world, receiver) = (World::new("webhooks-health", Bus::Embedded).await, Receiver::start().await);
    let _controllers = world.controllers("").await;
    let act = world.platform.act("").ready().await;
    world.deliver_to("tell", &receiver.url("/hook"), "Retain");
    world.until_ready_is("webhookaction", "tell", "True", "Available").await;
    world.until_endpoint_is("tell", "NotTried").await;
    receiver.script("/hook", [Answer::status(500)]);
    try_out(&act, "tell").await;
    world.until_endpoint_is("tell", "CircuitOpen").await;
    let shown = world.kubectl(&["get", "webhookaction", "tell"]);
    let line: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[1..5], ["True", "Available", receiver.url("/hook").as_str(), "False"], "{shown}");
    // Several probes fail meanwhile.
    receiver.until("/hook", 3, SOON).await;
    receiver.script("/hook", [Answer::status(204)]);
    world.until_endpoint_is("tell", "EndpointAnswers").await;
    let once = ["Available", "CircuitOpen", "EndpointAnswers"].map(|reason| (reason.to_owned(), 1));
    eventually(SOON, || async {
        let told = world.told_of("tell");
        if told == once { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_with_an_action_that_deletes_them_and_stay_where_they_are_retained() {
    let (world, receiver) = (World::new("webhooks-deleted", Bus::Embedded).await, Receiver::start().await);
    let _controllers = world.controllers("").await;
    let mut act = world.platform.act("").ready().await;
    for (name, policy) in [("goes", "Delete"), ("stays", "Retain"), ("lost", "Delete")] {
        world.deliver_to(name, &receiver.url(&format!("/{name}")), policy);
        world.until_ready_is("webhookaction", name, "True", "Available").await;
        try_out(&act, name).await;
    }
    receiver.until("/goes", 1, SOON).await;
    // More than one page, all but the first never attempted.
    let copied = sqlx::query(
        "INSERT INTO delivery (delivery_id, action, event_id, event_type, aggregate_id, shard, position, body, status,
                               next_attempt_at)
         SELECT gen_random_uuid(), action, gen_random_uuid(), event_type, aggregate_id, shard, position, body, 'pending',
                now() + interval '1 hour'
           FROM delivery, generate_series(1, 5000)",
    );
    assert_eq!(copied.execute(&world.pool).await.unwrap().rows_affected(), 15_000);
    let count = async |name: &str| -> i64 {
        let count = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM delivery WHERE action = $1) + (SELECT count(*) FROM action_config WHERE action = $1)",
        );
        count.bind(name).fetch_one(&world.pool).await.unwrap()
    };
    assert_eq!(world.get("webhookaction", "stays").unwrap()["metadata"]["finalizers"], Value::Null);
    world.kubectl(&["delete", "webhookaction", "goes", "--timeout=60s"]);
    assert_eq!(count("goes").await, 0, "nothing of it is left");
    world.kubectl(&["delete", "webhookaction", "stays", "--timeout=60s"]);
    // Who delivers is gone: what it had under way ends nowhere.
    act.kill9();
    sqlx::query("UPDATE delivery SET claimed_by = gen_random_uuid(), claimed_until = now() WHERE action = 'lost'")
        .execute(&world.pool)
        .await
        .unwrap();
    world.kubectl(&["delete", "webhookaction", "lost", "--timeout=60s"]);
    assert_eq!(count("lost").await, 0, "nothing of it is left");
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM delivery WHERE action = 'stays'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(kept, 5_001, "its records are kept");
    let told = world.kubectl(&["get", "events.events.k8s.io"]);
    assert!(!told.contains("DeletionAbandoned"), "{told}");
}
