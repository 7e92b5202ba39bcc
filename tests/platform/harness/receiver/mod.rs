//! An HTTP server that does what a test tells it, and remembers what it was asked: HTTP/1.1 and HTTP/2, plain or with TLS.

mod answer;
mod serve;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Version};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::answer::Answer;
use super::{Authority, eventually, reaper};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When all of it had come.
    pub at: Instant,
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Of which connection, from 1.
    pub connection: usize,
    pub version: Version,
}

impl Received {
    /// A header as text; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Whose certificate a receiver shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Of `localhost` and 127.0.0.1.
    Right,
    /// Of another host.
    WrongName,
}

enum Behaviour {
    /// The last stays.
    Script(VecDeque<Answer>),
    Function(Arc<dyn Fn(&Received) -> Answer + Send + Sync>),
}

/// What connections and requests share.
#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Received>>,
    behaviours: Mutex<BTreeMap<String, Behaviour>>,
    connections: AtomicUsize,
    /// Requests that are not answered yet, and the most of them at a time, by path.
    under_way: Mutex<BTreeMap<String, (usize, usize)>>,
    /// Bytes of endless bodies that were taken.
    endless: AtomicU64,
}

impl Shared {
    /// What is answered to a request: 200 where nothing was told.
    fn answer(&self, received: &Received) -> Answer {
        let mut behaviours = self.behaviours.lock().expect("no panic");
        match behaviours.get_mut(&received.path) {
            Some(Behaviour::Script(script)) if script.len() > 1 => script.pop_front().expect("several"),
            Some(Behaviour::Script(script)) => script.front().cloned().unwrap_or_default(),
            Some(Behaviour::Function(function)) => {
                let function = Arc::clone(function);
                drop(behaviours);
                function(received)
            }
            None => Answer::default(),
        }
    }
}

/// A running server. Dropped, it ends, and its connections with it.
pub struct Receiver {
    address: SocketAddr,
    /// Where the authority's certificate is, of one with TLS.
    authority: Option<PathBuf>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Plain HTTP, on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// HTTPS, with a certificate by an authority of its own (see [`Receiver::ca_file`]).
    pub async fn start_tls(certificate: Certificate) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let authority = Authority::new(reaper::run_dir().join(format!("receiver-{number}")));
        authority.server(match certificate {
            Certificate::Right => &["localhost", "127.0.0.1"],
            Certificate::WrongName => &["elsewhere.example"],
        });
        Self::listen(Some(&authority)).await
    }

    async fn listen(authority: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let tls = authority.map(wire::tls);
        let task = tokio::spawn(serve::serve(listener, tls, Arc::clone(&shared)));
        Self { address, authority: authority.map(|a| a.path("ca.crt")), shared, task }
    }

    /// The address of a path, by the name or number that the certificate is of.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The authority's certificate (PEM), of one with TLS.
    pub fn ca_file(&self) -> &Path {
        self.authority.as_deref().expect("a receiver with TLS")
    }

    /// Answers requests of a path one after the other by these; the last stays.
    pub fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.tell(path, Behaviour::Script(answers.into_iter().collect()));
    }

    /// Answers requests of a path by what they are.
    pub fn answer_by(&self, path: &str, function: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        self.tell(path, Behaviour::Function(Arc::new(function)));
    }

    fn tell(&self, path: &str, behaviour: Behaviour) {
        self.shared.behaviours.lock().expect("no panic").insert(path.to_owned(), behaviour);
    }

    /// Everything that came, in order.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().expect("no panic").clone()
    }

    /// What came to a path, in order.
    pub fn requests_to(&self, path: &str) -> Vec<Received> {
        let requests = self.shared.requests.lock().expect("no panic");
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// How many requests came to a path.
    pub fn count(&self, path: &str) -> usize {
        self.shared.requests.lock().expect("no panic").iter().filter(|request| request.path == path).count()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Most requests of a path that were under way at a time.
    pub fn most_at_once(&self, path: &str) -> usize {
        self.shared.under_way.lock().expect("no panic").get(path).map_or(0, |(_, most)| *most)
    }

    /// Bytes of endless bodies that were taken by who asked.
    pub fn endless_bytes(&self) -> u64 {
        self.shared.endless.load(Ordering::SeqCst)
    }

    /// Waits until so many requests came to a path, and gives them.
    #[track_caller]
    pub fn until(&self, path: &str, count: usize, deadline: Duration) -> impl Future<Output = Vec<Received>> {
        eventually(deadline, move || {
            let here = self.count(path);
            let enough =
                if here >= count { Ok(self.requests_to(path)) } else { Err(format!("{here} of {count} to {path}")) };
            std::future::ready(enough)
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
