//! An album as a zip archive, written while it is sent.
//!
//! Entries are stored as they are, since pictures are compressed already, each with a data descriptor behind its bytes. What
//! is kept meanwhile are the directory of the archive, some 200 bytes a file, and a few pieces of a file on their way.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rawzip::ZipArchiveWriter;
use rawzip::time::UtcDateTime;
use tokio::sync::{Semaphore, mpsc};

use super::albums::{ROOT, find, name};
use super::extract::{Names, Nothing, Parameters};
use super::files::{LOOKS, attachment, open_recorded, read, unlike_its_record};
use super::openapi::Binary;
use super::{Api, Problem};
use crate::catalog::{ImageFilter, ImageRow};

/// Archives that are written at a time.
const AT_ONCE: usize = 4;

/// Most files of an archive: its directory is in memory until the end.
const MOST_FILES: u64 = 250_000;

/// Files that are looked up at a time.
const PAGE: u32 = 500;

/// Pieces of an archive that wait to be sent.
const AHEAD: usize = 2;

/// Largest of these pieces, in bytes.
const PIECE: usize = 128 * 1024;

static ARCHIVES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));

/// The files of an album, as a zip archive
///
/// Its files by path, uncompressed, in an archive that is written as it is sent. Albums below it are not in it. Where a file is
/// deleted or lost meanwhile, the answer breaks off: an archive that comes to its end is whole.
#[utoipa::path(get, path = "/api/v1/albums/{album}/zip", operation_id = "getArchive", tag = "albums",
    params(("album" = String, Path, description = "Its name, `/` encoded.", example = "shops/2026")),
    responses(
        (status = 200, description = "The archive.", content_type = "application/zip", body = inline(Binary), headers(
            ("Content-Disposition" = String, description = "Names it after the album."),
        )),
        (status = 404, description = "There is no such album."),
        (status = 409, description = "It has more files than an archive takes: 250,000."),
        (status = 503, description = "Other archives are being written, or the daemon is stopping. `Retry-After` says when to try again."),
    ))]
pub(super) async fn send(
    State(api): State<Api>,
    Names(album): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    let album = find(&api, &album).await?;
    if album.files > MOST_FILES {
        let detail = format!(
            "the album has {} files, more than the {MOST_FILES} that an archive takes; get them one by one",
            album.files
        );
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let turn = ARCHIVES.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{AT_ONCE} archives are being written; try again later");
        Problem::unavailable(detail).with(header::RETRY_AFTER, "10")
    })?;
    let title = match album.name.as_str() {
        "" => ROOT.trim_start_matches(':').to_owned(),
        name => name.replace('/', "-"),
    };
    let (pieces, mut queue) = mpsc::channel(AHEAD);
    let writing = async move {
        let _turn = turn;
        let written = write(&api, &album.name, album.files, pieces).await;
        written.inspect_err(|error| {
            tracing::warn!("the archive of album `{}` breaks off: {error}", album.name);
        })
    };
    let pieces = stream::poll_fn(move |cx| queue.poll_recv(cx)).map(Ok);
    let end = stream::once(writing).filter_map(async |written| written.err().map(Err::<Bytes, _>));
    // Whoever drops the body drops what writes it.
    let body = Body::from_stream(stream::select(pieces, end));
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            attachment(&format!("{title}.zip")),
        ),
    ];
    Ok((headers, body).into_response())
}

/// Writes an album that had so many `files` when it was asked for.
async fn write(api: &Api, album: &str, files: u64, pieces: mpsc::Sender<Bytes>) -> io::Result<()> {
    let written = Written::default();
    let mut archive = ZipArchiveWriter::new(written.clone());
    let (mut after, mut count) = (None, 0);
    loop {
        let page = api
            .catalog
            .images(album, ImageFilter::default(), after, PAGE);
        let page = page.await.map_err(io::Error::other)?;
        let Some(last) = page.last() else { break };
        after = Some(last.file.path.clone());
        for row in page {
            add(api, &mut archive, &row, &written, &pieces).await?;
            count += 1;
        }
    }
    // One of them was deleted, or has left the album, before its turn came.
    if count < files {
        let why = format!("of {files} files, {} are no more", files - count);
        return Err(io::Error::other(why));
    }
    archive.finish().map_err(io::Error::other)?;
    written.send(&pieces).await
}

async fn add(
    api: &Api,
    archive: &mut ZipArchiveWriter<Written>,
    row: &ImageRow,
    written: &Written,
    pieces: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let opened = open(api, row).await;
    let (now, file) = opened.map_err(|problem| io::Error::other(problem.document().detail))?;
    let modified = now.last_modified.unwrap_or(now.stored).timestamp();
    // By the name that put it in its place: it may have got another one meanwhile.
    let (mut entry, config) = archive
        .new_file(name(row))
        .last_modified(UtcDateTime::from_unix(modified))
        .unix_permissions(0o100_644)
        .start()
        .map_err(io::Error::other)?;
    let mut data = config.wrap(&mut entry);
    let file = Arc::new(file);
    let mut at = 0;
    while at < now.file.bytes {
        let chunk = read(file.clone(), at, now.file.bytes - at).await?;
        data.write_all(&chunk)?;
        at += chunk.len() as u64;
        written.send(pieces).await?;
    }
    let (_, descriptor) = data.finish().map_err(io::Error::other)?;
    entry.finish(descriptor).map_err(io::Error::other)?;
    Ok(())
}

/// An image as it is by now: jobs and clients may have changed it since it was looked up.
async fn open(api: &Api, row: &ImageRow) -> Result<(ImageRow, File), Problem> {
    let path = &row.file.path;
    let mut seen = None;
    for _ in 0..LOOKS {
        let now = api.catalog.files(vec![row.file.id]).await?.pop();
        let now = now.ok_or_else(|| Problem::not_found(format!("`{path}` is no more")))?;
        if seen == Some(now.file.stage) {
            break;
        }
        if let Some(file) = open_recorded(api, &now, &mut seen).await? {
            return Ok((now, file));
        }
    }
    Err(unlike_its_record(path))
}

/// What is written of an archive and not yet sent.
#[derive(Debug, Clone, Default)]
// Never locked across an `.await`.
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// Waits until all of it is on its way.
    async fn send(&self, pieces: &mpsc::Sender<Bytes>) -> io::Result<()> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut bytes = Bytes::from(taken);
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let sent = pieces.send(piece).await;
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(())
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
