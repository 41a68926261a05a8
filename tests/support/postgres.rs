//! A PostgreSQL server for tests, on a free port of loopback with a folder of its own. It ends with the process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

/// Starts the server, does what it is told line by line, and cleans up once nobody can tell it anything more,
/// however the tests ended.
const KEEPER: &str = r#"
trap '' INT TERM HUP
cd "$1" || exit 1
"$2/initdb" -D data -U gannet -A trust -E UTF8 --no-sync --locale=C.UTF-8 \
    --locale-provider=icu --icu-locale=en-US >initdb.log 2>&1 ||
    { rm -rf data; "$2/initdb" -D data -U gannet -A trust -E UTF8 --no-sync --locale=C >initdb.log 2>&1; } ||
    { cat initdb.log >&2; rm -rf "$1"; exit 1; }
options="-p $3 -k $1 -c listen_addresses=127.0.0.1 -c fsync=$4 -c max_connections=200"
start() { "$2/pg_ctl" -D data -l log -s -w -t 60 -o "$options" start </dev/null || cat log >&2; echo started; }
stop() { "$2/pg_ctl" -D data -s -w -t 60 -m "$3" stop; echo stopped; }
start "$@"
while read -r command; do
    case $command in
        start) start "$@" ;;
        *) stop "$1" "$2" "$command" ;;
    esac
done
stop "$1" "$2" immediate >/dev/null 2>&1
cd / && rm -rf "$1"
"#;

/// A server that runs as long as this is held.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    port: u16,
    /// Told to start and stop; closed, it ends the server.
    keeper: Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
    child: Child,
    databases: AtomicU32,
}

impl Postgres {
    /// The server that the tests of a binary share; `None` where there is no PostgreSQL.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Postgres>> = LazyLock::new(Postgres::start);
        SHARED.as_ref()
    }

    /// A server of one's own; `None` where there is no PostgreSQL.
    pub fn start() -> Option<Self> {
        // No test cuts the power.
        Self::start_with("off")
    }

    /// The same with another value of `fsync`.
    pub fn start_with(fsync: &str) -> Option<Self> {
        let Some(bin) = programs() else {
            let required = std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
            assert!(
                !required,
                "GANNET_REQUIRE_SERVICES=1, and there is no PostgreSQL"
            );
            eprintln!("skipped: there is no PostgreSQL");
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("gannet-postgres-")
            .tempdir()
            .unwrap()
            .keep();
        // Between finding a free port and listening on it somebody else may take it. That is told by the first test.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = unprivileged(&folder);
        let mut child = command
            .args(["sh", "-c", KEEPER, "sh"])
            .args([folder.as_path(), bin.as_path()])
            .args([&port.to_string(), fsync])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keeper = (
            child.stdin.take(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        let server = Self {
            bin,
            port,
            keeper: Mutex::new(keeper),
            child,
            databases: AtomicU32::new(0),
        };
        server.wait_for("started");
        Some(server)
    }

    /// The URL of a new database.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test{number}");
        // One at a time: each copies the same template.
        let _keeper = self.keeper.lock().unwrap();
        let created = Command::new(self.bin.join("createdb"))
            .args(["-h", "127.0.0.1", "-U", "gannet", "-p"])
            .arg(self.port.to_string())
            .arg(&name)
            .output()
            .unwrap();
        assert!(created.status.success(), "{created:?}");
        format!("postgres://gannet@127.0.0.1:{}/{name}", self.port)
    }

    /// Stops the server as an administrator does: connections are cut.
    pub fn stop(&self) {
        self.tell("fast");
        self.wait_for("stopped");
    }

    /// Starts it again, on the same port.
    pub fn restart(&self) {
        self.tell("start");
        self.wait_for("started");
    }

    fn tell(&self, what: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        writeln!(keeper.0.as_mut().unwrap(), "{what}").unwrap();
    }

    fn wait_for(&self, answer: &str) {
        let mut line = String::new();
        self.keeper.lock().unwrap().1.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), answer);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(keeper) = self.keeper.get_mut() {
            keeper.0 = None;
        }
        let _ = self.child.wait();
    }
}

/// Where `initdb` is: in the path, or where Debian keeps it.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    folders.sort();
    folders.extend(std::env::split_paths(&path));
    let has_all = |folder: &PathBuf| {
        ["initdb", "pg_ctl", "createdb"]
            .iter()
            .all(|program| folder.join(program).exists())
    };
    folders.into_iter().rfind(has_all)
}

/// A command that runs as somebody who may not do everything, as PostgreSQL wants it, and owns `folder`.
fn unprivileged(folder: &Path) -> Command {
    let id = |user: &str| {
        let output = Command::new("id").args(["-u", user]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse::<u32>().ok()
    };
    let me = Command::new("id").arg("-u").output().unwrap();
    if me.stdout != b"0\n" {
        return Command::new("env");
    }
    let uid = id("postgres").or_else(|| id("nobody")).unwrap();
    chown(folder, Some(uid), None).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--clear-groups", "--regid", "65534", "--reuid"]);
    command.arg(uid.to_string());
    command
}
