//! `[steps]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// `[steps]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Files that are computed on at a time, and as many on which commands run; 0: as many as there are processors.
    pub workers: usize,
    /// How long a command may take that says nothing of it.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How much a command may print that says nothing of it, in bytes.
    pub max_output: ByteSize,
    /// The commands that jobs may have run, by name. Nothing else is ever executed.
    pub commands: BTreeMap<String, Command>,
}

/// `[steps.commands.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The absolute path of a program.
    pub program: PathBuf,
    /// What it is called with. `{path}`, `{url}` and `{format}` stand for those of the file.
    #[serde(default)]
    pub args: Vec<String>,
    /// How long it may take; `None`: [`Settings::timeout`].
    #[serde(default, with = "humantime_serde")]
    pub timeout: Option<Duration>,
    /// How much it may print, in bytes; `None`: [`Settings::max_output`].
    #[serde(default)]
    pub max_output: Option<ByteSize>,
}

impl Settings {
    /// What is wrong: the keys below `[steps]`, and why.
    pub(crate) fn problem(&self) -> Option<(Vec<String>, &'static str)> {
        if self.timeout.is_zero() {
            return Some((vec!["timeout".to_owned()], "leaves a command no time"));
        }
        self.commands.iter().find_map(|(name, command)| {
            let at = |key: &str, problem| {
                let path = ["commands", name, key].map(str::to_owned);
                Some((path.into(), problem))
            };
            if !command.program.is_absolute() {
                return at(
                    "program",
                    "is no absolute path, such as \"/usr/bin/python3\"",
                );
            }
            match command.timeout {
                Some(Duration::ZERO) => at("timeout", "leaves the command no time"),
                _ => None,
            }
        })
    }
}
