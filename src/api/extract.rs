//! What handlers take from a request, with problem documents for what cannot be taken.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::Problem;

/// The parameters behind `?`. `T` denies what it does not know, so a misspelt one is an error.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

/// For what takes none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let parsed = Query::try_from_uri(&parts.uri);
        parsed
            .map(|Query(value)| Self(value))
            .map_err(|rejection| Problem::bad_request(explain(&rejection)))
    }
}

/// A body of JSON. `T` denies what it does not know.
#[derive(Debug)]
pub(super) struct Sent<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // A page of another site can send anything else without asking before (Fetch standard, section 4.8).
        if !is_json(request.headers()) {
            let detail =
                "the body has to be JSON, and `Content-Type: application/json` has to say so";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let body = Bytes::from_request(request, state).await;
        let body =
            body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        parse(&body).map(Self)
    }
}

/// Reads a JSON object.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let no_json = |error| Problem::bad_request(format!("the body is no JSON: {error}"));
    // A list would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice::<IgnoredAny>(body).map_err(no_json)?;
        let detail = "the body has to be a JSON object";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let sent = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        match error.classify() {
            Category::Data => misread(&path, &error.to_string()),
            _ => no_json(error),
        }
    })?;
    json.end().map_err(no_json)?;
    Ok(sent)
}

/// What is wrong at `path` of a body; `.` is the body itself.
fn misread(path: &str, what: &str) -> Problem {
    let missing = what.strip_prefix("missing field `");
    match missing.and_then(|rest| rest.split('`').next()) {
        Some(field) if path == "." => Problem::invalid(field, what),
        Some(field) => Problem::invalid(&format!("{path}.{field}"), format!("`{path}`: {what}")),
        None if path == "." => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what),
        None => Problem::invalid(path, format!("`{path}`: {what}")),
    }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/merge-patch+json"]
        .iter()
        .any(|json| essence.eq_ignore_ascii_case(json))
}

/// The names in the path, decoded.
#[derive(Debug)]
pub(super) struct Names<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parsed = Path::from_request_parts(parts, state).await;
        parsed
            .map(|Path(value)| Self(value))
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))
    }
}

pub(super) fn explain(rejection: &QueryRejection) -> String {
    let text = rejection.body_text();
    let what = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(&text);
    // What takes no parameter has none to offer.
    let what = what.trim_end_matches(", there are no fields");
    format!("the query cannot be used: {what}").replace("unknown field", "unknown parameter")
}
