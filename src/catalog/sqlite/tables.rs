//! The tables as such.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::super::tables::{Row, Status, TABLES, Table, TableStatus, Value};
use super::super::unsigned;

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn value(value: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Number(number),
        ValueRef::Text(_) => Value::Text(value.as_str()?.to_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_owned()),
        // There are no such columns.
        ValueRef::Real(_) => return Err(rusqlite::types::FromSqlError::InvalidType.into()),
    })
}

pub(super) fn rows(
    db: &Connection,
    table: &Table,
    after: Option<&Row>,
    limit: u32,
) -> rusqlite::Result<Vec<Row>> {
    let key = after.map_or(&[][..], |row| &row[..table.keys]);
    let behind = match key.len() {
        0 => String::new(),
        keys => format!(
            " WHERE ({}) > ({})",
            table.key(),
            vec!["?"; keys].join(", ")
        ),
    };
    let page = format!(
        "SELECT {} FROM {}{behind} ORDER BY {} LIMIT {limit}",
        table.list(),
        table.name,
        table.key()
    );
    db.prepare_cached(&page)?
        .query_map(params_from_iter(key), |row| {
            let column = |column| value(row.get_ref(column)?);
            (0..table.columns.len()).map(column).collect()
        })?
        .collect()
}

pub(super) fn load(db: &Connection, table: &Table, rows: &[Row]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(&format!(
        "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING",
        table.name,
        table.list(),
        vec!["?"; table.columns.len()].join(", ")
    ))?;
    for row in rows {
        insert.execute(params_from_iter(row))?;
    }
    Ok(())
}

pub(super) fn status(db: &Connection, latest: i64) -> rusqlite::Result<Status> {
    let version = db.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    let mut tables = Vec::new();
    // An older version has not all of them.
    let is_there = |table: &&Table| db.table_exists(None, table.name).unwrap_or(true);
    for table in TABLES.iter().filter(is_there) {
        let rows = db.query_row(&format!("SELECT count(*) FROM {}", table.name), (), |row| {
            row.get(0).map(unsigned)
        })?;
        let bytes = db
            .prepare_cached(
                "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE aggregate = TRUE AND name IN \
                 (SELECT name FROM sqlite_schema WHERE tbl_name = ?)",
            )?
            .query_row([table.name], |row| row.get(0).map(unsigned))?;
        tables.push(TableStatus {
            name: table.name,
            rows,
            bytes,
        });
    }
    Ok(Status {
        kind: "sqlite",
        catalog: db
            .path()
            .map(Path::new)
            .unwrap_or(Path::new(""))
            .display()
            .to_string(),
        version,
        latest,
        tables,
    })
}
