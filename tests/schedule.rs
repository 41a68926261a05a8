//! When schedules are due: cron lines on days with daylight saving, and the policy for what was missed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::{America::New_York, Australia::Lord_Howe, Europe::Berlin, Tz};
use gannet::schedule::{
    AlreadyRunning, Cause, Cron, Due, MOST_BACK, MOST_MISSED, Overlap, Policy, State, Tick,
    Timetable,
};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Reads `2026-03-29 01:00`, in UTC.
fn at(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(&format!("{text}:00"), "%F %T")
        .unwrap()
        .and_utc()
}

fn cron(line: &str) -> Cron {
    line.parse().unwrap()
}

/// The next `count` instants later than `after`, as clocks in `tz` show them, with their offset.
fn shown(line: &str, tz: Tz, after: &str, count: usize) -> Vec<String> {
    cron(line)
        .iter_after(at(after), tz)
        .take(count)
        .map(|instant| instant.with_timezone(&tz).format("%d. %R %:z").to_string())
        .collect()
}

/// The next three in UTC, with seconds.
fn next(line: &str, after: &str) -> Vec<String> {
    cron(line)
        .iter_after(at(after), Tz::UTC)
        .take(3)
        .map(|instant| instant.format("%F %T").to_string())
        .collect()
}

#[test]
fn lines_are_read_as_crontab_reads_them() {
    let after = "2026-01-01 00:00"; // A Thursday.
    for (line, expected) in [
        (
            "0 12 * * 0",
            "2026-01-04 12:00:00, 2026-01-11 12:00:00, 2026-01-18 12:00:00",
        ),
        (
            "0 12 * * 7",
            "2026-01-04 12:00:00, 2026-01-11 12:00:00, 2026-01-18 12:00:00",
        ),
        (
            "0 12 * * sat-sun",
            "2026-01-03 12:00:00, 2026-01-04 12:00:00, 2026-01-10 12:00:00",
        ),
        (
            "30 6 5-6,20 FEB *",
            "2026-02-05 06:30:00, 2026-02-06 06:30:00, 2026-02-20 06:30:00",
        ),
        (
            "10/25 8 * * *",
            "2026-01-01 08:10:00, 2026-01-01 08:35:00, 2026-01-02 08:10:00",
        ),
        (
            "*/20 59 23 * * *",
            "2026-01-01 23:59:00, 2026-01-01 23:59:20, 2026-01-01 23:59:40",
        ),
        (
            "0 0 L * *",
            "2026-01-31 00:00:00, 2026-02-28 00:00:00, 2026-03-31 00:00:00",
        ),
        (
            "0 0 * * 5#2",
            "2026-01-09 00:00:00, 2026-02-13 00:00:00, 2026-03-13 00:00:00",
        ),
        (
            "0 0 * * 7L",
            "2026-01-25 00:00:00, 2026-02-22 00:00:00, 2026-03-29 00:00:00",
        ),
        (
            "0 0 29 2 *",
            "2028-02-29 00:00:00, 2032-02-29 00:00:00, 2036-02-29 00:00:00",
        ),
        (
            "@yearly",
            "2027-01-01 00:00:00, 2028-01-01 00:00:00, 2029-01-01 00:00:00",
        ),
        (
            "@annually",
            "2027-01-01 00:00:00, 2028-01-01 00:00:00, 2029-01-01 00:00:00",
        ),
        (
            "@monthly",
            "2026-02-01 00:00:00, 2026-03-01 00:00:00, 2026-04-01 00:00:00",
        ),
        (
            "@weekly",
            "2026-01-04 00:00:00, 2026-01-11 00:00:00, 2026-01-18 00:00:00",
        ),
        (
            "@daily",
            "2026-01-02 00:00:00, 2026-01-03 00:00:00, 2026-01-04 00:00:00",
        ),
        (
            "@midnight",
            "2026-01-02 00:00:00, 2026-01-03 00:00:00, 2026-01-04 00:00:00",
        ),
        (
            "@Hourly",
            "2026-01-01 01:00:00, 2026-01-01 02:00:00, 2026-01-01 03:00:00",
        ),
    ] {
        assert_eq!(next(line, after).join(", "), expected, "{line}");
    }
}

#[test]
fn either_day_field_is_enough_where_both_are_restricted() {
    let days = |line| {
        let next = next(line, "2026-01-01 00:00");
        next.iter()
            .map(|next| next[5..10].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(days("0 0 13 * 5"), ["01-02", "01-09", "01-13"]);
    // A field that begins with `*` restricts what the other allows.
    assert_eq!(days("0 0 */2 * 5"), ["01-09", "01-23", "02-13"]);
    assert_eq!(days("0 0 13 * */5"), ["02-13", "03-13", "09-13"]);
}

#[test]
fn a_time_that_clocks_leap_over_comes_when_they_do() {
    for (line, tz, after, expected) in [
        (
            "30 2 * * *",
            Berlin,
            "2026-03-28 00:00",
            ["28. 02:30 +01:00", "29. 03:00 +02:00", "30. 02:30 +02:00"],
        ),
        (
            "30 2 * * *",
            New_York,
            "2026-03-07 00:00",
            ["07. 02:30 -05:00", "08. 03:00 -04:00", "09. 02:30 -04:00"],
        ),
        (
            "15 2 * * *",
            Lord_Howe,
            "2026-10-02 12:00",
            ["03. 02:15 +10:30", "04. 02:30 +11:00", "05. 02:15 +11:00"],
        ),
        // Several such times, and the hour at which they end, are one instant.
        (
            "0,30 2-3 * * *",
            Berlin,
            "2026-03-29 00:00",
            ["29. 03:00 +02:00", "29. 03:30 +02:00", "30. 02:00 +02:00"],
        ),
        (
            "*/5 2 29 3 *",
            Berlin,
            "2026-03-28 12:00",
            ["29. 03:00 +02:00", "29. 02:00 +02:00", "29. 02:05 +02:00"],
        ),
        // Chile's clocks leap at midnight.
        (
            "@daily",
            chrono_tz::America::Santiago,
            "2026-09-05 12:00",
            ["06. 01:00 -03:00", "07. 00:00 -03:00", "08. 00:00 -03:00"],
        ),
    ] {
        assert_eq!(shown(line, tz, after, 3), expected, "{line} {tz}");
    }
}

#[test]
fn a_time_that_clocks_show_twice_comes_the_first_time() {
    for (line, tz, after, expected) in [
        (
            "30 2 * * *",
            Berlin,
            "2026-10-24 12:00",
            ["25. 02:30 +02:00", "26. 02:30 +01:00", "27. 02:30 +01:00"],
        ),
        (
            "30 1 * * *",
            New_York,
            "2026-10-31 12:00",
            ["01. 01:30 -04:00", "02. 01:30 -05:00", "03. 01:30 -05:00"],
        ),
        (
            "45 1 * * *",
            Lord_Howe,
            "2026-04-04 12:00",
            ["05. 01:45 +11:00", "06. 01:45 +10:30", "07. 01:45 +10:30"],
        ),
        (
            "0,30 1-3 * * *",
            New_York,
            "2026-11-01 05:15",
            ["01. 01:30 -04:00", "01. 02:00 -05:00", "01. 02:30 -05:00"],
        ),
        // Asked while they show it for the second time.
        (
            "30 2 * * *",
            Berlin,
            "2026-10-25 01:10",
            ["26. 02:30 +01:00", "27. 02:30 +01:00", "28. 02:30 +01:00"],
        ),
    ] {
        assert_eq!(shown(line, tz, after, 3), expected, "{line} {tz}");
    }
}

#[test]
fn lines_for_every_hour_come_whenever_clocks_show_them() {
    for (line, tz, after, expected) in [
        (
            "@hourly",
            Berlin,
            "2026-03-29 00:00",
            ["29. 03:00 +02:00", "29. 04:00 +02:00", "29. 05:00 +02:00"],
        ),
        (
            "@hourly",
            Berlin,
            "2026-10-24 23:00",
            ["25. 02:00 +02:00", "25. 02:00 +01:00", "25. 03:00 +01:00"],
        ),
        (
            "30 * * * *",
            New_York,
            "2026-11-01 05:00",
            ["01. 01:30 -04:00", "01. 01:30 -05:00", "01. 02:30 -05:00"],
        ),
        (
            "0 */2 * * *",
            Berlin,
            "2026-10-24 22:30",
            ["25. 02:00 +02:00", "25. 02:00 +01:00", "25. 04:00 +01:00"],
        ),
        // The half hour from 01:30 on is shown twice, and with it no full hour.
        (
            "@hourly",
            Lord_Howe,
            "2026-04-04 13:00",
            ["05. 01:00 +11:00", "05. 02:00 +10:30", "05. 03:00 +10:30"],
        ),
    ] {
        assert_eq!(shown(line, tz, after, 3), expected, "{line} {tz}");
    }
}

#[test]
fn every_five_minutes_are_five_real_minutes() {
    let line = cron("*/5 * * * *");
    for tz in [Berlin, New_York, Lord_Howe] {
        for day in [
            "2026-03-08",
            "2026-03-29",
            "2026-04-04",
            "2026-10-03",
            "2026-10-25",
            "2026-11-01",
        ] {
            let start = at(&format!("{day} 00:00"));
            let passed = line
                .iter_after(start, tz)
                .take(24 * 12)
                .map(|instant| (instant - start).num_seconds());
            assert!(
                passed.eq((1..).map(|count| count * 300).take(24 * 12)),
                "{tz} {day}"
            );
        }
    }
}

#[test]
fn instants_are_whole_seconds_within_the_calendar() {
    let line = cron("* * * * * *");
    let half_past: DateTime<Utc> = "2026-01-01T00:00:00.5Z".parse().unwrap();
    assert_eq!(
        line.next_after(half_past, Berlin).unwrap().to_rfc3339(),
        "2026-01-01T00:00:01+00:00"
    );
    for tz in [Berlin, chrono_tz::Pacific::Kiritimati, Tz::UTC] {
        let next = line.next_after(DateTime::<Utc>::MIN_UTC, tz);
        assert_eq!(next.unwrap().timestamp(), 1);
        assert_eq!(line.next_after(DateTime::<Utc>::MAX_UTC, tz), None);
    }
}

/// Instants around the days on which clocks change.
fn instants() -> impl Strategy<Value = DateTime<Utc>> {
    let changes = prop::sample::select(vec![
        "2026-03-08 07:00",
        "2026-03-29 01:00",
        "2026-04-04 15:00",
        "2026-10-03 15:30",
        "2026-10-25 01:00",
        "2026-11-01 06:00",
    ]);
    (changes, -10_000..10_000_i64).prop_map(|(change, by)| at(change) + TimeDelta::seconds(by))
}

fn zones() -> impl Strategy<Value = Tz> {
    prop::sample::select(vec![Berlin, New_York, Lord_Howe])
}

proptest! {
    #[test]
    fn a_line_for_every_hour_is_due_whenever_its_time_is_shown(
        after in instants(),
        tz in zones(),
        minute in 0..60_u32,
    ) {
        let line = cron(&format!("{minute} * * * *"));
        let next = line.next_after(after, tz).unwrap();
        let shows = |time: DateTime<Utc>| {
            time.with_timezone(&tz).format("%M:%S").to_string() == format!("{minute:02}:00")
        };
        prop_assert!(next > after && shows(next));
        let between = (after.timestamp() + 1..next.timestamp())
            .map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap());
        prop_assert!(between.into_iter().all(|time| !shows(time)));
    }

    #[test]
    fn what_comes_next_does_not_depend_on_when_it_is_asked(
        one in instants(),
        by in 0..100_000_i64,
        tz in zones(),
        line in prop::sample::select(vec![
            "*/7 * * * *", "30 1-3 * * *", "*/9 */2 * * *", "20 */5 1,2 * * *", "0 0 3 * * *",
        ]),
    ) {
        let line = cron(line);
        let other = one + TimeDelta::seconds(by);
        let (next, later) = (line.next_after(one, tz).unwrap(), line.next_after(other, tz).unwrap());
        prop_assert!(next > one);
        // Either nothing came between the two, or what did is not later than the other.
        prop_assert!(next == later || next <= other, "{next} {later}");
    }
}

/// A timetable with a clock that a test moves.
struct Played {
    timetable: Timetable,
    rng: StdRng,
}

/// A day's run at noon, in UTC, with nothing else switched on.
fn noon() -> Policy {
    Policy {
        cron: cron("0 12 * * *"),
        timezone: Tz::UTC,
        jitter: Duration::ZERO,
        overlap: Overlap::Skip,
        catch_up: false,
        run_at_start: false,
    }
}

fn catching_up() -> Policy {
    Policy {
        catch_up: true,
        ..noon()
    }
}

fn last_due(time: &str) -> State {
    State {
        last_due: Some(at(time)),
        paused: false,
    }
}

fn run(cause: Cause, scheduled: &str, missed: u64) -> Option<Tick> {
    Some(Tick::Run(Due {
        scheduled: Some(at(scheduled)),
        missed,
        cause,
    }))
}

/// A run that stands for no instant.
fn run_now(cause: Cause) -> Option<Tick> {
    Some(Tick::Run(Due {
        scheduled: None,
        missed: 0,
        cause,
    }))
}

impl Played {
    fn start(policy: Policy, state: State, now: &str) -> Self {
        Self {
            timetable: Timetable::start(policy, state, at(now)),
            rng: StdRng::seed_from_u64(7),
        }
    }

    fn tick_at(&mut self, now: DateTime<Utc>) -> Option<Tick> {
        self.timetable.tick(now, &mut self.rng)
    }

    fn tick(&mut self, now: &str) -> Option<Tick> {
        self.tick_at(at(now))
    }

    /// Ticks every 20 seconds, with runs that are over at once: when each began, and what it was.
    fn play(&mut self, from: &str, to: &str) -> Vec<(DateTime<Utc>, Tick)> {
        self.play_every(20, from, to)
    }

    fn play_every(&mut self, seconds: i64, from: &str, to: &str) -> Vec<(DateTime<Utc>, Tick)> {
        let (mut now, to) = (at(from), at(to));
        let mut ticks = Vec::new();
        while now < to {
            if let Some(tick) = self.tick_at(now) {
                ticks.push((now, tick));
                self.timetable.finished();
            }
            now += TimeDelta::seconds(seconds);
        }
        ticks
    }
}

#[test]
fn an_instant_runs_once_when_it_comes() {
    let mut played = Played::start(noon(), State::default(), "2026-01-01 00:00");
    assert_eq!(played.tick("2026-01-01 11:59"), None);
    assert_eq!(
        played.tick("2026-01-01 12:00"),
        run(Cause::Schedule, "2026-01-01 12:00", 0)
    );
    assert_eq!(played.timetable.state(), last_due("2026-01-01 12:00"));
    played.timetable.finished();
    assert_eq!(played.tick("2026-01-01 12:00"), None);
    assert_eq!(played.tick("2026-01-01 12:01"), None);
}

#[test]
fn days_with_daylight_saving_bring_one_run() {
    for (tz, time, days) in [
        (
            Berlin,
            "30 2 * * *",
            [("2026-03-29", "01:00"), ("2026-10-25", "00:30")],
        ),
        (
            New_York,
            "30 2 * * *",
            [("2026-03-08", "07:00"), ("2026-11-01", "07:30")],
        ),
        (
            New_York,
            "30 1 * * *",
            [("2026-03-08", "06:30"), ("2026-11-01", "05:30")],
        ),
    ] {
        let policy = Policy {
            cron: cron(time),
            timezone: tz,
            ..noon()
        };
        for (day, expected) in days {
            let (from, to) = (format!("{day} 00:00"), format!("{day} 23:00"));
            let mut played = Played::start(policy.clone(), State::default(), &from);
            let expected = at(&format!("{day} {expected}"));
            let due = Due {
                scheduled: Some(expected),
                missed: 0,
                cause: Cause::Schedule,
            };
            assert_eq!(
                played.play(&from, &to),
                [(expected, Tick::Run(due))],
                "{tz} {day}"
            );
        }
    }
}

#[test]
fn days_with_daylight_saving_have_as_many_five_minutes_as_hours() {
    for (tz, day, next_day) in [
        (Berlin, "2026-03-29", "2026-03-30"),
        (Berlin, "2026-10-25", "2026-10-26"),
        (New_York, "2026-03-08", "2026-03-09"),
        (New_York, "2026-11-01", "2026-11-02"),
    ] {
        let policy = Policy {
            cron: cron("*/5 * * * *"),
            timezone: tz,
            ..noon()
        };
        let (from, to) = (format!("{day} 00:00"), format!("{next_day} 00:00"));
        let mut played = Played::start(policy, State::default(), &from);
        let ticks = played.play(&from, &to);
        assert_eq!(ticks.len(), 24 * 12 - 1, "{tz} {day}");
        assert!(ticks.iter().all(|(now, tick)| matches!(
            tick,
            Tick::Run(Due { scheduled, missed: 0, .. }) if *scheduled == Some(*now)
        )));
    }
}

#[test]
fn a_leap_of_two_days_is_caught_up_with_by_one_run() {
    let mut played = Played::start(catching_up(), State::default(), "2026-01-01 00:00");
    assert_eq!(played.tick("2026-01-01 00:00"), None);
    assert_eq!(
        played.tick("2026-01-03 18:00"),
        run(Cause::CatchUp, "2026-01-03 12:00", 2)
    );
    played.timetable.finished();
    assert_eq!(played.tick("2026-01-03 18:00"), None);
}

#[test]
fn a_leap_is_told_of_where_nothing_is_caught_up_with() {
    let mut played = Played::start(noon(), State::default(), "2026-01-01 00:00");
    assert_eq!(played.tick("2026-01-03 18:00"), Some(Tick::Missed(3)));
    assert_eq!(played.timetable.state(), last_due("2026-01-03 12:00"));
    assert_eq!(played.tick("2026-01-03 18:01"), None);
}

#[test]
fn an_instant_is_on_time_for_a_minute() {
    let late = |seconds| {
        let mut played = Played::start(noon(), State::default(), "2026-01-01 00:00");
        played.tick_at(at("2026-01-02 12:00") + TimeDelta::seconds(seconds))
    };
    assert_eq!(late(60), run(Cause::Schedule, "2026-01-02 12:00", 1));
    assert_eq!(late(61), Some(Tick::Missed(2)));
}

#[test]
fn a_leap_of_centuries_costs_no_more_than_one_of_days() {
    let policy = Policy {
        cron: cron("* * * * * *"),
        ..noon()
    };
    let mut played = Played::start(policy, State::default(), "2026-01-01 00:00");
    assert_eq!(
        played.tick("2626-01-01 00:00"),
        run(Cause::Schedule, "2626-01-01 00:00", MOST_MISSED)
    );
}

#[test]
fn an_hour_that_comes_again_brings_no_run_again() {
    let policy = Policy {
        cron: cron("*/20 * * * *"),
        ..catching_up()
    };
    let mut played = Played::start(policy, State::default(), "2026-01-01 11:50");
    assert_eq!(played.play("2026-01-01 11:50", "2026-01-01 13:10").len(), 4);
    assert_eq!(played.play("2026-01-01 12:10", "2026-01-01 13:20"), []);
    assert_eq!(
        played.tick("2026-01-01 13:20"),
        run(Cause::Schedule, "2026-01-01 13:20", 0)
    );
}

#[test]
fn a_clock_that_was_ahead_at_the_start_holds_nothing_up() {
    let mut played = Played::start(noon(), State::default(), "2036-01-01 00:00");
    assert_eq!(played.tick("2026-01-01 11:00"), None);
    assert_eq!(
        played.tick("2026-01-01 12:00"),
        run(Cause::Schedule, "2026-01-01 12:00", 0)
    );
}

#[test]
fn an_instant_during_a_run_is_skipped() {
    let mut played = Played::start(noon(), State::default(), "2026-01-01 00:00");
    played.tick("2026-01-01 12:00").unwrap();
    assert_eq!(
        played.tick("2026-01-02 12:00"),
        Some(Tick::Skipped(Due {
            scheduled: Some(at("2026-01-02 12:00")),
            missed: 0,
            cause: Cause::Schedule,
        }))
    );
    assert_eq!(played.timetable.skipped(), 1);
    played.timetable.finished();
    assert_eq!(played.tick("2026-01-02 12:01"), None);
    assert_eq!(played.timetable.state(), last_due("2026-01-02 12:00"));
}

#[test]
fn instants_during_a_run_wait_as_one() {
    let policy = Policy {
        overlap: Overlap::Queue,
        ..noon()
    };
    let mut played = Played::start(policy.clone(), State::default(), "2026-01-01 00:00");
    played.tick("2026-01-01 12:00").unwrap();
    for day in ["2026-01-02 12:00", "2026-01-03 12:00"] {
        assert_eq!(played.tick(day), None);
    }
    // What waits is not done with: a process that ends meanwhile leaves it to the next.
    assert_eq!(played.timetable.state(), last_due("2026-01-01 12:00"));
    played.timetable.request().unwrap();
    assert_eq!(played.tick("2026-01-03 18:00"), None);
    played.timetable.finished();
    assert_eq!(
        played.tick("2026-01-03 18:00"),
        run(Cause::Schedule, "2026-01-03 12:00", 1)
    );
    played.timetable.finished();
    assert_eq!(played.tick("2026-01-03 18:00"), None);
    assert_eq!(played.timetable.skipped(), 0);
}

#[test]
fn jitter_is_spread_over_its_whole_span() {
    let policy = Policy {
        jitter: Duration::from_secs(600),
        ..noon()
    };
    let mut played = Played::start(policy, State::default(), "2026-01-01 00:00");
    let ticks: Vec<_> = (1..=20)
        .flat_map(|day| {
            let [from, to] = ["11:59", "12:20"].map(|time| format!("2026-01-{day:02} {time}"));
            played.play(&from, &to)
        })
        .collect();
    assert_eq!(ticks.len(), 20);
    let delays: Vec<_> = ticks
        .iter()
        .map(|(now, tick)| match tick {
            Tick::Run(Due {
                scheduled: Some(scheduled),
                missed: 0,
                cause: Cause::Schedule,
            }) => (*now - scheduled).num_seconds(),
            other => panic!("{other:?}"),
        })
        .collect();
    // The clock is looked at every 20 seconds.
    assert!(
        delays.iter().all(|delay| (0..=620).contains(delay)),
        "{delays:?}"
    );
    assert!(delays.iter().any(|delay| *delay < 200), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay > 400), "{delays:?}");
}

#[test]
fn an_instant_before_the_run_that_was_put_off_is_one_with_it() {
    let policy = Policy {
        cron: cron("* * * * *"),
        jitter: Duration::from_secs(600),
        ..noon()
    };
    let mut played = Played::start(policy, State::default(), "2026-01-01 00:00");
    let ticks = played.play_every(60, "2026-01-01 00:01", "2026-01-01 06:00");
    let mut before = at("2026-01-01 00:00");
    for (now, tick) in &ticks {
        let Tick::Run(Due {
            scheduled: Some(scheduled),
            missed,
            ..
        }) = tick
        else {
            panic!("{tick:?}");
        };
        // The last that has passed, and all since the run before.
        assert!(
            (0..60).contains(&(*now - scheduled).num_seconds()),
            "{tick:?}"
        );
        assert_eq!((*scheduled - before).num_minutes(), 1 + *missed as i64);
        assert!(*missed <= 10, "{tick:?}");
        before = *scheduled;
    }
    // The jitter is a new one each time: five minutes on average, in six hours.
    assert!((36..120).contains(&ticks.len()), "{}", ticks.len());
}

#[test]
fn what_was_due_during_a_pause_is_not_made_up_for() {
    for ticks in [true, false] {
        let mut played = Played::start(catching_up(), State::default(), "2026-01-01 00:00");
        played.timetable.pause();
        assert_eq!(played.timetable.next(at("2026-01-01 00:00")), None);
        if ticks {
            assert_eq!(played.play("2026-01-01 11:00", "2026-01-01 13:00"), []);
        }
        played.timetable.resume(at("2026-01-02 18:00"));
        assert_eq!(played.timetable.state(), last_due("2026-01-02 12:00"));
        assert_eq!(played.tick("2026-01-02 18:00"), None);
        assert_eq!(
            played.tick("2026-01-03 12:00"),
            run(Cause::Schedule, "2026-01-03 12:00", 0)
        );
    }
}

#[test]
fn a_pause_outlives_the_process() {
    let mut played = Played::start(catching_up(), State::default(), "2026-01-01 00:00");
    played.timetable.pause();
    let policy = Policy {
        run_at_start: true,
        ..catching_up()
    };
    let mut played = Played::start(policy, played.timetable.state(), "2026-01-05 18:00");
    assert_eq!(played.play("2026-01-05 18:00", "2026-01-06 18:00"), []);
    played.timetable.resume(at("2026-01-06 18:00"));
    assert_eq!(played.tick("2026-01-06 18:00"), None);
}

#[test]
fn a_pause_drops_what_was_put_off() {
    let policy = Policy {
        jitter: Duration::from_secs(7200),
        ..catching_up()
    };
    let mut played = Played::start(policy, State::default(), "2026-01-01 00:00");
    assert_eq!(played.tick("2026-01-01 12:00"), None);
    played.timetable.pause();
    played.timetable.resume(at("2026-01-01 12:01"));
    assert_eq!(played.play("2026-01-01 12:01", "2026-01-02 00:00"), []);
}

#[test]
fn a_pause_holds_back_the_run_at_the_start() {
    let policy = Policy {
        run_at_start: true,
        ..noon()
    };
    let mut played = Played::start(policy, State::default(), "2026-01-01 00:00");
    played.timetable.pause();
    assert_eq!(played.tick("2026-01-01 00:00"), None);
}

#[test]
fn a_restart_makes_up_for_all_that_was_missed_by_one_run() {
    let mut played = Played::start(
        catching_up(),
        last_due("2026-01-01 12:00"),
        "2026-01-04 18:00",
    );
    assert_eq!(
        played.tick("2026-01-04 18:00"),
        run(Cause::CatchUp, "2026-01-04 12:00", 2)
    );
    played.timetable.finished();
    let mut again = Played::start(catching_up(), played.timetable.state(), "2026-01-04 19:00");
    assert_eq!(again.play("2026-01-04 19:00", "2026-01-05 11:00"), []);
}

#[test]
fn a_restart_makes_up_for_nothing_where_nothing_was_missed() {
    for state in [
        State::default(),
        last_due("2026-01-04 12:00"),
        last_due("2026-01-09 12:00"),
    ] {
        let mut played = Played::start(catching_up(), state, "2026-01-04 18:00");
        assert_eq!(played.tick("2026-01-04 18:00"), None, "{state:?}");
    }
}

#[test]
fn a_restart_over_an_instant_does_not_lose_it() {
    let policy = Policy {
        jitter: Duration::from_secs(86_400),
        ..noon()
    };
    for policy in [policy, catching_up()] {
        let mut played = Played::start(policy, last_due("2026-01-01 12:00"), "2026-01-02 12:01");
        assert_eq!(
            played.tick("2026-01-02 12:01"),
            run(Cause::Schedule, "2026-01-02 12:00", 0)
        );
    }
}

#[test]
fn a_run_at_the_start_is_not_one_more_than_is_due() {
    let policy = |catch_up| Policy {
        catch_up,
        run_at_start: true,
        ..noon()
    };
    let first = |catch_up, state| {
        let mut played = Played::start(policy(catch_up), state, "2026-01-04 18:00");
        let first = played.tick("2026-01-04 18:00");
        played.timetable.finished();
        assert_eq!(played.tick("2026-01-04 18:00"), None);
        first
    };
    let missed = last_due("2026-01-02 12:00");
    assert_eq!(
        first(true, missed),
        run(Cause::CatchUp, "2026-01-04 12:00", 1)
    );
    assert_eq!(
        first(false, missed),
        Some(Tick::Run(Due {
            scheduled: None,
            missed: 2,
            cause: Cause::Start,
        }))
    );
    for catch_up in [true, false] {
        assert_eq!(first(catch_up, State::default()), run_now(Cause::Start));
        assert_eq!(
            first(catch_up, last_due("2026-01-04 12:00")),
            run_now(Cause::Start)
        );
    }
}

#[test]
fn a_request_runs_at_once_even_during_a_pause() {
    let mut played = Played::start(noon(), State::default(), "2026-01-01 00:00");
    played.timetable.pause();
    assert_eq!(played.timetable.request(), Ok(()));
    assert_eq!(played.timetable.request(), Ok(()));
    assert_eq!(played.tick("2026-01-01 09:00"), run_now(Cause::Request));
    played.timetable.finished();
    assert_eq!(played.tick("2026-01-01 09:00"), None);
}

#[test]
fn a_request_during_a_run_is_refused_or_waits() {
    for (overlap, answer, then) in [
        (Overlap::Skip, Err(AlreadyRunning), None),
        (Overlap::Queue, Ok(()), run_now(Cause::Request)),
    ] {
        let policy = Policy { overlap, ..noon() };
        let mut played = Played::start(policy, State::default(), "2026-01-01 00:00");
        played.timetable.started();
        assert!(played.timetable.is_running());
        assert_eq!(played.timetable.request(), answer);
        assert_eq!(played.tick("2026-01-01 09:00"), None);
        played.timetable.finished();
        assert_eq!(played.tick("2026-01-01 09:00"), then);
    }
}

#[test]
fn another_policy_begins_with_its_next_instant() {
    let mut played = Played::start(
        catching_up(),
        last_due("2026-01-01 12:00"),
        "2026-01-01 13:00",
    );
    let morning = Policy {
        cron: cron("0 9 * * *"),
        ..catching_up()
    };
    played
        .timetable
        .change(morning.clone(), at("2026-01-02 10:00"));
    assert_eq!(played.timetable.policy(), &morning);
    assert_eq!(played.tick("2026-01-02 10:00"), None);
    assert_eq!(played.tick("2026-01-02 12:00"), None);
    assert_eq!(
        played.tick("2026-01-03 09:00"),
        run(Cause::Schedule, "2026-01-03 09:00", 0)
    );
}

#[test]
fn another_policy_with_the_same_instants_loses_none() {
    let mut played = Played::start(noon(), last_due("2026-01-01 12:00"), "2026-01-01 13:00");
    played
        .timetable
        .change(catching_up(), at("2026-01-02 13:00"));
    assert_eq!(
        played.tick("2026-01-02 13:00"),
        run(Cause::CatchUp, "2026-01-02 12:00", 0)
    );
}

#[test]
fn the_next_instant_is_after_all_that_is_done_with() {
    let played = Played::start(noon(), last_due("2026-01-02 12:00"), "2026-01-01 13:00");
    for (now, next) in [
        ("2026-01-01 13:00", "2026-01-03 12:00"),
        ("2026-01-06 12:00", "2026-01-07 12:00"),
    ] {
        assert_eq!(played.timetable.next(at(now)), Some(at(next)));
    }
}

#[test]
fn what_was_dealt_with_under_a_clock_that_was_years_ahead_is_not_believed() {
    let next = |played: &Played, now| played.timetable.next(at(now));
    let played = Played::start(noon(), last_due("2031-01-04 12:00"), "2026-01-01 13:00");
    let tomorrow = Some(at("2026-01-02 12:00"));
    assert_eq!(next(&played, "2026-01-01 13:00"), tomorrow);
    // The same while it goes on: a clock leaps ahead, and is put right.
    let mut played = Played::start(noon(), State::default(), "2026-01-01 11:00");
    assert!(played.tick("2031-01-04 12:00").is_some());
    played.timetable.finished();
    assert_eq!(played.tick("2026-01-01 11:01"), None);
    assert_eq!(
        played.tick("2026-01-01 12:00"),
        run(Cause::Schedule, "2026-01-01 12:00", 0)
    );
}

#[derive(Debug, Clone)]
enum Step {
    /// After so many seconds.
    Tick(i64),
    Started,
    Finished,
    Request,
    Pause,
    Resume,
    Restart,
    Change(Box<Policy>),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => seconds().prop_map(Step::Tick),
        3 => Just(Step::Finished),
        1 => Just(Step::Started),
        1 => Just(Step::Request),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::Restart),
        1 => policies().prop_map(|policy| Step::Change(policy.into())),
    ]
}

/// From a tick to a leap beyond what chrono represents.
fn seconds() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => 0..100_i64,
        20 => -5000..5000_i64,
        20 => -400_000..400_000_i64,
        5 => -400_000_000..400_000_000_i64,
        1 => any::<i64>(),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    (
        prop::sample::select(vec![
            "* * * * * *",
            "*/7 * * * *",
            "30 2 * * *",
            "0 0 1 * *",
        ]),
        zones(),
        prop::sample::select(vec![0, 1, 600, u64::MAX]),
        prop::sample::select(vec![Overlap::Skip, Overlap::Queue]),
        any::<(bool, bool)>(),
    )
        .prop_map(
            |(line, timezone, jitter, overlap, (catch_up, run_at_start))| Policy {
                cron: cron(line),
                timezone,
                jitter: Duration::from_secs(jitter),
                overlap,
                catch_up,
                run_at_start,
            },
        )
}

proptest! {
    #[test]
    fn whatever_happens_no_instant_runs_twice_and_no_run_overlaps(
        policy in policies(),
        start in instants(),
        steps in prop::collection::vec(steps(), 1..60),
    ) {
        let mut now = start;
        let mut policy = policy;
        let mut timetable = Timetable::start(policy.clone(), State::default(), now);
        let mut rng = StdRng::seed_from_u64(7);
        let mut is_running = false;
        let mut last_run = None;
        for step in steps {
            let mut before = timetable.state();
            match step {
                Step::Tick(after) => {
                    let end = if after < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
                    now = TimeDelta::try_seconds(after)
                        .and_then(|after| now.checked_add_signed(after))
                        .unwrap_or(end);
                    if before.last_due.is_some_and(|last| last - now > MOST_BACK) {
                        // It was dealt with under a clock that was wrong.
                        (before.last_due, last_run) = (None, None);
                    }
                    let tick = timetable.tick(now, &mut rng);
                    if let Some(Tick::Run(Due { scheduled, missed, .. })) = tick {
                        prop_assert!(!is_running && missed <= MOST_MISSED);
                        is_running = true;
                        if scheduled.is_some() {
                            prop_assert!(!before.paused);
                            prop_assert!(scheduled > last_run && scheduled <= Some(now));
                            prop_assert_eq!(scheduled, timetable.state().last_due);
                            last_run = scheduled;
                        }
                    }
                }
                Step::Started => {
                    is_running = true;
                    timetable.started();
                }
                Step::Finished => {
                    is_running = false;
                    timetable.finished();
                }
                Step::Request => {
                    let refused = is_running && policy.overlap == Overlap::Skip;
                    prop_assert_eq!(timetable.request().is_err(), refused);
                }
                Step::Pause => timetable.pause(),
                Step::Resume => timetable.resume(now),
                Step::Restart => {
                    is_running = false;
                    timetable = Timetable::start(policy.clone(), before, now);
                    before.last_due = before.last_due.filter(|last| *last - now <= MOST_BACK);
                    last_run = last_run.filter(|last| *last - now <= MOST_BACK);
                }
                Step::Change(other) => {
                    policy = *other;
                    timetable.change(policy.clone(), now);
                }
            }
            prop_assert_eq!(timetable.is_running(), is_running);
            prop_assert!(timetable.state().last_due >= before.last_due);
            let next = timetable.next(now);
            prop_assert!(next.is_none_or(|next| next > now && Some(next) > timetable.state().last_due));
        }
        // Whatever happened, the next instant brings a run.
        timetable.finished();
        timetable.resume(now);
        timetable.change(Policy { jitter: Duration::ZERO, ..policy }, now);
        timetable.tick(now, &mut rng);
        timetable.finished();
        if let Some(next) = timetable.next(now) {
            let tick = timetable.tick(next, &mut rng);
            prop_assert!(
                matches!(tick, Some(Tick::Run(Due { scheduled, .. })) if scheduled == Some(next)),
                "{tick:?}"
            );
        }
    }
}
