//! Faults at named points of the way a file takes, for tests of crashes.
//!
//! Compiled in where debug assertions are, so that the binary of `cargo test` has them and no release has. There,
//! `GANNET_FAULT=POINT:N=ACTION` does ACTION at the Nth passing of POINT, and with `N+` at all later ones too:
//! `kill` ends the process by SIGKILL, `panic` panics, `eio` and `enospc` have the step fail with that error.
//!
//! This room knows no other room.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::ffi;

/// The variable that arms a point.
pub const VARIABLE: &str = "GANNET_FAULT";

/// Whether this build has the points.
pub const COMPILED_IN: bool = cfg!(debug_assertions);

macro_rules! points {
    ($($point:ident = $name:literal)*) => {
        /// A step that can be made to fail.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum Point { $($point),* }

        impl Point {
            /// Every point.
            pub const ALL: &'static [Self] = &[$(Self::$point),*];

            /// Its name in [`VARIABLE`].
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$point => $name),* }
            }
        }
    };
}

points! {
    StageCreated = "store.stage.created"
    StageWritten = "store.stage.written"
    SpoolCreated = "store.spool.created"
    SpoolWritten = "store.spool.written"
    SyncBefore = "store.sync.before"
    SyncDone = "store.sync.done"
    FolderMade = "store.folder.made"
    PublishBefore = "store.publish.before"
    PublishOne = "store.publish.one"
    LinkBefore = "store.link.before"
    WithdrawBefore = "store.withdraw.before"
    WithdrawOne = "store.withdraw.one"
    DiscardBefore = "store.discard.before"
    DiscardOne = "store.discard.one"
    CatalogBeforeCommit = "catalog.before-commit"
    CatalogCommitted = "catalog.committed"
    RecoverBegun = "job.recover.begun"
    RecoverDone = "job.recover.done"
    ListWritten = "source.list.written"
    JobBegun = "job.begun"
    FilesWithdrawn = "job.files-withdrawn"
    FilesDeleted = "job.files-deleted"
    UploadRecorded = "errand.upload.recorded"
    ImageWithdrawn = "errand.move.withdrawn"
    ImageMoved = "errand.move.recorded"
    RenameBegun = "errand.rename.begun"
    FolderRenamed = "errand.rename.folder"
    AlbumPartDeleted = "errand.delete.part"
    JobAnnounced = "job.announced"
    JobEnded = "job.ended"
    JobClosing = "job.closing"
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Kill,
    Eio,
    Enospc,
    Panic,
}

/// What the variable says.
#[derive(Debug)]
struct Armed {
    point: Point,
    at: u64,
    /// Whether later passings fail too.
    stays: bool,
    action: Action,
    passed: AtomicU64,
}

static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
    let text = std::env::var(VARIABLE).ok()?;
    let armed = parse(&text);
    if armed.is_none() {
        eprintln!("gannet: `{VARIABLE}={text}` is not `POINT:N=kill`, `panic`, `eio` or `enospc`");
        std::process::exit(2);
    }
    armed
});

fn parse(text: &str) -> Option<Armed> {
    let (rest, action) = text.split_once('=')?;
    let (name, at) = rest.split_once(':')?;
    Some(Armed {
        point: *Point::ALL.iter().find(|point| point.as_str() == name)?,
        at: at.trim_end_matches('+').parse().ok()?,
        stays: at.ends_with('+'),
        action: match action {
            "kill" => Action::Kill,
            "panic" => Action::Panic,
            "eio" => Action::Eio,
            "enospc" => Action::Enospc,
            _ => return None,
        },
        passed: AtomicU64::new(0),
    })
}

impl Armed {
    /// Counts a passing. Returns whether it is one that fails.
    fn fails(&self, point: Point) -> bool {
        if point != self.point {
            return false;
        }
        let passing = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        passing == self.at || self.stays && passing > self.at
    }
}

/// Passes `point`, unless a test wants it to fail.
///
/// # Errors
///
/// Only where the variable asks for them.
pub(crate) fn pass(point: Point) -> io::Result<()> {
    if !COMPILED_IN {
        return Ok(());
    }
    let Some(armed) = ARMED.as_ref().filter(|armed| armed.fails(point)) else {
        return Ok(());
    };
    eprintln!(
        "{VARIABLE}: {} at {}",
        armed.action.as_str(),
        point.as_str()
    );
    Err(match armed.action {
        Action::Kill => kill(),
        Action::Panic => panic!("as `{VARIABLE}` wants it"),
        Action::Eio => rustix::io::Errno::IO.into(),
        Action::Enospc => rustix::io::Errno::NOSPC.into(),
    })
}

/// Passes a step that cannot fail; it can still be the last one.
pub(crate) fn reach(point: Point) {
    let _ = pass(point);
}

/// The same between statements of the database.
pub(crate) fn pass_sqlite(point: Point) -> rusqlite::Result<()> {
    pass(point).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
            _ => ffi::SQLITE_IOERR,
        };
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    })
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Panic => "panic",
            Self::Eio => "eio",
            Self::Enospc => "enospc",
        }
    }
}

/// Ends the process without unwinding, as a crash does.
fn kill() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arms_a_point_is_read_whole_or_not_at_all() {
        let armed = parse("store.publish.one:3=kill").unwrap();
        let fails: Vec<bool> = (0..4).map(|_| armed.fails(Point::PublishOne)).collect();
        assert_eq!(fails, [false, false, true, false]);
        let armed = parse("catalog.before-commit:2+=enospc").unwrap();
        assert!(!armed.fails(Point::PublishOne));
        let fails: Vec<bool> = (0..3)
            .map(|_| armed.fails(Point::CatalogBeforeCommit))
            .collect();
        assert_eq!(fails, [false, true, true]);
        for wrong in [
            "",
            "store.publish.one",
            "store.publish.one:3",
            "nowhere:1=kill",
            "job.ended:x=kill",
            "job.ended:1=stop",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
