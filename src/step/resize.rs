//! `resize` and `thumbnail`: smaller or converted pictures, made ready in the cache or put in place of the original.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Failure, Output, Replacement, Step, Subject, Wrong, parameters};
use crate::downloader::Facts;
use crate::rendition::{self, Fit, OutOfRange, Params, RenditionError, Renditions, Wanted};
use crate::target::describe;

/// Pixels of a side of a thumbnail of which nothing is said.
const THUMBNAIL: u32 = 256;

#[derive(Debug)]
pub(super) struct ResizeKind(pub(super) Renditions);

#[derive(Debug)]
pub(super) struct ThumbnailKind(pub(super) Renditions);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    width: Option<u32>,
    height: Option<u32>,
    #[serde(default)]
    fit: Fit,
    #[serde(default)]
    enlarge: bool,
    format: Option<rendition::Output>,
    quality: Option<u8>,
    #[serde(default)]
    original: Original,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thumbnail {
    size: Option<u32>,
    #[serde(default)]
    fit: Fit,
    format: Option<rendition::Output>,
    quality: Option<u8>,
}

/// What becomes of the original.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Original {
    /// It stays, and the rendition is made ready for who asks for it.
    #[default]
    Kept,
    /// The rendition is put in its place.
    Replaced,
}

impl super::Kind for ResizeKind {
    fn name(&self) -> &str {
        "resize"
    }

    fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong> {
        let given: Resize = parameters(given)?;
        let params = Params {
            width: given.width,
            height: given.height,
            fit: given.fit,
            enlarge: given.enlarge,
            format: given.format,
            quality: given.quality,
        };
        params.check()?;
        let original = ("original", json!(given.original));
        Ok(Arc::new(Resizing {
            renditions: self.0.clone(),
            params,
            original: given.original,
            given: collect([
                ("width", json!(given.width)),
                ("height", json!(given.height)),
                ("enlarge", json!(given.enlarge)),
                original,
            ]),
        }))
    }
}

impl super::Kind for ThumbnailKind {
    fn name(&self) -> &str {
        "thumbnail"
    }

    fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong> {
        let given: Thumbnail = parameters(given)?;
        let size = given.size.unwrap_or(THUMBNAIL);
        let params = Params {
            fit: given.fit,
            format: given.format,
            quality: given.quality,
            ..Params::within(size, size)
        };
        params.check().map_err(|wrong| match wrong.field {
            "width" | "height" => Wrong::field("size", wrong.problem),
            _ => wrong.into(),
        })?;
        Ok(Arc::new(Resizing {
            renditions: self.0.clone(),
            params,
            original: Original::Kept,
            given: collect([("size", json!(size))]),
        }))
    }
}

impl From<OutOfRange> for Wrong {
    fn from(wrong: OutOfRange) -> Self {
        Self::field(wrong.field, wrong.problem)
    }
}

#[derive(Debug)]
struct Resizing {
    renditions: Renditions,
    params: Params,
    original: Original,
    /// The parameters that only one of the two kinds has.
    given: Map<String, Value>,
}

#[async_trait]
impl Step for Resizing {
    fn given(&self) -> Map<String, Value> {
        let mut given = self.given.clone();
        given.extend(collect([
            ("fit", json!(self.params.fit)),
            ("format", json!(self.params.format)),
            ("quality", json!(self.params.quality)),
        ]));
        given
    }

    async fn run(&self, subject: &Subject) -> Result<Output, Failure> {
        let wanted = Wanted::new(subject.sha256, subject.facts.format.name, self.params)?;
        match self.original {
            Original::Kept => self.make(subject, wanted).await,
            Original::Replaced if subject.may_replace => self.replace(subject, wanted).await,
            Original::Replaced => Ok(untouched(subject, "the file was there before").into()),
        }
    }
}

impl Resizing {
    async fn make(&self, subject: &Subject, wanted: Wanted) -> Result<Output, Failure> {
        let made = self.renditions.make(subject.body.clone(), wanted).await?;
        let (width, height) = made.dimensions().await?;
        let result = json!({
            "width": width,
            "height": height,
            "format": made.format.name,
            "bytes": made.bytes,
            "query": wanted.query(),
        });
        Ok(result.into())
    }

    async fn replace(&self, subject: &Subject, wanted: Wanted) -> Result<Output, Failure> {
        let made = self.renditions.replace(subject.body.clone(), wanted);
        let Some(made) = made.await? else {
            return Ok(untouched(subject, "the picture is as it is wanted").into());
        };
        let (width, height) = made.dimensions;
        Ok(Output {
            result: json!({
                "width": width,
                "height": height,
                "format": made.format.name,
                "bytes": made.bytes.len(),
                "replaced": true,
            }),
            replacement: Some(Replacement {
                sha256: made.sha256,
                bytes: made.bytes,
                facts: Facts {
                    dimensions: Some(made.dimensions),
                    ..Facts::of(made.format)
                },
            }),
        })
    }
}

/// The result for a file that stays as it is.
fn untouched(subject: &Subject, why: &str) -> Value {
    let (width, height) = subject.facts.dimensions.unzip();
    json!({
        "width": width,
        "height": height,
        "format": subject.facts.format.name,
        "bytes": subject.body.len(),
        "replaced": false,
        "because": why,
    })
}

/// Those of the pairs that are not null.
fn collect<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_null());
    pairs.map(|(key, value)| (key.to_owned(), value)).collect()
}

impl From<RenditionError> for Failure {
    fn from(error: RenditionError) -> Self {
        Self::new(describe(&error))
    }
}
