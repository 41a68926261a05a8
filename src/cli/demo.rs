//! `gannet demo`: the real engine against an origin of its own, offline.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::args::{Demo, Global, path};
use super::watch::{Signals, Watch};
use super::{Usage, exit, load_pinned, start_log};
use crate::config::DEFAULT;
use crate::demo::{self, DemoOrigin, Expectation};
use crate::downloader;
use crate::job::progress::{Progress, Snapshot};
use crate::job::report::{Head, Reports};
use crate::job::{Engine, Item, MaxFailures, Observer, Spec, Summary, Terms};
use crate::source::FileSource;
use crate::target::Outcome;

pub(super) async fn run(args: &Demo, global: &Global) -> anyhow::Result<u8> {
    let folder = match &args.output {
        Some(folder) => folder.to_path_buf(),
        None => free_folder()?,
    };
    let flags = vec![
        ("storage.root".to_owned(), path(&folder).map_err(Usage)?),
        ("fetch.private_networks".to_owned(), "true".to_owned()),
        ("fetch.proxy".to_owned(), "direct".to_owned()),
        // Nobody wants to wait for an origin that is part of the show.
        ("fetch.backoff".to_owned(), "200ms".to_owned()),
    ];
    let config = load_pinned(global, pins()?, flags)?.config;
    let progress = Progress::new(args.progress);
    let _log = start_log(global, &config, progress.multi())?;
    let signals = Signals::listen()?;
    let list = folder.join("list.txt");
    let earlier = std::fs::read_to_string(&list).unwrap_or_default();
    let origin = DemoOrigin::start_again(&earlier)
        .await
        .context("cannot start the demo's origin")?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
    std::fs::write(&list, origin.list())
        .with_context(|| format!("cannot write `{}`", list.display()))?;
    let terms = Terms::new(config.setup(), downloader::builtin(&config.image))?;
    let engine = Engine::start(config.setup()).await?;
    let spec = Spec {
        kind: "image".to_owned(),
        album: None,
        deadline: None,
        max_failures: MaxFailures::Percent(100.0),
        ..Spec::new(Arc::new(FileSource::new(list, None)), &terms)
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
    observer.watch.print(&summary, &config, &reports)?;
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

/// Whether a line ended as it must, be it in a folder that knows it already.
fn is_as_expected(item: &Item, expected: &Expectation) -> bool {
    let is_known = expected.outcome == Outcome::Stored && item.outcome == Outcome::Unchanged;
    (item.outcome == expected.outcome || is_known)
        && item.reason == expected.reason
        && expected
            .format
            .is_none_or(|format| item.format.as_deref() == Some(format))
        && expected
            .name_from
            .is_none_or(|from| item.name_from == Some(from))
        && expected.name.is_none_or(|name| {
            item.path
                .as_deref()
                .is_some_and(|path| has_name(path, name))
        })
}

/// Whether `path` is `name`, or `name` with the digits that it gets where another URL has that name.
fn has_name(path: &str, name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else {
        return path == name;
    };
    let between = path
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(ending)?.strip_suffix('.'));
    between.is_some_and(|digits| {
        digits.is_empty()
            || digits
                .strip_prefix('-')
                .is_some_and(|hex| hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// The defaults of all that decides how a line ends: the demo shows gannet, not somebody's settings.
fn pins() -> anyhow::Result<Vec<(String, String)>> {
    let defaults: toml::Table = DEFAULT.parse()?;
    let mut pins = Vec::new();
    for (section, keys) in &defaults {
        if let Some(keys) = keys.as_table().filter(|_| section != "log") {
            pins.extend(
                keys.iter()
                    .map(|(key, value)| (format!("{section}.{key}"), value.to_string())),
            );
        }
    }
    Ok(pins)
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
