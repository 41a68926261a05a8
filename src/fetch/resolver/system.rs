//! The system's configuration of name resolution, reloaded when its files change.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::conf::{Conf, Environment};
use super::hosts::Hosts;
use super::lookup::Lookups;
use super::servers::Servers;
use super::services::{self, Service, Step};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";

/// Least time between two checks of the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The configuration files and the latest snapshot of them.
#[derive(Debug)]
pub(super) struct System {
    connect_timeout: Duration,
    /// Held for short sections, and while the files are read.
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    looked: Instant,
    hosts: Followed,
    /// `None` if the settings name the servers.
    resolv_conf: Option<Followed>,
    nsswitch_conf: Followed,
    snapshot: Arc<Snapshot>,
}

/// The contents of the files, with the look-ups made under them.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The services in the order in which they are asked.
    pub(super) services: Arc<[Step]>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) lookups: Lookups,
}

impl Snapshot {
    pub(super) fn conf(&self) -> &Conf {
        self.lookups.servers().conf()
    }
}

impl System {
    /// Missing and unreadable files count as empty: names may not resolve then, but addresses need no resolver.
    pub(super) fn new(servers: &[SocketAddr], connect_timeout: Duration) -> Self {
        let mut hosts = Followed::new(HOSTS);
        let mut nsswitch_conf = Followed::new(NSSWITCH_CONF);
        let mut resolv_conf = servers.is_empty().then(|| Followed::new(RESOLV_CONF));
        let conf = match &mut resolv_conf {
            Some(file) => parse_conf(&file.new_contents().unwrap_or_default()),
            None => Conf::with_servers(servers.to_vec()),
        };
        let services = nsswitch_conf.new_contents().unwrap_or_default();
        let snapshot = Snapshot {
            services: parse_services(&services, resolv_conf.is_none()),
            hosts: Arc::new(Hosts::parse(&hosts.new_contents().unwrap_or_default())),
            lookups: Lookups::new(Servers::new(conf, connect_timeout)),
        };
        Self {
            connect_timeout,
            latest: Mutex::new(Latest {
                looked: Instant::now(),
                hosts,
                resolv_conf,
                nsswitch_conf,
                snapshot: Arc::new(snapshot),
            }),
        }
    }

    /// Returns the current snapshot. It caches nothing that was looked up under an earlier version of the files.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.looked.elapsed() >= LOOK_EVERY {
            latest.looked = Instant::now();
            let hosts = latest.hosts.new_contents();
            let resolv_conf = latest.resolv_conf.as_mut().and_then(Followed::new_contents);
            let services = latest.nsswitch_conf.new_contents();
            if hosts.is_some() || resolv_conf.is_some() || services.is_some() {
                tracing::debug!(
                    "`{HOSTS}`, `{RESOLV_CONF}` or `{NSSWITCH_CONF}` has changed, and is read again"
                );
                let conf = match resolv_conf {
                    Some(text) => parse_conf(&text),
                    None => latest.snapshot.conf().clone(),
                };
                let services = match services {
                    Some(text) => parse_services(&text, latest.resolv_conf.is_none()),
                    None => latest.snapshot.services.clone(),
                };
                latest.snapshot = Arc::new(Snapshot {
                    services,
                    hosts: match hosts {
                        Some(text) => Arc::new(Hosts::parse(&text)),
                        None => latest.snapshot.hosts.clone(),
                    },
                    lookups: Lookups::new(Servers::new(conf, self.connect_timeout)),
                });
            }
        }
        latest.snapshot.clone()
    }
}

fn parse_conf(text: &[u8]) -> Conf {
    Conf::parse(text, &Environment::of_this_process())
}

/// Name servers that the settings name, `has_own_servers`, are asked even if the file does not say so.
fn parse_services(text: &[u8], has_own_servers: bool) -> Arc<[Step]> {
    let mut steps = services::parse(text);
    if has_own_servers && steps.iter().all(|step| step.service != Service::Dns) {
        steps.push(Step::new(Service::Dns));
    }
    steps.into()
}

/// A file that is read again after each change.
#[derive(Debug)]
struct Followed {
    path: PathBuf,
    /// Stamp of the version read last; `None` before the first read.
    read: Option<Option<Stamp>>,
    /// Stamp of the last version that could not be read.
    unreadable: Option<Option<Stamp>>,
}

impl Followed {
    fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read: None,
            unreadable: None,
        }
    }

    /// Returns the contents if they have changed since the last read. A missing file is empty. An unreadable file counts
    /// as unchanged and is tried again by the next call: the cause may pass, such as a lack of file descriptors.
    fn new_contents(&mut self) -> Option<Vec<u8>> {
        // Taken before reading, so that a change meanwhile is seen the next time.
        let stamp = stamp(&self.path);
        if self.read == Some(stamp) {
            return None;
        }
        let contents = match fs::read(&self.path) {
            Ok(contents) => contents,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                if self.unreadable != Some(stamp) {
                    tracing::warn!("cannot read `{}`: {error}", self.path.display());
                    self.unreadable = Some(stamp);
                }
                return None;
            }
        };
        self.read = Some(stamp);
        Some(contents)
    }
}

/// Device, inode, size, and the times of the last change of the contents and of the inode.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Returns `None` if there is no such file. Follows links.
fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.size(),
        (meta.mtime(), meta.mtime_nsec()),
        (meta.ctime(), meta.ctime_nsec()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_changed_replaced_or_removed_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        assert_eq!(stamp(&path), None);
        fs::write(&path, "a").unwrap();
        let first = stamp(&path);
        assert!(first.is_some());
        assert_eq!(stamp(&path), first);
        fs::write(&path, "ab").unwrap();
        let second = stamp(&path);
        assert_ne!(second, first);
        fs::write(folder.path().join("new"), "ab").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(stamp(&path), second);
        fs::remove_file(&path).unwrap();
        assert_eq!(stamp(&path), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_tried_again_and_leaves_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let mut file = Followed::new(&path);
        assert_eq!(file.new_contents(), Some(Vec::new()));
        assert_eq!(file.new_contents(), None);
        fs::write(&path, "a").unwrap();
        assert_eq!(file.new_contents(), Some(b"a".to_vec()));
        assert_eq!(file.new_contents(), None);
        // Nobody can read a folder.
        let away = folder.path().join("away");
        fs::rename(&path, &away).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(file.new_contents(), None);
        fs::remove_dir(&path).unwrap();
        assert_eq!(file.new_contents(), Some(Vec::new()));
        fs::write(&away, "ab").unwrap();
        fs::rename(&away, &path).unwrap();
        assert_eq!(file.new_contents(), Some(b"ab".to_vec()));
    }
}
