//! The listener: takes connections until it is told to stop, then finishes the requests under way.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::fallback::with_fallbacks;

/// A connection that sends no whole request header for this long, idle or slow, is closed.
const HEADER_TIME: Duration = Duration::from_secs(75);
/// Most connections at a time; others wait for one to end before they are taken.
const CONNECTIONS: usize = 8_192;
/// Pause after a connection could not be taken, for example because there is no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves routes until the token is cancelled, then finishes the requests under way.
///
/// # Errors
/// None at present: a listener that cannot take connections goes on trying.
pub async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) -> std::io::Result<()> {
    serve_at_most(CONNECTIONS, listener, routes, stop).await
}

async fn serve_at_most(
    connections: usize,
    listener: TcpListener,
    routes: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let routes = with_fallbacks(routes);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let (place, stream) = tokio::select! {
            taken = accept(&listener, &places) => match taken {
                Ok(taken) => taken,
                Err(e) => {
                    warn!(error = %e, "cannot take a connection: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        // Answers are small and written whole.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(e) = connection.await {
                debug!(error = %e, "connection ended: {e}");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

/// Waits for a place, then for a connection.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(OwnedSemaphorePermit, TcpStream)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((place, stream))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_stop_answers_the_request_under_way_and_takes_no_other() {
        let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (says_begun, waits) = (Arc::clone(&begun), Arc::clone(&finish));
        let routes = Router::new().route(
            "/",
            get(move || async move {
                says_begun.notify_one();
                waits.notified().await;
                "done"
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, routes, stop.clone()));
        let mut idle = TcpStream::connect(address).await.expect("connects");
        let mut busy = TcpStream::connect(address).await.expect("connects");
        busy.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("is sent");
        begun.notified().await;
        stop.cancel();
        assert_eq!(idle.read(&mut [0; 8]).await.ok(), Some(0), "an idle connection is closed");
        finish.notify_one();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.expect("is answered");
        assert!(answer.ends_with("done"), "{answer}");
        assert!(server.await.expect("no panic").is_ok());
        assert!(TcpStream::connect(address).await.is_err());
    }
    #[tokio::test]
    async fn a_connection_beyond_the_bound_is_taken_when_another_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let routes = Router::new().route("/", get(async || "done"));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve_at_most(1, listener, routes, stop.clone()));
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut first = TcpStream::connect(address).await.expect("connects");
        first.write_all(request).await.expect("is sent");
        let mut byte = [0; 1];
        first.read_exact(&mut byte).await.expect("is answered");
        let mut second = TcpStream::connect(address).await.expect("waits in the listener's queue");
        second.write_all(request).await.expect("is sent");
        let early = tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut byte)).await;
        assert!(early.is_err(), "there is one place");
        drop(first);
        second.read_exact(&mut byte).await.expect("is answered");
        drop(second);
        stop.cancel();
        assert!(server.await.expect("no panic").is_ok());
    }
}
