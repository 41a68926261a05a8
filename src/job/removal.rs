//! Takes files away.
//!
//! A file goes the way back that it came: out of its album into the stage, out of the catalog, out of the stage. What is
//! in the stage and recorded is published at the next start, what is not recorded is deleted there, so that a crash
//! leaves a file as it was or nothing of it ([`recover`](super::keeper::recover)).

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::JobError;
use crate::catalog::{Catalog, KnownFile};
use crate::fault::{self, Point};
use crate::naming::StorePath;
use crate::store::{Recorded, StageId, Store, Withdrawn};
use crate::target::describe;

/// Files that are remembered so as to be told of once.
const MOST_LEFT: usize = 10_000;

/// What became of files that were to go.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// Those that the catalog has no longer.
    pub(super) gone: HashSet<Uuid>,
    /// How many of them were there to be taken away.
    pub(super) files: u64,
    /// Those that stay, each with its path and why.
    pub(super) left: Vec<(Uuid, String)>,
}

/// Files of a job that were to be removed and stay.
#[derive(Debug, Default)]
pub(super) struct Left {
    ids: HashSet<Uuid>,
    first: Option<String>,
    count: u64,
}

impl Left {
    /// Adds a file, unless it has been added.
    pub(super) fn add(&mut self, id: Uuid, why: String) {
        if self.ids.contains(&id) {
            return;
        }
        if self.ids.len() < MOST_LEFT {
            self.ids.insert(id);
        }
        self.count += 1;
        self.first.get_or_insert(why);
    }

    /// All of them in one sentence; `None` when there are none.
    pub(super) fn told(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(match self.count {
            1 => first.clone(),
            2 => format!("{first}; nor can 1 more file"),
            count => format!("{first}; nor can {} more files", count - 1),
        })
    }
}

/// What the catalog says of a file, as the store compares it.
pub(super) fn recorded(file: &KnownFile) -> Recorded {
    Recorded {
        bytes: file.bytes,
        mtime_ns: file.mtime_ns,
    }
}

/// Takes files out of their albums and the catalog, which writes an event for each. One that cannot be taken away, or
/// is not as it was stored, stays with its record.
pub(super) async fn remove(
    store: &Store,
    catalog: &dyn Catalog,
    files: Vec<KnownFile>,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Removed, JobError> {
    // Two URLs may stand for one file.
    let files: BTreeMap<Uuid, (StageId, StorePath, Recorded)> = files
        .into_iter()
        .filter_map(|file| {
            let path = StorePath::new(&file.path).ok()?;
            Some((file.id, (StageId(file.stage), path, recorded(&file))))
        })
        .collect();
    let mut removed = Removed::default();
    if files.is_empty() {
        return Ok(removed);
    }
    let batch: Vec<_> = files.values().cloned().collect();
    let withdrawn = match store.withdraw(batch.clone()).await {
        Ok(withdrawn) => withdrawn,
        Err(error) => {
            // They are recorded, so they have to be visible.
            let batch = batch.into_iter().map(|(stage, path, _)| (stage, path));
            store.publish(batch.collect()).await;
            return Err(error.into());
        }
    };
    let (mut ids, mut stages, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    let mut back = Vec::new();
    for ((id, (stage, path, _)), withdrawn) in files.into_iter().zip(withdrawn) {
        let why = match withdrawn {
            Ok(Withdrawn::Taken | Withdrawn::Missing) => {
                removed.files += u64::from(matches!(withdrawn, Ok(Withdrawn::Taken)));
                ids.push(id);
                stages.push(stage);
                paths.push(path);
                continue;
            }
            Ok(Withdrawn::Altered) => "somebody has altered it since it was stored".to_owned(),
            Ok(Withdrawn::NoFile) => "what is there now is no file".to_owned(),
            Err(error) => {
                back.push((stage, path.clone()));
                describe(&error)
            }
        };
        let why = format!("`{path}` cannot be removed: {why}");
        removed.left.push((id, why));
    }
    store.publish(back).await;
    fault::reach(Point::FilesWithdrawn);
    removed.gone = ids.iter().copied().collect();
    // Where this fails, nobody knows whether they are still recorded: the next start finds out.
    catalog.delete_files(ids, reason, now).await?;
    fault::reach(Point::FilesDeleted);
    store.discard(stages).await;
    store.remove_empty_folders(paths).await;
    Ok(removed)
}
