//! The catalog, seen with SQLite's eyes only.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

/// A file's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    pub bytes: i64,
    pub sha256: String,
    pub format: String,
}

/// Opens a copy of the catalog of the store at `root`, so that the original is not touched.
pub fn open(root: &Path) -> (tempfile::TempDir, Connection) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["catalog.db", "catalog.db-wal"] {
        let from = root.join(".gannet").join(name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let db = Connection::open(copy.path().join("catalog.db")).unwrap();
    (copy, db)
}

/// Changes the catalog of the store at `root`, in which nobody works.
pub fn change(root: &Path, statement: &str) {
    let path = root.join(".gannet").join("catalog.db");
    let db = Connection::open(path).unwrap();
    db.execute_batch(statement).unwrap();
}

/// Has events of the store at `root`, in which nobody works, written as if somebody wanted them all.
pub fn want_events(root: &Path) {
    change(
        root,
        "INSERT INTO receivers VALUES ('test', '*', 0, unixepoch() * 1000)",
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every recorded file by its path.
pub fn files(root: &Path) -> BTreeMap<String, FileRecord> {
    let (_copy, db) = open(root);
    let mut query = db
        .prepare("SELECT path, bytes, sha256, format FROM files")
        .unwrap();
    let files = query.query_map([], |row| {
        let record = FileRecord {
            bytes: row.get(1)?,
            sha256: hex(row.get_ref(2)?.as_blob()?),
            format: row.get(3)?,
        };
        Ok((row.get(0)?, record))
    });
    files.unwrap().collect::<Result<_, _>>().unwrap()
}

/// States of all jobs, oldest first.
pub fn job_states(root: &Path) -> Vec<String> {
    let (_copy, db) = open(root);
    let mut query = db.prepare("SELECT state FROM jobs ORDER BY id").unwrap();
    let states = query.query_map([], |row| row.get(0));
    states.unwrap().collect::<Result<_, _>>().unwrap()
}
