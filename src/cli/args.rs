//! What can be typed.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{
    PathBufValueParser, PossibleValuesParser, TryMapValueParser, TypedValueParser,
    ValueParserFactory,
};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::job::Shard;
use crate::job::progress::When;
use crate::local_path::{LocalPath, NotALocalPath};
use crate::naming::NameFrom;
use crate::source::{ListEncoding, ListFormat, UnknownEncoding};
use crate::target::Reason;

const GLOBAL: &str = "Global options";
const LISTS: &str = "What to fetch";
const FILES: &str = "What to keep";
const PACE: &str = "How fast";
const NETWORK: &str = "Network";
const RESULT: &str = "What comes out";

/// Keeps a folder in step with lists of URLs.
#[derive(Debug, Parser)]
#[command(
    name = "gannet",
    bin_name = "gannet",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit codes: 0 every target is fine · 1 could not run · 2 wrong usage · 3 ran, but more targets \
failed than --max-failures · 4 another run holds the store · 129/130/143 stopped by a signal, work so far kept."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Settings and logs.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Settings file [default: ./gannet.toml, else /etc/gannet/gannet.toml, if there]
    #[arg(short, long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GLOBAL)]
    pub config: Option<LocalPath>,
    /// Change any setting, such as fetch.retries=5; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_value, help_heading = GLOBAL)]
    pub set: Vec<(String, String)>,
    /// Log more; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub verbose: u8,
    /// Log warnings and errors only; twice: errors only
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "verbose", help_heading = GLOBAL)]
    pub quiet: u8,
    /// Format of the log on stderr: text or json
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = GLOBAL
    )]
    pub log_format: Option<LogFormat>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch what is new on a list: one pass
    Fetch(Box<Fetch>),
    /// Show it all offline: a built-in origin, good and bad files, a contact sheet
    Demo(Demo),
    /// List jobs, or what became of one job's targets
    Jobs(Jobs),
    /// Explain why a file is there or not: what is known of a URL or a file, its last outcomes, the next try
    Why(Why),
    /// Ask once more for what failed in a job, whatever is known of it
    Retry(Box<Retry>),
    /// Hold every record against its file, and bring again what is damaged
    Verify(Box<Verify>),
    /// Look at the catalog, or move it elsewhere
    Catalog(Catalog),
    /// List albums: their files, bytes, and when the newest came
    Albums(Albums),
    /// Rename the files of albums as the current settings would name them
    Rename(Rename),
    /// Run schedules, unattended
    Daemon(Daemon),
    /// List the schedules of a running daemon, run, pause or resume one
    Schedule(ScheduleArgs),
    /// Show what the daemon is about: schedules, jobs under way, how the last ones ended
    Status(StatusArgs),
    /// Print what happens in a running daemon, as it happens
    Events(EventsArgs),
    /// See whether those who are told of events can be reached
    Notify(NotifyArgs),
    /// See how the proxies of the pool are
    Proxies(ProxiesArgs),
    /// Say what is wrong with the settings, or print those in force
    Check,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, for `man -l -`
    Man,
    /// Print this help, or that of a command
    Help {
        /// The command
        command: Option<String>,
    },
}

/// `gannet fetch`.
#[derive(Debug, Args)]
#[command(
    override_usage = "gannet fetch [OPTIONS] <SOURCE>...\n       gannet fetch [OPTIONS] --url <URL>...",
    after_help = "Names in [brackets] are the settings that an option overrides; `gannet check` prints their values.\n\n\
Examples:\n  gannet fetch list.txt -o pictures\n  \
gannet fetch https://example.org/sitemap.xml -a site --report site.html\n  \
gannet fetch -u https://example.org/cat.jpg\n  zcat urls.gz | gannet fetch - --max-failures 5%\n  \
gannet jobs last --failed | gannet fetch -\n  gannet fetch 'search:openverse?q=red panda' -n 100 -a pandas\n\n\
Exit codes: 0 every target is fine · 1 could not run · 2 wrong usage · 3 more targets failed than \
--max-failures · 4 another run holds the store · 129/130/143 stopped by a signal, work so far kept."
)]
pub struct Fetch {
    /// Lists of URLs: a path, `-` for standard input, or the http(s) URL of a list; or image searches: `search:PROVIDER?q=…`
    #[arg(value_name = "SOURCE", required_unless_present = "url", value_hint = ValueHint::FilePath)]
    pub sources: Vec<String>,
    /// Fetch these URLs themselves; every word up to the next option is one
    #[arg(short, long, value_name = "URL", num_args = 1.., value_hint = ValueHint::Url, help_heading = LISTS)]
    pub url: Vec<String>,
    /// Format of the lists, where it is not to be detected
    #[arg(long, value_name = "FORMAT", value_parser = list_format(), help_heading = LISTS)]
    pub list_format: Option<ListFormat>,
    /// Encoding of the lists, such as windows-1252; detected if not given [source.encoding]
    #[arg(long, value_name = "NAME", value_parser = list_encoding, help_heading = LISTS)]
    pub list_encoding: Option<ListEncoding>,
    /// Take only the I-th of N shares of the list, divided by host
    #[arg(long, value_name = "I/N", help_heading = LISTS)]
    pub shard: Option<Shard>,
    /// Say what would be done with each target; fetch nothing but the list
    #[arg(long, help_heading = LISTS)]
    pub dry_run: bool,
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = FILES)]
    pub output: Option<LocalPath>,
    /// Album, a folder below the output folder, of files whose list names none [job.album]
    #[arg(short, long, value_name = "NAME", help_heading = FILES)]
    pub album: Option<String>,
    /// Kind of file: image, document or any [job.kind]
    #[arg(short, long, value_name = "NAME", help_heading = FILES)]
    pub kind: Option<String>,
    /// Store exactly N files, no two alike, then stop
    #[arg(short = 'n', long, value_name = "N", value_parser = whole_number::<u64>, help_heading = FILES)]
    pub count: Option<u64>,
    /// Ask the origin about every known URL, also where its record is fresh
    #[arg(long, help_heading = FILES)]
    pub refresh: bool,
    /// Options for the names of files.
    #[command(flatten)]
    pub naming: Naming,
    /// How the origins are asked.
    #[command(flatten)]
    pub asking: Asking,
    /// What comes out.
    #[command(flatten)]
    pub told: Told,
}

/// Options for the names of files, shared by several commands.
#[derive(Debug, Args)]
pub struct Naming {
    /// Name files by the list, the header Content-Disposition, the url, or at random: the first usable name counts, in the
    /// order given; may be repeated, or separated by commas [naming.order]
    #[arg(long, value_name = "list|header|url|random", value_delimiter = ',', value_parser = name_from(),
        hide_possible_values = true, help_heading = FILES)]
    pub name_by: Vec<NameFrom>,
}

/// How origins are asked, by every command that does.
#[derive(Debug, Args)]
pub struct Asking {
    /// Requests at a time, over all hosts [fetch.concurrency]
    #[arg(short = 'j', long, value_name = "N", value_parser = whole_number::<usize>, help_heading = PACE)]
    pub concurrency: Option<usize>,
    /// Requests at a time to one host [fetch.per_host]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>, help_heading = PACE)]
    pub per_host: Option<usize>,
    /// Requests a second to one host, may be a fraction; 0: no limit [fetch.rate]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = PACE)]
    pub rate: Option<f64>,
    /// Bytes per second over all hosts, such as 512K or 2M, or by time of day: "08:00 512K, 19:00 off" [fetch.max_rate]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, help_heading = PACE)]
    pub limit_rate: Option<String>,
    /// Time limit for one attempt, such as 30s or 2m; a plain number is seconds [fetch.total_timeout]
    #[arg(long, value_name = "DURATION", help_heading = PACE)]
    pub timeout: Option<String>,
    /// Further attempts after a failure that may pass [fetch.retries]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>, help_heading = PACE)]
    pub retries: Option<u32>,
    /// Time limit for the whole job, such as 10m [job.deadline]
    #[arg(long, value_name = "DURATION", help_heading = PACE)]
    pub deadline: Option<String>,
    /// Allow addresses that are not on the public Internet [fetch.private_networks]
    #[arg(long, help_heading = NETWORK)]
    pub allow_private: bool,
    /// Allow one such network; may be repeated [fetch.allow_networks]
    #[arg(long, value_name = "CIDR", help_heading = NETWORK)]
    pub allow_net: Vec<String>,
    /// Trust the certificates in this PEM file too; may be repeated [fetch.ca_files]
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath, help_heading = NETWORK)]
    pub ca_file: Vec<LocalPath>,
    /// Send this header with every request; may be repeated [fetch.headers]
    #[arg(long, value_name = "NAME: VALUE", help_heading = NETWORK)]
    pub header: Vec<String>,
    /// Send this User-Agent [fetch.user_agent]
    #[arg(long, value_name = "TEXT", help_heading = NETWORK)]
    pub user_agent: Option<String>,
    /// Send the cookies in this file, in Netscape's format [fetch.cookies_file]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = NETWORK)]
    pub cookies: Option<LocalPath>,
    /// Take user names and passwords from ~/.netrc [fetch.netrc_file]
    #[arg(long, conflicts_with = "netrc_file", help_heading = NETWORK)]
    pub netrc: bool,
    /// Take user names and passwords from this file, in the format of ~/.netrc [fetch.netrc_file]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = NETWORK)]
    pub netrc_file: Option<LocalPath>,
    /// Send all requests through this proxy; repeated: through these in turn; `direct`: through none
    /// [fetch.proxy, proxies.urls]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, help_heading = NETWORK)]
    pub proxy: Vec<String>,
}

/// What a job tells, and when it counts as failed.
#[derive(Debug, Args)]
pub struct Told {
    /// Write a report: .json, .jsonl, .xml (JUnit) or .html (contact sheet); may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = RESULT)]
    pub report: Vec<LocalPath>,
    /// Print the summary as JSON
    #[arg(long, help_heading = RESULT)]
    pub json: bool,
    /// Show how far the job is: auto, always or never
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", hide_possible_values = true, help_heading = RESULT)]
    pub progress: When,
    /// Failures that are tolerated: a number, or a share such as 5% [job.max_failures]
    #[arg(long, value_name = "N|P%", allow_negative_numbers = true, help_heading = RESULT)]
    pub max_failures: Option<String>,
    /// Exit with this code, not 0, when every target is fine and nothing was new
    #[arg(long, value_name = "CODE", help_heading = RESULT)]
    pub exit_unchanged: Option<u8>,
}

/// `gannet retry`.
#[derive(Debug, Args)]
#[command(
    after_help = "Names in [brackets] are the settings that an option overrides; `gannet check` prints their values.\n\n\
Examples:\n  gannet retry last\n  gannet retry 01a1fe2c --reason timeout reset\n\n\
Exit codes are those of `gannet fetch`; 0 also where there is nothing to retry."
)]
pub struct Retry {
    /// The job: its id, the beginning of it, or `last`
    pub id: String,
    /// Only what failed for these reasons, such as timeout; every word up to the next option is one
    #[arg(long, value_name = "REASON", num_args = 1.., value_delimiter = ',', value_parser = reason(),
        hide_possible_values = true, help_heading = LISTS)]
    pub reason: Vec<Reason>,
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = FILES)]
    pub output: Option<LocalPath>,
    /// Options for the names of files.
    #[command(flatten)]
    pub naming: Naming,
    /// How the origins are asked.
    #[command(flatten)]
    pub asking: Asking,
    /// What comes out.
    #[command(flatten)]
    pub told: Told,
}

/// `gannet verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Names in [brackets] are the settings that an option overrides; `gannet check` prints their values.\n\n\
Findings: missing, length, content, unreadable: a file is not as it is recorded · unrecorded: a file is \
there that gannet does not know.\n\n\
Exit codes: 0 everything is as recorded, or is again · 1 could not run · 2 wrong usage · 3 something is not · \
4 another run holds the store (with --repair) · 130/143 stopped by a signal."
)]
pub struct Verify {
    /// Fetch missing and damaged files again from their URLs
    #[arg(long)]
    pub repair: bool,
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Print JSON: a finding a line, the summary last
    #[arg(long)]
    pub json: bool,
    /// Show how far it is: auto, always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub progress: When,
    /// How the origins are asked, for a repair.
    #[command(flatten)]
    pub asking: Asking,
}

/// `gannet demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder for the files and the reports [default: gannet-demo, or the next free name]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Show how far the job is: auto, always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub progress: When,
}

/// `gannet jobs`.
#[derive(Debug, Args)]
pub struct Jobs {
    /// Show this job: its id, the beginning of it, or `last`
    pub id: Option<String>,
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Print only the URLs that failed, one a line, as `gannet fetch -` takes them; with --json also the
    /// names, albums and digests that the list wants
    #[arg(long, requires = "id")]
    pub failed: bool,
    /// Print JSON: an array of jobs, or one job's outcomes a line and the job itself, with its counts, last
    #[arg(long)]
    pub json: bool,
    /// Most jobs to list; 0: all
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>, default_value_t = 20)]
    pub limit: u32,
}

/// `gannet why`.
#[derive(Debug, Args)]
pub struct Why {
    /// A URL; or a file, by its path or its SHA-256
    #[arg(value_name = "URL-or-FILE", value_hint = ValueHint::AnyPath)]
    pub subject: String,
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `gannet catalog`.
#[derive(Debug, Args)]
pub struct Catalog {
    /// What to do with it.
    #[command(subcommand)]
    pub command: CatalogCommand,
}

/// What to do with a catalog.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Say where the catalog is, its version, and how large its tables are
    Status {
        /// Folder that holds the files [storage.root]
        #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<LocalPath>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring the tables up to date, as the next run would
    Migrate {
        /// Folder that holds the files [storage.root]
        #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<LocalPath>,
    },
    /// Copy everything into a new catalog, such as from SQLite to PostgreSQL
    #[command(after_help = "Example:\n  \
gannet catalog copy sqlite:downloads/.gannet/catalog.db postgres://gannet@db.example/gannet\n\n\
The password comes from PGPASSWORD or ~/.pgpass. Set `catalog.url` to the new catalog afterwards.")]
    Copy {
        /// The catalog to copy, as `catalog.url` names it
        #[arg(value_name = "SRC")]
        from: String,
        /// The catalog to fill, which must be empty
        #[arg(value_name = "DST")]
        to: String,
    },
}

/// `gannet proxies`.
#[derive(Debug, Args)]
pub struct ProxiesArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: ProxiesCommand,
}

/// What to do with proxies.
#[derive(Debug, Subcommand)]
pub enum ProxiesCommand {
    /// Try each proxy of the pool: with `proxies.probe_url`, whether it brings that unaltered
    #[command(
        after_help = "Exit codes: 0 a proxy works · 1 there is no pool, or it could not be checked · 3 none works."
    )]
    Check {
        /// Print JSON: an array of proxies
        #[arg(long)]
        json: bool,
    },
}

/// `gannet daemon`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --once it runs until SIGTERM, which lets what is being fetched finish within \
daemon.stop_timeout and leaves the rest to the next start; SIGHUP has it read its settings again.\n\n\
Exit codes: 0 stopped, or with --once every target is fine · 1 could not run · 2 wrong usage · 3 ran, but more \
targets failed than tolerated · 4 another run holds the store · 129/130/143 stopped by a signal. With --once \
that of the worst schedule counts."
)]
pub struct Daemon {
    /// Run the schedules (or those named) one time each, then exit; the last line is JSON
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub once: Option<Vec<String>>,
    /// Exit code when nothing was stored or changed, such as 99 to have Airflow skip what follows
    #[arg(long, value_name = "CODE", requires = "once")]
    pub exit_unchanged: Option<u8>,
}

/// `gannet schedule`.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// What to ask of the daemon.
    #[command(subcommand)]
    pub command: ScheduleCommand,
}

/// What a running daemon can be asked.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List the schedules: when they are due, how their last jobs ended
    List {
        /// Folder that holds the files [storage.root]
        #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<LocalPath>,
        /// Print JSON: an array of schedules
        #[arg(long)]
        json: bool,
    },
    /// Run a schedule now, also while it is paused
    Run {
        /// The schedule
        name: String,
        /// Folder that holds the files [storage.root]
        #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<LocalPath>,
    },
    /// Let its times pass without a run, also after a restart
    Pause {
        /// The schedule
        name: String,
        /// Folder that holds the files [storage.root]
        #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<LocalPath>,
    },
    /// End the pause; what was due meanwhile is not made up for
    Resume {
        /// The schedule
        name: String,
        /// Folder that holds the files [storage.root]
        #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output: Option<LocalPath>,
    },
}

/// `gannet status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the daemon runs · 1 it does not · 3 it does, and the last job of a schedule failed."
)]
pub struct StatusArgs {
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Print JSON, as the state file has it
    #[arg(long)]
    pub json: bool,
}

/// `gannet events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  gannet events\n  gannet events 'job.*' --json | jq .counts")]
pub struct EventsArgs {
    /// Only these, such as job.failed or 'file.*'
    #[arg(value_name = "EVENT")]
    pub events: Vec<String>,
    /// Only those of this schedule
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// Only those of this album
    #[arg(long, value_name = "NAME")]
    pub album: Option<String>,
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Print JSON: an event a line
    #[arg(long)]
    pub json: bool,
}

/// `gannet notify`.
#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: NotifyCommand,
}

/// What can be asked of receivers.
#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a test event, and say what became of it
    #[command(
        after_help = "Exit codes: 0 all took it · 1 could not run · 2 wrong usage · 3 one did not."
    )]
    Test {
        /// Only to these receivers
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// List dead letters: events that a receiver refused until they were given up
    List {
        /// Only those of this receiver
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
        /// Print JSON: an array of dead letters
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters again, and drop those that the receiver takes
    #[command(
        after_help = "Exit codes: 0 all were taken · 1 could not run · 2 wrong usage · 3 one was not, and is kept."
    )]
    Resend(Letters),
    /// Drop dead letters
    Drop(Letters),
}

/// Which dead letters are meant.
#[derive(Debug, Args)]
pub struct Letters {
    /// Ids of events, as `gannet notify list` shows them
    #[arg(value_name = "ID", required_unless_present_any = ["all", "receiver"])]
    pub ids: Vec<i64>,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Only those of this receiver
    #[arg(long, value_name = "NAME")]
    pub receiver: Option<String>,
}

/// `gannet albums`.
#[derive(Debug, Args)]
pub struct Albums {
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Print JSON: an array of albums
    #[arg(long)]
    pub json: bool,
}

/// `gannet rename`.
#[derive(Debug, Args)]
#[command(
    after_help = "Names in [brackets] are the settings that an option overrides; `gannet check` prints their values.\n\n\
A name comes from what is recorded: the list's name, Content-Disposition, the URL, further columns. Files that no URL stands \
for, such as uploads and the older ones of a series, keep their names.\n\n\
Examples:\n  gannet rename pictures --name-by url --dry-run\n  \
gannet rename . -o downloads --set 'naming.template={album}/{sha256:2}/{name}'\n\n\
Exit codes: 0 all files have the names that the settings give · 1 could not run · 2 wrong usage · 3 a file could not be \
renamed · 4 another run holds the store."
)]
pub struct Rename {
    /// Albums; `.` is the root folder
    #[arg(value_name = "ALBUM", required = true)]
    pub albums: Vec<String>,
    /// Print the renames; rename nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Folder that holds the files [storage.root]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<LocalPath>,
    /// Print JSON: one line per file, the summary last
    #[arg(long)]
    pub json: bool,
    /// Options for the names of files.
    #[command(flatten)]
    pub naming: Naming,
}

/// Makes flags refuse URLs where a path is expected.
impl ValueParserFactory for LocalPath {
    type Parser =
        TryMapValueParser<PathBufValueParser, fn(PathBuf) -> Result<LocalPath, NotALocalPath>>;

    fn value_parser() -> Self::Parser {
        PathBufValueParser::new().try_map(LocalPath::try_from)
    }
}

/// Reads a list format, and names all of them in help and errors.
fn list_format() -> impl TypedValueParser<Value = ListFormat> {
    PossibleValuesParser::new(ListFormat::ALL.map(ListFormat::as_str))
        .try_map(|word| word.parse::<ListFormat>())
}

/// Parses a source of names. Help and errors list all sources.
fn name_from() -> impl TypedValueParser<Value = NameFrom> {
    PossibleValuesParser::new(NameFrom::ALL.map(NameFrom::as_str))
        .try_map(|word| word.parse::<NameFrom>())
}

/// Parses the name of an encoding.
fn list_encoding(name: &str) -> Result<ListEncoding, UnknownEncoding> {
    name.parse()
}

/// Reads a reason, and names the one that was probably meant.
fn reason() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.as_str()))
        .try_map(|word| word.parse::<Reason>())
}

fn whole_number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse()
        .map_err(|_| "write a whole number that is 0 or more, such as 20")
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE, such as fetch.retries=5".to_owned()),
    }
}

/// Settings that a flag overrides, and the flag as typed.
const FLAGS: &[(&str, &str)] = &[
    ("storage.root", "--output"),
    ("job.album", "--album"),
    ("job.kind", "--kind"),
    ("naming.order", "--name-by"),
    ("job.deadline", "--deadline"),
    ("job.max_failures", "--max-failures"),
    ("source.encoding", "--list-encoding"),
    ("fetch.concurrency", "--concurrency"),
    ("fetch.per_host", "--per-host"),
    ("fetch.rate", "--rate"),
    ("fetch.max_rate", "--limit-rate"),
    ("fetch.total_timeout", "--timeout"),
    ("fetch.retries", "--retries"),
    ("fetch.user_agent", "--user-agent"),
    ("fetch.private_networks", "--allow-private"),
    ("fetch.allow_networks", "--allow-net"),
    ("fetch.ca_files", "--ca-file"),
    ("fetch.headers", "--header"),
    ("fetch.cookies_file", "--cookies"),
    ("fetch.netrc_file", "--netrc-file"),
    ("fetch.proxy", "--proxy"),
    ("proxies.urls", "--proxy"),
    ("log.format", "--log-format"),
];

/// The flag that overrides the setting `key`, or the table that it stands in.
pub(super) fn flag_of(key: &str) -> Option<&'static str> {
    FLAGS.iter().find_map(|(setting, flag)| {
        let rest = key.strip_prefix(setting)?;
        (rest.is_empty() || rest.starts_with('.')).then_some(*flag)
    })
}

impl Fetch {
    /// The flags as settings.
    pub fn settings(&self) -> Result<Vec<(String, String)>, String> {
        let mut set = root(self.output.as_deref())?;
        if let Some(album) = &self.album {
            set.push(("job.album".to_owned(), quoted(album)));
        }
        if let Some(kind) = &self.kind {
            set.push(("job.kind".to_owned(), quoted(kind)));
        }
        set.extend(self.naming.settings());
        if let Some(encoding) = self.list_encoding {
            set.push(("source.encoding".to_owned(), quoted(&encoding.to_string())));
        }
        set.extend(self.asking.settings()?);
        set.extend(self.told.settings());
        Ok(set)
    }
}

impl Retry {
    /// The flags as settings.
    pub fn settings(&self) -> Result<Vec<(String, String)>, String> {
        let mut set = root(self.output.as_deref())?;
        set.extend(self.naming.settings());
        set.extend(self.asking.settings()?);
        set.extend(self.told.settings());
        Ok(set)
    }
}

/// `--output` as a setting.
pub(super) fn root(output: Option<&Path>) -> Result<Vec<(String, String)>, String> {
    let root = output.map(|output| Ok(("storage.root".to_owned(), path(output)?)));
    root.into_iter().collect()
}

impl Verify {
    /// The flags as settings.
    pub fn settings(&self) -> Result<Vec<(String, String)>, String> {
        let mut set = root(self.output.as_deref())?;
        set.extend(self.asking.settings()?);
        Ok(set)
    }
}

impl Rename {
    /// Converts the flags to settings.
    pub fn settings(&self) -> Result<Vec<(String, String)>, String> {
        let mut set = root(self.output.as_deref())?;
        set.extend(self.naming.settings());
        Ok(set)
    }
}

impl Naming {
    fn settings(&self) -> Option<(String, String)> {
        let order = self.name_by.iter().map(|from| quoted(from.as_str()));
        (!self.name_by.is_empty()).then(|| ("naming.order".to_owned(), array(order)))
    }
}

impl Told {
    fn settings(&self) -> Option<(String, String)> {
        let most = self.max_failures.as_ref()?;
        Some(("job.max_failures".to_owned(), quoted(most)))
    }
}

impl Asking {
    /// The flags as settings.
    pub fn settings(&self) -> Result<Vec<(String, String)>, String> {
        let mut set = Vec::new();
        let mut put = |key: &str, value: String| set.push((key.to_owned(), value));
        if let Some(concurrency) = self.concurrency {
            put("fetch.concurrency", concurrency.to_string());
        }
        if let Some(per_host) = self.per_host {
            put("fetch.per_host", per_host.to_string());
        }
        if let Some(rate) = self.rate {
            put("fetch.rate", rate.to_string());
        }
        if let Some(rate) = &self.limit_rate {
            put("fetch.max_rate", quoted(rate));
        }
        if let Some(timeout) = &self.timeout {
            // As in curl and wget.
            let is_seconds = timeout.bytes().all(|byte| byte.is_ascii_digit());
            let unit = if is_seconds { "s" } else { "" };
            put("fetch.total_timeout", quoted(&format!("{timeout}{unit}")));
        }
        if let Some(retries) = self.retries {
            put("fetch.retries", retries.to_string());
        }
        if let Some(agent) = &self.user_agent {
            put("fetch.user_agent", quoted(agent));
        }
        if let Some(deadline) = &self.deadline {
            put("job.deadline", quoted(deadline));
        }
        if self.allow_private {
            put("fetch.private_networks", "true".to_owned());
        }
        if !self.allow_net.is_empty() {
            put(
                "fetch.allow_networks",
                array(self.allow_net.iter().map(|net| quoted(net))),
            );
        }
        if !self.ca_file.is_empty() {
            let files: Vec<String> = self
                .ca_file
                .iter()
                .map(|file| path(file))
                .collect::<Result<_, _>>()?;
            put("fetch.ca_files", array(files.into_iter()));
        }
        for header in &self.header {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| format!("`--header {header}`: write `Name: value`"))?;
            put(
                &format!("fetch.headers.{}", quoted(name.trim())),
                quoted(value.trim()),
            );
        }
        if let Some(file) = &self.cookies {
            put("fetch.cookies_file", path(file)?);
        }
        if let Some(file) = &self.netrc_file {
            put("fetch.netrc_file", path(file)?);
        } else if self.netrc {
            put("fetch.netrc_file", quoted("~/.netrc"));
        }
        if let [first, rest @ ..] = self.proxy.as_slice() {
            // What is typed takes the place of all proxies of the settings.
            let (one, pool) = match rest {
                [] => (first.as_str(), &[][..]),
                _ => ("", self.proxy.as_slice()),
            };
            put("fetch.proxy", quoted(one));
            put(
                "proxies.urls",
                array(pool.iter().map(|proxy| quoted(proxy))),
            );
            put("proxies.file", quoted(""));
            put("proxies.lists", array(std::iter::empty()));
        }
        Ok(set)
    }
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A path as a TOML string.
pub(super) fn path(path: &Path) -> Result<String, String> {
    path.to_str()
        .map(quoted)
        .ok_or_else(|| format!("the path `{}` is not UTF-8", path.display()))
}

fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}
