//! Moves everything from one catalog into another.

use super::tables::{Row, TABLES, Table};
use super::{Catalog, CatalogError};

/// Rows that are read and written at a time.
const PAGE: u32 = 1000;

/// Copies every row of `from` into `to`, which must have none. Nobody else may write meanwhile. Returns how many rows
/// each table has.
///
/// # Errors
///
/// When `to` is not empty, or one of them fails; then `to` holds a part, and is of no use.
pub async fn copy(
    from: &dyn Catalog,
    to: &dyn Catalog,
) -> Result<Vec<(&'static str, u64)>, CatalogError> {
    for table in &TABLES {
        if !to.rows(table, None, 1).await?.is_empty() {
            return Err(CatalogError::NotEmpty(table.name));
        }
    }
    let mut counts = Vec::with_capacity(TABLES.len());
    for table in &TABLES {
        counts.push((table.name, copy_table(table, from, to).await?));
    }
    Ok(counts)
}

async fn copy_table(
    table: &'static Table,
    from: &dyn Catalog,
    to: &dyn Catalog,
) -> Result<u64, CatalogError> {
    let mut count = 0;
    let mut after: Option<Row> = None;
    loop {
        let page = from.rows(table, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = Some(last.clone());
        count += page.len() as u64;
        to.load(table, page).await?;
    }
}
