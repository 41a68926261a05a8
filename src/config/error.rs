//! What can be wrong with a configuration, in words that help.

use std::io;
use std::path::PathBuf;

use super::masked::{is_secret, mask_url};
use crate::target::nearest;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file that a variable names cannot be read.
    #[error("environment variable `{name}`: cannot read `{}`", path.display())]
    ReadValue {
        /// The variable.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {problem}")]
    Syntax {
        /// The file and the line.
        place: String,
        /// What the parser says.
        problem: String,
    },
    /// The key of a variable or `--set` cannot be read.
    #[error(
        "{place}: `{key}` is no key; write one such as `fetch.retries` or `hosts.\"example.org\".rate`"
    )]
    Key {
        /// The variable, or `--set`.
        place: String,
        /// The key as given.
        key: String,
    },
    /// A variable looks like a setting and is none.
    #[error("environment variable `{name}` means no setting; {meant}")]
    Variable {
        /// The variable.
        name: String,
        /// What to write.
        meant: String,
    },
    /// A key does not exist, or its value cannot be used.
    #[error("{place}: `{key}`: {problem}")]
    Value {
        /// The file and line, variable, or `--set`.
        place: String,
        /// The key, dotted.
        key: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
}

/// Writes a path of keys as TOML would, so that it can be given to `--set`.
pub(super) fn dotted(path: &[String]) -> String {
    let quote = |key: &String| {
        let is_bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !key.is_empty() && key.bytes().all(is_bare) {
            key.clone()
        } else {
            toml::Value::from(key.as_str()).to_string()
        }
    };
    path.iter().map(quote).collect::<Vec<_>>().join(".")
}

/// Turns serde's message about the value at `path` into one for people. `known` are the keys that the built-in
/// settings have.
pub(super) fn explain(
    message: &str,
    path: &[String],
    value: Option<&toml::Value>,
    known: &toml::Table,
) -> String {
    if let Some(key) = path.last() {
        if let Some(rest) = message.strip_prefix("unknown field ")
            && rest.starts_with(&format!("`{key}`"))
        {
            return unknown(path, rest, value, known);
        }
        // No secrets themselves: `api.tokens` is a table; `password_file` and `api.tls.key` name files.
        let is_path = key.ends_with("_file") && value.is_some_and(toml::Value::is_str);
        let is_key = key == "key" && path.first().is_some_and(|section| section == "search");
        if is_secret(key) && key != "tokens" && !is_path || is_key {
            return "expected a text".to_owned();
        }
    }
    let mut text = message
        .replacen("unknown variant", "unknown value", 1)
        .replace("nonzero usize", "whole number above 0")
        .replace("nonzero u64", "whole number above 0")
        .replace("nonzero u32", "whole number above 0");
    for (rust, plain) in [
        ("struct Settings", "a section of keys"),
        ("struct HostSettings", "a table of keys"),
        ("a map", "a table of keys"),
        ("usize", "a whole number that is 0 or more"),
        ("u64", "a whole number that is 0 or more"),
        ("u32", "a whole number that is 0 or more"),
        ("f64", "a number"),
        ("a boolean", "`true` or `false`"),
        ("a duration", "a duration such as \"30s\" or \"1h 30m\""),
        (
            "an integer or string",
            "a size such as \"64MiB\", or a number of bytes",
        ),
        (
            "parsable string",
            "a size such as \"64MiB\", or a number of bytes",
        ),
        (
            "integer overflow",
            "a size such as \"64MiB\", or a number of bytes",
        ),
        ("path string", "a path"),
        ("a sequence", "a list such as [\"one\", \"two\"]"),
    ] {
        if let Some(head) = text.strip_suffix(&format!("expected {rust}")) {
            text = format!("{head}expected {plain}");
            break;
        }
    }
    // A URL may have been quoted with its password.
    if let Some(secret) = value.and_then(toml::Value::as_str)
        && let Some(masked) = mask_url(secret)
    {
        text = text.replace(secret, &masked);
    }
    text
}

/// Says that a key does not exist, and which was probably meant.
fn unknown(
    path: &[String],
    rest: &str,
    value: Option<&toml::Value>,
    known: &toml::Table,
) -> String {
    // The words in backticks after the first are those that are allowed here.
    let allowed: Vec<&str> = rest.split('`').skip(1).step_by(2).skip(1).collect();
    let (Some(key), folder) = (path.last(), &path[..path.len().saturating_sub(1)]) else {
        return format!("unknown key {rest}");
    };
    let what = if folder.is_empty() { "section" } else { "key" };
    if folder.len() == 2 && folder[0] == "hosts" && value.is_some_and(toml::Value::is_table) {
        // `hosts.example.org` without quotes is three tables.
        return "unknown key; write the name of a host in quotes, as in `hosts.\"example.org\".rate`"
            .to_owned();
    }
    if folder.first().is_some_and(|first| first == "hosts")
        && !allowed.contains(&key.as_str())
        && known
            .get("fetch")
            .is_some_and(|fetch| fetch.get(key).is_some())
    {
        return format!("cannot differ by host; set `fetch.{key}` for all of them");
    }
    let near = nearest(key, allowed.iter().copied());
    let full = |folder: &[String], word: &str| {
        let path: Vec<String> = folder.iter().cloned().chain([word.to_owned()]).collect();
        dotted(&path)
    };
    // The right key in the wrong section, or in none.
    let elsewhere = known
        .iter()
        .find(|(_, table)| table.get(key).is_some())
        .map(|(section, _)| full(std::slice::from_ref(section), key));
    match (near.map(|word| full(folder, word)), elsewhere) {
        (Some(meant), _) | (None, Some(meant)) => {
            format!("unknown {what}; did you mean `{meant}`?")
        }
        (None, None) if allowed.is_empty() => format!("unknown {what}"),
        (None, None) => {
            let allowed: Vec<_> = allowed.iter().map(|word| format!("`{word}`")).collect();
            format!("unknown {what}; expected one of {}", allowed.join(", "))
        }
    }
}
