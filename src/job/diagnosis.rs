//! Explains why a file is there, or why it is not: what the catalog knows of a URL or a file, and what the next job does
//! about it.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;
use url::Url;
use uuid::Uuid;

use super::freshness::{Outlook, outlook};
use crate::catalog::{Catalog, CatalogError, JobRow, Known, KnownFile, OutcomeRow, UrlName};
use crate::fetch::{self, Hosts, recorded_url};
use crate::target::{Outcome, Reason, Sha256};

/// Most past outcomes in a [`Diagnosis`].
pub const MAX_OUTCOMES: u32 = 20;

/// What a diagnosis is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A URL.
    Url(Url),
    /// A file, by its path relative to the store's root.
    Path(String),
    /// A file, by its digest.
    Content(Sha256),
    /// A line of a list that is no URL.
    Line(String),
}

/// The settings that a future job requests a URL by.
#[derive(Debug, Clone, Copy)]
pub struct Profile<'a> {
    /// `[fetch]`.
    pub fetch: &'a fetch::Settings,
    /// `[hosts]`.
    pub hosts: &'a Hosts,
}

/// What is known of a [`Subject`].
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// One for each album and name that a list wants the URL under; of a file, one for each URL that brought it.
    pub records: Vec<UrlReport>,
    /// Set if the subject is a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileReport>,
    /// Past outcomes, newest job first, at most [`MAX_OUTCOMES`]. `unchanged` is only in the records.
    pub outcomes: Vec<PastOutcome>,
    /// Similar URLs that are known. Only filled if nothing else is.
    pub similar: Vec<String>,
}

impl Diagnosis {
    /// Returns `true` if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.file.is_none() && self.outcomes.is_empty()
    }
}

/// The record of a URL.
#[derive(Debug, Serialize)]
pub struct UrlReport {
    /// The URL without credentials.
    pub url: String,
    /// The album that its list asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub album: Option<String>,
    /// The name that its list asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The last outcome.
    pub outcome: Outcome,
    /// Why it was rejected, failed or skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Status of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Failures in a row.
    pub failures: u32,
    /// When it was last requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried: Option<DateTime<Utc>>,
    /// When the origin last sent or confirmed the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<DateTime<Utc>>,
    /// The URL that answered, if redirects led there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
    /// Its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileReport>,
    /// The last job that had it.
    pub job: Uuid,
    /// The source of that job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The schedule of that job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// What the next job does about it.
    pub next: Outlook,
}

/// A file, and whether it is there.
#[derive(Debug, Serialize)]
pub struct FileReport {
    /// Relative to the store's root.
    pub path: String,
    /// gannet's word for the format.
    pub format: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
    /// Unset if the file is gone or has another length.
    pub is_present: bool,
}

/// An outcome, and the job that it is of.
#[derive(Debug, Serialize)]
pub struct PastOutcome {
    /// The job.
    pub job: Uuid,
    /// When the job began. `None` if its record is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<DateTime<Utc>>,
    /// The schedule that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: OutcomeRow,
}

/// Looks `subject` up in the catalog of the store at `root`. `profile` gives the settings of the schedule of that name,
/// or those that hold without a schedule.
///
/// # Errors
///
/// If the catalog cannot be read.
pub async fn diagnose<'a>(
    catalog: &dyn Catalog,
    root: &Path,
    subject: &Subject,
    profile: impl Fn(Option<&str>) -> Profile<'a>,
    now: DateTime<Utc>,
) -> Result<Diagnosis, CatalogError> {
    let mut file = None;
    let (names, texts) = match subject {
        Subject::Url(url) => {
            let texts = spellings(url);
            (catalog.urls_named(texts.clone()).await?, texts)
        }
        Subject::Line(line) => (Vec::new(), vec![line.clone()]),
        Subject::Path(path) => {
            let image = catalog.image(path).await?;
            file = image.map(|image| image.file);
            match &file {
                Some(_) => of_file(catalog, file.as_ref()).await?,
                // A line of a list may look like a path.
                None => (Vec::new(), vec![path.clone()]),
            }
        }
        Subject::Content(sha256) => {
            let mut found = catalog.with_content(None, vec![*sha256]).await?;
            file = found.remove(sha256);
            of_file(catalog, file.as_ref()).await?
        }
    };
    let mut diagnosis = Diagnosis {
        records: reports(catalog, root, names, profile, now).await?,
        file: file.map(|file| report_file(root, file)),
        outcomes: past(catalog, texts).await?,
        similar: Vec::new(),
    };
    if let Subject::Url(url) = subject
        && diagnosis.is_empty()
    {
        let found = catalog.urls_named(similar(url)).await?;
        diagnosis.similar = found.into_iter().map(|name| name.url).collect();
        diagnosis.similar.dedup();
    }
    Ok(diagnosis)
}

/// The records of the URLs that stand for a file, and those URLs.
async fn of_file(
    catalog: &dyn Catalog,
    file: Option<&KnownFile>,
) -> Result<(Vec<UrlName>, Vec<String>), CatalogError> {
    let Some(file) = file else {
        return Ok(Default::default());
    };
    let rows = catalog.urls_of(vec![file.id]).await?;
    let texts = rows.iter().map(|row| row.url.clone()).collect();
    let name = |row: crate::catalog::UrlRow| UrlName {
        key: row.key,
        url: row.url,
        album: row.album,
        name: row.name,
    };
    Ok((rows.into_iter().map(name).collect(), texts))
}

async fn reports<'a>(
    catalog: &dyn Catalog,
    root: &Path,
    names: Vec<UrlName>,
    profile: impl Fn(Option<&str>) -> Profile<'a>,
    now: DateTime<Utc>,
) -> Result<Vec<UrlReport>, CatalogError> {
    let keys = names.iter().map(|name| name.key).collect();
    let mut known = catalog.known(keys).await?;
    let mut reports = Vec::new();
    for name in names {
        let Some(known) = known.remove(&name.key) else {
            continue;
        };
        let job = catalog.job(known.job).await?;
        let schedule = job.as_ref().and_then(|job| job.schedule.as_deref());
        let profile = profile(schedule);
        reports.push(report(root, name, known, job.as_ref(), profile, now));
    }
    Ok(reports)
}

fn report(
    root: &Path,
    name: UrlName,
    mut known: Known,
    job: Option<&JobRow>,
    profile: Profile<'_>,
    now: DateTime<Utc>,
) -> UrlReport {
    let file = known
        .file
        .take()
        .map(|file| (file.clone(), report_file(root, file)));
    let (tried, checked, answered) = (known.tried, known.checked, known.answered.clone());
    match &file {
        Some((file, report)) if report.is_present => known.file = Some(file.clone()),
        // As a job that finds it missing does.
        _ => known.forget_validators(),
    }
    let host = Url::parse(&name.url).ok();
    let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
    let fetch = profile.fetch.of_host(profile.hosts, host);
    UrlReport {
        next: outlook(&known, &fetch, now),
        url: name.url,
        album: Some(name.album).filter(|album| !album.is_empty()),
        name: name.name,
        outcome: known.outcome,
        reason: known.reason,
        status: known.status,
        failures: known.failures,
        tried,
        checked,
        answered,
        file: file.map(|(_, report)| report),
        job: known.job,
        source: job.map(|job| job.source.clone()),
        schedule: job.and_then(|job| job.schedule.clone()),
    }
}

fn report_file(root: &Path, file: KnownFile) -> FileReport {
    let metadata = std::fs::metadata(root.join(&file.path));
    FileReport {
        is_present: metadata.is_ok_and(|metadata| metadata.len() == file.bytes),
        path: file.path,
        format: file.format,
        bytes: file.bytes,
        sha256: file.sha256,
    }
}

async fn past(catalog: &dyn Catalog, urls: Vec<String>) -> Result<Vec<PastOutcome>, CatalogError> {
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let mut past = Vec::new();
    for (id, outcome) in catalog.outcomes_of(urls, MAX_OUTCOMES).await? {
        let job = catalog.job(id).await?;
        past.push(PastOutcome {
            job: id,
            started: job.as_ref().map(|job| job.started),
            schedule: job.and_then(|job| job.schedule),
            outcome,
        });
    }
    Ok(past)
}

/// The forms in which records and the history may have `url`: with and without its fragment, with its credentials
/// masked.
fn spellings(url: &Url) -> Vec<String> {
    // Fails only for URLs without a host, which have no credentials.
    let mut masked = url.clone();
    let _ = masked.set_username("***");
    let mut spellings: Vec<String> = [url, &masked]
        .into_iter()
        .flat_map(|url| {
            [
                crate::target::SafeUrl::new(url).to_string(),
                recorded_url(url),
            ]
        })
        .collect();
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

/// URLs that are easily mistaken for `url`: the other scheme, with or without `www.`, the final slash, the query, or
/// the other case of an ending.
fn similar(url: &Url) -> Vec<String> {
    let mut similar = vec![url.clone()];
    let mut add = |change: &dyn Fn(&mut Url)| {
        let changed = similar.iter().cloned().map(|mut url| {
            change(&mut url);
            url
        });
        let changed: Vec<_> = changed.collect();
        similar.extend(changed);
    };
    add(&|url| {
        let _ = match url.scheme() {
            "http" => url.set_scheme("https"),
            _ => url.set_scheme("http"),
        };
    });
    add(&|url| {
        let host = url.host_str().unwrap_or_default().to_owned();
        let other = match host.strip_prefix("www.") {
            Some(rest) => rest.to_owned(),
            None => format!("www.{host}"),
        };
        let _ = url.set_host(Some(&other));
    });
    add(&|url| {
        let path = url.path().to_owned();
        match path.strip_suffix('/') {
            Some(rest) => url.set_path(rest),
            None => url.set_path(&(path + "/")),
        }
    });
    add(&|url| url.set_query(None));
    add(&|url| {
        let path = url.path().to_owned();
        if let Some((stem, ending)) = path.rsplit_once('.') {
            let other = match ending.chars().any(char::is_lowercase) {
                true => ending.to_uppercase(),
                false => ending.to_lowercase(),
            };
            url.set_path(&format!("{stem}.{other}"));
        }
    });
    let mut texts: Vec<String> = similar.iter().map(recorded_url).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_url_is_found_with_its_credentials_masked() {
        let spellings = spellings(&url("https://a.example/x#top"));
        for known in [
            "https://a.example/x",
            "https://a.example/x#top",
            "https://***@a.example/x",
        ] {
            assert!(spellings.iter().any(|text| text == known), "{known}");
        }
    }

    #[test]
    fn slips_of_the_pen_are_similar() {
        let similar = similar(&url("http://a.example/Pictures/x.jpg?size=2"));
        for known in [
            "https://a.example/Pictures/x.jpg?size=2",
            "https://www.a.example/Pictures/x.jpg?size=2",
            "http://a.example/Pictures/x.jpg",
            "http://a.example/Pictures/x.JPG?size=2",
            "http://a.example/Pictures/x.jpg/?size=2",
        ] {
            assert!(similar.iter().any(|text| text == known), "{known}");
        }
    }
}
