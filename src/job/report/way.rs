//! The way from a report to the store's files.

use std::path::{Path, PathBuf};

/// `path` without links as far as it exists, and absolute.
pub(super) fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for existing in absolute.ancestors() {
        if let (Ok(real), Ok(rest)) = (existing.canonicalize(), absolute.strip_prefix(existing)) {
            // Joining an empty rest would add a slash.
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    absolute
}

/// The way from one folder to another, as a relative path.
pub(super) fn way(from: &Path, to: &Path) -> PathBuf {
    let (from, to) = (real_path(from), real_path(to));
    let common = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(common).map(|_| "..");
    let mut way: PathBuf = up.collect();
    way.extend(to.components().skip(common));
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_leads_from_the_report_to_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("out/reports")).unwrap();
        assert_eq!(
            way(&root.join("out/reports"), &root.join("pictures")),
            Path::new("../../pictures")
        );
        assert_eq!(way(root, &root.join("out")), Path::new("out"));
        assert_eq!(way(root, root), Path::new(""));
    }
}
