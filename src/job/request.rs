//! What a client may ask of a job that it posts.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::posted::Posted;
use super::{Dedupe, MaxFailures, OnChange, OnRemove, Spec, Terms};
use crate::catalog::{Catalog, Idempotency, JobRow, NewGroup, PART_TARGETS, Post};
use crate::local_path::LocalPath;
use crate::source::{ChainSource, ListEncoding, ListFormat, Listed, Place, Source, parse_source};
use crate::step;
use crate::target::{AlbumName, OnError};

/// Longest name of a group, in bytes.
const MAX_GROUP_BYTES: usize = 255;

/// What is asked of a job, but its targets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Lists to read; none where the targets themselves are posted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// How they are written, where it is not to be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_format: Option<ListFormat>,
    /// Encoding of the lists. `None` detects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_encoding: Option<ListEncoding>,
    /// The kind of file; else `job.kind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The album of targets that name none; else `job.album`. Empty: the root folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub album: Option<String>,
    /// What is done with each file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Value>,
    /// Store exactly so many files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Ask the origin about every known URL, fresh or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
    /// Among which files the same bytes are kept once; else `job.dedupe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<Dedupe>,
    /// What becomes of a file whose URL brings other bytes; else `job.on_change`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<OnChange>,
    /// What it may take.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Where to tell of the end of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Url>,
    /// The job whose failures are tried once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Uuid>,
}

/// What a posted job may take. None of it reaches beyond the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// For the whole job.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub deadline: Option<Duration>,
    /// Failures that are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<MaxFailures>,
    /// For one attempt, from connect to last byte.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub total_timeout: Option<Duration>,
    /// Largest body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
    /// Requests in flight to one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_host: Option<NonZeroUsize>,
    /// Requests a second to one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Further attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the job needs a client of its own.
    pub fn are_of_fetch(&self) -> bool {
        let of_job = Self {
            deadline: self.deadline,
            max_failures: self.max_failures,
            ..Self::default()
        };
        *self != of_job
    }
}

/// A group that is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenGroup {
    /// What its client calls it.
    pub id: String,
    /// What a failure means for the rest of it.
    pub on_error: OnError,
    /// A JSON object.
    pub metadata: Option<String>,
    /// Its targets, in order.
    pub urls: Vec<Listed>,
}

/// Where the targets of a posted job come from, besides its sources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// Targets that belong to no group.
    pub urls: Vec<Listed>,
    /// Groups, in order.
    pub groups: Vec<GivenGroup>,
}

/// A field of a request that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub struct Wrong {
    /// Which.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> Wrong {
    Wrong {
        field: field.into(),
        problem: problem.into(),
    }
}

/// By what posted jobs run.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Settings, client and kinds.
    pub terms: Arc<Terms>,
    /// The steps that there are.
    pub steps: step::Registry,
    /// Folders whose files may be lists.
    pub list_folders: Vec<LocalPath>,
}

impl Request {
    /// Says what of it cannot be used.
    ///
    /// # Errors
    ///
    /// The first field that cannot, in words.
    pub fn check(&self, given: &Given, rules: &Rules) -> Result<(), Wrong> {
        let ways = [
            !self.source.is_empty(),
            !given.urls.is_empty(),
            !given.groups.is_empty(),
        ];
        match ways.into_iter().filter(|given| *given).count() {
            1 => {}
            0 => {
                let expected = "expected `groups`, `urls` or `source` with something in it";
                return Err(wrong("groups", expected));
            }
            _ => {
                let one = "expected only one of `groups`, `urls` and `source`";
                return Err(wrong("groups", one));
            }
        }
        self.parts(rules)?;
        let mut ids = HashSet::new();
        for (number, group) in given.groups.iter().enumerate() {
            let field = || format!("groups[{number}].id");
            let id = group.id.as_str();
            if id.trim().is_empty() || id.len() > MAX_GROUP_BYTES || id.contains(char::is_control) {
                let rule = "expected 1 to 255 bytes without control characters";
                return Err(wrong(field(), rule));
            }
            if !ids.insert(id) {
                return Err(wrong(field(), format!("`{id}` is the id of two groups")));
            }
        }
        Ok(())
    }

    /// What it comes to.
    fn parts(&self, rules: &Rules) -> Result<Parts, Wrong> {
        let terms = &rules.terms;
        let kind = self.kind.clone().unwrap_or_else(|| terms.job.kind.clone());
        terms
            .registry()
            .find(&kind)
            .map_err(|error| wrong("kind", error.to_string()))?;
        let album = match self.album.as_deref() {
            None => terms.job.album.clone(),
            Some("") => None,
            Some(name) => {
                let album = AlbumName::new(name);
                Some(album.map_err(|error| wrong("album", error.to_string()))?)
            }
        };
        let steps = rules.steps.parse(&self.steps).map_err(|error| {
            let at = match &error.field {
                Some(field) => format!("steps[{}].{field}", error.index),
                None => format!("steps[{}]", error.index),
            };
            wrong(at, error.problem)
        })?;
        let mut sources = Vec::with_capacity(self.source.len());
        for (index, text) in self.source.iter().enumerate() {
            let source = self.source(text, rules);
            sources.push(source.map_err(|problem| wrong(format!("source[{index}]"), problem))?);
        }
        if let Some(rate) = self
            .limits
            .rate
            .filter(|rate| !rate.is_finite() || *rate <= 0.0)
        {
            let problem = format!("expected more than 0 requests a second, not {rate}");
            return Err(wrong("limits.rate", problem));
        }
        Ok(Parts {
            kind,
            album,
            steps,
            source: (!sources.is_empty()).then(|| ChainSource::of(sources)),
        })
    }

    fn source(&self, text: &str, rules: &Rules) -> Result<Arc<dyn Source>, String> {
        let spec = parse_source(text, self.list_format).map_err(|error| error.to_string())?;
        let encoding = self.list_encoding.or(rules.terms.list_encoding());
        let spec = spec.in_encoding(encoding);
        match &spec.place {
            Place::Stdin => {
                return Err("there is no standard input; write the URL of a list".to_owned());
            }
            Place::Path(path) => rules.may_read(path)?,
            Place::Url(url) if !url.username().is_empty() || url.password().is_some() => {
                let told =
                    "credentials do not belong here; `[hosts]` takes user and password, or a token";
                return Err(told.to_owned());
            }
            Place::Url(_) | Place::Search(_) => {}
        }
        let source = spec.into_source(rules.terms.lists());
        source.map_err(|error| error.to_string())
    }

    /// The job as the catalog queues it.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check).
    pub fn post(
        &self,
        given: Given,
        idempotency: Option<Idempotency>,
        rules: &Rules,
    ) -> Result<Post, Wrong> {
        let parts = self.parts(rules)?;
        let in_groups: usize = given.groups.iter().map(|group| group.urls.len()).sum();
        let total = given.urls.len() + in_groups;
        let source = match (&parts.source, self.retries) {
            (Some(source), _) => source.to_string(),
            (None, Some(job)) => format!("retry of {job}"),
            (None, None) => match (total, given.groups.len()) {
                (1, 0) => "1 posted URL".to_owned(),
                (total, 0) => format!("{total} posted URLs"),
                (total, groups) => format!("{total} posted URLs in {groups} groups"),
            },
        };
        let groups = given.groups.iter().map(|group| NewGroup {
            id: group.id.clone(),
            on_error: group.on_error,
            metadata: group.metadata.clone(),
            targets: group.urls.len() as u64,
        });
        Ok(Post {
            id: Uuid::now_v7(),
            idempotency,
            source,
            kind: parts.kind,
            album: parts
                .album
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            request: json(self),
            total: parts.source.is_none().then_some(total as u64),
            posted: Utc::now(),
            callback: self.callback.as_ref().map(Url::to_string),
            groups: groups.collect(),
            parts: given.into_parts(),
        })
    }

    /// The job as the engine runs it.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check): the settings may be others since it was posted.
    pub fn spec(
        &self,
        posted: Posted,
        catalog: &Arc<dyn Catalog>,
        rules: &Rules,
        terms: &Arc<Terms>,
    ) -> Result<Spec, Wrong> {
        let parts = self.parts(rules)?;
        let row: &JobRow = &posted.row;
        let inline = || Arc::new(Posted::source(catalog.clone(), row)) as Arc<dyn Source>;
        let limits = &self.limits;
        let spec = Spec::new(parts.source.unwrap_or_else(inline), terms);
        let deadline = match (limits.deadline, spec.deadline) {
            (Some(asked), Some(set)) => Some(asked.min(set)),
            (asked, set) => asked.or(set),
        };
        Ok(Spec {
            id: row.id,
            kind: parts.kind,
            album: parts.album,
            steps: parts.steps,
            count: self.count,
            // What failed is wanted at once.
            refresh: self.refresh || self.retries.is_some(),
            dedupe: self.dedupe.unwrap_or(spec.dedupe),
            on_change: self.on_change.unwrap_or(spec.on_change),
            // What is posted does not show what has gone.
            on_remove: OnRemove::Keep,
            deadline,
            max_failures: limits.max_failures.unwrap_or(spec.max_failures),
            posted: Some(posted),
            ..spec
        })
    }
}

/// What a request comes to.
struct Parts {
    kind: String,
    album: Option<AlbumName>,
    steps: step::Steps,
    source: Option<Arc<dyn Source>>,
}

impl Rules {
    /// Whether a client may have a file read as a list.
    fn may_read(&self, path: &Path) -> Result<(), String> {
        let is_in = |folder: &LocalPath| {
            let (path, folder) = (path.canonicalize().ok()?, folder.canonicalize().ok()?);
            Some(path.starts_with(folder))
        };
        if self
            .list_folders
            .iter()
            .any(|folder| is_in(folder) == Some(true))
        {
            return Ok(());
        }
        Err(format!(
            "`{}` is no file in one of the folders that `api.list_folders` names; write the URL of a list, or post `urls`",
            path.display()
        ))
    }
}

impl Given {
    /// All targets as they are begun: the first of each group, then the second of each, and so on, so that as many
    /// groups as may be are under way at once.
    fn into_parts(self) -> Vec<String> {
        let mut groups: Vec<_> = self
            .groups
            .into_iter()
            .map(|group| group.urls.into_iter())
            .collect();
        let mut parts = Parted::default();
        for listed in self.urls {
            parts.push(listed);
        }
        let mut left = true;
        while left {
            left = false;
            for (number, urls) in groups.iter_mut().enumerate() {
                if let Some(mut listed) = urls.next() {
                    listed.group = u32::try_from(number).ok();
                    parts.push(listed);
                    left = true;
                }
            }
        }
        parts.end()
    }
}

#[derive(Default)]
struct Parted {
    whole: Vec<String>,
    open: Vec<Listed>,
}

impl Parted {
    fn push(&mut self, listed: Listed) {
        self.open.push(listed);
        if self.open.len() as u64 == PART_TARGETS {
            self.whole.push(json(&self.open));
            self.open.clear();
        }
    }

    fn end(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.whole.push(json(&self.open));
        }
        self.whole
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists of them can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str, urls: &[&str]) -> GivenGroup {
        GivenGroup {
            id: id.to_owned(),
            on_error: OnError::Stop,
            metadata: None,
            urls: urls.iter().map(|url| Listed::new(url)).collect(),
        }
    }

    #[test]
    fn groups_are_begun_beside_each_other() {
        let given = Given {
            urls: Vec::new(),
            groups: vec![
                group("a", &["http://a/1", "http://a/2", "http://a/3"]),
                group("b", &["http://b/1"]),
                group("c", &["http://c/1", "http://c/2"]),
            ],
        };
        let parts = given.into_parts();
        let [part] = &parts[..] else {
            panic!("{parts:?}");
        };
        let listed: Vec<Listed> = serde_json::from_str(part).unwrap();
        let order: Vec<(&str, u32)> = listed
            .iter()
            .map(|listed| (listed.url.as_str(), listed.group.unwrap()))
            .collect();
        assert_eq!(
            order,
            [
                ("http://a/1", 0),
                ("http://b/1", 1),
                ("http://c/1", 2),
                ("http://a/2", 0),
                ("http://c/2", 2),
                ("http://a/3", 0),
            ]
        );
    }

    #[test]
    fn parts_are_full_but_for_the_last() {
        let url = Listed::new("http://a/");
        let given = Given {
            urls: vec![url; 2 * PART_TARGETS as usize + 1],
            groups: Vec::new(),
        };
        let sizes: Vec<usize> = given
            .into_parts()
            .iter()
            .map(|part| serde_json::from_str::<Vec<Listed>>(part).unwrap().len())
            .collect();
        assert_eq!(sizes, [500, 500, 1]);
    }

    #[test]
    fn a_request_comes_back_as_it_was_written_down() {
        let text = r#"{"source":["https://example.org/list.csv"],"kind":"image","album":"a","steps":["measure"],
            "count":7,"refresh":true,"dedupe":"album","on_change":"keep",
            "limits":{"deadline":"10m","max_failures":"5%","max_bytes":"1 MiB","per_host":2,"rate":0.5}}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        let again: Request = serde_json::from_str(&json(&request)).unwrap();
        assert_eq!(request, again);
        assert_eq!(request.limits.deadline, Some(Duration::from_secs(600)));
        assert_eq!(request.limits.max_failures, Some(MaxFailures::Percent(5.0)));
    }
}
