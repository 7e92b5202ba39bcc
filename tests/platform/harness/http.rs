//! Plain HTTP to the platform's ports.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use serde_json::Value;

/// A client of the calling test's own: a shared one would hang on the runtime of the test that made it.
pub fn client() -> Client {
    client_with(|builder| builder)
}

/// The same with something set otherwise.
pub fn client_with(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let builder = Client::builder().timeout(Duration::from_secs(30)).no_proxy();
    change(builder).build().expect("a client without options to fail on")
}

/// An answer: its status and its body as JSON (text that is not JSON is a JSON string).
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
}

/// `GET url`. An error is one of the connection; a refusal is an answer.
pub async fn get(client: &Client, url: &str) -> reqwest::Result<Answer> {
    answer(client.get(url)).await
}

/// `POST url` with a JSON body.
pub async fn post(client: &Client, url: &str, body: &Value) -> reqwest::Result<Answer> {
    answer(client.post(url).json(body)).await
}
