//! The listener: takes connections until it is told to stop, then finishes the requests under way.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::fallback::with_fallbacks;

/// A connection that sends no whole request header for this long, idle or slow, is closed.
const HEADER_TIME: Duration = Duration::from_secs(75);
/// Pause after a connection could not be taken, for example because there is no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves routes until the token is cancelled, then finishes the requests under way.
///
/// # Errors
/// None at present: a listener that cannot take connections goes on trying.
pub async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) -> std::io::Result<()> {
    let routes = with_fallbacks(routes);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            taken = listener.accept() => match taken {
                Ok((stream, _)) => stream,
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
            if let Err(e) = connection.await {
                debug!(error = %e, "connection ended: {e}");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
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
}
