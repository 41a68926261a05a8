//! `gannet check`: what is wrong with the configuration, or the effective one.

use std::io::Write as _;

use super::args::Global;
use super::load;
use crate::downloader;

pub(super) fn run(global: &Global) -> anyhow::Result<u8> {
    let loaded = load(global, Vec::new())?;
    downloader::builtin(&loaded.config.image).find(&loaded.config.job.kind)?;
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
