//! Durations as people write them: `30s`, `24h`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A length of time as manifests write it: `30s`, `24h`, `1h30m`; units ms, s, m, h and d; never zero.
///
/// Keeps the text as written, so that reading and writing a resource changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DurationText {
    text: String,
    length: Duration,
}

/// The pattern that the API server checks. At most nine digits a part, so that no sum overflows.
const DURATION_PATTERN: &str = "^[1-9][0-9]{0,8}(ms|s|m|h|d)([0-9]{1,9}(ms|s|m|h|d))*$";

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no duration: write a number with a unit (ms, s, m, h, d), for example 30s, 24h or 1h30m")]
pub struct DurationError(String);

impl DurationText {
    pub fn length(&self) -> Duration {
        self.length
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for DurationText {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || DurationError(text.chars().take(40).collect());
        let mut length = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = match digits {
                1..=9 => rest[..digits].parse().map_err(|_| refused())?,
                _ => return Err(refused()),
            };
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
            length += match &rest[..letters] {
                "ms" => Duration::from_millis(number),
                "s" => Duration::from_secs(number),
                "m" => Duration::from_secs(number * 60),
                "h" => Duration::from_secs(number * 3600),
                "d" => Duration::from_secs(number * 86400),
                _ => return Err(refused()),
            };
            rest = &rest[letters..];
        }
        if text.len() > 32 || text.starts_with('0') || length.is_zero() {
            return Err(refused());
        }
        Ok(Self { text: text.to_owned(), length })
    }
}

impl TryFrom<String> for DurationText {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DurationText> for String {
    fn from(duration: DurationText) -> Self {
        duration.text
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 32})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in
            [("30s", 30_000), ("24h", 86_400_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("5ms", 5)]
        {
            let read: DurationText = text.parse().expect(text);
            assert_eq!(read.length(), Duration::from_millis(millis), "{text}");
            assert_eq!(read.as_str(), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_way_out() {
        for text in ["", "0s", "30", "s", "1.5h", "-1s", "1w", "9999999999s", "30 s", "1h0"] {
            let refused = text.parse::<DurationText>().expect_err(text).to_string();
            assert!(refused.contains("for example 30s"), "{text}: {refused}");
        }
    }
}
