//! The binary, run in a folder of its own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Far more than any run needs: whatever is still there then hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder with a store `out` in it, and the program that works there.
pub struct Sandbox {
    folder: TempDir,
}

/// How a run ended.
pub struct Run {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// The exit code as a shell shows it: 128 and the signal's number for a process that a signal ended.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap())
    }

    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not JSON: {error}\n{self}"))
    }

    /// Asserts the exit code, and that nothing panicked on the way.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert!(
            self.code() == code && !self.stderr.contains("panicked"),
            "expected exit code {code}:\n{self}"
        );
        self
    }

    /// Asserts that stderr says all of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.stderr.contains(word),
                "stderr does not say `{word}`:\n{self}"
            );
        }
        self
    }

    /// One number of `counts` in the summary that `--json` prints.
    #[track_caller]
    pub fn count(&self, outcome: &str) -> u64 {
        count(&self.json(), outcome)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "exit code {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code(),
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        )
    }
}

/// One number of `counts`.
#[track_caller]
pub fn count(report: &Value, outcome: &str) -> u64 {
    report["counts"][outcome]
        .as_u64()
        .unwrap_or_else(|| panic!("no counts.{outcome} in {report}"))
}

/// A run under way. Killed when dropped.
pub struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `INT`, `TERM`, ….
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string())
            .status();
        assert!(sent.unwrap().success());
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Run {
        let _ = self.child.kill();
        self.end()
    }

    /// Waits for the end.
    pub fn end(self) -> Run {
        self.end_within(LIMIT)
    }

    pub fn end_within(mut self, limit: Duration) -> Run {
        let take = |pipe: &Receiver<Vec<u8>>| pipe.recv_timeout(limit);
        let (stdout, stderr) = match (take(&self.stdout), take(&self.stderr)) {
            (Ok(stdout), Ok(stderr)) => (stdout, stderr),
            (stdout, stderr) => {
                let _ = self.child.kill();
                let rest = |pipe: Result<Vec<u8>, RecvTimeoutError>, late: &Receiver<Vec<u8>>| {
                    let bytes = pipe
                        .or_else(|_| late.recv_timeout(limit))
                        .unwrap_or_default();
                    String::from_utf8_lossy(&bytes).into_owned()
                };
                panic!(
                    "still running after {limit:?}\n--- stdout\n{}\n--- stderr\n{}",
                    rest(stdout, &self.stdout),
                    rest(stderr, &self.stderr)
                );
            }
        };
        Run {
            status: self.child.wait().unwrap(),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `command` with both outputs read to their ends, and `input` on stdin.
pub fn start(mut command: Command, input: Option<Vec<u8>>) -> Running {
    command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if let Some(input) = input {
        let mut stdin = child.stdin.take().unwrap();
        std::thread::spawn(move || {
            // A program that has seen enough closes its end.
            let _ = stdin.write_all(&input);
        });
    }
    let stdout = read(child.stdout.take().unwrap());
    let stderr = read(child.stderr.take().unwrap());
    Running {
        child,
        stdout,
        stderr,
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = tell.send(bytes);
    });
    told
}

impl Sandbox {
    pub fn new() -> Self {
        Self {
            folder: TempDir::with_prefix("gannet-test-").unwrap(),
        }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where [`fetch`](Self::fetch) puts the files.
    pub fn store(&self) -> PathBuf {
        self.path("out")
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A JSON file.
    #[track_caller]
    pub fn json(&self, name: &str) -> Value {
        let bytes = self.read(name);
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", String::from_utf8_lossy(&bytes)))
    }

    /// The program with nothing of this process's environment but `PATH`.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gannet"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        start(self.command(args), None).end()
    }

    /// Runs `gannet ARGS` with these variables.
    pub fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Run {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        start(command, None).end()
    }

    pub fn run_fed(&self, input: impl Into<Vec<u8>>, args: &[&str]) -> Run {
        start(self.command(args), Some(input.into())).end()
    }

    /// `gannet fetch` into `out`, loopback allowed, impatient, with the summary as JSON.
    pub fn fetch_args<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec![
            "fetch",
            "-o",
            "out",
            "--allow-private",
            "--proxy",
            "direct",
            "--set",
            "fetch.backoff=5ms",
            "--set",
            "fetch.backoff_max=20ms",
            "--set",
            "storage.commit_interval=10ms",
            "--json",
        ];
        all.extend(args);
        all
    }

    pub fn fetch(&self, args: &[&str]) -> Run {
        self.run(self.fetch_args(args))
    }

    /// [`fetch`](Self::fetch) of one list, and the `.json` report of it.
    #[track_caller]
    pub fn fetch_list(&self, list: impl AsRef<[u8]>, code: i32, args: &[&str]) -> Report {
        self.write("list.txt", list);
        let mut all = vec!["list.txt"];
        all.extend(args);
        self.fetch_report(code, &all)
    }

    /// [`fetch`](Self::fetch) with a report.
    #[track_caller]
    pub fn fetch_report(&self, code: i32, args: &[&str]) -> Report {
        let mut all = vec!["--report", "report.json"];
        all.extend(args);
        let _ = std::fs::remove_file(self.path("report.json"));
        let run = self.fetch(&all).expect(code);
        Report {
            whole: self.json("report.json"),
            run,
        }
    }

    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        start(self.command(args), None)
    }

    /// The visible files of the store by their paths.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for path in walk(&self.store()) {
            let name = path.strip_prefix(self.store()).unwrap().to_str().unwrap();
            if !name.starts_with(".gannet/") {
                files.insert(name.to_owned(), std::fs::read(&path).unwrap());
            }
        }
        files
    }

    pub fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }

    /// What waits to be published.
    pub fn staged(&self) -> Vec<PathBuf> {
        walk(&self.store().join(".gannet/stage"))
    }

    /// Every file below the sandbox.
    pub fn everything(&self) -> Vec<PathBuf> {
        walk(self.folder.path())
    }
}

/// A run and its `.json` report.
pub struct Report {
    pub whole: Value,
    pub run: Run,
}

impl Report {
    #[track_caller]
    pub fn items(&self) -> &Vec<Value> {
        self.whole["items"].as_array().unwrap()
    }

    #[track_caller]
    pub fn count(&self, outcome: &str) -> u64 {
        count(&self.whole, outcome)
    }

    /// The items in the order of the list.
    pub fn by_line(&self) -> Vec<&Value> {
        let mut items: Vec<_> = self.items().iter().collect();
        items.sort_by_key(|item| item["line"].as_u64());
        items
    }

    /// The only item.
    #[track_caller]
    pub fn only(&self) -> &Value {
        match &self.items()[..] {
            [item] => item,
            items => panic!("not one item: {items:#?}"),
        }
    }

    /// The item of this URL.
    #[track_caller]
    pub fn of(&self, url: &str) -> &Value {
        self.items()
            .iter()
            .find(|item| item["url"] == url)
            .unwrap_or_else(|| panic!("no item for {url}: {:#?}", self.items()))
    }
}

/// Every file below `folder`, links included, in order; nothing when it is not there.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
