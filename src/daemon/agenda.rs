//! The schedules, and what they are about.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use rand::Rng;
use tokio::task::{Id, JoinError, JoinSet};
use uuid::Uuid;

use crate::api::{Asked, LastRun, Refused, RunningJob, ScheduleStatus};
use crate::catalog::{Catalog, JobEnd, JobRow, ScheduleRow};
use crate::config::{Loaded, Schedule};
use crate::downloader;
use crate::job::progress::Snapshot;
use crate::job::report::{Head, Reports};
use crate::job::{Ending, Engine, Item, Observer, Spec, Stop, Summary, Terms};
use crate::metrics::METRICS;
use crate::schedule::{Cause, Due, Tick, Timetable};
use crate::source::{ChainSource, Place, Source, parse_source};
use crate::target::{Counts, State, describe};

/// Schedules that a line about all of them names, but for the last.
const MOST_SHOWN: usize = 9;

/// The schedules by name.
#[derive(Debug)]
pub(super) struct Agenda {
    /// What schedules share that have no settings of their own.
    common: Arc<Terms>,
    entries: BTreeMap<String, Entry>,
    /// What the catalog remembers, also of schedules that the settings lack.
    recorded: BTreeMap<String, ScheduleRow>,
}

#[derive(Debug)]
struct Entry {
    schedule: Arc<Schedule>,
    terms: Arc<Terms>,
    timetable: Timetable,
    running: Option<Running>,
    last: Option<LastRun>,
    /// Its last job.
    job: Option<Uuid>,
    missed: u64,
    /// Whether the settings have it no more: it goes when its job ends.
    is_gone: bool,
}

#[derive(Debug)]
struct Running {
    task: Id,
    /// What its job is called, should it come to one.
    job: Uuid,
    /// The settings that the job runs by.
    terms: Arc<Terms>,
    seen: Seen,
    /// Times of the schedule that passed meanwhile.
    skipped: u64,
}

/// How far a job is, as its observer sees it.
#[derive(Debug, Clone)]
struct Seen(Arc<Mutex<RunningJob>>);

impl Seen {
    fn lock(&self) -> MutexGuard<'_, RunningJob> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the task of a job leaves.
#[derive(Debug)]
pub(super) struct Ended {
    schedule: String,
    result: anyhow::Result<Summary>,
}

/// A schedule's job that is over.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) schedule: String,
    pub(super) last: LastRun,
    /// What its end means.
    pub(super) ending: Ending,
    /// What is to be recorded of it, where it could not do so itself.
    pub(super) unrecorded: Option<JobEnd>,
}

impl Agenda {
    /// The schedules of `loaded`, none of which has begun anything. Connections of `earlier` are kept where they may.
    pub(super) fn new(loaded: &Loaded, earlier: Option<&Self>) -> anyhow::Result<Self> {
        let (setup, kinds) = (
            loaded.config.setup(),
            downloader::builtin(&loaded.config.image),
        );
        let common = match earlier {
            Some(earlier) => earlier.common.reloaded(setup, kinds)?,
            None => Terms::new(setup, kinds)?,
        };
        let now = Utc::now();
        let mut entries = BTreeMap::new();
        let mut reports: BTreeMap<PathBuf, &str> = BTreeMap::new();
        for schedule in &loaded.schedules {
            let name = schedule.name.clone();
            for report in &schedule.reports {
                let path = std::path::absolute(report).unwrap_or_else(|_| report.to_path_buf());
                if let Some(other) = reports.insert(path, &schedule.name) {
                    anyhow::bail!(
                        "schedules `{other}` and `{name}` would write the same report `{}`",
                        report.display()
                    );
                }
            }
            let terms = terms(schedule, &common).with_context(|| match &loaded.file {
                Some(file) => format!("`{}`, schedule `{name}`", file.display()),
                None => format!("schedule `{name}`"),
            })?;
            let entry = Entry {
                timetable: Timetable::start(schedule.policy.clone(), Default::default(), now),
                schedule: Arc::new(schedule.clone()),
                terms,
                running: None,
                last: None,
                job: None,
                missed: 0,
                is_gone: false,
            };
            entries.insert(name, entry);
        }
        Ok(Self {
            common,
            entries,
            recorded: BTreeMap::new(),
        })
    }

    /// What schedules share that have no settings of their own.
    pub(super) fn common(&self) -> &Arc<Terms> {
        &self.common
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether its times are to pass without a run.
    pub(super) fn is_paused(&self, name: &str) -> bool {
        let entry = self.entries.get(name);
        entry.is_some_and(|entry| entry.timetable.state().paused)
    }

    /// Takes up what an earlier process left.
    pub(super) fn remember(&mut self, rows: Vec<ScheduleRow>, now: DateTime<Utc>) {
        self.recorded = rows
            .into_iter()
            .map(|row| (row.name.clone(), row))
            .collect();
        for (name, entry) in &mut self.entries {
            if let Some(row) = self.recorded.get(name) {
                entry.take_up(row, now);
            }
        }
    }

    /// Finds out how the last jobs ended, and has those go on that were interrupted.
    pub(super) async fn recall(&mut self, catalog: &dyn Catalog) -> anyhow::Result<()> {
        for (name, entry) in &mut self.entries {
            let spec = spec(&entry.schedule, &entry.terms).ok();
            if let Some(id) = entry.job
                && let Some(job) = catalog.job(id).await?
            {
                entry.last = job
                    .finished
                    .map(|finished| recalled(job, finished, spec.as_ref()));
            }
            if entry.timetable.state().paused {
                continue;
            }
            let Some(source) = spec.and_then(|spec| spec.source_id()) else {
                continue;
            };
            if let Some(job) = catalog.interrupted_job(source, Utc::now()).await?
                && job.schedule.as_ref() == Some(name)
                && job.is_within(entry.schedule.config.job.resume_within)
                && entry.timetable.request().is_ok()
            {
                tracing::info!(
                    "schedule `{name}`: job {} was interrupted, another goes on with it",
                    job.id
                );
            }
        }
        Ok(())
    }

    /// Goes by the schedules of `new`. Jobs under way go on by their old settings, but for how hosts may be asked.
    pub(super) fn replace(&mut self, new: Self, engine: &Engine, now: DateTime<Utc>) {
        self.common = new.common;
        for (name, entry) in &mut self.entries {
            entry.is_gone = !new.entries.contains_key(name);
        }
        self.entries
            .retain(|_, entry| !entry.is_gone || entry.running.is_some());
        for (name, mut new) in new.entries {
            match self.entries.get_mut(&name) {
                Some(entry) => {
                    entry.timetable.change(new.schedule.policy.clone(), now);
                    if let Some(running) = &entry.running {
                        engine.relimit(running.job, &running.terms, &new.terms);
                    }
                    (entry.schedule, entry.terms) = (new.schedule, new.terms);
                }
                None => {
                    if let Some(row) = self.recorded.get(&name) {
                        new.take_up(row, now);
                    }
                    self.entries.insert(name, new);
                }
            }
        }
    }

    /// Looks at the clock. Returns which schedules are to run now.
    pub(super) fn due(&mut self, now: DateTime<Utc>, rng: &mut impl Rng) -> Vec<String> {
        let mut due = Vec::new();
        for (name, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.is_gone) {
            match entry.timetable.tick(now, rng) {
                Some(Tick::Run(run)) => {
                    entry.missed += run.missed;
                    tell(name, run);
                    due.push(name.clone());
                }
                Some(Tick::Skipped(run)) => {
                    entry.missed += run.missed;
                    let skipped = entry.running.as_mut().map(|running| {
                        running.skipped += 1;
                        running.skipped
                    });
                    // The first time says it, the end how often.
                    if skipped == Some(1) {
                        tracing::warn!("schedule `{name}` is due and still running: skipped");
                    }
                }
                Some(Tick::Missed(missed)) => {
                    entry.missed += missed;
                    tracing::warn!(
                        "schedule `{name}`: {missed} times passed while nobody looked; `catch_up = true` makes up for them"
                    );
                }
                None => {}
            }
        }
        due
    }

    /// Begins a job.
    pub(super) fn begin(
        &mut self,
        name: &str,
        engine: &Arc<Engine>,
        stop: &Stop,
        jobs: &mut JoinSet<Ended>,
    ) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let seen = Seen(Arc::new(Mutex::new(RunningJob {
            job: None,
            started: Utc::now(),
            counts: Counts::default(),
            bytes: 0,
            total: None,
        })));
        let job = Uuid::now_v7();
        let (schedule, terms) = (entry.schedule.clone(), entry.terms.clone());
        let task = jobs.spawn({
            let (engine, stop, seen) = (engine.clone(), stop.clone(), seen.clone());
            let (schedule, terms) = (schedule, terms.clone());
            async move {
                let result = run(&engine, job, &schedule, &terms, &seen, stop).await;
                let schedule = schedule.name.clone();
                Ended { schedule, result }
            }
        });
        entry.running = Some(Running {
            task: task.id(),
            job,
            terms,
            seen,
            skipped: 0,
        });
    }

    /// Notes that the task of a job is over.
    pub(super) fn end(&mut self, ended: Result<(Id, Ended), JoinError>) -> Option<Over> {
        match ended {
            Ok((_, ended)) => self.note(ended),
            Err(error) => self.note_panic(&error),
        }
    }

    fn note(&mut self, ended: Ended) -> Option<Over> {
        let Ended { schedule, result } = ended;
        let ending = result
            .as_ref()
            .map_or(Ending::Broken, |summary| summary.ending);
        let entry = self.entries.get_mut(&schedule)?;
        entry.timetable.finished();
        let running = entry.running.take()?;
        if running.skipped > 1 {
            let skipped = running.skipped;
            tracing::warn!("schedule `{schedule}` was skipped {skipped} times while it ran");
        }
        let seen = running.seen.lock().clone();
        let last = match result {
            Ok(summary) => LastRun {
                job: Some(summary.job),
                // What is left to another one is recorded as failed and interrupted.
                state: match ending {
                    Ending::Left => State::Failed,
                    _ => summary.state,
                },
                interrupted: matches!(ending, Ending::Left | Ending::Stopped),
                started: summary.started,
                finished: summary.finished,
                counts: summary.counts,
                over_max_failures: ending == Ending::Failures,
                error: summary.error,
            },
            Err(error) => LastRun {
                job: seen.job,
                state: State::Failed,
                interrupted: false,
                started: seen.started,
                finished: Utc::now(),
                counts: seen.counts,
                over_max_failures: false,
                error: Some(format!("{error:#}")),
            },
        };
        let why = || {
            let job = last
                .job
                .map_or_else(|| "last".to_owned(), |job| job.to_string());
            let counts = format!("{}; `gannet jobs {job}` lists them", last.counts);
            last.error.clone().unwrap_or(counts)
        };
        if last.has_failed() {
            tracing::error!("schedule `{schedule}` failed: {}", why());
        } else if last.over_max_failures {
            tracing::warn!("schedule `{schedule}` is incomplete: {}", why());
        }
        entry.job = last.job.or(entry.job);
        if last.is_success() {
            METRICS.schedule_succeeded(&schedule, last.finished);
        }
        entry.last = Some(last.clone());
        if entry.is_gone {
            self.entries.remove(&schedule);
        }
        Some(Over {
            schedule,
            last,
            ending,
            unrecorded: None,
        })
    }

    /// The code of a job panicked: no other job need know.
    fn note_panic(&mut self, error: &JoinError) -> Option<Over> {
        let mut entries = self.entries.iter();
        let (schedule, job) = entries.find_map(|(name, entry)| {
            let running = entry.running.as_ref()?;
            (running.task == error.id()).then(|| {
                // It may have begun before anybody heard of it.
                running.seen.lock().job = Some(running.job);
                (name.clone(), running.job)
            })
        })?;
        let told = "internal error: the code that ran the job panicked; please report it";
        let result = Err(anyhow::anyhow!(told));
        let mut over = self.note(Ended { schedule, result })?;
        over.unrecorded = Some(JobEnd {
            id: job,
            state: State::Failed,
            interrupted: false,
            repeats: 0,
            error: Some(told.to_owned()),
            finished: over.last.finished,
        });
        Some(over)
    }

    /// Does what somebody asks of a schedule.
    pub(super) fn obey(
        &mut self,
        asked: &Asked,
        now: DateTime<Utc>,
    ) -> Result<ScheduleStatus, Refused> {
        let name = asked.schedule();
        let here = |entry: &&mut Entry| !entry.is_gone;
        let Some(entry) = self.entries.get_mut(name).filter(here) else {
            let here = self.entries.iter().filter(|(_, entry)| !entry.is_gone);
            let known = here.map(|(name, _)| name.clone()).collect();
            return Err(Refused::Unknown {
                name: name.to_owned(),
                known,
            });
        };
        match asked {
            Asked::Show(_) => {}
            Asked::Run(_) => entry
                .timetable
                .request()
                .map_err(|_| Refused::Running(name.to_owned()))?,
            Asked::Pause(_) => entry.timetable.pause(),
            Asked::Resume(_) => entry.timetable.resume(now),
        }
        Ok(entry.status(name, now))
    }

    /// What the catalog does not remember yet.
    pub(super) fn changed_rows(&mut self) -> Vec<ScheduleRow> {
        let mut changed = Vec::new();
        for (name, entry) in &self.entries {
            let state = entry.timetable.state();
            let row = ScheduleRow {
                name: name.clone(),
                cron: entry.schedule.policy.cron.to_string(),
                paused: state.paused,
                last_due: state.last_due,
                job: entry
                    .running
                    .as_ref()
                    .and_then(|running| running.seen.lock().job)
                    .or(entry.job),
            };
            if self.recorded.get(name) != Some(&row) {
                self.recorded.insert(name.clone(), row.clone());
                changed.push(row);
            }
        }
        changed
    }

    pub(super) fn status(&self, now: DateTime<Utc>) -> Vec<ScheduleStatus> {
        let entries = self.entries.iter();
        entries
            .map(|(name, entry)| entry.status(name, now))
            .collect()
    }

    /// What is going on, in a line.
    pub(super) fn in_words(&self) -> String {
        let running: Vec<String> = self
            .entries
            .iter()
            .filter_map(|(name, entry)| {
                let seen = entry.running.as_ref()?.seen.lock();
                let done = seen.counts.targets;
                Some(match seen.total {
                    Some(total) => format!("{name} {done}/{total}"),
                    None => format!("{name} {done}"),
                })
            })
            .collect();
        if let [first @ .., last] = running.as_slice() {
            // It has to fit into a line, and into a message of 4096 bytes.
            let shown = first.iter().take(MOST_SHOWN).chain([last]);
            let shown: Vec<&str> = shown.map(String::as_str).collect();
            let more = match running.len() - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return format!("running: {}{more}", shown.join(", "));
        }
        let now = Utc::now();
        let next = self
            .entries
            .iter()
            .filter_map(|(name, entry)| Some((entry.timetable.next(now)?, name)));
        match next.min() {
            Some((at, name)) => format!(
                "next: {name} at {}",
                at.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            None => "nothing is due".to_owned(),
        }
    }
}

impl Entry {
    /// Goes on where the catalog remembers it.
    fn take_up(&mut self, row: &ScheduleRow, now: DateTime<Utc>) {
        let policy = self.timetable.policy().clone();
        let is_same_line = row.cron == policy.cron.to_string();
        let state = crate::schedule::State {
            // Times of another line say nothing about what was missed of this one.
            last_due: row.last_due.filter(|_| is_same_line),
            paused: row.paused,
        };
        self.timetable = Timetable::start(policy, state, now);
        if self.timetable.state().last_due < state.last_due {
            tracing::warn!(
                "schedule `{}` was last dealt with by a clock that was far ahead of this one: that is not believed",
                row.name
            );
        }
        self.job = row.job;
    }

    fn status(&self, name: &str, now: DateTime<Utc>) -> ScheduleStatus {
        let policy = self.timetable.policy();
        ScheduleStatus {
            name: name.to_owned(),
            cron: policy.cron.to_string(),
            timezone: policy.timezone.name().to_owned(),
            paused: self.timetable.state().paused,
            next: self.timetable.next(now).filter(|_| !self.is_gone),
            running: self
                .running
                .as_ref()
                .map(|running| running.seen.lock().clone()),
            last: self.last.clone(),
            skipped: self.timetable.skipped(),
            missed: self.missed,
        }
    }
}

/// Says why a job begins.
fn tell(name: &str, due: Due) {
    let missed = match due.missed {
        0 => String::new(),
        missed => format!("; {missed} times before it brought no run"),
    };
    let at = due
        .scheduled
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Secs, true);
    match due.cause {
        Cause::Schedule => tracing::info!("schedule `{name}` is due since {at}{missed}"),
        Cause::CatchUp => tracing::info!("schedule `{name}` makes up for {at}{missed}"),
        Cause::Start => tracing::info!("schedule `{name}` runs at the start{missed}"),
        Cause::Request => tracing::info!("schedule `{name}` was asked for{missed}"),
    }
}

/// What the jobs of a schedule run by. Fails where they never could.
fn terms(schedule: &Schedule, common: &Arc<Terms>) -> anyhow::Result<Arc<Terms>> {
    let config = &schedule.config;
    let kinds = match schedule.has_own_kinds {
        true => downloader::builtin(&config.image),
        false => common.registry().clone(),
    };
    kinds.find(&config.job.kind)?;
    let terms = common.with_settings(config.setup(), kinds)?;
    source(schedule, &terms)?;
    let lists: Vec<_> = schedule
        .sources
        .iter()
        .filter_map(|text| match parse_source(text, None).ok()?.place {
            Place::Path(path) => Some(path),
            Place::Stdin | Place::Url(_) | Place::Search(_) => None,
        })
        .collect();
    Reports::check(&schedule.reports, &config.storage.root, &lists)?;
    Ok(terms)
}

fn source(schedule: &Schedule, terms: &Terms) -> anyhow::Result<Arc<dyn Source>> {
    let mut sources: Vec<Arc<dyn Source>> = Vec::with_capacity(schedule.sources.len());
    for text in &schedule.sources {
        let encoding = schedule.list_encoding.or(terms.list_encoding());
        let spec = parse_source(text, schedule.list_format)?.in_encoding(encoding);
        anyhow::ensure!(
            !matches!(spec.place, Place::Stdin),
            "`source = \"-\"`: a schedule has no standard input; write a path or a URL"
        );
        sources.push(spec.into_source(terms.lists())?);
    }
    Ok(ChainSource::of(sources))
}

/// What a job of a schedule is to do.
fn spec(schedule: &Schedule, terms: &Arc<Terms>) -> anyhow::Result<Spec> {
    Ok(Spec {
        schedule: Some(schedule.name.clone()),
        count: schedule.count,
        refresh: schedule.refresh,
        ..Spec::new(source(schedule, terms)?, terms)
    })
}

async fn run(
    engine: &Engine,
    job: Uuid,
    schedule: &Schedule,
    terms: &Arc<Terms>,
    seen: &Seen,
    stop: Stop,
) -> anyhow::Result<Summary> {
    let spec = Spec {
        id: job,
        ..spec(schedule, terms)?
    };
    let reports = Reports::create(&schedule.reports, &schedule.config.storage.root)?;
    let mut told = Told {
        reports,
        seen: seen.clone(),
        broken: None,
    };
    Ok(engine.run(spec, &mut told, stop).await?)
}

/// Writes reports, and lets others see how far the job is.
struct Told {
    reports: Reports,
    seen: Seen,
    broken: Option<anyhow::Error>,
}

impl Observer for Told {
    fn begin(&mut self, head: &Head) -> anyhow::Result<()> {
        self.seen.lock().job = Some(head.job);
        Ok(self.reports.begin(head)?)
    }

    fn items(&mut self, items: &[Item]) -> anyhow::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        for item in items {
            self.reports.item(item)?;
        }
        Ok(())
    }

    fn tick(&mut self, snapshot: &Snapshot) {
        {
            let mut seen = self.seen.lock();
            (seen.counts, seen.bytes, seen.total) =
                (snapshot.counts, snapshot.bytes, snapshot.total);
        }
        if let Err(error) = self.reports.flush() {
            tracing::warn!("{}", describe(&error));
            self.broken.get_or_insert(error.into());
        }
    }

    fn end(&mut self, summary: &Summary) -> anyhow::Result<()> {
        self.reports.end(summary)?;
        self.broken.take().map_or(Ok(()), Err)
    }
}

/// How a job of an earlier process ended.
fn recalled(job: JobRow, finished: DateTime<Utc>, spec: Option<&Spec>) -> LastRun {
    // An incomplete job with an error has fewer files than were asked for, or was late.
    let over_max_failures = job.state == State::Incomplete
        && (job.error.is_some()
            || spec.is_some_and(|spec| {
                let (most, is_counted) = (spec.max_failures, spec.count.is_some());
                most.is_exceeded(job.failures, job.counts.targets, is_counted)
            }));
    LastRun {
        job: Some(job.id),
        state: job.state,
        interrupted: job.interrupted,
        started: job.started,
        finished,
        counts: job.counts,
        over_max_failures,
        error: job.error,
    }
}
