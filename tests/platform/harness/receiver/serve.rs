//! Takes connections, and answers each request as was told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::Kind;
use super::wire::{Cut, Wire};
use super::{Received, Shared};

/// Longest body that is remembered.
const BODY_BYTES: usize = 64 << 20;

/// A connection, as its requests see it.
#[derive(Clone)]
struct Connection {
    number: usize,
    cut: Cut,
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            taken = listener.accept() => {
                let Ok((stream, _)) = taken else { continue };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(connection(stream, number, tls.clone(), Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, number: usize, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let cut = Cut::default();
    let (wire, done) = (Wire::new(stream, cut.clone()), cut.done.clone());
    let routes = Router::new().fallback(receive).with_state(shared).layer(Extension(Connection { number, cut }));
    let talk = async move {
        match tls {
            None => speak(wire, routes).await,
            Some(tls) => {
                // A client that does not like the certificate says so and leaves.
                if let Ok(stream) = tls.accept(wire).await {
                    speak(stream, routes).await;
                }
            }
        }
    };
    done.run_until_cancelled(talk).await;
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router) {
    let builder = Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
}

async fn receive(State(shared): State<Arc<Shared>>, connection: Extension<Connection>, request: Request) -> Response {
    let Some(received) = read(request, connection.number).await else { return Response::new(Body::empty()) };
    let _under_way = UnderWay::begin(&shared, &received.path);
    shared.requests.lock().expect("no panic").push(received.clone());
    let answer = shared.answer(&received);
    tokio::time::sleep(answer.delay).await;
    match answer.kind {
        Kind::Answered => answer.response(move |bytes| {
            shared.endless.fetch_add(bytes as u64, Ordering::SeqCst);
        }),
        Kind::Hang => std::future::pending().await,
        Kind::Reset => {
            connection.cut.reset();
            std::future::pending().await
        }
    }
}

async fn read(request: Request, connection: usize) -> Option<Received> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES).await.ok()?;
    Some(Received {
        at: Instant::now(),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body,
        connection,
        version: parts.version,
    })
}

/// Counts a request while it is under way, also when its connection ends meanwhile.
struct UnderWay {
    shared: Arc<Shared>,
    path: String,
}

impl UnderWay {
    fn begin(shared: &Arc<Shared>, path: &str) -> Self {
        let mut all = shared.under_way.lock().expect("no panic");
        let (now, most) = all.entry(path.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Self { shared: Arc::clone(shared), path: path.to_owned() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some((now, _)) = self.shared.under_way.lock().expect("no panic").get_mut(&self.path) {
            *now -= 1;
        }
    }
}
