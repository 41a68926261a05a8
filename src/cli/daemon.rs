//! `gannet daemon`: schedules, unattended or one time each.

use std::io::Write as _;

use super::args::{Daemon, Global};
use super::fetch::exit_code;
use super::watch::Signals;
use super::{Usage, load, start_log};
use crate::config::Loaded;
use crate::daemon;
use crate::target::nearest;

pub(super) async fn run(args: &Daemon, global: &Global) -> anyhow::Result<u8> {
    let loaded = load_work(global, args.once.is_none())?;
    let log = start_log(global, &loaded.config, None)?;
    if args.once.is_none() {
        daemon::run(loaded, || load_work(global, true), &log).await?;
        return Ok(0);
    }
    let names = args.once.as_deref().unwrap_or_default();
    if let Some(unknown) = names
        .iter()
        .find(|name| loaded.schedules.iter().all(|known| known.name != **name))
    {
        let known: Vec<&str> = loaded
            .schedules
            .iter()
            .map(|known| known.name.as_str())
            .collect();
        let meant = nearest(unknown, known.iter().copied())
            .map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        return Err(Usage(format!(
            "there is no schedule `{unknown}`; the settings have: {}{meant}",
            known.join(", ")
        ))
        .into());
    }
    let signals = Signals::listen()?;
    let once = daemon::once(&loaded, names, signals.stop.clone().into()).await?;
    let json = serde_json::to_string(&once)?;
    writeln!(std::io::stdout().lock(), "{json}")?;
    Ok(exit_code(
        once.ending,
        once.counts,
        signals.exit_code(),
        args.exit_unchanged,
    ))
}

/// The settings, by which there is something to do. What `serves` may be asked, and needs no schedule.
fn load_work(global: &Global, serves: bool) -> anyhow::Result<Loaded> {
    let loaded = load(global, Vec::new())?;
    let is_asked = serves && loaded.config.api.listen.is_some();
    if loaded.schedules.is_empty() && !is_asked {
        let file = loaded.file.as_ref().map_or_else(
            || "no settings file was found; `--config FILE` names one".to_owned(),
            |file| format!("`{}` has no [[schedule]]", file.display()),
        );
        return Err(Usage(format!(
            "there is nothing to run: {file}. A schedule has a `name`, a `cron` line and a `source`"
        ))
        .into());
    }
    Ok(loaded)
}
