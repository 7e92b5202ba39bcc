use proptest::prelude::*;

use super::*;

const BODY: &str = r#"{"größe":"3 µm"}"#;
const ID_OF_OURS: &str = "0197c0de-1111-7000-8000-000000000001";

fn key(bytes: &[u8]) -> SigningKey {
    SigningKey::read(format!("whsec_{}", STANDARD.encode(bytes)).as_bytes()).unwrap()
}

/// Keys of 24, 32 and 64 bytes.
fn keys() -> [SigningKey; 3] {
    let short = SigningKey::read(b"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
    [short, key(&(0..32).collect::<Vec<u8>>()), key(&[200; 64])]
}

fn headers<'a>(id: &'a str, timestamp: &'a str, signature: &'a str) -> Headers<'a> {
    Headers { id: Some(id), timestamp: Some(timestamp), signature: Some(signature) }
}

/// What the Python library `standardwebhooks` 1.1.0 makes of the same keys, ids, times and bodies.
#[test]
fn signatures_are_those_of_the_official_libraries() {
    let published = r#"{"email":"test@example.com","username":"test_user"}"#;
    let [short, ..] = &keys();
    assert_eq!(
        sign(std::slice::from_ref(short), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, published.as_bytes()),
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
    );
    assert_eq!(
        sign(&keys(), ID_OF_OURS, 1_795_000_000, BODY.as_bytes()),
        "v1,Oa9pZkVH/3/auWbvbR0Y7/Av0n2l4grT70YM1W4JMAg= \
         v1,3lJQgfSE4Cuw2AGqhMShJb7Vx+tFcG78WbBQuerXa4Y= \
         v1,Q23C7dhJp4nClP1ax1jqkpeUmWt3cmwBrf2ztpB+1vc="
    );
    assert_eq!(
        sign(&keys(), "m", 0, b""),
        "v1,DeYi2PMA4rjvptcoR5Ab68be7doe2WkCHSk5EhduYrM= \
         v1,UjFbwlC3+25BndkRm6m1Tr6SkklaR1xWGw5XUeb14nQ= \
         v1,w4NslEXDsEI5LFx6SaxM6cJBtbd6k3rRnbOVQaKdwK0="
    );
}

#[test]
fn a_header_that_is_missing_or_unreadable_is_named() {
    let [key, ..] = keys();
    let whole = headers("m", "0", "v1,DeYi2PMA4rjvptcoR5Ab68be7doe2WkCHSk5EhduYrM=");
    let judge = |headers| verify(std::slice::from_ref(&key), headers, b"", 0, TOLERANCE);
    assert_eq!(judge(whole), Ok(0));
    assert_eq!(judge(Headers { id: None, ..whole }), Err(WhyNot::Missing(ID)));
    assert_eq!(judge(Headers { id: Some(""), ..whole }), Err(WhyNot::Missing(ID)));
    assert_eq!(judge(Headers { timestamp: None, ..whole }), Err(WhyNot::Missing(TIMESTAMP)));
    assert_eq!(judge(Headers { signature: None, ..whole }), Err(WhyNot::Missing(SIGNATURE)));
    for text in ["now", "1.5", "+0", "00", " 0", "9223372036854775808"] {
        assert_eq!(judge(Headers { timestamp: Some(text), ..whole }), Err(WhyNot::NoTimestamp(text.to_owned())));
    }
    for text in ["v1", "v1a,DeYi2PMA4rjvptcoR5Ab68be7doe2WkCHSk5EhduYrM=", "v1,***", ","] {
        assert_eq!(judge(Headers { signature: Some(text), ..whole }), Err(WhyNot::NoSignature), "{text}");
    }
}

/// A receiver that is given many signatures does not compute a digest for each.
#[test]
fn signatures_are_bounded() {
    let [key, ..] = keys();
    let (own, other) = (sign(std::slice::from_ref(&key), "m", 0, b""), "v1,AAAA");
    let judge = |others: usize| {
        let header = [&vec![other; others][..], &[&own]].concat().join(" ");
        verify(std::slice::from_ref(&key), headers("m", "0", &header), b"", 0, TOLERANCE)
    };
    assert_eq!(judge(MOST_SIGNATURES - 1), Ok(0));
    assert_eq!(judge(MOST_SIGNATURES), Err(WhyNot::TooMany));
}

#[test]
fn an_id_cannot_take_the_place_of_the_time() {
    let [key, ..] = keys();
    let signature = sign(std::slice::from_ref(&key), "m", 7, b"8.body");
    let shifted = verify(std::slice::from_ref(&key), headers("m.7", "8", &signature), b"body", 8, TOLERANCE);
    assert_eq!(shifted, Err(WhyNot::FullStop));
}

#[test]
fn a_time_may_be_as_far_away_as_is_tolerated() {
    let [key, ..] = keys();
    let judge = |timestamp: i64, now: i64| {
        let signature = sign(std::slice::from_ref(&key), "m", timestamp, b"");
        verify(std::slice::from_ref(&key), headers("m", &timestamp.to_string(), &signature), b"", now, TOLERANCE)
    };
    assert_eq!((judge(1_000, 1_300), judge(1_300, 1_000)), (Ok(0), Ok(0)));
    assert_eq!(judge(1_000, 1_301), Err(WhyNot::Old { age: 301, tolerance: 300 }));
    assert_eq!(judge(1_301, 1_000), Err(WhyNot::Ahead { ahead: 301, tolerance: 300 }));
    assert_eq!(judge(i64::MIN, i64::MAX), Err(WhyNot::Old { age: u64::MAX, tolerance: 300 }));
}

#[test]
fn no_text_for_debugging_shows_a_key() {
    let shown = format!("{:?}", key(b"frotz-gnusto-frotz-gnusto"));
    assert!(!shown.contains("frotz") && !shown.contains("102"), "{shown}");
}

/// Ids as senders make them.
const IDS: &str = "[a-zA-Z0-9_-]{1,40}";

proptest! {
    #[test]
    fn whoever_has_one_of_the_secrets_accepts(
        id in IDS,
        timestamp in any::<i64>(),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        secrets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 24..=64), 1..=3),
        late in -300_i64..=300,
    ) {
        let keys: Vec<_> = secrets.iter().map(|bytes| key(bytes)).collect();
        let (signature, text) = (sign(&keys, &id, timestamp, &body), timestamp.to_string());
        let given = headers(&id, &text, &signature);
        let now = timestamp.saturating_add(late);
        for key in &keys {
            prop_assert_eq!(verify(std::slice::from_ref(key), given, &body, now, TOLERANCE), Ok(0));
        }
        // The receiver that has a new secret beside its own says which it was.
        let other = key(&[7; 40]);
        prop_assume!(!secrets.contains(&vec![7; 40]));
        prop_assert_eq!(verify(&[other.clone(), keys[0].clone()], given, &body, now, TOLERANCE), Ok(1));
        prop_assert_eq!(verify(&[other], given, &body, now, TOLERANCE), Err(WhyNot::NoMatch));
        prop_assert_eq!(verify(&[], given, &body, now, TOLERANCE), Err(WhyNot::NoMatch));
    }

    #[test]
    fn whatever_is_changed_is_refused(
        id in IDS,
        timestamp in 1_000_000_000_i64..2_000_000_000,
        body in proptest::collection::vec(any::<u8>(), 1..200),
        bit in any::<prop::sample::Index>(),
    ) {
        let key = &keys()[..1];
        let (signature, text) = (sign(key, &id, timestamp, &body), timestamp.to_string());
        let judge = |headers, body: &[u8]| verify(key, headers, body, timestamp, TOLERANCE);
        let mut changed = body.clone();
        let place = bit.index(body.len() * 8);
        changed[place / 8] ^= 1 << (place % 8);
        prop_assert_eq!(judge(headers(&id, &text, &signature), &changed), Err(WhyNot::NoMatch));
        let (other, later) = (format!("{id}x"), (timestamp + 1).to_string());
        prop_assert_eq!(judge(headers(&other, &text, &signature), &body), Err(WhyNot::NoMatch));
        prop_assert_eq!(judge(headers(&id, &later, &signature), &body), Err(WhyNot::NoMatch));
        let mut tag = hmac::sign(&key[0].0, &content(&id, timestamp, &body)).as_ref().to_vec();
        let place = bit.index(tag.len() * 8);
        tag[place / 8] ^= 1 << (place % 8);
        let wrong = format!("v1,{}", STANDARD.encode(&tag));
        prop_assert_eq!(judge(headers(&id, &text, &wrong), &body), Err(WhyNot::NoMatch));
        // A part of a signature, even an empty one, is none.
        let part = format!("v1,{}", STANDARD.encode(&tag[..place % 32]));
        prop_assert_eq!(judge(headers(&id, &text, &part), &body), Err(WhyNot::NoMatch));
    }

    #[test]
    fn nothing_in_the_headers_is_too_strange(
        id in proptest::option::of(".{0,20}"),
        timestamp in proptest::option::of("(.{0,20}|-?[0-9]{1,20})"),
        signature in proptest::option::of("(.{0,80}|(v1,[A-Za-z0-9+/=]{0,50} ?){0,20})"),
        now in any::<i64>(),
    ) {
        let headers = Headers { id: id.as_deref(), timestamp: timestamp.as_deref(), signature: signature.as_deref() };
        let refused = verify(&keys(), headers, b"{}", now, TOLERANCE);
        prop_assert!(refused.is_err());
        prop_assert!(refused.unwrap_err().to_string().chars().all(|c| !c.is_control()));
    }
}
