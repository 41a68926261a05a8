//! `gannet retry`: what failed in a job is asked for once more, and nothing else.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::pictures::png;
use support::{Run, Sandbox, Site, sha256, site::Answer};

/// A site where everything but `/good` fails until it is mended, each with the status that its path begins with.
struct Broken {
    site: Site,
    mended: Arc<AtomicBool>,
}

impl Broken {
    fn start() -> Self {
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = mended.clone();
        let site = Site::start(move |asked| match asked.path.get(1..4) {
            Some(status @ ("404" | "410" | "500")) if !is_mended.load(Ordering::SeqCst) => {
                Answer::status(status.parse().unwrap())
            }
            Some("htm") if !is_mended.load(Ordering::SeqCst) => Answer::ok("<!doctype html><p>no"),
            _ => Answer::ok(png(u32::try_from(asked.path.len()).unwrap())),
        });
        Self { site, mended }
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
        self.site.forget();
    }

    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.site.asked().into_iter().map(|a| a.path).collect();
        paths.sort();
        paths
    }
}

/// `gannet retry`, impatient, with the summary as JSON.
fn retry(sandbox: &Sandbox, args: &[&str]) -> Run {
    let mut all = sandbox.fetch_args(args);
    all[0] = "retry";
    sandbox.run(all)
}

fn jobs(sandbox: &Sandbox) -> Vec<Value> {
    let run = sandbox.run(["jobs", "-o", "out", "--json"]).expect(0);
    run.json().as_array().unwrap().clone()
}

#[test]
fn what_failed_is_asked_for_whatever_is_known_of_it_and_gets_what_its_list_wants() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let wanted = sha256(&png(4));
    let list = format!(
        "url,name,album,sha256,group\n{},,,,\n{},gone,shop,,a\n{},,,{wanted},\n{},,,,\nno url,,,,\n",
        origin.site.url("/good"),
        origin.site.url("/410-gone"),
        origin.site.url("/404"),
        origin.site.url("/htm"),
    );
    let args = ["-k", "image", "--set", "fetch.failure_backoff=1h"];
    let report = sandbox.fetch_list(list, 3, &args);
    assert_eq!(report.count("stored"), 1);
    origin.mend();
    let mut args = vec!["last", "--report", "again.json"];
    args.extend(["--set", "fetch.failure_backoff=1h"]);
    let run = retry(&sandbox, &args).expect(0);
    assert_eq!((run.count("targets"), run.count("stored")), (3, 3));
    assert_eq!(origin.paths(), ["/404", "/410-gone", "/htm"]);
    let first = jobs(&sandbox)[1]["id"].as_str().unwrap().to_owned();
    let again = sandbox.json("again.json");
    assert_eq!(again["source"], format!("retry of {first}"));
    let items = again["items"].as_array().unwrap();
    let gone = items.iter().find(|item| item["line"] == 3).unwrap();
    assert_eq!(gone["path"], "shop/gone.png");
    assert_eq!(gone["group"], "a");
    let run = retry(&sandbox, &["last"]).expect(0);
    assert_eq!(run.json()["targets"], 0, "{run}");
    assert_eq!(jobs(&sandbox).len(), 2, "no job for nothing");
}

#[test]
fn the_files_of_a_retry_are_the_same_as_if_the_first_run_had_brought_them() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let list = origin.site.list(["/404", "/good"]);
    sandbox.fetch_list(&list, 3, &["-a", "birds"]);
    origin.mend();
    retry(&sandbox, &["last"]).expect(0);
    let before = sandbox.names();
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|name| name.starts_with("birds/")));
    let report = sandbox.fetch_list(&list, 0, &["-a", "birds"]);
    assert_eq!(report.count("unchanged"), 2, "{}", report.whole);
    assert_eq!(sandbox.names(), before);
}

#[test]
fn reasons_choose_what_is_tried_again() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    sandbox.fetch_list(origin.site.list(["/404", "/htm"]), 3, &[]);
    origin.mend();
    let run = retry(&sandbox, &["last", "--reason", "wrong-kind", "dns"]).expect(0);
    assert_eq!(run.count("targets"), 1);
    assert_eq!(origin.paths(), ["/htm"]);
    let run = sandbox.run(["retry", "last", "-o", "out", "--reason", "timeout"]);
    let run = run.expect(0);
    assert!(run.out().starts_with("nothing to retry"), "{run}");
    let run = sandbox.run(["retry", "last", "-o", "out", "--reason", "tiemout"]);
    run.expect(2).says(&["'timeout'"]);
}

#[test]
fn what_fails_again_is_counted_as_in_a_fetch_and_can_be_retried_again() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    sandbox.fetch_list(origin.site.list(["/404", "/404-b"]), 3, &[]);
    assert_eq!(retry(&sandbox, &["last"]).expect(3).count("failed"), 2);
    retry(&sandbox, &["last", "--max-failures", "2"]).expect(0);
    origin.mend();
    assert_eq!(retry(&sandbox, &["last"]).expect(0).count("stored"), 2);
}

#[test]
fn masked_credentials_are_not_sent_for_real_ones() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let url = origin.site.url("/404").replace("//", "//ann:secret@");
    sandbox.fetch_list(url, 3, &[]);
    origin.mend();
    let run = retry(&sandbox, &["last", "--report", "again.json"]).expect(3);
    assert_eq!(run.count("failed"), 1);
    assert_eq!(origin.site.total(), 0);
    let again = sandbox.json("again.json");
    let detail = again["items"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("[hosts]"), "{detail}");
}

#[test]
fn a_job_that_is_not_there_is_an_error() {
    let (sandbox, origin) = (Sandbox::new(), Broken::start());
    let run = retry(&sandbox, &["last"]).expect(1);
    run.says(&["no catalog"]);
    sandbox.fetch_list(origin.site.list(["/good"]), 0, &[]);
    retry(&sandbox, &["ffff"]).expect(1).says(&["`ffff`"]);
    let run = retry(&sandbox, &["last"]).expect(0);
    assert_eq!(run.json()["targets"], 0);
}
