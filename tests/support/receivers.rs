//! Those who are told of events: a webhook, a mail server, a broker.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far more than any delivery takes.
const LIMIT: Duration = Duration::from_secs(60);

/// What came, and whoever waits for it.
#[derive(Debug)]
pub struct Came<T> {
    all: Mutex<Vec<T>>,
    news: Condvar,
}

impl<T: Clone> Came<T> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            all: Mutex::new(Vec::new()),
            news: Condvar::new(),
        })
    }

    pub fn push(&self, one: T) {
        self.all.lock().unwrap().push(one);
        self.news.notify_all();
    }

    pub fn all(&self) -> Vec<T> {
        self.all.lock().unwrap().clone()
    }

    /// Waits until what came is as `is` wants it.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&[T]) -> bool) -> Vec<T>
    where
        T: std::fmt::Debug,
    {
        let all = self.all.lock().unwrap();
        let (all, late) = self
            .news
            .wait_timeout_while(all, LIMIT, |all| !is(all))
            .unwrap();
        assert!(
            !late.timed_out(),
            "not in {LIMIT:?}: {what}; there are {all:#?}"
        );
        all.clone()
    }
}

/// A request to a webhook.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Posted {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn event(&self) -> String {
        self.header("x-gannet-event").to_owned()
    }
}

/// What a webhook answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// It has it.
    Status(u16),
    /// Nothing, for as long as the connection is there.
    Nothing,
}

/// A webhook on loopback.
pub struct Hook {
    pub address: SocketAddr,
    /// What it said 2xx to.
    pub came: Arc<Came<Posted>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    pub fn start() -> Self {
        Self::with(|_| Says::Status(204))
    }

    pub fn with(says: impl Fn(&Posted) -> Says + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), Came::new(), says)
    }

    /// On an address, which another one may have had before, whose log it continues.
    pub fn on(
        address: SocketAddr,
        came: Arc<Came<Posted>>,
        says: impl Fn(&Posted) -> Says + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let says = Arc::new(says);
        let thread = std::thread::spawn({
            let (came, stop) = (came.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (came, stop, says) = (came.clone(), stop.clone(), says.clone());
                    // Ends with its connection: at the latest when the client's process ends.
                    std::thread::spawn(move || answer(stream, &came, &stop, &*says));
                }
            }
        });
        Self {
            address,
            came,
            stop,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The events that came, without those that came again.
    pub fn events(&self) -> Vec<String> {
        once(&self.came.all())
            .iter()
            .map(|event| event["event"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Each event as it came first.
pub fn once(posted: &[Posted]) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    for event in posted.iter().map(Posted::json) {
        if !events.iter().any(|other| other["id"] == event["id"]) {
            events.push(event);
        }
    }
    events
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        #[expect(clippy::disallowed_methods, reason = "loopback")]
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    stream: TcpStream,
    came: &Came<Posted>,
    stop: &AtomicBool,
    says: &(dyn Fn(&Posted) -> Says + Send + Sync),
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut posted = Posted {
            headers,
            body: String::new(),
        };
        let length: usize = posted.header("content-length").parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        posted.body = String::from_utf8(body).ok()?;
        // One that is no more has nothing.
        if stop.load(Ordering::SeqCst) {
            return None;
        }
        match says(&posted) {
            Says::Nothing => {
                // Until the other side hangs up.
                let _ = reader.read(&mut [0; 1]);
                return None;
            }
            Says::Status(status) => {
                if (200..300).contains(&status) {
                    came.push(posted);
                }
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).ok()?;
            }
        }
    }
}

/// A port on loopback where nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Waits for something that cannot be waited for.
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LIMIT, "not in {LIMIT:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
