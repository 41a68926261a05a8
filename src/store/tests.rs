use super::*;
use crate::local_path::LocalPath;
use crate::naming::StorePath;
use crate::target::Sha256;

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        root: LocalPath::new(folder.path()).unwrap(),
        mtime: Mtime::Now,
        sync: true,
        commit_interval: Duration::from_millis(1),
        commit_files: NonZeroUsize::MIN,
    };
    let store = Store::open(&settings).await.unwrap();
    (folder, store)
}

fn path(text: &str) -> StorePath {
    StorePath::new(text).unwrap()
}

async fn stage(store: &Store, body: &'static [u8]) -> StageId {
    let id = StageId::new();
    let staged = store
        .stage(vec![(id, bytes::Bytes::from_static(body))])
        .await;
    assert!(staged.iter().all(Result::is_ok), "{staged:?}");
    id
}

/// Of a file whose time nobody looked at.
fn recorded(bytes: u64) -> Recorded {
    let mtime_ns = None;
    Recorded { bytes, mtime_ns }
}

async fn publish(store: &Store, id: StageId, text: &str) {
    let published = store.publish(vec![(id, path(text))]).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
}

#[tokio::test]
async fn a_file_is_visible_from_publish_on_and_not_before() {
    let (folder, store) = store().await;
    let id = stage(&store, b"whole").await;
    store.sync(&[id]).await.unwrap();
    let visible = folder.path().join("cats/a.jpg");
    let exist = async || {
        store
            .exist(vec![path("cats/a.jpg")])
            .await
            .remove(0)
            .unwrap()
    };
    assert!(!exist().await);
    assert!(!visible.exists());
    publish(&store, id, "cats/a.jpg").await;
    assert_eq!(std::fs::read(visible).unwrap(), b"whole");
    assert!(exist().await);
    assert!(store.staged().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_the_trouble_of_its_files_alone() {
    let (folder, store) = store().await;
    std::fs::write(folder.path().join("file"), "mine").unwrap();
    std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
    let paths = ["file/a.jpg", "link/a.jpg", "link/tmp/a.jpg", "cats/a.jpg"].map(path);
    let made = store.make_folders(paths.to_vec()).await;
    for refused in &made[..3] {
        assert!(
            refused.as_ref().unwrap_err().is_of_one_path(),
            "{refused:?}"
        );
    }
    assert!(made[3].is_ok());
}

#[tokio::test]
async fn publishing_again_changes_nothing() {
    let (folder, store) = store().await;
    let id = stage(&store, b"whole").await;
    for _ in 0..2 {
        publish(&store, id, "new/folder/a.jpg").await;
    }
    assert_eq!(
        std::fs::read(folder.path().join("new/folder/a.jpg")).unwrap(),
        b"whole"
    );
}

#[tokio::test]
async fn publishing_survives_a_folder_that_somebody_removed() {
    let (folder, store) = store().await;
    let id = stage(&store, b"whole").await;
    assert!(store.make_folders(vec![path("cats/a.jpg")]).await[0].is_ok());
    std::fs::remove_dir(folder.path().join("cats")).unwrap();
    publish(&store, id, "cats/a.jpg").await;
    assert!(folder.path().join("cats/a.jpg").exists());
}

#[tokio::test]
async fn a_path_that_is_not_free_holds_up_no_other_and_its_file_stays_staged() {
    let (folder, store) = store().await;
    std::fs::create_dir_all(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut batch = Vec::new();
    for text in ["a", "folder", "file/b", "z"] {
        batch.push((stage(&store, b"whole").await, path(text)));
    }
    let waiting = [batch[1].0, batch[2].0];
    let published = store.publish(batch).await;
    let refused: Vec<bool> = published
        .iter()
        .map(|result| result.as_ref().is_err_and(StoreError::is_of_one_path))
        .collect();
    assert_eq!(refused, [false, true, true, false], "{published:?}");
    assert!(published[0].is_ok() && published[3].is_ok());
    let mut staged = store.staged().await.unwrap();
    staged.sort_unstable();
    assert_eq!(staged, waiting);
}

#[tokio::test]
async fn a_large_batch_is_synced_in_one_pass() {
    let (_folder, store) = store().await;
    let mut batch = Vec::new();
    for _ in 0..40 {
        batch.push(stage(&store, b"x").await);
    }
    store.sync(&batch).await.unwrap();
    assert_eq!(store.staged().await.unwrap().len(), 40);
    store.discard(batch).await;
    assert!(store.staged().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_spool_that_is_dropped_leaves_nothing_and_one_that_is_kept_stays() {
    let (_folder, store) = store().await;
    let body = bytes::Bytes::from(vec![7; 300 * 1024]);
    let mut spool = store.spool().await.unwrap();
    spool.write(&body).await.unwrap();
    assert_eq!(store.staged().await.unwrap().len(), 1);
    drop(spool);
    assert!(store.staged().await.unwrap().is_empty());

    let mut spool = store.spool().await.unwrap();
    spool.write(&body).await.unwrap();
    spool.write(&body).await.unwrap();
    let spooled = spool.finish().await.unwrap();
    assert_eq!(spooled.len(), 600 * 1024);
    assert_eq!(spooled.file().metadata().unwrap().len(), 600 * 1024);
    let id = spooled.keep();
    assert_eq!(store.staged().await.unwrap(), [id]);
}

#[tokio::test]
async fn a_spool_that_rests_holds_no_file_open_and_goes_on_where_it_was() {
    /// Files of this process below `folder`.
    fn open_below(folder: &std::path::Path) -> usize {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|path| path.starts_with(folder) && path.is_file())
            .count()
    }
    let (folder, store) = store().await;
    let folder = folder.path().canonicalize().unwrap();
    let body = bytes::Bytes::from_static(b"half");
    let mut spool = store.spool().await.unwrap();
    spool.write(&body).await.unwrap();
    assert_eq!(open_below(&folder), 1);
    for _ in 0..2 {
        spool.rest().await.unwrap();
        assert_eq!((open_below(&folder), spool.len()), (0, 4));
    }
    spool.write(&body).await.unwrap();
    spool.rest().await.unwrap();
    let spooled = spool.finish().await.unwrap();
    let mut bytes = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&**spooled.file(), &mut bytes, 0).unwrap();
    assert_eq!((&bytes, spooled.len()), (b"halfhalf", 8));
}

#[tokio::test]
async fn a_look_tells_files_from_all_else() {
    let (folder, store) = store().await;
    std::fs::write(folder.path().join("a"), b"four").unwrap();
    std::fs::create_dir(folder.path().join("b")).unwrap();
    std::os::unix::fs::symlink("a", folder.path().join("c")).unwrap();
    let paths = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let stats = store.stats(paths).await.unwrap();
    let lengths: Vec<_> = stats
        .iter()
        .map(|stat| Some(stat.as_ref()?.bytes))
        .collect();
    assert_eq!(lengths, [Some(4), None, None, None]);
}

#[tokio::test]
async fn a_staged_file_keeps_its_time_when_it_is_published() {
    let (_folder, store) = store().await;
    let (small, path) = (StageId::new(), path("a.png"));
    let staged = store
        .stage(vec![(small, bytes::Bytes::from_static(b"a"))])
        .await;
    store.publish(vec![(small, path.clone())]).await;
    let stat = store.stats(vec!["a.png".to_owned()]).await.unwrap()[0].unwrap();
    assert_eq!(stat.mtime_ns, *staged[0].as_ref().unwrap());
    let mut spool = store.spool().await.unwrap();
    spool
        .write(&bytes::Bytes::from_static(b"large"))
        .await
        .unwrap();
    let spooled = spool.finish().await.unwrap();
    let mtime_ns = spooled.mtime_ns();
    store.publish(vec![(spooled.keep(), path)]).await;
    let stat = store.stats(vec!["a.png".to_owned()]).await.unwrap()[0].unwrap();
    assert_eq!((stat.bytes, stat.mtime_ns), (5, mtime_ns));
}

#[tokio::test]
async fn what_is_withdrawn_can_be_published_again() {
    let (folder, store) = store().await;
    let (id, path) = (StageId::new(), path("cats/a.png"));
    store
        .stage(vec![(id, bytes::Bytes::from_static(b"a"))])
        .await;
    store.publish(vec![(id, path.clone())]).await;
    let file = path.below(folder.path());
    let recorded = recorded(1);
    for is_there in [Withdrawn::Taken, Withdrawn::Missing] {
        let withdrawn = store.withdraw(vec![(id, path.clone(), recorded)]).await;
        assert_eq!(*withdrawn.unwrap()[0].as_ref().unwrap(), is_there);
        assert!(!file.exists());
    }
    // Folders that hold nothing go up to the root, and come again.
    store.remove_empty_folders(vec![path.clone()]).await;
    assert!(!folder.path().join("cats").exists());
    store.publish(vec![(id, path.clone())]).await;
    assert_eq!(std::fs::read(&file).unwrap(), b"a");
    store.remove_empty_folders(vec![path]).await;
    assert!(file.exists());
}

#[tokio::test]
async fn what_is_not_as_recorded_is_not_taken_away() {
    let (folder, store) = store().await;
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
    std::fs::write(folder.path().join("file"), b"1234").unwrap();
    let look = store.stats(vec!["file".to_owned()]).await.unwrap();
    let mtime_ns = Some(look[0].unwrap().mtime_ns);
    let earlier = mtime_ns.map(|time| time - 1);
    let cases = [
        ("folder", 4, None, Withdrawn::NoFile),
        ("link", 4, None, Withdrawn::NoFile),
        ("file", 5, mtime_ns, Withdrawn::Altered),
        ("file", 4, earlier, Withdrawn::Altered),
        ("file/a", 4, None, Withdrawn::Missing),
        ("none/a", 4, None, Withdrawn::Missing),
    ];
    let leaving = |(text, bytes, mtime_ns, _)| {
        let recorded = Recorded { bytes, mtime_ns };
        (StageId::new(), path(text), recorded)
    };
    let withdrawn = store.withdraw(cases.map(leaving).into()).await.unwrap();
    for (case, withdrawn) in cases.iter().zip(withdrawn) {
        assert_eq!(withdrawn.unwrap(), case.3, "{case:?}");
    }
    assert!(store.staged().await.unwrap().is_empty());
    let leaving = leaving(("file", 4, mtime_ns, Withdrawn::Taken));
    let withdrawn = store.withdraw(vec![leaving]).await.unwrap();
    assert_eq!(*withdrawn[0].as_ref().unwrap(), Withdrawn::Taken);
}

#[tokio::test]
async fn nothing_is_moved_through_a_link_that_took_the_place_of_a_folder() {
    let (folder, store) = store().await;
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir(elsewhere.path().join("cats")).unwrap();
    let theirs = elsewhere.path().join("cats/a.png");
    std::fs::write(&theirs, b"a").unwrap();
    for (link, leads_to) in [("pets", ""), ("cats", "cats")] {
        // The store has seen the folder.
        let inside = path(&format!(
            "{link}/{}",
            ["cats/a.png", "a.png"][usize::from(link == "cats")]
        ));
        let id = stage(&store, b"b").await;
        publish(&store, id, inside.as_str()).await;
        std::fs::remove_dir_all(folder.path().join(link)).unwrap();
        let link = folder.path().join(link);
        std::os::unix::fs::symlink(elsewhere.path().join(leads_to), link).unwrap();

        let leaving = (StageId::new(), inside.clone(), recorded(1));
        let withdrawn = store.withdraw(vec![leaving]).await.unwrap().remove(0);
        assert!(withdrawn.unwrap_err().is_of_one_path());
        let id = stage(&store, b"b").await;
        let published = store.publish(vec![(id, inside)]).await.remove(0);
        assert!(published.unwrap_err().is_of_one_path());
        assert_eq!(std::fs::read(&theirs).unwrap(), b"a");
        assert_eq!(store.staged().await.unwrap(), [id]);
        store.discard(vec![id]).await;
    }
}

#[tokio::test]
async fn a_link_shares_the_bytes_and_outlives_the_file() {
    let (folder, store) = store().await;
    let ids = [(); 4].map(|()| StageId::new());
    let [id, second, linked, missing] = ids;
    let times = store
        .stage(vec![(id, bytes::Bytes::from_static(b"a"))])
        .await;
    let staged = store.link(vec![(Original::Staged(id), second)]).await;
    assert_eq!(
        *staged.unwrap()[0].as_ref().unwrap(),
        *times[0].as_ref().unwrap()
    );
    store.publish(vec![(id, path("a.png"))]).await;
    let links = [("a.png", linked), ("none.png", missing)]
        .map(|(name, id)| (Original::Published(path(name)), id));
    let results = store.link(links.into()).await.unwrap();
    assert!(results[0].is_ok() && results[1].is_err());
    store
        .publish(vec![(linked, path("cats/b.png")), (second, path("c.png"))])
        .await;
    std::fs::remove_file(folder.path().join("a.png")).unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("cats/b.png")).unwrap(),
        b"a"
    );
    assert!(store.staged().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_second_holder_learns_who_the_first_is() {
    let (folder, _store) = store().await;
    let held = StoreLock::take(folder.path()).unwrap();
    let refused = StoreLock::take(folder.path()).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    drop(held);
    StoreLock::take(folder.path()).unwrap();
}

/// Opens a file that is recorded with these bytes, and reads it.
async fn open_recorded(store: &Store, text: &str, id: StageId, body: &[u8]) -> Opened {
    let recorded = recorded(body.len() as u64);
    let opened = store.open_recorded(text.to_owned(), id, recorded, Sha256::of(body));
    let mut opened = opened.await.unwrap();
    if let Opened::Whole(file) = &mut opened {
        let mut read = Vec::new();
        std::io::Read::read_to_end(file, &mut read).unwrap();
        assert_eq!(read, body);
    }
    opened
}

#[tokio::test]
async fn a_recorded_file_can_be_read_before_and_after_it_is_published() {
    let (_folder, store) = store().await;
    let old = stage(&store, b"old").await;
    publish(&store, old, "a/1.png").await;
    let new = stage(&store, b"newer").await;
    for _ in 0..2 {
        let opened = open_recorded(&store, "a/1.png", new, b"newer").await;
        assert!(matches!(opened, Opened::Whole(_)), "{opened:?}");
        publish(&store, new, "a/1.png").await;
    }
}

#[tokio::test]
async fn what_is_not_as_it_was_recorded_is_not_read() {
    let (folder, store) = store().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("1.png"), "whole").unwrap();
    let link = |to: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    };
    link(outside.path(), "linked");
    link(&outside.path().join("1.png"), "link.png");
    std::fs::create_dir(folder.path().join("folder.png")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket.png")).unwrap();
    std::fs::write(folder.path().join("other.png"), "longer than").unwrap();
    std::fs::write(folder.path().join("file"), "whole").unwrap();
    for name in [
        "none.png",
        "linked/1.png",
        "link.png",
        "folder.png",
        "socket.png",
        "file/1.png",
    ] {
        let opened = open_recorded(&store, name, StageId::new(), b"whole").await;
        assert!(matches!(opened, Opened::Missing), "{name}: {opened:?}");
    }
    let opened = open_recorded(&store, "other.png", StageId::new(), b"whole").await;
    assert!(matches!(opened, Opened::Altered), "{opened:?}");
}

#[tokio::test]
async fn a_file_of_another_time_is_read_if_it_has_the_same_bytes() {
    let (folder, store) = store().await;
    std::fs::write(folder.path().join("a.png"), "whole").unwrap();
    let open = async |sha256| {
        let recorded = Recorded {
            bytes: 5,
            mtime_ns: Some(1),
        };
        let opened = store.open_recorded("a.png".to_owned(), StageId::new(), recorded, sha256);
        opened.await.unwrap()
    };
    let Opened::Whole(mut file) = open(Sha256::of(b"whole")).await else {
        panic!("not read");
    };
    let mut read = String::new();
    std::io::Read::read_to_string(&mut file, &mut read).unwrap();
    assert_eq!(read, "whole");
    assert!(matches!(open(Sha256::of(b"other")).await, Opened::Altered));
}

#[tokio::test]
async fn a_probe_leaves_nothing_and_tells_when_nothing_can_be_written() {
    let (folder, store) = store().await;
    store.probe().await.unwrap();
    assert!(!folder.path().join(".gannet/probe").exists());
    std::fs::create_dir(folder.path().join(".gannet/probe")).unwrap();
    assert!(store.probe().await.is_err());
}
