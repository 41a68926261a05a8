//! robots.txt (RFC 9309).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use texting_robots::Robot;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use super::client::Client;
use super::error::FetchError;

/// How long rules are kept, RFC 9309 section 2.4.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// How long an origin whose rules cannot be had is left alone before they are asked for again.
const KEEP_UNREACHABLE: Duration = Duration::from_secs(10 * 60);

/// What is read of a robots.txt, RFC 9309 section 2.5; the rest is as if it were not there.
const MAX_BYTES: usize = 500 * 1024;

/// Redirects that are followed, RFC 9309 section 2.3.1.2.
const REDIRECTS: u32 = 5;

/// Origins that are remembered.
const MAX_ORIGINS: usize = 4096;

/// The rules of origins, each read once a day.
#[derive(Debug, Default)]
pub struct Robots {
    /// Held for look-ups only, never while an origin is asked.
    origins: Mutex<HashMap<String, Slot>>,
}

#[derive(Debug, Clone)]
struct Slot {
    /// Filled by the first who asks; the others wait for it.
    rules: Arc<OnceCell<(Rules, Instant)>>,
    used: Instant,
}

enum Rules {
    All,
    Nothing,
    Some(Box<Robot>),
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Nothing => "Nothing",
            Self::Some(_) => "Some",
        })
    }
}

impl Robots {
    /// Whether the origin of `url` lets this client ask for it.
    ///
    /// An origin without a robots.txt (any 4xx) allows all; one that answers 5xx or 429, or breaks off,
    /// allows nothing for a while.
    ///
    /// # Errors
    ///
    /// When no connection came about, or none is permitted: that says nothing about rules, and is what the
    /// request for `url` would have met as well.
    pub async fn allows(&self, client: &Client, url: &Url) -> Result<bool, FetchError> {
        let slot = self.slot(&url.origin().ascii_serialization());
        let (rules, _) = slot
            .rules
            .get_or_try_init(|| async {
                let rules = ask(client, url).await?;
                let keep = if matches!(rules, Rules::Nothing) {
                    KEEP_UNREACHABLE
                } else {
                    KEEP
                };
                Ok((rules, Instant::now() + keep))
            })
            .await?;
        Ok(match rules {
            Rules::All => true,
            Rules::Nothing => false,
            // The path and query are what rules speak of.
            Rules::Some(robot) => {
                robot.allowed(&url[url::Position::BeforePath..url::Position::AfterQuery])
            }
        })
    }

    fn slot(&self, origin: &str) -> Slot {
        let now = Instant::now();
        // A panic elsewhere leaves the map whole: it is only changed by single calls.
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = origins.get_mut(origin)
            && slot.rules.get().is_none_or(|(_, until)| now < *until)
        {
            slot.used = now;
            return slot.clone();
        }
        if origins.len() >= MAX_ORIGINS {
            // Half at a time, so that the search for the oldest is rare.
            let mut uses: Vec<_> = origins.values().map(|slot| slot.used).collect();
            let (_, median, _) = uses.select_nth_unstable(MAX_ORIGINS / 2);
            let median = *median;
            origins.retain(|_, slot| slot.used > median);
        }
        let slot = Slot {
            rules: Arc::default(),
            used: now,
        };
        origins.insert(origin.to_owned(), slot.clone());
        slot
    }
}

async fn ask(client: &Client, url: &Url) -> Result<Rules, FetchError> {
    let mut robots = url.clone();
    robots.set_path("/robots.txt");
    robots.set_query(None);
    robots.set_fragment(None);
    let rules = match read(client, &robots).await {
        Ok(text) => match Robot::new(client.agent(), &text) {
            Ok(robot) => Rules::Some(Box::new(robot)),
            // What cannot be read has no rules, RFC 9309 section 2.3.1.5.
            Err(_) => Rules::All,
        },
        Err(FetchError::Status {
            status: 400..=428 | 430..=499,
            ..
        }) => Rules::All,
        // More redirects than are followed: as if there were none, RFC 9309 section 2.3.1.2.
        Err(FetchError::Redirects { .. }) => Rules::All,
        Err(error) if error.is_connect() || matches!(error, FetchError::Denied { .. }) => {
            return Err(error);
        }
        Err(error) => {
            tracing::debug!(
                url.host = url.host_str(),
                "no robots.txt, so nothing is asked there for a while: {error}"
            );
            Rules::Nothing
        }
    };
    Ok(rules)
}

async fn read(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut response = client
        .follow(url, "text/plain, */*;q=0.1", u64::MAX, REDIRECTS)
        .await?;
    let mut text = Vec::new();
    while text.len() < MAX_BYTES
        && let Some(chunk) = response.chunk().await?
    {
        text.extend_from_slice(&chunk);
    }
    text.truncate(MAX_BYTES);
    Ok(text)
}
