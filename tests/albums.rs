//! Albums and images as clients of the API want them: made, renamed, moved, deleted, and sent. The real daemon.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use serde_json::{Value, json};
use support::checker::{When, violations};
use support::daemon::until;
use support::http::{Got, connect, parse};
use support::pictures::{gif, jpeg, png, png_of};
use support::postgres::Postgres;
use support::{Answer, Daemon, Sandbox, Site, catalog, sha256};

/// Settings for a daemon with one schedule `a` over `a.csv` into album `a`, which is due on demand, and an API.
fn settings(sandbox: &Sandbox, api: &str, rest: &str) {
    let text = format!(
        "[storage]\nroot = \"out\"\ncommit_interval = \"10ms\"\n\
         [fetch]\nprivate_networks = true\nproxy = \"direct\"\nretries = 0\n\
         [api]\nlisten = \"127.0.0.1:0\"\n{api}\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.csv\"\nalbum = \"a\"\n{rest}\n"
    );
    sandbox.write("gannet.toml", text);
}

/// One request with a body, on a connection of its own.
#[track_caller]
fn send(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
    let mut stream = connect(to);
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    // What is refused may be hung up on.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

#[track_caller]
fn tag_of(got: &Got) -> String {
    let tag = got.header("etag").unwrap_or_else(|| panic!("{got}"));
    assert!(
        tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'),
        "{tag}"
    );
    tag.to_owned()
}

/// Somebody who talks to the API.
#[derive(Clone, Copy)]
struct Client(SocketAddr);

impl Client {
    fn of(daemon: &Daemon<'_>) -> Self {
        Self(daemon.api())
    }

    #[track_caller]
    fn get(self, path: &str) -> Got {
        send(self.0, "GET", &api(path), &[], b"")
    }

    #[track_caller]
    fn post(self, path: &str, body: &Value) -> Got {
        self.json("POST", path, body)
    }

    #[track_caller]
    fn patch(self, path: &str, body: &Value) -> Got {
        self.json("PATCH", path, body)
    }

    #[track_caller]
    fn delete(self, path: &str) -> Got {
        send(self.0, "DELETE", &api(path), &[], b"")
    }

    /// Asks with `If-Match`, and with a body for a PATCH.
    #[track_caller]
    fn only_if(self, tag: &str, method: &str, path: &str, body: &Value) -> Got {
        let headers = [("Content-Type", "application/json"), ("If-Match", tag)];
        let body = match method {
            "PATCH" => body.to_string(),
            _ => String::new(),
        };
        send(self.0, method, &api(path), &headers, body.as_bytes())
    }

    /// The entity tag of what is at a path.
    #[track_caller]
    fn tag(self, path: &str) -> String {
        tag_of(&self.get(path).expect(200))
    }

    #[track_caller]
    fn json(self, method: &str, path: &str, body: &Value) -> Got {
        let headers = [("Content-Type", "application/json")];
        send(
            self.0,
            method,
            &api(path),
            &headers,
            body.to_string().as_bytes(),
        )
    }

    /// Sends a file as a body.
    #[track_caller]
    fn upload(self, album: &str, query: &str, body: &[u8]) -> Got {
        let path = api(&format!("/albums/{album}/images{query}"));
        let headers = [("Content-Type", "application/octet-stream")];
        send(self.0, "POST", &path, &headers, body)
    }

    /// Sends a form of parts, each with what follows `form-data; `.
    #[track_caller]
    fn form(self, album: &str, parts: &[(&str, &[u8])]) -> Got {
        let mut body = Vec::new();
        for (said, bytes) in parts {
            body.extend_from_slice(
                format!("--sep\r\nContent-Disposition: form-data; {said}\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--sep--\r\n");
        let path = api(&format!("/albums/{album}/images"));
        let headers = [("Content-Type", "multipart/form-data; boundary=sep")];
        send(self.0, "POST", &path, &headers, &body)
    }

    /// The names of the images of an album.
    #[track_caller]
    fn names(self, album: &str) -> Vec<String> {
        self.images(album, "")
    }

    #[track_caller]
    fn images(self, album: &str, query: &str) -> Vec<String> {
        let page = self.get(&format!("/albums/{album}/images{query}"));
        let page = page.expect(200).json();
        assert_eq!(page["next"], Value::Null);
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[track_caller]
    fn albums(self) -> Vec<String> {
        let page = self.get("/albums").expect(200).json();
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[track_caller]
    fn bytes(self, path: &str) -> Vec<u8> {
        send(self.0, "GET", &format!("/files/{path}"), &[], b"")
            .expect(200)
            .body
    }
}

fn api(path: &str) -> String {
    format!("/api/v1{path}")
}

/// The field that a 422 is about, and its detail.
#[track_caller]
fn wrong(got: Got) -> (String, String) {
    let document = got.expect(422).json();
    let error = &document["errors"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&error["field"]), text(&error["detail"]))
}

#[track_caller]
fn assert_in_order(sandbox: &Sandbox, when: When) {
    let wrong = violations(sandbox, when);
    assert!(wrong.is_empty(), "{when:?}:\n{}", wrong.join("\n"));
}

/// Names of events in the outbox, in their order.
fn events(sandbox: &Sandbox) -> Vec<(String, Value)> {
    let (_copy, db) = catalog::open(&sandbox.store());
    let mut query = db
        .prepare("SELECT event, payload FROM events ORDER BY id")
        .unwrap();
    let rows = query.query_map([], |row| {
        let payload: String = row.get(1)?;
        Ok((row.get(0)?, serde_json::from_str(&payload).unwrap()))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

mod albums {
    use super::*;

    #[test]
    fn an_album_is_made_described_and_deleted() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        let made = client.post(
            "/albums",
            &json!({"name": "shops/2026", "metadata": {"a": 1, "b": {"c": 2}}}),
        );
        let made = made.expect(201);
        assert_eq!(made.header("location"), Some("/api/v1/albums/shops%2F2026"));
        let album = made.json();
        assert_eq!(album["files"], 0);
        assert_eq!(album["metadata"], json!({"a": 1, "b": {"c": 2}}));
        assert_eq!(client.get("/albums/shops%2F2026").expect(200).json(), album);
        client
            .post("/albums", &json!({"name": "shops/2026"}))
            .problem(409);

        let changed = client.patch(
            "/albums/shops%2F2026",
            &json!({"metadata": {"a": null, "b": {"d": 3}}}),
        );
        assert_eq!(
            changed.expect(200).json()["metadata"],
            json!({"b": {"c": 2, "d": 3}})
        );
        let changed = client.patch("/albums/shops%2F2026", &json!({"metadata": {"b": null}}));
        assert_eq!(changed.expect(200).json().get("metadata"), None);

        client.delete("/albums/shops%2F2026").expect(204);
        client.delete("/albums/shops%2F2026").problem(404);
        assert_eq!(client.albums(), [""; 0]);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn what_is_no_album_is_told_with_its_field() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        sandbox.write("out/a file", "of a stranger");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for name in [
            "",
            "..",
            "../evil",
            "/etc",
            "a//b",
            ".hidden",
            "-rf",
            "a\u{7}",
            "a:b",
            ":root",
            "a/",
            &"x".repeat(256),
        ] {
            let (field, detail) = wrong(client.post("/albums", &json!({ "name": name })));
            assert_eq!(field, "name", "{name:?}");
            assert!(detail.contains("cannot name an album"), "{detail}");
        }
        client
            .post("/albums", &json!({"name": "a file"}))
            .problem(409);
        client
            .post(
                "/albums",
                &json!({"name": "a", "metadata": {"x": "y".repeat(20_000)}}),
            )
            .problem(422);
        for (body, field) in [
            (json!({}), "name"),
            (json!({"name": 7}), "name"),
            (json!({"name": "a", "colour": "red"}), "colour"),
            (json!({"name": "a", "metadata": []}), "metadata"),
            (json!({"name": "a", "metadata": null}), "metadata"),
        ] {
            assert_eq!(wrong(client.post("/albums", &body)).0, field, "{body}");
        }
        let json = [("Content-Type", "application/json")];
        send(client.0, "POST", "/api/v1/albums", &json, b"{\"name\": ").problem(400);
        send(
            client.0,
            "POST",
            "/api/v1/albums",
            &json,
            b"{\"name\": \"a\"} x",
        )
        .problem(400);
        let plain = [("Content-Type", "text/plain")];
        send(
            client.0,
            "POST",
            "/api/v1/albums",
            &plain,
            b"{\"name\": \"a\"}",
        )
        .problem(415);
        send(
            client.0,
            "POST",
            "/api/v1/albums",
            &[],
            b"{\"name\": \"a\"}",
        )
        .problem(415);
        let large = json!({"name": "a", "metadata": {"x": "y".repeat(70_000)}});
        client.post("/albums", &large).problem(413);
        client
            .post("/albums?x=1", &json!({"name": "a"}))
            .problem(400);
        assert_eq!(client.albums(), [""; 0]);
        for (method, path) in [("PATCH", "/albums/:root"), ("DELETE", "/albums/:root")] {
            let detail = client
                .json(method, path, &json!({"name": "b"}))
                .problem(409);
            assert!(
                detail.contains("the folder that holds the albums"),
                "{detail}"
            );
        }
        for path in ["/albums/none", "/albums/..%2Fevil", "/albums/a%00"] {
            client.patch(path, &json!({"name": "b"})).problem(404);
            client.delete(path).problem(404);
        }
        let _ = daemon.stop();
        assert_eq!(sandbox.read("out/a file"), b"of a stranger");
    }

    #[test]
    fn a_renamed_album_takes_along_what_lies_in_its_folder() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for name in ["a", "a/b", "c", "a0"] {
            client.post("/albums", &json!({ "name": name })).expect(201);
        }
        for (album, n) in [("a", 1), ("a%2Fb", 2), ("a0", 3)] {
            client.upload(album, "?name=x", &png(n)).expect(201);
        }
        sandbox.write("out/a/notes.txt", "of a stranger");
        let renamed = client.patch(
            "/albums/a",
            &json!({"name": "ä/n e w", "metadata": {"k": "v"}}),
        );
        let renamed = renamed.expect(200).json();
        assert_eq!(
            (&renamed["name"], &renamed["files"]),
            (&json!("ä/n e w"), &json!(1))
        );
        assert_eq!(renamed["metadata"], json!({"k": "v"}));
        assert_eq!(client.albums(), ["a0", "c", "ä/n e w", "ä/n e w/b"]);
        client.get("/albums/a").problem(404);
        assert_eq!(client.bytes("%C3%A4/n%20e%20w/x.png"), png(1));
        assert_eq!(client.bytes("%C3%A4/n%20e%20w/b/x.png"), png(2));
        assert_eq!(client.bytes("a0/x.png"), png(3));
        assert_eq!(sandbox.read("out/ä/n e w/notes.txt"), b"of a stranger");
        assert!(!sandbox.path("out/a").exists());
        // There and back, and the folder that it was in goes.
        client
            .patch("/albums/%C3%A4%2Fn%20e%20w", &json!({"name": "a"}))
            .expect(200);
        assert!(!sandbox.path("out/ä").exists());
        assert_eq!(client.bytes("a/b/x.png"), png(2));
        std::fs::remove_file(sandbox.path("out/a/notes.txt")).unwrap();
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn a_name_that_is_taken_stays_with_who_has_it() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        sandbox.write("out/strange/x.txt", "of a stranger");
        std::fs::create_dir(sandbox.path("out/empty")).unwrap();
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for name in ["a", "a/deep", "b", "c/d"] {
            client.post("/albums", &json!({ "name": name })).expect(201);
        }
        for (album, n) in [("a", 1), ("b", 2), ("c%2Fd", 3)] {
            client.upload(album, "?name=x.png", &png(n)).expect(201);
        }
        client.upload(":root", "?name=single", &png(4)).expect(201);
        for taken in ["b", "c", "c/d", "strange", "empty", "single.png"] {
            let detail = client
                .patch("/albums/a", &json!({ "name": taken }))
                .problem(409);
            assert!(detail.contains("there already"), "{taken}: {detail}");
        }
        let (field, detail) = wrong(client.patch("/albums/a", &json!({"name": "a/deep/er"})));
        assert!(
            field == "name" && detail.contains("below itself"),
            "{detail}"
        );
        let deep = ["x"; 8].join("/");
        let (field, detail) = wrong(client.patch("/albums/a", &json!({ "name": deep })));
        assert!(field == "name" && detail.contains("`a/deep`"), "{detail}");
        // Its own name is no other.
        assert_eq!(
            client
                .patch("/albums/a", &json!({"name": "a"}))
                .expect(200)
                .json()["files"],
            1
        );
        assert_eq!(
            client.patch("/albums/a", &json!({})).expect(200).json()["files"],
            1
        );
        for (path, n) in [
            ("a/x.png", 1),
            ("b/x.png", 2),
            ("c/d/x.png", 3),
            ("single.png", 4),
        ] {
            assert_eq!(client.bytes(path), png(n));
        }
        let _ = daemon.stop();
        std::fs::remove_file(sandbox.path("out/strange/x.txt")).unwrap();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn no_link_is_followed_out_of_the_store() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for name in ["a", "b"] {
            client.post("/albums", &json!({ "name": name })).expect(201);
        }
        client.upload("a", "?name=x.png", &png(1)).expect(201);
        let outside = sandbox.path("outside");
        std::fs::rename(sandbox.path("out/a"), &outside).unwrap();
        std::os::unix::fs::symlink(&outside, sandbox.path("out/a")).unwrap();
        client
            .patch("/albums/a", &json!({"name": "c"}))
            .problem(409);
        client
            .patch("/albums/b", &json!({"name": "a/b"}))
            .problem(409);
        client
            .patch("/albums/a/images/x.png", &json!({"name": "y.png"}))
            .problem(409);
        client.delete("/albums/a/images/x.png").problem(409);
        client.delete("/albums/a?files=true").problem(409);
        client.upload("a", "?name=z.png", &png(2)).problem(409);
        let there: Vec<_> = std::fs::read_dir(&outside)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(there, ["x.png"]);
        std::fs::remove_file(sandbox.path("out/a")).unwrap();
        std::fs::rename(&outside, sandbox.path("out/a")).unwrap();
        assert_eq!(client.bytes("a/x.png"), png(1));
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn an_album_goes_when_it_is_empty_or_with_its_files() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for name in ["a", "a/b", "c"] {
            client.post("/albums", &json!({ "name": name })).expect(201);
        }
        for n in 0..5 {
            client.upload("a", "", &png(n)).expect(201);
        }
        client.upload("a%2Fb", "?name=x.png", &png(9)).expect(201);
        client.upload("c", "?name=x.png", &png(8)).expect(201);
        sandbox.write("out/c/notes.txt", "of a stranger");
        let detail = client.delete("/albums/a").problem(409);
        assert!(
            detail.contains("5 files") && detail.contains("?files=true"),
            "{detail}"
        );
        client.delete("/albums/a?files=maybe").problem(400);
        client.delete("/albums/a?files=false").problem(409);
        client.delete("/albums/a?files=true").expect(204);
        client.delete("/albums/c?files=true").expect(204);
        assert_eq!(client.albums(), ["a/b"]);
        assert_eq!(client.bytes("a/b/x.png"), png(9));
        assert_eq!(sandbox.read("out/c/notes.txt"), b"of a stranger");
        // What somebody has written to is not deleted.
        sandbox.write("out/a/b/x.png", "altered");
        let detail = client.delete("/albums/a%2Fb?files=true").problem(409);
        assert!(detail.contains("somebody has altered it"), "{detail}");
        assert_eq!(client.names("a%2Fb"), ["x.png"]);
        let _ = daemon.stop();
    }

    #[test]
    fn what_happened_is_told_in_events() {
        let sandbox = Sandbox::new();
        // It takes connections and never answers, so that events wait for it.
        let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        settings(
            &sandbox,
            "[events]\nprivate_networks = true\nstop_timeout = \"0s\"",
            &format!("[[notify]]\ntype = \"webhook\"\nurl = \"http://{address}/\""),
        );
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        client.upload("a", "?name=x.png", &png(1)).expect(201);
        client
            .patch("/albums/a/images/x.png", &json!({"name": "y.png"}))
            .expect(200);
        client.patch("/albums/a", &json!({"name": "b"})).expect(200);
        client.delete("/albums/b/images/y.png").expect(204);
        client.delete("/albums/b").expect(204);
        let told = events(&sandbox);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "album.created",
            "file.stored",
            "file.changed",
            "album.renamed",
            "file.deleted",
            "album.deleted",
        ];
        assert_eq!(names, expected);
        assert_eq!(told[1].1["path"], "a/x.png");
        assert_eq!(told[1].1["sha256"], sha256(&png(1)));
        assert_eq!(
            (&told[2].1["path"], &told[2].1["from"]),
            (&json!("a/y.png"), &json!("a/x.png"))
        );
        assert_eq!(
            (&told[3].1["album"], &told[3].1["from"]),
            (&json!("b"), &json!("a"))
        );
        assert_eq!(told[4].1["path"], "b/y.png");
        let _ = daemon.stop();
    }
}

mod receivers {
    use std::time::{Duration, Instant};

    use support::Hook;

    use super::*;

    /// The outbox is looked at every ten seconds in any case, so an event that comes sooner was told of.
    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn each_event_of_a_client_comes_without_waiting_for_the_next_look() {
        let sandbox = Sandbox::new();
        let hook = Hook::start();
        settings(
            &sandbox,
            "[events]\nprivate_networks = true",
            &format!("[[notify]]\ntype = \"webhook\"\nurl = \"{}\"", hook.url()),
        );
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        let came = |expected: &str| {
            let asked = Instant::now();
            until(expected, || {
                let events = hook.events();
                match events.last().is_some_and(|last| last == expected) {
                    true => Ok(()),
                    false => Err(format!("{events:?}")),
                }
            });
            assert!(asked.elapsed() < SOON, "{expected}: {:?}", asked.elapsed());
        };
        client.post("/albums", &json!({"name": "a"})).expect(201);
        came("album.created");
        client.upload("a", "?name=x.png", &png(1)).expect(201);
        came("file.stored");
        let title = json!({"metadata": {"title": "x"}});
        client.patch("/albums/a/images/x.png", &title).expect(200);
        came("file.updated");
        client
            .patch("/albums/a/images/x.png", &json!({"name": "y.png"}))
            .expect(200);
        came("file.changed");
        client.patch("/albums/a", &title).expect(200);
        came("album.updated");
        // A patch that changes nothing tells nothing.
        client.patch("/albums/a", &title).expect(200);
        client.patch("/albums/a", &json!({"name": "b"})).expect(200);
        came("album.renamed");
        client.delete("/albums/b/images/y.png").expect(204);
        came("file.deleted");
        client.delete("/albums/b").expect(204);
        came("album.deleted");
        let told: Vec<Value> = support::receivers::once(&hook.came.all());
        let of = |event: &str| {
            told.iter()
                .filter(|told| told["event"] == event)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("file.updated")[0]["changed"], json!(["title"]));
        assert_eq!(of("file.updated")[0]["metadata"], json!({"title": "x"}));
        assert_eq!(of("album.updated").len(), 1);
        assert_eq!(of("album.renamed")[0]["from"], "a");
        let _ = daemon.stop();
    }
}

mod images {
    use super::*;

    /// An origin with pictures that it knows again.
    fn site() -> Site {
        Site::start(|asked| {
            let n: u32 = asked.path[1..].parse().unwrap();
            Answer::ok(png(n))
                .header("ETag", format!("\"{n}\""))
                .unless_known(asked)
        })
    }

    #[test]
    fn an_image_is_renamed_and_moved_and_its_url_goes_on_to_stand_for_it() {
        let sandbox = Sandbox::new();
        let site = site();
        sandbox.write(
            "a.csv",
            format!("url,name\n{0}/1,one.png\n{0}/2,two.png\n", site.url("")),
        );
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        daemon.run("a");
        client.post("/albums", &json!({"name": "b/c"})).expect(201);
        let image = client.patch("/albums/a/images/one.png", &json!({"name": "first.png"}));
        let image = image.expect(200).json();
        assert_eq!(image["path"], "a/first.png");
        assert_eq!(image["name_from"], "list");
        assert_eq!(image["urls"][0], site.url("/1"));
        client.get("/albums/a/images/one.png").problem(404);
        let image = client.patch(
            "/albums/a/images/first.png",
            &json!({"name": "second", "album": "b/c", "metadata": {"k": [1]}}),
        );
        let image = image.expect(200).json();
        assert_eq!(
            (&image["path"], &image["album"]),
            (&json!("b/c/second.png"), &json!("b/c"))
        );
        assert_eq!(image["metadata"], json!({"k": [1]}));
        assert_eq!(client.bytes("b/c/second.png"), png(1));
        // To the root folder, and out of it.
        client
            .patch(
                "/albums/b%2Fc/images/second.png",
                &json!({"album": ":root"}),
            )
            .expect(200);
        assert!(!sandbox.path("out/b").exists());
        assert_eq!(client.names(":root"), ["second.png"]);
        client
            .patch("/albums/:root/images/second.png", &json!({"album": "b/c"}))
            .expect(200);
        // The next pass asks, hears that nothing has changed, and has no second copy.
        let last = daemon.run("a");
        assert_eq!(last["counts"]["unchanged"], 2, "{last}");
        client.patch("/albums/a", &json!({"name": "z"})).expect(200);
        let last = daemon.run("a");
        assert_eq!(last["counts"]["unchanged"], 2, "{last}");
        assert_eq!(sandbox.names(), ["b/c/second.png", "z/two.png"]);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
        // The name that the client gave stays, whatever the list wants.
        let rename = ["rename", "-o", "out", "b/c", "z", "--set"];
        for order in ["naming.order=list,url", "naming.order=url"] {
            sandbox.run([&rename[..], &[order]].concat()).expect(0);
        }
        assert_eq!(sandbox.names(), ["b/c/second.png", "z/2.png"]);
    }

    #[test]
    fn changed_bytes_come_to_where_the_image_is_by_now() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| Answer::ok(png(asked.path.len() as u32)));
        let changing = Site::start({
            let count = std::sync::atomic::AtomicU32::new(0);
            move |_| {
                Answer::ok(png(
                    100 + count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
                ))
            }
        });
        let list = format!(
            "url,name\n{},one.png\n{},two.png\n",
            changing.url("/1"),
            site.url("/2")
        );
        sandbox.write("a.csv", list);
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        daemon.run("a");
        client
            .patch(
                "/albums/a/images/one.png",
                &json!({"name": "moved.png", "metadata": {"k": 1}}),
            )
            .expect(200);
        client.patch("/albums/a", &json!({"name": "b"})).expect(200);
        let last = daemon.run("a");
        assert_eq!(last["counts"]["changed"], 1, "{last}");
        assert_eq!(sandbox.names(), ["b/moved.png", "b/two.png"]);
        assert_eq!(client.bytes("b/moved.png"), png(101));
        let image = client.get("/albums/b/images/moved.png").expect(200).json();
        assert_eq!(image["metadata"], json!({"k": 1}));
        assert_eq!(client.albums(), ["b"]);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn names_are_refused_or_set_right() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        client.upload("a", "?name=x.jpg", &jpeg(1)).expect(201);
        client.upload("a", "?name=y.png", &png(1)).expect(201);
        let image = "/albums/a/images/x.jpg";
        for name in [
            "",
            "..",
            "../y.png",
            "/etc/passwd",
            "b/x.jpg",
            ".x.jpg",
            "a\u{0}.jpg",
            "a\nb.jpg",
            "con.jpg",
            "a\u{202e}.jpg",
            &"x".repeat(300),
        ] {
            let (field, _) = wrong(client.patch(image, &json!({ "name": name })));
            assert_eq!(field, "name", "{name:?}");
        }
        let (field, detail) = wrong(client.patch(image, &json!({"album": "none"})));
        assert!(
            field == "album" && detail.contains("no album `none`"),
            "{detail}"
        );
        assert_eq!(
            wrong(client.patch(image, &json!({"album": "../a"}))).0,
            "album"
        );
        assert_eq!(
            wrong(client.patch(image, &json!({"album": null}))).0,
            "album"
        );
        client
            .patch(image, &json!({"name": "y.png.jpg"}))
            .expect(200);
        client
            .patch("/albums/a/images/y.png.jpg", &json!({"name": "x.jpg"}))
            .expect(200);
        let detail = client.patch("/albums/a/images/y.png", &json!({"name": "x.jpg"}));
        // It is a PNG, so that is not the same name.
        assert_eq!(detail.expect(200).json()["name"], "x.png");
        client
            .patch("/albums/a/images/x.png", &json!({"name": "y.png"}))
            .expect(200);

        // Its own name, with the extension that it has, or composed otherwise.
        for (name, becomes) in [
            ("x.jpg", "x.jpg"),
            ("x", "x.jpg"),
            ("x.png", "x.jpg"),
            ("x.jpeg", "x.jpeg"),
            ("x.jpg", "x.jpg"),
        ] {
            let here = client.names("a")[0].clone();
            let got = client.patch(
                &format!("/albums/a/images/{here}"),
                &json!({ "name": name }),
            );
            assert_eq!(got.expect(200).json()["name"], becomes);
        }
        let got = client
            .patch(image, &json!({"name": "o\u{308}.jpg"}))
            .expect(200)
            .json();
        assert_eq!(got["name"], "ö.jpg");
        client.upload("a", "?name=taken.jpg", &jpeg(2)).expect(201);
        client
            .patch("/albums/a/images/%C3%B6.jpg", &json!({"name": "taken.jpg"}))
            .problem(409);
        sandbox.write("out/a/strange.jpg", "of a stranger");
        client
            .patch(
                "/albums/a/images/%C3%B6.jpg",
                &json!({"name": "strange.jpg"}),
            )
            .problem(409);
        assert_eq!(sandbox.read("out/a/strange.jpg"), b"of a stranger");
        std::fs::remove_file(sandbox.path("out/a/strange.jpg")).unwrap();
        assert_eq!(client.bytes("a/%C3%B6.jpg"), jpeg(1));
        assert_eq!(client.bytes("a/taken.jpg"), jpeg(2));
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn a_deleted_image_is_gone_until_its_list_is_read_again() {
        let sandbox = Sandbox::new();
        let site = site();
        sandbox.write("a.csv", format!("url,name\n{}/1,one.png\n", site.url("")));
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        daemon.run("a");
        client.delete("/albums/a/images/one.png").expect(204);
        client.delete("/albums/a/images/one.png").problem(404);
        assert!(sandbox.names().is_empty() && sandbox.staged().is_empty());
        assert_eq!(client.get("/albums/a").expect(200).json()["files"], 0);
        let last = daemon.run("a");
        assert_eq!(last["counts"]["stored"], 1, "{last}");
        // What was altered is somebody's work.
        sandbox.write("out/a/one.png", "altered");
        client.delete("/albums/a/images/one.png").problem(409);
        client
            .patch("/albums/a/images/one.png", &json!({"name": "b.png"}))
            .problem(409);
        std::fs::remove_file(sandbox.path("out/a/one.png")).unwrap();
        let detail = client
            .patch("/albums/a/images/one.png", &json!({"name": "b.png"}))
            .problem(409);
        assert!(detail.contains("verify --repair"), "{detail}");
        client.delete("/albums/a/images/one.png").expect(204);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn where_a_template_lays_files_out_they_stay_where_they_are() {
        let sandbox = Sandbox::new();
        let site = site();
        sandbox.write("a.csv", format!("url,name\n{}/1,one.png\n", site.url("")));
        settings(
            &sandbox,
            "",
            "[naming]\ntemplate = \"by {host}/{album}/{name}\"\n",
        );
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        let (rest, naming) = text.split_once("[naming]").unwrap();
        sandbox.write("gannet.toml", format!("[naming]{naming}{rest}"));
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        daemon.run("a");
        let path = "by 127.0.0.1/a/one.png";
        assert_eq!(client.names("a"), [path]);
        client.patch("/albums/a", &json!({"name": "b"})).expect(200);
        assert_eq!(client.names("b"), [path]);
        let image = "/albums/b/images/by%20127.0.0.1%2Fa%2Fone.png";
        client.patch(image, &json!({ "name": path })).expect(200);
        let got = client
            .patch(image, &json!({"name": "two"}))
            .expect(200)
            .json();
        assert_eq!(got["path"], "by 127.0.0.1/a/two.png");
        client.post("/albums", &json!({"name": "c"})).expect(201);
        let image = "/albums/b/images/by%20127.0.0.1%2Fa%2Ftwo.png";
        let got = client
            .patch(image, &json!({"album": "c"}))
            .expect(200)
            .json();
        assert_eq!(got["path"], "by 127.0.0.1/c/two.png");
        let got = client
            .upload("c", "?name=sent.png", &png(7))
            .expect(201)
            .json();
        assert_eq!(got["path"], "by/c/sent.png");
        client.delete("/albums/c?files=true").expect(204);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
        assert!(sandbox.names().is_empty());
    }

    #[test]
    fn images_are_found_by_what_is_known_of_them() {
        let sandbox = Sandbox::new();
        let site = site();
        sandbox.write(
            "a.csv",
            format!(
                "url,name,shop\n{0}/1,one.png,7\n{0}/2,two.png,8\n",
                site.url("")
            ),
        );
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        daemon.run("a");
        client
            .upload("a", "?name=large.png", &png_of(3, 50))
            .expect(201);
        client.upload("a", "?name=moving.gif", &gif(4)).expect(201);
        client
            .patch(
                "/albums/a/images/large.png",
                &json!({"metadata": {"n": 5, "yes": true}}),
            )
            .expect(200);
        for (query, expected) in [
            ("?format=gif", vec!["moving.gif"]),
            ("?min_width=4", vec!["large.png"]),
            ("?max_width=3&format=png", vec!["one.png", "two.png"]),
            ("?min_height=51", vec![]),
            ("?max_height=50&min_bytes=1000", vec!["large.png"]),
            ("?meta.shop=8", vec!["two.png"]),
            ("?meta.n=5&meta.yes=true", vec!["large.png"]),
            ("?meta.n=5&meta.yes=false", vec![]),
            ("?host=127.0.0.1", vec!["one.png", "two.png"]),
            ("?host=example.org", vec![]),
            (
                "?since=2020-01-01T00:00:00Z",
                vec!["large.png", "moving.gif", "one.png", "two.png"],
            ),
            ("?until=2020-01-01T00:00:00%2B01:00", vec![]),
        ] {
            assert_eq!(client.images("a", query), expected, "{query}");
        }
        let page = client
            .get("/albums/a/images?format=png&limit=1")
            .expect(200)
            .json();
        let cursor = page["next"].as_str().unwrap();
        let page = client.get(&format!(
            "/albums/a/images?format=png&limit=5&cursor={cursor}"
        ));
        assert_eq!(page.expect(200).json()["items"][0]["name"], "one.png");
        for query in [
            "?colour=red",
            "?min_bytes=few",
            "?since=today",
            "?meta.=1",
            "?host=a%20b",
        ] {
            client.get(&format!("/albums/a/images{query}")).problem(400);
        }
        let _ = daemon.stop();
    }
}

mod conditions {
    use super::*;

    const PATHS: [&str; 2] = ["/albums/a", "/albums/a/images/1.png"];

    fn with_an_image(client: Client) {
        client.post("/albums", &json!({"name": "a"})).expect(201);
        client.upload("a", "?name=1.png", &png(1)).expect(201);
    }

    #[test]
    fn a_change_is_refused_where_the_state_is_another() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        let made = client.post("/albums", &json!({"name": "a"})).expect(201);
        assert_eq!(tag_of(&made), client.tag("/albums/a"));
        let sent = client.upload("a", "?name=1.png", &png(1)).expect(201);
        assert_eq!(tag_of(&sent), client.tag("/albums/a/images/1.png"));
        let change = |n: u32| json!({"metadata": {"n": n}});
        for path in PATHS {
            let old = client.tag(path);
            // The tag of the same state is the same.
            assert_eq!(old, client.tag(path));
            let list = format!("\"other\", {old}");
            let changed = client.only_if(&list, "PATCH", path, &change(1)).expect(200);
            // What a change answers is what there is to be changed next.
            let new = tag_of(&changed);
            assert_eq!(new, client.tag(path));
            assert_ne!(new, old);
            for method in ["PATCH", "DELETE"] {
                for tag in [&old, "\"other\"", &format!("W/{new}"), ""] {
                    let got = client.only_if(tag, method, path, &change(2));
                    let detail = got.problem(412);
                    assert!(detail.contains("has changed"), "{detail}");
                }
            }
            let unless = [("If-None-Match", new.as_str())];
            send(client.0, "DELETE", &api(path), &unless, b"").problem(412);
            // There is no date to hold against it.
            let since = [
                ("Content-Type", "application/json"),
                ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ];
            let body = change(3).to_string();
            let got = send(client.0, "PATCH", &api(path), &since, body.as_bytes());
            assert_eq!(got.expect(200).json()["metadata"], json!({"n": 3}));
            client.only_if("*", "PATCH", path, &change(4)).expect(200);
        }
        // Who knows an album knows what is in it.
        let before = client.tag("/albums/a");
        client.upload("a", "?name=2.png", &png(2)).expect(201);
        let all = "/albums/a?files=true";
        client
            .only_if(&before, "DELETE", all, &Value::Null)
            .problem(412);
        assert_eq!(client.names("a").len(), 2);
        // An answer to what would fail anyway is the same with a condition.
        for (method, path, status) in [
            ("PATCH", "/albums/none", 404),
            ("DELETE", "/albums/none", 404),
            ("PATCH", "/albums/a/images/none.png", 404),
            ("DELETE", "/albums/a/images/none.png", 404),
            ("DELETE", "/albums/:root", 409),
        ] {
            for tag in ["*", "\"other\""] {
                client
                    .only_if(tag, method, path, &change(5))
                    .problem(status);
            }
        }
        // Neither a body that is wrong changes anything, nor one whose condition does not hold.
        let tag = client.tag(PATHS[1]);
        client
            .only_if(&tag, "PATCH", PATHS[1], &json!({"name": "../x"}))
            .problem(422);
        let moved = client.only_if(&tag, "PATCH", PATHS[1], &json!({"name": "3.png"}));
        let moved = tag_of(&moved.expect(200));
        client
            .only_if(&moved, "DELETE", "/albums/a/images/3.png", &Value::Null)
            .expect(204);
        let tag = client.tag("/albums/a");
        client
            .only_if(&tag, "DELETE", all, &Value::Null)
            .expect(204);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    /// Has several clients change the same state at once, and returns what each is answered.
    fn race(client: Client, tag: &str, method: &str, path: &str, round: usize) -> Vec<u16> {
        std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|n| {
                    let change = json!({"metadata": {"by": n, "round": round}});
                    scope.spawn(move || client.only_if(tag, method, path, &change).status)
                })
                .collect();
            let mut told: Vec<u16> = racers.into_iter().map(|it| it.join().unwrap()).collect();
            told.sort_unstable();
            told
        })
    }

    #[test]
    fn of_several_clients_who_know_the_same_state_one_changes_it() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        with_an_image(client);
        for (round, path) in PATHS.into_iter().cycle().take(10).enumerate() {
            let told = race(client, &client.tag(path), "PATCH", path, round);
            assert_eq!(told, [200, 412, 412, 412, 412, 412, 412, 412]);
        }
        for path in ["/albums/a/images/1.png", "/albums/a?files=true"] {
            let of = path.split('?').next().unwrap();
            let told = race(client, &client.tag(of), "DELETE", path, 0);
            assert_eq!(told.iter().filter(|status| **status == 204).count(), 1);
            // The others hear that it has changed, or that it is gone.
            assert!(
                told[1..].iter().all(|status| [404, 412].contains(status)),
                "{told:?}"
            );
        }
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }
}

mod archives {
    use std::process::Command;

    use super::*;

    /// Names and lengths of the entries of an archive, which Python finds whole and uncompressed.
    fn entries(sandbox: &Sandbox, zip: &[u8]) -> Option<Vec<(String, u64)>> {
        sandbox.write("album.zip", zip);
        let script = "import json, sys, zipfile\n\
                      zip = zipfile.ZipFile(sys.argv[1])\n\
                      assert zip.testzip() is None\n\
                      assert all(one.compress_type == zipfile.ZIP_STORED for one in zip.infolist())\n\
                      print(json.dumps([[one.filename, one.file_size] for one in zip.infolist()]))";
        let ran = Command::new("python3")
            .args(["-c", script])
            .arg(sandbox.path("album.zip"))
            .output();
        let Ok(ran) = ran else {
            let required = std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
            assert!(
                !required,
                "GANNET_REQUIRE_SERVICES=1, and there is no python3"
            );
            println!("skipped: there is no python3");
            return None;
        };
        let error = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{error}");
        Some(serde_json::from_slice(&ran.stdout).unwrap())
    }

    #[test]
    fn an_album_is_one_archive() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for album in ["shops/2026", "shops/2026/inner"] {
            client.post("/albums", &json!({"name": album})).expect(201);
            client
                .upload(&album.replace('/', "%2F"), "?name=b.png", &png(1))
                .expect(201);
        }
        let large = png_of(2, 700);
        assert!(large.len() > 300_000, "{}", large.len());
        for (name, bytes) in [("a.png", &large), ("%C3%A4%20%23.png", &png(3))] {
            client
                .upload("shops%2F2026", &format!("?name={name}"), bytes)
                .expect(201);
        }
        let path = "/albums/shops%2F2026/zip";
        let got = client.get(path).expect(200);
        assert_eq!(got.header("content-type"), Some("application/zip"));
        assert_eq!(
            got.header("content-disposition"),
            Some("attachment; filename=\"shops-2026.zip\"")
        );
        if let Some(entries) = entries(&sandbox, &got.body) {
            let expected = [
                ("a.png".to_owned(), large.len() as u64),
                ("b.png".to_owned(), png(1).len() as u64),
                ("ä #.png".to_owned(), png(3).len() as u64),
            ];
            assert_eq!(entries, expected);
        }
        // The same files are the same archive, and their bytes stand in it as they are.
        assert_eq!(got.body, client.get(path).expect(200).body);
        assert!(got.body.windows(large.len()).any(|part| part == large));
        let head = send(client.0, "HEAD", &api(path), &[], b"").expect(200);
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-type"), Some("application/zip"));
        // An empty album is an empty archive.
        client.post("/albums", &json!({"name": "e"})).expect(201);
        let got = client.get("/albums/e/zip").expect(200);
        assert!(entries(&sandbox, &got.body).is_none_or(|entries| entries.is_empty()));
        client.get("/albums/none/zip").problem(404);
        client.get("/albums/e/zip?colour=red").problem(400);
        let _ = daemon.stop();
    }

    /// More than sockets hold of an answer that nobody reads.
    const LARGE: usize = 24 << 20;

    fn with_a_large_file(client: Client) {
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let large = vec![b'x'; LARGE];
        client
            .upload("a", "?kind=any&name=1.txt", &large)
            .expect(201);
        client.upload("a", "?name=2.png", &png(2)).expect(201);
    }

    /// Asks for the archive of album `a`, and reads the beginning of the answer.
    fn begin(client: Client) -> (std::net::TcpStream, Vec<u8>) {
        let mut stream = connect(client.0);
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            api("/albums/a/zip"),
            client.0
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut begun = vec![0; 12];
        stream.read_exact(&mut begun).unwrap();
        (stream, begun)
    }

    #[test]
    fn an_archive_whose_file_is_deleted_meanwhile_breaks_off() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        with_a_large_file(client);
        for is_deleted in [false, true] {
            let (mut stream, mut bytes) = begin(client);
            assert!(bytes.ends_with(b"200"), "{bytes:?}");
            if is_deleted {
                client.delete("/albums/a/images/2.png").expect(204);
            }
            // It may be reset.
            let read = stream.read_to_end(&mut bytes);
            let is_whole = read.is_ok() && bytes.ends_with(b"\r\n0\r\n\r\n");
            assert_eq!(is_whole, !is_deleted);
            assert!(is_deleted || bytes.len() > LARGE);
        }
        let run = daemon.stop();
        assert!(
            run.stderr.contains("the archive of album `a` breaks off"),
            "{}",
            run.stderr
        );
    }

    #[test]
    fn who_goes_away_leaves_his_place_to_others() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        with_a_large_file(client);
        let busy: Vec<_> = (0..4).map(|_| begin(client)).collect();
        let got = client.get("/albums/a/zip");
        assert!(got.header("retry-after").is_some());
        got.problem(503);
        drop(busy);
        until("there is a place", || match begin(client).1 {
            begun if begun.ends_with(b"200") => Ok(()),
            begun => Err(String::from_utf8_lossy(&begun).into_owned()),
        });
        let _ = daemon.stop();
    }
}

mod look_ups {
    use super::*;

    #[test]
    fn files_are_found_by_url_digest_and_path() {
        let sandbox = Sandbox::new();
        let site = Site::start(|asked| Answer::ok(png(asked.path[1..].parse().unwrap_or(9))));
        let secret = site.url("/2").replace("http://", "http://u:secret@");
        sandbox.write(
            "a.csv",
            format!("url,name\n{},one.png\n{secret},two.png\n", site.url("/1")),
        );
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        daemon.run("a");
        client.post("/albums", &json!({"name": "b"})).expect(201);
        client.upload("b", "?name=copy.png", &png(1)).expect(201);
        let find = |query: &str| {
            let page = client.get(&format!("/files?{query}")).expect(200).json();
            let items = page["items"].as_array().unwrap().iter();
            let paths: Vec<_> = items
                .map(|item| item["path"].as_str().unwrap().to_owned())
                .collect();
            (paths, page)
        };
        // Twice: the first look-up makes the indexes.
        for _ in 0..2 {
            let url = site.url("/1").replace("http", "HTTP");
            let (paths, page) = find(&format!("url={url}%23part"));
            assert_eq!(paths, ["a/one.png"]);
            let item = &page["items"][0];
            assert_eq!(item["urls"], json!([site.url("/1")]));
            assert_eq!(
                (&item["album"], &item["name"]),
                (&json!("a"), &json!("one.png"))
            );
            let resource = item["resource"].as_str().unwrap();
            assert_eq!(resource, "/api/v1/albums/a/images/one.png");
            send(client.0, "GET", resource, &[], b"").expect(200);
            send(client.0, "GET", item["href"].as_str().unwrap(), &[], b"").expect(200);
            for url in [secret.as_str(), &secret.replace("secret", "***")] {
                let (paths, page) = find(&format!("url={url}"));
                assert_eq!(paths, ["a/two.png"]);
                assert!(!page.to_string().contains("secret"), "{page}");
            }
            let digest = sha256(&png(1));
            assert_eq!(
                find(&format!("sha256={digest}")).0,
                ["a/one.png", "b/copy.png"]
            );
            let (paths, page) = find(&format!("sha256={digest}&limit=1"));
            assert_eq!(paths, ["a/one.png"]);
            let next = page["next"].as_str().unwrap();
            let (paths, page) = find(&format!("sha256={digest}&limit=1&cursor={next}"));
            assert_eq!(
                (paths, &page["next"]),
                (vec!["b/copy.png".to_owned()], &Value::Null)
            );
            assert_eq!(find("path=b/copy.png").0, ["b/copy.png"]);
            for none in ["path=b", "url=http://a.test/", "path=../../etc/passwd"] {
                assert!(find(none).0.is_empty(), "{none}");
            }
        }
        for wrong in [
            "",
            "url=x",
            "sha256=1",
            "path=a&url=http://a.test/",
            "size=1",
        ] {
            client.get(&format!("/files?{wrong}")).problem(400);
        }
        let _ = daemon.stop();
    }
}

mod uploads {
    use super::*;

    const SVG: &[u8] = b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"7\"><script>alert(1)</script></svg>";

    #[test]
    fn a_file_is_sent_as_a_body_and_named_by_the_query_or_a_header() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.upload("none", "", &png(1)).problem(404);
        client.post("/albums", &json!({"name": "a/b"})).expect(201);
        let got = client
            .upload("a%2Fb", "?name=Gr%C3%B6%C3%9Fe%201.JPG", &png(1))
            .expect(201);
        let location = "/api/v1/albums/a%2Fb/images/Gr%C3%B6%C3%9Fe%201.png";
        assert_eq!(got.header("location"), Some(location));
        let image = got.json();
        assert_eq!(image["path"], "a/b/Größe 1.png");
        assert_eq!(image["sha256"], sha256(&png(1)));
        assert_eq!(
            (&image["width"], &image["name_from"]),
            (&json!(3), &json!("list"))
        );
        assert_eq!(image["urls"], json!([]));
        assert_eq!(
            send(client.0, "GET", location, &[], b"").expect(200).json(),
            image
        );
        let named = [(
            "Content-Disposition",
            "attachment; filename*=UTF-8''%e2%82%ac.png",
        )];
        let got = send(
            client.0,
            "POST",
            &api("/albums/a%2Fb/images"),
            &named,
            &png(2),
        )
        .expect(201)
        .json();
        assert_eq!(
            (&got["name"], &got["name_from"]),
            (&json!("€.png"), &json!("header"))
        );
        let got = client.upload("a%2Fb", "", &png(3)).expect(201).json();
        assert_eq!(got["name_from"], "random");
        // The root folder is there in any case.
        let got = client
            .upload(":root", "?name=x", &jpeg(3))
            .expect(201)
            .json();
        assert_eq!(got["path"], "x.jpg");
        // An SVG with a script is kept as it is, and known for what it is.
        let got = client
            .upload("a%2Fb", "?name=active.svg", SVG)
            .expect(201)
            .json();
        assert_eq!((&got["active"], &got["width"]), (&json!(true), &json!(9)));
        let sent = send(client.0, "GET", got["href"].as_str().unwrap(), &[], b"").expect(200);
        assert_eq!(sent.body, SVG);
        let csp = sent.header("content-security-policy").unwrap();
        assert!(
            csp.contains("default-src 'none'") && csp.contains("sandbox"),
            "{csp}"
        );
        assert!(sandbox.staged().is_empty());
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_its_reason() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "max_upload = \"100KiB\"", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let whole = png_of(1, 40);
        let cut = &whole[..whole.len() / 2];
        let large = png_of(2, 300);
        assert!(large.len() > 100 * 1024);
        let page = [b"<!doctype html><title>".as_slice(), &[b'x'; 80_000]].concat();
        for (body, query, status, reason) in [
            (&b""[..], "", 422, "empty"),
            (cut, "", 422, "corrupt"),
            (&page, "?name=x.png", 415, "wrong-kind"),
            (b"%PDF-1.7", "", 415, "wrong-kind"),
            (&large, "", 413, "too-large"),
            (&page, "?kind=document", 415, "wrong-kind"),
        ] {
            let document = client.upload("a", query, body).expect(status).json();
            assert_eq!(document["reason"], reason, "{document}");
            assert_eq!(document["status"], status);
        }
        client
            .upload("a", "?kind=any&name=page.html", &page)
            .expect(201);
        let detail = client.upload("a", "?kind=movie", &page).problem(400);
        assert!(
            detail.contains("expected one of any, document, image"),
            "{detail}"
        );
        client.upload("a", "?colour=red", &whole).problem(400);
        let form = [("Content-Type", "multipart/form-data")];
        send(client.0, "POST", &api("/albums/a/images"), &form, b"").problem(400);
        // One that is too large is refused before it is sent.
        let mut stream = connect(client.0);
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
            api("/albums/a/images"),
            client.0
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        parse(&bytes).problem(413);
        assert_eq!(sandbox.names(), ["a/page.html"]);
        assert!(sandbox.staged().is_empty());
        let _ = daemon.stop();
    }

    #[test]
    fn a_form_has_several_files_and_each_is_told_of() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "max_upload = \"100KiB\"", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let got = client
            .form("a", &[("name=\"file\"; filename=\"one.png\"", &png(1))])
            .expect(201);
        assert_eq!(
            got.header("location"),
            Some("/api/v1/albums/a/images/one.png")
        );
        assert_eq!(got.json()["name"], "one.png");
        let large = png_of(2, 300);
        let got = client.form(
            "a",
            &[
                ("name=\"x\"; filename=\"two.png\"", &png(2)),
                ("name=metadata", b"{\"k\": 1}"),
                ("name=\"x\"; filename=\"large.png\"", &large),
                ("name=\"y\"; filename=\"../../evil.txt\"", &gif(3)),
                ("name=\"x\"; filename=\"page.png\"", b"<!doctype html>"),
                ("name=\"colour\"", b"red"),
            ],
        );
        let items = got.expect(207).json()["items"].clone();
        let told: Vec<_> = items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (item["file"].as_str(), item["status"].as_u64().unwrap()))
            .collect();
        // A header tells nothing but the name.
        assert_eq!(
            told,
            [
                (Some("two.png"), 201),
                (Some("large.png"), 413),
                (Some("evil.txt"), 201),
                (Some("page.png"), 415),
            ],
            "{items}"
        );
        assert_eq!(items[0]["image"].get("metadata"), None);
        assert_eq!(items[2]["image"]["name"], "evil.gif");
        assert_eq!(items[2]["image"]["metadata"], json!({"k": 1}));
        assert_eq!(items[1]["problem"]["reason"], "too-large");
        assert_eq!(items[3]["problem"]["reason"], "wrong-kind");
        let got = client.form(
            "a",
            &[
                ("name=\"x\"; filename=\"three.png\"", &png(4)),
                ("name=\"x\"; filename=\"\"", &png(5)),
            ],
        );
        let items = got.expect(201).json()["items"].clone();
        assert_eq!(items[1]["image"]["name_from"], "random");
        let alone = client.form(
            "a",
            &[("name=\"x\"; filename=\"page.png\"", b"<!doctype html>")],
        );
        assert_eq!(alone.expect(415).json()["reason"], "wrong-kind");
        assert_eq!(wrong(client.form("a", &[])).0, "file");
        assert_eq!(
            wrong(client.form("a", &[("name=metadata", b"[]")])).0,
            "metadata"
        );
        assert_eq!(client.names("a").len(), 5);
        assert!(sandbox.staged().is_empty());
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn fields_of_a_form_that_are_no_files_cost_it_none() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let file = |n: u32| -> (String, Vec<u8>) {
            (format!("name=\"file\"; filename=\"{n}.png\""), png(n))
        };
        let fields: [(&str, &[u8]); 5] = [
            ("name=\"csrf_token\"", b"0123456789abcdef"),
            // An input in which nobody chose a file.
            ("name=\"second\"; filename=\"\"", b""),
            ("name=\"\"", b"x"),
            ("x=y", b"no name"),
            ("name=\"_charset_\"", b"UTF-8"),
        ];
        for (n, field) in (1..).zip(fields) {
            for (m, is_first) in [(0, true), (1, false)] {
                let (said, bytes) = file(10 * n + m);
                let mut parts = vec![(said.as_str(), bytes.as_slice())];
                parts.insert(usize::from(!is_first), field);
                let got = client.form("a", &parts).expect(201).json();
                assert_eq!(got["name"], format!("{}.png", 10 * n + m), "{field:?}");
            }
        }
        // Nothing but such fields is no file.
        let problem = client.form("a", &fields).expect(422).json();
        assert_eq!(problem["errors"][0]["field"], "file");
        // Metadata that comes too late is not lost without a word.
        let (said, bytes) = file(90);
        let late: [(&str, &[u8]); 3] = [
            (&said, &bytes),
            ("name=\"metadata\"", b"{\"k\": 1}"),
            fields[0],
        ];
        let items = client.form("a", &late).expect(207).json()["items"].clone();
        assert_eq!(items[0]["status"], 201);
        assert_eq!(items[1]["problem"]["errors"][0]["field"], "metadata");
        // They are bounded in number and length.
        let many = vec![fields[0]; 1001];
        client.form("a", &many).problem(413);
        let long = vec![b'x'; 1024 * 1024 + 1];
        client.form("a", &[("name=\"note\"", &long)]).problem(413);
        assert_eq!(client.names("a").len(), 11);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn no_name_leads_out_of_its_album() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let long = format!("{}.png", "ä".repeat(300));
        for (n, name) in [
            "../../evil",
            "/etc/passwd",
            "..",
            ".hidden",
            "a\\b\\c.png",
            "nul.png",
            "a%00b%07.png",
            "o%CC%88.png",
            "x.png.exe",
            &long,
        ]
        .into_iter()
        .enumerate()
        {
            let query = format!("?name={}", name.replace('ä', "%C3%A4"));
            let got = client
                .upload("a", &query, &png(n as u32))
                .expect(201)
                .json();
            let name = got["name"].as_str().unwrap();
            assert!(name.ends_with(".png") && name.len() <= 255, "{name}");
            assert_eq!(got["path"], format!("a/{name}"));
        }
        let names = client.names("a");
        for expected in [
            "evil.png",
            "passwd.png",
            "hidden.png",
            "c.png",
            "_nul.png",
            "ab.png",
            "ö.png",
            "x.png",
        ] {
            assert!(
                names.iter().any(|name| name == expected),
                "{expected} in {names:?}"
            );
        }
        assert_eq!(sandbox.names().len(), 10);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn two_files_of_one_name_are_two_files() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        sandbox.write("out/a/x.png", "of a stranger");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let names: BTreeSet<String> = std::thread::scope(|scope| {
            let sent: Vec<_> = (0..6)
                .map(|n| {
                    scope.spawn(move || {
                        // Some bring the same bytes.
                        let got = client
                            .upload("a", "?name=x.png", &png(n / 2))
                            .expect(201)
                            .json();
                        got["name"].as_str().unwrap().to_owned()
                    })
                })
                .collect();
            sent.into_iter().map(|sent| sent.join().unwrap()).collect()
        });
        assert_eq!(names.len(), 6, "{names:?}");
        assert_eq!(client.names("a").len(), 6);
        assert_eq!(sandbox.read("out/a/x.png"), b"of a stranger");
        std::fs::remove_file(sandbox.path("out/a/x.png")).unwrap();
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn two_hundred_at_once_are_all_kept_while_a_job_runs() {
        let sandbox = Sandbox::new();
        let site =
            Site::start(|asked| Answer::ok(png(10_000 + asked.path[1..].parse::<u32>().unwrap())));
        let urls: Vec<String> = (0..300).map(|n| site.url(&format!("/{n}"))).collect();
        sandbox.write("a.csv", format!("url\n{}\n", urls.join("\n")));
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        daemon.ask("run", "a").expect(0);
        std::thread::scope(|scope| {
            for n in 0..200 {
                scope.spawn(move || {
                    let got = client.upload("a", "", &png(n)).expect(201).json();
                    let href = got["href"].as_str().unwrap();
                    assert_eq!(
                        send(client.0, "GET", href, &[], b"").expect(200).body,
                        png(n)
                    );
                });
            }
        });
        let last = daemon.until("a", "is over", |schedule| schedule["running"].is_null());
        assert_eq!(last["last"]["counts"]["stored"], 300, "{last}");
        assert_eq!(client.get("/albums/a").expect(200).json()["files"], 500);
        let contents: BTreeSet<String> = sandbox
            .files()
            .values()
            .map(|bytes| sha256(bytes))
            .collect();
        assert_eq!(contents.len(), 500);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn an_upload_that_breaks_off_leaves_nothing() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let bytes = png_of(1, 1600);
        assert!(bytes.len() > 2 * 1024 * 1024);
        let types = [
            "application/octet-stream",
            "multipart/form-data; boundary=sep",
        ];
        for media_type in types {
            let mut stream = connect(client.0);
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\nContent-Length: 9999999\r\n\r\n",
                api("/albums/a/images"),
                client.0
            );
            stream.write_all(head.as_bytes()).unwrap();
            if media_type.starts_with("multipart") {
                stream.write_all(b"--sep\r\nContent-Disposition: form-data; name=f; filename=\"x.png\"\r\n\r\n").unwrap();
            }
            stream.write_all(&bytes).unwrap();
            until("it is staged", || match sandbox.staged().len() {
                1 => Ok(()),
                n => Err(format!("{n} files")),
            });
            drop(stream);
            until("nothing is left of it", || match sandbox.staged().len() {
                0 => Ok(()),
                n => Err(format!("{n} files")),
            });
        }
        assert_eq!(client.names("a"), [""; 0]);
        let _ = daemon.stop();
        assert!(sandbox.names().is_empty());
    }

    #[test]
    fn a_large_file_needs_no_memory() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        let memory = |name: &str| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
        };
        let before = memory("VmRSS:");
        let length: usize = 300 << 20;
        let chunk = vec![b'x'; 1 << 20];
        for form in [false, true] {
            let (media_type, head, tail) = match form {
                false => ("application/octet-stream", "", ""),
                true => (
                    "multipart/form-data; boundary=sep",
                    "--sep\r\nContent-Disposition: form-data; name=f; filename=\"x\"\r\n\r\n",
                    "\r\n--sep--\r\n",
                ),
            };
            let mut stream = connect(client.0);
            let request = format!(
                "POST {}?kind=any HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{head}",
                api("/albums/a/images"),
                client.0,
                length + head.len() + tail.len()
            );
            stream.write_all(request.as_bytes()).unwrap();
            for _ in 0..length / chunk.len() {
                stream.write_all(&chunk).unwrap();
            }
            stream.write_all(tail.as_bytes()).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            let image = parse(&bytes).expect(201).json();
            assert_eq!(image["bytes"], length);
            let most = memory("VmHWM:");
            assert!(
                most < before + 64,
                "{before} MiB before, {most} MiB at most"
            );
            client
                .delete(&format!(
                    "/albums/a/images/{}",
                    image["name"].as_str().unwrap()
                ))
                .expect(204);
        }
        let _ = daemon.stop();
    }

    #[test]
    fn each_route_takes_the_scope_to_write() {
        let sandbox = Sandbox::new();
        settings(
            &sandbox,
            "tokens.reader = { token = \"reader-0123456789abcdef\", scopes = [\"read\"] }\n\
             tokens.writer = { token = \"writer-0123456789abcdef\", scopes = [\"write\"] }",
            "",
        );
        let daemon = Daemon::start(&sandbox);
        let to = daemon.api();
        let ask = |method: &str, path: &str, token: &str, body: &[u8]| {
            let bearer = format!("Bearer {token}-0123456789abcdef");
            let headers = [
                ("Authorization", bearer.as_str()),
                ("Content-Type", "application/json"),
            ];
            send(to, method, &api(path), &headers, body).status
        };
        for (method, path, body, status) in [
            ("POST", "/albums", &b"{\"name\": \"a\"}"[..], 201),
            ("POST", "/albums/a/images?name=x.png", &png(1), 201),
            ("PATCH", "/albums/a/images/x.png", b"{\"name\": \"y\"}", 200),
            ("PATCH", "/albums/a", b"{\"name\": \"b\"}", 200),
            ("DELETE", "/albums/b/images/y.png", b"", 204),
            ("DELETE", "/albums/b", b"", 204),
        ] {
            assert_eq!(ask(method, path, "reader", body), 403, "{method} {path}");
            assert_eq!(ask(method, path, "nobody", body), 401, "{method} {path}");
            assert_eq!(ask(method, path, "writer", body), status, "{method} {path}");
        }
        let _ = daemon.stop();
    }
}

mod crashes {
    use super::*;
    use gannet::fault;

    /// What is done when the daemon is killed.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Errand {
        Upload,
        Move,
        Rename,
        DeleteImage,
        DeleteAlbum,
    }

    /// A store with album `a` of seven images, and `a/b` of one.
    fn world() -> Sandbox {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for name in ["a", "a/b", "c"] {
            client.post("/albums", &json!({ "name": name })).expect(201);
        }
        for n in 0..7 {
            client
                .upload("a", &format!("?name={n}"), &png(n))
                .expect(201);
        }
        client.upload("a%2Fb", "?name=x", &png(8)).expect(201);
        let _ = daemon.stop();
        sandbox
    }

    /// Sends a request, whatever becomes of it.
    fn try_to(to: SocketAddr, errand: Errand) {
        let (method, path, body) = match errand {
            Errand::Upload => ("POST", "/albums/a/images?name=new", png(9)),
            Errand::Move => (
                "PATCH",
                "/albums/a/images/3.png",
                b"{\"name\": \"moved.png\", \"album\": \"c\"}".to_vec(),
            ),
            Errand::Rename => ("PATCH", "/albums/a", b"{\"name\": \"d/e\"}".to_vec()),
            Errand::DeleteImage => ("DELETE", "/albums/a/images/3.png", Vec::new()),
            Errand::DeleteAlbum => ("DELETE", "/albums/a?files=true", Vec::new()),
        };
        let mut stream = connect(to);
        let head = format!(
            "{method} {} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            api(path),
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&body);
        let _ = stream.read_to_end(&mut Vec::new());
    }

    /// What there may be after all is put in order: as before, or as it was to be.
    fn either(errand: Errand, names: &[String]) -> bool {
        let before: Vec<String> = world_names();
        let mut after = before.clone();
        match errand {
            Errand::Upload => after.push("a/new.png".to_owned()),
            Errand::Move => {
                after.retain(|name| name != "a/3.png");
                after.push("c/moved.png".to_owned());
            }
            Errand::Rename => {
                after = after
                    .iter()
                    .map(|name| name.replacen('a', "d/e", 1))
                    .collect()
            }
            Errand::DeleteImage => after.retain(|name| name != "a/3.png"),
            Errand::DeleteAlbum => after.retain(|name| name.starts_with("a/b/")),
        }
        after.sort();
        // An album goes some files at a time.
        let is_part =
            errand == Errand::DeleteAlbum && names.iter().all(|name| before.contains(name));
        names == before || names == after || is_part
    }

    fn world_names() -> Vec<String> {
        let mut names: Vec<String> = (0..7).map(|n| format!("a/{n}.png")).collect();
        names.push("a/b/x.png".to_owned());
        names.sort();
        names
    }

    #[test]
    fn a_kill_at_each_step_of_an_errand_leaves_it_done_or_undone() {
        if !fault::COMPILED_IN {
            return;
        }
        let points: [(Errand, &[&str]); 5] = [
            (
                Errand::Upload,
                &[
                    "store.stage.created",
                    "store.stage.written",
                    "store.sync.before",
                    "store.sync.done",
                    "catalog.before-commit",
                    "catalog.committed",
                    "errand.upload.recorded",
                    "store.publish.before",
                    "store.publish.one",
                ],
            ),
            (
                Errand::Move,
                &[
                    "store.withdraw.before",
                    "store.withdraw.one",
                    "errand.move.withdrawn",
                    "catalog.before-commit",
                    "catalog.committed",
                    "errand.move.recorded",
                    "store.publish.before",
                    "store.publish.one",
                ],
            ),
            (
                Errand::Rename,
                &[
                    "catalog.before-commit",
                    "catalog.committed",
                    "errand.rename.begun",
                    "errand.rename.folder",
                    "catalog.before-commit:2",
                    "catalog.committed:2",
                ],
            ),
            (
                Errand::DeleteImage,
                &[
                    "store.withdraw.one",
                    "job.files-withdrawn",
                    "job.files-deleted",
                    "store.discard.before",
                    "store.discard.one",
                ],
            ),
            (
                Errand::DeleteAlbum,
                &[
                    "store.withdraw.one:3",
                    "job.files-withdrawn",
                    "job.files-deleted",
                    "store.discard.one:4",
                    "errand.delete.part",
                    "catalog.before-commit",
                    "catalog.committed",
                ],
            ),
        ];
        for (errand, points) in points {
            for point in points {
                let sandbox = world();
                let number = if point.contains(':') { "" } else { ":1" };
                let fault = format!("{point}{number}=kill");
                let daemon = Daemon::start_with(&sandbox, &[(fault::VARIABLE, &fault)]);
                try_to(daemon.api(), errand);
                let run = daemon.end();
                assert_eq!(run.code(), 137, "{errand:?} {fault}:\n{run}");
                assert!(run.stderr.contains(fault::VARIABLE), "{errand:?} {fault}");
                assert_in_order(&sandbox, When::Crashed);
                let daemon = Daemon::start(&sandbox);
                let client = Client::of(&daemon);
                for album in client.albums() {
                    let path = album.replace('/', "%2F");
                    for name in client.names(&path) {
                        client.bytes(&format!("{album}/{name}"));
                    }
                }
                let _ = daemon.stop();
                assert_in_order(&sandbox, When::Restarted);
                let names = sandbox.names();
                assert!(either(errand, &names), "{errand:?} {fault}: {names:?}");
            }
        }
    }

    #[test]
    fn a_disk_that_fails_at_a_step_leaves_an_errand_done_or_undone() {
        if !fault::COMPILED_IN {
            return;
        }
        for (errand, point) in [
            (Errand::Upload, "store.stage.written:1=enospc"),
            (Errand::Upload, "store.sync.before:1=eio"),
            (Errand::Upload, "catalog.before-commit:1=enospc"),
            (Errand::Upload, "catalog.committed:1=eio"),
            (Errand::Move, "store.withdraw.before:1=eio"),
            (Errand::Move, "store.withdraw.one:1=eio"),
            (Errand::Move, "catalog.before-commit:1=enospc"),
            (Errand::Move, "catalog.committed:1=eio"),
            (Errand::Move, "store.publish.before:1=eio"),
            (Errand::Rename, "catalog.before-commit:1=enospc"),
            (Errand::Rename, "catalog.committed:1=eio"),
            (Errand::Rename, "catalog.before-commit:2=eio"),
            (Errand::Rename, "catalog.committed:2=eio"),
            (Errand::DeleteImage, "store.withdraw.one:1=eio"),
            (Errand::DeleteAlbum, "catalog.before-commit:1=eio"),
        ] {
            let sandbox = world();
            let daemon = Daemon::start_with(&sandbox, &[(fault::VARIABLE, point)]);
            try_to(daemon.api(), errand);
            // It goes on all the same.
            let client = Client::of(&daemon);
            client.upload("c", "?name=later.png", &png(20)).expect(201);
            client.delete("/albums/c/images/later.png").expect(204);
            let run = daemon.stop();
            assert!(run.stderr.contains(fault::VARIABLE), "{errand:?} {point}");
            assert_in_order(&sandbox, When::Crashed);
            Daemon::start(&sandbox).stop();
            assert_in_order(&sandbox, When::Restarted);
            let names = sandbox.names();
            assert!(either(errand, &names), "{errand:?} {point}: {names:?}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_renamed_after_a_crash_keeps_its_name() {
        if !fault::COMPILED_IN {
            return;
        }
        let sandbox = world();
        let daemon =
            Daemon::start_with(&sandbox, &[(fault::VARIABLE, "errand.rename.begun:1=kill")]);
        try_to(daemon.api(), Errand::Rename);
        assert_eq!(daemon.end().code(), 137);
        sandbox.write("out/d/e/strange.txt", "of a stranger");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        assert_eq!(client.albums(), ["a", "a/b", "c"]);
        assert_eq!(client.bytes("a/3.png"), png(3));
        daemon.stop().says(&["keeps its name"]);
        std::fs::remove_file(sandbox.path("out/d/e/strange.txt")).unwrap();
        assert_in_order(&sandbox, When::Restarted);
        assert_eq!(sandbox.names(), world_names());
    }
}

mod races {
    use super::*;

    #[test]
    fn albums_and_images_are_renamed_while_a_job_replaces_them() {
        let sandbox = Sandbox::new();
        // Each pass brings other bytes.
        let count = std::sync::atomic::AtomicU32::new(0);
        let site = Site::start(move |_| {
            Answer::ok(png(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)))
        });
        let rows: Vec<String> = (0..60)
            .map(|n| format!("{},{n}.png", site.url(&format!("/{n}"))))
            .collect();
        sandbox.write("a.csv", format!("url,name\n{}\n", rows.join("\n")));
        settings(&sandbox, "", "");
        let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
        sandbox.write(
            "gannet.toml",
            text.replace(
                "commit_interval = \"10ms\"",
                "commit_interval = \"1ms\"\ncommit_files = 3",
            ),
        );
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        daemon.run("a");
        let mut names = ["a".to_owned(), "b".to_owned()];
        for round in 0..4 {
            let last = daemon.schedule("a")["last"]["job"].clone();
            daemon.ask("run", "a").expect(0);
            for n in 0..15 {
                let album = client.patch(
                    &format!("/albums/{}", names[0]),
                    &json!({ "name": names[1] }),
                );
                assert_eq!(album.expect(200).json()["files"], 60);
                names.swap(0, 1);
                let n = round * 15 + n;
                let image = format!("/albums/{}/images/{n}.png", names[0]);
                client
                    .patch(&image, &json!({ "name": format!("renamed {n}") }))
                    .expect(200);
            }
            let last = daemon.ended_after("a", &last);
            assert_eq!(last["counts"]["changed"], 60, "{last}");
        }
        assert_eq!(client.names(&names[0]).len(), 60);
        assert_eq!(client.albums(), [names[0].as_str()]);
        assert!(
            sandbox
                .names()
                .iter()
                .all(|name| name.contains("/renamed "))
        );
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn of_all_who_want_a_name_one_gets_it() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        for n in 0..8 {
            client
                .post("/albums", &json!({ "name": format!("a{n}") }))
                .expect(201);
            client
                .upload(&format!("a{n}"), "?name=x.png", &png(n))
                .expect(201);
        }
        let at_once = |ask: &(dyn Fn(u32) -> u16 + Sync)| {
            let mut statuses: Vec<u16> = std::thread::scope(|scope| {
                let asked: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
                asked
                    .into_iter()
                    .map(|asked| asked.join().unwrap())
                    .collect()
            });
            statuses.sort_unstable();
            statuses
        };
        let others = [409; 7];
        let made = at_once(&|_| client.post("/albums", &json!({"name": "one"})).status);
        assert_eq!(made, [&[201][..], &others].concat());
        let moved = at_once(&|n| {
            client
                .patch(
                    &format!("/albums/a{n}/images/x.png"),
                    &json!({"album": "one"}),
                )
                .status
        });
        assert_eq!(moved, [&[200][..], &others].concat());
        let renamed = at_once(&|n| {
            client
                .patch(&format!("/albums/a{n}"), &json!({"name": "two"}))
                .status
        });
        assert_eq!(renamed, [&[200][..], &others].concat());
        let deleted = at_once(&|_| client.delete("/albums/one?files=true").status);
        assert_eq!(deleted, [&[204][..], &[404; 7]].concat());
        assert_eq!(sandbox.names().len(), 7);
        let _ = daemon.stop();
        assert_in_order(&sandbox, When::Restarted);
    }

    #[test]
    fn whoever_reads_a_file_while_its_album_is_renamed_gets_it() {
        let sandbox = Sandbox::new();
        settings(&sandbox, "", "");
        let daemon = Daemon::start(&sandbox);
        let client = Client::of(&daemon);
        client.post("/albums", &json!({"name": "a"})).expect(201);
        client.upload("a", "?name=x.png", &png(1)).expect(201);
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut read = 0;
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) || read == 0 {
                    // By the one name or the other.
                    for album in ["a", "b"] {
                        let got = send(client.0, "GET", &format!("/files/{album}/x.png"), &[], b"");
                        match got.status {
                            200 => {
                                assert_eq!(got.body, png(1));
                                read += 1;
                            }
                            _ => {
                                let detail = got.problem(404);
                                assert!(detail.contains("there is no file"), "{detail}");
                            }
                        }
                    }
                }
            });
            for n in 0..40 {
                let (from, to) = if n % 2 == 0 { ("a", "b") } else { ("b", "a") };
                client
                    .patch(&format!("/albums/{from}"), &json!({ "name": to }))
                    .expect(200);
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let _ = daemon.stop();
    }
}

#[test]
fn it_is_the_same_with_postgresql() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let sandbox = Sandbox::new();
    settings(&sandbox, "", "");
    let url = server.database();
    let text = String::from_utf8(sandbox.read("gannet.toml")).unwrap();
    sandbox.write("gannet.toml", format!("[catalog]\nurl = \"{url}\"\n{text}"));
    let daemon = Daemon::start(&sandbox);
    let client = Client::of(&daemon);
    client
        .post(
            "/albums",
            &json!({"name": "a", "metadata": {"k": "é\u{0}"}}),
        )
        .expect(201);
    client.post("/albums", &json!({"name": "a"})).problem(409);
    for n in 0..3 {
        client
            .upload("a", &format!("?name={n}"), &png(n))
            .expect(201);
    }
    client
        .patch(
            "/albums/a/images/1.png",
            &json!({"metadata": {"k": 1}, "name": "one"}),
        )
        .expect(200);
    assert_eq!(
        client.images("a", "?meta.k=1&min_width=1&host=example.org"),
        [""; 0]
    );
    assert_eq!(client.images("a", "?meta.k=1&min_width=1"), ["one.png"]);
    let album = client
        .patch("/albums/a", &json!({"name": "b/c"}))
        .expect(200)
        .json();
    assert_eq!(
        (&album["files"], &album["metadata"]["k"]),
        (&json!(3), &json!("é\u{0}"))
    );
    assert_eq!(client.bytes("b/c/one.png"), png(1));
    client
        .patch("/albums/b%2Fc/images/one.png", &json!({"album": ":root"}))
        .expect(200);
    client.delete("/albums/b%2Fc").problem(409);
    client.delete("/albums/b%2Fc?files=true").expect(204);
    assert_eq!(sandbox.names(), ["one.png"]);
    let _ = daemon.stop();
}
