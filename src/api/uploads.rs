//! Files that clients send: one as the body of a request, or several as a form.
//!
//! Bytes go to the stage as they come, and are looked at like those of a download: what is of the wrong kind is refused
//! before the rest of it is sent. There is no limit to how long that may take, only to how long nothing may come.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::{Stream, StreamExt as _};
use multer::{Field, Multipart, parse_boundary};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::albums::{Image, known};
use super::extract::{Names, Parameters};
use super::openapi::Binary;
use super::{Api, Document, Problem, json, tagged};
use crate::downloader::{self, DownloadError, Downloader, Intake, Registry};
use crate::job::{METADATA_BYTES, Upload};
use crate::naming::{self, NameFrom, content_disposition};
use crate::target::{AlbumName, Reason};

/// How long nothing of a body may come.
const SILENT: Duration = Duration::from_secs(60);

/// Files of one request.
const MOST_FILES: usize = 1000;

/// Fields of a form that are no files, and the bytes of all of them together.
const MOST_FIELDS: usize = 1000;
const FIELD_BYTES: u64 = 1024 * 1024;

/// Bytes of a form that may be at hand between two pieces of files: the heads of parts, and what the network had.
const AHEAD: u64 = 1024 * 1024;

/// How much of a body that was refused is still taken, and for how long: who has sent all he has hears why, who has more is
/// hung up on.
const DRAINED: u64 = 1024 * 1024;
const DRAINING: Duration = Duration::from_secs(5);

/// By which rules files are taken in.
#[derive(Debug)]
pub(crate) struct UploadRules {
    kinds: Registry,
    pub(super) naming: Arc<naming::Settings>,
    max_bytes: u64,
}

impl UploadRules {
    pub(crate) fn new(
        image: &downloader::image::Settings,
        naming: &naming::Settings,
        max_upload: ByteSize,
    ) -> Self {
        Self {
            kinds: downloader::builtin(image),
            naming: Arc::new(naming.clone()),
            max_bytes: max_upload.as_u64(),
        }
    }
}

/// The rules at the moment.
#[derive(Debug, Clone)]
pub(crate) struct Uploads(Arc<RwLock<Arc<UploadRules>>>);

impl Uploads {
    pub(crate) fn new(rules: UploadRules) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(rules))))
    }

    /// Goes by other rules from now on.
    pub(crate) fn set(&self, rules: UploadRules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    pub(super) fn rules(&self) -> Arc<UploadRules> {
        let rules = self.0.read();
        rules.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The kind of file that it has to be: `image` unless said otherwise.
    #[param(example = "image")]
    kind: Option<String>,
    /// What to call a file that is the body of the request. A form says it of each of its files.
    name: Option<String>,
}

/// Files, each in a part with a file name. A part `metadata` says something of the files behind it. Other fields mean nothing.
#[derive(ToSchema)]
#[schema(as = Upload)]
#[expect(dead_code, reason = "it is described, and read part by part")]
pub(super) struct Form {
    #[schema(value_type = Option<Object>)]
    metadata: Option<String>,
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Binary>,
}

/// What became of each file of a form.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Uploaded)]
pub(super) struct Results<'a> {
    items: Vec<One<'a>>,
}

/// What became of a file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadedFile)]
pub(super) struct One<'a> {
    /// What the client calls it.
    #[schema(required = true)]
    file: Option<String>,
    /// The status that it would have had alone.
    status: u16,
    /// What was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image<'a>>,
    /// Why nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Document>,
}

/// Put files into an album
///
/// One file as the body, named by `name` or `Content-Disposition`; or several as a form. Each is checked like a download and
/// gets a name that nothing else has: nothing is ever replaced.
#[utoipa::path(post, path = "/api/v1/albums/{album}/images", operation_id = "uploadImages", tag = "images",
    params(
        ("album" = String, Path, description = "Its name, `/` encoded.", example = "shops/2026"),
        Wanted,
        ("Content-Disposition" = Option<String>, Header, description = "Names a file that is the body (RFC 6266).",
            example = "attachment; filename=\"front.jpg\""),
    ),
    request_body(content((Form = "multipart/form-data"), (inline(Binary) = "application/octet-stream"))),
    responses(
        (status = 201, description = "They are kept. Of several files, `items` has one for each.", body = Image, headers(
            ("Location" = String, description = "Where it is, when it is one."),
        )),
        (status = 207, description = "Several files, of which some are not kept.", body = Results),
        (status = 404, description = "There is no such album."),
        (status = 408, description = "Nothing came for a minute."),
        (status = 409, description = "Something is in the way of its folder."),
        (status = 413, description = "It is larger than `api.max_upload` or what its kind may be."),
        (status = 415, description = "It is of another kind: `reason` is `wrong-kind`."),
        (status = 422, description = "It is no whole file of its kind, such as a damaged picture: `reason` says more."),
        (status = 507, description = "The store is full."),
    ))]
pub(super) async fn upload(
    State(api): State<Api>,
    Names(album): Names<String>,
    Parameters(wanted): Parameters<Wanted>,
    request: Request,
) -> Result<Response, Problem> {
    let album = AlbumName::recorded(&known(&api, &album).await?).ok();
    let rules = api.uploads.rules();
    let kind = wanted.kind.as_deref().unwrap_or("image");
    let kind = rules.kinds.get(kind).ok_or_else(|| {
        let kinds: Vec<&str> = rules.kinds.kinds().collect();
        let kinds = kinds.join(", ");
        Problem::bad_request(format!(
            "the query cannot be used: kind: there is no kind `{kind}`; expected one of {kinds}"
        ))
    })?;
    let (head, body) = request.into_parts();
    let desk = Desk {
        api,
        album,
        rules,
        kind,
    };
    let media_type = text(&head.headers, header::CONTENT_TYPE).unwrap_or_default();
    match parse_boundary(&media_type) {
        Ok(boundary) => desk.form(body, &boundary, wanted.name).await,
        Err(multer::Error::NoBoundary) => {
            Err(Problem::bad_request("`Content-Type` has no `boundary`"))
        }
        Err(_) => desk.single(body, &head.headers, wanted.name).await,
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Where the files of a request are taken in.
struct Desk {
    api: Api,
    album: Option<AlbumName>,
    rules: Arc<UploadRules>,
    kind: Arc<dyn Downloader>,
}

/// Why a file of a form is not kept, and whether the rest of the form can be read all the same.
struct Broken {
    problem: Problem,
    is_over: bool,
}

impl From<Problem> for Broken {
    fn from(problem: Problem) -> Self {
        let is_over = false;
        Self { problem, is_over }
    }
}

impl Desk {
    async fn single(
        &self,
        body: Body,
        headers: &HeaderMap,
        name: Option<String>,
    ) -> Result<Response, Problem> {
        let name = match (name, headers.get(header::CONTENT_DISPOSITION)) {
            (Some(name), _) => Some((name, NameFrom::List)),
            (None, Some(value)) => {
                content_disposition(value.as_bytes()).map(|name| (name, NameFrom::Header))
            }
            (None, None) => None,
        };
        let length = text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        if length.is_some_and(|length| length > self.rules.max_bytes) {
            return Err(self.too_large());
        }
        let media_type = text(headers, header::CONTENT_TYPE);
        let mut intake = self.intake(length, media_type, name.as_ref());
        let mut stream = body.into_data_stream();
        let taken = take(&mut intake, &mut stream).await;
        if let Err(problem) = taken {
            drain(&mut stream).await;
            return Err(problem);
        }
        let id = self.keep(intake, name, None).await?;
        self.created(id).await
    }

    async fn form(
        &self,
        body: Body,
        boundary: &str,
        name: Option<String>,
    ) -> Result<Response, Problem> {
        if name.is_some() {
            let detail = "the query cannot be used: name: a form names each of its files itself";
            return Err(Problem::bad_request(detail));
        }
        let ahead = Arc::new(AtomicU64::new(0));
        let mut form = Multipart::new(Paced::new(body, ahead.clone()), boundary);
        // `Err`: the part that was to say it cannot be used, and nobody knows what it meant.
        let mut metadata = Ok(None);
        // Whether it came after the last file.
        let mut is_behind = false;
        let mut passed = Passed::default();
        let mut results: Vec<(Option<String>, Result<Uuid, Problem>)> = Vec::new();
        loop {
            let field = within(form.next_field()).await?;
            ahead.store(0, Ordering::Relaxed);
            let Some(mut field) = field.map_err(unreadable)? else {
                break;
            };
            if results.len() == MOST_FILES {
                let detail =
                    format!("a form has at most {MOST_FILES} files; send the rest in another");
                results.push((
                    None,
                    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)),
                ));
                break;
            }
            let file = match part(&field) {
                Part::File(file) => file,
                Part::Metadata => {
                    match said(&mut field, &ahead).await {
                        Ok(said) => metadata = Ok(Some(said)),
                        Err(broken) if broken.is_over => return Err(broken.problem),
                        Err(broken) => {
                            results.push((None, Err(broken.problem)));
                            metadata = Err(());
                        }
                    }
                    is_behind = true;
                    continue;
                }
                Part::Other => {
                    passed.pass(&mut field, &ahead).await?;
                    continue;
                }
            };
            // What a browser sends for an input in which nobody chose a file.
            let first = begun(&mut field, &ahead).await;
            let first = first.map_err(|broken| broken.problem)?;
            let Some(first) = first.or_else(|| (!file.is_empty()).then(Bytes::new)) else {
                continue;
            };
            is_behind = false;
            let kept = match &metadata {
                Ok(said) => {
                    self.part(&mut field, &file, first, said.clone(), &ahead)
                        .await
                }
                Err(()) => {
                    let detail = "the part `metadata` before it cannot be used";
                    Err(Problem::invalid("metadata", detail).into())
                }
            };
            let kept = match kept {
                Ok(id) => Ok(id),
                Err(broken) if broken.is_over => return Err(broken.problem),
                Err(broken) => {
                    let rest = skip(&mut field, self.rules.max_bytes, &ahead).await;
                    if !rest {
                        results.push((Some(file), Err(broken.problem)));
                        break;
                    }
                    Err(broken.problem)
                }
            };
            results.push((Some(file), kept));
        }
        drop(form);
        if is_behind && metadata.is_ok() && !results.is_empty() {
            let detail = "`metadata` has no file behind it: send it before the files that it is of";
            results.push((None, Err(Problem::invalid("metadata", detail))));
        }
        self.tell(results).await
    }

    /// Keeps a file that is a part of a form.
    async fn part(
        &self,
        field: &mut Field<'static>,
        file: &str,
        first: Bytes,
        metadata: Option<Map<String, Value>>,
        ahead: &AtomicU64,
    ) -> Result<Uuid, Broken> {
        let name = Some((file.to_owned(), NameFrom::Header)).filter(|(name, _)| !name.is_empty());
        let media_type = field.content_type().map(ToString::to_string);
        let mut intake = self.intake(None, media_type, name.as_ref());
        let mut next = Some(first).filter(|first| !first.is_empty());
        while let Some(chunk) = next {
            let taken = intake.take(&chunk).await;
            taken.map_err(|error| Broken::from(refused(error)))?;
            next = piece(field, ahead).await?;
        }
        Ok(self.keep(intake, name, metadata).await?)
    }

    fn intake(
        &self,
        length: Option<u64>,
        media_type: Option<String>,
        name: Option<&(String, NameFrom)>,
    ) -> Intake {
        let media_type = media_type.map(|text| {
            let essence = text.split(';').next().unwrap_or_default();
            essence.trim().to_ascii_lowercase()
        });
        let name = name.map(|(name, _)| name.clone());
        let (kind, most) = (self.kind.clone(), self.rules.max_bytes);
        self.api.files.intake(kind, most, length, media_type, name)
    }

    async fn keep(
        &self,
        intake: Intake,
        name: Option<(String, NameFrom)>,
        metadata: Option<Map<String, Value>>,
    ) -> Result<Uuid, Problem> {
        let upload = Upload {
            received: intake.finish().await.map_err(refused)?,
            album: self.album.clone(),
            name,
            metadata,
            naming: self.rules.naming.clone(),
        };
        Ok(self.api.files.keep(upload).await?)
    }

    fn too_large(&self) -> Problem {
        let detail = format!(
            "the body is larger than {} bytes, which `api.max_upload` allows",
            self.rules.max_bytes
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).because(Reason::TooLarge)
    }

    /// Says what was kept.
    async fn created(&self, id: Uuid) -> Result<Response, Problem> {
        let rows = self.api.catalog.files(vec![id]).await?;
        let gone = || Problem::not_found("it was kept, and is no more");
        let row = rows.first().ok_or_else(gone)?;
        let image = Image::read(&self.api, row).await?;
        let location = [(header::LOCATION, image.location())];
        Ok((StatusCode::CREATED, location, tagged(&image)).into_response())
    }

    /// Says what became of the files of a form.
    async fn tell(
        &self,
        mut results: Vec<(Option<String>, Result<Uuid, Problem>)>,
    ) -> Result<Response, Problem> {
        match results.len() {
            0 => {
                let detail = "the form has no file; the part of a file has a `filename`";
                return Err(Problem::invalid("file", detail));
            }
            1 => {
                let (_, only) = results.remove(0);
                return self.created(only?).await;
            }
            _ => {}
        }
        let ids = results.iter().filter_map(|(_, kept)| kept.as_ref().ok());
        let rows = self.api.catalog.files(ids.copied().collect()).await?;
        let all_kept = results.iter().all(|(_, kept)| kept.is_ok());
        let mut items = Vec::with_capacity(results.len());
        for (file, kept) in results {
            let row = |id: &Uuid| rows.iter().find(|row| row.file.id == *id);
            let (status, image, problem) = match kept {
                Ok(id) => {
                    // No URL stands for it.
                    let image = row(&id).map(|row| Image::of(row, Vec::new()));
                    (StatusCode::CREATED.as_u16(), image, None)
                }
                Err(problem) => {
                    let document = problem.document();
                    (document.status, None, Some(document))
                }
            };
            items.push(One {
                file,
                status,
                image,
                problem,
            });
        }
        let status = match all_kept {
            true => StatusCode::CREATED,
            false => StatusCode::MULTI_STATUS,
        };
        Ok((status, json(&Results { items })).into_response())
    }
}

/// Takes all of a body in.
async fn take(intake: &mut Intake, stream: &mut BodyDataStream) -> Result<(), Problem> {
    while let Some(chunk) = within(stream.next()).await? {
        let chunk =
            chunk.map_err(|error| Problem::bad_request(format!("the body breaks off: {error}")))?;
        intake.take(&chunk).await.map_err(refused)?;
    }
    Ok(())
}

async fn drain(stream: &mut BodyDataStream) {
    let rest = async {
        let mut taken = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            taken += chunk.len() as u64;
            if taken > DRAINED {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAINING, rest).await;
}

/// Waits for what comes next, and not for ever.
async fn within<T>(next: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(SILENT, next).await.map_err(|_| {
        let detail = format!("nothing came for {}", humantime::format_duration(SILENT));
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    })
}

/// The next piece of a part. Where there is none for other reasons than its end, the form is over.
async fn piece(field: &mut Field<'static>, ahead: &AtomicU64) -> Result<Option<Bytes>, Broken> {
    let over = |problem| Broken {
        problem,
        is_over: true,
    };
    let chunk = within(field.chunk()).await.map_err(over)?;
    ahead.store(0, Ordering::Relaxed);
    chunk.map_err(|error| over(unreadable(error)))
}

/// The first bytes of a part; `None`: it is empty.
async fn begun(field: &mut Field<'static>, ahead: &AtomicU64) -> Result<Option<Bytes>, Broken> {
    loop {
        match piece(field, ahead).await? {
            Some(chunk) if chunk.is_empty() => {}
            first => return Ok(first),
        }
    }
}

/// Passes the rest of a part over. Returns whether it came to its end within `most` bytes.
async fn skip(field: &mut Field<'static>, most: u64, ahead: &AtomicU64) -> bool {
    let mut skipped = 0;
    while let Ok(Some(chunk)) = piece(field, ahead).await {
        skipped += chunk.len() as u64;
        if skipped > most {
            return false;
        }
    }
    true
}

/// What a part without a file name says of the files behind it.
async fn said(field: &mut Field<'static>, ahead: &AtomicU64) -> Result<Map<String, Value>, Broken> {
    let mut text = Vec::new();
    while let Some(chunk) = piece(field, ahead).await? {
        // The rest is of no use, and is passed over.
        if text.len() <= METADATA_BYTES {
            text.extend_from_slice(&chunk);
        }
    }
    if text.len() > METADATA_BYTES {
        let detail = format!("`metadata` has more than {METADATA_BYTES} bytes");
        return Err(Problem::invalid("metadata", detail).into());
    }
    serde_json::from_slice(&text).map_err(|error| {
        let detail = format!("`metadata` has to be a JSON object: {error}");
        Problem::invalid("metadata", detail).into()
    })
}

/// What a part of a form is.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A file, with its name, which may be empty.
    File(String),
    /// It says something of the files behind it.
    Metadata,
    /// A field of the client's own, such as a CSRF token or the name of a button.
    Other,
}

fn part(field: &Field<'_>) -> Part {
    let value = field.headers().get(header::CONTENT_DISPOSITION);
    let file = value.and_then(|value| content_disposition(value.as_bytes()));
    let file = file.or_else(|| field.file_name().map(str::to_owned));
    let media_type = field
        .content_type()
        .map(|media_type| media_type.essence_str());
    part_of(field.name(), file, media_type)
}

/// By its name, its file name and its media type (RFC 7578, section 4).
fn part_of(name: Option<&str>, file: Option<String>, media_type: Option<&str>) -> Part {
    let is_json = media_type == Some("application/json");
    match (name, file) {
        (Some("metadata"), None) => Part::Metadata,
        // How browsers call a part that a script gave a media type.
        (Some("metadata"), Some(file)) if is_json && file == "blob" => Part::Metadata,
        (_, Some(file)) => Part::File(file),
        // A file needs no name (section 4.2); fields are text, or JSON.
        (_, None) => match media_type {
            None | Some("application/x-www-form-urlencoded") => Part::Other,
            Some(text) if is_json || text.starts_with("text/") => Part::Other,
            Some(_) => Part::File(String::new()),
        },
    }
}

/// Fields of a form that mean nothing.
#[derive(Debug, Default)]
struct Passed {
    fields: usize,
    bytes: u64,
}

impl Passed {
    /// Passes a field over, unless these are too many.
    async fn pass(&mut self, field: &mut Field<'static>, ahead: &AtomicU64) -> Result<(), Problem> {
        self.fields += 1;
        let mut is_too_much = self.fields > MOST_FIELDS;
        while !is_too_much
            && let Some(chunk) = piece(field, ahead).await.map_err(|broken| broken.problem)?
        {
            self.bytes += chunk.len() as u64;
            is_too_much = self.bytes > FIELD_BYTES;
        }
        if !is_too_much {
            return Ok(());
        }
        let detail = format!(
            "a form has at most {MOST_FIELDS} fields that are no files, of {FIELD_BYTES} bytes together"
        );
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
    }
}

fn unreadable(error: multer::Error) -> Problem {
    Problem::bad_request(format!("the form cannot be read: {error}"))
}

fn refused(error: DownloadError) -> Problem {
    match error {
        DownloadError::Rejected(rejection) => {
            let status = match rejection.reason {
                Reason::WrongKind => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            Problem::new(status, rejection.detail).because(rejection.reason)
        }
        DownloadError::Store(error) if error.reason() == Reason::StoreFull => Problem::full(),
        error => Problem::internal(&error),
    }
}

/// A body that gives one piece at a time: whoever reads a form would else take in all that the network has, however much
/// that is.
struct Paced {
    body: BodyDataStream,
    rests: bool,
    /// Bytes since the form last gave something out.
    ahead: Arc<AtomicU64>,
}

impl Paced {
    fn new(body: Body, ahead: Arc<AtomicU64>) -> Self {
        Self {
            body: body.into_data_stream(),
            rests: false,
            ahead,
        }
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, axum::BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rests) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = std::task::ready!(self.body.poll_next_unpin(cx));
        self.rests = true;
        Poll::Ready(next.map(|piece| {
            let piece = piece?;
            let length = piece.len() as u64;
            if self.ahead.fetch_add(length, Ordering::Relaxed) + length > AHEAD {
                return Err("the head of a part is too long".into());
            }
            Ok(piece)
        }))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_not_waited_for() {
        let silent = stream::pending::<Result<Bytes, axum::BoxError>>();
        let mut stream = Body::from_stream(silent).into_data_stream();
        let problem = within(stream.next()).await.unwrap_err();
        assert_eq!(problem.document().status, 408);
    }

    #[test]
    fn a_part_is_a_file_metadata_or_of_no_matter() {
        let file = |name: &str| Part::File(name.to_owned());
        for (name, file_name, media_type, expected) in [
            (Some("metadata"), None, None, Part::Metadata),
            (
                Some("metadata"),
                None,
                Some("application/json"),
                Part::Metadata,
            ),
            (
                Some("metadata"),
                Some("blob"),
                Some("application/json"),
                Part::Metadata,
            ),
            (
                Some("metadata"),
                Some("blob"),
                Some("image/png"),
                file("blob"),
            ),
            (Some("csrf_token"), None, None, Part::Other),
            (Some("device"), None, Some("text/plain"), Part::Other),
            (Some("device"), None, Some("application/json"), Part::Other),
            (None, None, None, Part::Other),
            (Some("file"), Some("a.png"), None, file("a.png")),
            (None, Some("a.png"), Some("text/plain"), file("a.png")),
            (
                Some("file"),
                Some(""),
                Some("application/octet-stream"),
                file(""),
            ),
            (Some("file"), None, Some("image/png"), file("")),
        ] {
            let found = part_of(name, file_name.map(str::to_owned), media_type);
            assert_eq!(found, expected, "{name:?} {file_name:?} {media_type:?}");
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_not_taken_in() {
        let ahead = Arc::new(AtomicU64::new(0));
        let endless =
            stream::repeat_with(|| Ok::<_, axum::BoxError>(Bytes::from(vec![b'x'; 1000])));
        let body = Body::from_stream(endless);
        let mut form = Multipart::new(Paced::new(body, ahead.clone()), "sep");
        assert!(form.next_field().await.is_err());
        assert!(ahead.load(Ordering::Relaxed) < AHEAD + 2000);
    }
}
