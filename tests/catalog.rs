//! The catalog elsewhere: in PostgreSQL, which may go away and come back, and moved from one place to the other.
//!
//! Skipped where there is no PostgreSQL, unless `GANNET_REQUIRE_SERVICES=1` says that there has to be one.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::pictures::png;
use support::postgres::Postgres;
use support::site::Gate;
use support::{Answer, Asked, Sandbox, Site};

fn picture(asked: &Asked) -> Answer {
    let number = asked.path[1..].parse().unwrap();
    Answer::ok(png(number)).header("ETag", "\"1\"")
}

fn paths(n: u32) -> Vec<String> {
    (0..n).map(|n| format!("/{n}")).collect()
}

/// The `--set` that puts the catalog at `url`.
fn at(url: &str) -> String {
    format!("catalog.url={url}")
}

#[test]
fn a_store_may_have_its_catalog_in_postgres() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let sandbox = Sandbox::new();
    let catalog = at(&server.database());
    let site = Site::start(|asked| picture(asked).unless_known(asked));
    let list = site.list(paths(20));
    let first = sandbox.fetch_list(&list, 0, &["--set", &catalog]);
    assert_eq!(first.count("stored"), 20);
    let second = sandbox.fetch_list(&list, 0, &["--set", &catalog]);
    assert_eq!(second.count("unchanged"), 20);
    let log = &second.run.stderr;
    assert!(!log.contains("sqlx"), "{log}");
    assert_eq!(sandbox.names().len(), 20);
    assert!(!sandbox.store().join(".gannet/catalog.db").exists());

    let jobs = sandbox.run(["jobs", "--json", "--set", &catalog]).expect(0);
    assert_eq!(jobs.json().as_array().unwrap().len(), 2);
    let status = sandbox.run(["catalog", "status", "--json", "--set", &catalog]);
    let status = status.expect(0).json();
    assert_eq!(status["kind"], "postgres");
    let rows = |name: &str| {
        let tables = status["tables"].as_array().unwrap().iter();
        let mut found = tables.filter(|table| table["name"] == name);
        found.next().unwrap()["rows"].as_u64().unwrap()
    };
    assert_eq!((rows("files"), rows("urls"), rows("jobs")), (20, 20, 2));
}

#[test]
fn looking_at_a_database_makes_no_catalog_in_it() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let sandbox = Sandbox::new();
    let catalog = at(&server.database());
    let look = || sandbox.run(["catalog", "status", "--set", &catalog]);
    look()
        .expect(1)
        .says(&["there is no catalog in", "gannet catalog migrate"]);
    sandbox
        .run(["catalog", "migrate", "--set", &catalog])
        .expect(0);
    look().expect(0);
}

#[test]
fn another_store_cannot_use_the_same_database_meanwhile() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let (one, two) = (Sandbox::new(), Sandbox::new());
    let catalog = at(&server.database());
    let gate = Gate::new();
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            picture(asked)
        }
    });
    let url = site.url("/1");
    let args = ["--set", &catalog, "-u", &url];
    let running = one.start(one.fetch_args(&args));
    site.wait_for(1);
    two.fetch(&args).expect(4).says(&["another process works"]);
    gate.open();
    running.end().expect(0);
    two.fetch(&args).expect(0);
}

/// What a fetch told during which the database stopped.
struct Interrupted {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Fetches 40 URLs, stops the database when ten have been answered, and does `then` once the run waits for it.
fn fetch_without_database(
    sandbox: &Sandbox,
    server: &Postgres,
    settings: &[&str],
    then: impl FnOnce(),
) -> Interrupted {
    let gate = Gate::new();
    let asked_for = AtomicUsize::new(0);
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            if asked_for.fetch_add(1, Ordering::SeqCst) >= 10 {
                gate.pass();
            }
            picture(asked)
        }
    });
    sandbox.write("list.txt", site.list(paths(40)));
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let args: Vec<&str> = set.chain(["list.txt"]).collect();
    let mut command = sandbox.command(sandbox.fetch_args(&args));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    site.wait_for(11);
    server.stop();
    gate.open();
    let mut pipe = BufReader::new(child.stderr.take().unwrap());
    let mut stderr = String::new();
    while !stderr.contains("trying again") {
        assert!(pipe.read_line(&mut stderr).unwrap() > 0, "{stderr}");
    }
    then();
    pipe.read_to_string(&mut stderr).unwrap();
    let mut stdout = String::new();
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_to_string(&mut stdout).unwrap();
    Interrupted {
        code: child.wait().unwrap().code(),
        stdout,
        stderr,
    }
}

#[test]
fn a_job_waits_for_a_database_that_restarts() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let sandbox = Sandbox::new();
    let catalog = at(&server.database());
    let settings = [catalog.as_str(), "catalog.patience=5m"];
    let run = fetch_without_database(&sandbox, &server, &settings, || server.restart());
    let summary: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(summary["counts"]["stored"], 40, "{}", run.stderr);
    assert_eq!(sandbox.names().len(), 40);
    for once in ["trying again", "the catalog is back"] {
        assert_eq!(run.stderr.matches(once).count(), 1, "{}", run.stderr);
    }
    for library in ["sqlx", "at line"] {
        assert!(!run.stderr.contains(library), "{}", run.stderr);
    }
    let jobs = sandbox.run(["jobs", "--json", "--set", &catalog]).expect(0);
    assert_eq!(jobs.json()[0]["counts"]["targets"], 40);
    assert_eq!(jobs.json()[0]["state"], "completed");
}

#[test]
fn a_job_fails_with_nothing_half_done_when_the_database_stays_away() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let sandbox = Sandbox::new();
    let catalog = at(&server.database());
    let settings = [
        catalog.as_str(),
        "catalog.patience=300ms",
        "storage.commit_files=2",
    ];
    let run = fetch_without_database(&sandbox, &server, &settings, || {});
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    // One batch waits, and not the ones behind it.
    let failed = run.stderr.matches("could not be kept").count();
    assert_eq!(failed, 1, "{}", run.stderr);
    assert!(run.stderr.contains("catalog.patience"), "{}", run.stderr);
    assert!(!run.stderr.contains("is back"), "{}", run.stderr);
    let visible = sandbox.names().len();

    // Who only looks does not wait.
    let jobs = ["jobs", "--json", "--set", &catalog];
    sandbox
        .run(jobs)
        .expect(1)
        .says(&["cannot open the catalog"]);

    server.restart();
    let site = Site::start(picture);
    sandbox
        .fetch(&["--set", &catalog, "-u", &site.url("/99")])
        .expect(0);
    let jobs = sandbox.run(jobs).expect(0).json();
    // What had been recorded is visible, and only that.
    assert_eq!(jobs[1]["counts"]["stored"].as_u64(), Some(visible as u64));
    assert_eq!(sandbox.names().len(), visible + 1);
    assert_eq!(jobs[1]["state"], "failed");
    assert!(sandbox.staged().is_empty());
}

#[test]
fn a_job_waits_once_for_a_catalog_that_somebody_holds() {
    let (sandbox, gate) = (Sandbox::new(), Gate::new());
    let site = Site::start({
        let gate = gate.clone();
        move |asked| {
            gate.pass();
            picture(asked)
        }
    });
    sandbox.write("list.txt", site.list(paths(40)));
    let args = [
        "--set",
        "catalog.patience=300ms",
        "--set",
        "storage.commit_files=2",
        "list.txt",
    ];
    let running = sandbox.start(sandbox.fetch_args(&args));
    site.wait_for(1);
    let database = sandbox.store().join(".gannet/catalog.db");
    let db = rusqlite::Connection::open(database).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    gate.open();
    let run = running.end().expect(1);
    for once in ["trying again", "could not be kept", "is not recorded"] {
        assert_eq!(run.stderr.matches(once).count(), 1, "{run}");
    }
    for line in run.stderr.lines() {
        assert!(line.matches("database is locked").count() <= 1, "{run}");
    }
    assert!(sandbox.staged().is_empty() && sandbox.names().is_empty());
    db.execute_batch("ROLLBACK").unwrap();
    drop(db);
    sandbox.fetch(&["-u", &site.url("/99")]).expect(0);
    let jobs = sandbox
        .run(["jobs", "--json", "-o", "out"])
        .expect(0)
        .json();
    assert_eq!(jobs[1]["interrupted"], true, "{jobs}");
}

#[test]
fn a_catalog_moves_from_sqlite_to_postgres_and_back() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let sandbox = Sandbox::new();
    let site = Site::start(|asked| match asked.path.as_str() {
        "/7" => Answer::status(404),
        _ => picture(asked).unless_known(asked),
    });
    let list = site.list(paths(20));
    assert_eq!(sandbox.fetch_list(&list, 3, &[]).count("stored"), 19);
    let database = server.database();
    let here = "sqlite:out/.gannet/catalog.db";
    let copy = |from: &str, to: &str| sandbox.run(["catalog", "copy", from, to]);
    let copied = copy(here, &database).expect(0);
    assert!(copied.out().contains("files"), "{copied}");
    copy(here, &database).expect(1).says(&["is not empty"]);

    // The store goes on with the other one.
    let moved = sandbox.fetch_list(&list, 3, &["--set", &at(&database)]);
    assert_eq!(moved.count("unchanged"), 19);
    copy(&database, "sqlite:back.db").expect(0);
    let back = sandbox.fetch_list(&list, 3, &["--set", "catalog.url=sqlite:back.db"]);
    assert_eq!(back.count("unchanged"), 19);
    let back = ["jobs", "--json", "--set", "catalog.url=sqlite:back.db"];
    assert_eq!(
        sandbox.run(back).expect(0).json().as_array().unwrap().len(),
        3
    );
}

#[test]
fn wrong_addresses_of_catalogs_are_told_apart() {
    let sandbox = Sandbox::new();
    let copy = |from: &str, to: &str| sandbox.run(["catalog", "copy", from, to]);
    copy("sqlite:none.db", "sqlite:new.db")
        .expect(1)
        .says(&["there is no catalog at"]);
    copy("mysql://h/d", "sqlite:new.db")
        .expect(2)
        .says(&["`SRC`", "postgres://HOST/DATABASE"]);
    assert!(!sandbox.path("new.db").exists() && !sandbox.path("none.db").exists());
    let refused = "postgres://ann:secret@127.0.0.1:1/gannet";
    let status = sandbox
        .run(["catalog", "status", "--set", &at(refused)])
        .expect(1);
    assert!(!status.stderr.contains("secret"), "{status}");
    assert_eq!(status.stderr.matches("refused").count(), 1, "{status}");
    status.says(&["cannot open the catalog `postgres://127.0.0.1:1/gannet`"]);
}

#[test]
fn a_database_that_is_not_there_is_told_in_plain_words() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let sandbox = Sandbox::new();
    let url = server.database() + "x";
    let fetch = sandbox.fetch(&["--set", &at(&url), "-u", "http://127.0.0.1:1/"]);
    let told = fetch.expect(1).says(&["does not exist"]);
    assert!(!told.stderr.contains("at line"), "{told}");
    assert_eq!(told.stderr.matches("does not exist").count(), 1, "{told}");
}

#[test]
fn a_catalog_can_be_made_and_measured() {
    let sandbox = Sandbox::new();
    let at = |args: &[&str]| {
        let all = [args, &["--set", "catalog.url=sqlite:catalog.db"]].concat();
        sandbox.run(all)
    };
    at(&["catalog", "status"])
        .expect(1)
        .says(&["there is no catalog at"]);
    let made = at(&["catalog", "migrate"]).expect(0);
    assert!(made.out().contains("has version "), "{made}");
    let status = at(&["catalog", "status"]).expect(0);
    assert!(status.out().contains("outcomes"), "{status}");
}
