//! `[api]`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use anyhow::Context as _;
use bytesize::ByteSize;
use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::access::Tokens;
use super::metrics::Metrics;
use super::origin::Origins;
use super::tls;
use crate::local_path::LocalPath;

/// `[api]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the daemon listens; `None`: on its socket alone.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// Connections at a time. Who comes beyond them waits.
    pub max_connections: NonZeroUsize,
    /// Posted jobs that run at a time.
    pub jobs: NonZeroUsize,
    /// Posted jobs that may wait besides.
    pub queued_jobs: usize,
    /// Largest body of a job that is posted.
    pub max_body: ByteSize,
    /// Whether posted jobs may reach addresses that are not on the public Internet, whatever `[fetch]` says.
    pub private_networks: bool,
    /// Networks that they may reach although those are not public.
    pub allow_networks: Vec<IpNet>,
    /// The file with the secret that signs what callbacks are sent; empty: nothing does.
    pub callback_secret_file: LocalPath,
    /// Folders whose files may be lists of posted jobs.
    pub list_folders: Vec<LocalPath>,
    /// Largest file that a client may send.
    pub max_upload: ByteSize,
    /// Whether `/openapi.json` and `/docs` are there.
    pub docs: bool,
    /// Whether each request is worth a line of the log.
    pub access_log: bool,
    /// Who may see `/metrics`.
    pub metrics: Metrics,
    /// Requests a second of one token, and of all who need none; 0: no limit.
    pub rate: u32,
    /// How many of them may come at once.
    pub burst: NonZeroU32,
    /// The sites whose pages may ask.
    pub cors_origins: Origins,
    /// The certificate.
    pub tls: tls::Settings,
    /// Who may do what; empty: whoever comes from this machine may do everything.
    pub tokens: Tokens,
}

impl Settings {
    /// The secret that signs what callbacks are sent.
    ///
    /// # Errors
    ///
    /// When its file cannot be read, or is empty.
    pub(crate) fn callback_secret(&self) -> anyhow::Result<Option<SecretString>> {
        let path = self.callback_secret_file.as_path();
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let named = || {
            format!(
                "cannot use `api.callback_secret_file`, `{}`",
                path.display()
            )
        };
        let text = std::fs::read_to_string(path).with_context(named)?;
        let secret = text.trim_end_matches(['\r', '\n']);
        anyhow::ensure!(!secret.is_empty(), "{}: it is empty", named());
        Ok(Some(secret.into()))
    }

    /// What is wrong with the keys together.
    pub(crate) fn problem(&self) -> Option<(&'static [&'static str], &'static str)> {
        let is_open = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
        if self.listen.is_some_and(is_open) && self.tokens.is_empty() {
            return Some((
                &["listen", "tokens"],
                "others than this machine reach that address, which takes tokens, such as \
                 `api.tokens.airflow = { token = \"…\", scopes = [\"read\"] }`; or listen on 127.0.0.1",
            ));
        }
        if self.cors_origins.is_any() && self.tokens.is_empty() {
            return Some((
                &["cors_origins"],
                "`*` would let every page in a browser do everything, since there are no tokens; name the sites",
            ));
        }
        let is_empty = |path: &std::path::Path| path.as_os_str().is_empty();
        (is_empty(&self.tls.cert) != is_empty(&self.tls.key))
            .then_some((&["tls"], "takes both `cert` and `key`, or neither"))
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is no address with a port; expected one such as \"127.0.0.1:8080\" or \"[::1]:8080\", or \"\" for none"
        ))
    })
}
