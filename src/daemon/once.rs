//! Schedules, one time each: for cron, Jenkins and Airflow.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::agenda::Agenda;
use super::notes::Notes;
use crate::config::Loaded;
use crate::job::{Ending, Engine, Stop};
use crate::notify::Notifier;
use crate::target::{Counts, State};

/// What schedules came to that ran one time each.
#[derive(Debug, Clone, Serialize)]
pub struct Once {
    /// The worst of theirs: `failed`, `incomplete`, `cancelled`, `completed`.
    pub state: State,
    /// All of their targets.
    pub counts: Counts,
    /// Each job.
    pub jobs: Vec<Ran>,
    /// What the worst end means.
    #[serde(skip)]
    pub ending: Ending,
}

/// What a schedule came to.
#[derive(Debug, Clone, Serialize)]
pub struct Ran {
    /// The schedule.
    pub schedule: String,
    /// Its job; `None` where it could not begin.
    pub job: Option<Uuid>,
    /// How it ended.
    pub state: State,
    /// What became of its targets.
    pub counts: Counts,
    /// Why it could not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Runs the schedules called `names`, or all that are not paused, at the same time.
///
/// # Errors
///
/// When a schedule never could run, or the store or the catalog cannot be used.
pub async fn once(loaded: &Loaded, names: &[String], stop: Stop) -> anyhow::Result<Once> {
    let mut agenda = Agenda::new(loaded, None)?;
    let engine = Arc::new(Engine::start(loaded.config.setup()).await?);
    let notifier = Notifier::start(loaded.notify()?, engine.catalog().clone(), false).await?;
    let ran = run(&mut agenda, names, &engine, &stop).await;
    notifier.stop(Duration::MAX).await;
    if let Some(engine) = Arc::into_inner(engine) {
        engine.shut_down().await;
    }
    ran
}

async fn run(
    agenda: &mut Agenda,
    names: &[String],
    engine: &Arc<Engine>,
    stop: &Stop,
) -> anyhow::Result<Once> {
    let catalog = engine.catalog();
    agenda.remember(catalog.schedules().await?, chrono::Utc::now());
    let all: Vec<String> = agenda.names().map(str::to_owned).collect();
    let mut jobs = JoinSet::new();
    for name in all {
        if names.is_empty() && agenda.is_paused(&name) {
            tracing::info!("schedule `{name}` is paused, and not run unless it is named");
        } else if names.is_empty() || names.contains(&name) {
            agenda.begin(&name, engine, stop, &mut jobs);
        }
    }
    let mut once = Once {
        state: State::Completed,
        counts: Counts::default(),
        jobs: Vec::new(),
        ending: Ending::Fine,
    };
    while let Some(ended) = jobs.join_next_with_id().await {
        let Some(over) = agenda.end(ended) else {
            continue;
        };
        once.ending = worse(once.ending, over.ending, weight_of_ending);
        let state = match over.ending {
            Ending::Left => State::Cancelled,
            _ => over.last.state,
        };
        once.state = worse(once.state, state, weight_of_state);
        if let Some(end) = &over.unrecorded {
            catalog.end_job(end).await?;
        }
        once.counts += over.last.counts;
        once.jobs.push(Ran {
            schedule: over.schedule,
            job: over.last.job,
            state: over.last.state,
            counts: over.last.counts,
            error: over.last.error,
        });
    }
    once.jobs.sort_by(|a, b| a.schedule.cmp(&b.schedule));
    let notes = Notes::new(catalog.clone());
    for row in agenda.changed_rows() {
        notes.write(row);
    }
    notes.close().await;
    Ok(once)
}

fn worse<T: Copy>(one: T, other: T, weight: impl Fn(T) -> u8) -> T {
    if weight(other) > weight(one) {
        other
    } else {
        one
    }
}

fn weight_of_ending(ending: Ending) -> u8 {
    match ending {
        Ending::Broken => 3,
        Ending::Failures => 2,
        Ending::Stopped | Ending::Left => 1,
        Ending::Fine => 0,
    }
}

fn weight_of_state(state: State) -> u8 {
    match state {
        State::Failed => 3,
        State::Incomplete => 2,
        State::Cancelled => 1,
        State::Queued | State::Ongoing | State::Completed => 0,
    }
}
