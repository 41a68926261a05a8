//! The tables of every catalog, row by row, whatever they mean: to measure them, and to copy them.

use serde::Serialize;

/// A table that every catalog has.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns. What one kind of catalog needs besides is left out.
    pub columns: &'static [Column],
    /// How many of them, from the first, are its key.
    pub keys: usize,
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// What a column holds, apart from nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A UUID.
    Id,
    /// Bytes.
    Bytes,
    /// Text.
    Text,
    /// A number.
    Number,
    /// 0 or 1.
    Flag,
}

/// What stands in a column of a row. Ids are bytes, flags are numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing.
    Null,
    /// A number, or a flag.
    Number(i64),
    /// Text.
    Text(String),
    /// Bytes, or an id.
    Bytes(Vec<u8>),
}

/// A row: a value for each column.
pub type Row = Vec<Value>;

impl Table {
    /// Its columns, as SQL lists them.
    pub(super) fn list(&self) -> String {
        names(self.columns)
    }

    /// The columns of its key, as SQL lists them.
    pub(super) fn key(&self) -> String {
        names(&self.columns[..self.keys])
    }
}

fn names(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    names.join(", ")
}

/// How large a catalog is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `sqlite` or `postgres`.
    pub kind: &'static str,
    /// Where it is, without credentials.
    pub catalog: String,
    /// The version of its schema; 0 when it has none yet.
    pub version: i64,
    /// The version that this gannet works with.
    pub latest: i64,
    /// Its tables.
    pub tables: Vec<TableStatus>,
}

/// How large a table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// Its name.
    pub name: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// What it and its indexes take on disk.
    pub bytes: u64,
}

macro_rules! table {
    ($name:literal, $keys:literal: $($column:ident $kind:ident),* $(,)?) => {
        Table {
            name: $name,
            keys: $keys,
            columns: &[$(Column { name: stringify!($column), kind: Kind::$kind }),*],
        }
    };
}

/// All tables.
pub static TABLES: [Table; 14] = [
    table!("jobs", 1:
        id Id, source Text, kind Text, album Text, state Text, started Number, finished Number,
        interrupted Flag, recorded Number, source_id Bytes, continues Id, schedule Text, targets Number, stored Number, changed Number, unchanged Number, duplicate Number,
        rejected Number, failed Number, skipped Number, repeats Number, bytes Number, error Text,
        request Text, posted Number, total Number, idempotency Bytes, digest Bytes,
        callback Text, callback_attempts Number, callback_next Number, callback_told Number, callback_error Text,
    ),
    table!("groups", 2:
        job Id, number Number, id Text, on_error Text, metadata Text, targets Number, done Number, failures Number,
        error Text,
    ),
    table!("parts", 2: job Id, number Number, targets Text),
    table!("schedules", 1: name Text, cron Text, paused Flag, last_due Number, job Id),
    table!("albums", 1: name Text, created Number, metadata Text),
    table!("renames", 1: id Id, old Text, new Text, folder Text),
    table!("files", 1:
        id Id, stage Id, path Text, album Text, format Text, media_type Text, bytes Number, sha256 Bytes,
        width Number, height Number, active Flag, name_from Text, metadata Text, stored Number, mtime_ns Number,
        shared Flag, criteria Text, header_name Text, line Number, grp Text, last_modified Number, by_client Flag,
        orientation Number, undecoded Text,
    ),
    table!("urls", 1:
        key Bytes, url Text, album Text, name Text, file Id, etag Text, last_modified Text, fresh_until Number,
        checked Number, tried Number, seen Number, status Number, failures Number, outcome Text, reason Text,
        job Id, answered Text, failed_under Bytes, gone_until Number,
    ),
    table!("listed", 2: source Bytes, key Bytes, job Id, gone_since Number),
    table!("outcomes", 2:
        job Id, seq Number, url Text, outcome Text, reason Text, detail Text, status Number, attempts Number,
        elapsed_ms Number, final_url Text, file Id, line Number, grp Text, name Text, album Text, sha256 Bytes,
        steps Text, nth Number, metadata Text,
    ),
    table!("events", 1: id Number, job Id, event Text, payload Text, created Number),
    table!("receivers", 1: name Text, events Text, position Number, seen Number),
    table!(
        "dead_letters", 2: receiver Text, id Number, job Id, event Text, payload Text, created Number, died Number,
        answer Text,
    ),
    table!("writers", 1: id Id, batch Id),
];
