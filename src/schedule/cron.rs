//! Cron lines, and the instants that they name.

use std::fmt;
use std::str::FromStr;

use chrono::offset::LocalResult;
use chrono::{DateTime, Datelike as _, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::YEAR_UPPER_LIMIT;
use croner::parser::{CronParser, Year};
use serde::{Deserialize, Deserializer};

/// A crontab's line: five fields, six with seconds first, or a name such as `@daily`.
///
/// The fields are those of crontab(5): minute, hour, day of month, month, day of week, with lists, ranges,
/// steps and names. Sunday is 0 and 7. Where neither the day of month nor the day of week begins with `*`,
/// a day that either of them names is meant. Beyond crontab(5): `L` is the last day of the month, `5L` its
/// last Friday, `5#2` its second Friday, `15W` the weekday closest to its 15th.
#[derive(Clone, PartialEq)]
pub struct Cron {
    text: String,
    line: croner::Cron,
}

/// Why a text is no cron line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCron {
    /// Not as many fields as a cron line has.
    #[error(
        "a cron line has five fields (minute, hour, day of month, month, day of week), or six with \
         seconds first, but not {0}"
    )]
    Fields(usize),
    /// A name that stands for no line.
    #[error(
        "`{0}` is not known; the names are `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, \
         `@midnight` and `@hourly`"
    )]
    Name(String),
    /// A field that cannot be understood.
    #[error(
        "`{text}` is no {field}: allowed are `*`, {allowed}, and of these lists (`1,3`), ranges (`1-3`) \
         and steps (`*/2`)"
    )]
    Field {
        /// What it stands for.
        field: &'static str,
        /// The field as written.
        text: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// It names no day that ever comes, like February 30th.
    #[error("no such day ever comes")]
    Never,
}

struct Field {
    name: &'static str,
    allowed: &'static str,
    names: &'static [&'static str],
    suffixes: &'static [char],
}

const FIELDS: [Field; 6] = [
    Field {
        name: "second",
        allowed: "0 to 59",
        names: &[],
        suffixes: &[],
    },
    Field {
        name: "minute",
        allowed: "0 to 59",
        names: &[],
        suffixes: &[],
    },
    Field {
        name: "hour",
        allowed: "0 to 23",
        names: &[],
        suffixes: &[],
    },
    Field {
        name: "day of month",
        allowed: "1 to 31, `L` (the last), `15W` (the weekday closest to it)",
        names: &["?", "L"],
        suffixes: &['W'],
    },
    Field {
        name: "month",
        allowed: "1 to 12, `JAN` to `DEC`",
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
        suffixes: &[],
    },
    Field {
        name: "day of week",
        allowed: "0 to 7 (0 and 7 are Sunday), `SUN` to `SAT`, `5#2` (the month's second Friday), `5L` (its last)",
        names: &["?", "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        suffixes: &['L'],
    },
];

impl Field {
    /// Whether `text` is made of what may stand here. croner passes over empty elements of a list, and takes
    /// names for numbers in any field.
    fn accepts(&self, text: &str) -> bool {
        text.split([',', '-', '/', '#'])
            .all(|atom| self.accepts_atom(atom))
    }

    fn accepts_atom(&self, atom: &str) -> bool {
        let stem = atom.strip_suffix(self.suffixes).unwrap_or(atom);
        let is_number = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
        is_number || atom == "*" || self.names.contains(&stem)
    }
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let written = text.trim().to_ascii_uppercase();
        let fields = match written.as_str() {
            "@YEARLY" | "@ANNUALLY" => "0 0 0 1 1 *",
            "@MONTHLY" => "0 0 0 1 * *",
            "@WEEKLY" => "0 0 0 * * 0",
            "@DAILY" | "@MIDNIGHT" => "0 0 0 * * *",
            "@HOURLY" => "0 0 * * * *",
            name if name.starts_with('@') => return Err(InvalidCron::Name(text.trim().into())),
            line => line,
        };
        let mut fields: Vec<&str> = fields.split_whitespace().collect();
        if fields.len() == FIELDS.len() - 1 {
            fields.insert(0, "0");
        }
        let Ok(mut fields) = <[&str; FIELDS.len()]>::try_from(fields.as_slice()) else {
            return Err(InvalidCron::Fields(fields.len()));
        };
        // croner takes 7 for Sunday, but for `7L`.
        let day_of_week = fields[5].replace("7L", "0L");
        fields[5] = &day_of_week;
        let invalid = |at: usize| InvalidCron::Field {
            field: FIELDS[at].name,
            text: fields[at].into(),
            allowed: FIELDS[at].allowed,
        };
        if let Some(at) = (0..fields.len()).find(|at| !FIELDS[*at].accepts(fields[*at])) {
            return Err(invalid(at));
        }
        let cron = Self {
            text: text.into(),
            line: parse(fields).map_err(|_| invalid(at_fault(fields)))?,
        };
        if cron.next_after(DateTime::UNIX_EPOCH, Tz::UTC).is_none() {
            return Err(InvalidCron::Never);
        }
        Ok(cron)
    }
}

fn parse(fields: [&str; FIELDS.len()]) -> Result<croner::Cron, croner::errors::CronError> {
    // crontab(5) takes a day field that begins with `*` for unrestricted, croner only `*` itself.
    let is_free = |field: &str| field.starts_with(['*', '?']);
    CronParser::builder()
        .year(Year::Disallowed)
        .dom_and_dow(is_free(fields[3]) || is_free(fields[5]))
        .build()
        .parse(&fields.join(" "))
}

/// The field for which croner does not take the line.
fn at_fault(fields: [&str; FIELDS.len()]) -> usize {
    let is_at_fault = |at: &usize| {
        let mut line = ["*"; FIELDS.len()];
        line[*at] = fields[*at];
        parse(line).is_err()
    };
    (0..fields.len()).find(is_at_fault).unwrap_or_default()
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Cron {
    /// The first instant later than `after` that clocks in `tz` show as a time of this line, or as the
    /// [room](super) says for times that they do not show, or show twice.
    ///
    /// Always a whole second, not before 1970. `None`: none before the year 5000.
    pub fn next_after(&self, after: DateTime<Utc>, tz: Tz) -> Option<DateTime<Utc>> {
        // Beyond these years, clocks in `tz` may show what chrono cannot represent.
        if after.year() >= YEAR_UPPER_LIMIT {
            return None;
        }
        let after = DateTime::from_timestamp(after.timestamp().max(0), 0)?;
        if self.line.pattern.hours.from_wildcard {
            self.next_shown(after, tz)
        } else {
            let wall = after.with_timezone(&tz).naive_local();
            self.walls_after(wall)
                .filter_map(|wall| first_instant(wall, tz))
                .find(|instant| *instant > after)
        }
    }

    /// The instants later than `after`, as [`Cron::next_after`] has them, in order.
    pub fn iter_after(
        &self,
        after: DateTime<Utc>,
        tz: Tz,
    ) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(self.next_after(after, tz), move |last| {
            self.next_after(*last, tz)
        })
    }

    /// The first instant later than `after` at which clocks in `tz` show a time of this line.
    fn next_shown(&self, after: DateTime<Utc>, tz: Tz) -> Option<DateTime<Utc>> {
        let later = |instant: &DateTime<Tz>| *instant > after;
        let wall = after.with_timezone(&tz).naive_local();
        let next = self
            .walls_after(wall)
            .find_map(|wall| match tz.from_local_datetime(&wall) {
                LocalResult::None => None,
                LocalResult::Single(instant) => Some(instant),
                LocalResult::Ambiguous(first, second) => {
                    Some(if later(&first) { first } else { second })
                }
            });
        let again = match tz.from_local_datetime(&wall) {
            // What was shown within the last `second - first` is shown once more, up to `wall` and on.
            LocalResult::Ambiguous(first, second) if first == after => self
                .walls_after(wall - (second - first))
                .filter_map(|wall| tz.from_local_datetime(&wall).latest())
                .find(later),
            _ => None,
        };
        next.into_iter()
            .chain(again)
            .min()
            .map(|instant| instant.to_utc())
    }

    /// The times of this line later than `wall`, a whole second, by a clock that is never put forward or
    /// back; in order.
    fn walls_after(&self, wall: NaiveDateTime) -> impl Iterator<Item = NaiveDateTime> + '_ {
        let after = |wall: NaiveDateTime| {
            let next = self.line.find_next_occurrence(&wall.and_utc(), false);
            next.ok().map(|next| next.naive_utc())
        };
        std::iter::successors(after(wall), move |last| after(*last))
    }
}

/// When clocks in `tz` first show `wall`; where they leap over it, when they do.
fn first_instant(wall: NaiveDateTime, tz: Tz) -> Option<DateTime<Utc>> {
    tz.from_local_datetime(&wall)
        .earliest()
        .or_else(|| GapInfo::new(&wall, &tz)?.end)
        .map(|instant| instant.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(text: &str) -> InvalidCron {
        text.parse::<Cron>().unwrap_err()
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (text, field, part) in [
            ("60 * * * *", "minute", "60"),
            ("* 24 * * *", "hour", "24"),
            ("* * 0 * *", "day of month", "0"),
            ("* * 32 * *", "day of month", "32"),
            ("* * * 13 *", "month", "13"),
            ("* * * * 8", "day of week", "8"),
            ("60 * * * * *", "second", "60"),
            ("* * 5-3 * *", "day of month", "5-3"),
            ("*/0 * * * *", "minute", "*/0"),
            ("1, * * * *", "minute", "1,"),
            (", * * * *", "minute", ","),
            ("1-2-3 * * * *", "minute", "1-2-3"),
            ("-1 * * * *", "minute", "-1"),
            ("mon * * * *", "minute", "MON"),
            ("* * * MON *", "month", "MON"),
            ("* * * * JAN", "day of week", "JAN"),
            ("* * * 1JAN *", "month", "1JAN"),
            ("* * * * MONDAY", "day of week", "MONDAY"),
            ("* * * * L", "day of week", "L"),
            ("* * * * 1#6", "day of week", "1#6"),
            ("* * W * *", "day of month", "W"),
            ("* * ü * *", "day of month", "ü"),
        ] {
            let error = invalid(text);
            assert!(
                matches!(&error, InvalidCron::Field { field: f, text: t, .. } if *f == field && t == part),
                "{text}: {error}"
            );
        }
        assert_eq!(
            invalid("5 24 * * *").to_string(),
            "`24` is no hour: allowed are `*`, 0 to 23, and of these lists (`1,3`), ranges (`1-3`) and steps (`*/2`)"
        );
    }

    #[test]
    fn a_line_has_five_fields_or_six() {
        for (text, count) in [("", 0), (" ", 0), ("* * * *", 4), ("* * * * * * 2026", 7)] {
            assert_eq!(invalid(text), InvalidCron::Fields(count));
        }
    }

    #[test]
    fn only_some_names_are_known() {
        for text in ["@reboot", "@every 90s", "@", "@daily *"] {
            assert_eq!(invalid(text), InvalidCron::Name(text.into()));
        }
    }

    #[test]
    fn a_line_that_never_comes_is_refused() {
        for text in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2 */1"] {
            assert_eq!(invalid(text), InvalidCron::Never, "{text}");
        }
    }

    #[test]
    fn a_line_is_shown_as_it_was_written() {
        let text = "*/5  9-17 * jan-Mar MON";
        assert_eq!(text.parse::<Cron>().unwrap().to_string(), text);
        assert_eq!("@Daily".parse::<Cron>().unwrap().to_string(), "@Daily");
    }
}
