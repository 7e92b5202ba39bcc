//! Secrets of webhook actions without a cluster: found beside the manifests, sealed into the database, and nowhere in clear.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cornjacket::registry::{Registry, Role};
use crds::secret::{Place, PlatformKey, SecretSlice};
use secrecy::ExposeSecret;
use serde_json::Value;
use sqlx::PgPool;

use crate::controllers_world::{SOON, World, key, manifest};
use crate::harness::{Bus, Launch, Platform, Process, eventually, free_port, fresh_database, http};

/// Values that occur nowhere else.
const TOKEN: &str = "Bearer xyzzy-plugh-2718";
const SIGNING: &str = "xyzzy-plugh-3141-signs-requests";

const ACTION: &str = "{source: {prefixes: [sensor.]}, url: 'https://example.com/hook', \
    headers: [{name: Authorization, secretRef: {name: hooks, key: token}}], \
    signing: {secretRefs: [{name: hooks, key: signing}]}}";

fn secret(token: &str) -> String {
    let signing = STANDARD.encode(SIGNING);
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: hooks}}\ndata: {{signing: {signing}}}\nstringData: {{token: {token:?}}}\n"
    )
}

/// Values by key as the role that delivers would read them: what a registration names, opened.
async fn opened(pool: &PgPool, key: &PlatformKey) -> Result<BTreeMap<String, String>, String> {
    let spec: Value = sqlx::query_scalar(
        "SELECT spec FROM registration WHERE kind = 'WebhookAction' AND name = 'tell' AND state = 'active'",
    )
    .fetch_optional(pool)
    .await
    .map_err(|e| e.to_string())?
    .ok_or("not registered")?;
    let mut values = BTreeMap::new();
    for version in [&spec["headers"][0]["secret"], &spec["signing"][0]].into_iter().filter(|v| !v.is_null()) {
        let text = |field: &str| version[field].as_str().unwrap_or_default();
        let place = Place { namespace: "default", name: text("name"), key: text("key") };
        let (sealed, id): (Vec<u8>, String) = sqlx::query_as(
            "SELECT sealed, key_id::text FROM registration_secret
             WHERE namespace = 'default' AND name = $1 AND key = $2 AND digest = $3",
        )
        .bind(place.name)
        .bind(place.key)
        .bind(text("digest"))
        .fetch_optional(pool)
        .await
        .map_err(|e| e.to_string())?
        .ok_or_else(|| format!("{place} is not stored"))?;
        let value = key.open(&id, place, &sealed).map_err(|e| e.to_string())?;
        values.insert(place.key.to_owned(), String::from_utf8_lossy(value.expose_secret()).into_owned());
    }
    Ok(values)
}

fn values(token: &str) -> BTreeMap<String, String> {
    [("token", token), ("signing", SIGNING)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

async fn until_opened(pool: &PgPool, key: &PlatformKey, wanted: &BTreeMap<String, String>) {
    eventually(SOON, || async {
        let found = opened(pool, key).await?;
        if found == *wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Acknowledges actions as one that delivers would when it had opened their secrets.
async fn deliver_nothing(mut registry: Registry) {
    while registry.catalog.changed().await.is_ok() {
        let catalog = registry.catalog.borrow_and_update().clone();
        for action in catalog.actions.values() {
            registry.acks.report_action(&action.key, &action.hash, Ok(()));
        }
    }
}

async fn hash(pool: &PgPool) -> String {
    sqlx::query_scalar("SELECT hash::text FROM registration WHERE kind = 'WebhookAction' AND name = 'tell'")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn stored(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM registration_secret").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_rotated_secret_is_registered_anew_and_a_missing_one_stalls_its_own_action_only() {
    let world = World::new().await;
    world.write("action.yaml", &manifest("WebhookAction", "tell", ACTION));
    world.write(
        "other.yaml",
        &manifest("WebhookAction", "other", "{source: {prefixes: [a]}, url: 'https://example.com/'}"),
    );
    let (stop, _) = world.controllers(None);
    let message = world.until_ready_is("WebhookAction", "tell", "False", "SecretNotFound").await;
    assert!(
        message.contains("there is no Secret 'hooks'") && message.ends_with("nothing is served for it"),
        "{message}"
    );
    let message = world.until_ready_is("WebhookAction", "other", "False", "NoInstances").await;
    assert!(message.contains("no instance of act is alive"), "{message}");

    world.write("secret.yaml", &secret(TOKEN));
    world.until_ready_is("WebhookAction", "tell", "False", "NoInstances").await;
    until_opened(&world.pool, &key(), &values(TOKEN)).await;
    let resolved = world.condition("WebhookAction", "tell", "SecretResolved").await.unwrap();
    assert_eq!((resolved.0.as_str(), resolved.1.as_str()), ("True", "SecretsFound"));
    let endpoint = world.condition("WebhookAction", "tell", "EndpointHealthy").await.unwrap();
    assert_eq!((endpoint.0.as_str(), endpoint.1.as_str()), ("Unknown", "NotTried"));

    // As one that delivers would.
    let (registry, _lifecycle) = world.data_plane(&[Role::Act]);
    tokio::spawn(deliver_nothing(registry));
    world.until_ready_is("WebhookAction", "tell", "True", "Available").await;
    let before = hash(&world.pool).await;
    world.write("secret.yaml", &secret("Bearer other"));
    until_opened(&world.pool, &key(), &values("Bearer other")).await;
    let after = hash(&world.pool).await;
    assert_ne!(before, after);
    assert_eq!(stored(&world.pool).await, 2, "the old value is gone");
    eventually(SOON, || async {
        let acked: Option<String> =
            sqlx::query_scalar("SELECT hash::text FROM registration_ack WHERE name = 'tell' AND role = 'act'")
                .fetch_optional(&world.pool)
                .await
                .unwrap();
        acked.as_ref() == Some(&after)
    })
    .await;
    world.until_ready_is("WebhookAction", "tell", "True", "Available").await;

    world.write("secret.yaml", &secret("Bearer with a line break\n"));
    let message = world.until_ready_is("WebhookAction", "tell", "False", "SecretInvalid").await;
    assert!(message.contains("key 'token' of the Secret 'hooks'") && message.ends_with("is still served"), "{message}");
    world.remove("secret.yaml");
    let message = world.until_ready_is("WebhookAction", "tell", "False", "SecretNotFound").await;
    assert!(message.ends_with("generation 1 is still served"), "{message}");
    assert_eq!(opened(&world.pool, &key()).await, Ok(values("Bearer other")), "what runs finds its values");
    world.until_ready_is("WebhookAction", "other", "True", "Available").await;

    world.write(
        "action.yaml",
        &manifest("WebhookAction", "tell", "{source: {prefixes: [sensor.]}, url: 'https://example.com/hook'}"),
    );
    world.until_ready_is("WebhookAction", "tell", "True", "Available").await;
    assert_eq!(stored(&world.pool).await, 0, "what is referred to no more is not kept");
    world.write("secret.yaml", &secret(TOKEN));
    world.write("action.yaml", &manifest("WebhookAction", "tell", ACTION));
    until_opened(&world.pool, &key(), &values(TOKEN)).await;
    world.remove("action.yaml");
    eventually(SOON, || async { stored(&world.pool).await == 0 }).await;
    stop.cancel();
}

/// Every row of every table.
async fn dump(pool: &PgPool) -> String {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut rows = Vec::new();
    for table in tables {
        let all = format!("SELECT coalesce(string_agg(row::text, E'\\n'), '') FROM {table} AS row");
        rows.push(sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(all)).fetch_one(pool).await.unwrap());
    }
    rows.join("\n")
}

/// As it is, and as bytes and JSON may be written.
fn assert_hidden(place: &str, shown: &str) {
    for value in [TOKEN, SIGNING, "xyzzy-plugh"] {
        let hex = hex::encode(value);
        for form in
            [value.to_owned(), hex, STANDARD.encode(value), STANDARD.encode(value).trim_end_matches('=').to_owned()]
        {
            if let Some(line) = shown.lines().find(|line| line.contains(&form)) {
                panic!("{place} shows a secret as {form}: {line}");
            }
        }
    }
}

fn with_key(launch: Launch) -> Launch {
    launch.env("CORNJACKET_SECRETS_KEY", STANDARD.encode([42; 32]))
}

async fn ready_reason(pool: &PgPool) -> Result<String, String> {
    let status: Option<Value> = sqlx::query_scalar("SELECT status FROM resource_status WHERE name = 'tell'")
        .fetch_optional(pool)
        .await
        .map_err(|e| e.to_string())?;
    let conditions = status.ok_or("no status")?["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.into_iter().find(|c| c["type"] == "Ready").ok_or("not looked at")?;
    Ok(format!("{}: {}", ready["reason"].as_str().unwrap_or_default(), ready["message"].as_str().unwrap_or_default()))
}

async fn until_reason(pool: &PgPool, reason: &str) -> String {
    eventually(SOON, || async {
        let said = ready_reason(pool).await?;
        if said.starts_with(&format!("{reason}: ")) { Ok(said) } else { Err(said) }
    })
    .await
}

async fn everything_shown(process: &Process, platform: &Platform) -> String {
    let metrics = http::get(&http::client(), &process.url("/metrics")).await.unwrap().body.to_string();
    let database = &platform.database().url;
    let resources = platform.resources().display().to_string();
    let said = |arguments: &[&str]| {
        let output = Launch::new("get", 0, arguments).env("EVENTHANDLER_DATABASE_URL", database).command().output();
        let output = tokio::task::block_in_place(|| output).expect("it starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let commands = [said(&["get", "-o", "json"]), said(&["get", "-o", "wide"]), said(&["lint", &resources])];
    assert!(commands[0].contains("\"digest\"") && commands[1].contains("webhookaction/tell"), "{commands:?}");
    [process.log(), metrics, commands.join("\n")].join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_is_in_the_database_in_logs_or_in_what_commands_print() {
    let platform = Platform::new("webhook-secrets", fresh_database().await, Bus::Embedded);
    let write = |file: &str, text: &str| std::fs::write(platform.resources().join(file), text).unwrap();
    write("action.yaml", &manifest("WebhookAction", "tell", ACTION));
    write("secret.yaml", &secret(TOKEN));
    let process = with_key(platform.controllers()).env("CORNJACKET_LOG", "trace").ready().await;
    let pool = platform.database().pool().await;
    until_reason(&pool, "NoInstances").await;
    until_opened(&pool, &key(), &values(TOKEN)).await;
    assert_hidden("everything that is shown", &everything_shown(&process, &platform).await);
    let rows = dump(&pool).await;
    assert!(rows.contains(",hooks,token,"), "the dump has what is sealed");
    assert_hidden("the database", &rows);

    for (text, reason) in [
        (secret(&format!("{TOKEN}\n")), "SecretInvalid"),
        (secret(TOKEN).replace("data: {signing: ", "data: {signing: -"), "SecretNotFound"),
        (secret(TOKEN).replace("stringData", "stringdata"), "SecretNotFound"),
        (secret(TOKEN).replace("stringData: {", "stringData: {{"), "SecretNotFound"),
    ] {
        write("secret.yaml", &secret(TOKEN));
        until_reason(&pool, "NoInstances").await;
        write("secret.yaml", &text);
        let said = until_reason(&pool, reason).await;
        assert!(said.contains("'hooks'"), "{said}");
        assert_hidden("everything that is shown", &everything_shown(&process, &platform).await);
        assert_hidden("the database", &dump(&pool).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_way_out_is_said_and_with_another_key_all_is_sealed_anew() {
    let platform = Platform::new("webhook-keys", fresh_database().await, Bus::Embedded);
    std::fs::write(
        platform.resources().join("action.yaml"),
        manifest("WebhookAction", "tell", ACTION) + &secret(TOKEN),
    )
    .unwrap();
    let mut process = platform.controllers().ready().await;
    let pool = platform.database().pool().await;
    let said = until_reason(&pool, "NoSecretsKey").await;
    assert!(said.contains("--secrets-key-file") && said.contains("CORNJACKET_SECRETS_KEY"), "{said}");
    assert_eq!(stored(&pool).await, 0);
    assert!(tokio::task::block_in_place(|| process.terminate()).success());

    let mut process = with_key(platform.controllers()).ready().await;
    until_opened(&pool, &key(), &values(TOKEN)).await;
    let before = hash(&pool).await;
    assert!(tokio::task::block_in_place(|| process.terminate()).success());

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [43; 32]).unwrap();
    let _process =
        platform.controllers().env("CORNJACKET_SECRETS_KEY_FILE", file.path().display().to_string()).ready().await;
    until_opened(&pool, &PlatformKey::new(&[43; 32]), &values(TOKEN)).await;
    assert_ne!(hash(&pool).await, before, "who has the old key must learn of it");
    assert_eq!(stored(&pool).await, 2);

    let output = platform.controllers().env("CORNJACKET_SECRETS_KEY", "xyzzy").command().output();
    let output = tokio::task::block_in_place(|| output).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("CORNJACKET_SECRETS_KEY") && !said.contains("xyzzy"), "{said}");
}

fn up(data: &Path, resources: &Path, database: &str) -> Launch {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let text: Vec<String> = ports.iter().map(u16::to_string).collect();
    let (data, resources) = (data.display().to_string(), resources.display().to_string());
    let arguments = ["up", "--data-dir", &data, "--resources", &resources, "--bind", "127.0.0.1"];
    let ports_by_flag = ["--ingestion-port", &text[0], "--query-port", &text[1], "--actions-port", &text[2]];
    Launch::new("up-secrets", ports[0], &[arguments.as_slice(), &ports_by_flag].concat())
        .env("CORNJACKET_NO_MQTT", "true")
        .env("INGESTION_DATABASE_URL", database)
}

#[tokio::test(flavor = "multi_thread")]
async fn up_makes_a_key_of_its_own_and_keeps_it() {
    let (data, resources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(resources.path().join("all.yaml"), manifest("WebhookAction", "tell", ACTION) + &secret(TOKEN))
        .unwrap();
    let database = fresh_database().await;
    let mut process = up(data.path(), resources.path(), &database.url).ready().await;
    let pool = database.pool().await;
    until_reason(&pool, "Available").await;
    let file = data.path().join("secrets.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let read = || PlatformKey::read(&SecretSlice::from(std::fs::read(&file).unwrap())).unwrap();
    until_opened(&pool, &read(), &values(TOKEN)).await;
    let before = hash(&pool).await;
    assert!(tokio::task::block_in_place(|| process.terminate()).success());

    // The second start looks at all of it, and finds nothing to seal or to register.
    sqlx::query("DELETE FROM resource_status").execute(&pool).await.unwrap();
    let _process = up(data.path(), resources.path(), &database.url).ready().await;
    until_reason(&pool, "Available").await;
    assert_eq!(hash(&pool).await, before);
    until_opened(&pool, &read(), &values(TOKEN)).await;
}
