//! Those who are told of events: a webhook, a mail server, a broker.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
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

/// A message that came to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: String,
}

/// A mosquitto on a port of loopback. Killed when dropped.
pub struct Broker {
    folder: tempfile::TempDir,
    pub port: u16,
    is_tls: bool,
    child: Option<Child>,
}

/// Who may publish and subscribe.
pub const USER: (&str, &str) = ("gannet", "open sesame");

impl Broker {
    /// One that runs; `None` where there is no mosquitto. It takes [`USER`] only. With a certificate, key and authority,
    /// all of them PEM, it speaks TLS.
    pub fn start(identity: Option<(&str, &str, &str)>) -> Option<Self> {
        let there = |name: &str| Command::new(name).arg("--help").output().is_ok();
        let has_all = ["mosquitto", "mosquitto_sub", "mosquitto_passwd"]
            .iter()
            .all(|name| there(&program(name)));
        if !has_all {
            let required = std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
            assert!(
                !required,
                "GANNET_REQUIRE_SERVICES=1, and there is no mosquitto with mosquitto_sub"
            );
            eprintln!("skipped: there is no mosquitto");
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("gannet-broker-")
            .tempdir()
            .unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let passwords = Command::new(program("mosquitto_passwd"))
            .args(["-b", "-c", &path("passwords"), USER.0, USER.1])
            .output()
            .unwrap();
        assert!(passwords.status.success(), "{passwords:?}");
        let port = nobody().port();
        let mut text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n\
             persistence true\npersistence_location {}/\nmax_queued_messages 0\n",
            path("passwords"),
            folder.path().display()
        );
        if let Some((certificate, key, authority)) = identity {
            for (name, pem) in [("cert", certificate), ("key", key), ("ca", authority)] {
                std::fs::write(path(&format!("{name}.pem")), pem).unwrap();
            }
            text += &format!(
                "certfile {}\nkeyfile {}\n",
                path("cert.pem"),
                path("key.pem")
            );
        }
        std::fs::write(path("mosquitto.conf"), text).unwrap();
        let mut broker = Self {
            folder,
            port,
            is_tls: identity.is_some(),
            child: None,
        };
        broker.restart();
        Some(broker)
    }

    /// Has it go by one more line of settings from its next start on.
    pub fn set(&self, line: &str) {
        let path = self.path("mosquitto.conf");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{line}\n{text}")).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it, and waits until it listens.
    #[track_caller]
    pub fn restart(&mut self) {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let child = Command::new(program("mosquitto"))
            .arg("-c")
            .arg(self.path("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        #[expect(clippy::disallowed_methods, reason = "loopback")]
        until("the broker listens", || TcpStream::connect(address).is_ok());
    }

    /// Ends it as an administrator does: it keeps what its subscribers have not had.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let ended = Command::new("kill").arg(child.id().to_string()).status();
            assert!(ended.unwrap().success());
            child.wait().unwrap();
        }
    }

    /// Subscribes to `topic` until it is dropped, also beyond the end of the broker.
    pub fn subscribe(&self, topic: &str) -> Subscriber {
        // It would keep lines back that go into a pipe.
        let mut command = Command::new("stdbuf");
        command
            .args([
                "-oL",
                &program("mosquitto_sub"),
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
            ])
            .args(["-i", "subscriber", "-c", "-q", "1", "-d", "-t", topic])
            .args(["-u", USER.0, "-P", USER.1, "-F", "> %t %p"]);
        if self.is_tls {
            command.arg("--cafile").arg(self.path("ca.pem"));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let (came, subscribed) = (Came::new(), Came::new());
        std::thread::spawn({
            let (came, subscribed) = (came.clone(), subscribed.clone());
            move || {
                for line in lines.lines().map_while(Result::ok) {
                    match line
                        .strip_prefix("> ")
                        .and_then(|line| line.split_once(' '))
                    {
                        Some((topic, payload)) => came.push(Message {
                            topic: topic.to_owned(),
                            payload: payload.to_owned(),
                        }),
                        None if line.starts_with("Subscribed") => subscribed.push(()),
                        None => {}
                    }
                }
            }
        });
        subscribed.until("it is subscribed", |times| !times.is_empty());
        Subscriber { child, came }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Debian keeps servers where only root looks for programs.
fn program(name: &str) -> String {
    let own = format!("/usr/sbin/{name}");
    match std::path::Path::new(&own).exists() {
        true => own,
        false => name.to_owned(),
    }
}

/// A `mosquitto_sub`. Killed when dropped.
pub struct Subscriber {
    child: Child,
    pub came: Arc<Came<Message>>,
}

impl Subscriber {
    /// Each event that came as JSON, as it came first.
    pub fn events(&self) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        for message in self.came.all() {
            let Ok(event) = serde_json::from_str::<Value>(&message.payload) else {
                continue;
            };
            if !events.iter().any(|other| other["id"] == event["id"]) {
                events.push(event);
            }
        }
        events
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mail that came.
#[derive(Debug, Clone)]
pub struct Letter {
    pub from: String,
    pub to: Vec<String>,
    /// Who sent it, if anybody said so: what came behind `AUTH PLAIN`.
    pub auth: Option<String>,
    pub is_encrypted: bool,
    pub text: String,
}

impl Letter {
    /// The value of a header, unfolded.
    pub fn header(&self, name: &str) -> String {
        let head = self.text.split("\r\n\r\n").next().unwrap();
        let head = head.replace("\r\n ", " ");
        let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map_or_else(String::new, |(_, value)| value.to_owned())
    }
}

/// A mail server that keeps what it gets.
pub struct Postbox {
    pub address: SocketAddr,
    pub came: Arc<Came<Letter>>,
    /// What the next letters are answered with, before they are taken.
    pub answers: Arc<Mutex<Vec<&'static str>>>,
}

trait ReadWrite: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> ReadWrite for T {}

impl Postbox {
    /// One that offers `STARTTLS` where it has TLS; `at_once`: it begins with it.
    pub fn start(tls: Option<Arc<rustls::ServerConfig>>, at_once: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (came, answers) = (Came::new(), Arc::<Mutex<Vec<&'static str>>>::default());
        std::thread::spawn({
            let (came, answers) = (came.clone(), answers.clone());
            // Ends with the process.
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (came, answers, tls) = (came.clone(), answers.clone(), tls.clone());
                    std::thread::spawn(move || {
                        let wrap = |stream, config| {
                            let connection = rustls::ServerConnection::new(config).unwrap();
                            rustls::StreamOwned::new(connection, stream)
                        };
                        match tls {
                            Some(config) if at_once => {
                                let mut stream = wrap(stream, config);
                                talk(&mut stream, true, false, &came, &answers);
                            }
                            Some(config) => {
                                let mut stream = stream;
                                if talk(&mut stream, false, true, &came, &answers) {
                                    let mut stream = wrap(stream, config);
                                    talk(&mut stream, true, false, &came, &answers);
                                }
                            }
                            None => {
                                let mut stream = stream;
                                talk(&mut stream, false, false, &came, &answers);
                            }
                        }
                    });
                }
            }
        });
        Self {
            address,
            came,
            answers,
        }
    }
}

/// Talks SMTP until the end, or until TLS is to begin: then `true`.
fn talk(
    stream: &mut dyn ReadWrite,
    is_encrypted: bool,
    offers_tls: bool,
    came: &Came<Letter>,
    answers: &Mutex<Vec<&'static str>>,
) -> bool {
    let blank = || Letter {
        from: String::new(),
        to: Vec::new(),
        auth: None,
        is_encrypted,
        text: String::new(),
    };
    let mut letter = blank();
    let begins_anew = is_encrypted && !offers_tls;
    let say = |stream: &mut dyn ReadWrite, text: &str| {
        stream.write_all(format!("{text}\r\n").as_bytes()).is_ok() && stream.flush().is_ok()
    };
    // After STARTTLS there is no other greeting; one that comes all the same would be taken for an answer.
    let mut greeting = Some("220 postbox");
    if begins_anew && AFTER_STARTTLS.with(|after| after.replace(false)) {
        greeting = None;
    }
    if let Some(greeting) = greeting
        && !say(stream, greeting)
    {
        return false;
    }
    while let Some(line) = line(stream) {
        let upper = line.to_ascii_uppercase();
        let said = if upper.starts_with("EHLO") {
            let tls = if offers_tls { "250-STARTTLS\r\n" } else { "" };
            say(
                stream,
                &format!("250-postbox\r\n{tls}250-AUTH PLAIN LOGIN\r\n250 8BITMIME"),
            )
        } else if upper == "STARTTLS" {
            say(stream, "220 go on");
            AFTER_STARTTLS.with(|after| after.set(true));
            return true;
        } else if let Some(auth) = line.strip_prefix("AUTH PLAIN ") {
            letter.auth = Some(auth.to_owned());
            say(stream, "235 welcome")
        } else if upper.starts_with("MAIL FROM:") {
            letter.from = address(&line);
            let next = answers.lock().unwrap().pop();
            say(stream, next.unwrap_or("250 ok"))
        } else if upper.starts_with("RCPT TO:") {
            letter.to.push(address(&line));
            say(stream, "250 ok")
        } else if upper == "DATA" {
            say(stream, "354 go on");
            let mut text = String::new();
            while let Some(next) = self::line(stream).filter(|next| next != ".") {
                text += next.strip_prefix('.').unwrap_or(&next);
                text += "\r\n";
            }
            letter.text = text;
            let auth = letter.auth.clone();
            came.push(std::mem::replace(&mut letter, blank()));
            letter.auth = auth;
            say(stream, "250 taken")
        } else if upper == "QUIT" {
            say(stream, "221 bye");
            return false;
        } else {
            say(stream, "502 what?")
        };
        if !said {
            return false;
        }
    }
    false
}

thread_local! {
    /// Whether the connection of this thread went over to TLS.
    static AFTER_STARTTLS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn address(line: &str) -> String {
    let from = line.find('<').map_or(0, |at| at + 1);
    let to = line.find('>').unwrap_or(line.len());
    line[from..to].to_owned()
}

/// A line without its end; `None` at the end of all.
fn line(stream: &mut dyn ReadWrite) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) if byte[0] == b'\n' => break,
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    Some(text.trim_end_matches('\r').to_owned())
}
