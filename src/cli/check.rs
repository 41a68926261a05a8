//! `gannet check`: what is wrong with the configuration, or the effective one.

use std::io::Write as _;

use super::args::Global;
use super::load;
use crate::downloader;

pub(super) fn run(global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, Vec::new())?;
    let kinds = downloader::builtin(&loaded.config.image);
    if kinds.get(&loaded.config.job.kind).is_none() {
        let known: Vec<&str> = kinds.kinds().collect();
        anyhow::bail!(
            "`job.kind` is `{}`; there are {}",
            loaded.config.job.kind,
            known.join(", ")
        );
    }
    let mut stdout = std::io::stdout().lock();
    match &loaded.file {
        Some(file) => writeln!(
            stdout,
            "# Effective configuration, with `{}`.",
            file.display()
        )?,
        None => writeln!(stdout, "# Effective configuration; no settings file.")?,
    }
    write!(stdout, "{}", loaded.config.effective_toml())?;
    Ok(0)
}
