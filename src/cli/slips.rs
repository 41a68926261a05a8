//! Advice for command lines that clap refuses: the flags and commands of other programs, and words in the wrong place.

use std::ffi::OsString;

use clap::Parser as _;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Cli;

/// Flags of curl, wget, aria2, img2dataset and others, with the advice for each group.
const FLAGS: &[(&[&str], &str)] = &[
    (
        &[
            "--threads",
            "--thread_count",
            "--thread-count",
            "--processes_count",
            "--workers",
            "--jobs",
            "--parallel",
            "--max-concurrent-downloads",
            "--concurrent",
            "--parallel-max",
            "-Z",
            "-w",
        ],
        "`-j N` (`--concurrency N`) sets the requests at a time over all hosts, `--per-host N` those to one host",
    ),
    (
        &[
            "-x",
            "-s",
            "--split",
            "--max-connection-per-server",
            "--concurrent_requests_per_domain",
            "--max-threads",
        ],
        "`--per-host N` sets the requests at a time to one host, `-j N` those over all; a file always comes in one piece",
    ),
    (
        &[
            "--max-time",
            "-m",
            "-T",
            "--read-timeout",
            "--max-timeout",
            "--timeout-sec",
        ],
        "`--timeout 30s` limits one attempt, `--deadline 10m` the whole job",
    ),
    (
        &["--connect-timeout", "--dns-timeout"],
        "`--set fetch.connect_timeout=5s` limits name resolution and connecting, `--timeout` a whole attempt",
    ),
    (
        &[
            "-t",
            "--tries",
            "--retry",
            "--max-tries",
            "--max-retries",
            "--retries_count",
        ],
        "`--retries N` sets the further attempts",
    ),
    (
        &["-A", "--agent", "--useragent", "--user_agent", "-U"],
        "`--user-agent TEXT` sets the User-Agent; `--set image.formats=jpeg,png` the formats that are accepted",
    ),
    (
        &[
            "-O",
            "--output-document",
            "--output-dir",
            "--output-directory",
            "--output_folder",
            "--output-folder",
            "-P",
            "--directory-prefix",
            "-d",
            "--dir",
            "--dest",
            "--out",
            "--output_dir",
        ],
        "`-o DIR` (`--output DIR`) names the folder for the files; lists name files, as columns `name` or lines `out=NAME`",
    ),
    (
        &[
            "-i",
            "--input-file",
            "--input",
            "--url_list",
            "--url-list",
            "--urls",
            "--list",
            "--file",
            "--from-file",
            "--batch-file",
        ],
        "a list needs no flag: `gannet fetch list.txt`; `-` is standard input",
    ),
    (
        &[
            "--continue",
            "--resume",
            "-C",
            "--continue-at",
            "-nc",
            "--no-clobber",
            "-N",
            "--timestamping",
            "--incremental_mode",
            "--skip-existing",
        ],
        "nothing to ask for: gannet resumes what was cut off, and fetches only what is new or changed",
    ),
    (
        &[
            "--no-check-certificate",
            "--insecure",
            "--no-verify",
            "--no-verify-ssl",
            "--check-certificate",
        ],
        "certificates are always checked; `--ca-file PEM` trusts a certificate of your own",
    ),
    (
        &["--cacert", "--ca-certificate", "--ca-cert", "--ca"],
        "`--ca-file PEM` trusts further certificates",
    ),
    (
        &[
            "--accept",
            "--accept-regex",
            "--reject",
            "-R",
            "--extension",
            "--type",
            "--formats",
        ],
        "`--kind` selects the kind of file, `--set image.formats=jpeg,png` the formats of pictures",
    ),
    (
        &["-H", "--headers"],
        "`--header 'Name: value'` sends a header; it may be repeated",
    ),
    (
        &["-e", "--referer", "--referrer"],
        "`--header 'Referer: https://example.org/'` sends one",
    ),
    (
        &[
            "-b",
            "--cookie",
            "--load-cookies",
            "--cookie-jar",
            "--cookies-from-browser",
        ],
        "`--cookies FILE` sends the cookies of a file in Netscape's format; `--header 'Cookie: name=value'` a single one",
    ),
    (
        &[
            "--user",
            "--http-user",
            "--http-password",
            "--http-passwd",
            "--password",
            "--auth",
        ],
        "`--netrc` takes user names and passwords from ~/.netrc, and `[hosts.\"NAME\"]` in the settings has `user` and `password_file`",
    ),
    (
        &[
            "--wait",
            "--random-wait",
            "--delay",
            "--download-delay",
            "--sleep-interval",
            "--rate-limit",
        ],
        "`--rate N` limits the requests a second to one host, such as 0.5; `--limit-rate` the bytes a second",
    ),
    (
        &["--max-filesize", "--max-file-size", "-Q", "--quota"],
        "`--set fetch.max_bytes=10MB` limits the size of a file",
    ),
    (
        &[
            "--limit",
            "--max",
            "--max-files",
            "--num",
            "--count-max",
            "--max-num",
            "--number",
            "-l",
        ],
        "`-n N` (`--count N`) stores exactly N files",
    ),
    (
        &[
            "-r",
            "--recursive",
            "--mirror",
            "--level",
            "-np",
            "--no-parent",
            "-p",
            "--page-requisites",
            "-D",
            "--domains",
        ],
        "gannet follows no links: it fetches what lists, sitemaps, feeds and searches name",
    ),
    (
        &["-L", "--location", "--follow"],
        "redirects are followed already, up to `fetch.redirects`",
    ),
    (
        &["-S", "--silent", "--no-verbose", "--server-response"],
        "`-q` logs warnings and errors only, `--progress never` shows no progress",
    ),
    (
        &[
            "-f",
            "--fail",
            "--force",
            "--overwrite",
            "--no-cache",
            "--clobber",
        ],
        "`--refresh` asks about every URL again; what has changed at its origin is stored anew",
    ),
    (
        &["--no-proxy", "--noproxy"],
        "`--proxy direct` uses no proxy",
    ),
    (
        &[
            "--all-proxy",
            "--http-proxy",
            "--https-proxy",
            "--socks5",
            "--socks5-hostname",
            "--proxies",
        ],
        "`--proxy URL` sends requests through a proxy, such as socks5h://127.0.0.1:1080",
    ),
    (
        &[
            "--robots",
            "--no-robots",
            "--ignore-robots",
            "--robotstxt_obey",
        ],
        "`--set fetch.robots=true` or `false` says whether robots.txt is obeyed",
    ),
    (
        &["--format", "--input_format", "--input-format"],
        "`--list-format FORMAT` is that of lists, `--log-format` that of the log, and the ending of `--report FILE` that of the report",
    ),
    (
        &["--url_col", "--caption_col", "--save_additional_columns"],
        "a table has its URLs in a column `url`; all other columns are kept as metadata",
    ),
    (
        &[
            "--image_size",
            "--resize",
            "--resize_mode",
            "--size",
            "--min_image_size",
            "--thumbnail",
        ],
        "steps make smaller pictures once a file is stored: see `[steps]` in the settings",
    ),
    (
        &["--log-level", "--loglevel", "--debug"],
        "`-v` logs more, `-vv` everything, `-q` less; or `--set log.level=debug`",
    ),
    (
        &[
            "--json-report",
            "--output-json",
            "--junit",
            "--html",
            "--csv-report",
        ],
        "`--report FILE` writes a report: .json, .jsonl, .xml (JUnit) or .html, by its ending",
    ),
    (
        &["--dry", "--simulate", "--spider", "--no-download"],
        "`--dry-run` says what would be done with each target",
    ),
    (
        &["--yes", "-y", "--no-input", "--background", "--daemon"],
        "nothing is ever asked; `gannet daemon` runs schedules unattended",
    ),
];

/// Commands of other programs, or that somebody may expect, with what to type.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &[
            "get", "download", "dl", "wget", "curl", "add", "pull", "sync", "crawl", "scrape",
            "url", "urls",
        ],
        "`gannet fetch LIST` fetches what a list names, `gannet fetch -u URL…` the URLs themselves",
    ),
    (
        &["search", "find"],
        "`gannet fetch 'search:openverse?q=red panda' -n 100` fetches what a search finds",
    ),
    (
        &["run", "start", "serve", "server", "service", "up"],
        "`gannet daemon` runs the schedules, `gannet daemon --once NAME` one of them a single time; `gannet schedule run NAME` asks a running daemon",
    ),
    (
        &["stop", "down", "kill", "restart", "quit"],
        "SIGTERM stops the daemon without loss: `systemctl stop gannet`",
    ),
    (
        &["reload"],
        "SIGHUP has the daemon read its settings again: `systemctl reload gannet`",
    ),
    (
        &["pause", "resume"],
        "`gannet schedule pause NAME` and `gannet schedule resume NAME`",
    ),
    (&["version", "ver"], "`gannet --version`"),
    (
        &["ls", "list", "files", "images"],
        "`gannet albums` lists albums, `gannet jobs` jobs, `gannet schedule list` schedules",
    ),
    (
        &[
            "config", "settings", "validate", "test", "lint", "show", "doctor",
        ],
        "`gannet check` validates the settings and prints them",
    ),
    (
        &["history", "log", "logs", "job", "report"],
        "`gannet jobs` lists jobs, `gannet jobs last` shows what became of the last one's targets",
    ),
    (
        &["init", "new", "setup"],
        "nothing has to be set up: `gannet fetch list.txt` works at once, and `gannet demo` shows it",
    ),
    (
        &["top", "ps", "info", "stat"],
        "`gannet status` shows what the daemon does",
    ),
    (
        &["explain", "trace"],
        "`gannet why URL` explains what became of it",
    ),
    (
        &["repair", "fsck"],
        "`gannet verify --repair` brings damaged files again",
    ),
];

/// Commands below `gannet schedule`.
const SCHEDULE: &[(&[&str], &str)] = &[
    (
        &["start", "trigger", "now", "exec"],
        "`gannet schedule run NAME`",
    ),
    (
        &["stop", "disable", "suspend"],
        "`gannet schedule pause NAME`",
    ),
    (
        &["enable", "continue", "unpause"],
        "`gannet schedule resume NAME`",
    ),
    (&["ls", "status", "show"], "`gannet schedule list`"),
    (
        &["add", "new", "create", "remove", "delete"],
        "schedules stand in the settings file as [[schedule]]; `systemctl reload gannet` has them read again",
    ),
];

/// Reads the command line, or ends the process with an error that says what to type.
pub fn parse() -> Cli {
    let words: Vec<OsString> = std::env::args_os().collect();
    Cli::try_parse_from(&words).unwrap_or_else(|error| {
        let words: Vec<_> = words
            .iter()
            .skip(1)
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        advised(error, &words).exit()
    })
}

/// Puts our advice in the place of clap's.
fn advised(mut error: clap::Error, words: &[String]) -> clap::Error {
    let advice = advice(&error, words);
    // To pass a flag on as the name of a list is never meant.
    error.remove(ContextKind::Suggested);
    if let Some(advice) = advice {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        let advice = StyledStr::from(advice);
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![advice]),
        );
    }
    error
}

fn advice(error: &clap::Error, words: &[String]) -> Option<String> {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let command = words
        .iter()
        .find(|word| !word.starts_with('-'))
        .map(String::as_str);
    let fetches = matches!(command, Some("fetch" | "retry" | "verify"));
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = of(ContextKind::InvalidSubcommand)?;
            match command {
                Some("schedule") => named(SCHEDULE, word),
                Some(first) if first == word => {
                    named(COMMANDS, word).or_else(|| as_list(word, words))
                }
                _ => None,
            }
        }
        ErrorKind::UnknownArgument => {
            let flag = of(ContextKind::InvalidArg)?;
            let flag = flag.split('=').next().unwrap_or(flag);
            let typed = |dash: char| {
                words
                    .iter()
                    .any(|word| word.starts_with('-') && word.contains(dash))
            };
            if flag.starts_with("-\u{2013}")
                || flag.starts_with("-\u{2014}")
                || typed('\u{2013}')
                || typed('\u{2014}')
            {
                return Some(
                    "a dash here is a typographic one, as word processors write it; type `-`"
                        .to_owned(),
                );
            }
            if flag[1..].starts_with(|c: char| c.is_ascii_digit()) {
                return Some("a negative number is not possible here".to_owned());
            }
            match command {
                _ if fetches => named(FLAGS, flag).or_else(|| {
                    let is_similar = error.get(ContextKind::SuggestedArg).is_some();
                    (!is_similar).then(|| format!("`gannet {} --help` lists the flags", command.unwrap_or("fetch")))
                }),
                Some("check") if !flag.starts_with('-') => Some(format!("to check a settings file: `gannet check -c {}`", quoted(flag))),
                Some("jobs" | "albums" | "verify" | "status") if !flag.starts_with('-') => {
                    Some("`-o DIR` names the folder of the files".to_owned())
                }
                Some("daemon") if !flag.starts_with('-') => Some(format!("to run one schedule a single time: `gannet daemon --once {}`", quoted(flag))),
                Some("daemon" | "schedule") if flag == "--dry-run" => Some("`gannet fetch --dry-run LIST` says what would be done with each target of a list".to_owned()),
                _ => None,
            }
        }
        ErrorKind::MissingRequiredArgument if command == Some("fetch") => {
            let of_config = words
                .iter()
                .position(|word| word == "-c")
                .and_then(|at| words.get(at + 1));
            Some(match of_config {
                Some(file) => format!("`-c` names the settings file, here {}; to fetch a list: `gannet fetch {0}`", quoted(file)),
                None => "name a list, `gannet fetch list.txt`, or the URLs of files themselves, `gannet fetch -u https://example.org/cat.jpg`".to_owned(),
            })
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation if fetches => {
            let flag = of(ContextKind::InvalidArg)?;
            let value = of(ContextKind::InvalidValue)?;
            if flag.starts_with("--count") && matches!(value, "c" | "p" | "v" | "H" | "d") {
                return named(FLAGS, &format!("-n{value}"));
            }
            if flag.starts_with("--kind") && value.is_empty() {
                return Some("`-k` is the kind of file: `-k document`; certificates are always checked, and `--ca-file PEM` trusts one of your own".to_owned());
            }
            if flag.starts_with("--config") && value.contains("://") {
                return Some("`-c` names the settings file; gannet continues what was cut off without being asked".to_owned());
            }
            None
        }
        _ => None,
    }
}

/// The advice that a table has for `word`.
fn named(table: &[(&[&str], &str)], word: &str) -> Option<String> {
    table
        .iter()
        .find(|(words, _)| words.contains(&word))
        .map(|(_, advice)| (*advice).to_owned())
}

/// What to type for the name of a list, or a URL, where a command belongs.
fn as_list(word: &str, words: &[String]) -> Option<String> {
    let line = |flag: &str| {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        format!("`gannet fetch {flag}{}`", words.join(" "))
    };
    if word.starts_with("http://") || word.starts_with("https://") {
        return Some(format!(
            "did you mean {}, for the file itself, or {}, for the list there?",
            line("-u "),
            line("")
        ));
    }
    let is_list =
        word == "-" || word.contains(['.', '/', ':']) || std::path::Path::new(word).is_file();
    is_list.then(|| format!("did you mean {}?", line("")))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:,=%@+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_of_ours_is_called_foreign() {
        let mut cli = <Cli as clap::CommandFactory>::command();
        cli.build();
        let fetch = cli.find_subcommand("fetch").unwrap();
        for flag in FLAGS.iter().flat_map(|(flags, _)| *flags) {
            let is_ours = fetch.get_arguments().any(|arg| {
                arg.get_long()
                    .is_some_and(|long| flag.strip_prefix("--") == Some(long))
                    || arg
                        .get_short()
                        .is_some_and(|short| **flag == format!("-{short}"))
            });
            assert!(!is_ours, "{flag}");
            let times = FLAGS
                .iter()
                .filter(|(flags, _)| flags.contains(flag))
                .count();
            assert_eq!(times, 1, "{flag} stands in two groups");
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, shell) in [
            ("list.txt", "list.txt"),
            ("https://a.example/?q=1&r", "'https://a.example/?q=1&r'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), shell);
        }
    }
}
