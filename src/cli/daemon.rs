//! `gannet daemon`: schedules, unattended or one time each.

use std::io::Write as _;

use super::args::{Daemon, Global};
use super::watch::Signals;
use super::{Usage, exit, load, start_log};
use crate::config::Loaded;
use crate::daemon;
use crate::job::Ending;

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
        return Err(Usage(format!(
            "there is no schedule `{unknown}`; the settings have: {}",
            known.join(", ")
        ))
        .into());
    }
    let signals = Signals::listen()?;
    let once = daemon::once(&loaded, names, signals.stop.clone().into()).await?;
    let json = serde_json::to_string(&once)?;
    writeln!(std::io::stdout().lock(), "{json}")?;
    Ok(match once.ending {
        Ending::Broken => exit::COULD_NOT_RUN,
        Ending::Failures => exit::FAILURES,
        Ending::Stopped | Ending::Left => signals.exit_code().unwrap_or(exit::INTERRUPT),
        Ending::Fine => match args.exit_unchanged {
            Some(code) if once.counts.stored + once.counts.changed == 0 => code,
            _ => 0,
        },
    })
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
