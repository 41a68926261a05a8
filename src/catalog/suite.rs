//! What every catalog has to do.

use std::collections::{HashMap, HashSet};

use sqlx_core::connection::Connection as _;
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgConnection;

use super::*;
use crate::catalog::test_server::Postgres;
use crate::target::{Counts, OnError, Outcome, State};

/// Makes a test of each function, for each catalog.
macro_rules! suite {
    ($($behaviour:ident,)*) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    let folder = tempfile::tempdir().unwrap();
                    super::$behaviour(&*super::in_sqlite(folder.path()).await).await;
                }
            )*
        }

        mod on_postgres {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    if let Some(catalog) = super::in_postgres().await {
                        super::$behaviour(&*catalog).await;
                        catalog.close().await;
                    }
                }
            )*
        }
    };
}

suite! {
    what_was_recorded_is_known,
    a_failure_forgets_neither_the_file_nor_its_validators,
    changed_bytes_keep_the_file_and_its_path,
    a_batch_is_recorded_whole_or_not_at_all,
    counters_add_up_and_unchanged_targets_leave_no_row,
    failures_are_counted_and_listed_as_they_are_defined,
    jobs_are_listed_newest_first_and_an_interrupted_one_is_closed,
    what_a_url_went_through_is_known,
    validators_are_known_with_the_url_that_gave_them,
    failures_are_counted_by_what_a_job_accepts,
    records_and_outcomes_are_found_by_their_urls,
    another_look_at_a_file_is_recorded,
    times_of_a_clock_that_was_ahead_are_put_right,
    a_second_url_makes_a_file_shared,
    what_is_recorded_twice_counts_once,
    two_jobs_may_bring_one_url_in_one_batch,
    a_job_may_ask_for_every_outcome,
    the_newest_job_of_a_source_may_have_been_interrupted,
    schedules_are_remembered,
    a_posted_job_is_queued_once_for_a_key,
    a_posted_job_goes_on_where_it_was,
    a_callback_is_due_once_its_job_has_ended,
    groups_count_their_outcomes,
    a_group_that_was_cancelled_did_not_fail,
    what_a_list_no_longer_has_can_be_pruned,
    a_deleted_file_is_announced_and_its_url_forgets_it,
    a_file_that_was_deleted_meanwhile_is_none,
    what_happens_is_told_to_whoever_wants_it,
    each_receiver_takes_events_for_itself,
    the_outbox_has_its_limits,
    who_waits_for_events_is_told_that_there_are_some,
    a_job_starts_once_and_is_resumed_by_the_next_process,
    an_event_that_is_given_up_is_kept,
    an_album_keeps_its_newest_files_within_its_limits,
    a_file_from_the_future_is_older_than_those_of_the_last_job,
    jobs_from_the_future_are_listed_behind_all_others,
    albums_and_files_come_page_by_page,
    an_album_shows_what_is_known_of_its_files,
    files_are_looked_up_by_url_digest_and_path,
    an_album_is_renamed_with_all_below_it_and_may_be_renamed_back,
    what_clients_change_is_recorded_once_with_its_events,
    images_are_found_by_what_is_known_of_them,
    a_file_tells_its_urls,
    old_jobs_go_with_their_outcomes,
    a_closed_catalog_says_so,
}

async fn in_sqlite(folder: &Path) -> Arc<dyn Catalog> {
    std::fs::create_dir(folder.join(".gannet")).unwrap();
    open(&settings(""), folder).await.unwrap()
}

/// A database of its own; `None` where there is no PostgreSQL.
async fn in_postgres() -> Option<Arc<dyn Catalog>> {
    let settings = settings(&empty_postgres().await?);
    Some(open(&settings, Path::new("")).await.unwrap())
}

/// The same without tables.
async fn empty_postgres() -> Option<String> {
    let server = tokio::task::spawn_blocking(Postgres::shared)
        .await
        .unwrap()?;
    let database = tokio::task::spawn_blocking(|| server.database());
    Some(database.await.unwrap())
}

fn settings(url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        patience: Duration::ZERO,
    }
}

async fn write(catalog: &dyn Catalog, records: impl Into<Vec<Record>>) -> Result<(), CatalogError> {
    let batch = Batch {
        id: Uuid::now_v7(),
        writer: Uuid::max(),
        now: Utc::now(),
        records: records.into(),
    };
    catalog.record(Arc::new(batch)).await
}

async fn known(catalog: &dyn Catalog, url: &str) -> Known {
    let mut known = catalog.known(vec![key(url)]).await.unwrap();
    known.remove(&key(url)).unwrap()
}

/// Which targets of a job the history has.
async fn seqs(catalog: &dyn Catalog, job: Uuid) -> Vec<u64> {
    let outcomes = catalog.outcomes(job, OutcomeFilter::All, None, 99).await;
    outcomes.unwrap().iter().map(|row| row.seq).collect()
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
        listed: None,
        group_number: None,
        nth: None,
        steps: None,
        file: None,
        checked: None,
        etag: None,
        last_modified: None,
        fresh_until: None,
        failed_under: None,
        gone_until: None,
        bytes: 0,
        new_file: None,
        recheck: None,
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
            orientation: None,
            undecoded: None,
            name_from: NameFrom::Header,
            metadata: None,
            mtime_ns: Some(1_700_000_000_123_456_789),
            criteria: Some("image".to_owned()),
            header_name: Some("cat.png".to_owned()),
            line: Some(7),
            group: Some("dogs".to_owned()),
            last_modified: Some(from_millis(946_684_800_000)),
        }),
        ..record(job, seq, url, Outcome::Stored)
    }
}

async fn begin(catalog: &dyn Catalog) -> Uuid {
    let job = Uuid::now_v7();
    begin_job(catalog, job).await.unwrap();
    job
}

async fn begin_job(catalog: &dyn Catalog, job: Uuid) -> Result<(), CatalogError> {
    catalog.begin_job(&new_job(job)).await
}

fn new_job(id: Uuid) -> NewJob {
    NewJob {
        id,
        source: "list.txt".to_owned(),
        kind: "image".to_owned(),
        album: String::new(),
        source_id: Some(SourceId::of("list.txt", "image", None)),
        continues: None,
        schedule: Some("cams".to_owned()),
        started: Utc::now(),
    }
}

async fn what_was_recorded_is_known(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let (a, b) = ("http://a.example/", "http://b.example/");
    let batch = [
        stored(job, 0, a, "a.png", b"a"),
        record(job, 1, b, Outcome::Failed),
    ];
    write(catalog, batch).await.unwrap();
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
        .with_content(
            Some(String::new()),
            vec![Sha256::of(b"a"), Sha256::of(b"z")],
        )
        .await
        .unwrap();
    assert_eq!(same[&Sha256::of(b"a")].path, "a.png");
}

async fn a_failure_forgets_neither_the_file_nor_its_validators(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/";
    write(catalog, vec![stored(job, 0, url, "a.png", b"a")])
        .await
        .unwrap();
    write(catalog, vec![record(job, 1, url, Outcome::Failed)])
        .await
        .unwrap();
    let known = known(catalog, url).await;
    assert!(known.file.is_some() && known.checked.is_some());
    assert_eq!(known.etag.as_deref(), Some("\"1\""));
}

async fn changed_bytes_keep_the_file_and_its_path(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/";
    let first = stored(job, 0, url, "a.png", b"a");
    let mut second = stored(job, 1, url, "a.png", b"other");
    let id = first.file.unwrap();
    let stage = second.file.unwrap();
    second.outcome = Outcome::Changed;
    second.file = Some(id);
    second.new_file.as_mut().unwrap().id = id;
    write(catalog, vec![first]).await.unwrap();
    write(catalog, vec![second]).await.unwrap();
    let known = known(catalog, url).await.file.unwrap();
    assert_eq!((known.id, known.sha256), (id, Sha256::of(b"other")));
    // Only the stage of the current bytes is to be published after a crash.
    let staged = catalog
        .staged(vec![id, stage, Uuid::now_v7()])
        .await
        .unwrap();
    assert_eq!(staged, HashMap::from([(stage, "a.png".to_owned())]));
}

async fn a_batch_is_recorded_whole_or_not_at_all(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    // Two files cannot have one path.
    let batch = [
        stored(job, 0, "http://a.example/", "same.png", b"a"),
        stored(job, 1, "http://b.example/", "same.png", b"b"),
    ];
    assert!(write(catalog, batch).await.is_err());
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

async fn counters_add_up_and_unchanged_targets_leave_no_row(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
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
    write(catalog, batch).await.unwrap();
    let ended = JobEnd {
        repeats: 5,
        error: Some("why".to_owned()),
        ..end_of(job, State::Failed)
    };
    catalog.end_job(&ended).await.unwrap();
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

async fn failures_are_counted_and_listed_as_they_are_defined(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
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
    write(catalog, batch.clone()).await.unwrap();
    let is_failure = |record: &&Record| record.outcome.is_failure(record.reason);
    let failures: Vec<u64> = batch.iter().filter(is_failure).map(|r| r.seq).collect();
    let listed = catalog
        .outcomes(job, OutcomeFilter::Failed, None, 1_000)
        .await
        .unwrap();
    let listed: Vec<u64> = listed.iter().map(|row| row.seq).collect();
    assert_eq!(listed, failures);
    let jobs = catalog.jobs(None, None, 1).await.unwrap();
    assert_eq!(jobs[0].failures, failures.len() as u64);
    for outcome in Outcome::ALL {
        let only = OutcomeFilter::Only(outcome);
        let listed = catalog.outcomes(job, only, None, 1_000).await.unwrap();
        // Of the unchanged ones there are no rows.
        let count = match outcome {
            Outcome::Unchanged => 0,
            _ => Reason::ALL.len(),
        };
        assert_eq!(listed.len(), count, "{outcome}");
        assert!(listed.iter().all(|row| row.outcome == outcome));
    }
}

async fn jobs_are_listed_newest_first_and_an_interrupted_one_is_closed(catalog: &dyn Catalog) {
    let (first, second) = (begin(catalog).await, begin(catalog).await);
    let ids = |jobs: Vec<JobRow>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(
        ids(catalog.jobs(None, None, 10).await.unwrap()),
        [second, first]
    );
    assert_eq!(
        ids(catalog.jobs(None, Some(second), 10).await.unwrap()),
        [first]
    );
    let ended = end_of(first, State::Completed);
    catalog.end_job(&ended).await.unwrap();
    assert_eq!(catalog.abandon_jobs(Utc::now()).await.unwrap(), 1);
    assert_eq!(
        catalog.job(second).await.unwrap().unwrap().state,
        State::Failed
    );
    let failed = catalog.jobs(Some(State::Failed), None, 10).await.unwrap();
    assert_eq!(ids(failed), [second]);
    let older = catalog.jobs(Some(State::Failed), Some(second), 10).await;
    assert!(older.unwrap().is_empty());
}

async fn what_a_url_went_through_is_known(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/";
    let failed = |seq| Record {
        status: Some(410),
        reason: Some(Reason::Status),
        gone_until: Some(DateTime::<Utc>::MAX_UTC),
        ..record(job, seq, url, Outcome::Failed)
    };
    write(catalog, [failed(0)]).await.unwrap();
    write(catalog, [failed(1)]).await.unwrap();
    let twice = known(catalog, url).await;
    assert_eq!((twice.status, twice.failures), (Some(410), 2));
    let is_gone = |known: &Known| known.gone_until.map(|until| until > Utc::now());
    assert_eq!(is_gone(&twice), Some(true));
    assert_eq!(
        (twice.outcome, twice.reason),
        (Outcome::Failed, Some(Reason::Status))
    );
    let mut skipped = record(job, 2, url, Outcome::Skipped);
    skipped.reason = Some(Reason::HostDown);
    write(catalog, [skipped]).await.unwrap();
    let skipped = known(catalog, url).await;
    assert_eq!(
        (skipped.status, skipped.failures, skipped.tried),
        (Some(410), 2, twice.tried)
    );
    assert_eq!(skipped.gone_until, twice.gone_until);
    write(catalog, [stored(job, 3, url, "a.png", b"a")])
        .await
        .unwrap();
    let stored = known(catalog, url).await;
    assert_eq!((stored.failures, stored.reason), (0, None));
    assert_eq!(stored.gone_until, None);
    let file = stored.file.unwrap();
    assert_eq!(
        (file.mtime_ns, file.shared),
        (Some(1_700_000_000_123_456_789), false)
    );
    // Nobody was asked about a record that was fresh.
    let fresh = record(job, 4, url, Outcome::Unchanged);
    write(catalog, [fresh]).await.unwrap();
    assert_eq!(known(catalog, url).await.tried, stored.tried);
}

async fn a_second_url_makes_a_file_shared(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let (a, b) = ("http://a.example/", "http://b.example/");
    let first = stored(job, 0, a, "a.png", b"a");
    let mut second = record(job, 1, b, Outcome::Duplicate);
    second.file = first.file;
    write(catalog, [first, second]).await.unwrap();
    let (a, b) = (known(catalog, a).await, known(catalog, b).await);
    let (a, b) = (a.file.unwrap(), b.file.unwrap());
    assert!(a.id == b.id && a.shared);
    // A file of its own that has the bytes of another is nobody else's.
    let url = "http://c.example/";
    let link = Record {
        outcome: Outcome::Duplicate,
        ..stored(job, 2, url, "album/a.png", b"a")
    };
    let stage = link.new_file.as_ref().unwrap().stage;
    write(catalog, [link]).await.unwrap();
    let link = known(catalog, url).await.file.unwrap();
    assert!(!link.shared && link.stage == stage);
}

async fn what_is_recorded_twice_counts_once(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = |n: u64| format!("http://a.example/{n}");
    let records = vec![
        record(job, 0, &url(0), Outcome::Failed),
        record(job, 1, &url(1), Outcome::Unchanged),
        record(job, 5, &url(5), Outcome::Failed),
    ];
    let batch = Arc::new(Batch {
        id: Uuid::now_v7(),
        writer: Uuid::max(),
        now: Utc::now(),
        records: records.clone(),
    });
    catalog.record(batch.clone()).await.unwrap();
    catalog.record(batch).await.unwrap();
    let counts = catalog.job(job).await.unwrap().unwrap().counts;
    assert_eq!((counts.targets, counts.failed), (3, 2));
    assert_eq!(known(catalog, &url(0)).await.failures, 1);
    // In another batch, those that the history has are known.
    write(catalog, vec![records[0].clone(), records[2].clone()])
        .await
        .unwrap();
    let again = catalog.job(job).await.unwrap().unwrap().counts;
    assert_eq!(again, counts);
    assert_eq!(seqs(catalog, job).await, [0, 5]);
}

async fn two_jobs_may_bring_one_url_in_one_batch(catalog: &dyn Catalog) {
    let (one, two) = (begin(catalog).await, begin(catalog).await);
    let url = "http://a.example/";
    let first = stored(one, 0, url, "a.png", b"a");
    let mut second = stored(two, 0, url, "a.png", b"other");
    second.outcome = Outcome::Changed;
    second.file = first.file;
    second.new_file.as_mut().unwrap().id = first.file.unwrap();
    write(catalog, [first, second]).await.unwrap();
    let known = known(catalog, url).await;
    assert_eq!((known.job, known.outcome), (two, Outcome::Changed));
    assert_eq!(known.file.unwrap().sha256, Sha256::of(b"other"));
}

async fn a_job_may_ask_for_every_outcome(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let mut all = record(job, 0, "http://a.example/", Outcome::Unchanged);
    all.nth = Some(0);
    write(catalog, [all]).await.unwrap();
    let outcomes = catalog.outcomes(job, OutcomeFilter::All, None, 9).await;
    assert_eq!(outcomes.unwrap()[0].outcome, Outcome::Unchanged);
    assert_eq!(catalog.job(job).await.unwrap().unwrap().counts.unchanged, 1);
}

async fn the_newest_job_of_a_source_may_have_been_interrupted(catalog: &dyn Catalog) {
    let source = SourceId::of("list.txt", "image", None);
    let find = async |source| {
        let found = catalog.interrupted_job(source, Utc::now()).await.unwrap();
        found.map(|job| job.id)
    };
    let first = begin(catalog).await;
    assert_eq!(find(source).await, None);
    catalog.abandon_jobs(Utc::now()).await.unwrap();
    assert_eq!(find(source).await, Some(first));
    let other = SourceId::of("list.txt", "image", Some(&AlbumName::new("album").unwrap()));
    assert_eq!(find(other).await, None);
    let row = catalog.job(first).await.unwrap().unwrap();
    assert!(row.interrupted && row.error.is_some() && row.finished.is_some());
    assert_eq!((row.recorded, row.continues), (None, None));

    // One that could not begin does not count, one that did anything does.
    let second = begin(catalog).await;
    let ended = end_of(second, State::Failed);
    catalog.end_job(&ended).await.unwrap();
    assert_eq!(find(source).await, Some(first));
    write(
        catalog,
        [record(second, 0, "http://a.example/", Outcome::Failed)],
    )
    .await
    .unwrap();
    assert_eq!(find(source).await, None);
    assert!(
        catalog
            .job(second)
            .await
            .unwrap()
            .unwrap()
            .recorded
            .is_some()
    );

    // So does one that was told to stop.
    let third = begin(catalog).await;
    let ended = JobEnd {
        interrupted: true,
        ..end_of(third, State::Cancelled)
    };
    catalog.end_job(&ended).await.unwrap();
    assert_eq!(find(source).await, Some(third));
}

fn end_of(id: Uuid, state: State) -> JobEnd {
    JobEnd {
        id,
        state,
        interrupted: false,
        repeats: 0,
        error: None,
        finished: Utc::now(),
    }
}

/// Two groups of one and two targets, and 500 targets of none.
fn post(key: Option<[u8; 16]>, digest: u8) -> Post {
    let listed = |n: usize| format!("{{\"url\":\"http://a.example/{n}\"}}");
    let whole: Vec<String> = (0..500).map(listed).collect();
    let group = |id: &str, on_error, targets| NewGroup {
        id: id.to_owned(),
        on_error,
        metadata: Some("{\"n\":1}".to_owned()),
        targets,
    };
    Post {
        callback: None,
        id: Uuid::now_v7(),
        idempotency: key.map(|key| Idempotency {
            key,
            digest: [digest; 16],
        }),
        source: "503 posted URLs".to_owned(),
        kind: "image".to_owned(),
        album: "a".to_owned(),
        request: "{\"count\":7}".to_owned(),
        total: Some(503),
        posted: Utc::now(),
        groups: vec![
            group("x", OnError::Stop, 1),
            group("y", OnError::Continue, 2),
        ],
        parts: vec![
            format!("[{}]", whole.join(",")),
            format!("[{},{},{}]", listed(500), listed(501), listed(502)),
        ],
    }
}

async fn a_posted_job_is_queued_once_for_a_key(catalog: &dyn Catalog) {
    let first = post(Some([1; 16]), 1);
    let id = first.id;
    let post_job = async |post: Post| catalog.post_job(Arc::new(post)).await.unwrap();
    assert_eq!(post_job(first.clone()).await, Posted::Queued);
    // Its answer was lost.
    assert_eq!(post_job(first).await, Posted::Queued);
    assert_eq!(post_job(post(Some([1; 16]), 1)).await, Posted::Earlier(id));
    assert_eq!(post_job(post(Some([1; 16]), 2)).await, Posted::Other(id));
    let (second, third) = (post(Some([2; 16]), 1), post(None, 1));
    let ids = [id, second.id, third.id];
    assert_eq!(post_job(second).await, Posted::Queued);
    assert_eq!(post_job(third).await, Posted::Queued);
    assert_eq!(catalog.posted_jobs().await.unwrap(), ids);
    let queued = catalog.jobs(Some(State::Queued), None, 9).await.unwrap();
    assert_eq!(queued.len(), 3);
    assert!(
        queued
            .iter()
            .all(|job| job.posted.is_some() && job.total == Some(503))
    );
}

async fn a_callback_is_due_once_its_job_has_ended(catalog: &dyn Catalog) {
    let mut with = post(None, 1);
    with.callback = Some("https://a.example/hook?key=4711".to_owned());
    let (id, without) = (with.id, post(None, 1));
    let other = without.id;
    for post in [with, without] {
        catalog.post_job(Arc::new(post)).await.unwrap();
    }
    let due = async || {
        let later = Utc::now() + chrono::TimeDelta::seconds(9);
        let due = catalog.due_callbacks(later, 9).await.unwrap();
        due.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert!(due().await.is_empty());
    for job in [id, other] {
        catalog
            .end_job(&end_of(job, State::Cancelled))
            .await
            .unwrap();
    }
    assert_eq!(due().await, [id]);
    let job = catalog.job(id).await.unwrap().unwrap();
    let callback = job.callback.clone().unwrap();
    assert_eq!((callback.attempts, callback.delivered), (0, None));
    // What is behind the host is shown to nobody.
    let shown = serde_json::to_value(&job).unwrap();
    assert_eq!(shown["callback"]["url"], "https://a.example/***");
    let tried = CallbackRow {
        attempts: 1,
        error: Some("away".to_owned()),
        next: Some(Utc::now() + chrono::TimeDelta::hours(1)),
        ..callback
    };
    catalog.save_callback(id, tried.clone()).await.unwrap();
    assert!(due().await.is_empty());
    let saved = catalog.job(id).await.unwrap().unwrap().callback.unwrap();
    assert_eq!((saved.attempts, saved.error), (1, tried.error.clone()));
    let told = CallbackRow {
        delivered: Some(Utc::now()),
        next: None,
        error: None,
        ..tried
    };
    catalog.save_callback(id, told).await.unwrap();
    // An end that is recorded again is no news.
    catalog
        .end_job(&end_of(id, State::Cancelled))
        .await
        .unwrap();
    assert!(due().await.is_empty());
    let other = catalog.job(other).await.unwrap().unwrap();
    assert_eq!(other.callback, None);
}

async fn a_posted_job_goes_on_where_it_was(catalog: &dyn Catalog) {
    let post = post(None, 0);
    let id = post.id;
    catalog.post_job(Arc::new(post)).await.unwrap();
    let other = begin(catalog).await;
    assert!(catalog.posted_job(other).await.unwrap().is_none());
    let mut begun = NewJob {
        source: "as it is called when it begins".to_owned(),
        ..new_job(id)
    };
    begun.started = Utc::now() + chrono::TimeDelta::seconds(9);
    catalog.begin_job(&begun).await.unwrap();
    let at = |seq: u64, nth: u64, outcome| {
        let url = format!("http://a.example/{seq}");
        let mut record = record(id, seq, &url, outcome);
        (record.nth, record.steps) = (Some(nth), Some("{\"delay\":1}".to_owned()));
        record
    };
    let batch = [
        at(501, 0, Outcome::Unchanged),
        at(3, 1, Outcome::Failed),
        at(0, 2, Outcome::Unchanged),
    ];
    write(catalog, batch).await.unwrap();
    assert_eq!(
        catalog.abandon_jobs(Utc::now()).await.unwrap(),
        1,
        "the other one"
    );
    let posted = catalog.posted_job(id).await.unwrap().unwrap();
    assert_eq!(
        (posted.job.state, posted.job.finished),
        (State::Queued, None)
    );
    assert_eq!((posted.nth, posted.next_seq), (3, 502));
    assert_eq!(posted.request, "{\"count\":7}");
    let started = posted.job.started;
    // It goes on, and began when it first did.
    begun.started = Utc::now() + chrono::TimeDelta::seconds(99);
    catalog.begin_job(&begun).await.unwrap();
    let job = catalog.job(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.started), (State::Ongoing, started));
    let (targets, done) = catalog.part(id, 0).await.unwrap().unwrap();
    assert!(targets.starts_with("[{\"url\":\"http://a.example/0\"}"));
    assert_eq!(done, HashSet::from([0, 3]));
    let (_, done) = catalog.part(id, 1).await.unwrap().unwrap();
    assert_eq!(done, HashSet::from([501]));
    assert!(catalog.part(id, 2).await.unwrap().is_none());
    let since = async |after| -> Vec<(u64, u64)> {
        let rows = catalog.outcomes_since(id, after, 2).await.unwrap();
        rows.iter().map(|(nth, row)| (*nth, row.seq)).collect()
    };
    assert_eq!(since(None).await, [(0, 501), (1, 3)]);
    assert_eq!(since(Some(1)).await, [(2, 0)]);
    assert_eq!(since(Some(2)).await, []);
    let rows = catalog.outcomes_since(id, None, 1).await.unwrap();
    assert_eq!(rows[0].1.steps.as_ref().unwrap().get(), "{\"delay\":1}");
}

async fn groups_count_their_outcomes(catalog: &dyn Catalog) {
    let post = post(None, 0);
    let id = post.id;
    catalog.post_job(Arc::new(post)).await.unwrap();
    let in_group = |seq: u64, group, outcome, reason| {
        let mut record = record(id, seq, &format!("http://a.example/{seq}"), outcome);
        (record.group_number, record.nth) = (Some(group), Some(seq));
        (record.reason, record.detail) = (reason, Some("why".to_owned()));
        record
    };
    let bad = in_group(1, 1, Outcome::Failed, Some(Reason::Status));
    write(catalog, [bad.clone()]).await.unwrap();
    // What is recorded again is not counted again.
    let worse = in_group(2, 1, Outcome::Rejected, Some(Reason::Empty));
    let fine = in_group(0, 0, Outcome::Unchanged, None);
    write(catalog, [bad, worse, fine]).await.unwrap();
    let counts = catalog.group_counts(id).await.unwrap();
    let expected = GroupCounts {
        total: 2,
        completed: 1,
        failed: 1,
        ..GroupCounts::default()
    };
    assert_eq!(counts, expected);
    let groups = catalog.groups(id, None, None, 9).await.unwrap();
    let states: Vec<_> = groups
        .iter()
        .map(|group| (group.id.as_str(), group.state, group.done, group.failures))
        .collect();
    let (x, y) = (("x", State::Completed, 1, 0), ("y", State::Failed, 2, 2));
    assert_eq!(states, [x, y]);
    let error: serde_json::Value = serde_json::from_str(groups[1].error.as_ref().unwrap()).unwrap();
    assert_eq!(
        (&error["seq"], &error["reason"]),
        (&1.into(), &"status".into())
    );
    let failed = catalog
        .groups(id, Some(State::Failed), None, 9)
        .await
        .unwrap();
    assert_eq!((failed.len(), failed[0].number), (1, 1));
    assert!(
        catalog
            .groups(id, None, Some(1), 9)
            .await
            .unwrap()
            .is_empty()
    );
    let reasons = catalog.reasons(id).await.unwrap();
    assert_eq!(reasons, [(Reason::Status, 1), (Reason::Empty, 1)].into());
}

async fn a_group_that_was_cancelled_did_not_fail(catalog: &dyn Catalog) {
    let post = post(None, 0);
    let id = post.id;
    catalog.post_job(Arc::new(post)).await.unwrap();
    let at = |seq: u64, group, outcome, reason, detail: &str| {
        let mut record = record(id, seq, &format!("http://a.example/{seq}"), outcome);
        (record.group_number, record.nth) = (Some(group), Some(seq));
        (record.reason, record.detail) = (reason, Some(detail.to_owned()));
        record
    };
    let quoted = "the page says \"reason\":\"cancelled\"";
    let cancelled = Some(Reason::Cancelled);
    let batch = [
        at(0, 0, Outcome::Skipped, cancelled, "stopped"),
        at(1, 1, Outcome::Failed, Some(Reason::Status), quoted),
        at(2, 1, Outcome::Skipped, cancelled, "stopped"),
    ];
    write(catalog, batch).await.unwrap();
    let counts = catalog.group_counts(id).await.unwrap();
    let expected = GroupCounts {
        total: 2,
        failed: 1,
        cancelled: 1,
        ..GroupCounts::default()
    };
    assert_eq!(counts, expected);
    let wanted = Some(State::Cancelled);
    let groups = catalog.groups(id, wanted, None, 9).await.unwrap();
    let found: Vec<_> = groups.iter().map(|group| group.id.as_str()).collect();
    assert_eq!(found, ["x"]);
}

async fn schedules_are_remembered(catalog: &dyn Catalog) {
    assert_eq!(catalog.schedules().await.unwrap(), []);
    let mut rows = ["b", "a"].map(|name| ScheduleRow {
        name: name.to_owned(),
        cron: "@daily".to_owned(),
        paused: false,
        last_due: None,
        job: None,
    });
    for row in &rows {
        catalog.save_schedule(row).await.unwrap();
    }
    rows.reverse();
    assert_eq!(catalog.schedules().await.unwrap(), rows);
    let job = begin(catalog).await;
    rows[0].paused = true;
    (rows[0].last_due, rows[0].job) = (Some(DateTime::UNIX_EPOCH), Some(job));
    catalog.save_schedule(&rows[0]).await.unwrap();
    assert_eq!(catalog.schedules().await.unwrap(), rows);
    let row = catalog.job(job).await.unwrap().unwrap();
    assert_eq!(row.schedule.as_deref(), Some("cams"));
}

async fn validators_are_known_with_the_url_that_gave_them(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/latest#part";
    let redirected = |to: &str, record: Record| Record {
        final_url: Some(to.to_owned()),
        ..record
    };
    let to = "http://b.example/v1?x#part";
    let brought = redirected(to, stored(job, 0, url, "a.png", b"a"));
    write(catalog, [brought]).await.unwrap();
    let answered = Some("http://b.example/v1?x".to_owned());
    assert_eq!(known(catalog, url).await.answered, answered);
    // Outcomes without an answer change nothing.
    let failed = redirected("http://c.example/", record(job, 1, url, Outcome::Failed));
    write(catalog, [failed]).await.unwrap();
    let fresh = record(job, 2, url, Outcome::Unchanged);
    write(catalog, [fresh]).await.unwrap();
    assert_eq!(known(catalog, url).await.answered, answered);
    // Only the fragment differs.
    let confirmed = Record {
        checked: Some(Utc::now()),
        ..redirected(
            "http://a.example/latest",
            record(job, 3, url, Outcome::Unchanged),
        )
    };
    write(catalog, [confirmed]).await.unwrap();
    assert_eq!(known(catalog, url).await.answered, None);
}

async fn records_and_outcomes_are_found_by_their_urls(catalog: &dyn Catalog) {
    let (first, second) = (begin(catalog).await, begin(catalog).await);
    let [a, b, c] = ["a", "b", "c"].map(|host| format!("http://{host}.example/"));
    let redirected = Record {
        final_url: Some(c.clone()),
        ..stored(first, 0, &a, "a.png", b"a")
    };
    let failed = |job, seq, url| record(job, seq, url, Outcome::Failed);
    write(catalog, [redirected, failed(first, 1, &b)])
        .await
        .unwrap();
    write(catalog, [failed(second, 0, &b)]).await.unwrap();
    let named = async |urls: &[&String]| -> Vec<String> {
        let urls = urls.iter().map(|url| (*url).clone()).collect();
        let names = catalog.urls_named(urls).await.unwrap();
        names.into_iter().map(|name| name.url).collect()
    };
    assert_eq!(named(&[&b]).await, [b.as_str()]);
    // By the URL that answered, too.
    assert_eq!(named(&[&c]).await, [a.as_str()]);
    assert_eq!(named(&[&c, &b, &a]).await, [a.as_str(), b.as_str()]);
    assert_eq!(named(&[&"http://d.example/".to_owned()]).await, [""; 0]);
    let found = catalog.urls_named(vec![a.clone()]).await.unwrap();
    let known = catalog.known(vec![found[0].key]).await.unwrap();
    assert_eq!(known[&found[0].key].job, first);

    let outcomes = async |urls: &[&String], limit| -> Vec<(Uuid, u64)> {
        let urls = urls.iter().map(|url| (*url).clone()).collect();
        let outcomes = catalog.outcomes_of(urls, limit).await.unwrap();
        outcomes
            .into_iter()
            .map(|(job, row)| (job, row.seq))
            .collect()
    };
    let all = [(second, 0), (first, 0), (first, 1)];
    assert_eq!(outcomes(&[&a, &b], 10).await, all);
    assert_eq!(outcomes(&[&a, &b], 2).await, all[..2]);
    assert_eq!(outcomes(&[&b], 10).await, [all[0], all[2]]);
    assert_eq!(outcomes(&[&c], 10).await, []);
}

async fn failures_are_counted_by_what_a_job_accepts(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/";
    let [pictures, pages] = ["image", "document"].map(|kind| Acceptance::of(&[kind]));
    let cases = [
        (Outcome::Failed, None, 1),
        (Outcome::Rejected, Some(pictures), 2),
        (Outcome::Rejected, Some(pictures), 3),
        (Outcome::Skipped, None, 3),
        (Outcome::Rejected, Some(pages), 1),
        (Outcome::Rejected, Some(pages), 2),
        (Outcome::Failed, None, 1),
        (Outcome::Failed, None, 2),
        (Outcome::Unchanged, None, 0),
    ];
    let mut last = None;
    for (seq, (outcome, failed_under, failures)) in (0..).zip(cases) {
        let failed = Record {
            failed_under,
            ..record(job, seq, url, outcome)
        };
        write(catalog, [failed]).await.unwrap();
        if outcome != Outcome::Skipped {
            last = failed_under;
        }
        let known = known(catalog, url).await;
        assert_eq!(
            (known.failures, known.failed_under),
            (failures, last),
            "{seq}"
        );
    }
}

async fn another_look_at_a_file_is_recorded(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/";
    let file = stored(job, 0, url, "a.png", b"a");
    let id = file.file.unwrap();
    write(catalog, [file]).await.unwrap();
    let looked = |seq, body: &[u8], criteria: &str| Record {
        recheck: Some(Recheck {
            file: id,
            sha256: Sha256::of(body),
            format: "gif".to_owned(),
            media_type: "image/gif".to_owned(),
            dimensions: Some((7, 8)),
            active: true,
            orientation: Some(6),
            undecoded: Some("is odd".to_owned()),
            criteria: Some(criteria.to_owned()),
        }),
        ..record(job, seq, url, Outcome::Unchanged)
    };
    // Facts about other bytes are not written.
    let other = looked(1, b"b", "other");
    write(catalog, [other, looked(2, b"a", "image/decode")])
        .await
        .unwrap();
    let file = known(catalog, url).await.file.unwrap();
    assert_eq!(
        (file.criteria.as_deref(), &*file.format, file.dimensions),
        (Some("image/decode"), "gif", Some((7, 8)))
    );
    assert!(file.active && file.is_present && !file.is_rechecked);
    assert_eq!(
        (file.orientation, file.undecoded.as_deref()),
        (Some(6), Some("is odd"))
    );
}

async fn times_of_a_clock_that_was_ahead_are_put_right(catalog: &dyn Catalog) {
    let (now, years) = (Utc::now(), chrono::TimeDelta::days(3650));
    let source = SourceId::of("list.txt", "image", None);
    let ids = |records: &[&str]| records.iter().map(|url| key(url)).collect::<Vec<_>>();
    // An interrupted job from the future is not resumed, and does not hide a later one.
    let ahead = Uuid::from_u128(0x0200_0000_0000 << 80 | 7 << 76);
    begin_job(catalog, ahead).await.unwrap();
    let listed = |record: Record| Record {
        listed: Some(source),
        ..record
    };
    let (a, b) = ("http://a.example/", "http://b.example/");
    let batch = Batch {
        id: Uuid::now_v7(),
        writer: Uuid::max(),
        now: now + years,
        records: vec![
            listed(stored(ahead, 0, a, "a.png", b"a")),
            listed(stored(ahead, 1, b, "b.png", b"b")),
        ],
    };
    catalog.record(Arc::new(batch)).await.unwrap();
    let job = begin(catalog).await;
    write(
        catalog,
        [record(job, 0, "http://c.example/", Outcome::Failed)],
    )
    .await
    .unwrap();
    catalog.abandon_jobs(now + years).await.unwrap();
    let found = catalog.interrupted_job(source, now).await.unwrap();
    assert_eq!(found.map(|found| found.id), Some(job));

    // Its history, its files and its marks count as of now.
    let hour = chrono::TimeDelta::hours(1);
    let deleted = catalog.delete_jobs_before(now - hour, now).await.unwrap();
    assert_eq!(deleted, 0);
    let finished = catalog.job(ahead).await.unwrap().unwrap().finished.unwrap();
    assert!((finished - now).abs() < hour, "{finished}");
    let day = Limits {
        max_age: Some(Duration::from_secs(86_400)),
        ..Limits::default()
    };
    assert!(catalog.excess("", day, now, 9).await.unwrap().is_empty());
    let stored = catalog.image("a.png").await.unwrap().unwrap().stored;
    assert!((stored - now).abs() < hour, "{stored}");
    let gone = begin(catalog).await;
    for (at, marked) in [(now + years, 2), (now, 2), (now, 0)] {
        let count = catalog.mark_gone(source, gone, at).await.unwrap();
        assert_eq!(count, marked, "{at}");
    }
    let before = now + chrono::TimeDelta::milliseconds(1);
    let prunable = catalog.prunable(source, before, None, 9).await.unwrap();
    let mut prunable: Vec<_> = prunable.into_iter().map(|(key, _)| key).collect();
    let mut expected = ids(&[a, b]);
    prunable.sort();
    expected.sort();
    assert_eq!(prunable, expected);

    // So do waiting events.
    want(catalog, "all", "*").await;
    let end = JobEnd {
        finished: now + years,
        ..end_of(gone, State::Completed)
    };
    catalog.end_job(&end).await.unwrap();
    let trimmed = catalog.trim_events(99, now - hour, now).await.unwrap();
    assert_eq!(trimmed, None);
    let events = catalog.events_after(0, 9).await.unwrap();
    assert!(events.iter().all(|event| event.created <= now + hour));
    assert!(!events.is_empty());
}

async fn what_a_list_no_longer_has_can_be_pruned(catalog: &dyn Catalog) {
    let source = SourceId::of("list.txt", "image", None);
    let urls = [
        "http://a.example/",
        "http://b.example/",
        "http://c.example/",
    ];
    let listed = |record: Record| Record {
        listed: Some(source),
        ..record
    };
    let first = begin(catalog).await;
    let a = stored(first, 0, urls[0], "a.png", b"a");
    let mut c = record(first, 2, urls[2], Outcome::Duplicate);
    c.file = a.file;
    let b = stored(first, 1, urls[1], "b.png", b"b");
    let batch = [listed(a), listed(b), listed(c)];
    write(catalog, batch).await.unwrap();
    assert_eq!(catalog.listed_count(source).await.unwrap(), 3);
    assert_eq!(catalog.gone(source, first).await.unwrap(), 0);

    // The next list has only one of the two that stand for `a.png`.
    let second = begin(catalog).await;
    let c = listed(record(second, 0, urls[2], Outcome::Unchanged));
    write(catalog, [c]).await.unwrap();
    assert_eq!(catalog.gone(source, second).await.unwrap(), 2);
    let now = Utc::now();
    assert_eq!(catalog.mark_gone(source, second, now).await.unwrap(), 2);
    assert_eq!(catalog.mark_gone(source, second, now).await.unwrap(), 0);
    assert_eq!(catalog.listed_count(source).await.unwrap(), 1);
    let prunable = async |before| {
        let mut paths = Vec::new();
        let mut after = None;
        loop {
            let page = catalog.prunable(source, before, after, 1).await.unwrap();
            let Some((key, file)) = page.into_iter().next() else {
                break paths;
            };
            after = Some(key);
            paths.push(file.path);
        }
    };
    assert!(prunable(now).await.is_empty());
    let later = now + Duration::from_millis(5);
    assert_eq!(prunable(later).await, ["b.png"]);

    // A third list has none, and then both URLs of the file may go.
    let third = begin(catalog).await;
    assert_eq!(catalog.mark_gone(source, third, now).await.unwrap(), 1);
    let mut all = prunable(later).await;
    all.sort();
    assert_eq!(all, ["a.png", "a.png", "b.png"]);

    // What another job had since is left alone, and what came back is listed again.
    let back = begin(catalog).await;
    let elsewhere = SourceId::of("other.txt", "image", None);
    let mut other = record(back, 2, urls[1], Outcome::Unchanged);
    other.listed = Some(elsewhere);
    let batch = Batch {
        id: Uuid::now_v7(),
        writer: Uuid::max(),
        // Before it went, so that its having been seen says nothing.
        now: now - Duration::from_secs(1),
        records: vec![other],
    };
    catalog.record(Arc::new(batch)).await.unwrap();
    assert_eq!(prunable(later).await, ["a.png", "a.png"]);
    catalog.mark_gone(elsewhere, third, now).await.unwrap();
    assert_eq!(prunable(later).await.len(), 3);
    let mut seen = Batch {
        id: Uuid::now_v7(),
        writer: Uuid::max(),
        now: later,
        records: vec![record(back, 0, urls[1], Outcome::Unchanged)],
    };
    catalog.record(Arc::new(seen.clone())).await.unwrap();
    assert_eq!(prunable(later).await, ["a.png", "a.png"]);
    seen.id = Uuid::now_v7();
    seen.records = vec![listed(record(back, 1, urls[0], Outcome::Unchanged))];
    catalog.record(Arc::new(seen)).await.unwrap();
    assert!(prunable(later).await.is_empty());
    assert_eq!(catalog.listed_count(source).await.unwrap(), 1);
    let gone = vec![key(urls[1]), key(urls[2])];
    catalog.unlist(source, gone).await.unwrap();
    assert_eq!(catalog.gone(source, third).await.unwrap(), 1);
}

async fn a_deleted_file_is_announced_and_its_url_forgets_it(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/";
    let file = stored(job, 0, url, "a.png", b"a");
    let id = file.file.unwrap();
    write(catalog, [file]).await.unwrap();
    want(catalog, "all", "file.deleted").await;
    let ids = vec![id, Uuid::now_v7()];
    let delete = || catalog.delete_files(ids.clone(), "retention", Utc::now());
    assert_eq!(delete().await.unwrap(), 1);
    assert_eq!(delete().await.unwrap(), 0);
    let known = known(catalog, url).await;
    assert!(known.file.is_none() && known.etag.is_none() && known.checked.is_none());
    assert!(catalog.files_after(None, 9).await.unwrap().is_empty());
    let events = catalog.events_after(0, 9).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event.event, "file.deleted");
    let payload: serde_json::Value = serde_json::from_str(&events[0].event.payload).unwrap();
    assert_eq!(
        (&payload["path"], &payload["reason"]),
        (&"a.png".into(), &"retention".into())
    );
}

async fn a_file_that_was_deleted_meanwhile_is_none(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = "http://a.example/";
    let file = stored(job, 0, url, "a.png", b"a");
    let id = file.file.unwrap();
    write(catalog, [file]).await.unwrap();
    let deleted = catalog.delete_files(vec![id], "retention", Utc::now());
    assert_eq!(deleted.await.unwrap(), 1);
    // Another job had looked the URL up before, and the origin confirms what was there then.
    let mut confirmed = record(job, 1, url, Outcome::Unchanged);
    (confirmed.file, confirmed.checked) = (Some(id), Some(Utc::now()));
    let mut second = record(job, 2, "http://b.example/", Outcome::Duplicate);
    second.file = Some(id);
    write(catalog, [confirmed, second]).await.unwrap();
    for url in [url, "http://b.example/"] {
        assert!(known(catalog, url).await.file.is_none());
    }
    assert!(catalog.urls_of(vec![id]).await.unwrap().is_empty());
}

async fn want(catalog: &dyn Catalog, name: &str, events: &str) {
    let events = Wants::new(events.split(' ')).unwrap();
    let saved = catalog.save_receiver(name, &events, Utc::now());
    let newest = saved.await.unwrap();
    let events = catalog.events_after(0, 99).await.unwrap();
    assert_eq!(newest, events.last().map_or(0, |event| event.id));
}

/// The names of the events in the outbox.
async fn told(catalog: &dyn Catalog) -> Vec<String> {
    let events = catalog.events_after(0, 99).await.unwrap();
    events.into_iter().map(|row| row.event.event).collect()
}

async fn positions(catalog: &dyn Catalog) -> Vec<(String, i64)> {
    let receivers = catalog.receivers().await.unwrap().into_iter();
    receivers.map(|row| (row.name, row.position)).collect()
}

async fn in_album(catalog: &dyn Catalog, job: Uuid, seq: u64, outcome: Outcome) {
    let path = format!("shop/{seq}.png");
    let mut record = stored(job, seq, &format!("http://a.example/{seq}"), &path, b"a");
    record.outcome = outcome;
    record.new_file.as_mut().unwrap().album = Some(AlbumName::new("shop").unwrap());
    write(catalog, [record]).await.unwrap();
}

async fn end(catalog: &dyn Catalog, id: Uuid, state: State) {
    let end = JobEnd {
        id,
        state,
        interrupted: false,
        repeats: 0,
        error: Some("why".to_owned()),
        finished: Utc::now(),
    };
    catalog.end_job(&end).await.unwrap();
}

async fn what_happens_is_told_to_whoever_wants_it(catalog: &dyn Catalog) {
    let first = begin(catalog).await;
    in_album(catalog, first, 0, Outcome::Stored).await;
    end(catalog, first, State::Completed).await;
    assert!(told(catalog).await.is_empty(), "nobody wants it");
    want(catalog, "all", "*").await;
    let job = begin(catalog).await;
    in_album(catalog, job, 1, Outcome::Stored).await;
    in_album(catalog, job, 2, Outcome::Changed).await;
    write(
        catalog,
        [record(job, 3, "http://a.example/3", Outcome::Failed)],
    )
    .await
    .unwrap();
    end(catalog, job, State::Failed).await;
    // What is said twice is told once.
    end(catalog, job, State::Failed).await;
    let left = begin(catalog).await;
    catalog.abandon_jobs(Utc::now()).await.unwrap();
    let expected = [
        "job.started",
        "file.stored",
        "file.changed",
        "job.failed",
        "job.started",
        "job.failed",
    ];
    assert_eq!(told(catalog).await, expected);
    let events = catalog.events_after(0, 9).await.unwrap();
    let payload = |at: usize| -> serde_json::Value {
        let event: &Event = &events[at].event;
        serde_json::from_str(&event.payload).unwrap()
    };
    assert!(events[..4].iter().all(|row| row.event.job == Some(job)));
    assert_eq!(events[5].event.job, Some(left));
    assert_eq!(payload(1)["path"], "shop/1.png");
    assert_eq!(payload(1)["album"], "shop");
    assert_eq!(payload(1)["url"], "http://a.example/1");
    assert_eq!(payload(1)["source"], payload(0)["source"]);
    assert_eq!(payload(3)["state"], "failed");
    assert_eq!(payload(3)["error"], "why");
    assert_eq!(payload(3)["counts"]["targets"], 3);
    assert_eq!(payload(5)["interrupted"], true);
    // Another album is news; and what nobody wants any more is not written.
    want(catalog, "all", "album.*").await;
    let job = begin(catalog).await;
    let mut other = stored(job, 0, "http://b.example/", "b/b.png", b"b");
    other.new_file.as_mut().unwrap().album = Some(AlbumName::new("b").unwrap());
    write(catalog, [other]).await.unwrap();
    assert_eq!(told(catalog).await[expected.len()..], ["album.created"]);
}

async fn each_receiver_takes_events_for_itself(catalog: &dyn Catalog) {
    want(catalog, "one", "file.*").await;
    want(catalog, "two", "*").await;
    let job = begin(catalog).await;
    for seq in 0..3 {
        in_album(catalog, job, seq, Outcome::Stored).await;
    }
    let events = catalog.events_after(0, 99).await.unwrap();
    let ids: Vec<i64> = events.iter().map(|row| row.id).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let page = catalog.events_after(ids[0], 2).await.unwrap();
    assert_eq!(page, events[1..3]);
    let last = ids[ids.len() - 1];
    catalog.acknowledge("one", last).await.unwrap();
    assert_eq!(told(catalog).await.len(), ids.len(), "two has none");
    catalog.acknowledge("two", ids[1]).await.unwrap();
    // It does not go back.
    catalog.acknowledge("two", ids[0]).await.unwrap();
    assert_eq!(catalog.events_after(0, 99).await.unwrap(), events[2..]);
    assert_eq!(
        positions(catalog).await,
        [("one".to_owned(), last), ("two".to_owned(), ids[1])]
    );
    // One that comes later has nothing to make up for, one that is known goes on.
    want(catalog, "three", "*").await;
    want(catalog, "two", "job.*").await;
    let expected = [("one", last), ("three", last), ("two", ids[1])];
    assert_eq!(
        positions(catalog).await,
        expected.map(|(name, at)| (name.to_owned(), at))
    );
    catalog
        .delete_receivers(vec!["two".to_owned()])
        .await
        .unwrap();
    assert!(told(catalog).await.is_empty(), "the others have it all");
    // An id that was delivered is not used again.
    in_album(catalog, job, 9, Outcome::Stored).await;
    assert!(catalog.events_after(0, 9).await.unwrap()[0].id > last);
    let all = vec!["one".to_owned(), "three".to_owned()];
    catalog.delete_receivers(all).await.unwrap();
    assert!(told(catalog).await.is_empty());
}

async fn the_outbox_has_its_limits(catalog: &dyn Catalog) {
    want(catalog, "one", "file.*").await;
    want(catalog, "", "*").await;
    let job = begin(catalog).await;
    for seq in 0..5 {
        in_album(catalog, job, seq, Outcome::Stored).await;
    }
    let long_ago = Utc::now() - chrono::TimeDelta::days(1);
    let ids: Vec<i64> = catalog
        .events_after(0, 99)
        .await
        .unwrap()
        .iter()
        .map(|row| row.id)
        .collect();
    let count = ids.len() as u64;
    assert_eq!(
        catalog
            .trim_events(count, long_ago, Utc::now())
            .await
            .unwrap(),
        None
    );
    let trimmed = catalog
        .trim_events(count - 2, long_ago, Utc::now())
        .await
        .unwrap();
    assert_eq!(trimmed, Some((2, ids[1])));
    assert_eq!(told(catalog).await.len(), ids.len() - 2);
    catalog.acknowledge("one", ids[3]).await.unwrap();
    // Nobody but a listener, who is not in the settings, waits for most of these.
    let later = Utc::now() + chrono::TimeDelta::days(1);
    let trimmed = catalog.trim_events(99, later, Utc::now()).await.unwrap();
    assert_eq!(trimmed, Some((count - 4, ids[ids.len() - 1])));
    assert!(told(catalog).await.is_empty());
    assert_eq!(
        catalog.trim_events(99, later, Utc::now()).await.unwrap(),
        None
    );
}

async fn who_waits_for_events_is_told_that_there_are_some(catalog: &dyn Catalog) {
    let mut news = catalog.news();
    want(catalog, "one", "*").await;
    news.mark_unchanged();
    let job = begin(catalog).await;
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    end(catalog, job, State::Completed).await;
    assert!(news.has_changed().unwrap());
    // What a client changes is told as soon as what a job does.
    news.mark_unchanged();
    let changes = Changes {
        id: Uuid::now_v7(),
        writer: Uuid::max(),
        now: Utc::now(),
        changes: Vec::new(),
        events: vec![Event {
            job: None,
            event: "album.updated".to_owned(),
            payload: "{}".to_owned(),
        }],
    };
    catalog.change(Arc::new(changes)).await.unwrap();
    assert!(news.has_changed().unwrap());
}

async fn an_event_that_is_given_up_is_kept(catalog: &dyn Catalog) {
    want(catalog, "one", "job.*").await;
    for _ in 0..3 {
        begin(catalog).await;
    }
    let events = catalog.events_after(0, 9).await.unwrap();
    let waiting = async || {
        let backlog = catalog.backlog().await.unwrap();
        let of = |row: &super::Backlog| (row.receiver.clone(), row.waiting, row.dead);
        backlog.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(waiting().await, [("one".to_owned(), 3, 0)]);
    for row in &events {
        let letter = super::DeadLetter {
            receiver: "one".to_owned(),
            row: row.clone(),
            died: row.created,
            answer: "it answered 404".to_owned(),
        };
        // Its answer may be lost, so it is done again.
        catalog.bury(&letter, 2).await.unwrap();
        catalog.bury(&letter, 2).await.unwrap();
    }
    let kept = catalog.dead_letters().await.unwrap();
    let rows: Vec<_> = kept.iter().map(|letter| letter.row.clone()).collect();
    assert_eq!(rows, events[1..], "the oldest of too many is dropped");
    assert_eq!(kept[0].answer, "it answered 404");
    assert_eq!(waiting().await, [("one".to_owned(), 0, 2)]);
    let keys = vec![("one".to_owned(), events[1].id), ("two".to_owned(), 7)];
    assert_eq!(catalog.drop_dead_letters(keys).await.unwrap(), 1);
    assert_eq!(waiting().await, [("one".to_owned(), 0, 1)]);
}

async fn a_job_starts_once_and_is_resumed_by_the_next_process(catalog: &dyn Catalog) {
    want(catalog, "one", "job.*").await;
    let interrupted = begin(catalog).await;
    catalog.abandon_jobs(Utc::now()).await.unwrap();
    let next = NewJob {
        id: Uuid::now_v7(),
        source: "list.txt".to_owned(),
        kind: "image".to_owned(),
        album: String::new(),
        source_id: None,
        continues: Some(interrupted),
        schedule: None,
        started: Utc::now(),
    };
    catalog.begin_job(&next).await.unwrap();
    assert_eq!(
        told(catalog).await,
        ["job.started", "job.failed", "job.resumed"]
    );
}

async fn an_album_keeps_its_newest_files_within_its_limits(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let began = Utc::now();
    for n in 0..4_u64 {
        let path = format!("{n}.png");
        let url = format!("http://a.example/{n}");
        let batch = Batch {
            id: Uuid::now_v7(),
            writer: Uuid::max(),
            now: began + Duration::from_secs(n * 60),
            records: vec![stored(job, n, &url, &path, b"ten bytes.")],
        };
        catalog.record(Arc::new(batch)).await.unwrap();
    }
    let now = began + Duration::from_secs(180);
    let excess = async |limits, limit| {
        let files = catalog.excess("", limits, now, limit).await.unwrap();
        files
            .into_iter()
            .map(|file| file.path)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let none = Limits::default();
    assert_eq!(excess(none, 9).await, "");
    let aged = Limits {
        max_age: Some(Duration::from_secs(90)),
        ..none
    };
    assert_eq!(excess(aged, 9).await, "0.png 1.png");
    let few = Limits {
        max_files: Some(1),
        ..none
    };
    assert_eq!(excess(few, 9).await, "0.png 1.png 2.png");
    assert_eq!(excess(few, 2).await, "0.png 1.png");
    let small = Limits {
        max_bytes: Some(30),
        ..none
    };
    assert_eq!(excess(small, 9).await, "0.png");
    let other = catalog.excess("album", few, now, 9).await.unwrap();
    assert!(other.is_empty());
}

async fn a_file_from_the_future_is_older_than_those_of_the_last_job(catalog: &dyn Catalog) {
    let first = begin(catalog).await;
    let last = begin(catalog).await;
    let began = catalog.job(last).await.unwrap().unwrap().started;
    let minute = Duration::from_secs(60);
    let times = [
        (first, began - minute),
        (first, began + minute * 60 * 24 * 3650),
        (last, began + minute),
    ];
    for (n, (job, now)) in (0..).zip(times) {
        let (path, url) = (format!("{n}.png"), format!("http://a.example/{n}"));
        let batch = Batch {
            id: Uuid::now_v7(),
            writer: Uuid::max(),
            now,
            records: vec![stored(job, n, &url, &path, b"ten bytes.")],
        };
        catalog.record(Arc::new(batch)).await.unwrap();
    }
    let few = Limits {
        max_files: Some(1),
        ..Limits::default()
    };
    let now = began + minute * 2;
    let excess = catalog.excess("", few, now, 9).await.unwrap();
    let paths: Vec<_> = excess.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["0.png", "1.png"]);
}

async fn jobs_from_the_future_are_listed_behind_all_others(catalog: &dyn Catalog) {
    let now = Utc::now();
    let recent = async |limit| {
        let jobs = super::recent_jobs(catalog, limit, now).await.unwrap();
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert!(recent(9).await.is_empty());
    let years = Duration::from_secs(10 * 365 * 24 * 3600);
    let ahead = super::history::last_id(now + years);
    begin_job(catalog, ahead).await.unwrap();
    assert_eq!(recent(1).await, [ahead], "better than none");
    let (first, second) = (begin(catalog).await, begin(catalog).await);
    let further = super::history::last_id(now + years * 2);
    begin_job(catalog, further).await.unwrap();
    for (limit, expected) in [
        (1, &[second][..]),
        (2, &[second, first]),
        (3, &[second, first, further]),
        (u32::MAX, &[second, first, further, ahead]),
    ] {
        assert_eq!(recent(limit).await, expected, "{limit}");
    }
}

async fn albums_and_files_come_page_by_page(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let in_album = |seq, path: &str, album: &str| {
        let mut record = stored(job, seq, &format!("http://a.example/{seq}"), path, b"same");
        let file = record.new_file.as_mut().unwrap();
        file.album = Some(AlbumName::new(album).unwrap());
        record
    };
    let batch = [
        stored(job, 0, "http://a.example/", "Z.png", b"root"),
        in_album(1, "b/1.png", "b"),
        in_album(2, "b/2.png", "b"),
        in_album(3, "a/1.png", "a"),
    ];
    write(catalog, batch).await.unwrap();
    let (mut albums, mut after) = (Vec::new(), None);
    while let Some(row) = catalog.albums(after, 1).await.unwrap().pop() {
        after = Some(row.name.clone());
        assert!(row.newest.is_some());
        albums.push((row.name, row.files, row.bytes));
    }
    let expected = [("", 1, 4), ("a", 1, 4), ("b", 2, 8)];
    assert_eq!(albums, expected.map(|(name, n, b)| (name.to_owned(), n, b)));
    let (mut paths, mut after) = (Vec::new(), None);
    while let Some(file) = catalog.files_after(after, 1).await.unwrap().pop() {
        after = Some(file.path.clone());
        paths.push(file.path);
    }
    // In the order of bytes, wherever the database is.
    assert_eq!(paths, ["Z.png", "a/1.png", "b/1.png", "b/2.png"]);

    let same = Sha256::of(b"same");
    for among in [Among::Album, Among::Store] {
        catalog.index_contents(among).await.unwrap();
    }
    let find = async |album: Option<&str>| {
        let found = catalog.with_content(album.map(str::to_owned), vec![same]);
        found.await.unwrap().contains_key(&same)
    };
    assert_eq!(
        (
            find(None).await,
            find(Some("a")).await,
            find(Some("")).await
        ),
        (true, true, false)
    );
}

async fn an_album_shows_what_is_known_of_its_files(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let in_album = |seq, path: &str, album: Option<&str>| {
        let mut record = stored(job, seq, &format!("http://a.example/{seq}"), path, b"same");
        let file = record.new_file.as_mut().unwrap();
        file.album = album.map(|album| AlbumName::new(album).unwrap());
        file.metadata = Some("{\"n\":1}".to_owned());
        record
    };
    let batch = [
        in_album(0, "a/b/2.png", Some("a")),
        in_album(1, "a/1.png", Some("a")),
        in_album(2, "a/b/1.png", Some("a/b")),
        in_album(3, "1.png", None),
    ];
    write(catalog, batch).await.unwrap();
    // Twice, and with an index as without.
    for _ in 0..2 {
        let mut seen = Vec::new();
        for album in ["", "a", "a/b", "b"] {
            let mut after = None;
            while let Some(row) = catalog
                .images(album, ImageFilter::default(), after, 1)
                .await
                .unwrap()
                .pop()
            {
                assert_eq!(row.album, album);
                assert_eq!(row.metadata.as_deref(), Some("{\"n\":1}"));
                assert!((Utc::now() - row.stored).num_minutes() == 0);
                seen.push((album, row.file.path.clone()));
                after = Some(row.file.path);
            }
        }
        let seen: Vec<_> = seen.iter().map(|(a, p)| (*a, p.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("", "1.png"),
                ("a", "a/1.png"),
                ("a", "a/b/2.png"),
                ("a/b", "a/b/1.png")
            ]
        );
        catalog.index_albums().await.unwrap();
    }
    let one = catalog.image("a/b/1.png").await.unwrap().unwrap();
    assert_eq!(
        (one.album.as_str(), one.file.dimensions),
        ("a/b", Some((3, 4)))
    );
    for none in ["a", "a/b/", "", "A/1.png", "a\0"] {
        assert!(catalog.image(none).await.unwrap().is_none(), "{none:?}");
        assert!(catalog.album(&format!("{none}x")).await.unwrap().is_none());
    }
    let album = catalog.album("a").await.unwrap().unwrap();
    assert_eq!((album.name.as_str(), album.files, album.bytes), ("a", 2, 8));
    assert_eq!(catalog.album("").await.unwrap().unwrap().files, 1);
}

async fn files_are_looked_up_by_url_digest_and_path(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let url = |n: u64| format!("http://a.example/{n}");
    let mut batch: Vec<Record> = (0..5)
        .map(|n| {
            stored(
                job,
                n,
                &url(n),
                &format!("a/{n}.png"),
                &[b'0' + (n % 2) as u8],
            )
        })
        .collect();
    // Two files of one URL, as two albums want it.
    batch[4].url = url(3);
    write(catalog, batch).await.unwrap();
    let find = async |by: LookUp, after: Option<&str>, limit| {
        let found = catalog.look_up(by, after.map(str::to_owned), limit);
        let found = found.await.unwrap().into_iter();
        found.map(|row| row.file.path).collect::<Vec<_>>()
    };
    let even = LookUp::Sha256(Sha256::of(b"0"));
    // Without indexes, and with them.
    for _ in 0..2 {
        assert_eq!(find(LookUp::Url(url(1)), None, 9).await, ["a/1.png"]);
        let both = find(LookUp::Url(url(3)), None, 9).await;
        assert_eq!(both, ["a/3.png", "a/4.png"]);
        let all = find(even.clone(), None, 9).await;
        assert_eq!(all, ["a/0.png", "a/2.png", "a/4.png"]);
        assert_eq!(find(even.clone(), Some("a/0.png"), 1).await, ["a/2.png"]);
        let one = LookUp::Path("a/2.png".to_owned());
        assert_eq!(find(one, None, 9).await, ["a/2.png"]);
        for none in [LookUp::Path("a".into()), LookUp::Url("a\0".into())] {
            assert!(find(none, None, 9).await.is_empty());
        }
        catalog.index_look_ups().await.unwrap();
    }
}

fn album(name: &str) -> AlbumName {
    AlbumName::new(name).unwrap()
}

fn rename(from: &str, to: &str) -> Rename {
    Rename {
        id: Uuid::now_v7(),
        from: album(from),
        to: album(to),
        folder: Some("1:2".to_owned()),
    }
}

fn changes(changes: impl Into<Vec<Change>>) -> Changes {
    Changes {
        id: Uuid::now_v7(),
        writer: Uuid::max(),
        now: Utc::now(),
        changes: changes.into(),
        events: Vec::new(),
    }
}

async fn change(catalog: &dyn Catalog, made: impl Into<Vec<Change>>) {
    catalog.change(Arc::new(changes(made))).await.unwrap();
}

/// Every file by its path, with its album.
async fn places(catalog: &dyn Catalog) -> Vec<(String, String)> {
    let files = catalog.files_after(None, 99).await.unwrap();
    let ids = files.iter().map(|file| file.id).collect();
    let rows = catalog.files(ids).await.unwrap().into_iter();
    let mut places: Vec<_> = rows.map(|row| (row.file.path, row.album)).collect();
    places.sort();
    places
}

async fn an_album_is_renamed_with_all_below_it_and_may_be_renamed_back(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let at = |seq, path: &str, name: &str| {
        let mut record = stored(job, seq, &format!("http://a.example/{seq}"), path, b"same");
        record.new_file.as_mut().unwrap().album = (!name.is_empty()).then(|| album(name));
        record
    };
    let all = [
        ("2026/ä%/1.png", "ä%"),
        ("ä%/1.png", "ä%"),
        ("ä%/b/1.png", "ä%/b"),
        ("ä%/loose.png", ""),
        ("ä%0/1.png", "ä%0"),
        ("ä-/1.png", "ä-"),
        ("ä.png", ""),
    ];
    let records: Vec<Record> = (0..)
        .zip(all)
        .map(|(seq, (path, album))| at(seq, path, album))
        .collect();
    write(catalog, records).await.unwrap();
    let described = Change::DescribeAlbum {
        name: album("ä%"),
        metadata: Some("{\"a\":1}".to_owned()),
    };
    change(catalog, [described]).await;
    let before = places(catalog).await;
    let rename = rename("ä%", "longer/name");
    change(catalog, [Change::BeginRename(rename.clone())]).await;
    assert_eq!(
        catalog.renames().await.unwrap(),
        std::slice::from_ref(&rename)
    );
    let mut expected = all.map(|(path, album)| match path {
        "2026/ä%/1.png" => (path, "longer/name"),
        "ä%/1.png" => ("longer/name/1.png", "longer/name"),
        "ä%/b/1.png" => ("longer/name/b/1.png", "longer/name/b"),
        "ä%/loose.png" => ("longer/name/loose.png", ""),
        _ => (path, album),
    });
    expected.sort_unstable();
    let after = places(catalog).await;
    let shown: Vec<_> = after
        .iter()
        .map(|(p, a)| (p.as_str(), a.as_str()))
        .collect();
    assert_eq!(shown, expected);
    let row = catalog.album("longer/name").await.unwrap().unwrap();
    assert_eq!((row.files, row.metadata.as_deref()), (2, Some("{\"a\":1}")));
    assert!(catalog.album("ä%").await.unwrap().is_none());
    for (name, is_there) in [
        ("", true),
        ("longer/name", true),
        ("longer", false),
        ("ä%", false),
    ] {
        assert_eq!(catalog.has_album(name).await.unwrap(), is_there, "{name}");
    }
    assert!(catalog.album("longer/name/b").await.unwrap().is_some());

    let undone = Change::EndRename {
        rename: rename.clone(),
        undo: true,
    };
    // The second time there is nothing to undo.
    for _ in 0..2 {
        change(catalog, [undone.clone()]).await;
        assert_eq!(places(catalog).await, before);
        assert!(catalog.renames().await.unwrap().is_empty());
    }
    change(catalog, [Change::BeginRename(rename.clone())]).await;
    let done = Change::EndRename {
        rename,
        undo: false,
    };
    change(catalog, [done]).await;
    assert_eq!(places(catalog).await, after);
    assert!(catalog.renames().await.unwrap().is_empty());
}

async fn what_clients_change_is_recorded_once_with_its_events(catalog: &dyn Catalog) {
    let add = Change::AddAlbum {
        name: album("a"),
        metadata: None,
    };
    let row = stored(Uuid::nil(), 0, "http://a.example/", "a/1.png", b"a");
    let row = FileRow {
        album: Some(album("a")),
        ..row.new_file.unwrap()
    };
    let id = row.id;
    let added = Arc::new(Changes {
        events: vec![Event {
            job: None,
            event: "album.created".to_owned(),
            payload: "{}".to_owned(),
        }],
        ..changes([add.clone(), Change::AddFile(Box::new(row))])
    });
    want(catalog, "one", "*").await;
    for _ in 0..2 {
        catalog.change(added.clone()).await.unwrap();
    }
    assert_eq!(catalog.events_after(0, 9).await.unwrap().len(), 1);
    let moved = |by_client| Change::MoveFile {
        id,
        path: "b.png".to_owned(),
        album: None,
        name_from: NameFrom::List,
        by_client,
    };
    let described = Change::DescribeFile {
        id,
        metadata: Some("{\"x\":null}".to_owned()),
    };
    // That a client has named it stays on record.
    change(catalog, [moved(true), moved(false), described]).await;
    let row = catalog.image("b.png").await.unwrap().unwrap();
    assert_eq!(
        (row.album.as_str(), row.file.name_from, row.by_client),
        ("", NameFrom::List, true)
    );
    assert_eq!(row.metadata.as_deref(), Some("{\"x\":null}"));
    // The parts that names are made of stay with the file.
    assert_eq!(
        (row.header_name.as_deref(), row.line, row.group.as_deref()),
        (Some("cat.png"), Some(7), Some("dogs"))
    );
    assert_eq!(row.last_modified, Some(from_millis(946_684_800_000)));
    let album_row = catalog.album("a").await.unwrap().unwrap();
    assert_eq!((album_row.files, album_row.newest), (0, None));
    // All of it or none.
    let drop = Change::DropAlbum { name: album("a") };
    let half = Arc::new(changes([drop.clone(), add.clone(), add]));
    assert!(catalog.change(half).await.is_err());
    assert!(catalog.album("a").await.unwrap().is_some());
    change(catalog, [drop]).await;
    assert!(catalog.album("a").await.unwrap().is_none());
    assert!(catalog.files(vec![Uuid::nil()]).await.unwrap().is_empty());
}

async fn images_are_found_by_what_is_known_of_them(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let all = [
        (
            "http://a.example/1",
            "{\"n\":1,\"yes\":true,\"zero\":\"\\u0000\"}",
        ),
        (
            "https://user:***@b.example:81/a.example/?u=//a.example/",
            "{\"n\":\"é\"}",
        ),
        ("http://[::1]/", "{\"a.b c\":\"1\"}"),
    ];
    let mut records = Vec::new();
    for (seq, (url, metadata)) in (0..).zip(all) {
        let body = vec![0; 10 * (seq as usize + 1)];
        let mut record = stored(job, seq, url, &format!("{seq}.png"), &body);
        record.new_file.as_mut().unwrap().metadata = Some(metadata.to_owned());
        records.push(record);
    }
    records[2].new_file.as_mut().unwrap().format = "jpeg";
    let mut bare = stored(job, 3, "http://c.example/", "3.png", b"");
    bare.new_file.as_mut().unwrap().dimensions = None;
    records.push(bare);
    write(catalog, records).await.unwrap();
    let found = async |filter: ImageFilter| {
        let rows = catalog.images("", filter, None, 9).await.unwrap();
        rows.into_iter()
            .map(|row| row.file.path[..1].parse::<u32>().unwrap())
            .collect::<Vec<_>>()
    };
    let none = ImageFilter::default;
    let member = |name: &str, text: &str| ImageFilter {
        metadata: vec![(name.to_owned(), text.to_owned())],
        ..none()
    };
    let host = |host: &str| ImageFilter {
        host: Some(host.to_owned()),
        ..none()
    };
    let (past, future) = (DateTime::UNIX_EPOCH, Utc::now() + Duration::from_secs(60));
    #[rustfmt::skip]
    let cases = [
        (none(), vec![0, 1, 2, 3]),
        (ImageFilter { format: Some("jpeg".to_owned()), ..none() }, vec![2]),
        (ImageFilter { bytes: (Some(10), Some(20)), ..none() }, vec![0, 1]),
        (ImageFilter { bytes: (Some(u64::MAX), None), ..none() }, vec![]),
        (ImageFilter { width: (Some(3), Some(3)), height: (None, Some(4)), ..none() }, vec![0, 1, 2]),
        (ImageFilter { height: (Some(5), None), ..none() }, vec![]),
        (ImageFilter { since: Some(past), until: Some(future), ..none() }, vec![0, 1, 2, 3]),
        (ImageFilter { since: Some(future), ..none() }, vec![]),
        (ImageFilter { until: Some(past), ..none() }, vec![]),
        (host("a.example"), vec![0]),
        (host("b.example"), vec![1]),
        (host("[::1]"), vec![2]),
        (host("example"), vec![]),
        (member("n", "1"), vec![0]),
        (member("n", "é"), vec![1]),
        (member("yes", "true"), vec![]),
        (member("a.b c", "1"), vec![2]),
        (member("m", "1"), vec![]),
    ];
    let is_postgres = catalog.status().await.unwrap().kind == "postgres";
    for (filter, expected) in cases {
        // A zero character hides what is beside it from PostgreSQL.
        let expected = match (&filter.metadata[..], is_postgres) {
            ([(name, _)], false) if name == "yes" => vec![0],
            ([(name, text)], true) if name == "n" && text == "1" => vec![],
            _ => expected,
        };
        assert_eq!(found(filter.clone()).await, expected, "{filter:?}");
    }
    let page = catalog.images("", host("b.example"), Some("1.png".to_owned()), 9);
    assert!(page.await.unwrap().is_empty());
}

async fn a_file_tells_its_urls(catalog: &dyn Catalog) {
    let job = begin(catalog).await;
    let mut first = stored(job, 0, "http://a.example/", "a.png", b"a");
    first.wanted = Some(Wanted {
        name: Some("wanted".to_owned()),
        album: Some(AlbumName::new("album").unwrap()),
        ..Wanted::default()
    });
    let id = first.file.unwrap();
    let second = stored(job, 1, "http://b.example/", "b.png", b"b");
    write(catalog, [first, second]).await.unwrap();
    let expected = UrlRow {
        file: id,
        key: key("http://a.example/"),
        url: "http://a.example/".to_owned(),
        album: "album".to_owned(),
        name: Some("wanted".to_owned()),
    };
    assert_eq!(catalog.urls_of(vec![id]).await.unwrap(), [expected]);
    let other = Uuid::now_v7();
    let unused = catalog.unused(vec![id, other]).await.unwrap();
    assert_eq!(unused, HashSet::from([other]));
    assert!(catalog.urls_of(Vec::new()).await.unwrap().is_empty());
    let many = (0..19_999).map(Uuid::from_u128).chain([id]).collect();
    assert_eq!(catalog.urls_of(many).await.unwrap().len(), 1);
    let mut missed = record(job, 2, "http://c.example/", Outcome::Failed);
    missed.reason = Some(Reason::Status);
    missed.wanted = Some(Wanted {
        metadata: Some(r#"{"cat":"c\u0000"}"#.to_owned()),
        ..Wanted::default()
    });
    write(catalog, vec![missed]).await.unwrap();
    let failed = catalog.outcomes(job, OutcomeFilter::Failed, None, 9).await;
    let columns = failed.unwrap()[0].other_columns().unwrap();
    assert_eq!(columns["cat"], "c\0");
    // It was had, so the history need not say how to get it.
    let outcomes = catalog.outcomes(job, OutcomeFilter::All, None, 9).await;
    let row = &outcomes.unwrap()[0];
    assert!(row.name.is_none() && row.metadata.is_none());
}

async fn old_jobs_go_with_their_outcomes(catalog: &dyn Catalog) {
    let (old, new, open) = (
        begin(catalog).await,
        begin(catalog).await,
        begin(catalog).await,
    );
    let failed = |job, n| record(job, n, &format!("http://a.example/{n}"), Outcome::Failed);
    let many: Vec<Record> = (0..11_000).map(|n| failed(old, n)).collect();
    write(catalog, many).await.unwrap();
    write(catalog, [failed(new, 0)]).await.unwrap();
    let now = Utc::now();
    let times = [(old, now), (new, now + Duration::from_secs(60))];
    for (job, finished) in times {
        let ended = JobEnd {
            finished,
            ..end_of(job, State::Completed)
        };
        catalog.end_job(&ended).await.unwrap();
    }
    let before = now + Duration::from_secs(60);
    assert_eq!(catalog.delete_jobs_before(before, now).await.unwrap(), 1);
    let left = catalog.jobs(None, None, 9).await.unwrap();
    assert_eq!(
        left.iter().map(|job| job.id).collect::<Vec<_>>(),
        [open, new]
    );
    assert!(seqs(catalog, old).await.is_empty());
    assert_eq!(seqs(catalog, new).await, [0]);
}

async fn a_closed_catalog_says_so(catalog: &dyn Catalog) {
    catalog.close().await;
    let error = catalog.jobs(None, None, 1).await.unwrap_err();
    assert!(matches!(error, CatalogError::Closed), "{error:?}");
    assert!(begin_job(catalog, Uuid::now_v7()).await.is_err());
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_faults() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = &super::sqlite::Sqlite::open(folder.path().join("catalog.db"), Duration::ZERO)
        .await
        .unwrap();
    let url = format!("http://a.example/{}", "a".repeat(1 << 20));
    let job = begin(catalog).await;
    for (statement, reason) in [
        ("PRAGMA max_page_count = 1", Reason::StoreFull),
        ("DROP TABLE urls", Reason::StoreError),
    ] {
        catalog
            .write("prepare the fault", move |db| db.execute_batch(statement))
            .await
            .unwrap();
        let batch = vec![record(job, 0, &url, Outcome::Failed)];
        let error = write(catalog, batch).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error:?}");
    }
}

/// Every row of every table.
async fn everything(catalog: &dyn Catalog) -> Vec<(&'static str, Vec<Row>)> {
    let mut tables = Vec::new();
    for table in &TABLES {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = catalog.rows(table, after, 700).await.unwrap();
            let Some(last) = page.last() else { break };
            assert_eq!(last.len(), table.columns.len());
            after = Some(last.clone());
            rows.extend(page);
        }
        assert!(rows.is_sorted_by_key(|row| row[..table.keys].to_vec()));
        assert!(!rows.is_empty(), "nothing in {}", table.name);
        tables.push((table.name, rows));
    }
    tables
}

#[tokio::test]
async fn a_copy_forgets_no_column() {
    let folder = tempfile::tempdir().unwrap();
    in_sqlite(folder.path()).await.close().await;
    let db = rusqlite::Connection::open(folder.path().join(".gannet/catalog.db")).unwrap();
    let mut columns: Vec<(String, String)> = db
        .prepare(
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'",
        )
        .unwrap()
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    // A number for SQLite alone, to which nothing refers.
    columns.retain(|(table, column)| (table.as_str(), column.as_str()) != ("urls", "id"));
    columns.sort();
    let own = |table: &'static Table| {
        let columns = table.columns.iter();
        columns.map(|column| (table.name.to_owned(), column.name.to_owned()))
    };
    let mut copied: Vec<(String, String)> = TABLES.iter().flat_map(own).collect();
    copied.sort();
    assert_eq!(copied, columns);
}

#[tokio::test]
async fn a_copy_there_and_back_has_everything() {
    let (there, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(middle) = in_postgres().await else {
        return;
    };
    let (there, back) = (in_sqlite(there.path()).await, in_sqlite(back.path()).await);
    let job = begin(&*there).await;
    let mut records: Vec<Record> = (0..2_500)
        .map(|n| {
            let url = format!("http://a.example/{n}");
            let mut record = stored(job, n, &url, &format!("Ä {n}.png"), url.as_bytes());
            record.listed = Some(SourceId::of("list.txt", "image", None));
            record
        })
        .collect();
    records[0].new_file.as_mut().unwrap().album = Some(AlbumName::new("album").unwrap());
    records[0].detail = Some("why".to_owned());
    want(&*there, "one", "album.*").await;
    write(&*there, records).await.unwrap();
    let schedule = ScheduleRow {
        name: "cams".to_owned(),
        cron: "@daily".to_owned(),
        paused: true,
        last_due: Some(DateTime::UNIX_EPOCH),
        job: Some(job),
    };
    there.save_schedule(&schedule).await.unwrap();
    change(&*there, [Change::BeginRename(rename("album", "b"))]).await;
    let gone = Uuid::now_v7();
    let source = SourceId::of("list.txt", "image", None);
    there.mark_gone(source, gone, Utc::now()).await.unwrap();
    there.post_job(Arc::new(post(None, 0))).await.unwrap();
    let letter = super::DeadLetter {
        receiver: "gone".to_owned(),
        row: there.events_after(0, 1).await.unwrap().remove(0),
        died: Utc::now(),
        answer: "it answered 404".to_owned(),
    };
    there.bury(&letter, 9).await.unwrap();
    let first = everything(&*there).await;
    let counts = copy(&*there, &*middle).await.unwrap();
    assert!(counts.contains(&("files", 2_500)), "{counts:?}");
    assert_eq!(everything(&*middle).await, first);
    copy(&*middle, &*back).await.unwrap();
    assert_eq!(everything(&*back).await, first);
    let again = copy(&*there, &*back).await.unwrap_err();
    assert!(matches!(again, CatalogError::NotEmpty("jobs")), "{again:?}");
    // What comes next does not collide with what was copied.
    let mut next = stored(job, 9_999, "http://b.example/", "b.png", b"b");
    next.new_file.as_mut().unwrap().album = Some(AlbumName::new("c").unwrap());
    for catalog in [&middle, &back] {
        write(&**catalog, [next.clone()]).await.unwrap();
        assert_eq!(catalog.events_after(0, 9).await.unwrap().len(), 2);
    }
    for catalog in [there, middle, back] {
        let status = catalog.status().await.unwrap();
        assert_eq!(status.version, status.latest);
        let files = status.tables.iter().find(|table| table.name == "files");
        assert!(
            files.is_some_and(|files| files.rows >= 2_500 && files.bytes > 100_000),
            "{status:?}"
        );
        catalog.close().await;
    }
}

#[tokio::test]
async fn text_that_postgres_cannot_hold_is_kept_without_its_zero_bytes() {
    let Some(catalog) = in_postgres().await else {
        return;
    };
    let job = begin(&*catalog).await;
    let mut record = record(job, 0, "http://a.example/", Outcome::Failed);
    record.url = "a\0b".to_owned();
    write(&*catalog, [record]).await.unwrap();
    let outcomes = catalog.outcomes(job, OutcomeFilter::All, None, 1).await;
    assert_eq!(outcomes.unwrap()[0].url, "a\u{fffd}b");
    catalog.close().await;
}

#[tokio::test]
async fn a_postgres_database_belongs_to_one_process_at_a_time() {
    let Some(catalog) = in_postgres().await else {
        return;
    };
    let url = catalog.status().await.unwrap().catalog;
    let url = settings(&url.replace("//", "//gannet@"));
    let error = open(&url, Path::new("")).await.unwrap_err();
    assert!(matches!(error, CatalogError::Locked { .. }), "{error:?}");
    // To look at it is possible meanwhile; to write is not.
    let reader = open_to_read(&url, Path::new("")).await.unwrap();
    assert!(reader.jobs(None, None, 1).await.unwrap().is_empty());
    assert!(begin_job(&*reader, Uuid::now_v7()).await.is_err());
    reader.close().await;
    catalog.close().await;
    open(&url, Path::new("")).await.unwrap().close().await;
}

#[tokio::test]
async fn whoever_lost_a_postgres_database_to_another_process_does_not_go_on() {
    let Some(first) = in_postgres().await else {
        return;
    };
    let url = first.status().await.unwrap().catalog;
    let url = url.replace("//", "//gannet@");
    let mut db = PgConnection::connect(&url).await.unwrap();
    let mut cut = async || {
        let others = "pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'";
        let cut =
            format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}");
        for _ in 0..10_000 {
            let cut = query_scalar(AssertSqlSafe(cut.clone()));
            let count: i64 = cut.fetch_one(&mut db).await.unwrap();
            if count == 0 {
                return;
            }
        }
        panic!("connections stay");
    };
    cut().await;
    // Nobody had it meanwhile. The first call learns that its connection is gone.
    begin_job(&*first, Uuid::now_v7()).await.unwrap_err();
    begin_job(&*first, Uuid::now_v7()).await.unwrap();
    cut().await;
    let second = open(&settings(&url), Path::new("")).await.unwrap();
    begin_job(&*first, Uuid::now_v7()).await.unwrap_err();
    let is_refused = async || {
        let error = begin_job(&*first, Uuid::now_v7()).await.unwrap_err();
        matches!(error, CatalogError::Locked { .. })
    };
    assert!(is_refused().await);
    begin_job(&*second, Uuid::now_v7()).await.unwrap();
    second.close().await;
    assert!(is_refused().await);
    first.close().await;
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    in_sqlite(folder.path()).await.close().await;
    let path = folder.path().join(".gannet/catalog.db");
    let db = rusqlite::Connection::open(path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    let refused = |error: &CatalogError| matches!(error, CatalogError::Migrate { .. });
    let error = open(&settings(""), folder.path()).await.unwrap_err();
    assert!(refused(&error), "{error:?}");
    let error = open_to_read(&settings(""), folder.path())
        .await
        .unwrap_err();
    assert!(refused(&error), "{error:?}");
}

/// The schema of the first version, with a job and a URL.
#[tokio::test]
async fn a_schema_of_an_older_version_is_told_and_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".gannet")).unwrap();
    let path = folder.path().join(".gannet/catalog.db");
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(include_str!("../../migrations/sqlite/0001_catalog.sql"))
        .unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    let job = "INSERT INTO jobs (id, source, kind, album, state, started) VALUES (randomblob(16), 'a.txt', 'image', '', \
               'completed', 1)";
    db.execute(job, ()).unwrap();
    drop(db);
    let error = open_to_read(&settings(""), folder.path()).await;
    assert!(matches!(
        error,
        Err(CatalogError::Outdated { version: 1, .. })
    ));
    let old = open_to_inspect(&settings(""), folder.path()).await.unwrap();
    assert_eq!(old.status().await.unwrap().version, 1);
    old.close().await;
    let catalog = open(&settings(""), folder.path()).await.unwrap();
    let jobs = catalog.jobs(None, None, 9).await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].source.as_str(), jobs[0].recorded), ("a.txt", None));
    catalog.close().await;
}

/// A URL, its outcomes with their final URLs, and whether its validators are kept.
type Redirected = (
    &'static str,
    &'static [(&'static str, Option<&'static str>)],
    bool,
);

/// Records of schema 5, which sent validators to whatever answered.
const REDIRECTED: [Redirected; 6] = [
    ("http://a.example/direct", &[("stored", None)], true),
    (
        "http://a.example/failed",
        &[("changed", None), ("failed", None)],
        true,
    ),
    (
        "http://a.example/led-away",
        &[("stored", Some("http://a.example/v1"))],
        false,
    ),
    (
        "http://a.example/later",
        &[("stored", None), ("changed", Some("http://a.example/v1"))],
        false,
    ),
    // The history has forgotten how it came.
    ("http://a.example/forgotten", &[], false),
    ("http://a.example/only-failed", &[("failed", None)], false),
];

/// Statements that insert [`REDIRECTED`]; `blob` writes bytes, `id` an id.
fn insert_redirected(blob: fn(&str) -> String, id: fn(Uuid) -> String) -> Vec<String> {
    let job = id(Uuid::now_v7());
    let mut statements = Vec::new();
    let mut seq = 0;
    for (url, outcomes, _) in REDIRECTED {
        let key = TargetKey::of(&Url::parse(url).unwrap(), None, None);
        let key: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = blob(&key);
        statements.push(format!(
            "INSERT INTO urls (key, url, album, etag, last_modified, seen, outcome, job) VALUES \
             ({key}, '{url}', '', '\"1\"', 'Sat, 21 Nov 2026 09:30:15 GMT', 1, 'stored', {job})"
        ));
        for (outcome, final_url) in outcomes {
            let final_url = final_url.map_or("NULL".to_owned(), |url| format!("'{url}'"));
            statements.push(format!(
                "INSERT INTO outcomes (job, seq, url, outcome, attempts, final_url) VALUES \
                 ({job}, {seq}, '{url}', '{outcome}', 1, {final_url})"
            ));
            seq += 1;
        }
    }
    statements
}

async fn assert_redirected(catalog: &dyn Catalog) {
    for (url, _, is_kept) in REDIRECTED {
        let key = TargetKey::of(&Url::parse(url).unwrap(), None, None);
        let known = catalog.known(vec![key]).await.unwrap().remove(&key);
        let known = known.unwrap();
        let has = (known.etag.is_some(), known.last_modified.is_some());
        assert_eq!(has, (is_kept, is_kept), "{url}");
    }
}

#[tokio::test]
async fn validators_of_an_older_version_stay_only_where_their_url_gave_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".gannet")).unwrap();
    let path = folder.path().join(".gannet/catalog.db");
    let db = sqlite::Sqlite::of_version(&path, 5);
    for sql in insert_redirected(
        |hex| format!("x'{hex}'"),
        |id| format!("x'{}'", id.simple()),
    ) {
        db.execute(&sql, ()).unwrap();
    }
    drop(db);
    let catalog = open(&settings(""), folder.path()).await.unwrap();
    assert_redirected(&*catalog).await;
    catalog.close().await;
    let Some(url) = empty_postgres().await else {
        return;
    };
    let mut db = postgres::Postgres::of_version(&url, 5).await;
    for sql in insert_redirected(
        |hex| format!("'\\x{hex}'::bytea"),
        |id| format!("'{id}'::uuid"),
    ) {
        query(AssertSqlSafe(sql)).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();
    let catalog = open(&settings(&url), Path::new("")).await.unwrap();
    assert_redirected(&*catalog).await;
    catalog.close().await;
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
