//! Jobs that clients post.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::Url;
use utoipa::openapi::{OneOfBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::extract::{Names, Nothing, Parameters, is_json, parse};
use super::{Api, Problem, jobs, json};
use crate::catalog::Idempotency;
use crate::job::{self, Dedupe, GivenGroup, OnChange, PostError};
use crate::source::{ListEncoding, ListFormat, Listed};
use crate::target::{OnError, Sha256, Sha256Hasher, State as JobState};

/// How long a client may take for the next bytes of its body.
const STALLED: Duration = Duration::from_secs(30);

/// How long a body waits for its turn, while others are read.
const TURN: Duration = Duration::from_secs(30);

/// Largest metadata of a group or target, in bytes.
const METADATA_BYTES: usize = 16 * 1024;

/// Longest URL of a callback, in bytes.
const CALLBACK_BYTES: usize = 2048;

/// Longest key, in bytes.
const KEY_BYTES: usize = 255;

/// A unit of the memory that bodies share, in bytes.
const UNIT: usize = 1024;

/// How many bodies of the largest size have room at a time.
pub(super) const AT_ONCE: usize = 2;

/// A job that a client posts: where its targets come from (one of `groups`, `urls`, `source`), and what becomes of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJob, examples(json!({
    "album": "audit/2026-11",
    "steps": ["measure", {"step": "thumbnail", "size": 200}],
    "groups": [
        {"id": "shop-17", "on_error": "stop", "metadata": {"visited": "2026-11-20T09:15:00Z"},
         "urls": ["https://example.org/17/front.jpg", "https://example.org/17/shelf.jpg"]},
        {"id": "shop-18", "urls": [{"url": "https://example.org/18/1.jpg", "name": "front.jpg"}]},
    ],
})))]
struct NewJob {
    /// A list to read, or several: URLs, or paths below `api.list_folders`.
    #[serde(default)]
    #[schema(value_type = OneOrMore, required = false)]
    source: OneOrMore,
    /// How the lists are written: else that is found out.
    #[schema(value_type = Option<String>, example = "csv")]
    list_format: Option<ListFormat>,
    /// The encoding of the lists, by a name that browsers know. Detected if it is not given.
    #[schema(value_type = Option<String>, example = "windows-1252")]
    list_encoding: Option<ListEncoding>,
    /// Targets, in no group.
    #[serde(default)]
    #[schema(value_type = Vec<NewTarget>)]
    urls: Vec<NewTarget>,
    /// Groups of targets. All of them run beside each other.
    #[serde(default)]
    groups: Vec<NewGroup>,
    /// What a failure means for the rest of a group that does not say so itself.
    on_error: Option<OnError>,
    /// The kind of file: `image`, `document`, `any`. `downloader` means the same.
    #[serde(alias = "downloader")]
    kind: Option<String>,
    /// The album of targets that name none; empty: the root folder.
    album: Option<String>,
    /// What is done with each file, in this order: a name such as `measure`, or an object with `step` and parameters.
    #[serde(default)]
    #[schema(value_type = Vec<NewStep>)]
    steps: Vec<Box<RawValue>>,
    /// Store exactly so many files, with distinct contents.
    count: Option<u64>,
    /// Ask the origin about every known URL, fresh or not.
    #[serde(default)]
    refresh: bool,
    /// Among which files the same bytes are kept once: `auto`, `off`, `album`, `store`.
    #[schema(value_type = Option<String>)]
    dedupe: Option<Dedupe>,
    /// What becomes of a file whose URL brings other bytes: `replace`, `keep`.
    #[schema(value_type = Option<String>)]
    on_change: Option<OnChange>,
    /// Where to tell of the end of the job: a POST of the event `job.completed`, or another that begins so, as webhooks get it.
    #[schema(example = "https://example.org/gannet?key=4711")]
    callback: Option<String>,
    /// What the job may take.
    #[serde(default)]
    #[schema(value_type = NewLimits, required = false)]
    limits: job::Limits,
}

/// What a posted job may take. It tightens what the settings have, and never loosens it, but for `max_failures`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
struct NewLimits {
    /// For the whole job, such as `10m`.
    deadline: Option<String>,
    /// Failures that are tolerated: a number, or a share such as `5%`.
    #[schema(value_type = Option<String>)]
    max_failures: Option<String>,
    /// For one attempt, such as `30s`.
    total_timeout: Option<String>,
    /// Largest body: bytes, or such as `10MiB`.
    max_bytes: Option<String>,
    /// Requests in flight to one host.
    #[schema(minimum = 1)]
    per_host: Option<u32>,
    /// Requests a second to one host.
    rate: Option<f64>,
    /// Further attempts.
    retries: Option<u32>,
}

/// A group of targets that belong together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    /// Unique within the job.
    #[schema(min_length = 1, max_length = 255)]
    id: String,
    /// Its targets.
    #[schema(value_type = Vec<NewTarget>)]
    urls: Vec<NewTarget>,
    /// `stop`: its targets run in order, and none behind a failure. `continue`: they run beside each other.
    on_error: Option<OnError>,
    /// Whatever else is to be remembered of it.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
}

/// A target: its URL, or an object that says more of it.
#[derive(Debug)]
struct NewTarget(Listed, Option<Box<RawValue>>);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TargetObject)]
struct TargetFields {
    /// Where it is.
    url: String,
    /// The name that its file is to have.
    name: Option<String>,
    /// Its album, where it is not the job's.
    album: Option<String>,
    /// The digest that its bytes have to have.
    sha256: Option<Sha256>,
    /// Whatever else is to be kept with the file.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
}

impl PartialSchema for NewTarget {
    fn schema() -> RefOr<Schema> {
        text_or::<TargetFields>("A target: its URL, or an object that says more of it.")
    }
}

impl ToSchema for NewTarget {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        with_schema::<TargetFields>(schemas);
    }
}

/// A step: its name, or an object with its parameters.
struct NewStep;

/// A step with parameters, which are further members.
#[derive(ToSchema)]
#[schema(as = StepObject)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
struct StepFields {
    /// Its name.
    step: String,
    #[serde(flatten)]
    parameters: HashMap<String, serde_json::Value>,
}

impl PartialSchema for NewStep {
    fn schema() -> RefOr<Schema> {
        text_or::<StepFields>("A step: its name, or an object with its parameters.")
    }
}

impl ToSchema for NewStep {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        with_schema::<StepFields>(schemas);
    }
}

/// A text, or an object that is a component of the document.
fn text_or<T: ToSchema>(description: &str) -> RefOr<Schema> {
    OneOfBuilder::new()
        .description(Some(description))
        .item(String::schema())
        .item(Ref::from_schema_name(T::name()))
        .into()
}

fn with_schema<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

impl<'de> Deserialize<'de> for NewTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = NewTarget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or an object with `url`")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<NewTarget, E> {
                Ok(NewTarget(Listed::new(url), None))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NewTarget, A::Error> {
                let fields = de::value::MapAccessDeserializer::new(map);
                let fields = TargetFields::deserialize(fields)?;
                let mut listed = Listed::new(&fields.url);
                if let Some(album) = &fields.album {
                    crate::target::AlbumName::new(album).map_err(de::Error::custom)?;
                }
                listed.name = fields.name;
                listed.album = fields.album;
                listed.sha256 = fields.sha256;
                Ok(NewTarget(listed, fields.metadata))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// A text, or several.
#[derive(Debug, Default)]
struct OneOrMore(Vec<String>);

impl PartialSchema for OneOrMore {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .description(Some("A text, or several."))
            .item(String::schema())
            .item(Vec::<String>::schema())
            .into()
    }
}

impl ToSchema for OneOrMore {}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source, or a list of them")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![one.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMore, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(OneOrMore(all))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl NewJob {
    fn into_request(self) -> Result<(job::Request, job::Given), Problem> {
        let steps = self.steps.iter().take(job::MAX_STEPS + 1);
        let steps = steps
            .map(|step| serde_json::from_str(step.get()))
            .collect::<Result<_, _>>()
            .map_err(|error| unprocessable("steps", &error.to_string()))?;
        let request = job::Request {
            source: self.source.0,
            list_format: self.list_format,
            list_encoding: self.list_encoding,
            kind: self.kind,
            album: self.album,
            steps,
            count: self.count,
            refresh: self.refresh,
            dedupe: self.dedupe,
            on_change: self.on_change,
            limits: self.limits,
            callback: self.callback.as_deref().map(callback).transpose()?,
            retries: None,
        };
        if self.on_error == Some(OnError::Stop) && self.groups.is_empty() {
            let told = "it is of groups; put what is to run in order into one";
            return Err(unprocessable("on_error", told));
        }
        let on_error = self.on_error.unwrap_or_default();
        let urls = targets(self.urls, "urls")?;
        let mut groups = Vec::with_capacity(self.groups.len());
        for (number, group) in self.groups.into_iter().enumerate() {
            let field = format!("groups[{number}]");
            if let Some(metadata) = &group.metadata {
                object(metadata, &format!("{field}.metadata"))?;
            }
            groups.push(GivenGroup {
                id: group.id,
                on_error: group.on_error.unwrap_or(on_error),
                metadata: group.metadata.map(|raw| raw.get().to_owned()),
                urls: targets(group.urls, &format!("{field}.urls"))?,
            });
        }
        Ok((request, job::Given { urls, groups }))
    }
}

/// A URL that can be told of the end of a job.
fn callback(text: &str) -> Result<Url, Problem> {
    let wrong = |why: &str| unprocessable("callback", why);
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("expected a URL of `http` or `https`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "credentials do not belong into a URL that is posted; `api.callback_secret_file` signs what is sent",
        ));
    }
    if text.len() > CALLBACK_BYTES {
        return Err(wrong(&format!("it has more than {CALLBACK_BYTES} bytes")));
    }
    Ok(url)
}

fn targets(given: Vec<NewTarget>, field: &str) -> Result<Vec<Listed>, Problem> {
    given
        .into_iter()
        .enumerate()
        .map(|(index, NewTarget(mut listed, metadata))| {
            if let Some(raw) = metadata {
                let field = format!("{field}[{index}].metadata");
                object(&raw, &field)?;
                let map = serde_json::from_str(raw.get());
                listed.metadata =
                    Some(map.map_err(|error| unprocessable(&field, &error.to_string()))?);
            }
            Ok(listed)
        })
        .collect()
}

/// Metadata is a JSON object of some KiB.
fn object(raw: &RawValue, field: &str) -> Result<(), Problem> {
    let text = raw.get();
    if !text.starts_with('{') {
        return Err(unprocessable(field, "expected an object"));
    }
    if text.len() > METADATA_BYTES {
        let told = format!("it has more than {METADATA_BYTES} bytes");
        return Err(unprocessable(field, &told));
    }
    Ok(())
}

fn unprocessable(field: &str, problem: &str) -> Problem {
    Problem::invalid(field, format!("`{field}`: {problem}"))
}

impl From<PostError> for Problem {
    fn from(error: PostError) -> Self {
        let status = match error {
            PostError::Catalog(error) => return error.into(),
            PostError::Wrong(wrong) => return unprocessable(&wrong.field, &wrong.problem),
            PostError::KeyReused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            PostError::Full(_) => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
                    .with(header::RETRY_AFTER, "30");
            }
            PostError::NotOver(_) | PostError::NothingFailed => StatusCode::CONFLICT,
            PostError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

/// What is said of a job that was taken.
#[derive(Debug, Serialize, ToSchema)]
struct Accepted {
    /// Its id.
    id: Uuid,
    /// How far it is.
    state: JobState,
    /// Where to ask for it.
    href: String,
}

fn accepted(id: Uuid, state: JobState) -> Response {
    let href = format!("/api/v1/jobs/{id}");
    let location = [(header::LOCATION, href.clone())];
    let body = json(&Accepted { id, state, href });
    (StatusCode::ACCEPTED, location, body).into_response()
}

/// Post a job
///
/// It is recorded once this answers, and survives restarts. With the same `Idempotency-Key` and body, a repeat answers
/// with the job that the first request made.
#[utoipa::path(post, path = "/api/v1/jobs", operation_id = "postJob", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "Up to 255 bytes that make a repeat harmless.")),
    request_body = NewJob,
    responses(
        (status = 202, description = "It is queued, or was before.", body = Accepted,
            headers(("Location" = String, description = "Where to ask for it."))),
        (status = 413, description = "The body is larger than `api.max_body`: post several jobs, or the URL of a list."),
        (status = 415, description = "The body is no `application/json`."),
        (status = 422, description = "A field cannot be used, or the key came with another body."),
        (status = 429, description = "Too many jobs wait. `Retry-After` says when to try again."),
    ))]
pub(super) async fn post(
    State(api): State<Api>,
    _: Parameters<Nothing>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        let detail = "expected `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let key = key(&head.headers)?;
    let _room = room(&api, &head.headers).await?;
    let body = read(body, api.max_body).await?;
    let idempotency = key.map(|key| Idempotency {
        key,
        digest: half(&[&body]),
    });
    let parse = move || parse::<NewJob>(&body)?.into_request();
    let parsed = tokio::task::spawn_blocking(parse).await;
    let (request, given) = parsed.map_err(|error| Problem::internal(&error))??;
    let (id, came_before) = api.posts.post(request, given, idempotency).await?;
    if !came_before {
        return Ok(accepted(id, JobState::Queued));
    }
    let job = api.keeper.job(id).await?;
    Ok(accepted(id, job.map_or(JobState::Queued, |job| job.state)))
}

/// What names the client and its key.
fn key(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let is_plain = key.as_bytes().iter().all(u8::is_ascii_graphic);
    if key.is_empty() || key.len() > KEY_BYTES || !is_plain || keys.next().is_some() {
        let detail = format!(
            "expected one `Idempotency-Key` of 1 to {KEY_BYTES} bytes, visible characters of ASCII"
        );
        return Err(Problem::bad_request(detail));
    }
    let client = headers.get(header::AUTHORIZATION);
    let client = client.map_or(&b""[..], |value| value.as_bytes());
    Ok(Some(half(&[client, key.as_bytes()])))
}

fn half(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256Hasher::default();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finish().0[..16]);
    half
}

/// Waits until there is room in memory for a body.
async fn room(
    api: &Api,
    headers: &HeaderMap,
) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let length: usize = length.unwrap_or(api.max_body);
    if length > api.max_body {
        return Err(too_large(api.max_body));
    }
    let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
    let room = api.bodies.clone().acquire_many_owned(units);
    match tokio::time::timeout(TURN, room).await {
        Ok(Ok(room)) => Ok(room),
        _ => {
            let detail = "too many large requests at the same time; try again";
            Err(Problem::unavailable(detail).with(header::RETRY_AFTER, "5"))
        }
    }
}

/// The memory that bodies of up to `max_body` bytes share.
pub(super) fn bodies(max_body: usize) -> tokio::sync::Semaphore {
    tokio::sync::Semaphore::new((AT_ONCE * max_body.div_ceil(UNIT)).min(u32::MAX as usize))
}

async fn read(mut body: Body, most: usize) -> Result<bytes::Bytes, Problem> {
    let mut whole = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(STALLED, body.frame()).await;
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(error))) => {
                return Err(Problem::bad_request(format!(
                    "the body ended early: {error}"
                )));
            }
            Err(_) => {
                let detail = format!("no byte of the body came for {} s", STALLED.as_secs());
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
            }
        };
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > most {
                return Err(too_large(most));
            }
            whole.extend_from_slice(&data);
        }
    }
}

fn too_large(most: usize) -> Problem {
    let detail = format!(
        "the body is larger than {most} bytes; post the targets in several jobs, or give the URL of a list as `source`; \
         `api.max_body` sets the limit"
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Cancel a job
///
/// What is not done is skipped; files that it stored stay. Of a job that is over, nothing changes.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", operation_id = "cancelJob", tag = "jobs",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses(
        (status = 202, description = "It is asked to end.", body = Accepted),
        (status = 404, description = "There is no such job."),
        (status = 409, description = "It is over already."),
    ))]
pub(super) async fn cancel(
    State(api): State<Api>,
    Names(id): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    let job = jobs::find(&*api.keeper, &id).await?;
    if api.posts.cancel(job.id) {
        return Ok(accepted(job.id, job.state));
    }
    let detail = match job.finished {
        Some(_) => format!("job {} is over: {}", job.id, job.state),
        None => format!("job {} is not run by this process", job.id),
    };
    Err(Problem::new(StatusCode::CONFLICT, detail))
}

/// Try again what failed
///
/// A new job with the targets that failed, and those that a failure kept from being tried.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", operation_id = "retryJob", tag = "jobs",
    params(("id" = Uuid, Path, description = "The id of the job that failed.")),
    responses(
        (status = 202, description = "The new job is queued.", body = Accepted,
            headers(("Location" = String, description = "Where to ask for it."))),
        (status = 404, description = "There is no such job."),
        (status = 409, description = "It is not over, or nothing of it failed."),
        (status = 429, description = "Too many jobs wait. `Retry-After` says when to try again."),
    ))]
pub(super) async fn retry(
    State(api): State<Api>,
    Names(id): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    let job = jobs::find(&*api.keeper, &id).await?;
    let id = api.posts.retry(job).await?;
    Ok(accepted(id, JobState::Queued))
}
