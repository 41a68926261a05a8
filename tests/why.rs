//! `gannet why`: what is known of a URL or a file, and what happens to it next.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use serde_json::Value;
use support::pictures::png;
use support::{Answer, Run, Sandbox, Site, sha256};

fn site() -> Site {
    Site::start(|asked| match asked.path.as_str() {
        "/gone.png" => Answer::status(404),
        "/moved.png" => Answer::status(302).header("location", "/good.png"),
        "/page.png" => Answer::ok("<!doctype html><p>no"),
        _ => Answer::ok(png(7)).header("cache-control", "max-age=3600"),
    })
}

fn why(sandbox: &Sandbox, subject: &str) -> Run {
    sandbox.run(["why", "-o", "out", subject])
}

/// Holds what was printed against `words`.
fn prints(run: Run, words: &[&str]) {
    for word in words {
        assert!(
            run.out().contains(word),
            "stdout does not say `{word}`:\n{run}"
        );
    }
}

fn why_json(sandbox: &Sandbox, subject: &str) -> Value {
    let run = sandbox.run(["why", "-o", "out", "--json", subject]);
    run.expect(0).json()
}

#[test]
fn a_url_that_failed_is_explained_with_status_attempts_and_the_next_try() {
    let (sandbox, site) = (Sandbox::new(), site());
    let url = site.url("/gone.png");
    sandbox.write("list.txt", format!("# one\n{url}\n"));
    let fetch = ["list.txt", "--set", "fetch.failure_backoff=1h"];
    sandbox.fetch(&fetch).expect(3);
    prints(
        why(&sandbox, &url).expect(0),
        &[
            &format!("{url}\n"),
            "outcome    failed: status 404, in job",
            "failed     once",
            "file       none",
            "next job   fetches it",
            "no schedule had it: `gannet retry ",
            "failed: status 404, 1 attempt, line 2, in job",
            "answered 404",
        ],
    );
    // What is left alone says until when.
    let patient = [
        "why",
        "-o",
        "out",
        "--set",
        "fetch.failure_backoff=1h",
        &url,
    ];
    prints(
        sandbox.run(patient).expect(0),
        &["`fetch.failure_backoff` leaves it alone until"],
    );
    let known = why_json(&sandbox, &url);
    assert_eq!(known["records"][0]["reason"], "status");
    assert_eq!(known["records"][0]["status"], 404);
    assert_eq!(known["records"][0]["next"]["action"], "fetch");
    assert_eq!(known["outcomes"][0]["line"], 2);
}

#[test]
fn a_file_is_explained_by_path_digest_and_url() {
    let (sandbox, site) = (Sandbox::new(), site());
    let url = site.url("/good.png");
    sandbox.write("list.csv", format!("url,name,album\n{url},cat,pets\n"));
    sandbox.fetch(&["list.csv"]).expect(0);
    let digest = sha256(&png(7));
    let path = sandbox.store().join("pets/cat.png");
    for subject in [
        url.as_str(),
        "pets/cat.png",
        path.to_str().unwrap(),
        "out/pets/cat.png",
        &digest,
    ] {
        prints(
            why(&sandbox, subject).expect(0),
            &[
                "pets/cat.png (png, ",
                &format!("{url}\n"),
                "outcome    stored, in job",
                "the record is fresh; `--refresh` does",
            ],
        );
        let known = why_json(&sandbox, subject);
        let record = &known["records"][0];
        assert_eq!(record["file"]["sha256"], digest.as_str(), "{subject}");
        assert_eq!(record["next"]["action"], "fresh", "{subject}");
    }
    std::fs::remove_file(&path).unwrap();
    prints(
        why(&sandbox, &url).expect(0),
        &[
            "but it is gone or was changed: `gannet verify --repair` fetches it again",
            "next job   fetches it",
        ],
    );
}

#[test]
fn the_url_that_a_redirect_led_to_and_a_line_that_is_no_url_are_found() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("list.txt", format!("{}\nno url\n", site.url("/moved.png")));
    sandbox.fetch(&["list.txt"]).expect(3);
    prints(
        why(&sandbox, &site.url("/good.png")).expect(0),
        &[
            &format!("{}\n", site.url("/moved.png")),
            &format!("redirects  to {}", site.url("/good.png")),
        ],
    );
    prints(
        why(&sandbox, "no url").expect(0),
        &["failed: invalid-url, line 2, in job"],
    );
}

#[test]
fn nothing_known_ends_with_1_and_names_what_is_similar() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox
        .fetch(&["-u", &site.url("/good.png?size=2")])
        .expect(0);
    let slip = site.url("/good.png").replacen("http:", "https:", 1);
    let known = site.url("/good.png?size=2");
    why(&sandbox, &known.replace("good", "Good"))
        .expect(1)
        .says(&["the catalog has no URL `http", "no job had it"]);
    let run = why(&sandbox, &slip.replace(".png", ".png?size=2")).expect(1);
    run.says(&[&format!("did you mean `{known}`?")]);
    why(&sandbox, "pets/dog.png")
        .expect(1)
        .says(&["the catalog has no file `pets/dog.png`, and no job had a line that reads so"]);
    sandbox.write("out/own.png", png(9));
    why(&sandbox, "own.png")
        .expect(1)
        .says(&["the catalog has no record of `own.png`, although the file is there"]);
    let elsewhere = Sandbox::new();
    let run = elsewhere.run(["why", "-o", "none", "https://a.example/"]);
    run.expect(1).says(&["there is no catalog at"]);
}

#[test]
fn the_schedule_that_had_it_is_named_with_the_time_at_which_it_is_due() {
    let (sandbox, site) = (Sandbox::new(), site());
    sandbox.write("shop.txt", site.url("/page.png"));
    sandbox.write(
        "gannet.toml",
        "[storage]\nroot = \"out\"\n[fetch]\nprivate_networks = true\n[[schedule]]\nname = \"shop\"\ncron = \"0 0 1 1 *\"\n\
         source = \"shop.txt\"\n",
    );
    sandbox.run(["daemon", "--once"]).expect(3);
    let run = sandbox.run(["why", &site.url("/page.png")]).expect(0);
    prints(
        run,
        &[
            "outcome    rejected: wrong-kind",
            "schedule `shop` is due at ",
            "of schedule `shop`",
        ],
    );
}
