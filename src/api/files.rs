//! The bytes of files.

use std::fs::File;
use std::io;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use unicode_normalization::UnicodeNormalization as _;
use utoipa::IntoParams;

use super::albums::look_up;
use super::conditions::{Ranged, Validators, Verdict};
use super::extract::Parameters;
use super::openapi::Binary;
use super::{Api, Problem};
use crate::catalog::ImageRow;
use crate::store::{Opened, Recorded, StageId};

/// Bytes that are read at a time.
const CHUNK: usize = 128 * 1024;

/// How often a file is looked up whose bytes change meanwhile.
const LOOKS: usize = 3;

/// What a value with an asterisk encodes: all but `attr-char` (RFC 8187, section 3.2.1).
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Whether a browser is to save it, whatever the value.
    download: Option<String>,
}

/// The bytes of a file, or a part of them
///
/// They are trusted with nothing: a browser runs no script that they hold.
#[utoipa::path(get, path = "/files/{*path}", operation_id = "getFile", tag = "images",
    params(
        ("path" = String, Path, description = "As in `href` of an image: album and name, or its whole path.",
            example = "shops/2026/front.jpg"),
        Wanted,
        ("Range" = Option<String>, Header, description = "One range of bytes (RFC 9110, section 14.2).", example = "bytes=0-1023"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before: 304 while it is the same."),
    ),
    responses(
        (status = 200, description = "All of it.", content_type = "*/*", body = inline(Binary), headers(
            ("ETag" = String, description = "The digest of the bytes."),
            ("Last-Modified" = String, description = "When they came."),
        )),
        (status = 206, description = "The range that was asked for.", content_type = "*/*", body = inline(Binary)),
        (status = 304, description = "It is as the client has it."),
        (status = 404, description = "There is no such file."),
        (status = 412, description = "It is not in the state that was asked for."),
        (status = 416, description = "It has no such range."),
    ))]
pub(super) async fn send(
    State(api): State<Api>,
    Parameters(wanted): Parameters<Wanted>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (row, file) = open(&api, &uri).await?;
    let validators = validators(&row);
    let mut response = match validators.judge(&headers) {
        Verdict::Failed => {
            let detail = format!("`{}` is not in the state that was asked for", row.file.path);
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
        }
        Verdict::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Verdict::Answer => {
            let range = match method {
                // There are no parts of what has no body (RFC 9110, section 14.2).
                Method::GET => validators.range(&headers, row.file.bytes),
                _ => Ranged::Whole,
            };
            let mut response = body(&row, file, &method, range).await?;
            describe(response.headers_mut(), &row, wanted.download.is_some());
            response
        }
    };
    let headers = response.headers_mut();
    let date = httpdate::fmt_http_date(validators.last_modified);
    insert(headers, header::ETAG, &validators.etag);
    insert(headers, header::LAST_MODIFIED, &date);
    // The bytes of a name may change, so it takes a look whether they have.
    insert(headers, header::CACHE_CONTROL, "no-cache");
    Ok(response)
}

/// The record that a path means, by the whole of it or by album and name, and its bytes.
async fn open(api: &Api, uri: &Uri) -> Result<(ImageRow, File), Problem> {
    let raw = uri.path().strip_prefix("/files/").unwrap_or_default();
    let path = decode(raw)?;
    let none = || Problem::not_found(format!("there is no file `{path}`"));
    let mut seen = None;
    for _ in 0..LOOKS {
        let row = match api.catalog.image(&path).await? {
            Some(row) => Some(row),
            None => match raw.split_once('/') {
                Some((album, image)) => {
                    look_up(&*api.catalog, &decode(album)?, &decode(image)?).await?
                }
                None => None,
            },
        };
        let row = row.ok_or_else(none)?;
        // The same record twice: it is the file that differs.
        if seen == Some(row.file.stage) {
            break;
        }
        let recorded = Recorded {
            bytes: row.file.bytes,
            mtime_ns: row.file.mtime_ns,
        };
        let (path, stage) = (row.file.path.clone(), StageId(row.file.stage));
        let opened = api
            .store
            .open_recorded(path, stage, recorded, row.file.sha256);
        match opened.await? {
            Opened::Whole(file) => return Ok((row, file)),
            Opened::Missing | Opened::Altered => seen = Some(row.file.stage),
        }
    }
    Err(Problem::not_found(format!(
        "`{path}` is recorded, and is not there as it was recorded; `gannet verify --repair` fetches it again"
    )))
}

fn decode(text: &str) -> Result<String, Problem> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| Problem::bad_request("the path is no UTF-8"))?;
    Ok(text.nfc().collect())
}

fn validators(row: &ImageRow) -> Validators {
    let stored = u64::try_from(row.stored.timestamp()).unwrap_or_default();
    Validators {
        etag: format!("\"{}\"", row.file.sha256),
        last_modified: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(stored),
    }
}

async fn body(
    row: &ImageRow,
    file: File,
    method: &Method,
    range: Ranged,
) -> Result<Response, Problem> {
    let length = row.file.bytes;
    let (status, first, count) = match range {
        Ranged::Whole => (StatusCode::OK, 0, length),
        Ranged::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Ranged::Beyond => {
            let detail = format!("`{}` has {length} bytes", row.file.path);
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
            return Err(problem.with(header::CONTENT_RANGE, &format!("bytes */{length}")));
        }
    };
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => {
            let mut file = tokio::fs::File::from_std(file);
            file.seek(io::SeekFrom::Start(first))
                .await
                .map_err(|error| Problem::internal(&error))?;
            Body::from_stream(ReaderStream::with_capacity(file.take(count), CHUNK))
        }
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    insert(headers, header::CONTENT_LENGTH, &count.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{length}", first + count - 1);
        insert(headers, header::CONTENT_RANGE, &range);
    }
    Ok(response)
}

fn describe(headers: &mut HeaderMap, row: &ImageRow, download: bool) {
    let octets = HeaderValue::from_static("application/octet-stream");
    let kind = HeaderValue::from_str(&row.file.media_type).unwrap_or(octets);
    headers.insert(header::CONTENT_TYPE, kind);
    insert(headers, header::ACCEPT_RANGES, "bytes");
    let policy = "default-src 'none'; sandbox";
    insert(headers, header::CONTENT_SECURITY_POLICY, policy);
    if download {
        let name = row.file.path.rsplit('/').next().unwrap_or_default();
        insert(headers, header::CONTENT_DISPOSITION, &attachment(name));
    }
}

/// `Content-Disposition` (RFC 6266), for old clients with a name of plain characters too (appendix D).
fn attachment(name: &str) -> String {
    let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%');
    let plain: String = name
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    let mut value = format!("attachment; filename=\"{plain}\"");
    if plain != name {
        let encoded = utf8_percent_encode(name, VALUE);
        value.push_str(&format!("; filename*=UTF-8''{encoded}"));
    }
    value
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_to_old_and_new_clients() {
        assert_eq!(attachment("a b.jpg"), "attachment; filename=\"a b.jpg\"");
        assert_eq!(
            attachment("Größe 1%.jpg"),
            "attachment; filename=\"Gr__e 1_.jpg\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201%25.jpg"
        );
    }
}
