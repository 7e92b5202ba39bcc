use super::super::window::Limit;
use super::*;

fn seen(key: &str, event: u128, at: i64) -> Seen {
    Seen { key: key.to_owned(), event_id: Uuid::from_u128(event), at }
}

#[test]
fn keys_of_actions_that_are_many_are_forgotten_when_they_are_old() {
    let memory = Memory::default();
    for number in 0..30_000_u128 {
        let at = i64::try_from(number).unwrap();
        assert_eq!(memory.duplicates("a", 1_000, &[seen(&number.to_string(), number, at)]), [false]);
    }
    let kept = memory.actions().get("a").unwrap().keys.len();
    assert!(kept <= SWEEP_AT, "{kept} keys are kept");
    assert_eq!(memory.duplicates("a", 1_000, &[seen("29999", 1, 30_000)]), [true]);
}

#[test]
fn a_probe_that_the_limit_refuses_is_given_back() {
    let memory = Memory::default();
    let limit = Limit { most: 1, per_ms: 1_000 };
    let ask = Ask { action: "a".to_owned(), wanted: 1, limit, probe_ms: 10_000 };
    let threshold = Threshold { failures: 1, cooldown_ms: 10 };
    assert_eq!(memory.admit(&ask, 0).count, 1);
    memory.report("a", threshold, &[Report::Failed], 0);
    assert_eq!(memory.admit(&ask, 20), Grant { count: 0, probe: false, again_at: Some(1_000) });
    assert_eq!(memory.admit(&ask, 1_000), Grant { count: 1, probe: true, again_at: None });
}
