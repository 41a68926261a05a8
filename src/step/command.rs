//! `command`: a program that the settings name, run on the file.
//!
//! It is started without a shell, with nothing in its environment but what is listed here, and in a process group of its
//! own, which is ended with it: when it takes too long, prints too much, is wanted no more, and also when it ends by itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytesize::ByteSize;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{Command, Failure, Output, Settings, Step, Subject, Wrong, parameters};
use crate::downloader::Body;
use crate::rendition::Workers;

/// What is kept of the end of what a program says on stderr.
const SAID: usize = 4096;

/// What of that is told.
const TOLD: usize = 500;

/// What the names of this process's files begin with.
static PROCESS: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().simple().to_string());

#[derive(Debug)]
pub(super) struct Kind {
    commands: BTreeMap<String, Arc<Program>>,
    turns: Arc<Semaphore>,
    folder: Arc<Path>,
}

#[derive(Debug)]
struct Program {
    name: String,
    command: Command,
    timeout: Duration,
    max_output: ByteSize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    name: String,
}

#[derive(Debug)]
struct Run {
    program: Arc<Program>,
    /// As many programs as there are workers, besides those.
    turns: Arc<Semaphore>,
    folder: Arc<Path>,
}

impl Kind {
    /// Programs find their files in `folder`. What an earlier process left there is deleted.
    pub(super) fn new(settings: &Settings, folder: &Path) -> Self {
        clear(folder);
        let commands = settings.commands.iter().map(|(name, command)| {
            let program = Program {
                name: name.clone(),
                timeout: command.timeout.unwrap_or(settings.timeout),
                max_output: command.max_output.unwrap_or(settings.max_output),
                command: command.clone(),
            };
            (name.clone(), Arc::new(program))
        });
        Self {
            commands: commands.collect(),
            turns: Arc::new(Semaphore::new(Workers::count(settings.workers))),
            folder: folder.into(),
        }
    }
}

impl super::Kind for Kind {
    fn name(&self) -> &str {
        "command"
    }

    fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong> {
        let Given { name } = parameters(given)?;
        let program = self.commands.get(&name).ok_or_else(|| {
            let problem = format!("there is no `{name}` in `steps.commands`");
            Wrong::field("name", problem)
        })?;
        Ok(Arc::new(Run {
            program: program.clone(),
            turns: self.turns.clone(),
            folder: self.folder.clone(),
        }))
    }
}

#[async_trait]
impl Step for Run {
    fn given(&self) -> Map<String, Value> {
        Map::from_iter([("name".to_owned(), self.program.name.clone().into())])
    }

    async fn run(&self, subject: &Subject) -> Result<Output, Failure> {
        let name = &self.program.name;
        let gone = || Failure::new(format!("`{name}` was not run, since the process ends"));
        let _turn = self.turns.acquire().await.map_err(|_| gone())?;
        let (folder, body) = (self.folder.clone(), subject.body.clone());
        let extension = subject.facts.format.extensions.first().copied();
        let lent = spawn_blocking(move || Lent::new(&folder, &body, extension));
        let lent = lent.await.map_err(|_| gone())?.map_err(|error| {
            let folder = self.folder.display();
            Failure::new(format!("cannot write to `{folder}` for `{name}`: {error}"))
        })?;
        let running = self.program.start(subject, &lent.0)?;
        let limit = self.program.timeout;
        let ended = tokio::time::timeout(limit, self.program.attend(running));
        ended.await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limit);
            Err(Failure::new(format!("`{name}` did not end within {limit}")))
        })
    }
}

impl Program {
    fn start(&self, subject: &Subject, path: &Path) -> Result<Running, Failure> {
        let format = subject.facts.format;
        let sha256 = subject.sha256.to_string();
        let values: [(&str, &OsStr); 3] = [
            ("{path}", path.as_os_str()),
            ("{url}", subject.url.as_ref()),
            ("{format}", format.name.as_ref()),
        ];
        let inherited = ["PATH", "HOME"].map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = tokio::process::Command::new(&self.command.program);
        command
            .args(self.command.args.iter().map(|arg| filled(arg, &values)))
            .env_clear()
            .envs(inherited.into_iter().flatten())
            .env("GANNET_PATH", path)
            .env("GANNET_URL", &subject.url)
            .env("GANNET_FORMAT", format.name)
            .env("GANNET_MEDIA_TYPE", format.media_type)
            .env("GANNET_SHA256", sha256)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let program = self.command.program.display();
        let cannot = |error: io::Error| Failure::new(format!("cannot run `{program}`: {error}"));
        Running::new(command.spawn().map_err(cannot)?).map_err(cannot)
    }

    /// Reads what the program prints, until it has ended.
    async fn attend(&self, mut running: Running) -> Result<Output, Failure> {
        let name = &self.name;
        let lost = |error: io::Error| Failure::new(format!("`{name}` cannot be followed: {error}"));
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        let (printed, said, ()) = tokio::try_join!(
            async {
                let limit = self.max_output.as_u64();
                let printed = read(stdout, limit).await.map_err(lost)?;
                printed.ok_or_else(|| {
                    let limit = self.max_output;
                    Failure::new(format!("`{name}` printed more than {limit}"))
                })
            },
            async { read_end(stderr).await.map_err(lost) },
            async { running.ended().await.map_err(lost) },
        )?;
        let status = running.end().await.map_err(lost)?;
        if !status.success() {
            let last = last_line(&said);
            return Err(Failure::new(format!("`{name}` {}{last}", how(status))));
        }
        if printed.trim_ascii().is_empty() {
            return Ok(Value::Null.into());
        }
        let value: Value = serde_json::from_slice(&printed)
            .map_err(|error| Failure::new(format!("`{name}` printed no JSON: {error}")))?;
        Ok(value.into())
    }
}

/// A program that has not ended, as far as is known. Dropping it ends it, and whatever it has started in its group.
#[derive(Debug)]
struct Running {
    child: Child,
    /// `None` once it is ended and its number may mean another one.
    group: Option<Pid>,
    /// Tells of its end and leaves its number taken.
    descriptor: AsyncFd<OwnedFd>,
}

impl Running {
    fn new(mut child: Child) -> io::Result<Self> {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = id.and_then(Pid::from_raw);
        #[expect(
            deprecated,
            reason = "sound for an `OwnedFd`; what stands in its place is unsafe"
        )]
        let watched = (|| {
            let pid = group.ok_or(io::ErrorKind::NotFound)?;
            AsyncFd::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
        })();
        match watched {
            Ok(descriptor) => Ok(Self {
                child,
                group,
                descriptor,
            }),
            Err(error) => {
                let _ = child.start_kill();
                Err(error)
            }
        }
    }

    /// Waits for its end. What it leaves behind is ended then, and with that what it holds open.
    async fn ended(&self) -> io::Result<()> {
        let _ready = self.descriptor.readable().await?;
        self.kill();
        Ok(())
    }

    async fn end(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(status)
    }

    fn kill(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All that comes; `None`: more than `limit` bytes.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(limit.saturating_add(1));
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// The end of what comes.
async fn read_end(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut end = Vec::new();
    let Some(mut pipe) = pipe else {
        return Ok(end);
    };
    let mut piece = [0; SAID];
    loop {
        match pipe.read(&mut piece).await? {
            0 => return Ok(end),
            count => end.extend_from_slice(&piece[..count]),
        }
        end.drain(..end.len().saturating_sub(SAID));
    }
}

/// The last line that is not blank, behind a colon.
fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(String::new, |line| {
        let line: String = line
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(TOLD)
            .collect();
        format!(": {line}")
    })
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended without an exit code".to_owned(),
    }
}

/// Puts values in the place of their names. What is in them is left as it is.
fn filled(template: &str, values: &[(&str, &OsStr)]) -> OsString {
    let mut filled = OsString::new();
    let mut rest = template;
    loop {
        let found = values
            .iter()
            .filter_map(|(name, value)| Some((rest.find(name)?, name, value)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, name, value)) = found else {
            filled.push(rest);
            return filled;
        };
        filled.push(&rest[..at]);
        filled.push(value);
        rest = &rest[at + name.len()..];
    }
}

/// A copy of a body that a program may do with as it likes. Deleted on drop.
#[derive(Debug)]
struct Lent(PathBuf);

impl Lent {
    fn new(folder: &Path, body: &Body, extension: Option<&str>) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder)?;
        let mut name = format!("{}-{}", *PROCESS, Uuid::new_v4().simple());
        if let Some(extension) = extension {
            name.push('.');
            name.push_str(extension);
        }
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path)?;
        let lent = Self(path);
        copy(body, &mut file)?;
        Ok(lent)
    }
}

fn copy(body: &Body, to: &mut File) -> io::Result<()> {
    io::copy(&mut body.reader(), to).map(drop)
}

impl Drop for Lent {
    fn drop(&mut self) {
        // One that cannot be deleted here is deleted at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// Deletes what other processes left. There is one at a time in a store.
fn clear(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = |name: &str| name.starts_with(PROCESS.as_str());
        if !entry.file_name().to_str().is_some_and(is_ours) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
