//! Holds a store against its catalog, with SQLite and the file tree only: none of gannet's own code looks here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;
use sha2::Digest as _;

use super::{Sandbox, catalog};

/// When the store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before anything was put in order: a recorded file may still wait in the stage, and where it replaces another
    /// the older one is visible.
    Crashed,
    /// Like that, and the catalog has lost its last commits: only what it still has is held against the files.
    Torn,
    /// After a later start.
    Restarted,
}

fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Recorded {
    path: String,
    stage: String,
    bytes: i64,
    sha256: String,
}

/// What is wrong with the store, in words.
pub fn violations(sandbox: &Sandbox, when: When) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut visible = sandbox.files();
    let staged: BTreeMap<String, String> = sandbox
        .staged()
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, sha256(&std::fs::read(path).unwrap()))
        })
        .collect();
    let (crashed, torn) = (when != When::Restarted, when == When::Torn);
    if !crashed && !staged.is_empty() {
        wrong.push(format!("staged rest: {staged:?}"));
    }
    let Some((_copy, db)) = open(&sandbox.store()) else {
        if !visible.is_empty() && !torn {
            wrong.push("files without a catalog".to_owned());
        }
        return wrong;
    };
    let state: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    if state != "ok" {
        wrong.push(format!("integrity_check: {state}"));
    }
    let renames = renames(&db);
    if !crashed && !renames.is_empty() {
        wrong.push(format!("still to be renamed: {renames:?}"));
    }
    // What is recorded has its new name before its folder has.
    for (old, new) in renames {
        let renamed = visible.into_iter().map(|(path, bytes)| {
            let below = path.strip_prefix(&format!("{old}/"));
            (
                below.map_or_else(|| path.clone(), |below| format!("{new}/{below}")),
                bytes,
            )
        });
        visible = renamed.collect();
    }
    let recorded = recorded(&db);
    let paths: BTreeMap<&str, &Recorded> = recorded
        .iter()
        .map(|record| (record.path.as_str(), record))
        .collect();
    let waits = |record: &Recorded| crashed && staged.get(&record.stage) == Some(&record.sha256);
    for (name, bytes) in visible.iter().filter(|_| !torn) {
        match paths.get(name.as_str()) {
            None => wrong.push(format!("{name} is visible and not recorded")),
            Some(record) if record.sha256 == sha256(bytes) => {
                if record.bytes != bytes.len() as i64 {
                    wrong.push(format!("{name} is recorded with another length"));
                }
            }
            Some(record) if !waits(record) => wrong.push(format!("{name} is not what is recorded")),
            Some(_) if image::load_from_memory(bytes).is_err() => {
                wrong.push(format!("{name} is not whole"));
            }
            Some(_) => {}
        }
    }
    for record in &recorded {
        if !visible.contains_key(&record.path) && !waits(record) {
            wrong.push(format!("{} is recorded and missing", record.path));
        }
    }
    wrong.extend(miscounted(&db));
    wrong.extend(dangling(&db));
    if !crashed && has_table(&db, "jobs") {
        let open = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'ongoing')";
        let open: i64 = db.query_row(open, [], |row| row.get(0)).unwrap();
        if open > 0 {
            wrong.push(format!("{open} jobs are still under way"));
        }
    }
    wrong
}

/// How many files the targets of a list, no two of which bring the same bytes but under [`Once`](Self::Once), have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// One each.
    Replaced,
    /// The same, and those that it had before.
    Series,
    /// One for all that bring the same bytes.
    Once,
}

/// One row for each URL of `wanted`, whose file has the sha256 given there, and no other row; and no bytes in two
/// files.
pub fn lost_or_doubled(
    sandbox: &Sandbox,
    wanted: &BTreeMap<String, String>,
    kept: Kept,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some((_copy, db)) = open(&sandbox.store()) else {
        return vec!["there is no catalog".to_owned()];
    };
    let mut query = db
        .prepare("SELECT u.url, f.path, lower(hex(f.sha256)) FROM urls u LEFT JOIN files f ON f.id = u.file")
        .unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let rows: Vec<(String, Option<String>, Option<String>)> =
        rows.unwrap().collect::<Result<_, _>>().unwrap();
    let mut seen = BTreeSet::new();
    let mut used = BTreeSet::new();
    for (url, path, sha256) in &rows {
        if !seen.insert(url) {
            wrong.push(format!("{url} is known twice"));
        }
        if wanted.get(url) != sha256.as_ref() {
            wrong.push(format!("{url} stands for {path:?} with {sha256:?}"));
        }
        if !used.insert(path) && kept != Kept::Once {
            wrong.push(format!("{url} shares {path:?}"));
        }
    }
    for url in wanted.keys().filter(|url| !seen.contains(url)) {
        wrong.push(format!("{url} is lost"));
    }
    let files = recorded(&db);
    if kept == Kept::Replaced && files.len() != wanted.len() {
        wrong.push(format!("{} files of {} targets", files.len(), wanted.len()));
    }
    let mut contents = BTreeSet::new();
    for file in &files {
        if !contents.insert(&file.sha256) {
            wrong.push(format!("{} has bytes that another file has", file.path));
        }
    }
    wrong
}

/// A copy of the catalog, so that the original is not touched; `None` where there is none.
fn open(root: &Path) -> Option<(tempfile::TempDir, Connection)> {
    let there = root.join(".gannet/catalog.db").exists();
    there.then(|| catalog::open(root))
}

fn has_table(db: &Connection, name: &str) -> bool {
    let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
    db.query_row(sql, [name], |row| row.get::<_, i64>(0))
        .unwrap()
        == 1
}

/// Albums whose folders are still to be renamed.
fn renames(db: &Connection) -> Vec<(String, String)> {
    if !has_table(db, "renames") {
        return Vec::new();
    }
    let mut query = db.prepare("SELECT old, new FROM renames").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn recorded(db: &Connection) -> Vec<Recorded> {
    if !has_table(db, "files") {
        return Vec::new();
    }
    let mut query = db
        .prepare("SELECT path, lower(hex(stage)), bytes, lower(hex(sha256)) FROM files")
        .unwrap();
    let files = query.query_map([], |row| {
        Ok(Recorded {
            path: row.get(0)?,
            stage: row.get(1)?,
            bytes: row.get(2)?,
            sha256: row.get(3)?,
        })
    });
    files.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Jobs whose counters differ from their outcomes. Unchanged targets leave no row.
fn miscounted(db: &Connection) -> Vec<String> {
    if !has_table(db, "jobs") {
        return Vec::new();
    }
    const OUTCOMES: [&str; 6] = [
        "stored",
        "changed",
        "duplicate",
        "rejected",
        "failed",
        "skipped",
    ];
    let mut wrong = Vec::new();
    let sum = format!("unchanged + {}", OUTCOMES.join(" + "));
    for outcome in OUTCOMES {
        let sql = format!(
            "SELECT lower(hex(id)), {outcome}, (SELECT count(*) FROM outcomes o WHERE o.job = j.id AND \
             o.outcome = '{outcome}') AS rows FROM jobs j WHERE {outcome} <> rows OR targets <> {sum}"
        );
        let mut query = db.prepare(&sql).unwrap();
        let rows = query.query_map([], |row| {
            let (job, count, rows): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("job {job} counts {count} {outcome} and has {rows}"))
        });
        wrong.extend(rows.unwrap().map(Result::unwrap));
    }
    wrong
}

/// References to files that nobody recorded. The history may tell of files that were deleted since.
fn dangling(db: &Connection) -> Vec<String> {
    let mut wrong = Vec::new();
    if has_table(db, "urls") {
        let sql = "SELECT count(*) FROM urls WHERE file IS NOT NULL AND file NOT IN (SELECT id FROM files)";
        let count: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
        if count > 0 {
            wrong.push(format!("{count} URLs name a file that is not recorded"));
        }
    }
    wrong
}
