//! `gannet rename`: renames the files of albums as the current settings would name them.

use std::io::{ErrorKind, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use super::args::{Global, Rename};
use super::{Usage, exit, load, start_log};
use crate::catalog::{self, Catalog};
use crate::config::Loaded;
use crate::job::{Engine, RenamePlan, Renaming};
use crate::notify::Notifier;
use crate::store::Store;
use crate::target::AlbumName;

/// Names for the root folder on the command line.
const ROOT: [&str; 2] = [":root", "."];

pub(super) async fn run(args: &Rename, global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, args.settings().map_err(Usage)?)?;
    let config = &loaded.config;
    let _log = start_log(global, config, None)?;
    super::catalog::must_exist(&config.catalog, &config.storage.root)?;
    let mut run = Run {
        args,
        loaded: &loaded,
        totals: Totals::default(),
    };
    if args.dry_run {
        let store = Store::open_to_read(&config.storage).await?;
        let catalog = catalog::open_to_read(&config.catalog, &config.storage.root).await?;
        run.go(&catalog, &store, None).await?;
        catalog.close().await;
        return run.end();
    }
    let engine = Engine::start(config.setup()).await?;
    let (catalog, store) = (engine.catalog().clone(), engine.store().clone());
    let notifier = Notifier::start(loaded.notify()?, catalog.clone(), false).await?;
    let result = run.go(&catalog, &store, Some(&engine)).await;
    notifier.stop(Duration::MAX).await;
    engine.shut_down().await;
    result?;
    run.end()
}

/// Figures of the summary.
#[derive(Debug, Default, Serialize)]
struct Totals {
    /// Files in the albums.
    files: u64,
    /// Files that were renamed, or would be.
    renamed: u64,
    /// Files that could not be renamed.
    left: u64,
}

/// The result for a file.
#[derive(Debug, Serialize)]
struct Line<'a> {
    album: &'a str,
    #[serde(flatten)]
    renaming: &'a Renaming,
    renamed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

struct Run<'a> {
    args: &'a Rename,
    loaded: &'a Loaded,
    totals: Totals,
}

impl Run<'_> {
    /// Renames the files of the albums. Without an engine, only prints the plan.
    async fn go(
        &mut self,
        catalog: &Arc<dyn Catalog>,
        store: &Store,
        engine: Option<&Engine>,
    ) -> anyhow::Result<()> {
        let mut albums = Vec::with_capacity(self.args.albums.len());
        for name in &self.args.albums {
            let album = key(name);
            match album {
                Some(album) if catalog.has_album(&album).await? => albums.push((name, album)),
                _ => bail!("there is no album `{name}`; `gannet albums` lists them"),
            }
        }
        if engine.is_some() {
            catalog.index_albums().await?;
        }
        for (name, album) in albums {
            let naming = &self.loaded.config.naming;
            let plan = RenamePlan::new(&**catalog, store, naming, &album).await?;
            self.totals.files += plan.files;
            for (renaming, why) in &plan.blocked {
                self.print(name, renaming, Some(why))?;
            }
            for batch in plan.batches {
                let stay = match engine {
                    Some(engine) => engine.files().rename(batch.clone()).await?,
                    None => vec![None; batch.len()],
                };
                for (renaming, detail) in batch.iter().zip(&stay) {
                    self.print(name, renaming, detail.as_deref())?;
                }
            }
        }
        Ok(())
    }

    fn print(
        &mut self,
        album: &str,
        renaming: &Renaming,
        detail: Option<&str>,
    ) -> anyhow::Result<()> {
        match detail {
            None => self.totals.renamed += 1,
            Some(_) => self.totals.left += 1,
        }
        let (from, to) = (&renaming.from, &renaming.to);
        let line = if self.args.json {
            serde_json::to_string(&Line {
                album,
                renaming,
                renamed: detail.is_none() && !self.args.dry_run,
                detail,
            })?
        } else if let Some(why) = detail {
            format!("{from} stays: {why}")
        } else {
            format!("{from} → {to}")
        };
        match writeln!(std::io::stdout().lock(), "{line}") {
            // The reader has seen enough; the other files are renamed all the same.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            printed => Ok(printed?),
        }
    }

    /// Prints the summary, and returns the exit code.
    fn end(self) -> anyhow::Result<u8> {
        let mut out = std::io::stdout().lock();
        let Totals {
            files,
            renamed,
            left,
        } = self.totals;
        if self.args.json {
            writeln!(out, "{}", serde_json::to_string(&self.totals)?)?;
        } else {
            let verb = if self.args.dry_run {
                "would rename"
            } else {
                "renamed"
            };
            let noun = if files == 1 { "file" } else { "files" };
            write!(out, "{verb} {renamed} of {files} {noun}")?;
            match left {
                0 => writeln!(out)?,
                left => writeln!(out, "; {left} could not be renamed")?,
            }
        }
        Ok(if left == 0 { 0 } else { exit::FAILURES })
    }
}

/// Returns the catalog's name for an album, or `None` if no album can have this name.
fn key(name: &str) -> Option<String> {
    if ROOT.contains(&name) {
        return Some(String::new());
    }
    let album = AlbumName::recorded(name).ok()?;
    Some(album.to_string())
}
