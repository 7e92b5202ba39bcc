//! The body of a request to ingest: whatever arrives, nothing panics, and what is accepted every later room can read.
#![no_main]

use chrono::DateTime;
use cornjacket::event::{Envelope, MAX_NAME_CHARS};
use cornjacket::ingest::Rules;
use cornjacket::ingest::accept::{Circumstances, GivenKey, admit};
use cornjacket::ingest::cloudevents::{binary, structured};
use cornjacket::ingest::envelope::{Candidate, read};
use cornjacket::registry::Catalog;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use uuid::Uuid;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let headers: [(&str, &[u8]); 5] =
        [("ce-specversion", b"1.0"), ("ce-id", b"1"), ("ce-source", b"/s"), ("ce-type", b"t"), ("ce-subject", data)];
    for candidate in [read(text), structured(text), binary(headers.into_iter(), text)].into_iter().flatten() {
        judge(&candidate);
    }
});

fn judge(candidate: &Candidate<'_>) {
    let known = Circumstances {
        event_id: Uuid::nil(),
        now: DateTime::UNIX_EPOCH,
        key: GivenKey::OfEvent,
        traceparent: None,
        transport: "http",
    };
    let Ok(admitted) = admit(candidate, &Catalog::default(), Rules::default(), known) else { return };
    let envelope: Envelope = serde_json::from_str(&admitted.entry.envelope).expect("an envelope");
    for name in [&envelope.event_type, &envelope.aggregate_id] {
        assert!((1..=MAX_NAME_CHARS).contains(&name.chars().count()), "{name:?}");
        assert!(!name.contains(char::is_control), "{name:?}");
    }
    serde_json::from_str::<Value>(envelope.payload.get()).expect("a payload that readers can parse");
    assert!(!envelope.payload.get().contains("\\u0000") || envelope.payload.get().contains("\\\\u0000"));
}
