//! Waiting on conditions.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a condition answers: it holds (with a value), or it does not yet (and why).
pub trait Verdict {
    type Value;
    fn verdict(self) -> Result<Self::Value, String>;
}

impl Verdict for bool {
    type Value = ();
    fn verdict(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "not so yet".to_owned())
    }
}

impl<T> Verdict for Option<T> {
    type Value = T;
    fn verdict(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: Display> Verdict for Result<T, E> {
    type Value = T;
    fn verdict(self) -> Result<T, String> {
        self.map_err(|e| format!("{e:#}"))
    }
}

/// How many times longer than its deadline something may take (`TEST_PATIENCE`, default 1): machines that others use too are
/// slow at times, and a test is to tell what never happens from what happens late.
pub fn patient(deadline: Duration) -> Duration {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    let given = || std::env::var("TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    deadline * *PATIENCE.get_or_init(given)
}

/// Asks again and again, every 20 ms at first and every 200 ms later, until the condition (a `bool`, `Option` or
/// `Result`) holds, and gives its value.
///
/// # Panics
/// It did not hold within `deadline`, or a longer one (see [`patient`]); names the caller's line and the last answer.
#[track_caller]
pub fn eventually<V, F, Fut>(deadline: Duration, condition: F) -> impl Future<Output = V::Value>
where
    V: Verdict,
    F: FnMut() -> Fut,
    Fut: Future<Output = V>,
{
    promised(patient(deadline), condition)
}

/// The same where the deadline is what the platform promises: no patience makes it longer.
///
/// # Panics
/// It did not hold within `deadline`; names the caller's line and the last answer.
#[track_caller]
pub fn promised<V, F, Fut>(deadline: Duration, mut condition: F) -> impl Future<Output = V::Value>
where
    V: Verdict,
    F: FnMut() -> Fut,
    Fut: Future<Output = V>,
{
    let caller = Location::caller();
    async move {
        let start = Instant::now();
        let mut pause = Duration::from_millis(20);
        let mut last = String::from("no answer");
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            if let Ok(answer) = tokio::time::timeout(left, condition()).await {
                match answer.verdict() {
                    Ok(value) => return value,
                    Err(why) => last = why,
                }
            }
            assert!(start.elapsed() < deadline, "{caller}: not within {deadline:?}: {last}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
}
