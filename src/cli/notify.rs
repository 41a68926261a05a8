//! `gannet notify`: tests receivers, and lists, resends and drops dead letters.

use std::io::Write as _;

use std::collections::BTreeSet;

use super::args::{Global, Letters, NotifyCommand};
use super::{Usage, exit, load, start_log};
use crate::catalog::{self, DeadLetter};

pub(super) async fn run(command: &NotifyCommand, global: &Global) -> anyhow::Result<u8> {
    match command {
        NotifyCommand::Test { names } => test(names, global).await,
        NotifyCommand::List { receiver, json } => list(receiver.as_deref(), *json, global).await,
        NotifyCommand::Resend(letters) => resend(letters, global).await,
        NotifyCommand::Drop(letters) => drop_letters(letters, global).await,
    }
}

async fn list(receiver: Option<&str>, json: bool, global: &Global) -> anyhow::Result<u8> {
    let config = load(global, Vec::new())?.config;
    let catalog = catalog::open_to_read(&config.catalog, &config.storage.root).await?;
    let mut letters = catalog.dead_letters().await?;
    catalog.close().await;
    letters.retain(|letter| receiver.is_none_or(|name| letter.receiver == name));
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&letters)?)?;
        return Ok(0);
    }
    if letters.is_empty() {
        writeln!(out, "there are no dead letters")?;
    }
    for letter in &letters {
        writeln!(
            out,
            "{} {} for `{}`, given up {}: {}",
            letter.row.id,
            letter.row.event.event,
            letter.receiver,
            letter.died.format("%Y-%m-%d %H:%M:%S UTC"),
            letter.answer
        )?;
    }
    Ok(0)
}

/// Those of `all` that are meant.
///
/// # Errors
///
/// When an id is no dead letter's.
fn chosen(all: Vec<DeadLetter>, which: &Letters) -> Result<Vec<DeadLetter>, Usage> {
    let of_receiver = |letter: &DeadLetter| {
        let name = which.receiver.as_ref();
        name.is_none_or(|name| letter.receiver == *name)
    };
    let is_meant = |letter: &DeadLetter| {
        of_receiver(letter) && (which.ids.is_empty() || which.ids.contains(&letter.row.id))
    };
    let letters: Vec<DeadLetter> = all.into_iter().filter(is_meant).collect();
    let found: BTreeSet<i64> = letters.iter().map(|letter| letter.row.id).collect();
    match which.ids.iter().find(|id| !found.contains(id)) {
        Some(id) => Err(Usage(format!(
            "there is no dead letter {id}; `gannet notify list` shows those that there are"
        ))),
        None => Ok(letters),
    }
}

async fn resend(which: &Letters, global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, Vec::new())?;
    let _log = start_log(global, &loaded.config, None)?;
    let plan = loaded.notify()?;
    let config = &loaded.config;
    let catalog = catalog::open_beside(&config.catalog, &config.storage.root).await?;
    let mut code = 0;
    for letter in chosen(catalog.dead_letters().await?, which)? {
        let (name, id) = (letter.receiver.clone(), letter.row.id);
        let sent = plan.resend(&letter, &catalog).await;
        if sent.is_ok() {
            catalog.drop_dead_letters(vec![(name.clone(), id)]).await?;
        }
        let event = &letter.row.event.event;
        let mut out = std::io::stdout().lock();
        match sent {
            Ok(()) => writeln!(out, "`{name}` took event {id} ({event})")?,
            Err(problem) => {
                code = exit::FAILURES;
                writeln!(
                    out,
                    "`{name}` did not take event {id} ({event}), which is kept: {problem}"
                )?;
            }
        }
    }
    catalog.close().await;
    Ok(code)
}

async fn drop_letters(which: &Letters, global: &Global) -> anyhow::Result<u8> {
    let config = load(global, Vec::new())?.config;
    let catalog = catalog::open_beside(&config.catalog, &config.storage.root).await?;
    let letters = chosen(catalog.dead_letters().await?, which)?;
    let keys = letters
        .into_iter()
        .map(|letter| (letter.receiver, letter.row.id))
        .collect();
    let dropped = catalog.drop_dead_letters(keys).await?;
    catalog.close().await;
    let mut out = std::io::stdout().lock();
    writeln!(out, "dropped {dropped} dead letters")?;
    Ok(0)
}

async fn test(names: &[String], global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, Vec::new())?;
    let _log = start_log(global, &loaded.config, None)?;
    let known: Vec<&str> = loaded
        .receivers
        .iter()
        .map(|receiver| receiver.name.as_str())
        .collect();
    if known.is_empty() {
        return Err(Usage("the settings have no [[notify]]".to_owned()).into());
    }
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Usage(format!(
            "there is no receiver `{unknown}`; the settings have: {}",
            known.join(", ")
        ))
        .into());
    }
    let plan = loaded.notify()?;
    let mut code = 0;
    for receiver in &loaded.receivers {
        let name = &receiver.name;
        if !names.is_empty() && !names.contains(name) {
            continue;
        }
        let tested = plan.test(name).await;
        let mut out = std::io::stdout().lock();
        match tested {
            Ok(()) => writeln!(out, "`{name}`: {} took a test event", receiver.place())?,
            Err(problem) => {
                code = exit::FAILURES;
                writeln!(
                    out,
                    "`{name}`: {} took no test event: {problem}",
                    receiver.place()
                )?;
            }
        }
    }
    Ok(code)
}
