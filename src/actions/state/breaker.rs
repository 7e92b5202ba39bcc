//! The circuit breaker of an endpoint: after so many failures in a row it is left alone for a while, then one attempt is
//! a probe; its success closes the breaker, its failure opens it again. Pure.
//!
//! An endpoint that asks for a pause (Retry-After) gets it without that counting as a failure.

/// Times are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: i64,
    /// Set while it is open: when a probe may be made.
    open_until: Option<i64>,
    /// When the probe that is under way is taken for lost.
    probe_until: Option<i64>,
    /// The endpoint asked to be left alone until then.
    paused_until: i64,
}

/// When the breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// In a row.
    pub failures: i64,
    pub cooldown_ms: i64,
}

/// How many attempts may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    All,
    /// One, by which it is seen whether the endpoint is well again.
    Probe,
    /// None before this time.
    NotBefore(i64),
}

/// How an attempt ended, as far as the breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    Succeeded,
    Failed,
    /// The endpoint asked for a pause of so many milliseconds.
    Paused(i64),
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    Opened { until: i64 },
    Closed,
}

impl Breaker {
    /// Whether attempts may start; `probe_ms`: how long a probe may take.
    pub fn admit(&mut self, now: i64, probe_ms: i64) -> Admission {
        if now < self.paused_until {
            return Admission::NotBefore(self.paused_until);
        }
        let Some(open_until) = self.open_until else { return Admission::All };
        if now < open_until {
            return Admission::NotBefore(open_until);
        }
        match self.probe_until {
            Some(until) if now < until => Admission::NotBefore(until),
            _ => {
                self.probe_until = Some(now.saturating_add(probe_ms));
                Admission::Probe
            }
        }
    }

    /// The probe that was admitted is not made: there was nothing to deliver.
    pub fn give_back(&mut self) {
        self.probe_until = None;
    }

    /// An attempt ended. One that began before the breaker opened changes nothing any more, unless it succeeded.
    pub fn report(&mut self, threshold: Threshold, report: Report, now: i64) -> Change {
        match report {
            Report::Succeeded => {
                let was_open = self.open_until.is_some();
                *self = Self { paused_until: self.paused_until, ..Self::default() };
                if was_open { Change::Closed } else { Change::None }
            }
            Report::Paused(pause) => {
                self.probe_until = None;
                self.paused_until = self.paused_until.max(now.saturating_add(pause));
                Change::None
            }
            Report::Failed => self.fail(threshold, now),
        }
    }

    fn fail(&mut self, threshold: Threshold, now: i64) -> Change {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.open_until {
            None => self.failures >= threshold.failures,
            Some(_) => self.probe_until.is_some(),
        };
        if !opens {
            return Change::None;
        }
        let until = now.saturating_add(threshold.cooldown_ms);
        (self.open_until, self.probe_until) = (Some(until), None);
        Change::Opened { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: Threshold = Threshold { failures: 3, cooldown_ms: 1_000 };

    fn opened(at: i64) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            assert_eq!(breaker.report(THRESHOLD, Report::Failed, at), Change::None);
        }
        assert_eq!(breaker.report(THRESHOLD, Report::Failed, at), Change::Opened { until: at + 1_000 });
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut breaker = Breaker::default();
        for report in [Report::Failed, Report::Failed, Report::Succeeded, Report::Failed, Report::Failed] {
            assert_eq!(breaker.report(THRESHOLD, report, 0), Change::None);
        }
        assert_eq!(breaker.admit(0, 10), Admission::All);
        assert_eq!(opened(0).admit(999, 10), Admission::NotBefore(1_000));
    }

    #[test]
    fn after_the_cooldown_one_probe_decides() {
        let mut breaker = opened(0);
        assert_eq!(breaker.admit(1_000, 10), Admission::Probe);
        assert_eq!(breaker.admit(1_001, 10), Admission::NotBefore(1_010), "one at a time");
        assert_eq!(breaker.report(THRESHOLD, Report::Failed, 1_002), Change::Opened { until: 2_002 });
        assert_eq!(breaker.admit(2_002, 10), Admission::Probe);
        assert_eq!(breaker.report(THRESHOLD, Report::Succeeded, 2_003), Change::Closed);
        assert_eq!(breaker.admit(2_003, 10), Admission::All);
    }

    #[test]
    fn a_probe_that_is_lost_or_given_back_is_made_again() {
        let mut breaker = opened(0);
        assert_eq!(breaker.admit(1_000, 10), Admission::Probe);
        assert_eq!(breaker.admit(1_010, 10), Admission::Probe);
        breaker.give_back();
        assert_eq!(breaker.admit(1_011, 10), Admission::Probe);
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_keep_it_open() {
        let mut breaker = opened(0);
        assert_eq!(breaker.report(THRESHOLD, Report::Failed, 900), Change::None);
        assert_eq!(breaker.admit(1_000, 10), Admission::Probe);
    }

    #[test]
    fn a_pause_is_kept_and_is_no_failure() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.report(THRESHOLD, Report::Paused(500), 100), Change::None);
        assert_eq!(breaker.admit(599, 10), Admission::NotBefore(600));
        assert_eq!(breaker.admit(600, 10), Admission::All);
        assert_eq!(breaker, Breaker { paused_until: 600, ..Breaker::default() });
        // One that was under way and succeeded does not take the word of another back.
        assert_eq!(breaker.report(THRESHOLD, Report::Succeeded, 100), Change::None);
        assert_eq!(breaker.admit(599, 10), Admission::NotBefore(600));
    }
}
