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
    Some(Box<Robot>),
    /// Nobody knows: they could not be had.
    Unknown(Arc<FetchError>),
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Some(_) => "Some",
            Self::Unknown(_) => "Unknown",
        })
    }
}

impl Robots {
    /// Whether the origin of `url` lets this client ask for it.
    ///
    /// An origin without a robots.txt (any 4xx but 429) allows all.
    ///
    /// # Errors
    ///
    /// [`FetchError::NoRules`] when robots.txt cannot be had: the origin answers 5xx or 429, breaks off, or cannot
    /// be reached. Nothing may be asked there then, RFC 9309 section 2.3.1.4. Whoever asks later, asks anew.
    pub async fn allows(&self, client: &Client, url: &Url) -> Result<bool, FetchError> {
        let slot = self.slot(&url.origin().ascii_serialization());
        let (rules, _) = slot
            .rules
            .get_or_init(|| async {
                let rules = ask(client, url).await;
                // A fault is the answer to those who waited for it, and to nobody else.
                let keep = match rules {
                    Rules::Unknown(_) => Duration::ZERO,
                    Rules::All | Rules::Some(_) => KEEP,
                };
                (rules, Instant::now() + keep)
            })
            .await;
        match rules {
            Rules::All => Ok(true),
            // The path and query are what rules speak of.
            Rules::Some(robot) => {
                Ok(robot.allowed(&url[url::Position::BeforePath..url::Position::AfterQuery]))
            }
            Rules::Unknown(source) => Err(FetchError::NoRules {
                host: url.host_str().unwrap_or_default().to_owned(),
                source: source.clone(),
            }),
        }
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

async fn ask(client: &Client, url: &Url) -> Rules {
    let mut robots = url.clone();
    robots.set_path("/robots.txt");
    robots.set_query(None);
    robots.set_fragment(None);
    match read(client, &robots).await {
        Ok(text) => match Robot::new(client.agent(url), &text) {
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
        Err(error) => Rules::Unknown(Arc::new(error)),
    }
}

async fn read(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut response = client
        .follow(url, "text/plain, */*;q=0.1", u64::MAX, REDIRECTS, None)
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
