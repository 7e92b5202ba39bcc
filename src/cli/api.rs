//! Requests of operators to one service, and its answers or refusals in its own words.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, RequestBuilder};
use serde::Serialize;
use serde_json::Value;

use super::event::client::{client, reason, shown, unreachable};

/// How long an answer may take: a request about very many letters or deliveries changes them all at once.
const ANSWER: Duration = Duration::from_mins(2);

/// Asks one service.
pub struct Api {
    client: Client,
    url: String,
}

impl Api {
    /// # Errors
    /// It is no URL of HTTP, or TLS cannot be set up.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let has_scheme = url.starts_with("http://") || url.starts_with("https://");
        anyhow::ensure!(has_scheme, "--url '{}': write it with http:// or https:// before it", shown(url));
        Ok(Self { client: client()?, url: url.trim_end_matches('/').to_owned() })
    }

    /// `query`: pairs of name and value, or `()`.
    ///
    /// # Errors
    /// The service is not reached, or refuses.
    pub async fn get(&self, path: &str, query: &(impl Serialize + ?Sized)) -> anyhow::Result<Value> {
        self.answer(self.client.get(format!("{}{path}", self.url)).query(query)).await
    }

    /// # Errors
    /// The service is not reached, or refuses.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.answer(self.client.post(format!("{}{path}", self.url)).json(body)).await
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = request.timeout(ANSWER).send().await.map_err(|error| unreachable(&self.url, &error))?;
        let status = response.status();
        let text = response.text().await.context("the answer broke off")?;
        if !status.is_success() {
            bail!("{}", reason(status, &text));
        }
        serde_json::from_str(&text).context("the answer is no JSON: is --url the address of the service?")
    }
}
