//! The receivers that `docs/webhook-receivers.md` shows: real programs, with the official library of their language, against
//! our own signer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use chrono::Utc;
use cornjacket::actions::signature::{ID, SIGNATURE, SigningKey, TIMESTAMP, sign};
use reqwest::Client;

use crate::harness::{Server, eventually, free_port, http};

const SECRET: &str = "whsec_Y29ybmphY2tldC1yZWNlaXZlcnMtb2YtdGVzdHM=";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const EVENT: &str = r#"{"event_type":"sensor.alert","payload":{"größe":"3 µm", "n":1.50}}"#;

/// The programs, made ready by the script that `make test` uses as well.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-receivers");
        let output = Command::new(script).output().expect("scripts/install-receivers starts");
        assert!(output.status.success(), "install-receivers: {}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
    })
}

/// A request: what it says of itself, and its body.
#[derive(Clone)]
struct Delivery {
    id: String,
    timestamp: i64,
    signature: String,
    body: String,
}

fn signed(secrets: &[&str], id: &str, timestamp: i64, body: &str) -> Delivery {
    let keys: Vec<_> = secrets.iter().map(|secret| SigningKey::read(secret.as_bytes()).unwrap()).collect();
    let signature = sign(&keys, id, timestamp, body.as_bytes());
    Delivery { id: id.to_owned(), timestamp, signature, body: body.to_owned() }
}

/// A receiver that runs.
struct Receiver {
    server: Server,
    port: u16,
    client: Client,
}

impl Receiver {
    async fn start(language: &'static str, command: impl Fn(&Path) -> Command + Send + 'static) -> Self {
        let mut command = tokio::task::spawn_blocking(move || command(programs())).await.unwrap();
        let port = free_port();
        command.env("PORT", port.to_string()).env("WEBHOOK_SECRET", SECRET);
        let server = Server::start(&format!("receiver-{language}"), command, "KILL");
        let connect = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        eventually(Duration::from_secs(20), connect).await;
        Self { server, port, client: http::client() }
    }

    /// Posts headers and a body as they are. `None`: no answer.
    async fn post(&self, client: &Client, headers: &[(&str, &str)], body: &str) -> Option<u16> {
        let mut request = client.post(format!("http://127.0.0.1:{}/hooks", self.port)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Some(request.send().await.ok()?.status().as_u16())
    }

    async fn deliver(&self, delivery: &Delivery) -> Option<u16> {
        self.deliver_by(&self.client, delivery).await
    }

    async fn deliver_by(&self, client: &Client, delivery: &Delivery) -> Option<u16> {
        let time = delivery.timestamp.to_string();
        let headers = [(ID, delivery.id.as_str()), (TIMESTAMP, &time), (SIGNATURE, &delivery.signature)];
        self.post(client, &headers, &delivery.body).await
    }

    /// Ids of deliveries whose work was done, as often as it was.
    fn handled(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.server.log()).unwrap();
        let lines = log.lines().filter_map(|line| line.strip_prefix("handled "));
        lines.map(|line| line.strip_suffix(" sensor.alert").expect("the event's type").to_owned()).collect()
    }
}

/// What a receiver must do, whatever it is written in.
async fn accepts_what_is_ours_once_and_nothing_else(receiver: Receiver) {
    let now = Utc::now().timestamp();
    let ours = signed(&[SECRET], "one", now, EVENT);
    let accepted = [
        ours.clone(),
        signed(&[SECRET, OTHER], "first-of-two", now, EVENT),
        signed(&[OTHER, SECRET], "second-of-two", now, EVENT),
        signed(&[SECRET], "somewhat-late", now - 200, EVENT),
    ];
    for delivery in &accepted {
        assert_eq!(receiver.deliver(delivery).await, Some(204), "{}", delivery.id);
    }
    let changed = |change: fn(&mut Delivery)| {
        let mut delivery = ours.clone();
        change(&mut delivery);
        delivery
    };
    for (what, delivery) in [
        ("another secret", signed(&[OTHER], "other", now, EVENT)),
        ("an old time", signed(&[SECRET], "old", now - 400, EVENT)),
        ("a time ahead", signed(&[SECRET], "ahead", now + 400, EVENT)),
        ("a changed body", changed(|d| d.body = d.body.replace("1.50", "1.5"))),
        ("a changed id", changed(|d| d.id.push('x'))),
        ("a changed time", changed(|d| d.timestamp += 1)),
        ("half a signature", changed(|d| d.signature.truncate(20))),
        ("an empty signature", changed(|d| d.signature = "v1,".into())),
        ("another version", changed(|d| d.signature = d.signature.replace("v1,", "v2,"))),
        ("no signature at all", changed(|d| d.signature = "nonsense".into())),
    ] {
        assert_eq!(receiver.deliver(&delivery).await, Some(401), "{what}");
    }
    let time = now.to_string();
    let whole = [(ID, ours.id.as_str()), (TIMESTAMP, &time), (SIGNATURE, &ours.signature)];
    for missing in 0..whole.len() {
        let mut headers = whole.to_vec();
        let (name, _) = headers.remove(missing);
        assert_eq!(receiver.post(&receiver.client, &headers, EVENT).await, Some(401), "without {name}");
    }
    assert_eq!(receiver.deliver(&signed(&[SECRET], "no-json", now, "{")).await, Some(400));
    // It may close its connection before all of it was sent.
    let large = signed(&[SECRET], "large", now, &"x".repeat((1 << 20) + 1));
    let large = receiver.deliver_by(&http::client(), &large).await;
    assert!(matches!(large, None | Some(413)), "{large:?}");
    assert_eq!(receiver.deliver(&ours).await, Some(204), "a repeat is accepted");
    assert_eq!(receiver.handled(), accepted.map(|delivery| delivery.id), "each once");
}

#[tokio::test]
async fn the_receiver_in_rust_accepts_what_we_sign_and_nothing_else() {
    let receiver = Receiver::start("rust", |programs| Command::new(programs.join("rust"))).await;
    accepts_what_is_ours_once_and_nothing_else(receiver).await;
}

#[tokio::test]
async fn the_receiver_in_go_accepts_what_we_sign_and_nothing_else() {
    let receiver = Receiver::start("go", |programs| Command::new(programs.join("go"))).await;
    accepts_what_is_ours_once_and_nothing_else(receiver).await;
}

#[tokio::test]
async fn the_receiver_in_python_accepts_what_we_sign_and_nothing_else() {
    let command = |programs: &Path| {
        let mut command = Command::new(programs.join("python/bin/python"));
        command.arg(programs.join("python/receiver.py"));
        command
    };
    accepts_what_is_ours_once_and_nothing_else(Receiver::start("python", command).await).await;
}

#[tokio::test]
async fn the_receiver_in_javascript_accepts_what_we_sign_and_nothing_else() {
    let command = |programs: &Path| {
        let mut command = Command::new("node");
        command.arg(programs.join("javascript/receiver.mjs"));
        command
    };
    accepts_what_is_ours_once_and_nothing_else(Receiver::start("javascript", command).await).await;
}

#[test]
fn the_page_shows_the_programs_as_they_are() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = std::fs::read_to_string(docs.join("webhook-receivers.md")).unwrap();
    let programs = [
        ("rust", "rust/src/main.rs"),
        ("go", "go/main.go"),
        ("python", "python/receiver.py"),
        ("javascript", "javascript/receiver.mjs"),
    ];
    for (language, file) in programs {
        let program = std::fs::read_to_string(docs.join("webhook-receivers").join(file)).unwrap();
        let blocks = page.split("\n```").filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n'));
        let shown: Vec<_> = blocks.map(|block| format!("{block}\n")).collect();
        assert_eq!(
            shown,
            [program],
            "docs/webhook-receivers.md shows another docs/webhook-receivers/{file}: copy it there"
        );
    }
}
