//! Errors as problem documents (RFC 9457).

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::CatalogError;
use crate::store::StoreError;
use crate::target::{Reason, describe};

/// Why a request is not answered as it wishes.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    reason: Option<Reason>,
    field: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// How a problem is written (RFC 9457, section 3). Its type is `about:blank`, so the status says what kind it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// The status in words.
    title: String,
    /// The status of the answer.
    pub(super) status: u16,
    /// What happened, and what to do about it.
    pub(crate) detail: String,
    /// Why a file is not acceptable, by the words of reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "wrong-kind")]
    reason: Option<Reason>,
    /// What of the body is wrong, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Wrong>,
}

/// A part of a request that is not as it has to be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ProblemError)]
struct Wrong {
    /// Its name, such as `name` or `metadata.owner`.
    field: String,
    /// What is wrong with it.
    detail: String,
}

impl Problem {
    /// `detail`: what happened, and what to do about it.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            reason: None,
            field: None,
            headers: Vec::new(),
        }
    }

    /// A body of which `field` is not as it has to be.
    pub(crate) fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self {
            field: Some(field.to_owned()),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    pub(crate) fn full() -> Self {
        let detail = "there is no room left for it";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, detail).because(Reason::StoreFull)
    }

    /// With the reason why a file is not acceptable.
    pub(crate) fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Something that only the operator can see to.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!("a request to the API failed: {}", describe(error));
        let detail = "this could not be done; the log of the daemon says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// With a header. One that cannot be sent is left out.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Closed => Self::unavailable("the daemon is stopping"),
            error if error.is_transient() => {
                tracing::warn!("a request to the API failed: {}", describe(&error));
                Self::unavailable("the catalog cannot be asked at the moment")
            }
            error if error.reason() == Reason::StoreFull => {
                tracing::error!("a request to the API failed: {}", describe(&error));
                Self::full()
            }
            error => Self::internal(&error),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl Problem {
    pub(super) fn document(&self) -> Document {
        let wrong = |field: &String| Wrong {
            field: field.clone(),
            detail: self.detail.clone(),
        };
        let title = self.status.canonical_reason();
        Document {
            title: title.unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            reason: self.reason,
            errors: self.field.iter().map(wrong).collect(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = self.document();
        let body = serde_json::to_string(&document).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
