//! `gannet catalog`: what the catalog is, and moving it elsewhere.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::args::{CatalogCommand, Global};
use super::{load, start_log};
use crate::catalog::{self, Settings, Status};
use crate::store::StoreLock;

pub(super) async fn run(command: &CatalogCommand, global: &Global) -> anyhow::Result<u8> {
    let output = match command {
        CatalogCommand::Status { output, .. } | CatalogCommand::Migrate { output } => {
            output.as_deref()
        }
        CatalogCommand::Copy { .. } => None,
    };
    let config = load(global, super::output(output)?)?.config;
    let _log = start_log(global, &config, None)?;
    let (settings, root) = (&config.catalog, config.storage.root.as_path());
    let mut out = std::io::stdout().lock();
    match command {
        CatalogCommand::Status { json, .. } => {
            must_exist(settings, root)?;
            let catalog = catalog::open_to_inspect(settings, root).await?;
            let status = catalog.status().await?;
            catalog.close().await;
            if *json {
                writeln!(out, "{}", serde_json::to_string(&status)?)?;
            } else {
                print(&status, &mut out)?;
            }
        }
        CatalogCommand::Migrate { .. } => {
            let opened = Opened::new(settings, root).await?;
            let status = opened.catalog.status().await?;
            opened.catalog.close().await;
            writeln!(out, "{} has version {}", status.catalog, status.version)?;
        }
        CatalogCommand::Copy { from, to } => {
            let at = |url: &str| Settings {
                url: url.to_owned(),
                patience: settings.patience,
            };
            let (from, to) = (at(from), at(to));
            for (settings, which) in [(&from, "SRC"), (&to, "DST")] {
                if let Some(problem) = settings.problem().filter(|_| !settings.url.is_empty()) {
                    return Err(super::Usage(format!("`{which}`: {problem}")).into());
                }
            }
            must_exist(&from, root)?;
            let from = Opened::new(&from, root).await?;
            let to = Opened::new(&to, root).await?;
            let copied = catalog::copy(&*from.catalog, &*to.catalog)
                .await
                .context("cannot copy the catalog")?;
            from.catalog.close().await;
            to.catalog.close().await;
            for (table, rows) in copied {
                writeln!(out, "{table:10}  {rows:>12} rows")?;
            }
        }
    }
    Ok(0)
}

/// A catalog that nobody else works with.
struct Opened {
    catalog: std::sync::Arc<dyn catalog::Catalog>,
    _lock: Option<StoreLock>,
}

impl Opened {
    async fn new(settings: &Settings, root: &Path) -> anyhow::Result<Self> {
        let path = catalog::path(settings, root)?;
        let lock = path
            .map(|path| StoreLock::take_catalog(&path))
            .transpose()?;
        Ok(Self {
            catalog: catalog::open(settings, root).await?,
            _lock: lock,
        })
    }
}

/// A catalog that is looked at is not made.
pub(super) fn must_exist(settings: &Settings, root: &Path) -> anyhow::Result<()> {
    match catalog::path(settings, root)?.filter(|path| !path.exists()) {
        None => Ok(()),
        Some(path) => bail!(
            "there is no catalog at `{}`; `-o DIR` or `storage.root` names the folder of the files",
            path.display()
        ),
    }
}

fn print(status: &Status, out: &mut impl Write) -> anyhow::Result<()> {
    let newest = match status.version == status.latest {
        true => "",
        false => ", out of date: the next run or `gannet catalog migrate` brings it up to date",
    };
    writeln!(
        out,
        "{} {}, version {}{newest}\n",
        status.kind, status.catalog, status.version
    )?;
    writeln!(out, "{:10}  {:>12}  {:>14}", "TABLE", "ROWS", "BYTES")?;
    for table in &status.tables {
        writeln!(
            out,
            "{:10}  {:>12}  {:>14}",
            table.name, table.rows, table.bytes
        )?;
    }
    Ok(())
}
