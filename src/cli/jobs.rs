//! `gannet jobs`: the history, and one job's outcomes.

use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use chrono::Utc;
use uuid::Uuid;

use super::args::{Global, Jobs};
use super::{load, start_log};
use crate::catalog::{self, Catalog, JobRow, OutcomeFilter, OutcomeRow};
use crate::clock;
use crate::job::Item;
use crate::job::summary::{Failures, Groups};
use crate::target::{Reason, printable};
use crate::telemetry;

/// Outcomes that are read at a time.
const PAGE: u32 = 1000;

/// Jobs among which the beginning of an id is looked up.
const RECENT: u32 = 10_000;

/// Opens the catalog of the store at `output`, or where the settings say, to look at it; and the log.
pub(super) async fn open(
    output: Option<&Path>,
    global: &Global,
) -> anyhow::Result<(Arc<dyn Catalog>, telemetry::Guard)> {
    let flags = super::args::root(output).map_err(super::Usage)?;
    let config = load(global, flags)?.config;
    let log = start_log(global, &config, None)?;
    super::catalog::must_exist(&config.catalog, &config.storage.root)?;
    let catalog = catalog::open_to_read(&config.catalog, &config.storage.root).await?;
    Ok((catalog, log))
}

pub(super) async fn run(args: &Jobs, global: &Global) -> anyhow::Result<u8> {
    let (catalog, _log) = open(args.output.as_deref(), global).await?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match &args.id {
        None => list(&*catalog, args, &mut out).await?,
        Some(id) => {
            let job = find(&*catalog, id).await?;
            show(&*catalog, &job, args, &mut out).await?;
        }
    }
    out.flush()?;
    catalog.close().await;
    Ok(0)
}

async fn list(catalog: &dyn Catalog, args: &Jobs, out: &mut impl Write) -> anyhow::Result<()> {
    let limit = match args.limit {
        0 => u32::MAX,
        limit => limit,
    };
    let now = Utc::now();
    let jobs = catalog::recent_jobs(catalog, limit, now).await?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&jobs)?)?;
        return Ok(());
    }
    if jobs.is_empty() {
        writeln!(out, "no jobs yet")?;
        return Ok(());
    }
    writeln!(
        out,
        "{:36}  {:10}  {:19}  {:>9}  {:>9}  {:>7}  {:>7}  SOURCE",
        "JOB", "STATE", "STARTED (UTC)", "DURATION", "TARGETS", "NEW", "FAILED"
    )?;
    for job in &jobs {
        let new = job.counts.stored + job.counts.changed;
        writeln!(
            out,
            "{}  {:10}  {:19}  {:>9}  {:>9}  {:>7}  {:>7}  {}",
            job.id,
            job.state,
            job.started.format("%Y-%m-%d %H:%M:%S"),
            duration(job),
            job.counts.targets,
            new,
            job.failures,
            job.source,
        )?;
    }
    let ahead = jobs
        .iter()
        .filter(|job| !clock::is_believable(job.started, now))
        .count();
    match ahead {
        0 => {}
        1 => writeln!(
            out,
            "\n1 job is dated in the future, by a clock that was ahead; it is listed last"
        )?,
        _ => writeln!(
            out,
            "\n{ahead} jobs are dated in the future, by a clock that was ahead; they are listed last"
        )?,
    }
    Ok(())
}

fn duration(job: &JobRow) -> String {
    let Some(finished) = job.finished else {
        return "-".to_owned();
    };
    let elapsed = (finished - job.started).to_std().unwrap_or_default();
    match elapsed.as_secs() {
        0..60 => format!("{:.1}s", elapsed.as_secs_f64()),
        secs => humantime::format_duration(std::time::Duration::from_secs(secs))
            .to_string()
            .replace(' ', ""),
    }
}

/// The job that `id` names: an id, the beginning of one, or `last`.
pub(super) async fn find(catalog: &dyn Catalog, id: &str) -> anyhow::Result<JobRow> {
    if let Ok(id) = Uuid::parse_str(id) {
        return catalog
            .job(id)
            .await?
            .ok_or_else(|| anyhow::anyhow!("there is no job `{id}`; `gannet jobs` lists them"));
    }
    if id == "last" {
        let last = catalog::recent_jobs(catalog, 1, Utc::now()).await?.pop();
        return last.ok_or_else(|| anyhow::anyhow!("there are no jobs yet"));
    }
    let recent = catalog.jobs(None, None, RECENT).await?;
    let wanted = id.to_lowercase();
    let mut found = recent
        .into_iter()
        .filter(|job| job.id.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(job), None) => Ok(job),
        (Some(_), Some(_)) => bail!("more than one job begins with `{id}`; write more of its id"),
        (None, _) => bail!("there is no job `{id}`; `gannet jobs` lists them"),
    }
}

async fn show(
    catalog: &dyn Catalog,
    job: &JobRow,
    args: &Jobs,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if !args.failed && !args.json {
        writeln!(
            out,
            "job {} {}: {} from {}",
            job.id, job.state, job.kind, job.source
        )?;
        writeln!(
            out,
            "{}, {} bytes kept, {}",
            job.counts,
            job.bytes,
            duration(job)
        )?;
        if let Some(error) = &job.error {
            writeln!(out, "{error}")?;
        }
        if job.counts.unchanged > 0 {
            writeln!(
                out,
                "{} unchanged {} counted, not listed",
                job.counts.unchanged,
                match job.counts.unchanged {
                    1 => "target is",
                    _ => "targets are",
                }
            )?;
        }
        writeln!(out)?;
    }
    let filter = if args.failed {
        OutcomeFilter::Failed
    } else {
        OutcomeFilter::All
    };
    let mut failures = Failures::default();
    let mut after = None;
    loop {
        let page = catalog.outcomes(job.id, filter, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.seq);
        for row in &page {
            if args.json {
                writeln!(out, "{}", serde_json::to_string(row)?)?;
            } else if args.failed {
                writeln!(out, "{}", row.url)?;
            } else {
                failures.note(&item(row));
                print_row(row, out)?;
            }
        }
    }
    if !args.json && !args.failed {
        let groups = Groups {
            failures: &failures,
            elsewhere: "all of them are listed above",
            color: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        write!(out, "{groups}")?;
    }
    if args.json && !args.failed {
        // Unchanged targets are in its counts only.
        writeln!(out, "{}", serde_json::to_string(job)?)?;
    }
    Ok(())
}

/// A line for a target, and one with the details if it could not be had.
fn print_row(row: &OutcomeRow, out: &mut impl Write) -> std::io::Result<()> {
    let file = row.file.as_ref().map(|file| file.path.clone());
    let what = match (row.reason, row.status) {
        (Some(Reason::Status), Some(status)) => format!("status {status}"),
        (Some(reason), _) => reason.to_string(),
        (None, _) => file.unwrap_or_default(),
    };
    let line = row
        .line
        .map_or_else(String::new, |line| format!(" (line {line})"));
    let url = printable(&row.url);
    writeln!(out, "{:9}  {what:24}  {url}{line}", row.outcome)?;
    match &row.detail {
        Some(detail) => writeln!(out, "{:9}  {}", "", printable(detail)),
        None => Ok(()),
    }
}

/// The row as the report had it, as far as failures are grouped by it.
fn item(row: &OutcomeRow) -> Item {
    Item {
        reason: row.reason,
        detail: row.detail.clone(),
        status: row.status,
        line: row.line,
        ..Item::new(row.url.clone(), row.outcome)
    }
}
