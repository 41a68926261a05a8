//! The policy for one schedule: which of its instants bring a run.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use rand::{Rng, RngExt as _};
use serde::Deserialize;

use super::Cron;

/// How late an instant may be noticed, beyond the jitter, and still be run without `catch_up`: the program
/// is restarted or held up for that long without an instant being lost.
pub const TOLERANCE: Duration = Duration::from_secs(60);

/// More instants without a run are not counted one by one.
pub const MOST_MISSED: u64 = 1000;

/// How far the clock may go back without anything running twice. What was dealt with later than that from now was dealt
/// with under a clock that was wrong, and is not believed.
pub const MOST_BACK: TimeDelta = TimeDelta::days(1);

/// When a schedule runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The instants at which it is due.
    pub cron: Cron,
    /// Where clocks show the times of `cron`.
    pub timezone: Tz,
    /// A run is put off by a random time up to this one.
    pub jitter: Duration,
    /// What becomes of an instant that comes while a run is not over.
    pub overlap: Overlap,
    /// Whether instants that were missed are made up for, however many, by one run. Missed is
    /// what was not noticed within jitter and [`TOLERANCE`].
    pub catch_up: bool,
    /// Whether it runs once when the program starts, unless a run is due then anyway.
    pub run_at_start: bool,
}

/// What becomes of an instant that comes while a run is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It gets no run.
    Skip,
    /// It waits; of several, the last.
    Queue,
}

/// What outlives the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// The last instant that was dealt with: was run, skipped, missed, or passed during a pause. Instants up to it are done
    /// with, and it never goes back, unless it is further ahead of the clock than [`MOST_BACK`]. `None`: none yet.
    pub last_due: Option<DateTime<Utc>>,
    /// Whether instants pass without a run.
    pub paused: bool,
}

/// A run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The instant it stands for, the last that has passed, without jitter. `None`: for none.
    pub scheduled: Option<DateTime<Utc>>,
    /// Instants dealt with along with this one that get no run of their own; at most [`MOST_MISSED`].
    pub missed: u64,
    /// Why it is due.
    pub cause: Cause,
}

/// Why a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// An instant has come.
    Schedule,
    /// Instants were missed, and `catch_up` is on.
    CatchUp,
    /// The program started, and `run_at_start` is on.
    Start,
    /// Somebody asked.
    Request,
}

/// What a tick brings about. After each, [`Timetable::state`] may differ and is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// A run begins here, and lasts until [`Timetable::finished`].
    Run(Due),
    /// No run, since the one before is not over.
    Skipped(Due),
    /// So many instants passed too long ago to be run now; at most [`MOST_MISSED`].
    Missed(u64),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is running already")]
pub struct AlreadyRunning;

/// One schedule's instants and runs. At most one run at a time.
///
/// Knows the time from its caller only, and makes do with any: late, in leaps, or backwards.
#[derive(Debug)]
pub struct Timetable {
    policy: Policy,
    state: State,
    /// Instants up to here are none of ours, unless the clock goes back before it.
    since: DateTime<Utc>,
    /// When what has come is to be run: after its jitter.
    put_off: Option<DateTime<Utc>>,
    /// What has come and is run once the running one is over.
    queued: Option<Cause>,
    /// A run for no instant, to begin as soon as none is running.
    asked: Option<Cause>,
    running: bool,
    skipped: u64,
}

impl Timetable {
    /// Takes a schedule up where an earlier process left it. What passed in between is due at once, or
    /// missed, with the next tick.
    pub fn start(policy: Policy, mut state: State, now: DateTime<Utc>) -> Self {
        state.last_due = state.last_due.filter(|last| !is_beyond(*last, now));
        let at_start = policy.run_at_start && !state.paused;
        let mut taken_up = Self {
            policy,
            state,
            since: state.last_due.unwrap_or(now),
            put_off: None,
            queued: None,
            asked: at_start.then_some(Cause::Start),
            running: false,
            skipped: 0,
        };
        taken_up.put_off = taken_up.latest(now).map(|_| now);
        taken_up
    }

    /// What an earlier process should leave to a later one.
    pub fn state(&self) -> State {
        self.state
    }

    /// The policy it goes by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether a run is not over.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Instants without a run since the start, because the one before was not over.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next instant that may bring a run, before jitter. `None`: none, or paused.
    pub fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.state.paused {
            return None;
        }
        self.next_after(now.max(self.done()))
    }

    /// Goes by another policy from now on. If it names other instants, none that has passed brings a run,
    /// by the old one or the new.
    pub fn change(&mut self, policy: Policy, now: DateTime<Utc>) {
        if (&policy.cron, policy.timezone) != (&self.policy.cron, self.policy.timezone) {
            self.settle(now);
            self.since = now;
        }
        self.policy = policy;
    }

    /// Looks at the clock; to be called about once a second. `rng` is asked for jitter.
    pub fn tick(&mut self, now: DateTime<Utc>, rng: &mut impl Rng) -> Option<Tick> {
        self.since = self.since.min(now);
        if self.state.last_due.is_some_and(|last| is_beyond(last, now)) {
            (self.state.last_due, self.put_off) = (None, None);
            self.since = now;
        }
        if self.state.paused {
            self.settle(now);
        }
        let Some(instant) = self.latest(now) else {
            return self.run_asked(0);
        };
        let jitter = self.policy.jitter;
        let latest_start = later(instant, jitter);
        let put_off = *self
            .put_off
            .get_or_insert_with(|| later(instant, rng.random_range(Duration::ZERO..=jitter)));
        let is_late = now > later(latest_start, TOLERANCE);
        let cause = match self.queued {
            Some(cause) => cause,
            None if is_late && !self.policy.catch_up => {
                let missed = self.deal_with(instant) + 1;
                return self.run_asked(missed.min(MOST_MISSED));
            }
            None if is_late => Cause::CatchUp,
            None if now < put_off.min(latest_start) => return self.run_asked(0),
            None => Cause::Schedule,
        };
        if self.running && self.policy.overlap == Overlap::Queue {
            self.queued = Some(cause);
            return None;
        }
        let due = Due {
            scheduled: Some(instant),
            missed: self.deal_with(instant),
            cause,
        };
        if self.running {
            self.skipped += 1;
            return Some(Tick::Skipped(due));
        }
        self.started();
        Some(Tick::Run(due))
    }

    /// A run has begun that no tick told of, such as one that an earlier process began. What was asked for
    /// is answered by it.
    pub fn started(&mut self) {
        self.running = true;
        self.asked = None;
    }

    /// The run is over, or did not come about. One that waited for it begins with the next tick.
    pub fn finished(&mut self) {
        self.running = false;
    }

    /// Asks for a run with the next tick, also during a pause.
    ///
    /// # Errors
    /// If one is running and the policy lets none wait.
    pub fn request(&mut self) -> Result<(), AlreadyRunning> {
        if self.running && self.policy.overlap == Overlap::Skip {
            return Err(AlreadyRunning);
        }
        self.asked = Some(Cause::Request);
        Ok(())
    }

    /// Lets instants pass without a run, also those that were put off or wait, and the run at the start.
    /// A run goes on.
    pub fn pause(&mut self) {
        self.state.paused = true;
        self.asked = self.asked.filter(|cause| *cause == Cause::Request);
    }

    /// Ends the pause. What was due meanwhile is not made up for.
    pub fn resume(&mut self, now: DateTime<Utc>) {
        if self.state.paused {
            self.settle(now);
            self.state.paused = false;
        }
    }

    /// Begins what was asked for, or tells of what was missed.
    fn run_asked(&mut self, missed: u64) -> Option<Tick> {
        if let Some(cause) = self.asked
            && !self.running
        {
            self.started();
            let scheduled = None;
            return Some(Tick::Run(Due {
                scheduled,
                missed,
                cause,
            }));
        }
        (missed > 0).then_some(Tick::Missed(missed))
    }

    /// Instants up to here bring no run any more.
    fn done(&self) -> DateTime<Utc> {
        self.state
            .last_due
            .map_or(self.since, |last| last.max(self.since))
    }

    /// Is done with `instant` and all before; how many of these were not done with.
    fn deal_with(&mut self, instant: DateTime<Utc>) -> u64 {
        let Policy { cron, timezone, .. } = &self.policy;
        let before = cron
            .iter_after(self.done(), *timezone)
            .take_while(|before| *before < instant)
            .take(MOST_MISSED as usize)
            .count();
        self.state.last_due = Some(instant);
        self.put_off = None;
        self.queued = None;
        before as u64
    }

    /// Is done with all that has passed.
    fn settle(&mut self, now: DateTime<Utc>) {
        self.state.last_due = self.latest(now).or(self.state.last_due);
        self.put_off = None;
        self.queued = None;
    }

    /// The last instant that has passed, if it is not done with.
    fn latest(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let has_come = |instant: &DateTime<Utc>| *instant <= now;
        let comes_after = |time: DateTime<Utc>| self.next_after(time).filter(has_come);
        // The first is nearly always the last. Otherwise it is searched for between two times, one before
        // and one not before it, so that a leap of years costs no more than one of days.
        let mut last = comes_after(self.done())?;
        let mut end = now;
        while let Some(next) = comes_after(last) {
            last = next;
            let middle = last + (end - last) / 2;
            match comes_after(middle) {
                Some(next) => last = next,
                None => end = middle,
            }
        }
        Some(last)
    }

    fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.policy.cron.next_after(time, self.policy.timezone)
    }
}

/// Whether `last` can only have been dealt with under a clock that was wrong.
fn is_beyond(last: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    last.signed_duration_since(now) > MOST_BACK
}

/// `time` and `by`, or the end of time.
fn later(time: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by)
        .ok()
        .and_then(|by| time.checked_add_signed(by))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
