//! Holds every record against its file, and every visible file against the records.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use uuid::Uuid;

use super::JobError;
use crate::catalog::{Catalog, KnownFile};
use crate::store::{Found, Seen, StageId, Store, Walk};
use crate::target::{Sha256, describe};

/// Records that are read at a time.
const PAGE: u32 = 256;

/// Files that are read at a time: enough to keep a disk and some processors busy, few enough for any memory.
const AT_A_TIME: usize = 8;

/// How often what does not agree is looked at again while somebody else is at it, and how long after.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// It is recorded and not there.
    Missing,
    /// It has another length than recorded.
    Length,
    /// It has another digest than recorded.
    Content,
    /// It, or a folder, cannot be read.
    Unreadable,
    /// It is there and not recorded.
    Unrecorded,
}

impl Problem {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Length => "length",
            Self::Content => "content",
            Self::Unreadable => "unreadable",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// A file that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Relative to the store's root.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
    /// More of it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The length that is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The digest that is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// The record, where there is one.
    #[serde(skip)]
    pub file: Option<Uuid>,
}

/// What was looked at, and found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records that were held against their files.
    pub files: u64,
    /// The bytes that they promise.
    pub bytes: u64,
    /// See [`Problem::Missing`].
    pub missing: u64,
    /// See [`Problem::Length`].
    pub length: u64,
    /// See [`Problem::Content`].
    pub content: u64,
    /// See [`Problem::Unreadable`].
    pub unreadable: u64,
    /// See [`Problem::Unrecorded`].
    pub unrecorded: u64,
}

impl Verified {
    /// How many findings there were.
    pub fn findings(&self) -> u64 {
        self.missing + self.length + self.content + self.unreadable + self.unrecorded
    }

    fn add(&mut self, problem: Problem) {
        *match problem {
            Problem::Missing => &mut self.missing,
            Problem::Length => &mut self.length,
            Problem::Content => &mut self.content,
            Problem::Unreadable => &mut self.unreadable,
            Problem::Unrecorded => &mut self.unrecorded,
        } += 1;
    }
}

/// Goes through a store and its catalog, which it only reads. Others may work with them meanwhile.
#[derive(Debug)]
pub struct Verifier {
    catalog: Arc<dyn Catalog>,
    store: Store,
    /// The path behind which the next page of records begins.
    after: Option<String>,
    records_are_done: bool,
    walk: Walk,
    verified: Verified,
}

/// A file that does not agree with its record.
#[derive(Debug)]
struct Suspect {
    record: KnownFile,
    found: Found,
    /// Whether its bytes were on their way, to it or from it.
    is_staged: bool,
}

impl Verifier {
    /// Begins with the first record.
    pub fn new(catalog: Arc<dyn Catalog>, store: Store) -> Self {
        Self {
            catalog,
            walk: Walk::new(&store),
            store,
            after: None,
            records_are_done: false,
            verified: Verified::default(),
        }
    }

    /// The figures so far.
    pub fn verified(&self) -> Verified {
        self.verified
    }

    /// Goes on for a while. What was found on the way; `None` at the end.
    ///
    /// # Errors
    ///
    /// When the catalog fails. What is wrong with a file is a finding.
    pub async fn next(&mut self) -> Result<Option<Vec<Finding>>, JobError> {
        let findings = if self.records_are_done {
            self.strangers().await?
        } else {
            Some(self.records().await?)
        };
        for finding in findings.iter().flatten() {
            self.verified.add(finding.problem);
        }
        Ok(findings)
    }

    /// The next page of records.
    async fn records(&mut self) -> Result<Vec<Finding>, JobError> {
        let page = self.catalog.files_after(self.after.clone(), PAGE).await?;
        let Some(last) = page.last().map(|file| file.path.clone()) else {
            self.records_are_done = true;
            return Ok(Vec::new());
        };
        self.verified.files += page.len() as u64;
        self.verified.bytes += page.iter().map(|file| file.bytes).sum::<u64>();
        // Nobody knows yet whether somebody is at it.
        let suspects = self.compare(page, true).await?;
        let suspects = self.look_again(suspects, &last).await?;
        self.after = Some(last);
        Ok(suspects.into_iter().map(Suspect::into_finding).collect())
    }

    /// Those of `records` whose files do not agree.
    async fn compare(
        &self,
        records: Vec<KnownFile>,
        is_staged: bool,
    ) -> Result<Vec<Suspect>, JobError> {
        let store = &self.store;
        let looked_at = stream::iter(records).map(|record| async move {
            let found = store.compare(record.path.clone(), record.bytes, record.sha256);
            let found = found.await?;
            Ok::<_, JobError>(Suspect {
                record,
                found,
                is_staged,
            })
        });
        let is_wrong =
            |suspect: &Suspect| std::future::ready(!matches!(suspect.found, Found::Whole));
        looked_at
            .buffered(AT_A_TIME)
            .try_filter(is_wrong)
            .try_collect()
            .await
    }

    /// Those of `suspects`, all of the page up to the path `last`, that are no work in progress. A file is recorded
    /// before it is published, and taken away before its record is: only what neither has a staged file nor gets
    /// another record while it is looked at is as it will stay.
    async fn look_again(
        &self,
        mut suspects: Vec<Suspect>,
        last: &str,
    ) -> Result<Vec<Suspect>, JobError> {
        let mut certain = Vec::new();
        for look in 0..LOOKS {
            if suspects.is_empty() {
                break;
            }
            let mut records = self.records_until(last).await?;
            let (mut quiet, mut staged) = (Vec::new(), Vec::new());
            for suspect in suspects.drain(..) {
                // Without a record it is gone for good.
                let Some(record) = records.remove(&suspect.record.path) else {
                    continue;
                };
                if !suspect.is_staged && record.stage == suspect.record.stage {
                    certain.push(suspect);
                } else if self.store.is_staged(StageId(record.stage)).await? {
                    staged.push(record);
                } else {
                    quiet.push(record);
                }
            }
            if !staged.is_empty() && look > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            suspects.extend(self.compare(quiet, false).await?);
            suspects.extend(self.compare(staged, true).await?);
        }
        certain.extend(suspects);
        certain.sort_by(|a, b| a.record.path.cmp(&b.record.path));
        Ok(certain)
    }

    /// The records of this page as they are by now.
    async fn records_until(&self, last: &str) -> Result<HashMap<String, KnownFile>, JobError> {
        let mut records = HashMap::new();
        let mut after = self.after.clone();
        loop {
            let page = self.catalog.files_after(after, PAGE).await?;
            after = page.last().map(|file| file.path.clone());
            let is_over = after.as_deref().is_none_or(|path| path >= last);
            records.extend(page.into_iter().map(|file| (file.path.clone(), file)));
            if is_over {
                return Ok(records);
            }
        }
    }

    /// Some of what is visible and not recorded; `None` when there is no more to look at.
    async fn strangers(&mut self) -> Result<Option<Vec<Finding>>, JobError> {
        let seen = self.walk.next().await?;
        if seen.is_empty() {
            return Ok(None);
        }
        let (mut files, mut findings) = (Vec::new(), Vec::new());
        for seen in seen {
            match seen {
                Seen::File(path) => files.push(path),
                Seen::Unreadable(path, error) => findings.push(Finding {
                    detail: Some(error.to_string()),
                    ..Finding::without_record(&path, Problem::Unreadable)
                }),
            }
        }
        let names = files.iter().filter_map(|path| path.to_str());
        let taken = self
            .catalog
            .taken(names.map(str::to_owned).collect())
            .await?;
        let is_stranger = |path: &PathBuf| path.to_str().is_none_or(|path| !taken.contains(path));
        files.retain(is_stranger);
        // What was taken away meanwhile lost its record with it.
        for path in self.walk.still_there(files).await? {
            findings.push(Finding::without_record(&path, Problem::Unrecorded));
        }
        Ok(Some(findings))
    }
}

impl Finding {
    fn without_record(path: &Path, problem: Problem) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            problem,
            detail: None,
            bytes: None,
            sha256: None,
            file: None,
        }
    }
}

impl Suspect {
    fn into_finding(self) -> Finding {
        let record = self.record;
        let (problem, detail) = match &self.found {
            Found::Length(bytes) => (
                Problem::Length,
                Some(format!(
                    "it has {bytes} bytes, and its record says {}",
                    record.bytes
                )),
            ),
            Found::Content(sha256) => (
                Problem::Content,
                Some(format!(
                    "its sha256 is {sha256}, and its record says {}",
                    record.sha256
                )),
            ),
            Found::Unreadable(error) => (Problem::Unreadable, Some(describe(error))),
            Found::Missing | Found::Whole => (Problem::Missing, None),
        };
        let detail = if self.is_staged {
            Some("its bytes wait in the stage; the next run puts them there".to_owned())
        } else {
            detail
        };
        Finding {
            path: record.path,
            problem,
            detail,
            bytes: Some(record.bytes),
            sha256: Some(record.sha256),
            file: Some(record.id),
        }
    }
}
