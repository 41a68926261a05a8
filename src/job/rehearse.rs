//! What a job would do, without doing it.

use std::io::Write;

use chrono::Utc;

use super::{Setup, Spec};
use crate::catalog::{Catalog, TargetKey};
use crate::source::Entry;
use crate::target::SafeUrl;

/// Reads the list and writes a line for each target to `out`: `fetch` (not known), `ask` (known, to be
/// asked whether it changed), `fresh` (known, not to be asked), or `invalid`. The last line counts them.
/// The store is looked at and not touched; a line that repeats an earlier one is listed again.
///
/// # Errors
///
/// When the list or the catalog cannot be read, or `out` cannot be written.
pub async fn rehearse(spec: &Spec, config: Setup<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let root = &config.storage.root;
    let catalog = match Catalog::path(config.catalog, root)?.exists() {
        true => Some(Catalog::open(config.catalog, root).await?),
        false => None,
    };
    let (mut fetch, mut ask, mut fresh, mut invalid) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut list = spec.source.open().await?;
    let now = Utc::now();
    while let Some(chunk) = list.next_chunk().await? {
        let keys: Vec<TargetKey> = chunk
            .iter()
            .filter_map(|entry| match entry {
                Entry::Target(target) => {
                    let album = target.album.as_ref().or(spec.album.as_ref());
                    Some(TargetKey::of(&target.url, album, target.name.as_deref()))
                }
                Entry::Invalid(_) => None,
            })
            .collect();
        let known = match &catalog {
            Some(catalog) => catalog.known(keys.clone()).await?,
            None => Default::default(),
        };
        let mut keys = keys.into_iter();
        for entry in chunk {
            match entry {
                Entry::Target(target) => {
                    let known = keys
                        .next()
                        .and_then(|key| known.get(&key))
                        .filter(|known| known.file.is_some());
                    if spec.shard.is_some_and(|shard| !shard.has(&target.url)) {
                        continue;
                    }
                    let (word, count) = match known {
                        None => ("fetch", &mut fetch),
                        Some(known)
                            if !spec.refresh && known.is_fresh(now, config.fetch.refresh_after) =>
                        {
                            ("fresh", &mut fresh)
                        }
                        Some(_) => ("ask", &mut ask),
                    };
                    *count += 1;
                    writeln!(out, "{word:7}  {}", SafeUrl::new(&target.url))?;
                }
                Entry::Invalid(line) => {
                    invalid += 1;
                    writeln!(
                        out,
                        "invalid  line {}: {}",
                        line.line.unwrap_or_default(),
                        line.detail
                    )?;
                }
            }
        }
    }
    writeln!(
        out,
        "would fetch {fetch}, ask about {ask}; {fresh} fresh, {invalid} invalid"
    )?;
    if let Some(catalog) = catalog {
        catalog.close().await;
    }
    Ok(())
}
