//! What is asked of every body, here and in the platform's ordinary tests: nothing panics, and what is accepted every
//! later room can read.

use chrono::DateTime;
use cornjacket::event::{Envelope, MAX_NAME_CHARS};
use cornjacket::ingest::Rules;
use cornjacket::ingest::accept::{Circumstances, GivenKey, admit};
use cornjacket::ingest::cloudevents::{binary, structured};
use cornjacket::ingest::envelope::{Candidate, elements, lines, read};
use cornjacket::ingest::refusal::Refusal;
use cornjacket::registry::Catalog;
use serde_json::Value;
use uuid::Uuid;

/// In how many ways an event may come.
pub const WAYS: [&str; 6] = ["event", "structured", "binary", "batch", "structured batch", "lines"];

/// Reads a body in each of the [`WAYS`]; says how many events were accepted in each.
pub fn judge(data: &[u8]) -> [usize; WAYS.len()] {
    let Ok(text) = std::str::from_utf8(data) else { return [0; WAYS.len()] };
    let headers: [(&str, &[u8]); 5] =
        [("ce-specversion", b"1.0"), ("ce-id", b"1"), ("ce-source", b"/s"), ("ce-type", b"t"), ("ce-subject", data)];
    let one = |candidate: Result<Candidate<'_>, Refusal>| usize::from(candidate.is_ok_and(|c| is_accepted(&c)));
    let array = elements(text).unwrap_or_default();
    let all = |texts: &[&str]| texts.iter().map(|text| one(read(text))).sum();
    [
        one(read(text)),
        one(structured(text)),
        one(binary(headers.into_iter(), text)),
        all(&array),
        array.iter().map(|text| one(structured(text))).sum(),
        all(&lines(text).collect::<Vec<_>>()),
    ]
}

fn is_accepted(candidate: &Candidate<'_>) -> bool {
    let known = Circumstances {
        event_id: Uuid::nil(),
        // After the times in the seeds: later ones are refused.
        now: DateTime::from_timestamp(1_800_000_000, 0).expect("a time"),
        key: GivenKey::OfEvent,
        traceparent: None,
        transport: "http",
        mqtt: None,
    };
    let Ok(admitted) = admit(candidate, &Catalog::default(), Rules::default(), known) else { return false };
    let envelope: Envelope = serde_json::from_str(&admitted.entry.envelope).expect("an envelope");
    for name in [&envelope.event_type, &envelope.aggregate_id] {
        assert!((1..=MAX_NAME_CHARS).contains(&name.chars().count()), "{name:?}");
        assert!(!name.contains(char::is_control), "{name:?}");
    }
    serde_json::from_str::<Value>(envelope.payload.get()).expect("a payload that readers can parse");
    assert!(!envelope.payload.get().contains("\\u0000") || envelope.payload.get().contains("\\\\u0000"));
    true
}
