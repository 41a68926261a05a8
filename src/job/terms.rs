//! The settings that a job runs by, and what is made of them.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use url::Url;

use super::{Retention, Settings, Setup};
use crate::downloader::Registry;
use crate::fetch::{self, Client, SetupError};
use crate::frontier::Limits;
use crate::naming;
use crate::source::search::Search;
use crate::source::{ListEncoding, Reader, Shelf};

/// The settings that a job runs by, from its first target to its last. Jobs of one process may have different ones.
pub struct Terms {
    pub(super) job: Settings,
    pub(super) naming: naming::Settings,
    pub(super) retention: Retention,
    pub(super) registry: Registry,
    pub(super) client: Arc<Client>,
    lists: Reader,
    list_encoding: Option<ListEncoding>,
    /// Reaches the providers of searches, which may be where lists and targets may not.
    asking: Arc<Client>,
    search: Arc<Search>,
    /// Whose settings say how a host may be asked: those of `client`, until they are replaced.
    pace: RwLock<Arc<Client>>,
}

impl Terms {
    /// Terms with a client of their own.
    ///
    /// # Errors
    ///
    /// When the client cannot be set up.
    pub fn new(config: Setup<'_>, registry: Registry) -> Result<Arc<Self>, SetupError> {
        let client = Arc::new(Client::with_proxies(
            config.fetch,
            config.hosts,
            config.proxies,
        )?);
        let asking = match reaches_further(config) {
            Some(fetch) => Arc::new(client.beside(&fetch, None)?),
            None => client.clone(),
        };
        let search = Search::new(config.search, config.fetch, asking.clone());
        Ok(Self::with_client(config, registry, client, asking, search))
    }

    /// Terms that share connections with `self`, as far as they connect in the same way, and what it read of the files that
    /// `[fetch]` names.
    ///
    /// # Errors
    ///
    /// When the client cannot be set up.
    pub fn with_settings(
        &self,
        config: Setup<'_>,
        registry: Registry,
    ) -> Result<Arc<Self>, SetupError> {
        let client = self
            .client
            .with_settings(config.fetch, config.hosts, config.proxies)?;
        self.again(config, registry, client)
    }

    /// The same, but reads all these files.
    ///
    /// # Errors
    ///
    /// When the client cannot be set up.
    pub fn reloaded(&self, config: Setup<'_>, registry: Registry) -> Result<Arc<Self>, SetupError> {
        let client = self
            .client
            .reloaded(config.fetch, config.hosts, config.proxies)?;
        self.again(config, registry, client)
    }

    fn again(
        &self,
        config: Setup<'_>,
        registry: Registry,
        client: Client,
    ) -> Result<Arc<Self>, SetupError> {
        let client = Arc::new(client);
        let asking = match reaches_further(config) {
            Some(fetch) => Arc::new(client.beside(&fetch, Some(&self.asking))?),
            None => client.clone(),
        };
        let search = (self.search).with_settings(config.search, config.fetch, asking.clone());
        Ok(Self::with_client(config, registry, client, asking, search))
    }

    /// Terms that share the connections of `client`, which was made by the same settings.
    fn with_client(
        config: Setup<'_>,
        registry: Registry,
        client: Arc<Client>,
        asking: Arc<Client>,
        search: Search,
    ) -> Arc<Self> {
        let search = Arc::new(search);
        Arc::new(Self {
            job: config.job.clone(),
            naming: config.naming.clone(),
            retention: config.retention.clone(),
            registry,
            lists: Reader {
                fetch: client.clone(),
                shelf: Some(Shelf::new(config.storage.lists())),
                max_bytes: config.source.max_bytes.as_u64(),
                search: Some(search.clone()),
            },
            list_encoding: config.source.encoding,
            asking,
            search,
            pace: RwLock::new(client.clone()),
            client,
        })
    }

    /// Returns the default encoding of lists, or `None` to detect it.
    pub fn list_encoding(&self) -> Option<ListEncoding> {
        self.list_encoding
    }

    /// How remote lists are read: by the same client, under the same guard, with copies in the store. And what searches
    /// need.
    pub fn lists(&self) -> &Reader {
        &self.lists
    }

    /// The kinds of files there are.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the group that the host of `url` belongs to, if any.
    pub(super) fn group_of(&self, url: &Url) -> Option<String> {
        let pace = self.pace.read().unwrap_or_else(PoisonError::into_inner);
        pace.hosts().group(url.host_str()?).map(str::to_owned)
    }

    /// Returns the limits of a lane. Its name is a host, with or without a port, or a group in `[hosts]`.
    pub(super) fn limits(&self, lane: &str) -> Limits {
        let host = match lane.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
            _ => lane,
        };
        let pace = self.pace.read().unwrap_or_else(PoisonError::into_inner);
        let (fetch, settings) = (pace.settings(), pace.settings_of_host(host));
        // `robots` of a job does not change with a reload.
        let own = &self.client;
        let respects_robots =
            own.settings_of_host(host).robots() || own.hosts().any_respects_robots(host);
        Limits {
            concurrency: settings.concurrency().get(),
            interval: interval(settings.rate()),
            // The lane knows delays from other jobs.
            crawl_delay_max: match respects_robots {
                true => settings.crawl_delay_max(),
                false => Duration::ZERO,
            },
            // No host lives to see so many rounds of faults.
            down_after: match fetch.host_down_after {
                0 => u32::MAX,
                rounds => rounds,
            },
            down_for: fetch.host_down_for,
        }
    }

    /// Applies the bandwidth limits of these settings to all jobs of the process.
    pub fn apply_bandwidth(&self) {
        self.client.apply_bandwidth();
    }

    /// Goes by the limits of `other` from now on.
    pub(super) fn adopt_limits(&self, other: &Self) {
        let pace = other.pace.read().unwrap_or_else(PoisonError::into_inner);
        *self.pace.write().unwrap_or_else(PoisonError::into_inner) = pace.clone();
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

/// `[fetch]` for the providers of searches, where `[search]` lets them be in more networks: only the settings say where
/// they are. Lists of proxies and proxies stay where `[fetch]` lets them be.
fn reaches_further(config: Setup<'_>) -> Option<fetch::Settings> {
    let further = config.search.private_networks && !config.fetch.private_networks;
    further.then(|| fetch::Settings {
        private_networks: true,
        ..config.fetch.clone()
    })
}

/// Time between the starts of two requests at `rate` a second; 0 is no limit.
fn interval(rate: f64) -> Duration {
    /// Longer is as good as for ever, and too long overflows the clock.
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    if rate > 0.0 {
        Duration::try_from_secs_f64(1.0 / rate).map_or(LONGEST, |time| time.min(LONGEST))
    } else {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_rate_beyond_all_measure_is_a_long_wait_and_no_panic() {
        assert_eq!(interval(0.0), Duration::ZERO);
        assert_eq!(interval(0.5), Duration::from_secs(2));
        assert_eq!(interval(f64::MAX), Duration::ZERO);
        for rate in [1e-9, 1e-30, f64::MIN_POSITIVE] {
            assert_eq!(interval(rate), Duration::from_secs(366 * 24 * 3600));
        }
    }

    #[tokio::test]
    async fn a_crawl_delay_counts_only_where_robots_are_respected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gannet.toml");
        let terms = |respects: bool| {
            let file = format!(
                "[fetch]\nrobots = {respects}\ncrawl_delay_max = \"9s\"\n\
                 [hosts.\"on.example\"]\nrobots = true\n[hosts.\"off.example\"]\nrobots = false\n\
                 [hosts.\"group.example\"]\nshared = [\"*.group.example\"]\n\
                 [hosts.\"on.group.example\"]\nrobots = true\n\
                 [hosts.\"*.rest.example\"]\nshared = true\n[hosts.\"off.rest.example\"]\nrobots = false\n"
            );
            std::fs::write(&path, file).unwrap();
            let config = Config::load(Some(&path), std::iter::empty(), &[]).unwrap();
            let registry = crate::downloader::builtin(&config.config.image);
            Terms::new(config.config.setup(), registry).unwrap()
        };
        let (with, without) = (terms(true), terms(false));
        let max = |terms: &Terms, lane| terms.limits(lane).crawl_delay_max.as_secs();
        for (lane, expected) in [
            ("a.example", (9, 0)),
            ("a.example:8080", (9, 0)),
            ("on.example", (9, 9)),
            ("off.example:8080", (0, 0)),
            ("group.example", (9, 9)),
            ("*.rest.example", (9, 0)),
        ] {
            assert_eq!((max(&with, lane), max(&without, lane)), expected, "{lane}");
        }
        // A reload changes the limits, and not whether the job respects robots.
        without.adopt_limits(&with);
        assert_eq!(max(&without, "a.example"), 0);
    }
}
