//! How much is logged.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use tracing_subscriber::EnvFilter;

/// Levels from silent to all.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `log.level`: a level such as `info`, or a filter such as `info,gannet::fetch=debug` in the syntax of
/// `tracing_subscriber`'s [`EnvFilter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

impl Level {
    /// The filter, without spaces around its commas.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter for `verbosity` steps more, or less where it is negative. More raises gannet's own level, as
    /// what its libraries have to say drowns it; from the third step beyond on, theirs too. Less lowers the level
    /// that stands alone; directives that name a target stay.
    pub(super) fn filter(&self, verbosity: i8) -> EnvFilter {
        let shifted = self.shifted(verbosity);
        // The one tells of its insides at a level at which gannet tells of jobs, the other what the call that it concerns
        // tells too. Who names them later, or wants all, has them.
        let filter = match verbosity {
            ..2 => format!("tokio_cron_scheduler=warn,sqlx_core::pool=off,{shifted}"),
            _ => shifted,
        };
        EnvFilter::builder().parse_lossy(filter)
    }

    fn shifted(&self, verbosity: i8) -> String {
        let directives: Vec<&str> = self.0.split(',').map(str::trim).collect();
        let position = |word: &str| LEVELS.iter().position(|l| l.eq_ignore_ascii_case(word));
        // Without a level that stands alone, everything that no directive names is at `error`.
        let base = directives
            .iter()
            .rev()
            .find_map(|d| position(d))
            .unwrap_or(1);
        let wanted = base as isize + isize::from(verbosity);
        let level = LEVELS[wanted.clamp(0, LEVELS.len() as isize - 1) as usize];
        match verbosity {
            0 => self.0.clone(),
            1.. if wanted > LEVELS.len() as isize => level.to_owned(),
            1.. => format!("{},gannet={level}", self.0),
            _ => {
                let others = directives.into_iter().filter(|d| position(d).is_none());
                others.chain([level]).collect::<Vec<_>>().join(",")
            }
        }
    }
}

impl FromStr for Level {
    type Err = InvalidLevel;

    fn from_str(text: &str) -> Result<Self, InvalidLevel> {
        let invalid = |why: String| InvalidLevel {
            text: text.to_owned(),
            why,
        };
        let directives: Vec<&str> = text.split(',').map(str::trim).collect();
        for directive in &directives {
            // A single word that is no level would name a target, and silence all others.
            let is_level = LEVELS.iter().any(|l| l.eq_ignore_ascii_case(directive));
            if !is_level && !directive.contains(['=', '[', ':', ']', '}']) {
                return Err(invalid(format!("`{directive}` is no level")));
            }
        }
        // Spaces are nothing that the filter's own syntax knows.
        let filter = directives.join(",");
        match EnvFilter::builder().parse(&filter) {
            Ok(_) => Ok(Self(filter)),
            Err(error) => Err(invalid(error.to_string())),
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A text that is no filter for logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no filter: {why}; expected `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,gannet::fetch=debug`"
)]
pub struct InvalidLevel {
    text: String,
    why: String,
}
