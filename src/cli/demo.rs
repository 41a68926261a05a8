//! `gannet demo`: the real engine against an origin of its own, offline.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::args::{Demo, Global, path};
use super::watch::{Signals, Watch};
use super::{Usage, exit, load, start_log};
use crate::demo::{self, DemoOrigin, Expectation};
use crate::downloader;
use crate::job::progress::{Progress, Snapshot};
use crate::job::report::{Head, Reports};
use crate::job::{Engine, Item, MaxFailures, Observer, Spec, Summary};
use crate::source::FileSource;

pub(super) async fn run(args: &Demo, global: &Global) -> anyhow::Result<u8> {
    let folder = match &args.output {
        Some(folder) => folder.clone(),
        None => free_folder()?,
    };
    let flags = vec![
        ("storage.root".to_owned(), path(&folder).map_err(Usage)?),
        ("fetch.private_networks".to_owned(), "true".to_owned()),
        ("fetch.proxy".to_owned(), "direct".to_owned()),
        // Nobody wants to wait for an origin that is part of the show.
        ("fetch.backoff".to_owned(), "200ms".to_owned()),
    ];
    let config = load(global, flags)?.config;
    let progress = Progress::new(args.progress);
    let _log = start_log(global, &config, progress.multi())?;
    let signals = Signals::listen()?;
    let origin = DemoOrigin::start()
        .await
        .context("cannot start the demo's origin")?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
    let list = folder.join("list.txt");
    std::fs::write(&list, origin.list())
        .with_context(|| format!("cannot write `{}`", list.display()))?;
    let engine = Engine::start(config.setup(), downloader::builtin(&config.image)).await?;
    let spec = Spec {
        source: Arc::new(FileSource::new(list, None)),
        kind: "image".to_owned(),
        album: None,
        count: None,
        shard: None,
        refresh: false,
        dedupe: config.job.dedupe,
        deadline: None,
        max_failures: MaxFailures::Percent(100.0),
    };
    let reports = [folder.join("report.html"), folder.join("report.json")];
    let mut observer = Collect {
        watch: Watch::new(Reports::create(&reports, &folder)?, progress),
        items: Vec::new(),
    };
    let result = engine.run(spec, &mut observer, signals.stop.clone()).await;
    engine.shut_down().await;
    let summary = result?;
    if let Some(code) = signals.exit_code() {
        return Ok(code);
    }
    observer.watch.print(&summary, &folder, &reports)?;
    let surprises = print_expectations(&origin, &observer.items)?;
    origin.stop().await;
    let mut out = std::io::stdout().lock();
    if surprises == 0 {
        writeln!(
            out,
            "\nEvery line ended as expected. Look at {}",
            reports[0].display()
        )?;
        Ok(0)
    } else {
        writeln!(out, "\n{surprises} lines did not end as expected.")?;
        Ok(exit::FAILURES)
    }
}

/// Prints a line for each line of the list; returns how many ended otherwise than expected.
fn print_expectations(origin: &DemoOrigin, items: &[Item]) -> std::io::Result<usize> {
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    let mut surprises = 0;
    for expectation in demo::expected() {
        let url = origin.url(expectation.path);
        let item = items.iter().find(|item| item.url == url);
        let as_expected = item.is_some_and(|item| is_as_expected(item, &expectation));
        surprises += usize::from(!as_expected);
        let ended = item.map_or("no outcome".to_owned(), |item| match item.reason {
            Some(reason) => format!("{} ({reason})", item.outcome),
            None => format!(
                "{} as {}",
                item.outcome,
                item.path.as_deref().unwrap_or_default()
            ),
        });
        let mark = if as_expected { "ok " } else { "NOT" };
        writeln!(
            out,
            "{mark} {:28} {:44} {}",
            expectation.path, ended, expectation.comment
        )?;
    }
    Ok(surprises)
}

fn is_as_expected(item: &Item, expected: &Expectation) -> bool {
    item.outcome == expected.outcome
        && item.reason == expected.reason
        && expected
            .format
            .is_none_or(|format| item.format.as_deref() == Some(format))
        && expected
            .name_from
            .is_none_or(|from| item.name_from == Some(from))
        && expected
            .name
            .is_none_or(|name| item.path.as_deref() == Some(name))
}

/// `gannet-demo`, or the first of `gannet-demo-2` … that nobody has.
fn free_folder() -> anyhow::Result<PathBuf> {
    let names = std::iter::once("gannet-demo".to_owned())
        .chain((2..1000).map(|n| format!("gannet-demo-{n}")));
    names
        .map(PathBuf::from)
        .find(|folder| !folder.exists())
        .context("a thousand demos are enough: remove some of the folders `gannet-demo-…`, or use `-o DIR`")
}

/// Watches like any other run, and keeps the items to compare them.
struct Collect {
    watch: Watch,
    items: Vec<Item>,
}

impl Observer for Collect {
    fn begin(&mut self, head: &Head) -> anyhow::Result<()> {
        self.watch.begin(head)
    }

    fn items(&mut self, items: &[Item]) -> anyhow::Result<()> {
        self.items.extend_from_slice(items);
        self.watch.items(items)
    }

    fn tick(&mut self, snapshot: &Snapshot) {
        self.watch.tick(snapshot);
    }

    fn end(&mut self, summary: &Summary) -> anyhow::Result<()> {
        self.watch.end(summary)
    }
}
