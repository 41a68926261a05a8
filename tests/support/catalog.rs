//! The catalog, seen with SQLite's eyes only.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::{Connection as _, Row as _, SqliteConnection};

/// A file's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    pub bytes: i64,
    pub sha256: String,
    pub format: String,
}

/// Runs `query` on a copy of the catalog of the store at `root`, so that the original is not touched.
fn rows(root: &Path, query: &'static str) -> Vec<sqlx::sqlite::SqliteRow> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["catalog.db", "catalog.db-wal"] {
        let from = root.join(".gannet").join(name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(copy.path().join("catalog.db"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut db = SqliteConnection::connect_with(&options).await.unwrap();
        let rows = sqlx::query(query).fetch_all(&mut db).await.unwrap();
        db.close().await.unwrap();
        rows
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every recorded file by its path.
pub fn files(root: &Path) -> BTreeMap<String, FileRecord> {
    let rows = rows(root, "SELECT path, bytes, sha256, format FROM files");
    rows.iter()
        .map(|row| {
            let record = FileRecord {
                bytes: row.get("bytes"),
                sha256: hex(row.get::<&[u8], _>("sha256")),
                format: row.get("format"),
            };
            (row.get::<String, _>("path"), record)
        })
        .collect()
}

/// States of all jobs, oldest first.
pub fn job_states(root: &Path) -> Vec<String> {
    let rows = rows(root, "SELECT state FROM jobs ORDER BY id");
    rows.iter().map(|row| row.get("state")).collect()
}
