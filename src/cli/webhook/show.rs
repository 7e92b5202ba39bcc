//! How a request is shown: for people, or as a JSON object on a line. Pure.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use super::body::{indented, shown, visible};
use super::request::{Received, Verdict};
use crate::actions::signature::{ID, SIGNATURE, TIMESTAMP};

/// Headers that every request has and that say nothing of the delivery.
const DULL: [&str; 9] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    ID,
    SIGNATURE,
    TIMESTAMP,
];

/// For people. Shows at most `most` bytes of the body.
pub fn text(received: &Received, secrets: usize, most: usize) -> String {
    let mut text = format!(
        "#{}  {}  {} {}  answered {}\n",
        received.number,
        received.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        visible(&received.method),
        visible(&received.target),
        received.status
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name}: {}", visible(value));
    };
    if let Some(id) = received.header(ID) {
        let repeat = if received.times > 1 { &format!("  (again: time {})", received.times) } else { "" };
        line(ID, &format!("{id}{repeat}"));
    }
    line("signature", &verdict(received, secrets));
    for (name, value) in received.headers.iter().filter(|(name, _)| !DULL.contains(&name.as_str())) {
        line(name, &masked(name, value));
    }
    match &received.body {
        Ok(body) => text += &indented(&shown(body, most)),
        Err(why) => line("body", &why.to_string()),
    }
    text + "\n"
}

/// As JSON on a line. The body stands in it exactly as it came.
pub fn json(received: &Received, secrets: usize) -> String {
    let headers: Map<String, Value> =
        received.headers.iter().map(|(name, value)| (name.clone(), masked(name, value).into())).collect();
    let mut object = json!({
        "number": received.number,
        "received_at": received.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        "method": received.method,
        "target": received.target,
        "webhook_id": received.header(ID),
        "times": received.times,
        "signature": match received.verdict {
            Verdict::Right(_) => "right",
            Verdict::Wrong(_) => "wrong",
            Verdict::Unchecked => "unchecked",
            Verdict::Unsigned => "none",
            Verdict::Unknown => "unknown",
        },
        "signature_detail": verdict(received, secrets),
        "headers": headers,
        "status": received.status,
    });
    match received.body.as_deref().map(str::from_utf8) {
        Ok(Ok(text)) => object["body"] = text.into(),
        Ok(Err(_)) => object["body_base64"] = STANDARD.encode(received.body.as_deref().unwrap_or_default()).into(),
        Err(why) => object["body_error"] = why.to_string().into(),
    }
    format!("{object}\n")
}

fn verdict(received: &Received, secrets: usize) -> String {
    match &received.verdict {
        Verdict::Right(_) if secrets == 1 => "right".to_owned(),
        Verdict::Right(which) => format!("right, by secret {} of {secrets}", which + 1),
        Verdict::Wrong(why) => format!("WRONG: {why}"),
        Verdict::Unchecked => "not verified: give --secret, --secret-file or CORNJACKET_WEBHOOK_SECRET".to_owned(),
        Verdict::Unsigned => "none".to_owned(),
        Verdict::Unknown => "not verified: there is no whole body".to_owned(),
    }
}

/// What lets somebody in is not shown.
fn masked(name: &str, value: &str) -> String {
    let secret =
        ["authorization", "cookie", "key", "token", "secret", "password"].iter().any(|part| name.contains(part));
    if secret { format!("… ({} characters, not shown)", value.chars().count()) } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::actions::signature::WhyNot;
    use crate::cli::webhook::request::NoBody;

    fn received(body: &[u8]) -> Received {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Received {
            number: 7,
            at: DateTime::from_timestamp(1_795_000_000, 120_000_000).unwrap(),
            method: "POST".to_owned(),
            target: "/hooks?a=1".to_owned(),
            headers: vec![
                header("host", "x"),
                header(ID, "m"),
                header("user-agent", "cornjacket\u{9b}2J"),
                header("authorization", "Bearer frotz"),
            ],
            body: Ok(body.to_vec()),
            times: 2,
            verdict: Verdict::Wrong(WhyNot::Missing(SIGNATURE)),
            status: 500,
        }
    }

    #[test]
    fn people_see_what_matters_and_no_secret_and_nothing_that_moves_their_cursor() {
        let expected = "\
#7  2026-11-18T11:06:40.120Z  POST /hooks?a=1  answered 500
  webhook-id: m  (again: time 2)
  signature: WRONG: the header webhook-signature is missing
  user-agent: cornjacket\\u{9b}2J
  authorization: … (12 characters, not shown)
  {
    \"b\": 1.50,
    \"a\": [
      \"\\\"{\",
      {},
      []
    ]
  }

";
        assert_eq!(text(&received(br#"{"b":1.50, "a":["\"{",{},[ ]]}"#), 1, 1_000), expected);
    }

    #[test]
    fn a_body_that_is_no_json_or_too_long_is_shown_as_far_as_it_goes() {
        let last = |body: &[u8], most| text(&received(body), 1, most).trim_end().lines().last().unwrap().to_owned();
        assert_eq!(last(b"", 10), "  (no body)");
        assert_eq!(last(b"\xff\xfe", 10), "  (2 bytes that are no text)");
        assert_eq!(last("größe\u{7}".as_bytes(), 100), "  größe\\u{7}");
        assert_eq!(last("grööße".as_bytes(), 3), "  gr… (9 bytes in all: see more by --print-bytes)");
        let cut = Received { body: Err(NoBody::TooLarge(5)), verdict: Verdict::Unknown, ..received(b"") };
        let cut = text(&cut, 1, 100);
        assert!(cut.contains("longer than 5 bytes") && cut.contains("no whole body"), "{cut}");
    }

    #[test]
    fn json_is_one_line_with_the_body_exactly_as_it_came() {
        let body = "{\n \"a\": 1.50}";
        let right = Received { verdict: Verdict::Right(1), ..received(body.as_bytes()) };
        let line = json(&right, 2);
        assert_eq!(line.matches('\n').count(), 1);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&object["body"], &object["times"], &object["status"]), (&json!(body), &json!(2), &json!(500)));
        assert_eq!(
            (&object["signature"], &object["signature_detail"]),
            (&json!("right"), &json!("right, by secret 2 of 2"))
        );
        assert!(!line.contains("frotz"), "{line}");
        let bytes: Value = serde_json::from_str(&json(&received(b"\xff"), 1)).unwrap();
        assert_eq!((&bytes["body_base64"], bytes.get("body")), (&json!("/w=="), None));
    }
}
