//! The bytes of files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use chrono::Utc;
use futures_util::stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use unicode_normalization::UnicodeNormalization as _;
use utoipa::IntoParams;
use uuid::Uuid;

use super::albums::look_up;
use super::conditions::{Ranged, Validators, Verdict};
use super::extract::Parameters;
use super::openapi::Binary;
use super::{Api, Problem};
use crate::catalog::ImageRow;
use crate::downloader;
use crate::rendition::{Fit, MAX_SIDE, Output, Params, RenditionError, Wanted};
use crate::store::{Opened, Recorded, StageId};

/// Bytes that are read at a time.
const CHUNK: u64 = 128 * 1024;

/// Those who read at a time, of all who download: twice as many as processors, so that hundreds of them leave those a
/// turn who keep files.
static READING: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(2 * processors)
});

/// How often a file is looked up whose bytes, or whose folder, change meanwhile.
pub(super) const LOOKS: usize = 5;

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
pub(super) struct Asked {
    /// Whether a browser is to save it, whatever the value.
    download: Option<String>,
    // Of a smaller picture. As text, so that what is wrong is told by its name.
    /// Width of a smaller picture, in pixels.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 4096)]
    w: Option<String>,
    /// Its height.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 4096)]
    h: Option<String>,
    /// How it fits: `contain`, `cover`, `fill`.
    #[param(pattern = "^(contain|cover|fill)$")]
    fit: Option<String>,
    /// Whether it may be larger than the file.
    #[param(value_type = Option<bool>)]
    enlarge: Option<String>,
    /// Its format: `jpeg`, `png`, `webp`; else that of the file.
    #[param(pattern = "^(jpeg|png|webp)$")]
    format: Option<String>,
    /// Of a JPEG.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    quality: Option<String>,
}

/// What is sent: a file, or what was made of it.
#[derive(Debug)]
struct Sent {
    file: File,
    bytes: u64,
    media_type: HeaderValue,
    /// `Content-Encoding` of the bytes.
    coding: Option<HeaderValue>,
    name: String,
}

/// The bytes of a file, or a part of them, or a smaller picture of it
///
/// They are trusted with nothing: a browser runs no script that they hold. With `w`, `h` or `format` it is a picture made
/// of the file, which is made once.
#[utoipa::path(get, path = "/files/{*path}", operation_id = "getFile", tag = "images",
    params(
        ("path" = String, Path, description = "As in `href` of an image: album and name, or its whole path.",
            example = "shops/2026/front.jpg"),
        Asked,
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
        (status = 422, description = "Nothing smaller can be made of it: its format, its size, or damage."),
    ))]
pub(super) async fn send(
    State(api): State<Api>,
    Parameters(asked): Parameters<Asked>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = asked.params()?;
    let (row, file) = open(&api, &uri).await?;
    let wanted = params.map(|params| Wanted::new(row.file.sha256, &row.file.format, params));
    let wanted = wanted.transpose().map_err(|error| unmade(&row, &error))?;
    let validators = validators(&row, wanted.as_ref());
    let mut response = match validators.judge(&headers) {
        Verdict::Failed => {
            let detail = format!("`{}` is not in the state that was asked for", row.file.path);
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
        }
        Verdict::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Verdict::Answer => {
            let sent = match wanted {
                Some(wanted) => rendition(&api, &row, file, wanted).await?,
                None => original(&row, file),
            };
            let range = match method {
                // There are no parts of what has no body (RFC 9110, section 14.2).
                Method::GET => validators.range(&headers, sent.bytes),
                _ => Ranged::Whole,
            };
            answer(sent, &method, range, asked.download.is_some()).await?
        }
    };
    let headers = response.headers_mut();
    insert(headers, header::ETAG, &validators.etag);
    if let Some(date) = validators.last_modified {
        insert(
            headers,
            header::LAST_MODIFIED,
            &httpdate::fmt_http_date(date),
        );
    }
    // The bytes of a name may change, so it takes a look whether they have.
    insert(headers, header::CACHE_CONTROL, "no-cache");
    Ok(response)
}

impl Asked {
    /// What is wanted of a smaller picture; `None`: the file itself.
    fn params(&self) -> Result<Option<Params>, Problem> {
        let others = [
            ("fit", &self.fit),
            ("enlarge", &self.enlarge),
            ("format", &self.format),
            ("quality", &self.quality),
        ];
        if self.w.is_none() && self.h.is_none() {
            return match others.iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(Problem::bad_request(format!(
                    "the parameter `{name}` means nothing without `w` or `h`"
                ))),
                None => Ok(None),
            };
        }
        Ok(Some(Params {
            width: number("w", &self.w, MAX_SIDE)?,
            height: number("h", &self.h, MAX_SIDE)?,
            fit: word("fit", &self.fit, Fit::ALL, Fit::as_str)?.unwrap_or_default(),
            enlarge: match self.enlarge.as_deref() {
                None | Some("false") => false,
                Some("" | "true") => true,
                Some(other) => return Err(wrong("enlarge", other, "`true` or `false`")),
            },
            format: word("format", &self.format, Output::ALL, Output::as_str)?,
            quality: number("quality", &self.quality, 100)?,
        }))
    }
}

fn number<T: TryFrom<u32>>(
    name: &str,
    value: &Option<String>,
    most: u32,
) -> Result<Option<T>, Problem> {
    let Some(text) = value else { return Ok(None) };
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|n| is_plain && (1..=most).contains(n));
    let number = number.and_then(|number| T::try_from(number).ok());
    let expected = format!("a whole number from 1 to {most}");
    number.map(Some).ok_or_else(|| wrong(name, text, &expected))
}

fn word<T: Copy>(
    name: &str,
    value: &Option<String>,
    all: &[T],
    as_str: impl Fn(T) -> &'static str,
) -> Result<Option<T>, Problem> {
    let Some(text) = value else { return Ok(None) };
    let found = all.iter().copied().find(|one| as_str(*one) == text);
    let known = all.iter().map(|one| format!("`{}`", as_str(*one)));
    let expected = format!("one of {}", known.collect::<Vec<_>>().join(", "));
    found.map(Some).ok_or_else(|| wrong(name, text, &expected))
}

fn wrong(name: &str, text: &str, expected: &str) -> Problem {
    Problem::bad_request(format!(
        "the parameter `{name}` is `{text}`; expected {expected}"
    ))
}

fn name(row: &ImageRow) -> &str {
    row.file.path.rsplit('/').next().unwrap_or_default()
}

fn original(row: &ImageRow, file: File) -> Sent {
    let octets = HeaderValue::from_static("application/octet-stream");
    Sent {
        file,
        bytes: row.file.bytes,
        media_type: HeaderValue::from_str(&row.file.media_type).unwrap_or(octets),
        // Without it no browser shows one.
        coding: (row.file.format == "svgz").then(|| HeaderValue::from_static("gzip")),
        name: name(row).to_owned(),
    }
}

async fn rendition(api: &Api, row: &ImageRow, file: File, wanted: Wanted) -> Result<Sent, Problem> {
    let body = downloader::Body::File(Arc::new(file), row.file.bytes);
    let made = api.renditions.make(body, wanted).await;
    let made = made.map_err(|error| unmade(row, &error))?;
    let (name, extensions) = (name(row), made.format.extensions);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let agrees = extensions.contains(&extension.to_ascii_lowercase().as_str());
    Ok(Sent {
        file: made.file,
        bytes: made.bytes,
        media_type: HeaderValue::from_static(made.format.media_type),
        coding: None,
        name: match extensions.first() {
            Some(extension) if !agrees => format!("{stem}.{extension}"),
            _ => name.to_owned(),
        },
    })
}

fn unmade(row: &ImageRow, error: &RenditionError) -> Problem {
    if !error.is_of_original() {
        return Problem::internal(error);
    }
    let detail = format!(
        "of `{}` there is no smaller picture: {error}",
        row.file.path
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
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
        if let Some(file) = open_recorded(api, &row, &mut seen).await? {
            return Ok((row, file));
        }
    }
    Err(unlike_its_record(&path))
}

/// The bytes of a record; `None` where they are not there, and the record has to be looked up once more. `seen` gets the stage
/// of a record that others have overtaken, or that is wrong.
pub(super) async fn open_recorded(
    api: &Api,
    row: &ImageRow,
    seen: &mut Option<Uuid>,
) -> Result<Option<File>, Problem> {
    let recorded = Recorded {
        bytes: row.file.bytes,
        mtime_ns: row.file.mtime_ns,
    };
    let (path, stage) = (row.file.path.clone(), StageId(row.file.stage));
    let opened = api
        .store
        .open_recorded(path, stage, recorded, row.file.sha256);
    match opened.await? {
        Opened::Whole(file) => return Ok(Some(file)),
        // Its folder may be about to get the name that is recorded.
        Opened::Missing => api.files.settled().await,
        Opened::Altered => *seen = Some(row.file.stage),
    }
    Ok(None)
}

pub(super) fn unlike_its_record(path: &str) -> Problem {
    Problem::not_found(format!(
        "`{path}` is recorded, and is not there as it was recorded; `gannet verify --repair` fetches it again"
    ))
}

fn decode(text: &str) -> Result<String, Problem> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| Problem::bad_request("the path is no UTF-8"))?;
    Ok(text.nfc().collect())
}

fn validators(row: &ImageRow, wanted: Option<&Wanted>) -> Validators {
    // Dates in the future must not be sent (RFC 9110, section 8.8.2.1).
    let stored = row.stored.min(Utc::now()).timestamp();
    let stored = u64::try_from(stored).unwrap_or_default();
    let tag = wanted.map_or_else(|| row.file.sha256.to_string(), Wanted::key);
    Validators {
        etag: format!("\"{tag}\""),
        last_modified: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(stored)),
    }
}

async fn answer(
    sent: Sent,
    method: &Method,
    range: Ranged,
    download: bool,
) -> Result<Response, Problem> {
    let length = sent.bytes;
    let (status, first, count) = match range {
        Ranged::Whole => (StatusCode::OK, 0, length),
        Ranged::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Ranged::Beyond => {
            let detail = format!("`{}` has {length} bytes", sent.name);
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
            return Err(problem.with(header::CONTENT_RANGE, &format!("bytes */{length}")));
        }
    };
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => part(sent.file, first, count),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    insert(headers, header::CONTENT_LENGTH, &count.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{length}", first + count - 1);
        insert(headers, header::CONTENT_RANGE, &range);
    }
    headers.insert(header::CONTENT_TYPE, sent.media_type);
    insert(headers, header::ACCEPT_RANGES, "bytes");
    let policy = "default-src 'none'; sandbox";
    insert(headers, header::CONTENT_SECURITY_POLICY, policy);
    if download {
        let name = attachment(&sent.name);
        insert(headers, header::CONTENT_DISPOSITION, &name);
    } else if let Some(coding) = sent.coding {
        // What is saved keeps it.
        headers.insert(header::CONTENT_ENCODING, coding);
    }
    Ok(response)
}

/// `count` bytes of a file, from `first` on. A file that has fewer breaks the answer off.
fn part(file: File, first: u64, count: u64) -> Body {
    let file = Arc::new(file);
    let chunks = stream::try_unfold((first, count), move |(at, left)| {
        let file = file.clone();
        async move {
            if left == 0 {
                return Ok(None);
            }
            let chunk = read(file, at, left).await?;
            let length = chunk.len() as u64;
            Ok::<_, io::Error>(Some((chunk, (at + length, left - length))))
        }
    });
    Body::from_stream(chunks)
}

/// The next of `left` bytes of a file, which begin at `at`.
pub(super) async fn read(file: Arc<File>, at: u64, left: u64) -> io::Result<Bytes> {
    // It is never closed.
    let _turn = READING.acquire().await.ok();
    let read = spawn_blocking(move || {
        let mut chunk = vec![0; left.min(CHUNK) as usize];
        file.read_exact_at(&mut chunk, at)?;
        Ok(Bytes::from(chunk))
    });
    read.await.map_err(io::Error::other)?
}

/// `Content-Disposition` (RFC 6266), for old clients with a name of plain characters too (appendix D).
pub(super) fn attachment(name: &str) -> String {
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
