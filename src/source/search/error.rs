//! Why a provider brings no more results.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::Query;

/// Why a provider brings no page. The texts go on from its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// So many requests are not allowed.
    #[error("allows no more requests{}; {}", because(.detail), come_back(*.retry_after))]
    Quota {
        /// What it says; may be empty.
        detail: String,
        /// How long to stay away, where that is known.
        retry_after: Option<Duration>,
    },
    /// It takes gannet for a robot that it does not want.
    #[error("does not want to be asked by a program{}; ask it less often, from elsewhere, or ask another provider", because(.detail))]
    Blocked {
        /// How it says so.
        detail: String,
    },
    /// It answered, and nothing could be read of it.
    #[error("answers in a form that is not known{}; please report this as a defect", because(.detail))]
    Changed {
        /// What is missed.
        detail: String,
    },
    /// It does not accept the key.
    #[error("does not accept the key{}", because(.detail))]
    Key {
        /// What it says.
        detail: String,
    },
    /// It is out of reach, or out of order.
    #[error("is out of reach{}{}", because(.detail), retry_after.map(|wait| format!("; {}", come_back(Some(wait)))).unwrap_or_default())]
    Outage {
        /// What happened.
        detail: String,
        /// How long to stay away, where it says so.
        retry_after: Option<Duration>,
        /// Whether another attempt may help.
        is_retriable: bool,
    },
    /// It refuses this query, and perhaps no other.
    #[error("refuses the search{}", because(.detail))]
    Refused {
        /// What it says.
        detail: String,
    },
}

impl SearchError {
    /// Whether other queries may fare better.
    pub fn is_of_query(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// What was said, or happened.
    pub(super) fn detail_mut(&mut self) -> &mut String {
        match self {
            Self::Quota { detail, .. }
            | Self::Blocked { detail }
            | Self::Changed { detail }
            | Self::Key { detail }
            | Self::Outage { detail, .. }
            | Self::Refused { detail } => detail,
        }
    }

    /// The whole sentence.
    pub(super) fn told(&self, provider: &str, query: &Query) -> String {
        match self {
            Self::Key { .. } => {
                format!(
                    "`{provider}` {self}; `search.{provider}.key` has to be one that it gave you"
                )
            }
            Self::Refused { .. } => format!("`{provider}`, asked for `{}`, {self}", query.text),
            _ => format!("`{provider}` {self}"),
        }
    }
}

fn because(detail: &str) -> String {
    match detail {
        "" => String::new(),
        detail => format!(" ({detail})"),
    }
}

/// When to come back, as a span and as an instant, since it is read later.
fn come_back(retry_after: Option<Duration>) -> String {
    let Some(wait) = retry_after else {
        return "it does not say when to come back".to_owned();
    };
    let wait = Duration::from_secs(wait.as_secs().max(1));
    let at: Option<DateTime<Utc>> = TimeDelta::from_std(wait)
        .ok()
        .and_then(|wait| Utc::now().checked_add_signed(wait));
    let span = humantime::format_duration(wait);
    match at {
        Some(at) => format!(
            "come back in {span}, at {}",
            at.to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
        None => format!("come back in {span}"),
    }
}
