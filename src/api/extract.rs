//! What handlers take from a request, with problem documents for what cannot be taken.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

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

fn explain(rejection: &QueryRejection) -> String {
    let text = rejection.body_text();
    let what = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(&text);
    // What takes no parameter has none to offer.
    let what = what.trim_end_matches(", there are no fields");
    format!("the query cannot be used: {what}").replace("unknown field", "unknown parameter")
}
