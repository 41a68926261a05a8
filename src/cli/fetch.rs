//! `gannet fetch`: one pass over a list.

use std::io::{BufWriter, IsTerminal as _, Stdout, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{Fetch, Global, Told};
use super::watch::{Signals, Watch};
use super::{Usage, exit, find_kind, load, say, start_log};
use crate::config::{Config, ConfigError, Loaded};
use crate::downloader::{self, Registry};
use crate::job::progress::{Progress, Snapshot};
use crate::job::report::{Head, Reports};
use crate::job::{Ending, Engine, Item, Observer, Spec, Summary, Terms, rehearse};
use crate::notify::Notifier;
use crate::source::{
    ChainSource, FileSource, InlineSource, Place, Reader, Shelf, Source, SourceError, SourceSpec,
    parse_source, recorded_target,
};
use crate::target::Counts;

pub(super) async fn run(args: &Fetch, global: &Global) -> anyhow::Result<u8> {
    let flags = args.settings().map_err(Usage)?;
    let loaded = load(global, flags)?;
    let config = &loaded.config;
    let registry = downloader::builtin(&config.image);
    let sources = args
        .sources
        .iter()
        .map(|text| {
            let spec = parse_source(text, args.list_format)?;
            Ok(spec.in_encoding(config.source.encoding))
        })
        .collect::<Result<Vec<_>, SourceError>>()?;
    check(args, &loaded, &registry, &sources)?;
    if args.count == Some(0) {
        say(&"warning: `--count 0` stores nothing; leave it out to fetch the whole list");
    }
    // A report, or the summary as JSON, tells of a list that is not there as of any other failure.
    if args.told.report.is_empty() && !args.told.json {
        check_lists(&sources).await?;
    }
    if global.quiet == 0
        && sources.iter().any(|source| source.place == Place::Stdin)
        && std::io::stdin().is_terminal()
    {
        say(&"reads the list from the terminal: type URLs, one a line, and end with Ctrl-D");
    }
    let progress = Progress::new(args.told.progress);
    let _log = start_log(global, config, progress.multi())?;
    if args.dry_run {
        return dry_run(args, config, sources).await;
    }
    let signals = Signals::listen()?;
    let terms = Terms::new(config.setup(), registry)?;
    let spec = spec(args, sources, terms.lists(), &terms)?;
    let engine = Engine::start(config.setup()).await?;
    see_through(engine, spec, &args.told, &loaded, progress, &signals).await
}

/// Runs one job for somebody at a terminal, ends the engine, tells what came of it, and answers with the exit code.
pub(super) async fn see_through(
    engine: Engine,
    spec: Spec,
    told: &Told,
    loaded: &Loaded,
    progress: Progress,
    signals: &Signals,
) -> anyhow::Result<u8> {
    let config = &loaded.config;
    let notifier = Notifier::start(loaded.notify()?, engine.catalog().clone(), false).await?;
    let reports = Reports::create(&told.report, &config.storage.root)?;
    let mut watch = Watch::new(reports, progress);
    let list = spec.source.to_string();
    // A share of a list, or what a search finds, may well be nothing.
    let is_part = spec.shard.is_some() || spec.count == Some(0) || spec.source.is_search();
    let result = engine.run(spec, &mut watch, signals.stop.clone()).await;
    notifier.stop(Duration::MAX).await;
    engine.shut_down().await;
    let summary = result?;
    let printed = if told.json {
        let json = serde_json::to_string(&summary)?;
        writeln!(std::io::stdout().lock(), "{json}")
    } else {
        watch.print(&summary, config, &told.report)
    };
    // Whoever read the summary may have seen enough, or hung up; the exit code tells the truth all the same.
    if let Err(error) = printed
        && error.kind() != std::io::ErrorKind::BrokenPipe
        && signals.exit_code() != Some(exit::HANGUP)
    {
        return Err(error.into());
    }
    // A terminal shows the summary, which has the error as well.
    let is_shown = !told.json && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    if summary.ending == Ending::Broken
        && let Some(error) = &summary.error
        && !is_shown
    {
        say(error);
    }
    if summary.ending == Ending::Fine && summary.counts.targets == 0 && !is_part {
        say(&format!(
            "warning: nothing was fetched, since there is no URL in `{list}`; a list has one URL a line, or a column `url`"
        ));
    }
    Ok(exit_code(
        summary.ending,
        summary.counts,
        signals.exit_code(),
        told.exit_unchanged,
    ))
}

pub(super) fn exit_code(
    ending: Ending,
    counts: Counts,
    signal: Option<u8>,
    unchanged: Option<u8>,
) -> u8 {
    match ending {
        Ending::Stopped | Ending::Left => signal.unwrap_or(exit::INTERRUPT),
        Ending::Broken => exit::COULD_NOT_RUN,
        Ending::Failures => exit::FAILURES,
        Ending::Fine => match unchanged {
            Some(code) if counts.stored + counts.changed == 0 => code,
            _ => 0,
        },
    }
}

/// What clap cannot see of the command line, before anything is touched.
fn check(
    args: &Fetch,
    loaded: &Loaded,
    registry: &Registry,
    sources: &[SourceSpec],
) -> anyhow::Result<()> {
    find_kind(loaded, registry).map_err(|error| match error {
        ConfigError::Value { problem, .. } if args.kind.is_some() => {
            Usage(format!("`--kind`: {problem}")).into()
        }
        error => anyhow::Error::from(error),
    })?;
    for url in &args.url {
        check_url(url)?;
    }
    let files: Vec<PathBuf> = sources.iter().filter_map(file).collect();
    check_reports(&args.told, &loaded.config, &files)
}

/// Refuses a file of this machine where a URL belongs.
fn check_url(url: &str) -> anyhow::Result<()> {
    if recorded_target(url).is_ok() || !Path::new(url).exists() {
        return Ok(());
    }
    Err(Usage(format!(
        "`--url {url}`: it is a file of this machine, not a URL; to read it as a list: `gannet fetch {url}`"
    ))
    .into())
}

/// Says which list is not there, before a store is made for it.
async fn check_lists(sources: &[SourceSpec]) -> Result<(), SourceError> {
    for source in sources {
        if let Place::Path(path) = &source.place {
            FileSource::new(path, source.format).check().await?;
        }
    }
    Ok(())
}

/// What is wrong with the reports, before anything is touched.
pub(super) fn check_reports(told: &Told, config: &Config, lists: &[PathBuf]) -> anyhow::Result<()> {
    Reports::check(&told.report, &config.storage.root, lists).map_err(|error| match error {
        error if error.is_usage() => Usage(format!("`--report`: {error}")).into(),
        error => error.into(),
    })
}

/// The file that holds a list; `None` where it is on the web.
fn file(source: &SourceSpec) -> Option<PathBuf> {
    match &source.place {
        Place::Stdin => Some("/dev/stdin".into()),
        Place::Path(path) => Some(path.clone()),
        Place::Url(_) | Place::Search(_) => None,
    }
}

/// All that was named, as one source: the lists first, then the URLs themselves.
fn source(
    args: &Fetch,
    lists: Vec<SourceSpec>,
    reader: &Reader,
) -> Result<Arc<dyn Source>, SourceError> {
    let mut sources = lists
        .into_iter()
        .map(|list| list.into_source(reader))
        .collect::<Result<Vec<_>, _>>()?;
    if !args.url.is_empty() {
        sources.push(Arc::new(InlineSource::new(args.url.iter().cloned())));
    }
    Ok(ChainSource::of(sources))
}

fn spec(
    args: &Fetch,
    lists: Vec<SourceSpec>,
    reader: &Reader,
    terms: &Arc<Terms>,
) -> Result<Spec, SourceError> {
    Ok(Spec {
        count: args.count,
        shard: args.shard,
        refresh: args.refresh,
        ..Spec::new(source(args, lists, reader)?, terms)
    })
}

async fn dry_run(args: &Fetch, config: &Config, lists: Vec<SourceSpec>) -> anyhow::Result<u8> {
    let terms = Terms::new(config.setup(), downloader::builtin(&config.image))?;
    let reader = Reader {
        shelf: Some(Shelf::to_read(config.storage.lists())),
        ..terms.lists().clone()
    };
    let spec = spec(args, lists, &reader, &terms)?;
    let mut told = Rehearsal {
        reports: Reports::create(&args.told.report, &config.storage.root)?,
        out: (!args.told.json).then(|| BufWriter::new(std::io::stdout())),
    };
    let rehearsed = rehearse(&spec, config.setup(), &mut told).await?;
    if let Some(mut out) = told.out {
        let (would, invalid) = (rehearsed.would, rehearsed.summary.counts.failed);
        writeln!(
            out,
            "would fetch {}, ask about {}; {} fresh, {} waiting, {invalid} invalid",
            would.fetch, would.ask, would.fresh, would.wait
        )?;
        out.flush()?;
    } else {
        let json = serde_json::to_string(&rehearsed)?;
        writeln!(std::io::stdout().lock(), "{json}")?;
    }
    Ok(0)
}

/// Tells what a dry run finds: to the reports, and a line for each target to `out`.
struct Rehearsal {
    reports: Reports,
    out: Option<BufWriter<Stdout>>,
}

impl Observer for Rehearsal {
    fn begin(&mut self, head: &Head) -> anyhow::Result<()> {
        Ok(self.reports.begin(head)?)
    }

    fn items(&mut self, items: &[Item]) -> anyhow::Result<()> {
        for item in items {
            self.reports.item(item)?;
            let Some(out) = &mut self.out else { continue };
            if let Some(would) = item.would {
                writeln!(out, "{:7}  {}", would.as_str(), item.url)?;
            } else {
                let detail = item.detail.as_deref().unwrap_or_default();
                match item.line {
                    Some(line) => writeln!(out, "invalid  line {line}: {detail}")?,
                    None => writeln!(out, "invalid  {}: {detail}", item.url)?,
                }
            }
        }
        if let Some(out) = &mut self.out {
            out.flush()?;
        }
        Ok(self.reports.flush()?)
    }

    fn tick(&mut self, _: &Snapshot) {}

    fn end(&mut self, summary: &Summary) -> anyhow::Result<()> {
        Ok(self.reports.end(summary)?)
    }
}
