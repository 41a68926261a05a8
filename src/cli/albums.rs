//! `gannet albums`: what each album holds.

use std::io::Write as _;

use super::args::{Albums, Global};
use super::jobs::open;
use crate::catalog::AlbumRow;

/// Albums that are read at a time.
const PAGE: u32 = 1000;

pub(super) async fn run(args: &Albums, global: &Global) -> anyhow::Result<u8> {
    let (catalog, _log) = open(args.output.as_deref(), global).await?;
    let mut albums: Vec<AlbumRow> = Vec::new();
    loop {
        let after = albums.last().map(|album| album.name.clone());
        let page = catalog.albums(after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        albums.extend(page);
    }
    catalog.close().await;
    // The root folder is there in any case.
    albums.retain(|album| album.files > 0 || !album.name.is_empty());
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&albums)?)?;
    } else if albums.is_empty() {
        writeln!(out, "no albums yet")?;
    } else {
        print(&albums, &mut out)?;
    }
    out.flush()?;
    Ok(0)
}

fn print(albums: &[AlbumRow], out: &mut impl std::io::Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>9}  {:>14}  {:19}  ALBUM",
        "FILES", "BYTES", "NEWEST (UTC)"
    )?;
    for album in albums {
        let newest = album.newest.map_or_else(
            || "-".to_owned(),
            |newest| newest.format("%Y-%m-%d %H:%M:%S").to_string(),
        );
        let name = match album.name.as_str() {
            "" => ".",
            name => name,
        };
        writeln!(
            out,
            "{:>9}  {:>14}  {newest:19}  {name}",
            album.files, album.bytes
        )?;
    }
    Ok(())
}
