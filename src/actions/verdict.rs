//! What comes of an attempt: delivered, tried again and when, or given up. Pure.

use crds::registration::Retry;
use crds::webhook_action::Jitter;

use super::state::breaker::Report;

/// Longest pause that an endpoint can ask for by Retry-After, in milliseconds.
pub const MAX_PAUSE_MS: i64 = 3_600_000;

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Status of the answer; none where the request failed.
    pub status: Option<u16>,
    /// Why there is no answer, or why it is of no use.
    pub error: Option<String>,
    /// What Retry-After asked for, in milliseconds.
    pub retry_after_ms: Option<i64>,
}

/// What is done with the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// The next attempt is made so many milliseconds later.
    Again {
        after_ms: i64,
        why: String,
    },
    Failed {
        why: String,
    },
    /// The endpoint is there no more: nothing is delivered to it until somebody enables it.
    Gone {
        why: String,
    },
}

/// Decides about a delivery after its `attempts`th attempt. `random` is in [0, 1).
pub fn verdict(answer: &Answer, attempts: i32, most: i32, retry: &Retry, random: f64) -> Verdict {
    let why = match (&answer.status, &answer.error) {
        (Some(200..=299), None) => return Verdict::Delivered,
        (Some(410), _) => {
            return Verdict::Gone { why: "the endpoint answered 410 Gone: it wants no more deliveries".to_owned() };
        }
        (Some(status), None) => format!("answered {status}"),
        (Some(status), Some(error)) => format!("answered {status}: {error}"),
        (None, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    };
    if attempts >= most {
        return Verdict::Failed { why };
    }
    let pause = answer.retry_after_ms.unwrap_or(0).clamp(0, MAX_PAUSE_MS);
    Verdict::Again { after_ms: backoff(attempts, retry, random).max(pause), why }
}

/// What the breaker is told.
pub fn report(answer: &Answer) -> Report {
    match (answer.status, &answer.error, answer.retry_after_ms) {
        (Some(200..=299), None, _) => Report::Succeeded,
        // It is there, and says how much it can take.
        (Some(429 | 503), _, Some(pause)) => Report::Paused(pause.clamp(0, MAX_PAUSE_MS)),
        (Some(429), _, None) => Report::Paused(0),
        _ => Report::Failed,
    }
}

/// The wait after the `attempts`th attempt, in milliseconds.
fn backoff(attempts: i32, retry: &Retry, random: f64) -> i64 {
    let index = usize::try_from(attempts - 1).unwrap_or(0);
    let whole = retry.backoff_ms.get(index).or(retry.backoff_ms.last()).copied().unwrap_or(0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "milliseconds of a few hours")]
    let part = |of: i64| (of as f64 * random) as i64;
    match retry.jitter {
        Jitter::None => whole,
        Jitter::Full => part(whole),
        Jitter::Equal => whole / 2 + part(whole - whole / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(jitter: Jitter) -> Retry {
        Retry { max_attempts: 5, backoff_ms: vec![1_000, 2_000, 4_000], jitter }
    }

    fn answered(status: u16) -> Answer {
        Answer { status: Some(status), ..Answer::default() }
    }

    fn after(answer: &Answer, attempts: i32, jitter: Jitter, random: f64) -> Option<i64> {
        match verdict(answer, attempts, 5, &retry(jitter), random) {
            Verdict::Again { after_ms, .. } => Some(after_ms),
            _ => None,
        }
    }

    #[test]
    fn only_2xx_is_a_success_and_410_ends_it() {
        for status in [200, 202, 204, 299] {
            assert_eq!(verdict(&answered(status), 1, 5, &retry(Jitter::None), 0.0), Verdict::Delivered);
        }
        assert!(matches!(verdict(&answered(410), 1, 5, &retry(Jitter::None), 0.0), Verdict::Gone { .. }));
        for status in [100, 301, 302, 400, 404, 429, 500, 503] {
            assert_eq!(after(&answered(status), 1, Jitter::None, 0.0), Some(1_000), "{status}");
        }
        let cut = Answer { error: Some("the answer broke off".to_owned()), ..answered(200) };
        assert_eq!(after(&cut, 1, Jitter::None, 0.0), Some(1_000));
    }

    #[test]
    fn waits_follow_the_list_and_its_last_is_repeated() {
        let waits: Vec<_> = (1..=5).map(|attempts| after(&answered(500), attempts, Jitter::None, 0.5)).collect();
        assert_eq!(waits, [Some(1_000), Some(2_000), Some(4_000), Some(4_000), None]);
        let failed = verdict(&answered(500), 5, 5, &retry(Jitter::None), 0.0);
        assert_eq!(failed, Verdict::Failed { why: "answered 500".to_owned() });
    }

    #[test]
    fn jitter_takes_from_the_wait_and_never_adds() {
        for (jitter, random, wait) in [
            (Jitter::Equal, 0.0, 1_000),
            (Jitter::Equal, 0.5, 1_500),
            (Jitter::Full, 0.0, 0),
            (Jitter::Full, 0.5, 1_000),
        ] {
            assert_eq!(after(&answered(500), 2, jitter, random), Some(wait), "{jitter:?} {random}");
        }
    }

    #[test]
    fn retry_after_is_honoured_within_a_bound() {
        let asks = |pause| Answer { retry_after_ms: Some(pause), ..answered(429) };
        assert_eq!(after(&asks(30_000), 1, Jitter::None, 0.0), Some(30_000));
        assert_eq!(after(&asks(10), 1, Jitter::None, 0.0), Some(1_000));
        assert_eq!(after(&asks(i64::MAX), 1, Jitter::None, 0.0), Some(MAX_PAUSE_MS));
        assert_eq!(report(&asks(30_000)), Report::Paused(30_000));
        assert_eq!(report(&Answer { retry_after_ms: Some(5), ..answered(503) }), Report::Paused(5));
        assert_eq!(report(&answered(503)), Report::Failed);
        assert_eq!(report(&answered(204)), Report::Succeeded);
        assert_eq!(report(&Answer { error: Some("reset".to_owned()), ..Answer::default() }), Report::Failed);
    }
}
