//! The client against a real nginx, over HTTP/2. Skipped where nginx is not installed.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;
mod origin;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gannet::fetch::{Client, FetchError, Hosts, Request};
use origin::settings;
use origin::tls::Identity;
use tempfile::TempDir;
use url::Url;

/// nginx on loopback with a folder `www`; killed on drop.
struct Nginx {
    folder: TempDir,
    process: Child,
    port: u16,
}

impl Nginx {
    /// `None` where there is no nginx.
    fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// Starts nginx with these directives in its server section.
    fn start_with(directives: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let identity = Identity::new();
        fs::write(at("ca.pem"), &identity.ca_pem).unwrap();
        fs::write(at("cert.pem"), &identity.certificate_pem).unwrap();
        fs::write(at("key.pem"), &identity.key_pem).unwrap();
        fs::create_dir(at("www")).unwrap();
        // Free a moment ago; nginx cannot be handed a socket.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        fs::write(
            at("nginx.conf"),
            configuration(folder.path(), port, directives),
        )
        .unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(at("nginx.conf"))
            .args(["-g", "daemon off;"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                let required =
                    std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
                assert!(
                    !required,
                    "GANNET_REQUIRE_SERVICES=1, and there is no nginx: {error}"
                );
                eprintln!("skipped: there is no nginx: {error}");
                return None;
            }
        };
        let nginx = Self {
            folder,
            process,
            port,
        };
        nginx.wait();
        Some(nginx)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the test has to know when nginx listens"
    )]
    fn wait(&self) {
        let give_up = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < give_up, "nginx does not listen");
            std::thread::yield_now();
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Url {
        fs::write(self.folder.path().join("www").join(name), bytes).unwrap();
        format!("https://localhost:{}/{name}", self.port)
            .parse()
            .unwrap()
    }

    fn client(&self) -> Client {
        let ca = self.folder.path().join("ca.pem");
        Client::new(
            &settings(&format!("ca_files = [{ca:?}]")),
            &Hosts::default(),
        )
        .unwrap()
    }

    /// Protocol and connection of every request so far.
    fn log(mut self) -> Vec<String> {
        // Buffered lines are written when nginx ends in order.
        let _ = Command::new("kill")
            .args(["-QUIT", &self.process.id().to_string()])
            .status();
        let _ = self.process.wait();
        let log = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(folder: &Path, port: u16, directives: &str) -> String {
    let folder = folder.display();
    format!(
        "master_process off; pid {folder}/pid; error_log {folder}/error.log;
         events {{ worker_connections 1024; }}
         http {{
             log_format short '$server_protocol $connection $status';
             access_log {folder}/access.log short;
             client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
             uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
             gzip on; gzip_types text/csv; gzip_min_length 1;
             types {{ text/csv csv; image/png png; }}
             server {{
                 listen 127.0.0.1:{port} ssl http2;
                 ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
                 root {folder}/www;
                 {directives}
             }}
         }}"
    )
}

fn request(url: &Url) -> Request<'_> {
    Request {
        url,
        origin: url,
        accept: "*/*",
        validators: None,
        resume: None,
        trail: None,
        avoid: &[],
        max_bytes: u64::MAX,
    }
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut response = client.send(request(url)).await?;
    let mut all = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn requests_share_one_http2_connection() {
    let Some(nginx) = Nginx::start() else { return };
    let bytes = vec![7; 300_000];
    let url = nginx.put("a.png", &bytes);
    let client = nginx.client();
    // The first one makes the connection that the others find.
    assert_eq!(fetch(&client, &url).await.unwrap(), bytes);
    let all = futures_util::future::join_all((0..20).map(|_| fetch(&client, &url))).await;
    assert!(all.into_iter().all(|body| body.unwrap() == bytes));
    let log = nginx.log();
    assert_eq!(log.len(), 21);
    assert!(
        log.iter()
            .all(|line| line.starts_with("HTTP/2.0") && *line == log[0]),
        "{log:?}"
    );
}

#[tokio::test]
async fn conditions_ranges_and_encodings_work_with_nginx() {
    let Some(nginx) = Nginx::start() else { return };
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let picture = nginx.put("a.png", &bytes);
    let list = nginx.put("a.csv", &bytes);
    let client = nginx.client();
    let response = client.send(request(&picture)).await.unwrap();
    let known = response.validators();
    let unchanged = Request {
        validators: Some(&known),
        ..request(&picture)
    };
    assert_eq!(client.send(unchanged).await.unwrap().status, 304);

    let resume = response.resume(60_000).unwrap();
    let mut rest = client
        .send(Request {
            resume: Some(&resume),
            ..request(&picture)
        })
        .await
        .unwrap();
    assert_eq!(
        (rest.status, rest.resumed_at(), rest.content_length()),
        (206, 60_000, Some(40_000))
    );
    let mut part = Vec::new();
    while let Some(chunk) = rest.chunk().await.unwrap() {
        part.extend_from_slice(&chunk);
    }
    assert!(part == bytes[60_000..]);

    assert!(client.send(request(&list)).await.unwrap().is_encoded());
    assert!(fetch(&client, &list).await.unwrap() == bytes);
    let error = client
        .get(&nginx.put("x", b"").join("missing").unwrap(), "*/*", 10)
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(404));
}

#[test]
fn requests_beyond_the_last_one_of_a_connection_cost_no_attempt() {
    for (requests, per_host) in [(100, 8), (20, 64)] {
        let directives =
            format!("keepalive_requests {requests}; location /n/ {{ try_files /a.png =404; }}");
        let Some(nginx) = Nginx::start_with(&directives) else {
            return;
        };
        let url = nginx.put("a.png", b"a picture");
        let urls: Vec<_> = (0..2000)
            .map(|n| url.join(&format!("/n/{n}")).unwrap())
            .collect();
        let ca = nginx.folder.path().join("ca.pem");
        let run = common::Gannet::any()
            .set(format!("fetch.ca_files=[{ca:?}]"))
            .set(format!("fetch.per_host={per_host}"))
            .set("fetch.retries=0")
            .fetch(&urls)
            .settled();
        assert_eq!(run.count("stored"), 2000);
        assert!(run.items().iter().all(|item| item["attempts"] == 1));
        let log = nginx.log();
        assert_eq!(log.len(), 2000, "none was processed twice");
        assert!(log.iter().all(|line| line.starts_with("HTTP/2.0")));
        let connections: std::collections::HashSet<_> = log.iter().collect();
        assert!(connections.len() >= 2000 / requests);
    }
}
