//! Requests of the commands.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use crate::cli::event::client::{client, reason, unreachable};

/// How long an answer may take: a request about very many letters changes them all at once.
const ANSWER: Duration = Duration::from_mins(2);

/// Where the service is, and how answers are printed.
#[derive(Debug, clap::Args)]
pub struct ApiArgs {
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Address of the dead letters: `up` and `act` have them on 8082, `relay` on 8083, `handle` on 8084
    #[arg(long, env = "CORNJACKET_DLQ_URL", default_value = "http://localhost:8082", value_name = "URL")]
    url: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// The service.
pub struct Api {
    client: Client,
    base: String,
}

impl ApiArgs {
    /// # Errors
    /// HTTP cannot be set up.
    pub fn api(&self) -> anyhow::Result<Api> {
        Ok(Api { client: client()?, base: self.url.trim_end_matches('/').to_owned() })
    }
}

impl Api {
    /// # Errors
    /// It is not reached, or refuses.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.send(self.client.get(self.url(path)).query(query)).await
    }

    /// # Errors
    /// It is not reached, or refuses.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(self.client.post(self.url(path)).json(body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/dead-letters{path}", self.base)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = match request.timeout(ANSWER).send().await {
            Ok(response) => response,
            Err(error) => return Err(unreachable(&self.base, &error)),
        };
        let status = response.status();
        let text = response.text().await.context("the answer broke off")?;
        if !status.is_success() {
            bail!("{}", reason(status, &text));
        }
        serde_json::from_str(&text).context("the answer is no JSON: is --url the address of dead letters?")
    }
}
