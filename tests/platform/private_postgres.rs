//! The private PostgreSQL of `up`: its data survives every kind of end, and nothing is left running.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cornjacket::cli::up::postgres::{PostgresError, PrivatePostgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::harness::{eventually, free_port, http, sensor_resources, stop_at_end};

fn data_dir() -> TempDir {
    let dir = tempfile::Builder::new().prefix("cornjacket-up-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    dir
}

async fn start(dir: &Path) -> PrivatePostgres {
    let postgres = PrivatePostgres::start(dir, |step| eprintln!("{step}")).await.unwrap();
    stop_at_end(postgres.pid(), "QUIT");
    postgres
}

async fn connect(postgres: &PrivatePostgres) -> PgConnection {
    PgConnection::connect(postgres.url().expose_secret()).await.unwrap()
}

async fn keep(postgres: &PrivatePostgres, number: i32) {
    let mut connection = connect(postgres).await;
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (number int)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES ($1)").bind(number).execute(&mut connection).await.unwrap();
}

async fn kept(postgres: &PrivatePostgres) -> Vec<i32> {
    let mut connection = connect(postgres).await;
    sqlx::query_scalar("SELECT number FROM kept ORDER BY number").fetch_all(&mut connection).await.unwrap()
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

fn port_of(postgres: &PrivatePostgres) -> u16 {
    postgres.url().expose_secret().parse::<sqlx::postgres::PgConnectOptions>().unwrap().get_port()
}

#[tokio::test]
async fn data_and_port_are_kept_between_starts() {
    let dir = data_dir();
    let first = start(dir.path()).await;
    keep(&first, 1).await;
    let port = port_of(&first);
    let pid = first.pid();
    first.stop().await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is waited for");
    let second = start(dir.path()).await;
    assert_eq!((kept(&second).await, port_of(&second)), (vec![1], port));
    second.stop().await;
}

#[tokio::test]
async fn its_url_is_for_the_owner_alone_and_its_password_is_asked_for() {
    let dir = data_dir();
    let postgres = start(dir.path()).await;
    let file = dir.path().join("database.url");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let url = std::fs::read_to_string(file).unwrap();
    assert_eq!(url.trim(), postgres.url().expose_secret());
    let bare = format!("postgres://cornjacket@127.0.0.1:{}/cornjacket", port_of(&postgres));
    assert!(PgConnection::connect(&bare).await.is_err(), "no one gets in without the password");
    let shown = format!("{postgres:?}");
    assert!(!shown.contains("postgres://"), "{shown}");
    postgres.stop().await;
}

#[tokio::test]
async fn its_death_is_noticed_and_the_next_start_recovers() {
    let dir = data_dir();
    let first = start(dir.path()).await;
    keep(&first, 7).await;
    let died = first.died();
    send(first.pid(), Signal::SIGKILL);
    let how = tokio::time::timeout(Duration::from_secs(5), died).await.unwrap();
    assert!(how.contains("SIGKILL") && how.contains("postgres.log"), "{how}");
    first.stop().await;
    let second = start(dir.path()).await;
    assert_eq!(kept(&second).await, [7]);
    second.stop().await;
}

#[tokio::test]
async fn a_second_up_on_the_same_directory_is_refused() {
    let dir = data_dir();
    let first = start(dir.path()).await;
    let refused = PrivatePostgres::start(dir.path(), |_| ()).await.unwrap_err();
    assert!(matches!(&refused, PostgresError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("--data-dir"), "{refused}");
    first.stop().await;
}

/// The server of a killed `up` still runs: the next start ends it, although its number says it lives.
#[tokio::test]
async fn a_server_left_behind_is_stopped_and_replaced() {
    let dir = data_dir();
    let ports: [String; 3] = std::array::from_fn(|_| free_port().to_string());
    let resources = sensor_resources("left-behind");
    let mut holder = Command::new(env!("CARGO_BIN_EXE_cornjacket"))
        .arg("up")
        .args([
            OsStr::new("--data-dir"),
            dir.path().as_os_str(),
            OsStr::new("--resources"),
            resources.path().as_os_str(),
        ])
        .args(["--ingestion-port", &ports[0], "--query-port", &ports[1], "--actions-port", &ports[2], "--no-mqtt"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready = format!("http://127.0.0.1:{}/readyz", ports[2]);
    let client = http::client();
    eventually(Duration::from_mins(1), || async {
        http::get(&client, &ready).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let mark = std::fs::read_to_string(dir.path().join("postgres/data/postmaster.pid")).unwrap();
    let left: u32 = mark.lines().next().unwrap().parse().unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(Path::new(&format!("/proc/{left}")).exists(), "it outlives the killed process");
    let steps = std::sync::Mutex::new(Vec::new());
    let next = PrivatePostgres::start(dir.path(), |step| steps.lock().unwrap().push(step.to_owned())).await.unwrap();
    assert_ne!(next.pid(), left);
    let steps = steps.into_inner().unwrap();
    assert!(steps.iter().any(|step| step.contains("left behind")), "{steps:?}");
    next.stop().await;
}

#[tokio::test]
async fn a_mark_whose_number_belongs_to_another_process_does_not_stop_the_start() {
    let dir = data_dir();
    let first = start(dir.path()).await;
    first.stop().await;
    let mark = format!("{}\n/elsewhere\n1764033000\n5432\n/nowhere\n", std::process::id());
    std::fs::write(dir.path().join("postgres/data/postmaster.pid"), mark).unwrap();
    start(dir.path()).await.stop().await;
}

#[tokio::test]
async fn a_first_start_that_was_cut_short_begins_anew() {
    let dir = data_dir();
    start(dir.path()).await.stop().await;
    let home = dir.path().join("postgres");
    std::fs::rename(home.join("data"), home.join("data.new")).unwrap();
    std::fs::remove_file(home.join("data.new/PG_VERSION")).unwrap();
    start(dir.path()).await.stop().await;
}

#[tokio::test]
async fn a_deep_directory_gets_a_short_socket() {
    let dir = data_dir();
    let deep = dir.path().join("d".repeat(60)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).unwrap();
    let postgres = start(&deep).await;
    keep(&postgres, 5).await;
    let options = postgres.url().expose_secret().parse::<sqlx::postgres::PgConnectOptions>().unwrap();
    let socket = options.get_socket().unwrap().clone();
    assert!(!socket.starts_with(dir.path()));
    postgres.stop().await;
    assert!(!socket.exists(), "the short directory goes with the server");
}

/// As root, a place below a closed directory is none for the user that PostgreSQL runs as.
#[tokio::test]
async fn a_closed_directory_of_root_is_stepped_around() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = data_dir();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let inner = dir.path().join("data");
    let first = start(&inner).await;
    keep(&first, 9).await;
    first.stop().await;
    let second = start(&inner).await;
    assert_eq!(kept(&second).await, [9]);
    second.stop().await;
    let home = inner.join("postgres").canonicalize().unwrap();
    assert!(home.starts_with("/var/lib/cornjacket"), "{}", home.display());
    std::fs::remove_dir_all(home).unwrap();
}
