//! Against a real web server: nginx, started on a free port of loopback with a folder of its own.
//!
//! Skipped where there is no `nginx`, unless `GANNET_REQUIRE_SERVICES=1` says that there has to be one.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::pictures::{every_format, png_of, svg};
use support::{Sandbox, sha256};
use tempfile::TempDir;

/// A server that ends when it is dropped.
struct Nginx {
    folder: TempDir,
    port: u16,
}

fn nginx(folder: &Path, args: &[&str]) -> io::Result<Output> {
    Command::new("nginx")
        .arg("-p")
        .arg(folder)
        .args(["-c", "nginx.conf", "-e", "error.log"])
        .args(args)
        .output()
}

impl Nginx {
    /// `None` where there is no nginx.
    fn start() -> Option<Self> {
        if Command::new("nginx").arg("-v").output().is_err() {
            let required = std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
            assert!(
                !required,
                "GANNET_REQUIRE_SERVICES=1, and there is no nginx"
            );
            eprintln!("skipped: there is no nginx");
            return None;
        }
        let folder = TempDir::with_prefix("gannet-nginx-").unwrap();
        std::fs::create_dir(folder.path().join("files")).unwrap();
        // Between finding a free port and listening on it somebody else may take it: then another one.
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            std::fs::write(folder.path().join("nginx.conf"), configuration(port)).unwrap();
            // It goes to the background once it listens.
            let started = nginx(folder.path(), &[]).unwrap();
            if started.status.success() {
                return Some(Self { folder, port });
            }
            let said = String::from_utf8_lossy(&started.stderr).into_owned();
            assert!(
                said.contains("Address already in use"),
                "nginx does not start: {said}"
            );
        }
        panic!("no free port in twenty attempts");
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join("files").join(name), bytes).unwrap();
    }

    fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// `STATUS BODY-BYTES ENCODING RANGE` of each request so far.
    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = nginx(self.folder.path(), &["-s", "stop"]);
    }
}

fn configuration(port: u16) -> String {
    // Workers of a server that root starts would otherwise be somebody who cannot read this folder.
    format!(
        "user root;
         pid nginx.pid;
         worker_processes 1;
         events {{ worker_connections 512; }}
         http {{
             types {{ image/svg+xml svg; image/png png; image/jpeg jpg; image/webp webp; }}
             default_type application/octet-stream;
             log_format short '$status $body_bytes_sent $sent_http_content_encoding $http_range';
             access_log access.log short;
             client_body_temp_path body;
             proxy_temp_path proxy;
             fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi;
             scgi_temp_path scgi;
             gzip on;
             gzip_min_length 1;
             gzip_types image/svg+xml;
             server {{ listen 127.0.0.1:{port}; root files; }}
         }}"
    )
}

#[test]
fn three_hundred_pictures_are_stored_whole_and_the_second_run_brings_nothing() {
    let Some(nginx) = Nginx::start() else { return };
    let mut pictures: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for n in 0..34 {
        for (extension, bytes) in every_format(n) {
            pictures.insert(format!("{n}.{extension}"), bytes);
        }
    }
    assert!(pictures.len() >= 300);
    let mut list = String::new();
    for (name, bytes) in &pictures {
        nginx.put(name, bytes);
        list += &format!("{}\n", nginx.url(name));
    }
    let sandbox = Sandbox::new();
    let args = ["--set", "naming.order=[\"url\"]"];
    let report = sandbox.fetch_list(&list, 0, &args);
    assert_eq!(report.count("stored") as usize, pictures.len());
    assert_eq!(sandbox.files(), pictures);
    for item in report.items() {
        let bytes = &pictures[item["path"].as_str().unwrap()];
        assert_eq!(item["sha256"], sha256(bytes));
        assert_eq!(item["attempts"], 1);
    }
    let times = |sandbox: &Sandbox| -> Vec<(PathBuf, std::time::SystemTime)> {
        let files = sandbox
            .names()
            .into_iter()
            .map(|name| sandbox.store().join(name));
        let times = files.map(|path| {
            let time = std::fs::metadata(&path).unwrap().modified().unwrap();
            (path, time)
        });
        times.collect()
    };
    let before = times(&sandbox);
    let report = sandbox.fetch_list(&list, 0, &args);
    assert_eq!(report.count("unchanged") as usize, pictures.len());
    assert_eq!(times(&sandbox), before);
    let log = nginx.log();
    assert_eq!(log.len(), 2 * pictures.len());
    let second = &log[pictures.len()..];
    assert!(
        second.iter().all(|line| line.starts_with("304 0 ")),
        "{second:#?}"
    );
}

#[test]
fn what_the_server_compresses_is_stored_as_it_was() {
    let Some(nginx) = Nginx::start() else { return };
    let picture = svg(500);
    nginx.put("a.svg", &picture);
    let sandbox = Sandbox::new();
    let list = format!("{}\n", nginx.url("a.svg"));
    let report = sandbox.fetch_list(&list, 0, &[]);
    assert_eq!(sandbox.files().into_values().collect::<Vec<_>>(), [picture]);
    assert_eq!(report.only()["format"], "svg");
    assert!(nginx.log()[0].contains("gzip"), "{:?}", nginx.log());
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("unchanged"), 1);
    assert!(nginx.log()[1].starts_with("304 0 "), "{:?}", nginx.log());
}

#[test]
fn files_that_change_on_the_server_change_here() {
    let Some(nginx) = Nginx::start() else { return };
    nginx.put("a.png", &png_of(1, 20));
    let sandbox = Sandbox::new();
    let list = format!("{}\n", nginx.url("a.png"));
    sandbox.fetch_list(&list, 0, &[]);
    // Of another length, so that the ETag differs within one second too.
    nginx.put("a.png", &png_of(2, 30));
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("changed"), 1);
    assert_eq!(
        sandbox.files().into_values().collect::<Vec<_>>(),
        [png_of(2, 30)]
    );
}

/// Passes connections on, and cuts the first `cuts` of them after so many bytes from the server.
struct Cutter {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Cutter {
    fn start(server: u16, cuts: usize, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let count = AtomicUsize::new(0);
                for client in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(client) = client else { continue };
                    let is_cut = count.fetch_add(1, Ordering::SeqCst) < cuts;
                    let limit = if is_cut { after } else { u64::MAX };
                    std::thread::spawn(move || pass_on(&client, server, limit));
                }
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test's own proxy, on loopback"
)]
fn connect(address: impl std::net::ToSocketAddrs) -> io::Result<TcpStream> {
    TcpStream::connect(address)
}

fn pass_on(client: &TcpStream, server: u16, limit: u64) -> io::Result<()> {
    let server = connect(("127.0.0.1", server))?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let mut to_client = client;
    io::copy(&mut (&server).take(limit), &mut to_client)?;
    to_client.flush()?;
    server.shutdown(Shutdown::Both)?;
    client.shutdown(Shutdown::Write)
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_body_that_is_cut_off_is_continued_where_it_broke() {
    let Some(nginx) = Nginx::start() else { return };
    let picture = png_of(1, 600);
    assert!(picture.len() > 400_000, "{}", picture.len());
    nginx.put("big.png", &picture);
    let cutter = Cutter::start(nginx.port, 2, 150_000);
    let sandbox = Sandbox::new();
    let report = sandbox.fetch_list(format!("http://{}/big.png\n", cutter.address), 0, &[]);
    assert_eq!(report.only()["sha256"], sha256(&picture));
    assert_eq!(report.only()["attempts"], 3);
    assert_eq!(sandbox.files().into_values().collect::<Vec<_>>(), [picture]);
    let log = nginx.log();
    // nginx writes a line when a request ends: the cut ones may still be on their way to the log.
    assert!(
        log.iter()
            .any(|line| line.starts_with("206 ") && line.contains("bytes=")),
        "{log:#?}"
    );
    assert!(
        log.iter().filter(|line| line.starts_with("200 ")).count() <= 1,
        "{log:#?}"
    );
}
