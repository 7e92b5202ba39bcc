//! URLs of MQTT brokers: checked where they are given, and never shown.

use percent_encoding::percent_decode_str;
use reqwest::Url;
use secrecy::SecretString;

/// `mqtt://[user[:password]@]host[:1883]` or `mqtts://[user[:password]@]host[:8883]`.
#[derive(Clone)]
pub struct BrokerUrl {
    pub host: String,
    pub port: u16,
    pub encrypted: bool,
    pub user: Option<String>,
    pub password: Option<SecretString>,
}

const EXAMPLE: &str = "write it as mqtt://host:1883, or mqtts://host:8883 for TLS";

impl BrokerUrl {
    /// # Errors
    /// Says what is wrong without showing the text, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| format!("{e}; {EXAMPLE}"))?;
        let (encrypted, port) = match url.scheme() {
            "mqtt" | "tcp" => (false, 1883),
            "mqtts" | "ssl" => (true, 8883),
            other => return Err(format!("'{other}' is no scheme of MQTT here; {EXAMPLE}")),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("nothing may follow the port; {EXAMPLE}"));
        }
        let host =
            url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| format!("the host is missing; {EXAMPLE}"))?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(port),
            encrypted,
            user: Some(decoded(url.username())).filter(|user| !user.is_empty()),
            password: url.password().map(|password| SecretString::from(decoded(password))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_and_port_are_told_and_what_is_no_broker_is_refused() {
        let parse = |text| BrokerUrl::parse(text).map(|url| (url.host, url.port, url.encrypted));
        assert_eq!(parse("mqtt://broker"), Ok(("broker".to_owned(), 1883, false)));
        assert_eq!(parse("mqtts://broker"), Ok(("broker".to_owned(), 8883, true)));
        assert_eq!(parse("mqtt://[::1]:1884/"), Ok(("::1".to_owned(), 1884, false)));
        for text in ["broker:1883", "http://u:hunter2@broker", "mqtt://u:hunter2@broker/topic", "mqtt://", ""] {
            let said = parse(text).expect_err(text);
            assert!(said.contains("mqtt://host:1883") && !said.contains("hunter2"), "{said}");
        }
    }
}
