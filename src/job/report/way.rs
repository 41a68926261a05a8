//! Where a report is: among other files, and seen from the store's.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// `path` without links as far as it exists, and absolute.
fn real_path(path: &Path) -> PathBuf {
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

/// Whether both paths are one file, whatever links lead there.
pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => real_path(a) == real_path(b),
    }
}

/// Whether `folder`, which need not exist, is `root` or below it.
pub(super) fn is_within(folder: &Path, root: &Path) -> bool {
    let (folder, root) = (real_path(folder), real_path(root));
    // Behind what does not exist yet, `..` stays in the path, and may lead out again.
    folder.starts_with(root) && !folder.components().any(|part| part == Component::ParentDir)
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

    #[test]
    fn a_folder_is_within_the_root_unless_it_leads_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        assert!(is_within(&root, &root));
        assert!(is_within(&root.join("reports"), &root));
        assert!(!is_within(&root.join("../elsewhere"), &root));
        assert!(!is_within(folder.path(), &root));
    }

    #[test]
    fn a_file_is_the_same_by_every_way_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "").unwrap();
        std::fs::write(path("b"), "").unwrap();
        std::fs::hard_link(path("a"), path("hard")).unwrap();
        std::os::unix::fs::symlink(path("a"), path("soft")).unwrap();
        for name in ["a", "./a", "hard", "soft"] {
            assert!(is_same(&path("a"), &path(name)), "{name}");
        }
        assert!(!is_same(&path("a"), &path("b")));
        assert!(is_same(&path("new"), &path("./new")));
        assert!(!is_same(&path("new"), &path("newer")));
    }
}
