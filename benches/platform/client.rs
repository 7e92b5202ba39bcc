//! A load generator that costs little: HTTP/1.1 on kept connections, requests written as bytes. (A full client would
//! take a large part of the two cores that it measures.)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One kept connection.
pub struct Connection {
    stream: TcpStream,
    port: u16,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, port, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// Posts a body; returns the status.
    pub async fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> std::io::Result<u16> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> std::io::Result<u16> {
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, length)) = parse(&self.buffer) {
                while self.buffer.len() < length {
                    if self.stream.read_buf(&mut self.buffer).await? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                }
                return Ok(status);
            }
        }
    }
}

/// Status and whole length of an answer whose head is complete.
fn parse(buffer: &[u8]) -> Option<(u16, usize)> {
    let end = buffer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .unwrap_or(0);
    Some((status, end + length))
}

/// An event of one of 1000 devices.
pub fn event(number: usize) -> String {
    format!(
        r#"{{"event_type":"sensor.reading","aggregate_id":"device-{:04}","payload":{{"value":{number}}}}}"#,
        number % 1000
    )
}

/// What a load did.
#[derive(Default)]
pub struct Load {
    pub accepted: usize,
    pub seconds: f64,
    /// Time to each answer, in seconds.
    pub latencies: Vec<f64>,
}

/// Posts single events by `clients` connections for a time.
pub async fn singles(port: u16, clients: usize, length: Duration) -> Load {
    run(port, clients, length, 1, None).await
}

/// Posts batches (NDJSON) for a time, or until `total` events were sent.
pub async fn batches(port: u16, clients: usize, size: usize, length: Duration, total: Option<usize>) -> Load {
    run(port, clients, length, size, total).await
}

async fn run(port: u16, clients: usize, length: Duration, size: usize, total: Option<usize>) -> Load {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let next = next.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(port).await.expect("ingest listens");
            let (mut accepted, mut latencies) = (0, Vec::new());
            while begun.elapsed() < length {
                let first = next.fetch_add(size, Ordering::Relaxed);
                if total.is_some_and(|total| first >= total) {
                    break;
                }
                let sent = Instant::now();
                let status = if size == 1 {
                    connection.post("/api/v1/events", "application/json", event(first).as_bytes()).await
                } else {
                    let body: String = (first..first + size).map(|n| event(n) + "\n").collect();
                    connection.post("/api/v1/events/batch", "application/x-ndjson", body.as_bytes()).await
                };
                match status.expect("an answer") {
                    202 => {
                        accepted += size;
                        latencies.push(sent.elapsed().as_secs_f64());
                    }
                    429 => {
                        next.fetch_sub(size, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    status => panic!("answered {status}"),
                }
            }
            (accepted, latencies)
        });
    }
    let mut load = Load::default();
    while let Some(done) = tasks.join_next().await {
        let (accepted, latencies) = done.expect("a client");
        load.accepted += accepted;
        load.latencies.extend(latencies);
    }
    load.seconds = begun.elapsed().as_secs_f64();
    load
}
