//! `gannet status`: what the daemon is about.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::args::{Global, StatusArgs};
use super::{exit, load, output, schedule};
use crate::api::{ReceiverStatus, Status};
use crate::clock;
use crate::daemon::{Client, ControlError, state_file};

/// The state file is written every few seconds; one that is older, in seconds, is a dead daemon's.
const STALE: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &StatusArgs, global: &Global) -> anyhow::Result<u8> {
    let config = load(global, output(args.output.as_deref())?)?.config;
    let root = &config.storage.root;
    let status = match Client::connect(root).await {
        Ok(mut client) => client.status().await?,
        // Whoever may not ask may look.
        Err(gone @ (ControlError::NotRunning { .. } | ControlError::Forbidden { .. })) => {
            left(root)?.ok_or(gone)?
        }
        Err(error) => return Err(error.into()),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&status)?)?;
    } else {
        match status.pid {
            Some(pid) => writeln!(out, "running as process {pid} since {}", status.started)?,
            None => writeln!(out, "not running; this was so at {}", status.updated)?,
        }
        if let Some(api) = status.api {
            writeln!(out, "the API is at http://{api}/api/v1")?;
        }
        for schedule in &status.schedules {
            schedule::print(schedule, &mut out)?;
        }
        for receiver in &status.receivers {
            writeln!(out, "{}", receiver_line(receiver))?;
        }
    }
    Ok(match status.pid {
        None => exit::COULD_NOT_RUN,
        Some(_) if status.has_failed() => exit::FAILURES,
        Some(_) => 0,
    })
}

/// How it is with a receiver, in a line.
fn receiver_line(receiver: &ReceiverStatus) -> String {
    let mut line = format!("receiver `{}`: ", receiver.name);
    line += &match (&receiver.failing_since, &receiver.problem) {
        (Some(since), problem) => {
            let since = since.format("%Y-%m-%d %H:%M:%S UTC");
            let problem = problem.as_deref().unwrap_or("it takes no events");
            format!("failing since {since}: {problem}")
        }
        (None, _) => "takes events".to_owned(),
    };
    if receiver.waiting > 0 {
        line += &format!("; {} events wait", receiver.waiting);
    }
    if receiver.dead_letters > 0 {
        line += &format!(
            "; {} dead letters, see `gannet notify list`",
            receiver.dead_letters
        );
    }
    line
}

/// What a daemon that is gone left.
fn left(root: &Path) -> anyhow::Result<Option<Status>> {
    let path = state_file(root);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    let mut status: Status = serde_json::from_slice(&text)
        .with_context(|| format!("`{}` is no state of a daemon", path.display()))?;
    // Killed, it could not say so.
    let age = clock::age(status.updated, chrono::Utc::now());
    let is_alive = |pid: &u32| Path::new("/proc").join(pid.to_string()).exists();
    status.pid = status
        .pid
        .filter(|pid| age.is_some_and(|age| age < STALE) && is_alive(pid));
    if status.pid.is_none() {
        status.api = None;
    }
    Ok(Some(status))
}
