//! An origin whose answers a test computes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far more than any request takes to come.
const LIMIT: Duration = Duration::from_secs(60);

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::ok("")
        }
    }

    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// A header of any bytes.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// 304 when the request's condition says that nothing changed (RFC 9110, section 13.2.2).
    pub fn unless_known(self, asked: &Asked) -> Self {
        let value = |name: &str| {
            let found = self.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let known = match asked.header("if-none-match") {
            Some(known) => value("ETag").is_some_and(|etag| etag == known),
            None => asked
                .header("if-modified-since")
                .is_some_and(|date| value("Last-Modified").is_some_and(|own| own == date)),
        };
        if known {
            Self {
                status: 304,
                body: Vec::new(),
                ..self
            }
        } else {
            self
        }
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

#[derive(Default)]
struct Log {
    asked: Mutex<Vec<Asked>>,
    news: Condvar,
    bodies: Mutex<u64>,
}

/// A running origin on loopback. A handler may block: every connection has a thread.
pub struct Site {
    pub address: SocketAddr,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    pub fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", handler)
    }

    /// On an address such as `127.0.0.2:0`.
    pub fn on(address: &str, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let thread = std::thread::spawn({
            let (log, stop) = (log.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (log, handler) = (log.clone(), handler.clone());
                    // Ends with its connection: at the latest when the client's process ends.
                    std::thread::spawn(move || {
                        let _ = serve(&stream, &log, &*handler);
                    });
                }
            }
        });
        Self {
            address,
            log,
            stop,
            thread: Some(thread),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The URL with another of this machine's names.
    pub fn url_as(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    /// A list of the URLs of these paths.
    pub fn list<S: AsRef<str>>(&self, paths: impl IntoIterator<Item = S>) -> String {
        let urls = paths.into_iter().map(|path| self.url(path.as_ref()) + "\n");
        urls.collect()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.log.asked.lock().unwrap().clone()
    }

    pub fn total(&self) -> usize {
        self.log.asked.lock().unwrap().len()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.log.asked.lock().unwrap().clear();
        *self.log.bodies.lock().unwrap() = 0;
    }

    /// Bytes of bodies that were sent.
    pub fn body_bytes(&self) -> u64 {
        *self.log.bodies.lock().unwrap()
    }

    /// Waits until so many requests have come.
    #[track_caller]
    pub fn wait_for(&self, requests: usize) {
        self.wait_for_or(requests, || false);
    }

    /// Waits until so many requests have come, or whoever asks has ended.
    #[track_caller]
    pub fn wait_for_or(&self, requests: usize, mut has_ended: impl FnMut() -> bool) {
        let begun = Instant::now();
        let mut asked = self.log.asked.lock().unwrap();
        while asked.len() < requests && !has_ended() {
            assert!(
                begun.elapsed() < LIMIT,
                "only {} of {requests} requests came",
                asked.len()
            );
            let waited = self.log.news.wait_timeout(asked, Duration::from_millis(20));
            asked = waited.unwrap().0;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        #[expect(
            clippy::disallowed_methods,
            reason = "wakes the origin's own thread, on loopback"
        )]
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &TcpStream, log: &Log, handler: &Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let asked = Asked { path, headers };
        log.asked.lock().unwrap().push(asked.clone());
        log.news.notify_all();
        let answer = handler(&asked);
        let mut out = format!("HTTP/1.1 {} Answer\r\n", answer.status).into_bytes();
        for (name, value) in &answer.headers {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        if answer.status != 304 {
            out.extend_from_slice(format!("Content-Length: {}\r\n", answer.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&answer.body);
        *log.bodies.lock().unwrap() += answer.body.len() as u64;
        let mut stream = stream;
        stream.write_all(&out)?;
    }
}

/// Holds handlers back until it is opened.
#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    news: Condvar,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.news.notify_all();
    }

    /// Returns when it is open, or after a limit that no test reaches.
    pub fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.news.wait_timeout_while(open, LIMIT, |open| !*open));
    }
}
