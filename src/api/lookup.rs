//! Files by what is known of them: a URL, a digest, a path.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use unicode_normalization::UnicodeNormalization as _;
use utoipa::{IntoParams, ToSchema};

use super::albums::{Image, urls};
use super::extract::Parameters;
use super::page::{Limit, List, Page};
use super::{Api, Problem, json};
use crate::catalog::LookUp;
use crate::source::recorded_target;

/// Whether the catalog has the indexes that look-ups need. The first look-up makes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LookUps(Arc<OnceCell<()>>);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Files that this URL stands for.
    #[param(example = "https://example.org/front.jpg")]
    url: Option<String>,
    /// Files with these bytes.
    #[param(pattern = "^[0-9A-Fa-f]{64}$")]
    sha256: Option<String>,
    /// The file at this path below the store's root.
    path: Option<String>,
    /// Most items of the page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A file that was looked up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FoundFile)]
pub(super) struct Found<'a> {
    #[serde(flatten)]
    image: Image<'a>,
    /// Where all that is known of it is read, changed and deleted.
    resource: String,
}

/// Files by URL, digest or path
///
/// Exactly one of `url`, `sha256` and `path`. A URL is normalised as those of targets are, and its credentials are masked.
#[utoipa::path(get, path = "/api/v1/files", operation_id = "listFiles", tag = "images", params(Wanted),
    responses((status = 200, description = "A page of them, by path. Empty where there is none.", body = Page<Found>)))]
pub(super) async fn find(
    State(api): State<Api>,
    Parameters(wanted): Parameters<Wanted>,
) -> Result<Response, Problem> {
    let by = wanted.by()?;
    let limit = wanted.limit.unwrap_or_default();
    let after = List::Found.key(wanted.cursor.as_deref())?;
    let made = api
        .look_ups
        .0
        .get_or_try_init(|| api.keeper.index_look_ups());
    made.await?;
    let rows = api.catalog.look_up(by, after, limit.and_one()).await?;
    let (rows, page) = Page::of(List::Found, limit, rows, |row| row.file.path.clone());
    let mut urls = urls(&api, &rows).await?;
    let found = rows.iter().map(|row| {
        let image = Image::of(row, urls.remove(&row.file.id).unwrap_or_default());
        let resource = image.location();
        Found { image, resource }
    });
    Ok(json(&page.with(found)))
}

impl Wanted {
    fn by(&self) -> Result<LookUp, Problem> {
        let wrong = |name: &str, why: &str| {
            Problem::bad_request(format!("the query cannot be used: {name}: {why}"))
        };
        match (&self.url, &self.sha256, &self.path) {
            (Some(url), None, None) => match recorded_target(url) {
                Ok(url) => Ok(LookUp::Url(url)),
                Err(why) => Err(wrong("url", &why)),
            },
            (None, Some(sha256), None) => match sha256.parse() {
                Ok(sha256) => Ok(LookUp::Sha256(sha256)),
                Err(_) => Err(wrong("sha256", "expected 64 hexadecimal digits")),
            },
            (None, None, Some(path)) => Ok(LookUp::Path(path.nfc().collect())),
            _ => Err(Problem::bad_request(
                "the query cannot be used: expected exactly one of `url`, `sha256` and `path`",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Sha256;

    #[test]
    fn files_are_looked_up_by_exactly_one_thing() {
        let by = |query: &str| {
            let wanted: Wanted = serde_urlencoded_of(query);
            wanted.by().map_err(|problem| problem.document().detail)
        };
        let url = |text: &str| Ok(LookUp::Url(text.to_owned()));
        assert_eq!(by("url=HTTP://A.test:80/x y"), url("http://a.test/x%20y"));
        // Whatever its password: nobody who looks it up has to know it.
        for masked in ["u:secret", "u:***"] {
            let found = by(&format!("url=https://{masked}@a.test/"));
            assert_eq!(found, url("https://u:***@a.test/"));
        }
        let digest = Sha256::of(b"x");
        let upper = digest.to_string().to_ascii_uppercase();
        assert_eq!(by(&format!("sha256={upper}")), Ok(LookUp::Sha256(digest)));
        let path = LookUp::Path("a/\u{f6}.png".to_owned());
        assert_eq!(by("path=a/o\u{308}.png"), Ok(path));
        for (query, says) in [
            ("", "exactly one"),
            ("limit=1", "exactly one"),
            ("url=https://a.test/&path=a", "exactly one"),
            ("url=ftp://a.test/", "url: "),
            ("url=", "url: "),
            ("sha256=12", "sha256: expected 64"),
        ] {
            let detail = by(query).unwrap_err();
            assert!(detail.contains(says), "{query}: {detail}");
        }
    }

    fn serde_urlencoded_of(query: &str) -> Wanted {
        let uri = url::Url::parse(&format!("http://a/?{}", query.replace('#', "%23"))).unwrap();
        let uri = format!("/?{}", uri.query().unwrap_or_default());
        let uri: axum::http::Uri = uri.parse().unwrap();
        axum::extract::Query::try_from_uri(&uri).unwrap().0
    }
}
