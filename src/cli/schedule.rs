//! `gannet schedule`: what a running daemon has to do, and telling it otherwise.

use std::io::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};

use super::args::{Global, ScheduleCommand};
use super::{load, output};
use crate::api::ScheduleStatus;
use crate::daemon::Client;

pub(super) async fn run(command: &ScheduleCommand, global: &Global) -> anyhow::Result<u8> {
    let (ScheduleCommand::List { output, .. }
    | ScheduleCommand::Run { output, .. }
    | ScheduleCommand::Pause { output, .. }
    | ScheduleCommand::Resume { output, .. }) = command;
    let config = load(global, self::output(output.as_deref())?)?.config;
    let mut client = Client::connect(&config.storage.root).await?;
    let mut out = std::io::stdout().lock();
    match command {
        ScheduleCommand::List { json, .. } => {
            let schedules = client.status().await?.schedules;
            if *json {
                writeln!(out, "{}", serde_json::to_string(&schedules)?)?;
            } else {
                for schedule in &schedules {
                    print(schedule, &mut out)?;
                }
            }
        }
        ScheduleCommand::Run { name, .. } => {
            client.schedule(name, "run").await?;
            writeln!(out, "`{name}` runs; `gannet status` shows how far it is")?;
        }
        ScheduleCommand::Pause { name, .. } => {
            client.schedule(name, "pause").await?;
            writeln!(
                out,
                "`{name}` is paused, until `gannet schedule resume {name}`"
            )?;
        }
        ScheduleCommand::Resume { name, .. } => {
            let schedule = client.schedule(name, "resume").await?;
            writeln!(out, "`{name}` runs again: {}", when(schedule.next))?;
        }
    }
    Ok(0)
}

/// A line for a schedule, and one for how its last job ended.
pub(super) fn print(
    schedule: &ScheduleStatus,
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    let ScheduleStatus {
        name,
        cron,
        timezone,
        ..
    } = schedule;
    let state = match (&schedule.running, schedule.paused) {
        (Some(running), _) => {
            let total = running
                .total
                .map_or_else(String::new, |total| format!(" of {total}"));
            format!("running: {}{total} targets", running.counts.targets)
        }
        (None, true) => "paused".to_owned(),
        (None, false) => when(schedule.next),
    };
    writeln!(out, "{name:20}  {cron} ({timezone})  {state}")?;
    if let Some(last) = &schedule.last {
        let state = match last.interrupted {
            true => "interrupted",
            false => last.state.as_str(),
        };
        let why = last
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!(": {error}"));
        writeln!(
            out,
            "{:20}  last {state} at {}, {}{why}",
            "",
            shown(last.finished),
            last.counts,
        )?;
    }
    Ok(())
}

fn when(next: Option<DateTime<Utc>>) -> String {
    next.map_or_else(
        || "never due".to_owned(),
        |next| format!("next {}", shown(next)),
    )
}

pub(super) fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
