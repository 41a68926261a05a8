//! Messages to the service manager: sd_notify(3).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// The service manager, if it listens.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// Its socket. `None` without a service manager, or if it cannot be reached.
    socket: Option<SocketAddr>,
    /// A third of the time after which systemd takes us for dead.
    feed_every: Option<Duration>,
    fed: Instant,
    told: String,
}

impl Service {
    pub(super) fn from_env() -> Self {
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
                let address = address(&name);
                address
                    .inspect_err(|error| {
                        tracing::warn!(
                            "cannot notify the service manager at `NOTIFY_SOCKET={}`: {error}",
                            name.display()
                        );
                    })
                    .ok()
                    .flatten()
            }),
            feed_every: sd_notify::watchdog_enabled().map(|limit| limit / 3),
            fed: Instant::now(),
            told: String::new(),
        }
    }

    /// It does what it is there for.
    pub(super) fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.told);
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// It reads its settings.
    pub(super) fn reloading(&self) {
        // With the time, as `Type=notify-reload` wants it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("cannot tell systemd of the reload: {error}"),
        }
    }

    /// It ends.
    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// What it is about.
    pub(super) fn status(&mut self, status: &str) {
        if self.told != status {
            status.clone_into(&mut self.told);
            self.tell(&[NotifyState::Status(status)]);
        }
    }

    /// Waits until the watchdog is to be fed, and feeds it; for ever where there is none. Cancel safe.
    pub(super) async fn feed(&mut self) {
        let Some(every) = self.feed_every else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(self.fed + every).await;
        self.fed = Instant::now();
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, what)
        {
            let name = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
            tracing::warn!(
                "cannot notify the service manager at `NOTIFY_SOCKET={}`: {error}",
                name.display()
            );
        }
    }
}

/// Sends one datagram. sd-notify's own `notify` treats every name as a path.
fn send(to: &SocketAddr, what: &[NotifyState<'_>]) -> io::Result<()> {
    let message: String = what.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(message.as_bytes(), to).map(drop)
}

/// Parses `NOTIFY_SOCKET`: an absolute path, or a name in the abstract namespace after `@`. `None` if it is empty, which is as good
/// as unset.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`] for any other form, such as `vsock:`.
fn address(name: &OsStr) -> io::Result<Option<SocketAddr>> {
    match name.as_bytes() {
        [] => Ok(None),
        [b'/', ..] => SocketAddr::from_pathname(name).map(Some),
        [b'@', name @ ..] if !name.is_empty() => abstract_address(name).map(Some),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "it has to be an absolute path, or a name after `@`",
        )),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "only Linux has abstract sockets",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notify_socket_is_a_path_or_an_abstract_name() {
        let address = |name: &str| address(OsStr::new(name));
        assert!(address("").unwrap().is_none());
        let path = address("/run/systemd/notify").unwrap().unwrap();
        assert_eq!(path.as_pathname(), Some("/run/systemd/notify".as_ref()));
        for name in ["@", "notify", "./notify", "vsock:2:1234"] {
            let error = address(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{name}");
        }
        let long = format!("@{}", "x".repeat(108));
        assert!(address(&long).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_may_hold_any_bytes() {
        use std::os::linux::net::SocketAddrExt as _;
        for name in ["a", "/org/freedesktop/systemd1/notify/1", "a b@c\n"] {
            let found = address(OsStr::new(&format!("@{name}"))).unwrap().unwrap();
            assert_eq!(found.as_abstract_name(), Some(name.as_bytes()));
        }
    }
}
