//! A real Kubernetes API: etcd, kube-apiserver and kube-controller-manager, one for all tests, with a namespace for each;
//! and clusters of one's own for tests that stop it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::authority::Authority;
use super::{Server, free_port, patient, reaper};

const BOOT: Duration = Duration::from_mins(2);
/// Longest wait for an answer of the API server.
const ANSWER: Duration = Duration::from_secs(30);

/// A cluster without nodes.
pub struct Cluster {
    name: String,
    programs: PathBuf,
    authority: Authority,
    dir: PathBuf,
    port: u16,
    etcd_port: u16,
    /// Of a proxy that speaks plain HTTP as the administrator.
    proxy_port: u16,
    api: Option<Server>,
    /// They end with it.
    others: Vec<Server>,
}

impl Cluster {
    /// Makes one and starts it (about 6 s), with the four kinds applied.
    pub fn start_new(name: &str) -> Self {
        let dir = reaper::run_dir().join(name);
        std::fs::create_dir(&dir).expect("one cluster of a name");
        let authority = Authority::new(dir.join("pki"));
        authority.server(&["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]);
        let programs = programs();
        let (port, etcd_port, proxy_port) = (free_port(), free_port(), free_port());
        let etcd = start_etcd(name, &programs, &dir, etcd_port);
        let mut cluster = Self {
            name: name.to_owned(),
            programs,
            authority,
            dir,
            port,
            etcd_port,
            proxy_port,
            api: None,
            others: vec![etcd],
        };
        cluster.write_kubeconfig("admin", "admin", Some("system:masters"));
        cluster.write_kubeconfig("manager", "system:kube-controller-manager", None);
        cluster.start_api();
        let (manager, proxy) = (cluster.start_manager(), cluster.start_proxy());
        cluster.others.extend([manager, proxy]);
        cluster.apply_kinds();
        cluster
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(&self.dir);
        command
    }

    /// Starts the API server and waits until it answers.
    pub fn start_api(&mut self) {
        assert!(self.api.is_none(), "{} runs already", self.name);
        let pki = |file: &str| self.authority.path(file).display().to_string();
        let mut api = self.program("kube-apiserver");
        api.arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port));
        api.arg(format!("--secure-port={}", self.port));
        api.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]);
        api.arg(format!("--tls-cert-file={}", pki("server.crt")));
        api.arg(format!("--tls-private-key-file={}", pki("server.key")));
        api.arg(format!("--client-ca-file={}", pki("ca.crt")));
        api.args(["--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc"]);
        api.arg(format!("--service-account-key-file={}", pki("accounts.pub")));
        api.arg(format!("--service-account-signing-key-file={}", pki("accounts.key")));
        api.args(["--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true"]);
        self.api = Some(Server::start(&format!("{}-api", self.name), api, "KILL"));
        let begun = Instant::now();
        while !self.kubectl(&["get", "--raw", "/readyz"]).status.success() {
            let api = self.api.as_mut().expect("started");
            assert!(api.ended().is_none(), "the API server ended:\n{}", api.log_tail());
            assert!(begun.elapsed() < BOOT, "the API server is not ready:\n{}", api.log_tail());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Stops the API server. What it stored stays.
    pub fn stop_api(&mut self) {
        let mut api = self.api.take().expect("it runs");
        api.end(Signal::SIGKILL, Duration::from_secs(10));
    }

    fn start_manager(&self) -> Server {
        let mut manager = self.program("kube-controller-manager");
        manager.arg(format!("--kubeconfig={}", self.kubeconfig("manager").display()));
        manager.args(["--secure-port=0", "--leader-elect=false", "--use-service-account-credentials"]);
        manager.args(["--kube-api-qps=300", "--kube-api-burst=600"]);
        manager.arg(format!("--root-ca-file={}", self.authority.path("ca.crt").display()));
        let key = self.authority.path("accounts.key");
        manager.arg(format!("--service-account-private-key-file={}", key.display()));
        Server::start(&format!("{}-manager", self.name), manager, "KILL")
    }

    fn start_proxy(&self) -> Server {
        let mut proxy = self.program("kubectl");
        proxy.arg("--kubeconfig").arg(self.kubeconfig("admin")).arg("proxy");
        proxy.arg(format!("--port={}", self.proxy_port)).env("HOME", &self.dir);
        let mut server = Server::start(&format!("{}-proxy", self.name), proxy, "KILL");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.proxy_port)).is_err() {
            assert!(server.ended().is_none(), "the proxy ended:\n{}", server.log_tail());
            assert!(begun.elapsed() < BOOT, "the proxy does not listen:\n{}", server.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// The four kinds as they are in the repository.
    fn apply_kinds(&self) {
        let generated = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/generated");
        let said = self.must(&["apply", "--server-side", "-f", &generated.display().to_string()]);
        assert!(!said.contains("Warning"), "{said}");
        self.must(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    }

    /// Who has this kubeconfig is `user`, of `group`.
    pub fn write_kubeconfig(&self, file: &str, user: &str, group: Option<&str>) {
        let (certificate, key) = self.authority.client(user, group);
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: tests\n\
             clusters: [{{name: tests, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority-data: {}}}}}]\n\
             users: [{{name: tests, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
             contexts: [{{name: tests, context: {{cluster: tests, user: tests}}}}]\n",
            self.port,
            encode(&self.authority.ca()),
            encode(&certificate),
            encode(&key),
        );
        std::fs::write(self.kubeconfig(file), text).expect("our own directory");
    }

    pub fn kubeconfig(&self, file: &str) -> PathBuf {
        self.dir.join(format!("{file}.kubeconfig"))
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut kubectl = self.program("kubectl");
        kubectl.arg("--kubeconfig").arg(self.kubeconfig("admin")).stdin(Stdio::null());
        kubectl.args(arguments.iter().map(|argument| patiently(argument)));
        kubectl.env("HOME", &self.dir).output().expect("kubectl starts")
    }

    /// What kubectl says, both outputs.
    ///
    /// # Panics
    /// It failed.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        let said = said(&output);
        assert!(output.status.success(), "kubectl {arguments:?}: {said}");
        said
    }

    /// Applies manifests into a namespace; the error is what kubectl printed.
    pub fn apply(&self, namespace: &str, manifests: &str) -> Result<String, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let file = self.dir.join(format!("apply-{}.yaml", NUMBER.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&file, manifests).expect("our own directory");
        let output = self.kubectl(&["apply", "-n", namespace, "-f", &file.display().to_string()]);
        if output.status.success() { Ok(said(&output)) } else { Err(said(&output)) }
    }

    /// An object as JSON, where there is one. Asked again and again by tests that wait: through a proxy, since a kubectl for
    /// each question would be most of what a test run computes.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Option<Value> {
        let group = match kind {
            "pod" => "api/v1",
            "deployment" => "apis/apps/v1",
            "lease" => "apis/coordination.k8s.io/v1",
            "topic" | "eventtype" | "projection" | "webhookaction" => "apis/cornjacket.io/v1alpha1",
            other => panic!("where are objects of kind {other}?"),
        };
        self.proxied(&format!("/{group}/namespaces/{namespace}/{kind}s/{name}"))
    }

    /// The answer to a GET, if it is 200.
    fn proxied(&self, path: &str) -> Option<Value> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.proxy_port)).ok()?;
        connection.set_read_timeout(Some(ANSWER)).expect("not zero");
        write!(connection, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).filter(|status| *status == "200")?;
        serde_json::from_str(body).ok()
    }

    /// A namespace of the test's own.
    pub fn fresh_namespace(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.must(&["create", "namespace", &name]);
        name
    }
}

/// `--timeout=60s`, or a longer one (see [`patient`]).
fn patiently(argument: &str) -> String {
    let seconds = argument.strip_prefix("--timeout=").and_then(|rest| rest.strip_suffix('s')?.parse().ok());
    seconds.map_or_else(
        || argument.to_owned(),
        |seconds| format!("--timeout={}s", patient(Duration::from_secs(seconds)).as_secs()),
    )
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn start_etcd(name: &str, programs: &Path, dir: &Path, port: u16) -> Server {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
    let mut etcd = Command::new(programs.join("etcd"));
    etcd.arg("--data-dir").arg(dir.join("etcd")).args(["--log-level", "warn", "--logger", "zap"]);
    // What is stored need not outlive the machine.
    etcd.arg("--unsafe-no-fsync");
    etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    etcd.args(["--initial-cluster", &format!("default={peer}")]);
    Server::start(&format!("{name}-etcd"), etcd, "KILL")
}

/// Where the programs are: found or built by the script that `make test` uses as well.
fn programs() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-kubernetes");
    let output = Command::new(script).output().expect("scripts/install-kubernetes starts");
    assert!(output.status.success(), "no Kubernetes API for the tests: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

/// The cluster that all tests share. The first that asks starts it.
pub async fn shared_cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(|| Cluster::start_new("cluster")));
    shared.await.expect("the shared cluster starts")
}
