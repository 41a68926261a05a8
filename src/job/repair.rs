//! Brings files again that are missing or damaged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use url::Url;
use uuid::Uuid;

use super::progress::{Progress, Snapshot};
use super::report::Head;
use super::{
    Dedupe, Ending, Engine, Finding, Item, JobError, Observer, OnChange, OnRemove, Spec, Stop,
    Summary, Terms,
};
use crate::catalog::{TargetKey, UrlRow};
use crate::source::{Entry, GivenSource};
use crate::store::Found;
use crate::target::{AlbumName, Target};

/// Files that are looked up at a time.
const CHUNK: usize = 500;

/// How repairing files went.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Why a file could not be repaired, for each of those that were to be; `None` where it was.
    pub files: Vec<(String, Option<String>)>,
    /// Why it ended early.
    pub error: Option<String>,
}

/// A URL that stands for a file to be repaired.
#[derive(Debug)]
struct Origin {
    key: TargetKey,
    /// As it is printed.
    url: String,
}

impl Engine {
    /// Fetches files again from their URLs, into their own places, in a job for each kind. Findings without a record
    /// are left alone.
    ///
    /// # Errors
    ///
    /// When the catalog fails, or a job cannot begin.
    pub async fn repair(
        &self,
        terms: &Arc<Terms>,
        findings: &[Finding],
        progress: &Progress,
        stop: &Stop,
    ) -> Result<Repaired, JobError> {
        let mut origins: HashMap<Uuid, Vec<Origin>> = HashMap::new();
        let mut kinds: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        let mut jobs: HashMap<Uuid, String> = HashMap::new();
        let ids: Vec<Uuid> = findings.iter().filter_map(|finding| finding.file).collect();
        for ids in ids.chunks(CHUNK) {
            let rows = self.catalog.urls_of(ids.to_vec()).await?;
            let keys = rows.iter().map(|row| row.key).collect();
            let known = self.catalog.known(keys).await?;
            for row in rows {
                let origin = Origin {
                    key: row.key,
                    url: row.url.clone(),
                };
                origins.entry(row.file).or_default().push(origin);
                let (Some(target), Some(known)) = (target(&row), known.get(&row.key)) else {
                    continue;
                };
                let kind = self.kind_of(terms, known.job, &mut jobs).await?;
                kinds.entry(kind).or_default().push(target);
            }
        }
        let mut heard = Heard {
            progress,
            failed: HashMap::new(),
        };
        let mut error = None;
        for (kind, targets) in kinds {
            if stop.cancel.is_cancelled() {
                break;
            }
            let spec = repair_spec(terms, kind, targets, &ids);
            let summary = self.run(spec, &mut heard, stop.clone()).await?;
            if summary.ending == Ending::Broken {
                error = summary.error;
                break;
            }
        }
        let mut files = Vec::with_capacity(ids.len());
        for finding in findings {
            let Some(id) = finding.file else { continue };
            let origins = origins.remove(&id).unwrap_or_default();
            let why = self.why_not(id, &origins, &heard.failed).await?;
            files.push((finding.path.clone(), why));
        }
        Ok(Repaired { files, error })
    }

    /// The kind that the last job of a URL had; where its history is gone, that of the settings.
    async fn kind_of(
        &self,
        terms: &Terms,
        job: Uuid,
        jobs: &mut HashMap<Uuid, String>,
    ) -> Result<String, JobError> {
        if let Some(kind) = jobs.get(&job) {
            return Ok(kind.clone());
        }
        let row = self.catalog.job(job).await?;
        let kind = row.map_or_else(|| terms.job.kind.clone(), |row| row.kind);
        jobs.insert(job, kind.clone());
        Ok(kind)
    }

    /// Why a file is still not as its record says; `None` when it is.
    async fn why_not(
        &self,
        file: Uuid,
        origins: &[Origin],
        failed: &HashMap<String, String>,
    ) -> Result<Option<String>, JobError> {
        let keys = origins.iter().map(|origin| origin.key).collect();
        let known = self.catalog.known(keys).await?;
        let record = known
            .into_values()
            .filter_map(|known| known.file)
            .find(|known| known.id == file);
        if let Some(record) = record {
            let found = self.store.compare(record.path, record.bytes, record.sha256);
            if matches!(found.await?, Found::Whole) {
                return Ok(None);
            }
        }
        let why = match origins {
            [] => "no URL stands for it any more".to_owned(),
            [first, ..] => match origins.iter().find_map(|origin| failed.get(&origin.url)) {
                Some(why) => why.clone(),
                None => format!(
                    "`{}` was not asked: its credentials are not kept, or the repair ended before",
                    first.url
                ),
            },
        };
        Ok(Some(why))
    }
}

fn repair_spec(terms: &Arc<Terms>, kind: String, targets: Vec<Target>, files: &[Uuid]) -> Spec {
    let name = match targets.len() {
        1 => "repair of 1 file".to_owned(),
        count => format!("repair of {count} files"),
    };
    let targets: Arc<[Target]> = targets.into();
    let source = GivenSource::new(name, move || {
        let targets = targets.clone();
        Box::new((0..targets.len()).map(move |at| Ok(Entry::Target(targets[at].clone()))))
    });
    Spec {
        kind,
        album: None,
        refresh: true,
        distrusted: files.iter().copied().collect(),
        // The record that a damaged file has must not stand for the bytes that come.
        dedupe: Dedupe::Off,
        on_change: OnChange::Replace,
        on_remove: OnRemove::Keep,
        ..Spec::new(Arc::new(source), terms)
    }
}

/// What to fetch for a file; `None` where the URL had credentials, which are not kept.
fn target(row: &UrlRow) -> Option<Target> {
    let album = AlbumName::recorded(&row.album).ok();
    let url = Url::parse(&row.url).ok()?;
    if TargetKey::of(&url, album.as_ref(), row.name.as_deref()) != row.key {
        return None;
    }
    let mut target = Target::new(url);
    target.album = album;
    target.name = row.name.clone();
    Some(target)
}

/// Shows progress, and remembers why targets could not be had.
struct Heard<'a> {
    progress: &'a Progress,
    /// By URL, as it is printed.
    failed: HashMap<String, String>,
}

impl Observer for Heard<'_> {
    fn begin(&mut self, _: &Head) -> anyhow::Result<()> {
        Ok(())
    }

    fn items(&mut self, items: &[Item]) -> anyhow::Result<()> {
        for item in items {
            if let Some(reason) = item.reason {
                let detail = item.detail.as_deref().unwrap_or_default();
                self.failed
                    .insert(item.url.clone(), format!("{reason}: {detail}"));
            }
        }
        Ok(())
    }

    fn tick(&mut self, snapshot: &Snapshot) {
        self.progress.tick(*snapshot);
    }

    fn end(&mut self, _: &Summary) -> anyhow::Result<()> {
        Ok(())
    }
}
