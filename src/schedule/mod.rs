//! When a schedule is due.
//!
//! - [`Cron`]: a cron line, and the instants that it names in a time zone.
//!
//! Where clocks are put forward or back, what a line names depends on its hours, as in Vixie's cron:
//!
//! | a time that clocks | hour given (`30 2 * * *`) | hour begins with `*` (`*/5 * * * *`) |
//! |---|---|---|
//! | leap over | the first instant after the leap | none |
//! | show twice | the first of the two | both: every five minutes are five real minutes |
//!
//! This room has no clock and waits for nothing: whoever asks says what time it is.

mod cron;

pub use cron::{Cron, InvalidCron};
