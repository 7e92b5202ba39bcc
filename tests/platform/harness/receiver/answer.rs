//! What a receiver is told to answer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};

/// An answer, or none. By default 200 at once, without a body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) kind: Kind,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    content: Content,
    pub(super) delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Answered,
    /// The request stays unanswered.
    Hang,
    /// The connection is ended by RST.
    Reset,
}

#[derive(Clone, Debug)]
enum Content {
    Whole(Bytes),
    /// A byte after the other, with a pause before each.
    Drip(Bytes, Duration),
    Endless,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            kind: Kind::Answered,
            status: StatusCode::OK,
            headers: Vec::new(),
            content: Content::Whole(Bytes::new()),
            delay: Duration::ZERO,
        }
    }
}

impl Answer {
    pub fn status(code: u16) -> Self {
        Self { status: StatusCode::from_u16(code).expect("a status"), ..Self::default() }
    }

    /// Never answers.
    pub fn hang() -> Self {
        Self { kind: Kind::Hang, ..Self::default() }
    }

    /// Ends the connection by RST.
    pub fn reset() -> Self {
        Self { kind: Kind::Reset, ..Self::default() }
    }

    /// 307 to another address.
    pub fn redirect(to: &str) -> Self {
        Self::status(307).header("location", to)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.parse().expect("a name"), value.parse().expect("a value")));
        self
    }

    /// `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header("retry-after", &seconds.to_string())
    }

    /// `Retry-After` as an HTTP date.
    #[must_use]
    pub fn retry_at(self, at: DateTime<Utc>) -> Self {
        self.header("retry-after", &at.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
    }

    #[must_use]
    pub fn body(mut self, text: &str) -> Self {
        self.content = Content::Whole(Bytes::copy_from_slice(text.as_bytes()));
        self
    }

    /// The body a byte at a time.
    #[must_use]
    pub fn drip(mut self, text: &str, pause: Duration) -> Self {
        self.content = Content::Drip(Bytes::copy_from_slice(text.as_bytes()), pause);
        self
    }

    /// A body without end.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.content = Content::Endless;
        self
    }

    /// Keeps the answer back.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// As a response. `taken` is told of each piece of an endless body.
    pub(super) fn response(self, taken: impl Fn(usize) + Send + 'static) -> Response {
        let body = match self.content {
            Content::Whole(bytes) => Body::from(bytes),
            Content::Drip(bytes, pause) => Body::from_stream(stream::iter(bytes).then(move |byte| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, std::io::Error>(Bytes::from(vec![byte]))
            })),
            Content::Endless => {
                Body::from_stream(stream::repeat(Bytes::from_static(&[b'x'; 16 << 10])).map(move |piece| {
                    taken(piece.len());
                    Ok::<_, std::io::Error>(piece)
                }))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }
}
