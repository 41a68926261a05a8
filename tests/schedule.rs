//! When schedules are due: cron lines on days with daylight saving, and the policy for what was missed.

use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::{America::New_York, Australia::Lord_Howe, Europe::Berlin, Tz};
use gannet::schedule::Cron;
use proptest::prelude::*;

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
    (changes, -10_000..10_000_i64)
        .prop_map(|(change, by)| at(change) + chrono::TimeDelta::seconds(by))
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
        line in prop::sample::select(vec!["*/7 * * * *", "30 1-3 * * *", "*/9 */2 * * *", "20 */5 1,2 * * *", "0 0 3 * * *"]),
    ) {
        let line = cron(line);
        let other = one + chrono::TimeDelta::seconds(by);
        let (next, later) = (line.next_after(one, tz).unwrap(), line.next_after(other, tz).unwrap());
        prop_assert!(next > one);
        // Either nothing came between the two, or what did is not later than the other.
        prop_assert!(next == later || next <= other, "{next} {later}");
    }
}
