//! A running `gannet daemon`, and the service manager that it talks to.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{self, Got};
use super::{Run, Running, Sandbox, sandbox};

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

/// Between two looks at something that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer. Fails after a limit, and tells what was the matter last.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(found) => return found,
            Err(last) => assert!(
                begun.elapsed() < LIMIT,
                "not in {LIMIT:?}: {what}; at last {last}"
            ),
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// A socket as systemd has one: sd_notify(3).
pub struct Manager {
    socket: UnixDatagram,
    address: OsString,
}

impl Manager {
    pub fn new(sandbox: &Sandbox) -> Self {
        let path = sandbox.path("notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        Self {
            socket,
            address: path.into_os_string(),
        }
    }

    /// Returns a manager with a name in the abstract namespace.
    pub fn with_abstract_name(sandbox: &Sandbox) -> Self {
        let name = sandbox.path("notify").into_os_string();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let mut prefixed = OsString::from("@");
        prefixed.push(name);
        Self {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            address: prefixed,
        }
    }

    /// The address, in the form of `NOTIFY_SOCKET`.
    pub fn address(&self) -> &OsStr {
        &self.address
    }

    /// The next message: lines of `NAME=value`. `None`: there is none yet.
    fn next(&self, limit: Duration) -> Option<String> {
        let mut message = [0; 4096];
        self.socket.set_read_timeout(Some(limit)).unwrap();
        match self.socket.recv(&mut message) {
            Ok(length) => Some(String::from_utf8(message[..length].to_vec()).unwrap()),
            Err(error) => {
                use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
                let late = [WouldBlock, TimedOut, Interrupted];
                assert!(late.contains(&error.kind()), "{error}");
                None
            }
        }
    }

    /// Waits for a message with a line that begins with `line`, and returns it. Others are passed over.
    #[track_caller]
    pub fn wait_for(&self, line: &str) -> String {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < LIMIT, "no message with `{line}`");
            if let Some(message) = self.next(LIMIT)
                && message.lines().any(|each| each.starts_with(line))
            {
                return message;
            }
        }
    }

    /// Every message that is there by now.
    pub fn all(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(Duration::from_millis(1))).collect()
    }
}

/// A daemon that is ready.
pub struct Daemon<'a> {
    sandbox: &'a Sandbox,
    running: Running,
    pub manager: Manager,
}

impl<'a> Daemon<'a> {
    /// Starts one with the sandbox's `gannet.toml`.
    #[track_caller]
    pub fn start(sandbox: &'a Sandbox) -> Self {
        Self::start_with(sandbox, &[])
    }

    /// With these variables.
    #[track_caller]
    pub fn start_with(sandbox: &'a Sandbox, variables: &[(&str, &str)]) -> Self {
        let mut command = sandbox.command(["daemon"]);
        command.envs(variables.iter().copied());
        Self::start_as(sandbox, command)
    }

    #[track_caller]
    pub fn start_as(sandbox: &'a Sandbox, command: Command) -> Self {
        Self::start_under(sandbox, command, Manager::new(sandbox))
    }

    /// Starts the daemon under this service manager.
    #[track_caller]
    pub fn start_under(sandbox: &'a Sandbox, mut command: Command, manager: Manager) -> Self {
        command.env("NOTIFY_SOCKET", manager.address());
        let mut running = sandbox::start(command, None);
        let begun = Instant::now();
        loop {
            if let Some(message) = manager.next(PAUSE)
                && message.lines().any(|line| line == "READY=1")
            {
                break;
            }
            if running.has_ended() || begun.elapsed() > LIMIT {
                panic!("the daemon does not start:\n{}", running.kill());
            }
        }
        Self {
            sandbox,
            running,
            manager,
        }
    }

    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Where its API listens.
    #[track_caller]
    pub fn api(&self) -> std::net::SocketAddr {
        self.status()["api"].as_str().unwrap().parse().unwrap()
    }

    /// Asks its API.
    #[track_caller]
    pub fn get(&self, target: &str) -> Got {
        http::ask(self.api(), "GET", target, &[])
    }

    /// What `gannet status --json` prints.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.sandbox.run(["status", "--json"]).json()
    }

    /// Its part about a schedule; null when there is none.
    #[track_caller]
    pub fn schedule(&self, name: &str) -> Value {
        let status = self.status();
        let schedules = status["schedules"].as_array().unwrap().iter();
        let mut found = schedules.filter(|schedule| schedule["name"] == name);
        found.next().cloned().unwrap_or_default()
    }

    /// Waits until a schedule is as `is` wants it.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(&format!("schedule `{name}` {what}"), || {
            let schedule = self.schedule(name);
            if is(&schedule) {
                Ok(schedule)
            } else {
                Err(schedule.to_string())
            }
        })
    }

    /// Waits until no job of a schedule is under way and `job` is not the last one. Returns the last one.
    #[track_caller]
    pub fn ended_after(&self, name: &str, job: &Value) -> Value {
        let is_over = |schedule: &Value| {
            schedule["running"].is_null()
                && schedule["last"].is_object()
                && schedule["last"]["job"] != *job
        };
        self.until(name, "has a new last job", is_over)["last"].clone()
    }

    /// `gannet schedule WHAT NAME`.
    pub fn ask(&self, what: &str, name: &str) -> Run {
        self.sandbox.run(["schedule", what, name])
    }

    /// Runs a schedule now, to its end. Returns how it ended.
    #[track_caller]
    pub fn run(&self, name: &str) -> Value {
        let before = self.schedule(name)["last"]["job"].clone();
        self.ask("run", name).expect(0);
        self.ended_after(name, &before)
    }

    pub fn signal(&self, name: &str) {
        self.running.signal(name);
    }

    /// SIGHUP, and waits until it is done with it.
    #[track_caller]
    pub fn reload(&self) {
        self.manager.all();
        self.signal("HUP");
        self.manager.wait_for("RELOADING=1");
        self.manager.wait_for("READY=1");
    }

    /// SIGTERM, and waits until it says that it stops.
    #[track_caller]
    pub fn terminate(&self) {
        self.manager.all();
        self.signal("TERM");
        self.manager.wait_for("STOPPING=1");
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn stop(self) -> Run {
        self.stop_loudly().expect(0)
    }

    /// The same for one in which something panicked.
    #[track_caller]
    pub fn stop_loudly(self) -> Run {
        self.signal("TERM");
        self.end()
    }

    /// SIGKILL.
    pub fn kill(self) -> Run {
        self.running.kill()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(self) -> Run {
        self.running.end_within(LIMIT)
    }
}
