//! When a schedule is due.
//!
//! - [`Cron`]: a cron line, and the instants that it names in a time zone.
//! - [`Timetable`]: which of a schedule's instants bring a run, by a [`Policy`]; its [`State`] outlives the
//!   process.
//!
//! Where clocks are put forward or back, what a line names depends on its hours, as in Vixie's cron:
//!
//! | a time that clocks | hour given (`30 2 * * *`) | hour begins with `*` (`*/5 * * * *`) |
//! |---|---|---|
//! | leap over | the first instant after the leap | none |
//! | show twice | the first of the two | both: every five minutes are five real minutes |
//!
//! One schedule has one run at a time, and at most one run comes of a [`Timetable::tick`]:
//!
//! | when | then |
//! |---|---|
//! | an instant has come | it runs, put off by a random part of `jitter`; with it all that came before |
//! | the program was down, or the clock leapt | with `catch_up` one run at once; otherwise only an instant within [`TOLERANCE`] runs, the rest is told of as missed |
//! | the program starts | with `run_at_start` it runs at once, unless an instant is due |
//! | the clock goes back | nothing that was dealt with comes again, unless the clock had been wrong by more than [`MOST_BACK`] |
//! | a run is not over | the instant is skipped, or with `Overlap::Queue` the last one waits |
//! | paused | instants pass; only what is requested runs |
//! | requested | it runs with the next tick; while running, it waits (`Queue`) or is refused (`Skip`) |
//!
//! This room has no clock and waits for nothing: whoever asks says what time it is.

mod cron;
mod timetable;

pub use cron::{Cron, InvalidCron};
pub use timetable::{
    AlreadyRunning, Cause, Due, MOST_BACK, MOST_MISSED, Overlap, Policy, State, TOLERANCE, Tick,
    Timetable,
};
