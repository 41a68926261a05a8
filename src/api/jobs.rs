//! Jobs and what became of their targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::extract::{Names, Nothing, Parameters};
use super::page::{Limit, List, Page};
use super::{Api, Problem, json};
use crate::catalog::{
    Catalog, CatalogError, GroupCounts, GroupRow, JobRow, OutcomeFilter, OutcomeRow,
};
use crate::target::{self, Outcome, describe};

/// Items that a stream reads at a time.
const CHUNK: u32 = 1000;

/// Failed groups that a job shows itself.
const SHOWN_GROUPS: u32 = 100;

/// A job with what can be said of it besides.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobWithGroups)]
struct Job {
    #[serde(flatten)]
    job: JobRow,
    /// How often each reason came up.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<&'static str, u64>,
    /// How many groups it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<GroupCounts>,
    /// The first hundred of those that failed, each with its first error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed_groups: Vec<GroupRow>,
}

pub(super) const NDJSON: &str = "application/x-ndjson";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only jobs that are so far.
    #[param(inline)]
    state: Option<target::State>,
    /// Most items of the page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Jobs, newest first
#[utoipa::path(get, path = "/api/v1/jobs", operation_id = "listJobs", tag = "jobs", params(Wanted),
    responses((status = 200, description = "A page of them.", body = Page<JobRow>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(wanted): Parameters<Wanted>,
) -> Result<Response, Problem> {
    let limit = wanted.limit.unwrap_or_default();
    let before = List::Jobs.key(wanted.cursor.as_deref())?;
    let rows = api.catalog.jobs(wanted.state, before, limit.and_one());
    let (rows, page) = Page::of(List::Jobs, limit, rows.await?, |job| job.id.to_string());
    Ok(json(&page.with(rows)))
}

/// A job
#[utoipa::path(get, path = "/api/v1/jobs/{id}", operation_id = "getJob", tag = "jobs",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses(
        (status = 200, description = "How it is with it.", body = Job),
        (status = 404, description = "There is no such job."),
    ))]
pub(super) async fn one(
    State(api): State<Api>,
    Names(id): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    let job = find(&*api.catalog, &id).await?;
    let counts = api.catalog.group_counts(job.id).await?;
    let failed_groups = match counts.failed {
        0 => Vec::new(),
        _ => {
            let failed = Some(target::State::Failed);
            api.catalog
                .groups(job.id, failed, None, SHOWN_GROUPS)
                .await?
        }
    };
    let groups = (counts.total > 0).then_some(counts);
    let reasons = api.catalog.reasons(job.id).await?;
    let reasons = reasons
        .into_iter()
        .map(|(reason, times)| (reason.as_str(), times));
    Ok(json(&Job {
        job,
        reasons: reasons.collect(),
        groups,
        failed_groups,
    }))
}

pub(super) async fn find(catalog: &dyn Catalog, id: &str) -> Result<JobRow, Problem> {
    let job = match Uuid::parse_str(id) {
        Ok(id) => catalog.job(id).await?,
        Err(_) => None,
    };
    job.ok_or_else(|| Problem::not_found(format!("there is no job `{id}`")))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedGroups {
    /// Only groups that are so far: `queued`, `ongoing`, `completed`, `failed` or `cancelled`.
    #[param(inline)]
    state: Option<target::State>,
    /// Most items of the page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The groups of a posted job
#[utoipa::path(get, path = "/api/v1/jobs/{id}/groups", operation_id = "listGroups", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id."), WantedGroups),
    responses(
        (status = 200, description = "A page of them, in the order in which they were posted.", body = Page<GroupRow>),
        (status = 404, description = "There is no such job."),
    ))]
pub(super) async fn groups(
    State(api): State<Api>,
    Names(id): Names<String>,
    Parameters(wanted): Parameters<WantedGroups>,
) -> Result<Response, Problem> {
    let job = find(&*api.catalog, &id).await?.id;
    let limit = wanted.limit.unwrap_or_default();
    let after = List::Groups.key(wanted.cursor.as_deref())?;
    let rows = api
        .catalog
        .groups(job, wanted.state, after, limit.and_one());
    let (rows, page) = Page::of(List::Groups, limit, rows.await?, |row| {
        row.number.to_string()
    });
    Ok(json(&page.with(rows)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedItems {
    /// Only items of this outcome.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// Most items of the page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What became of the targets of a job
///
/// In the order of the list; of a job under way, those that are recorded by now. `Accept: application/x-ndjson` brings
/// all of them in one answer, an item a line.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/items", operation_id = "listItems", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id."), WantedItems),
    responses(
        (status = 200, description = "A page of items, or all of them, one a line.", content(
            (Page<OutcomeRow> = "application/json"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "There is no such job."),
    ))]
pub(super) async fn items(
    State(api): State<Api>,
    Names(id): Names<String>,
    Parameters(wanted): Parameters<WantedItems>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = find(&*api.catalog, &id).await?.id;
    let filter = wanted
        .outcome
        .map_or(OutcomeFilter::All, OutcomeFilter::Only);
    if accepts_ndjson(&headers) {
        if wanted.limit.is_some() || wanted.cursor.is_some() {
            let detail = format!(
                "`{NDJSON}` has all items in one answer: leave `limit` and `cursor` out, or ask for JSON"
            );
            return Err(Problem::bad_request(detail));
        }
        return Ok(stream_items(api.catalog, job, filter));
    }
    let limit = wanted.limit.unwrap_or_default();
    let after = List::Items.key(wanted.cursor.as_deref())?;
    let rows = api.catalog.outcomes(job, filter, after, limit.and_one());
    let (rows, page) = Page::of(List::Items, limit, rows.await?, |row| row.seq.to_string());
    Ok(([(header::VARY, "Accept")], json(&page.with(rows))).into_response())
}

pub(super) fn accepts_ndjson(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut kinds = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case(NDJSON)
    })
}

/// A line of JSON for each item. One that cannot be read breaks the answer off, so that its reader sees that it is not
/// whole.
fn stream_items(catalog: Arc<dyn Catalog>, job: Uuid, filter: OutcomeFilter) -> Response {
    let chunks = stream::try_unfold(None, move |after| {
        let catalog = catalog.clone();
        async move {
            let rows = catalog.outcomes(job, filter, after, CHUNK).await;
            let rows = rows.inspect_err(|error: &CatalogError| {
                tracing::error!(job.id = %job, "an answer breaks off: {}", describe(error));
            })?;
            let Some(last) = rows.last() else {
                return Ok(None);
            };
            let after = Some(last.seq);
            let mut lines = Vec::new();
            for row in &rows {
                serde_json::to_writer(&mut lines, row)?;
                lines.push(b'\n');
            }
            Ok::<_, axum::BoxError>(Some((Bytes::from(lines), after)))
        }
    });
    let headers = [(header::CONTENT_TYPE, NDJSON), (header::VARY, "Accept")];
    (headers, Body::from_stream(chunks)).into_response()
}
