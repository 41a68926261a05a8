//! `gannet check`: what is wrong with the configuration, or the effective one.

use std::io::Write as _;

use chrono::{SecondsFormat, Utc};

use super::args::Global;
use super::{find_kind, load};
use crate::config::Schedule;
use crate::fetch::{Client, SetupError};
use crate::{daemon, downloader};

pub(super) fn run(global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, Vec::new())?;
    find_kind(&loaded, &downloader::builtin(&loaded.config.image))?;
    let config = &loaded.config;
    // Sets up what a run sets up, and reads `fetch.ca_files` for it.
    if let Err(error) = Client::with_proxies(&config.fetch, &config.hosts, &config.proxies) {
        use SetupError::{
            BadCa, BadCookies, BadNetrc, NoCa, ReadCa, ReadCookies, ReadNetrc, ReadProxies,
        };
        let (section, key) = match error {
            ReadCa { .. } | NoCa { .. } | BadCa { .. } => ("fetch", "ca_files"),
            ReadCookies { .. } | BadCookies { .. } => ("fetch", "cookies_file"),
            ReadNetrc { .. } | BadNetrc { .. } => ("fetch", "netrc_file"),
            ReadProxies { .. } => ("proxies", "file"),
            error => return Err(error.into()),
        };
        let error = anyhow::Error::from(error);
        return Err(loaded.wrong(section, key, format!("{error:#}")).into());
    }
    daemon::check(&loaded)?;
    let mut stdout = std::io::stdout().lock();
    match &loaded.file {
        Some(file) => writeln!(
            stdout,
            "# Effective configuration, with `{}`.",
            file.display()
        )?,
        None => writeln!(stdout, "# Effective configuration; no settings file.")?,
    }
    write!(stdout, "{}", loaded.config.effective_toml())?;
    for Schedule { name, policy, .. } in &loaded.schedules {
        writeln!(
            stdout,
            "\n# Schedule `{name}` ({}, {}) is due next at",
            policy.cron, policy.timezone
        )?;
        for time in policy.cron.iter_after(Utc::now(), policy.timezone).take(5) {
            let here = time
                .with_timezone(&policy.timezone)
                .to_rfc3339_opts(SecondsFormat::Secs, false);
            writeln!(stdout, "#   {here}")?;
        }
    }
    Ok(0)
}
