//! A file per subcommand: thin, no logic of the domain.

mod albums;
pub mod args;
mod catalog;
mod check;
mod daemon;
mod demo;
mod events;
mod fetch;
mod jobs;
mod man;
mod notify;
mod proxies;
mod rename;
mod retry;
mod schedule;
mod slips;
mod status;
mod verify;
mod watch;
mod why;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::catalog::CatalogError;
use crate::config::{Config, ConfigError, Loaded};
use crate::downloader::Registry;
use crate::job::EngineError;
use crate::local_path::NotALocalPath;
use crate::store::StoreError;
use crate::target::{describe, nearest};
use crate::telemetry;
use args::{Cli, Command, Global, LogFormat};

pub use slips::parse;

/// Exit codes, as the README lists them.
mod exit {
    pub(super) const COULD_NOT_RUN: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const FAILURES: u8 = 3;
    pub(super) const LOCKED: u8 = 4;
    pub(super) const HANGUP: u8 = 129;
    pub(super) const INTERRUPT: u8 = 130;
    pub(super) const TERMINATE: u8 = 143;
}

/// Does what was typed and answers with the exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Fetch(args) => fetch::run(&args, &cli.global).await,
        Command::Demo(args) => demo::run(&args, &cli.global).await,
        Command::Jobs(args) => jobs::run(&args, &cli.global).await,
        Command::Why(args) => why::run(&args, &cli.global).await,
        Command::Retry(args) => retry::run(&args, &cli.global).await,
        Command::Verify(args) => verify::run(&args, &cli.global).await,
        Command::Catalog(args) => catalog::run(&args.command, &cli.global).await,
        Command::Albums(args) => albums::run(&args, &cli.global).await,
        Command::Rename(args) => rename::run(&args, &cli.global).await,
        Command::Daemon(args) => daemon::run(&args, &cli.global).await,
        Command::Schedule(args) => schedule::run(&args.command, &cli.global).await,
        Command::Status(args) => status::run(&args, &cli.global).await,
        Command::Events(args) => events::run(&args, &cli.global).await,
        Command::Notify(args) => notify::run(&args.command, &cli.global).await,
        Command::Proxies(args) => proxies::run(&args.command, &cli.global).await,
        Command::Check => check::run(&cli.global),
        Command::Completions { shell } => {
            // Written in one go at the end: the generator itself panics when its output is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gannet", &mut script);
            std::io::stdout()
                .write_all(&script)
                .map(|()| 0)
                .context("cannot print the completion script")
        }
        Command::Man => man::run(),
        Command::Help { command } => help(command.as_deref()),
    };
    match result {
        Ok(code) => code.into(),
        Err(error) if is_broken_pipe(&error) => 0.into(),
        Err(error) => {
            say(&describe(error.as_ref()));
            exit_code(&error).into()
        }
    }
}

/// Tells stderr, which may have gone with its terminal.
fn say(what: &dyn std::fmt::Display) {
    let _ = writeln!(
        std::io::stderr(),
        "{}gannet: {what}",
        telemetry::error_prefix()
    );
}

/// What `--help` prints, of `command` or of all.
fn help(command: Option<&str>) -> anyhow::Result<u8> {
    let mut cli = Cli::command();
    cli.build();
    let known: Vec<String> = cli
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let about = match command {
        None => &mut cli,
        Some(name) => cli.find_subcommand_mut(name).ok_or_else(|| {
            let meant = nearest(name, known.iter().map(String::as_str))
                .map_or_else(String::new, |meant| {
                    format!("; did you mean `gannet help {meant}`?")
                });
            Usage(format!(
                "there is no command `{name}`; `gannet help` lists them{meant}"
            ))
        })?,
    };
    about.print_help()?;
    Ok(0)
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // Only what stdout itself said: elsewhere a broken pipe is a fault like any other.
    let own = error.downcast_ref::<std::io::Error>();
    own.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let locked = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(StoreError::Locked { .. }))
            || matches!(cause.downcast_ref(), Some(CatalogError::Locked { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(
                    EngineError::Store(StoreError::Locked { .. })
                        | EngineError::Catalog(CatalogError::Locked { .. })
                )
            )
    };
    if error.chain().any(locked) {
        exit::LOCKED
    } else if error.is::<Usage>() {
        exit::USAGE
    } else {
        exit::COULD_NOT_RUN
    }
}

/// Something that clap could not see is wrong with the command line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// The setting that `--output` stands for.
fn output(output: Option<&std::path::Path>) -> anyhow::Result<Vec<(String, String)>> {
    let Some(output) = output else {
        return Ok(Vec::new());
    };
    let root = args::path(output).map_err(Usage)?;
    Ok(vec![("storage.root".to_owned(), root)])
}

/// Loads the settings: built-in, file, environment, `--set`, and `flags` last.
fn load(global: &Global, flags: Vec<(String, String)>) -> anyhow::Result<Loaded> {
    load_pinned(global, Vec::new(), flags)
}

/// The same with `pins` between the environment and `--set`.
fn load_pinned(
    global: &Global,
    pins: Vec<(String, String)>,
    flags: Vec<(String, String)>,
) -> anyhow::Result<Loaded> {
    let mut sets = pins;
    sets.extend_from_slice(&global.set);
    let typed = sets.len();
    sets.extend(flags);
    if let Some(format) = global.log_format {
        let format = match format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        sets.push(("log.format".to_owned(), format.to_owned()));
    }
    // What is not UTF-8 is no setting; `vars` would panic.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(global.config.as_deref(), env, &sets).map_err(|error| {
        let (typed, flags) = sets.split_at(typed);
        flag_at_fault(error, typed, flags)
    })
}

/// Says what is wrong with `job.kind`, and where it is set.
fn find_kind(loaded: &Loaded, registry: &Registry) -> Result<(), ConfigError> {
    let kind = &loaded.config.job.kind;
    registry.find(kind).map(drop).map_err(|error| {
        let meant = nearest(kind, registry.kinds())
            .map_or_else(String::new, |kind| format!("; did you mean `{kind}`?"));
        loaded.wrong("job", "kind", format!("{error}{meant}"))
    })
}

/// Names the flag whose value is at fault: it came in as a setting, but nobody wrote `--set`. A URL in place of a path is a
/// fault of usage wherever it is set.
fn flag_at_fault(
    error: ConfigError,
    typed: &[(String, String)],
    flags: &[(String, String)],
) -> anyhow::Error {
    let ConfigError::Value {
        place,
        key,
        problem,
    } = &error
    else {
        return unusable(error);
    };
    // The headers of one table are judged together.
    let sets = |pairs: &[(String, String)]| {
        let mut rest = pairs.iter().filter_map(|(set, _)| set.strip_prefix(key));
        rest.any(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match args::flag_of(key) {
        Some(flag) if place == "`--set`" && sets(flags) && !sets(typed) => {
            Usage(format!("`{flag}`: {problem}")).into()
        }
        _ => unusable(error),
    }
}

/// Settings that cannot be used. A URL in place of a path is a fault of usage wherever it is set, as it is in a flag.
fn unusable(error: ConfigError) -> anyhow::Error {
    let text = describe(&error);
    match NotALocalPath::is_in(&text) {
        true => Usage(text).into(),
        false => error.into(),
    }
}

fn start_log(
    global: &Global,
    config: &Config,
    progress: Option<&indicatif::MultiProgress>,
) -> anyhow::Result<telemetry::Guard> {
    let verbosity = i8::try_from(global.verbose).unwrap_or(i8::MAX)
        - i8::try_from(global.quiet).unwrap_or(i8::MAX);
    Ok(telemetry::init(&config.log, verbosity, progress.cloned())?)
}
