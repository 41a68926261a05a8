//! What is known of one proxy: how it fares, and whether it is set aside.

use std::time::Duration;

use tokio::time::Instant;

/// Weight of the newest result in the share of failures: some twenty results are remembered.
const RESULT_WEIGHT: f64 = 0.05;

/// Weight of the newest time: a proxy that becomes slow shows it within few answers.
const TIME_WEIGHT: f64 = 0.3;

/// Share of failures from which on a proxy is set aside, however its failures are spread.
const MOST_FAILURES: f64 = 0.25;

/// Longest time for which a proxy is set aside.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many times the pool's median time makes an outlier, and what is never one.
const OUTLIER: f64 = 5.0;
const OUTLIER_FLOOR: Duration = Duration::from_secs(1);

/// Proxies with a time that it takes for a median to mean something.
const FEWEST_TIMES: usize = 3;

/// Whether a proxy may be used, and how freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It has delivered.
    Proven,
    /// Nothing speaks against it, and nothing for it: one request at a time shows more.
    Untried,
    /// Its time aside is over: one request shows whether it is well again.
    OnTrial,
    /// Set aside, until then.
    Aside(Instant),
}

/// What speaks against a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It cannot be reached, or says itself that it does not work.
    Own,
    /// It failed where another one, or no other, did better: no connection, a cut, an answer too late.
    Worse,
    /// It altered what passed.
    Altered,
}

/// The record of one proxy.
#[derive(Debug, Default)]
pub(super) struct Standing {
    failures_in_row: u32,
    /// Share of failures among the latest results, from 0 to 1.
    failure_rate: f64,
    /// Seconds that 64 KiB take, connecting and waiting included: one answer's, where it is shorter.
    seconds: Option<f64>,
    /// Whether good files came since it last was to blame: such as it could have altered, and others.
    accepted: Accepted,
    aside: Option<Aside>,
    /// Times that it was set aside since it last did well.
    times_aside: u32,
    problem: Option<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Accepted {
    plain: bool,
    tunnelled: bool,
}

#[derive(Debug, Clone, Copy)]
struct Aside {
    until: Instant,
    /// By a comparison with others, rather than by a fault of its own.
    by_comparison: bool,
}

/// When and for how long a proxy is set aside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) after: u32,
    pub(super) first: Duration,
}

impl Standing {
    pub(super) fn fitness(&self, now: Instant) -> Fitness {
        match self.aside {
            Some(aside) if now < aside.until => Fitness::Aside(aside.until),
            Some(_) => Fitness::OnTrial,
            None if self.accepted.plain || self.accepted.tunnelled => Fitness::Proven,
            None => Fitness::Untried,
        }
    }

    /// Whether good files came through it, which for `is_plain` it could have altered.
    pub(super) fn is_proven(&self, is_plain: bool, now: Instant) -> bool {
        self.fitness(now) == Fitness::Proven && (self.accepted.plain || !is_plain)
    }

    /// Whether it is aside for a comparison: such comparisons may not empty the pool.
    pub(super) fn is_aside_by_comparison(&self, now: Instant) -> bool {
        self.aside
            .is_some_and(|aside| aside.by_comparison && now < aside.until)
    }

    pub(super) fn failure_rate(&self) -> f64 {
        self.failure_rate
    }

    pub(super) fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// A probe found something wrong with it.
    pub(super) fn has_problem(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    /// An answer came through.
    pub(super) fn answered(&mut self) {
        self.failures_in_row = 0;
        self.failure_rate *= 1.0 - RESULT_WEIGHT;
    }

    /// What came through is a good file, which for `is_plain` it could have altered. Ends a trial; answers whether there was
    /// one.
    pub(super) fn accepted(&mut self, is_plain: bool, now: Instant) -> bool {
        // What was under way when it was set aside tells nothing of how it is since.
        if matches!(self.fitness(now), Fitness::Aside(_)) {
            return false;
        }
        match is_plain {
            true => self.accepted.plain = true,
            false => self.accepted.tunnelled = true,
        }
        let was_aside = self.aside.take().is_some();
        if was_aside {
            self.failure_rate = 0.0;
            self.failures_in_row = 0;
        } else if self.failure_rate < MOST_FAILURES / 2.0 {
            self.times_aside = 0;
            self.problem = None;
        }
        was_aside
    }

    /// 64 KiB, or the whole of one answer, took `seconds`. Answers with what this makes of the average.
    pub(super) fn took(&mut self, seconds: f64) -> f64 {
        let average = match self.seconds {
            Some(before) => before + TIME_WEIGHT * (seconds - before),
            None => seconds,
        };
        *self.seconds.insert(average)
    }

    /// It failed, which `problem` describes. Answers whether it is to be set aside for that.
    pub(super) fn failed(
        &mut self,
        fault: Fault,
        problem: String,
        rules: Rules,
        now: Instant,
    ) -> bool {
        let results = if fault == Fault::Altered { 2 } else { 1 };
        if fault == Fault::Altered {
            self.accepted = Accepted::default();
        }
        for _ in 0..results {
            self.failures_in_row = self.failures_in_row.saturating_add(1);
            self.failure_rate += RESULT_WEIGHT * (1.0 - self.failure_rate);
        }
        self.problem = Some(problem);
        // One failure of a trial is enough. While it is aside, answers to earlier requests tell nothing new.
        match self.fitness(now) {
            Fitness::Aside(_) => false,
            Fitness::OnTrial => true,
            _ => self.failures_in_row >= rules.after || self.failure_rate > MOST_FAILURES,
        }
    }

    /// Sets it aside, each further time for twice as long; `None`: it is aside already, and stays so no longer for that.
    pub(super) fn set_aside(
        &mut self,
        by_comparison: bool,
        problem: Option<String>,
        rules: Rules,
        now: Instant,
    ) -> Option<Duration> {
        if let Fitness::Aside(_) = self.fitness(now) {
            return None;
        }
        let time = rules
            .first
            .saturating_mul(1 << self.times_aside.min(16))
            .min(LONGEST.max(rules.first));
        self.times_aside += 1;
        self.accepted = Accepted::default();
        self.seconds = None;
        self.problem = problem.or(self.problem.take());
        self.aside = Some(Aside {
            until: now + time,
            by_comparison,
        });
        Some(time)
    }
}

/// The median of times, where there are enough of them.
pub(super) fn median(mut times: Vec<f64>) -> Option<f64> {
    if times.len() < FEWEST_TIMES {
        return None;
    }
    let middle = (times.len() - 1) / 2;
    let (_, median, _) = times.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

/// Whether a time that is an outlier, should the median be small enough.
pub(super) fn may_be_outlier(seconds: f64) -> bool {
    seconds > OUTLIER_FLOOR.as_secs_f64()
}

/// Whether `seconds` is far beyond the median of the pool.
pub(super) fn is_outlier(seconds: f64, median: f64) -> bool {
    may_be_outlier(seconds) && seconds > OUTLIER * median
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        after: 3,
        first: Duration::from_secs(30),
    };

    fn fail(standing: &mut Standing, fault: Fault) -> bool {
        standing.failed(fault, "refused".to_owned(), RULES, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_set_aside_and_an_answer_between_them_does_not() {
        let mut standing = Standing::default();
        assert!(!fail(&mut standing, Fault::Own));
        assert!(!fail(&mut standing, Fault::Own));
        standing.answered();
        assert!(!fail(&mut standing, Fault::Worse));
        standing.answered();
        standing.answered();
        standing.answered();
        standing.answered();
        assert!(!fail(&mut standing, Fault::Own) && !fail(&mut standing, Fault::Own));
        assert!(fail(&mut standing, Fault::Own));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_alters_every_fifth_file_is_found_out() {
        let mut standing = Standing::default();
        let found = (0..100).find(|n| {
            standing.answered();
            standing.accepted(true, Instant::now());
            n % 5 == 4 && fail(&mut standing, Fault::Altered)
        });
        assert!(found.is_some_and(|n| n < 40), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_in_twenty_is_forgiven() {
        let mut standing = Standing::default();
        for n in 0..1000 {
            standing.answered();
            assert!(n % 20 != 0 || !fail(&mut standing, Fault::Worse), "{n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_aside_doubles_until_it_does_well_again() {
        let mut standing = Standing::default();
        for seconds in [30, 60, 120, 240] {
            let time = Duration::from_secs(seconds);
            let set_aside =
                |standing: &mut Standing| standing.set_aside(false, None, RULES, Instant::now());
            assert_eq!(set_aside(&mut standing), Some(time));
            assert_eq!(set_aside(&mut standing), None, "it is aside");
            assert!(
                !standing.accepted(true, Instant::now()),
                "that was under way"
            );
            assert!(matches!(
                standing.fitness(Instant::now()),
                Fitness::Aside(_)
            ));
            tokio::time::advance(time).await;
            assert_eq!(standing.fitness(Instant::now()), Fitness::OnTrial);
            assert!(
                fail(&mut standing, Fault::Own),
                "one failure on trial is enough"
            );
        }
        for _ in 0..30 {
            standing.set_aside(false, None, RULES, Instant::now());
            tokio::time::advance(LONGEST).await;
        }
        assert_eq!(
            standing.set_aside(false, None, RULES, Instant::now()),
            Some(LONGEST)
        );
        tokio::time::advance(LONGEST).await;
        assert!(standing.accepted(true, Instant::now()), "that was a trial");
        assert_eq!(standing.fitness(Instant::now()), Fitness::Proven);
        standing.accepted(true, Instant::now());
        assert_eq!(
            standing.set_aside(false, None, RULES, Instant::now()),
            Some(RULES.first)
        );
    }

    #[test]
    fn times_are_averaged_and_the_newest_counts_most() {
        let mut standing = Standing::default();
        assert_eq!(standing.took(1.0), 1.0);
        assert!((standing.took(2.0) - 1.3).abs() < 1e-9);
        for _ in 0..20 {
            standing.took(0.1);
        }
        assert!(standing.seconds().unwrap() < 0.11);
    }

    #[test]
    fn an_outlier_takes_much_longer_than_others_and_long_enough_to_matter() {
        assert_eq!(median(vec![0.1, 9.0]), None, "two do not make a median");
        assert_eq!(median(vec![9.0, 0.1, 0.2]), Some(0.2));
        assert_eq!(median(vec![0.1, 0.2, 9.0, 9.0]), Some(0.2));
        assert!(is_outlier(2.0, 0.2));
        assert!(!is_outlier(2.0, 0.5), "not that much longer");
        assert!(!is_outlier(0.9, 0.01), "too short to matter");
    }
}
