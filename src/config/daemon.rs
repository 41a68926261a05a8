//! `[daemon]`.

use std::time::Duration;

use serde::Deserialize;

/// `[daemon]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// How long what is being fetched may take when the process is asked to stop.
    #[serde(with = "humantime_serde")]
    pub stop_timeout: Duration,
}
