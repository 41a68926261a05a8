//! `gannet why`: what is known of a URL or a file, and what the next job does about it.

use std::io::Write;
use std::path::{Component, Path};

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use url::Url;

use super::args::{Global, Why};
use super::schedule::shown;
use super::{exit, load, output, start_log};
use crate::catalog::{self, Catalog, ScheduleRow};
use crate::config::Loaded;
use crate::job::{
    Diagnosis, FileReport, MAX_OUTCOMES, Outlook, PastOutcome, Profile, Subject, UrlReport, Would,
    diagnose,
};
use crate::target::{Reason, Sha256};

/// When a schedule runs next.
#[derive(Debug, Serialize)]
struct Due {
    name: String,
    /// `None`: it is paused, never due, or no longer in the settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<DateTime<Utc>>,
    paused: bool,
    /// Unset if the settings no longer have it.
    configured: bool,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
    schedules: Vec<Due>,
}

pub(super) async fn run(args: &Why, global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, output(args.output.as_deref())?)?;
    let config = &loaded.config;
    let _log = start_log(global, config, None)?;
    super::catalog::must_exist(&config.catalog, &config.storage.root)?;
    let catalog = catalog::open_to_read(&config.catalog, &config.storage.root).await?;
    let root = &config.storage.root;
    let subject = subject(&args.subject, root);
    let now = Utc::now();
    let profile = |schedule: Option<&str>| {
        let named = |name| loaded.schedules.iter().find(|s| s.name == name);
        let config = schedule.and_then(named).map_or(config, |s| &s.config);
        Profile {
            fetch: &config.fetch,
            hosts: &config.hosts,
        }
    };
    let diagnosis = diagnose(&*catalog, root, &subject, profile, now)
        .await
        .context("cannot read the catalog")?;
    let schedules = schedules(&*catalog, &loaded, &diagnosis, now).await?;
    catalog.close().await;
    if diagnosis.is_empty() && !args.json {
        return Err(nothing_known(&args.subject, &subject, &diagnosis, root));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if args.json {
        let diagnosis = &diagnosis;
        let answer = Answer {
            diagnosis,
            schedules,
        };
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    } else {
        print(&diagnosis, &schedules, &mut out)?;
    }
    out.flush()?;
    Ok(match diagnosis.is_empty() {
        true => exit::COULD_NOT_RUN,
        false => 0,
    })
}

/// What an argument names: a URL, a digest, a path below the store, in that order; else a line of a list.
fn subject(text: &str, root: &Path) -> Subject {
    match Url::parse(text) {
        Ok(url) if url.has_host() && text.contains("://") => return Subject::Url(url),
        _ => {}
    }
    if let Ok(sha256) = text.parse::<Sha256>() {
        return Subject::Content(sha256);
    }
    match path_in(root, Path::new(text)) {
        Some(path) => Subject::Path(path),
        None => Subject::Line(text.to_owned()),
    }
}

/// The path relative to the store of a file that is there, as seen from here or from the store's root; or of one that
/// may have been there.
fn path_in(root: &Path, path: &Path) -> Option<String> {
    let root = root.canonicalize().ok()?;
    let below = |path: &Path| {
        let folder = path.parent()?.canonicalize().ok()?;
        let path = folder.join(path.file_name()?);
        Some(path.strip_prefix(&root).ok()?.to_str()?.to_owned())
    };
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let seen_from_here =
        below(&std::path::absolute(path).ok()?).filter(|_| path.exists() || path.is_absolute());
    seen_from_here.or_else(|| {
        let is_name = is_plain && !path.as_os_str().is_empty();
        path.to_str().filter(|_| is_name).map(str::to_owned)
    })
}

/// The schedules that had the URL, with the times at which they are due.
async fn schedules(
    catalog: &dyn Catalog,
    loaded: &Loaded,
    diagnosis: &Diagnosis,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<Due>> {
    let of_records = diagnosis.records.iter().map(|record| &record.schedule);
    let of_outcomes = diagnosis.outcomes.iter().map(|outcome| &outcome.schedule);
    let mut names: Vec<&String> = of_records.chain(of_outcomes).flatten().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows = catalog.schedules().await?;
    let is_paused = |name: &str| {
        rows.iter()
            .any(|row: &ScheduleRow| row.name == name && row.paused)
    };
    Ok(names
        .into_iter()
        .map(|name| {
            let schedule = loaded.schedules.iter().find(|s| s.name == *name);
            let paused = is_paused(name);
            let next =
                |s: &crate::config::Schedule| s.policy.cron.next_after(now, s.policy.timezone);
            Due {
                due: schedule.filter(|_| !paused).and_then(next),
                paused,
                configured: schedule.is_some(),
                name: name.clone(),
            }
        })
        .collect())
}

fn print(diagnosis: &Diagnosis, schedules: &[Due], out: &mut impl Write) -> std::io::Result<()> {
    if let Some(file) = &diagnosis.file {
        writeln!(out, "{}", describe_file(file))?;
        if diagnosis.records.is_empty() {
            writeln!(
                out,
                "no URL stands for it: a client uploaded it, or its URL was removed"
            )?;
        }
        writeln!(out)?;
    }
    for record in &diagnosis.records {
        print_record(record, diagnosis.file.is_some(), out)?;
        writeln!(out)?;
    }
    for schedule in schedules {
        writeln!(
            out,
            "schedule `{}` {}",
            schedule.name,
            describe_due(schedule)
        )?;
    }
    if let (true, Some(record)) = (schedules.is_empty(), diagnosis.records.first()) {
        match record.outcome.is_failure(record.reason) {
            true => writeln!(
                out,
                "no schedule had it: `gannet retry {}` requests it again",
                record.job
            )?,
            false => writeln!(out, "no schedule had it: only another run requests it")?,
        }
    }
    if !diagnosis.outcomes.is_empty() {
        writeln!(out, "\nin the history, newest first:")?;
    }
    for outcome in &diagnosis.outcomes {
        print_outcome(outcome, out)?;
    }
    if diagnosis.outcomes.len() == MAX_OUTCOMES as usize {
        writeln!(out, "  older ones are not shown")?;
    }
    Ok(())
}

/// The error for a subject of which nothing is known.
fn nothing_known(
    asked: &str,
    subject: &Subject,
    diagnosis: &Diagnosis,
    root: &Path,
) -> anyhow::Error {
    match (subject, diagnosis.similar.as_slice()) {
        (Subject::Url(_), []) => anyhow!(
            "the catalog has no URL `{asked}`: no job had it, or the record is gone; `gannet fetch -u URL` fetches it"
        ),
        (Subject::Url(_), similar) => {
            let similar: Vec<_> = similar.iter().map(|url| format!("`{url}`")).collect();
            let similar = similar.join(" or ");
            anyhow!("the catalog has no URL `{asked}`; did you mean {similar}?")
        }
        (Subject::Path(path), _) if root.join(path).exists() => anyhow!(
            "the catalog has no record of `{asked}`, although the file is there; `gannet verify` lists such files"
        ),
        (Subject::Path(_) | Subject::Line(_), _) => {
            anyhow!("the catalog has no file `{asked}`, and no job had a line that reads so")
        }
        (Subject::Content(_), _) => anyhow!("the catalog has no file with the SHA-256 `{asked}`"),
    }
}

fn print_record(record: &UrlReport, is_of_file: bool, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{}", record.url)?;
    if let Some(album) = &record.album {
        writeln!(out, "  album      {album}")?;
    }
    if let Some(name) = &record.name {
        writeln!(out, "  name       {name}, as the list asks")?;
    }
    if let Some(answered) = &record.answered {
        writeln!(out, "  redirects  to {answered}")?;
    }
    let mut outcome = record.outcome.to_string();
    if let Some(reason) = record.reason {
        outcome += &describe_reason(reason, record.status);
    }
    writeln!(out, "  outcome    {outcome}, in job {}", record.job)?;
    if record.failures > 0 {
        let times = match record.failures {
            1 => "once".to_owned(),
            times => format!("{times} times in a row"),
        };
        writeln!(out, "  failed     {times}")?;
    }
    if let Some(tried) = record.tried {
        writeln!(out, "  requested  {}", shown(tried))?;
    }
    if let Some(checked) = record
        .checked
        .filter(|checked| Some(*checked) != record.tried)
    {
        writeln!(out, "  confirmed  {}", shown(checked))?;
    }
    match &record.file {
        _ if is_of_file => {}
        Some(file) => writeln!(out, "  file       {}", describe_file(file))?,
        None => writeln!(out, "  file       none")?,
    }
    writeln!(out, "  next job   {}", describe_next(&record.next))
}

fn describe_reason(reason: Reason, status: Option<u16>) -> String {
    match (reason, status) {
        (Reason::Status, Some(status)) => format!(": status {status}"),
        (reason, _) => format!(": {reason}"),
    }
}

fn describe_file(file: &FileReport) -> String {
    let missing = match file.is_present {
        true => "",
        false => ", but it is gone or was changed: `gannet verify --repair` fetches it again",
    };
    format!(
        "{} ({}, {} bytes){missing}",
        file.path, file.format, file.bytes
    )
}

fn describe_next(next: &Outlook) -> String {
    let until = next.until.map(shown);
    match (next.action, until) {
        (Would::Fetch, _) => "fetches it".to_owned(),
        (Would::Ask, _) => "asks the origin whether it has changed".to_owned(),
        (Would::Fresh, Some(until)) => {
            format!("does not request it before {until}: the record is fresh; `--refresh` does")
        }
        (Would::Fresh, None) => {
            "does not request it: the record is fresh; `--refresh` does".to_owned()
        }
        (Would::Wait, _) => next.detail.clone().unwrap_or_else(|| "waits".to_owned()),
    }
}

fn describe_due(schedule: &Due) -> String {
    match (schedule.configured, schedule.paused, schedule.due) {
        (false, ..) => "had it, but is no longer in the settings".to_owned(),
        (_, true, _) => format!(
            "is paused; `gannet schedule resume {}` starts it again",
            schedule.name
        ),
        (.., Some(due)) => format!("is due at {}", shown(due)),
        (.., None) => "is never due".to_owned(),
    }
}

fn print_outcome(past: &PastOutcome, out: &mut impl Write) -> std::io::Result<()> {
    let PastOutcome {
        job,
        started,
        schedule,
        outcome,
    } = past;
    let when = started.map_or_else(|| "unknown time".to_owned(), shown);
    let why = outcome
        .reason
        .map(|reason| describe_reason(reason, outcome.status));
    let of = schedule
        .as_ref()
        .map_or_else(String::new, |name| format!(" of schedule `{name}`"));
    let line = outcome
        .line
        .map_or_else(String::new, |line| format!(", line {line}"));
    let attempts = match outcome.attempts {
        0 => String::new(),
        1 => ", 1 attempt".to_owned(),
        attempts => format!(", {attempts} attempts"),
    };
    writeln!(
        out,
        "  {when}  {}{}{attempts}{line}, in job {job}{of}",
        outcome.outcome,
        why.unwrap_or_default()
    )?;
    if let Some(detail) = &outcome.detail {
        writeln!(out, "      {detail}")?;
    }
    Ok(())
}
