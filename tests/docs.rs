//! What README.md says is true of the program: commands, flags, settings, words and exit codes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use gannet::catalog::EVENTS;
use gannet::cli::args::Cli;
use gannet::config::{Config, DEFAULT};
use gannet::source::ListFormat;
use gannet::target::{Outcome, Reason};

const README: &str = include_str!("../README.md");

/// What stands between backticks outside of code blocks, and every line of code blocks.
fn code() -> Vec<&'static str> {
    let mut pieces = Vec::new();
    for (index, part) in README.split("```").enumerate() {
        if index % 2 == 1 {
            pieces.extend(part.lines().skip(1));
        } else {
            pieces.extend(part.split('`').skip(1).step_by(2));
        }
    }
    pieces
}

/// The first cells of the table under a heading, without their backticks.
fn first_cells(heading: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once(&format!("\n{heading}\n")).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with('|'));
    table
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            line[1..]
                .split(" | ")
                .next()
                .unwrap()
                .trim()
                .trim_matches('`')
        })
        .collect()
}

#[test]
fn the_table_of_commands_has_each_command_and_no_other() {
    let described: BTreeSet<_> = first_cells("## Commands")
        .iter()
        .map(|cell| cell.split(' ').nth(1).unwrap().to_owned())
        .collect();
    let cli = Cli::command();
    let commands = cli
        .get_subcommands()
        .map(|command| command.get_name().to_owned());
    assert_eq!(described, commands.collect());
}

#[test]
fn every_flag_that_is_named_exists() {
    // Flags of other programs that stand in commands of the README.
    let foreign = [
        "--release",
        "--path",
        "--example",
        "--now",
        "--create",
        "--open",
    ];
    let mut cli = Cli::command();
    cli.build();
    let known: BTreeSet<_> = std::iter::once(&cli)
        .chain(cli.get_subcommands())
        .flat_map(|command| command.get_arguments())
        .filter_map(|arg| arg.get_long())
        .collect();
    for piece in code() {
        for word in piece.split([' ', '=', '`', ',', '(', ')']) {
            let Some(flag) = word.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
                continue;
            };
            assert!(
                known.contains(flag) || foreign.contains(&word),
                "`{word}` in `{piece}`"
            );
        }
    }
}

#[test]
fn every_setting_that_is_named_exists() {
    let defaults: toml::Table = DEFAULT.parse().unwrap();
    for piece in code() {
        for word in piece.split([' ', '=', ',', '(', ')']) {
            let Some((section, key)) = word.split_once('.') else {
                continue;
            };
            let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            // `cat.jpg`, `gannet.toml` and the like are no settings, nor are events.
            let is_event = EVENTS.iter().any(|event| word.trim_matches('"') == *event);
            let Some(table) = defaults.get(section).filter(|_| is_key && !is_event) else {
                continue;
            };
            assert!(table.get(key).is_some(), "`{word}` in `{piece}`");
        }
    }
}

#[test]
fn every_default_is_accepted_on_its_own() {
    let defaults: toml::Table = DEFAULT.parse().unwrap();
    for (section, table) in defaults {
        for (key, value) in table.as_table().unwrap() {
            let set = (format!("{section}.{key}"), value.to_string());
            let loaded = Config::load(None, std::iter::empty(), std::slice::from_ref(&set));
            assert!(loaded.is_ok(), "{set:?}: {}", loaded.unwrap_err());
        }
    }
}

#[test]
fn the_tables_have_every_outcome_reason_and_format() {
    let outcomes: Vec<_> = Outcome::ALL
        .iter()
        .map(|outcome| outcome.as_str())
        .collect();
    assert_eq!(first_cells("### Outcomes"), outcomes);
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(first_cells("### Reasons"), reasons);
    let formats = first_cells("## Lists").join(", ").replace('`', "");
    let known: Vec<_> = ListFormat::ALL
        .iter()
        .map(|format| format.as_str())
        .collect();
    assert_eq!(formats, known.join(", "));
}

#[test]
fn the_exit_codes_are_those_of_the_help_text() {
    let help = Cli::command().render_help().to_string();
    for code in first_cells("### Exit codes") {
        let code = code.replace(", ", "/");
        let is_told = help.contains(&format!(" {code} "));
        assert!(is_told, "`gannet --help` has no exit code {code}:\n{help}");
    }
}

#[test]
fn the_downloader_is_the_one_that_is_compiled_as_an_example() {
    let (_, block) = README.split_once("```rust,ignore\n").unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    assert!(include_str!("../examples/kind.rs").contains(block));
}

#[test]
fn links_lead_to_files_and_headings() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for link in README.split("](").skip(1) {
        let target = link.split(')').next().unwrap();
        let is_there = match target.strip_prefix('#') {
            Some(heading) => README
                .lines()
                .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
                .any(|title| title.to_lowercase().replace(' ', "-") == heading),
            None => target.contains("://") || folder.join(target).exists(),
        };
        assert!(is_there, "{target}");
    }
}
