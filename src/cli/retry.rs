//! `gannet retry`: once more what failed in a job.

use std::io::Write as _;
use std::sync::Arc;

use super::args::{Global, Retry};
use super::fetch::{check_reports, see_through};
use super::jobs::find;
use super::watch::Signals;
use super::{Usage, load, start_log};
use crate::catalog::{self, JobRow};
use crate::downloader;
use crate::job::progress::Progress;
use crate::job::{Engine, Failed, OnRemove, Spec, Terms};
use crate::target::{AlbumName, Reason};

pub(super) async fn run(args: &Retry, global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, args.settings().map_err(Usage)?)?;
    let config = &loaded.config;
    check_reports(&args.told, config, &[])?;
    let registry = downloader::builtin(&config.image);
    let progress = Progress::new(args.told.progress);
    let _log = start_log(global, config, progress.multi())?;
    super::catalog::must_exist(&config.catalog, &config.storage.root)?;
    let reader = catalog::open_to_read(&config.catalog, &config.storage.root).await?;
    let job = find(&*reader, &args.id).await?;
    let failed = Failed::new(reader.clone(), job.id, args.reason.clone());
    let is_empty = failed.is_empty().await?;
    reader.close().await;
    if is_empty {
        nothing(args, &job)?;
        return Ok(0);
    }
    let signals = Signals::listen()?;
    let terms = Terms::new(config.setup(), registry)?;
    let engine = Engine::start(config.setup()).await?;
    let failed = Failed::new(engine.catalog().clone(), job.id, args.reason.clone());
    let spec = spec(&terms, job, failed)?;
    see_through(engine, spec, &args.told, &loaded, progress, &signals).await
}

fn nothing(args: &Retry, job: &JobRow) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.told.json {
        writeln!(
            out,
            "{}",
            serde_json::json!({ "retry": job.id, "targets": 0 })
        )?;
    } else {
        let is_invalid = match &*args.reason {
            [] => job.failures > 0,
            reasons => reasons.contains(&Reason::InvalidUrl),
        };
        let why = match is_invalid {
            true => {
                " for another reason than `invalid-url`, and such a line cannot be tried again: correct it in its list"
            }
            false if args.reason.is_empty() => "",
            false => " for such a reason",
        };
        writeln!(
            out,
            "nothing to retry: no target of job {} failed{why}",
            job.id
        )?;
    }
    Ok(())
}

fn spec(terms: &Arc<Terms>, job: JobRow, failed: Failed) -> anyhow::Result<Spec> {
    Ok(Spec {
        kind: job.kind,
        album: job.album.as_deref().map(AlbumName::recorded).transpose()?,
        refresh: true,
        // A part of a list does not show what has gone.
        on_remove: OnRemove::Keep,
        ..Spec::new(Arc::new(failed.into_source()), terms)
    })
}
