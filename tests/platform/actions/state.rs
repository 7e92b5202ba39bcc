//! The state of deliveries in Redis does what that in memory does, whatever is asked in whatever order.

use cornjacket::actions::state::breaker::{Change, Report, Threshold};
use cornjacket::actions::state::window::Limit;
use cornjacket::actions::state::{Ask, Grant, Memory, Redis, Seen, State};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use crate::harness::shared_redis;

#[derive(Clone, Debug)]
enum Step {
    Seen {
        key: u8,
        event: u8,
        at: i64,
        window_ms: i64,
    },
    Admit {
        wanted: i64,
        most: i64,
        per_ms: i64,
    },
    GiveBack {
        unused: i64,
        probe: bool,
    },
    Report(Vec<Report>, Threshold),
    Reset,
    /// Time passes.
    Wait(i64),
}

#[derive(Debug, PartialEq)]
enum Said {
    Duplicates(Vec<bool>),
    Grants(Vec<Grant>),
    Change(Change),
    Nothing,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let report = prop_oneof![
        2 => Just(Report::Succeeded),
        4 => Just(Report::Failed),
        1 => (0_i64..50).prop_map(Report::Paused)
    ];
    let threshold = (1_i64..4, 1_i64..40).prop_map(|(failures, cooldown_ms)| Threshold { failures, cooldown_ms });
    let step = prop_oneof![
        3 => (0_u8..3, 0_u8..8, 0_i64..100, 1_i64..60)
            .prop_map(|(key, event, at, window_ms)| Step::Seen { key, event, at, window_ms }),
        4 => (0_i64..6, 1_i64..8, 1_i64..60).prop_map(|(wanted, most, per_ms)| Step::Admit { wanted, most, per_ms }),
        1 => (0_i64..4, any::<bool>()).prop_map(|(unused, probe)| Step::GiveBack { unused, probe }),
        4 => (prop::collection::vec(report, 1..5), threshold).prop_map(|(reports, threshold)| Step::Report(reports, threshold)),
        1 => Just(Step::Reset),
        3 => (1_i64..40).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

async fn take(state: &State, action: &str, step: &Step, now: i64) -> Said {
    match step {
        Step::Seen { key, event, at, window_ms } => {
            let seen = Seen { key: format!("key {key}"), event_id: Uuid::from_u128(u128::from(*event)), at: now + at };
            Said::Duplicates(state.duplicates(action, *window_ms, &[seen.clone(), seen]).await.unwrap())
        }
        Step::Admit { wanted, most, per_ms } => {
            let limit = Limit { most: *most, per_ms: *per_ms };
            let ask = Ask { action: action.to_owned(), wanted: *wanted, limit, probe_ms: 15 };
            Said::Grants(state.admit(&[ask], now).await.unwrap())
        }
        Step::GiveBack { unused, probe } => {
            state.give_back(action, *unused, *probe).await.unwrap();
            Said::Nothing
        }
        Step::Report(reports, threshold) => Said::Change(state.report(action, *threshold, reports, now).await.unwrap()),
        Step::Reset => {
            state.reset(action).await.unwrap();
            Said::Nothing
        }
        Step::Wait(_) => Said::Nothing,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_memory_say_the_same() {
    let redis = State::Redis(Redis::new(&shared_redis().await, "default").unwrap());
    let runtime = tokio::runtime::Handle::current();
    let compare = move || {
        let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
        let number = std::cell::Cell::new(0);
        runner.run(&steps(), |steps| {
            number.set(number.get() + 1);
            let (action, memory) = (format!("action-{}", number.get()), State::Memory(Memory::default()));
            // A time as it is today, of as many digits.
            let mut now = 1_790_000_000_000;
            for (index, step) in steps.iter().enumerate() {
                if let Step::Wait(time) = step {
                    now += time;
                }
                let said = runtime.block_on(async {
                    (take(&memory, &action, step, now).await, take(&redis, &action, step, now).await)
                });
                prop_assert_eq!(&said.0, &said.1, "step {}: {:?}", index, step);
            }
            Ok(())
        })
    };
    tokio::task::spawn_blocking(compare).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_none_is_refused_without_being_shown() {
    let error = Redis::new("http://:xyzzy@host", "default").err().unwrap();
    assert!(!error.contains("xyzzy"), "{error}");
}
