//! `gannet events`: what happens, as it happens.

use std::io::Write as _;

use super::args::{EventsArgs, Global};
use super::{Usage, load, output};
use crate::catalog::{EVENTS, Wants};
use crate::daemon::Client;
use crate::notify::Told;

pub(super) async fn run(args: &EventsArgs, global: &Global) -> anyhow::Result<u8> {
    Wants::new(args.events.iter().map(String::as_str)).map_err(|wrong| {
        Usage(format!(
            "`{wrong}` means no event; there are {}, and patterns such as 'job.*'",
            EVENTS.join(", ")
        ))
    })?;
    let config = load(global, output(args.output.as_deref())?)?.config;
    let client = Client::connect(&config.storage.root).await?;
    let events = args.events.join(",");
    let query = [
        (
            "events",
            Some(events.as_str()).filter(|events| !events.is_empty()),
        ),
        ("schedule", args.schedule.as_deref()),
        ("album", args.album.as_deref()),
    ];
    let mut stream = client.events(&query).await?;
    while let Some(line) = stream.next().await? {
        let mut out = std::io::stdout().lock();
        if args.json {
            writeln!(out, "{line}")?;
        } else {
            let told: serde_json::Value = serde_json::from_str(&line)?;
            writeln!(out, "{}", words(&told))?;
        }
        out.flush()?;
    }
    Ok(0)
}

/// A line for people. What comes from lists and names keeps to it.
fn words(told: &serde_json::Value) -> String {
    if told["event"] == "missed" {
        return format!(
            "(up to {} events are gone that nobody heard)",
            told["at_most"]
        );
    }
    let Some(told) = Told::from_json(told) else {
        return told.to_string();
    };
    let time = told.text("time");
    let line = format!("{time}  {:14}  {}", told.event, told.sentence());
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().map(plain).collect()
}
