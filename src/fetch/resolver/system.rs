//! The system's configuration of name resolution, reloaded when its files change.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::conf::{Conf, Environment};
use super::hosts::Hosts;
use super::lookup::Lookups;
use super::servers::Servers;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Least time between two checks of the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The configuration files and the latest snapshot of them.
#[derive(Debug)]
pub(super) struct System {
    /// Servers that replace those of resolv.conf, if not empty.
    servers: Vec<SocketAddr>,
    connect_timeout: Duration,
    /// Held for short sections, and while the files are read.
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    looked: Instant,
    stamps: Stamps,
    snapshot: Arc<Snapshot>,
}

/// The contents of the files, with the look-ups made under them.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) hosts: Hosts,
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
        let stamps = Stamps::now();
        Self {
            servers: servers.to_vec(),
            connect_timeout,
            latest: Mutex::new(Latest {
                looked: Instant::now(),
                stamps,
                snapshot: Arc::new(read(servers, connect_timeout)),
            }),
        }
    }

    /// Returns the current snapshot. It caches nothing that was looked up under an earlier version of the files.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.looked.elapsed() >= LOOK_EVERY {
            latest.looked = Instant::now();
            // Taken before reading, so that a change meanwhile is seen the next time.
            let stamps = Stamps::now();
            if stamps != latest.stamps {
                tracing::debug!("`{HOSTS}` or `{RESOLV_CONF}` has changed, and is read again");
                latest.stamps = stamps;
                latest.snapshot = Arc::new(read(&self.servers, self.connect_timeout));
            }
        }
        latest.snapshot.clone()
    }
}

fn read(servers: &[SocketAddr], connect_timeout: Duration) -> Snapshot {
    let conf = match servers {
        [] => Conf::parse(&contents(RESOLV_CONF), &Environment::of_this_process()),
        servers => Conf::with_servers(servers.to_vec()),
    };
    Snapshot {
        hosts: Hosts::parse(&contents(HOSTS)),
        lookups: Lookups::new(Servers::new(conf, connect_timeout)),
    }
}

fn contents(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| {
        if error.kind() != std::io::ErrorKind::NotFound {
            tracing::warn!("cannot read `{path}`: {error}");
        }
        Vec::new()
    })
}

/// Identifies the versions of both files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamps([Option<Stamp>; 2]);

/// Device, inode, size, and the times of the last change of the contents and of the inode.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Stamps {
    fn now() -> Self {
        Self([HOSTS, RESOLV_CONF].map(|path| stamp(Path::new(path))))
    }
}

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
}
