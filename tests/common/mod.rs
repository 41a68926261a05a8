//! Runs gannet's own binary, as a person would, and reads its report: `mod common;`.
//!
//! Every run has a folder of its own, an empty environment, and a limit of time after which it is killed.
//! [`Run::settled`] holds a report to what is true of every report.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "every test file takes what it needs of this module"
)]

pub mod pictures;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::Digest as _;

/// No run of these tests takes so long on purpose.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder to run gannet in, and how.
pub struct Gannet {
    dir: Rc<tempfile::TempDir>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    runs: std::cell::Cell<usize>,
}

impl Gannet {
    /// Loopback is allowed, there is no proxy, and waits before another attempt are short.
    pub fn new() -> Self {
        Self::guarded()
            .arg("--allow-private")
            .set("fetch.proxy=direct")
            .set("fetch.backoff=10ms")
            .set("fetch.backoff_max=50ms")
            .set("storage.sync=false")
    }

    /// As it comes: private addresses are denied.
    pub fn guarded() -> Self {
        Self {
            dir: Rc::new(tempfile::tempdir().unwrap()),
            args: Vec::new(),
            env: Vec::new(),
            runs: std::cell::Cell::new(0),
        }
    }

    /// For whatever bytes arrive, rather than pictures.
    pub fn any() -> Self {
        Self::new().set("job.kind=any")
    }

    pub fn arg(mut self, arg: impl Display) -> Self {
        self.args.push(arg.to_string());
        self
    }

    pub fn set(self, setting: impl Display) -> Self {
        self.arg(format!("--set={setting}"))
    }

    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Writes `gannet.toml` where gannet looks for it.
    pub fn config(self, toml: impl AsRef<str>) -> Self {
        fs::write(self.dir.path().join("gannet.toml"), toml.as_ref()).unwrap();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder with the files.
    pub fn root(&self) -> PathBuf {
        self.path("out")
    }

    /// Runs `gannet fetch` on a list of `urls` and reads the report.
    pub fn fetch<T: Display>(&self, urls: impl IntoIterator<Item = T>) -> Run {
        let lines: Vec<String> = urls.into_iter().map(|url| format!("{url}\n")).collect();
        fs::write(self.path("list.txt"), lines.concat()).unwrap();
        self.fetch_source("list.txt")
    }

    /// Runs `gannet fetch SOURCE` and reads the report, if there is one.
    pub fn fetch_source(&self, source: &str) -> Run {
        let number = self.runs.get() + 1;
        self.runs.set(number);
        let report = format!("report-{number}.json");
        let begun = Instant::now();
        let output = self
            .command()
            .args(["fetch", source, "-o", "out", "--progress=never", "--report"])
            .arg(&report)
            .args(&self.args)
            .output()
            .unwrap();
        let report = fs::read(self.path(&report)).ok();
        Run {
            code: output.status.code(),
            report: report.map(|bytes| serde_json::from_slice(&bytes).unwrap()),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            elapsed: begun.elapsed(),
            dir: self.dir.clone(),
            is_first: number == 1,
        }
    }

    fn command(&self) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_gannet"));
        command
            .timeout(LIMIT)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What a run left behind.
pub struct Run {
    /// `None`: killed at the limit of time, or crashed.
    pub code: Option<i32>,
    pub report: Option<Value>,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    /// Keeps the files as long as somebody may look at them.
    dir: Rc<tempfile::TempDir>,
    is_first: bool,
}

impl Run {
    pub fn report(&self) -> &Value {
        self.report
            .as_ref()
            .unwrap_or_else(|| panic!("no report; exit {:?}: {}", self.code, self.stderr))
    }

    pub fn items(&self) -> &[Value] {
        self.report()["items"].as_array().unwrap()
    }

    /// The item of `url`, as the list has it.
    pub fn item(&self, url: impl Display) -> &Value {
        let url = url.to_string();
        self.items()
            .iter()
            .find(|item| item["url"] == url.as_str())
            .unwrap_or_else(|| panic!("no item for `{url}`: {:#}", self.report()))
    }

    /// Outcome and reason of `url`, such as `failed/status`, or `stored`.
    pub fn verdict(&self, url: impl Display) -> String {
        verdict(self.item(url))
    }

    pub fn count(&self, outcome: &str) -> u64 {
        self.report()["counts"][outcome].as_u64().unwrap()
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// The bytes of the file of `url`.
    pub fn file(&self, url: impl Display) -> Vec<u8> {
        let item = self.item(url);
        let path = item["path"]
            .as_str()
            .unwrap_or_else(|| panic!("no path: {item:#}"));
        fs::read(self.root().join(path)).unwrap()
    }

    /// Holds the run to what is true of every run that came to its end: one outcome a target, counts that
    /// add up, files that are there as the report says and no others, nothing unfinished, and the exit code
    /// that follows.
    #[track_caller]
    pub fn settled(self) -> Self {
        let report = self.report();
        let mut outcomes = BTreeMap::<&str, u64>::new();
        let mut reasons = BTreeMap::<&str, u64>::new();
        for item in self.items() {
            let outcome = item["outcome"].as_str().unwrap();
            *outcomes.entry(outcome).or_default() += 1;
            let is_bad = matches!(outcome, "rejected" | "failed" | "skipped");
            assert_eq!(item["reason"].is_string(), is_bad, "{item:#}");
            if let Some(reason) = item["reason"].as_str() {
                *reasons.entry(reason).or_default() += 1;
                assert!(!item["detail"].as_str().unwrap().is_empty(), "{item:#}");
                assert!(item["path"].is_null(), "{item:#}");
            }
        }
        let counts = report["counts"].as_object().unwrap();
        assert_eq!(self.items().len() as u64, self.count("targets"));
        let sum: u64 = counts
            .iter()
            .filter(|(name, _)| *name != "targets")
            .map(|(name, count)| {
                let count = count.as_u64().unwrap();
                assert_eq!(
                    count,
                    outcomes.get(name.as_str()).copied().unwrap_or(0),
                    "{name}"
                );
                count
            })
            .sum();
        assert_eq!(sum, self.count("targets"), "{counts:?}");
        for (reason, count) in report["reasons"].as_object().unwrap() {
            assert_eq!(count.as_u64(), reasons.remove(reason.as_str()), "{reason}");
        }
        assert!(reasons.is_empty(), "not in `reasons`: {reasons:?}");
        let failures = self.count("rejected") + self.count("failed");
        // More failures than `--max-failures`, by default none.
        let (state, code) = if failures > 0 {
            ("incomplete", 3)
        } else {
            ("completed", 0)
        };
        assert_eq!(
            (self.code, &report["state"]),
            (Some(code), &state.into()),
            "{}",
            self.stderr
        );
        self.files_are_whole();
        self
    }

    #[track_caller]
    fn files_are_whole(&self) {
        let mut expected = BTreeSet::new();
        for item in self.items() {
            let Some(path) = item["path"].as_str() else {
                continue;
            };
            let bytes = fs::read(self.root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(item["bytes"].as_u64(), Some(bytes.len() as u64), "{item:#}");
            assert_eq!(item["sha256"], sha256(&bytes).as_str(), "{item:#}");
            expected.insert(path.to_owned());
        }
        let visible = files_below(&self.root());
        assert!(
            expected.iter().all(|path| visible.contains(path)),
            "{expected:?} {visible:?}"
        );
        if self.is_first {
            assert_eq!(visible, expected, "the folder holds what the report says");
        }
        let unfinished: Vec<String> = files_below(&self.root().join(".gannet"))
            .into_iter()
            .filter(|path| !path.starts_with("catalog.db") && path != "lock")
            .collect();
        assert!(unfinished.is_empty(), "left behind: {unfinished:?}");
    }
}

/// Outcome and reason of an item.
pub fn verdict(item: &Value) -> String {
    let outcome = item["outcome"].as_str().unwrap();
    match item["reason"].as_str() {
        Some(reason) => format!("{outcome}/{reason}"),
        None => outcome.to_owned(),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest: [u8; 32] = sha2::Sha256::digest(bytes).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The visible files below `root`, by their path with `/`.
pub fn files_below(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry.unwrap();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let path = path.strip_prefix(root).unwrap();
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// A port of loopback where nobody listens.
pub fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Bytes of no known kind, the same each time, that no coding makes much smaller.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// `bytes` in a content coding.
pub fn encoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    use async_compression::tokio::bufread::{
        BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
    };
    use tokio::io::{AsyncRead, AsyncReadExt as _};
    let mut encoder: Box<dyn AsyncRead + Unpin> = match coding {
        "gzip" => Box::new(GzipEncoder::new(bytes)),
        "deflate" => Box::new(ZlibEncoder::new(bytes)),
        "raw deflate" => Box::new(DeflateEncoder::new(bytes)),
        "br" => Box::new(BrotliEncoder::with_quality(
            bytes,
            async_compression::Level::Fastest,
        )),
        "zstd" => Box::new(ZstdEncoder::new(bytes)),
        other => panic!("{other}"),
    };
    let mut out = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(encoder.read_to_end(&mut out)).unwrap();
    out
}
