//! The end of a process: a first signal drains, a second ends at once; `up` stops its roles after what feeds them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Bus, Launch, Platform, Process, eventually, free_port, fresh_database, sensor_resources};

const SOON: Duration = Duration::from_secs(20);

/// A request whose body is sent in part: it is under way until the rest comes, or the process ends.
struct Halfway {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Halfway {
    fn begin(process: &Process) -> Self {
        let address = process.url("").trim_start_matches("http://").to_owned();
        let body = br#"{"event_type":"sensor.reading","aggregate_id":"late","payload":{"value":1}}"#;
        let mut stream = TcpStream::connect(&address).expect("ingest listens");
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        let (head, rest) = body.split_at(10);
        let header =
            "POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue";
        write!(stream, "{header}\r\ncontent-length: {}\r\n\r\n", body.len()).expect("is sent");
        // It is told to go on once somebody reads the body: then the request is under way.
        let mut told = [0; 25];
        stream.read_exact(&mut told).expect("an answer");
        assert!(told.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&told));
        stream.write_all(head).expect("is sent");
        Self { stream, rest: rest.to_vec() }
    }

    /// Sends the rest; the answer.
    fn finish(mut self) -> String {
        self.stream.write_all(&self.rest).expect("is sent");
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).expect("is answered");
        answer
    }
}

/// A process that takes in, with a request under way, told to stop, and draining.
async fn draining(launch: Launch) -> (Process, Halfway) {
    let process = launch.env("CORNJACKET_REQUEST_SECONDS", "60").ready().await;
    let halfway = tokio::task::block_in_place(|| Halfway::begin(&process));
    process.signal(Signal::SIGTERM);
    let address = process.url("").trim_start_matches("http://").to_owned();
    eventually(SOON, || async { TcpStream::connect(&address).is_err() }).await;
    assert!(process.log().contains("draining, at most 25 s"), "{}", process.log());
    (process, halfway)
}

async fn ingest(name: &str) -> Launch {
    Platform::new(name, fresh_database().await, Bus::Embedded).ingest()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sigterm_waits_for_the_request_under_way() {
    let (mut process, halfway) = draining(ingest("sigterm-once").await).await;
    let answer = tokio::task::block_in_place(|| halfway.finish());
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let status = tokio::task::block_in_place(|| process.wait_for_end(SOON));
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_sigterm_ends_it_at_once_and_says_so() {
    let (mut process, halfway) = draining(ingest("sigterm-twice").await).await;
    process.signal(Signal::SIGTERM);
    // Well before the 25 s that the drain may take: the request is still under way.
    let status = tokio::task::block_in_place(|| process.wait_for_end(Duration::from_secs(5)));
    assert_eq!(status.code(), Some(1), "{status}");
    let log = process.log();
    assert!(log.contains("second signal: stopping at once; committed events are safe"), "{log}");
    drop(halfway);
}

/// Whatever is cut short, PostgreSQL is stopped in order.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_sigterm_to_up_cuts_the_drain_short_and_stops_its_database_all_the_same() {
    let data = tempfile::Builder::new().prefix("cornjacket-up-").tempdir().unwrap();
    // As root, PostgreSQL runs as somebody else.
    std::fs::set_permissions(data.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let resources = sensor_resources("sigterm-twice");
    let [ingestion, query, actions] = std::array::from_fn(|_| free_port());
    let launch = Launch::new("up-sigterm-twice", ingestion, &["up"])
        .env("CORNJACKET_DATA_DIR", data.path().display().to_string())
        .env("CORNJACKET_RESOURCES", resources.path().display().to_string())
        .env("CORNJACKET_INGESTION_PORT", ingestion.to_string())
        .env("CORNJACKET_QUERY_PORT", query.to_string())
        .env("CORNJACKET_ACTIONS_PORT", actions.to_string())
        .env("CORNJACKET_NO_MQTT", "true");
    let (mut process, halfway) = draining(launch).await;
    process.signal(Signal::SIGTERM);
    let status = tokio::task::block_in_place(|| process.wait_for_end(Duration::from_secs(15)));
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("second signal: stopping at once; committed events are safe"), "{log}");
    assert!(log.contains("Stopped; the data is kept in "), "{log}");
    assert!(!data.path().join("postgres/data/postmaster.pid").exists(), "{log}");
    drop(halfway);
}
