//! `gannet notify`: whether receivers can be reached.

use std::io::Write as _;

use super::args::{Global, NotifyCommand};
use super::{Usage, exit, load, start_log};

pub(super) async fn run(command: &NotifyCommand, global: &Global) -> anyhow::Result<u8> {
    let NotifyCommand::Test { names } = command;
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
