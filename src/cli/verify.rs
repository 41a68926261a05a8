//! `gannet verify`: every record held against its file.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::args::{Global, Verify};
use super::watch::Signals;
use super::{Usage, exit, load, start_log};
use crate::catalog::{self, Catalog, CatalogError};
use crate::downloader;
use crate::job::progress::{Progress, Snapshot};
use crate::job::{Engine, Finding, Stop, Terms, Verified, Verifier};
use crate::store::Store;
use crate::target::Counts;

/// Files that are repaired at a time.
const AT_A_TIME: usize = 10_000;

/// Albums that are read at a time.
const PAGE: u32 = 1000;

pub(super) async fn run(args: &Verify, global: &Global) -> anyhow::Result<u8> {
    let config = load(global, args.settings().map_err(Usage)?)?.config;
    let progress = Progress::new(args.progress);
    let _log = start_log(global, &config, progress.multi())?;
    super::catalog::must_exist(&config.catalog, &config.storage.root)?;
    let mut verify = Run {
        json: args.json,
        progress,
        begun: Instant::now(),
        total: 0,
        summary: Totals::default(),
    };
    if !args.repair {
        let store = Store::open_to_read(&config.storage).await?;
        let catalog = catalog::open_to_read(&config.catalog, &config.storage.root).await?;
        let stop = Stop::default();
        verify.go(catalog.clone(), store, None, &stop).await?;
        catalog.close().await;
        return verify.end();
    }
    let signals = Signals::listen()?;
    let registry = downloader::builtin(&config.image);
    let terms = Terms::new(config.setup(), registry)?;
    let engine = Engine::start(config.setup()).await?;
    let (catalog, store) = (engine.catalog().clone(), engine.store().clone());
    let result = verify
        .go(
            catalog,
            store,
            Some((&engine, &terms)),
            &signals.stop.clone().into(),
        )
        .await;
    engine.shut_down().await;
    result?;
    let code = verify.end()?;
    Ok(signals.exit_code().unwrap_or(code))
}

/// The summary.
#[derive(Debug, Default, Serialize)]
struct Totals {
    #[serde(flatten)]
    verified: Verified,
    /// Files that were brought again.
    repaired: u64,
    #[serde(skip)]
    error: Option<String>,
}

struct Run {
    json: bool,
    progress: Progress,
    begun: Instant,
    /// Files that there are records of.
    total: u64,
    summary: Totals,
}

impl Run {
    /// Looks at everything; with an engine, repairs what is damaged.
    async fn go(
        &mut self,
        catalog: Arc<dyn Catalog>,
        store: Store,
        engine: Option<(&Engine, &Arc<Terms>)>,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        self.total = count(&*catalog).await?;
        let mut verifier = Verifier::new(catalog, store);
        let mut damaged = Vec::new();
        while let Some(findings) = verifier.next().await? {
            self.summary.verified = verifier.verified();
            self.tick();
            for finding in findings {
                self.print(&finding, || text(&finding))?;
                if engine.is_some() && finding.file.is_some() {
                    damaged.push(finding);
                }
            }
            if let Some(engine) = engine.filter(|_| damaged.len() >= AT_A_TIME) {
                self.repair(engine, std::mem::take(&mut damaged), stop)
                    .await?;
            }
            if stop.cancel.is_cancelled() || self.summary.error.is_some() {
                return Ok(());
            }
        }
        if let Some(engine) = engine.filter(|_| !damaged.is_empty()) {
            self.repair(engine, damaged, stop).await?;
        }
        Ok(())
    }

    async fn repair(
        &mut self,
        (engine, terms): (&Engine, &Arc<Terms>),
        damaged: Vec<Finding>,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let repaired = engine.repair(terms, &damaged, &self.progress, stop).await?;
        for (path, why) in repaired.files {
            self.summary.repaired += u64::from(why.is_none());
            let line =
                serde_json::json!({ "path": path, "repaired": why.is_none(), "detail": why });
            self.print(&line, || match &why {
                None => format!("repaired    {path}"),
                Some(why) => format!("unrepaired  {path}: {why}"),
            })?;
        }
        self.summary.error = repaired.error;
        Ok(())
    }

    /// A line of the result, which must not end up in the bar.
    fn print(&self, json: &impl Serialize, text: impl Fn() -> String) -> anyhow::Result<()> {
        let line = if self.json {
            serde_json::to_string(json)?
        } else {
            text()
        };
        let write = || writeln!(std::io::stdout().lock(), "{line}");
        Ok(match self.progress.multi() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }?)
    }

    fn snapshot(&self) -> Snapshot {
        let verified = self.summary.verified;
        let failed = verified.findings() - verified.unrecorded;
        Snapshot {
            counts: Counts {
                targets: verified.files,
                failed,
                ..Counts::default()
            },
            total: Some(self.total.max(verified.files)),
            goal: None,
            bytes: verified.bytes,
            in_flight: 0,
            waiting: 0,
            elapsed: self.begun.elapsed(),
        }
    }

    fn tick(&self) {
        self.progress.tick(self.snapshot());
    }

    /// Says what it came to.
    fn end(self) -> anyhow::Result<u8> {
        self.progress.finish(self.snapshot());
        self.print(&self.summary, || self.summary.text())?;
        if let Some(error) = &self.summary.error {
            eprintln!("gannet: {error}");
            return Ok(exit::COULD_NOT_RUN);
        }
        let is_fine = self.summary.verified.findings() == self.summary.repaired;
        Ok(if is_fine { 0 } else { exit::FAILURES })
    }
}

/// How many files there are records of.
async fn count(catalog: &dyn Catalog) -> Result<u64, CatalogError> {
    let (mut files, mut after) = (0, None);
    loop {
        let page = catalog.albums(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(files);
        };
        after = Some(last.name.clone());
        files += page.iter().map(|album| album.files).sum::<u64>();
    }
}

fn text(finding: &Finding) -> String {
    // What gannet did not name may turn a terminal's text around.
    let path = match finding.file {
        Some(_) => finding.path.clone(),
        None => finding.path.escape_debug().to_string(),
    };
    let problem = finding.problem.as_str();
    match &finding.detail {
        Some(detail) => format!("{problem:10}  {path}: {detail}"),
        None => format!("{problem:10}  {path}"),
    }
}

impl Totals {
    fn text(&self) -> String {
        let verified = &self.verified;
        let found = [
            (verified.missing, "missing"),
            (verified.length, "of another length"),
            (verified.content, "of other content"),
            (verified.unreadable, "unreadable"),
            (verified.unrecorded, "unrecorded"),
            (self.repaired, "repaired"),
        ];
        let found = found.iter().filter(|(count, _)| *count > 0);
        let mut found: Vec<_> = found
            .map(|(count, what)| format!("{} {what}", HumanCount(*count)))
            .collect();
        if found.is_empty() {
            found.push("all as recorded".to_owned());
        }
        let (files, bytes) = (HumanCount(verified.files), HumanBytes(verified.bytes));
        let noun = if verified.files == 1 { "file" } else { "files" };
        format!("verified {files} {noun}, {bytes}: {}", found.join(", "))
    }
}
