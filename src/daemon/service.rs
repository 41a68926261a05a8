//! What systemd is told: sd_notify(3).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// The service manager, if it listens.
#[derive(Debug, Clone)]
pub(super) struct Service {
    is_there: bool,
    /// A third of the time after which systemd takes us for dead.
    feed_every: Option<Duration>,
    fed: Instant,
    told: String,
}

impl Service {
    pub(super) fn from_env() -> Self {
        Self {
            is_there: std::env::var_os("NOTIFY_SOCKET").is_some(),
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
        if self.is_there
            && let Err(error) = sd_notify::notify(what)
        {
            tracing::warn!("cannot tell systemd: {error}");
        }
    }
}
