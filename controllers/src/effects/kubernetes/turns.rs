//! Who may write to the API server now: so many a second, however much there is to say.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::sleep;

/// Turns at writing, shared by everything in a process that writes. Short of turns, what must be said goes before what may
/// be late.
pub struct Turns {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    /// Between two turns, in the long run.
    between: Duration,
    /// Who waits and must not be late.
    waiting: AtomicUsize,
}

impl Turns {
    /// So many turns a second; twice as many at once after a rest.
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self {
            limiter: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)),
            clock: DefaultClock::default(),
            between: Duration::from_secs(1) / per_second.get(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for a turn.
    pub async fn take(&self) {
        let _waiting = Waiting::among(&self.waiting);
        while let Err(wait) = self.try_take() {
            sleep(wait).await;
        }
    }

    /// Waits for a turn that nobody else waits for.
    pub async fn take_late(&self) {
        loop {
            let wait = match self.waiting.load(Ordering::Relaxed) {
                0 => self.try_take(),
                _ => Err(self.between),
            };
            match wait {
                Ok(()) => return,
                Err(wait) => sleep(wait).await,
            }
        }
    }

    /// Or how long until there may be one.
    fn try_take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_yet| not_yet.wait_time_from(self.clock.now()))
    }
}

/// Counted as long as it lives: who gives up waits no more.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use tokio::task::JoinSet;

    use super::*;

    fn turns(per_second: u32) -> Arc<Turns> {
        Arc::new(Turns::new(NonZeroU32::new(per_second).expect("not zero")))
    }

    #[tokio::test]
    async fn after_a_burst_turns_come_at_their_rate() {
        let (turns, begun) = (turns(100), Instant::now());
        for _ in 0..250 {
            turns.take().await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn what_may_be_late_comes_after_all_that_wait() {
        let turns = turns(50);
        for _ in 0..100 {
            turns.take().await;
        }
        let (mut tasks, order) = (JoinSet::new(), Arc::new(std::sync::Mutex::new(Vec::new())));
        for late in [true, true, false, false, false] {
            let (turns, order) = (turns.clone(), order.clone());
            tasks.spawn(async move {
                if late {
                    turns.take_late().await;
                } else {
                    turns.take().await;
                }
                order.lock().expect("nobody panics").push(late);
            });
        }
        tasks.join_all().await;
        assert_eq!(*order.lock().expect("nobody panics"), [false, false, false, true, true]);
    }
}
