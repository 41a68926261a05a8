use std::collections::{HashMap, HashSet};

use super::*;
use crate::target::{Counts, Outcome, State};

async fn catalog() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".gannet")).unwrap();
    let catalog = Catalog::open(&Settings { url: String::new() }, folder.path())
        .await
        .unwrap();
    (folder, catalog)
}

fn key(url: &str) -> TargetKey {
    TargetKey::of(&Url::parse(url).unwrap(), None, None)
}

fn record(job: Uuid, seq: u64, url: &str, outcome: Outcome) -> Record {
    Record {
        key: Some(key(url)),
        job,
        seq,
        url: url.to_owned(),
        outcome,
        reason: None,
        detail: None,
        status: None,
        attempts: 1,
        elapsed_ms: None,
        final_url: None,
        line: Some(seq + 1),
        group: None,
        wanted: None,
        file: None,
        checked: None,
        etag: None,
        last_modified: None,
        fresh_until: None,
        bytes: 0,
        new_file: None,
    }
}

fn stored(job: Uuid, seq: u64, url: &str, path: &str, body: &[u8]) -> Record {
    let id = Uuid::now_v7();
    Record {
        file: Some(id),
        checked: Some(Utc::now()),
        etag: Some("\"1\"".to_owned()),
        bytes: body.len() as u64,
        new_file: Some(FileRow {
            id,
            stage: id,
            path: path.to_owned(),
            album: None,
            format: "png",
            media_type: "image/png",
            bytes: body.len() as u64,
            sha256: Sha256::of(body),
            dimensions: Some((3, 4)),
            active: false,
            name_from: NameFrom::Header,
            metadata: None,
        }),
        ..record(job, seq, url, Outcome::Stored)
    }
}

async fn begin(catalog: &Catalog) -> Uuid {
    let job = Uuid::now_v7();
    catalog
        .begin_job(job, "list.txt", "image", "", Utc::now())
        .await
        .unwrap();
    job
}

#[tokio::test]
async fn what_was_recorded_is_known() {
    let (_folder, catalog) = catalog().await;
    let job = begin(&catalog).await;
    let (a, b) = ("http://a.example/", "http://b.example/");
    let batch = [
        stored(job, 0, a, "a.png", b"a"),
        record(job, 1, b, Outcome::Failed),
    ];
    catalog.record(batch.into(), Utc::now()).await.unwrap();
    let known = catalog
        .known(vec![key(a), key(b), key("http://c.example/")])
        .await
        .unwrap();
    assert_eq!(known.len(), 2);
    let file = known[&key(a)].file.as_ref().unwrap();
    assert_eq!(
        (file.path.as_str(), file.sha256, file.dimensions),
        ("a.png", Sha256::of(b"a"), Some((3, 4)))
    );
    assert_eq!(
        (known[&key(a)].etag.as_deref(), known[&key(a)].job),
        (Some("\"1\""), job)
    );
    assert!(known[&key(b)].file.is_none());
    assert_eq!(
        catalog
            .taken(vec!["a.png".to_owned(), "b.png".to_owned()])
            .await
            .unwrap(),
        HashSet::from(["a.png".to_owned()])
    );
    let same = catalog
        .with_content(String::new(), vec![Sha256::of(b"a"), Sha256::of(b"z")])
        .await
        .unwrap();
    assert_eq!(same[&Sha256::of(b"a")].path, "a.png");
}

#[tokio::test]
async fn a_failure_forgets_neither_the_file_nor_its_validators() {
    let (_folder, catalog) = catalog().await;
    let job = begin(&catalog).await;
    let url = "http://a.example/";
    catalog
        .record(vec![stored(job, 0, url, "a.png", b"a")], Utc::now())
        .await
        .unwrap();
    catalog
        .record(vec![record(job, 1, url, Outcome::Failed)], Utc::now())
        .await
        .unwrap();
    let known = catalog
        .known(vec![key(url)])
        .await
        .unwrap()
        .remove(&key(url))
        .unwrap();
    assert!(known.file.is_some() && known.checked.is_some());
    assert_eq!(known.etag.as_deref(), Some("\"1\""));
}

#[tokio::test]
async fn changed_bytes_keep_the_file_and_its_path() {
    let (_folder, catalog) = catalog().await;
    let job = begin(&catalog).await;
    let url = "http://a.example/";
    let first = stored(job, 0, url, "a.png", b"a");
    let mut second = stored(job, 1, url, "a.png", b"other");
    let id = first.file.unwrap();
    let stage = second.file.unwrap();
    second.outcome = Outcome::Changed;
    second.file = Some(id);
    second.new_file.as_mut().unwrap().id = id;
    catalog.record(vec![first], Utc::now()).await.unwrap();
    catalog.record(vec![second], Utc::now()).await.unwrap();
    let known = catalog
        .known(vec![key(url)])
        .await
        .unwrap()
        .remove(&key(url))
        .unwrap()
        .file
        .unwrap();
    assert_eq!((known.id, known.sha256), (id, Sha256::of(b"other")));
    // Only the stage of the current bytes is to be published after a crash.
    let staged = catalog
        .staged(vec![id, stage, Uuid::now_v7()])
        .await
        .unwrap();
    assert_eq!(staged, HashMap::from([(stage, "a.png".to_owned())]));
}

#[tokio::test]
async fn a_batch_is_recorded_whole_or_not_at_all() {
    let (_folder, catalog) = catalog().await;
    let job = begin(&catalog).await;
    // Two files cannot have one path.
    let batch = [
        stored(job, 0, "http://a.example/", "same.png", b"a"),
        stored(job, 1, "http://b.example/", "same.png", b"b"),
    ];
    assert!(catalog.record(batch.into(), Utc::now()).await.is_err());
    assert!(
        catalog
            .known(vec![key("http://a.example/")])
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        catalog.job(job).await.unwrap().unwrap().counts,
        Counts::default()
    );
}

#[tokio::test]
async fn counters_add_up_and_unchanged_targets_leave_no_row() {
    let (_folder, catalog) = catalog().await;
    let job = begin(&catalog).await;
    let urls: Vec<String> = (0..1_200)
        .map(|n| format!("http://a.example/{n}"))
        .collect();
    let outcome = |n: usize| {
        if n.is_multiple_of(3) {
            Outcome::Unchanged
        } else {
            Outcome::Failed
        }
    };
    let batch: Vec<Record> = urls
        .iter()
        .enumerate()
        .map(|(n, url)| record(job, n as u64, url, outcome(n)))
        .collect();
    catalog.record(batch, Utc::now()).await.unwrap();
    catalog
        .end_job(job, State::Failed, 5, Some("why"), Utc::now())
        .await
        .unwrap();
    let row = catalog.job(job).await.unwrap().unwrap();
    assert_eq!(
        (row.counts.targets, row.counts.unchanged, row.counts.failed),
        (1_200, 400, 800)
    );
    assert_eq!(
        (row.state, row.repeats, row.error.as_deref()),
        (State::Failed, 5, Some("why"))
    );
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = catalog
            .outcomes(job, OutcomeFilter::Failed, after, 300)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.seq);
        pages.push(page.len());
    }
    assert_eq!(pages, [300, 300, 200]);
}

#[tokio::test]
async fn failures_are_counted_and_listed_as_they_are_defined() {
    let (_folder, catalog) = catalog().await;
    let job = begin(&catalog).await;
    let all = Outcome::ALL.into_iter().flat_map(|outcome| {
        let reasons = Reason::ALL.iter().copied();
        reasons.map(move |reason| (outcome, reason))
    });
    let batch: Vec<Record> = all
        .enumerate()
        .map(|(n, (outcome, reason))| Record {
            reason: Some(reason),
            ..record(job, n as u64, &format!("http://a.example/{n}"), outcome)
        })
        .collect();
    catalog.record(batch.clone(), Utc::now()).await.unwrap();
    let is_failure = |record: &&Record| record.outcome.is_failure(record.reason);
    let failures: Vec<u64> = batch.iter().filter(is_failure).map(|r| r.seq).collect();
    let listed = catalog
        .outcomes(job, OutcomeFilter::Failed, None, 1_000)
        .await
        .unwrap();
    let listed: Vec<u64> = listed.iter().map(|row| row.seq).collect();
    assert_eq!(listed, failures);
    let jobs = catalog.jobs(None, 1).await.unwrap();
    assert_eq!(jobs[0].failures, failures.len() as u64);
}

#[tokio::test]
async fn jobs_are_listed_newest_first_and_an_interrupted_one_is_closed() {
    let (_folder, catalog) = catalog().await;
    let (first, second) = (begin(&catalog).await, begin(&catalog).await);
    let ids = |jobs: Vec<JobRow>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(ids(catalog.jobs(None, 10).await.unwrap()), [second, first]);
    assert_eq!(ids(catalog.jobs(Some(second), 10).await.unwrap()), [first]);
    catalog
        .end_job(first, State::Completed, 0, None, Utc::now())
        .await
        .unwrap();
    assert_eq!(catalog.abandon_jobs(Utc::now()).await.unwrap(), 1);
    assert_eq!(
        catalog.job(second).await.unwrap().unwrap().state,
        State::Failed
    );
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_faults() {
    let (_folder, catalog) = catalog().await;
    let url = format!("http://a.example/{}", "a".repeat(1 << 20));
    let job = begin(&catalog).await;
    for (statement, reason) in [
        ("PRAGMA max_page_count = 1", Reason::StoreFull),
        ("DROP TABLE urls", Reason::StoreError),
    ] {
        catalog
            .write("prepare the fault", move |db| db.execute_batch(statement))
            .await
            .unwrap();
        let batch = vec![record(job, 0, &url, Outcome::Failed)];
        let error = catalog.record(batch, Utc::now()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error:?}");
    }
}

#[test]
fn a_key_depends_on_url_album_and_name() {
    let url = Url::parse("http://a.example/").unwrap();
    let album = AlbumName::new("x").unwrap();
    let keys = [
        TargetKey::of(&url, None, None),
        TargetKey::of(&url, Some(&album), None),
        TargetKey::of(&url, None, Some("x")),
        TargetKey::of(&Url::parse("http://ann@a.example/").unwrap(), None, None),
    ];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}
