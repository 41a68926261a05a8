//! The tables as such.

use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool, PgRow};
use uuid::Uuid;

use super::super::tables::{Column, Kind, Row, Status, TABLES, Table, TableStatus, Value};
use super::super::unsigned;
use super::Result;
use super::rows::text;

pub(super) async fn rows(
    db: &PgPool,
    table: &Table,
    after: Option<&Row>,
    limit: u32,
) -> Result<Vec<Row>> {
    let key = after.map_or(&[][..], |row| &row[..table.keys]);
    let places: Vec<String> = (1..=key.len()).map(|n| format!("${n}")).collect();
    let behind = match key.len() {
        0 => String::new(),
        _ => format!(" WHERE ({}) > ({})", table.key(), places.join(", ")),
    };
    let mut page = query(AssertSqlSafe(format!(
        "SELECT {} FROM {}{behind} ORDER BY {} LIMIT {limit}",
        table.list(),
        table.name,
        table.key()
    )));
    for (column, value) in table.columns.iter().zip(key) {
        page = match column.kind {
            Kind::Id => page.bind(id(value)),
            Kind::Bytes => page.bind(bytes(value)),
            Kind::Text => page.bind(words(value)),
            Kind::Number => page.bind(number(value)),
            Kind::Flag => page.bind(flag(value)),
        };
    }
    let page = page.fetch_all(db).await?;
    let row = |row: &PgRow| {
        table
            .columns
            .iter()
            .map(|column| value(row, column))
            .collect()
    };
    page.iter().map(row).collect()
}

fn value(row: &PgRow, column: &Column) -> Result<Value> {
    let name = column.name;
    let value = match column.kind {
        Kind::Id => row
            .try_get::<Option<Uuid>, _>(name)?
            .map(|id| Value::Bytes(id.as_bytes().to_vec())),
        Kind::Bytes => row.try_get::<Option<_>, _>(name)?.map(Value::Bytes),
        Kind::Text => row.try_get::<Option<_>, _>(name)?.map(Value::Text),
        Kind::Number => row.try_get::<Option<_>, _>(name)?.map(Value::Number),
        Kind::Flag => row
            .try_get::<Option<bool>, _>(name)?
            .map(|flag| Value::Number(flag.into())),
    };
    Ok(value.unwrap_or(Value::Null))
}

pub(super) async fn load(db: &mut PgConnection, table: &Table, rows: &[Row]) -> Result<()> {
    let arrays: Vec<String> = table
        .columns
        .iter()
        .zip(1..)
        .map(|(column, place)| format!("${place}::{}[]", sql_type(column.kind)))
        .collect();
    let mut insert = query(AssertSqlSafe(format!(
        "INSERT INTO {} ({}) SELECT * FROM UNNEST({}) ON CONFLICT DO NOTHING",
        table.name,
        table.list(),
        arrays.join(", ")
    )));
    for (index, column) in table.columns.iter().enumerate() {
        let values = rows.iter().map(|row| &row[index]);
        insert = match column.kind {
            Kind::Id => insert.bind(values.map(id).collect::<Vec<_>>()),
            Kind::Bytes => insert.bind(values.map(bytes).collect::<Vec<_>>()),
            Kind::Text => insert.bind(values.map(words).collect::<Vec<_>>()),
            Kind::Number => insert.bind(values.map(number).collect::<Vec<_>>()),
            Kind::Flag => insert.bind(values.map(flag).collect::<Vec<_>>()),
        };
    }
    insert.execute(&mut *db).await?;
    if table.name == "events" {
        // The next event comes behind these.
        query("SELECT setval(pg_get_serial_sequence('events', 'id'), max(id)) FROM events")
            .execute(db)
            .await?;
    }
    Ok(())
}

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "uuid",
        Kind::Bytes => "bytea",
        Kind::Text => "text",
        Kind::Number => "bigint",
        Kind::Flag => "boolean",
    }
}

fn id(value: &Value) -> Option<Uuid> {
    Uuid::from_slice(bytes(value)?).ok()
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn words(value: &Value) -> Option<std::borrow::Cow<'_, str>> {
    match value {
        Value::Text(words) => Some(text(words)),
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

fn flag(value: &Value) -> Option<bool> {
    number(value).map(|number| number != 0)
}

pub(super) async fn status(db: &PgPool, catalog: String, latest: i64) -> Result<Status> {
    let version: i64 = query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(db)
        .await?;
    let mut tables = Vec::new();
    for table in &TABLES {
        let name = table.name;
        // An older version has not all of them.
        let is_there: bool = query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(name)
            .fetch_one(db)
            .await?;
        if !is_there {
            continue;
        }
        let size = query(AssertSqlSafe(format!(
            "SELECT count(*) AS rows, pg_total_relation_size('{name}') AS bytes FROM {name}"
        )))
        .fetch_one(db)
        .await?;
        tables.push(TableStatus {
            name,
            rows: size.try_get("rows").map(unsigned)?,
            bytes: size.try_get("bytes").map(unsigned)?,
        });
    }
    Ok(Status {
        kind: "postgres",
        catalog,
        version,
        latest,
        tables,
    })
}
