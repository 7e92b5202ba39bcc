//! The README's first command, and what it and the README have people paste.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::{Launch, Server, eventually, free_port, http, patient};

const SOON: Duration = Duration::from_mins(1);

/// `make up`, as the README prints it, with data and ports of its own and the program that the tests were built with.
struct MakeUp {
    data: TempDir,
    /// Of ingestion, query, actions and devices.
    ports: [u16; 4],
    /// Other resources than the samples.
    resources: Option<TempDir>,
    server: Option<Server>,
}

impl MakeUp {
    fn new() -> Self {
        let data = tempfile::Builder::new().prefix("cornjacket-make-up-").tempdir().unwrap();
        // As root, PostgreSQL runs as somebody else.
        std::fs::set_permissions(data.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Self { data, ports: std::array::from_fn(|_| free_port()), resources: None, server: None }
    }

    /// With the samples, whose receiver is on another port of this machine.
    fn with_receiver(port: u16) -> Self {
        let (samples, copy) =
            (Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/samples"), tempfile::tempdir().unwrap());
        for dir in [samples.join("local"), samples] {
            for file in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
            {
                let text = std::fs::read_to_string(&file).unwrap().replace(":9000/", &format!(":{port}/"));
                std::fs::write(copy.path().join(file.file_name().unwrap()), text).unwrap();
            }
        }
        let mut this = Self::new();
        this.resources = Some(copy);
        this
    }

    fn start(&mut self, name: &str) {
        let mut make = Command::new("make");
        make.arg("up").current_dir(env!("CARGO_MANIFEST_DIR")).env_clear();
        for kept in ["PATH", "HOME", "TMPDIR"] {
            make.envs(std::env::var_os(kept).map(|value| (kept, value)));
        }
        make.env("CORNJACKET_BINARY", env!("CARGO_BIN_EXE_cornjacket")).env("CORNJACKET_DATA_DIR", self.data.path());
        make.envs(self.resources.as_ref().map(|dir| ("CORNJACKET_RESOURCES", dir.path())));
        let names =
            ["CORNJACKET_INGESTION_PORT", "CORNJACKET_QUERY_PORT", "CORNJACKET_ACTIONS_PORT", "CORNJACKET_MQTT_PORT"];
        make.envs(names.iter().zip(self.ports.map(|port| port.to_string())));
        self.server = Some(Server::start(name, make, "TERM"));
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("started")
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.server.as_ref().expect("started").log()).unwrap()
    }

    /// Waits until it has said how to send a first event.
    async fn ready(&mut self) -> String {
        eventually(SOON, || async {
            let printed = self.printed();
            if printed.contains("Stop with Ctrl-C.") { Ok(printed) } else { Err(printed) }
        })
        .await
    }

    fn signal_all(&self, signal: Signal) {
        let group = Pid::from_raw(i32::try_from(self.server.as_ref().expect("started").pid()).unwrap());
        killpg(group, signal).unwrap();
    }

    /// Waits for its end; the status, and that it said what becomes of the data and left no PostgreSQL.
    fn ended_well(&mut self) -> ExitStatus {
        let status = self.server().wait(SOON);
        let (printed, dir) = (self.printed(), self.data.path().display().to_string());
        assert!(printed.contains(&format!("Stopped; the data is kept in {dir}")), "{printed}");
        assert!(!self.data.path().join("postgres/data/postmaster.pid").exists(), "PostgreSQL was stopped");
        self.server = None;
        status
    }
}

impl Drop for MakeUp {
    /// Killing `make` alone would leave what it runs.
    fn drop(&mut self) {
        if self.server.as_mut().is_some_and(|server| server.ended().is_none()) {
            self.signal_all(Signal::SIGTERM);
            if !self.server().ends_within(Duration::from_secs(30)) {
                self.signal_all(Signal::SIGKILL);
            }
        }
    }
}

/// Runs text in a shell, as somebody does who pastes it.
fn paste(text: &str) -> (String, Duration) {
    let begun = Instant::now();
    let output = Command::new("sh").args(["-c", text]).output().expect("sh and curl are there");
    (String::from_utf8_lossy(&output.stdout).into_owned(), begun.elapsed())
}

/// What is to be pasted: the indented lines behind this sentence.
fn block_behind(sentence: &str, text: &str) -> String {
    let (_, rest) = text.split_once(sentence).unwrap_or_else(|| panic!("no '{sentence}' in {text}"));
    let lines = rest.lines().skip(1).skip_while(|line| line.is_empty()).take_while(|line| line.starts_with("  "));
    lines.map(str::trim_start).collect::<Vec<_>>().join("\n")
}

/// The fenced lines behind this sentence of the README, for these ports.
fn readme_block(sentence: &str, [ingestion, query, ..]: [u16; 4]) -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = readme.split_once(sentence).unwrap_or_else(|| panic!("no '{sentence}' in the README"));
    let block = rest.split("```\n").nth(1).expect("a block").to_owned();
    block.replace(":8080", &format!(":{ingestion}")).replace(":8081", &format!(":{query}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn make_up_prints_requests_that_work_as_pasted_and_keeps_the_data() {
    let mut up = MakeUp::new();
    up.start("make-up-1");
    let printed = up.ready().await;
    let pasted = block_behind("Send a first event", &printed);
    assert_eq!(pasted.matches("curl ").count(), 2, "{pasted}");
    for block in [pasted, readme_block("in a second terminal:", up.ports)] {
        let (said, took) = tokio::task::block_in_place(|| paste(&block));
        assert!(said.contains(r#""state":{"unit": "fahrenheit", "value": 72.5}"#), "{block}\n{said}");
        // Within a second or so; the machine may be busy.
        assert!(took < patient(Duration::from_secs(5)), "it took {took:?}");
    }
    let both = ["Send a first event", "the last day by the hour"].map(|sentence| block_behind(sentence, &printed));
    let (said, _) = tokio::task::block_in_place(|| paste(&both.join("\n")));
    assert!(said.contains(r#""value":72.5}]"#), "{both:?}\n{said}");
    // Ctrl-C in a terminal: everything that runs there gets it.
    up.signal_all(Signal::SIGINT);
    tokio::task::block_in_place(|| up.ended_well());

    up.start("make-up-2");
    up.ready().await;
    let row = format!("http://127.0.0.1:{}/api/v1/projections/sensor_state/device-001", up.ports[1]);
    let row = http::get(&http::client(), &row).await.unwrap();
    assert_eq!((row.status, &row.body["state"]["value"]), (200, &72.5.into()), "{}", row.body);
    up.server().signal(Signal::SIGTERM);
    tokio::task::block_in_place(|| up.ended_well());
}

/// The secret of the samples, which is none.
const SAMPLE_SECRET: &str = "whsec_Y29ybmphY2tldC1zYW1wbGVzLW5vdC1hLXNlY3JldA==";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_publishes_is_projected_kept_as_a_row_and_delivered_with_the_samples_as_they_are() {
    let port = free_port();
    let mut up = MakeUp::with_receiver(port);
    up.start("make-up-whole");
    up.ready().await;
    let listen = ["webhook", "listen", "--port", &port.to_string(), "--secret", SAMPLE_SECRET, "-o", "json"];
    let listener = Launch::new("make-up-listen", port, &listen).start();
    eventually(SOON, || tokio::net::TcpStream::connect(("127.0.0.1", port))).await;
    let [_, query, actions, devices] = up.ports;
    let client = http::client();
    let get = async |port: u16, path: &str| {
        http::get(&client, &format!("http://127.0.0.1:{port}{path}")).await.map_err(|error| error.to_string())
    };
    eventually(SOON, || async {
        let metrics =
            client.get(format!("http://127.0.0.1:{actions}/metrics")).send().await.unwrap().text().await.unwrap();
        metrics.contains("cornjacket_mqtt_subscriptions{state=\"granted\"} 1")
    })
    .await;
    // An action delivers what was accepted after it was there.
    eventually(SOON, || async {
        let known = get(actions, "/api/v1/actions").await?.body["actions"].as_array().map_or(0, Vec::len);
        if known == 2 { Ok(()) } else { Err(format!("{known} actions")) }
    })
    .await;
    let published = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &devices.to_string(), "-q", "1", "-t", "devices/pump-7/reading"])
        .args(["-m", r#"{"value":101.5,"unit":"celsius"}"#])
        .status();
    assert!(published.unwrap().success());
    eventually(SOON, || async {
        let row = get(query, "/api/v1/projections/sensor_state/pump-7").await?.body;
        if row["state"]["value"] == 101.5 { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    eventually(SOON, || async {
        let series = get(query, "/api/v1/timeseries/sensor_readings?aggregate_id=pump-7&step=1h&agg=max").await?.body;
        if series["points"][0]["value"] == 101.5 { Ok(()) } else { Err(series.to_string()) }
    })
    .await;
    let shown = eventually(SOON, || async {
        let log = listener.log();
        log.lines().find(|line| line.contains("pump-7 reads 101.5 celsius")).map(str::to_owned).ok_or(log)
    })
    .await;
    assert!(shown.contains(r#""signature":"right""#), "{shown}");
    up.signal_all(Signal::SIGINT);
    tokio::task::block_in_place(|| up.ended_well());
}
