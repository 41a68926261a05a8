//! By what the jobs run that clients post.

use std::sync::Arc;

use crate::config::Config;
use crate::downloader;
use crate::job::{Limits, PostSettings, Rules, Terms};
use crate::step;

/// Most targets of a posted job between plan and announcement: many such jobs run beside each other.
const WINDOW: u32 = 1024;

/// What `config` means for posted jobs. Connections of `terms` are shared where they may be.
///
/// # Errors
///
/// When no client can be set up.
pub(super) fn settings(
    config: &Config,
    terms: &Arc<Terms>,
    steps: step::Registry,
) -> anyhow::Result<PostSettings> {
    let mut config = config.clone();
    let api = &config.api;
    let (running, waiting) = (api.jobs.get(), api.queued_jobs);
    let list_folders = api.list_folders.clone();
    config.fetch.private_networks = api.private_networks;
    config.fetch.allow_networks.clone_from(&api.allow_networks);
    let window = config.job.window.get().min(WINDOW);
    config.job.window = window.try_into().unwrap_or(config.job.window);
    let kinds = terms.registry().clone();
    let terms = terms.with_settings(config.setup(), kinds)?;
    let with_limits = {
        let terms = terms.clone();
        move |limits: &Limits| limited(&config, &terms, limits)
    };
    Ok(PostSettings {
        rules: Rules {
            terms,
            steps,
            list_folders,
        },
        with_limits: Arc::new(with_limits),
        running,
        waiting,
    })
}

/// Terms with limits that are as tight as those of the settings, or tighter.
fn limited(config: &Config, terms: &Arc<Terms>, limits: &Limits) -> anyhow::Result<Arc<Terms>> {
    let mut config = config.clone();
    let fetch = &mut config.fetch;
    if let Some(timeout) = limits.total_timeout {
        fetch.total_timeout = match fetch.total_timeout.is_zero() {
            true => timeout,
            false => fetch.total_timeout.min(timeout),
        };
    }
    if let Some(bytes) = limits.max_bytes {
        fetch.max_bytes = fetch.max_bytes.min(bytes);
    }
    if let Some(per_host) = limits.per_host {
        fetch.per_host = fetch.per_host.min(per_host);
    }
    if let Some(rate) = limits.rate {
        fetch.rate = match fetch.rate > 0.0 {
            true => fetch.rate.min(rate),
            false => rate,
        };
    }
    if let Some(retries) = limits.retries {
        fetch.retries = fetch.retries.min(retries);
    }
    Ok(terms.with_settings(config.setup(), downloader::builtin(&config.image))?)
}
