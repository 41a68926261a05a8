//! Mail: a message for each event, meant for the ends of jobs: what came of it, what failed first, where to look.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use lettre::Message;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::delivery::{Deliver, Failure};
use super::line::{Dial, Line};
use super::settings::Mail;
use super::told::Told;
use crate::catalog::{Catalog, OutcomeFilter};

/// Failures that a message names.
const FAILURES: u32 = 10;

/// Longest subject, in characters.
const SUBJECT: usize = 150;

pub(super) struct Mailing {
    pub(super) to: Mail,
    pub(super) dial: Dial,
    pub(super) timeout: Duration,
    /// For `STARTTLS`. Connections that are encrypted from the start use that of `dial`.
    pub(super) starttls: Option<Arc<rustls::ClientConfig>>,
    /// Where failures are looked up, if anywhere.
    pub(super) catalog: Option<Arc<dyn Catalog>>,
}

#[async_trait]
impl Deliver for Mailing {
    async fn deliver(&mut self, events: &[Told]) -> (usize, Option<Failure>) {
        // One at a time: each takes long enough to be noted at once.
        let Some(told) = events.first() else {
            return (0, None);
        };
        let sent = tokio::time::timeout(self.timeout, self.send(told)).await;
        match sent {
            Ok(Ok(())) => (1, None),
            Ok(Err(failure)) => (0, Some(failure)),
            Err(_) => {
                let limit = humantime::format_duration(self.timeout);
                let late = format!("there was no answer within {limit}");
                (0, Some(Failure::away(late)))
            }
        }
    }
}

fn said(error: &lettre::transport::smtp::Error) -> Failure {
    let text = crate::target::describe(error);
    match error.is_permanent() {
        true => Failure::not_yet(text),
        false => Failure::away(text),
    }
}

impl Mailing {
    async fn send(&self, told: &Told) -> Result<(), Failure> {
        let message = self.message(told).await?;
        let away = |error: std::io::Error| Failure::away(error.to_string());
        let hello = ClientId::default();
        let line = match (self.dial.connect().await.map_err(away)?, &self.starttls) {
            (Line::Plain(stream), Some(tls)) => self.start_tls(stream, tls, &hello).await?,
            (line, _) => Box::new(line),
        };
        let connection = AsyncSmtpConnection::connect_with_transport(line, &hello);
        let mut connection = connection.await.map_err(|error| said(&error))?;
        let sent = self.hand_over(&mut connection, &message).await;
        // What was taken is taken, whether or not it says good-bye.
        let _ = connection.quit().await;
        sent
    }

    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        message: &Message,
    ) -> Result<(), Failure> {
        if let Some((user, password)) = &self.to.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            let known = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials);
            // A wrong password is no message's fault.
            known
                .await
                .map_err(|error| Failure::away(crate::target::describe(&error)))?;
        }
        let bytes = message.formatted();
        let sent = connection.send(message.envelope(), &bytes);
        sent.await.map(drop).map_err(|error| said(&error))
    }

    /// Asks for TLS in plain text (RFC 3207), then starts it.
    ///
    /// lettre's own TLS has its own rules of trust, so lettre only speaks SMTP here, before and after the handshake.
    async fn start_tls(
        &self,
        stream: TcpStream,
        tls: &Arc<rustls::ClientConfig>,
        hello: &ClientId,
    ) -> Result<Box<dyn AsyncTokioStream>, Failure> {
        let failed = |why: String| Failure::away(format!("no STARTTLS: {why}; see `tls`"));
        let lent = Lent(Arc::new(Mutex::new(Some(stream))));
        let plain = AsyncSmtpConnection::connect_with_transport(Box::new(lent.clone()), hello);
        let mut plain = plain.await.map_err(|error| said(&error))?;
        if !plain.can_starttls() {
            return Err(failed("the server does not offer it".to_owned()));
        }
        let asked = plain.command("STARTTLS\r\n").await;
        asked.map_err(|error| failed(crate::target::describe(&error)))?;
        // Discards all other bytes that came in plain text, so that nobody can inject commands.
        drop(plain);
        let stream = lent.take().expect("nobody else takes it");
        let line = self.dial.shake_hands(stream, tls).await;
        let line = line.map_err(|error| failed(error.to_string()))?;
        Ok(Box::new(Greeted {
            greeting: b"220 ready\r\n",
            line,
        }))
    }

    async fn message(&self, told: &Told) -> Result<Message, Failure> {
        let mut message = Message::builder()
            .from(self.to.from.clone())
            .subject(subject(told))
            // One that comes twice is known by it.
            .message_id(Some(format!(
                "<{}.{}@gannet.invalid>",
                told.id,
                told.job.unwrap_or_default()
            )))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to.to {
            message = message.to(to.clone());
        }
        let body = self.body(told).await;
        message
            .body(body)
            .map_err(|error| Failure::refused(error.to_string()))
    }

    async fn body(&self, told: &Told) -> String {
        let mut text = told.sentence() + "\n";
        let mut line = |name: &str, key: &str| {
            let value = told.text(key);
            if !value.is_empty() {
                text += &format!("{name:10} {}\n", plain(&value));
            }
        };
        line("\nsource", "source");
        line("album", "album");
        line("started", "started");
        line("finished", "finished");
        line("bytes", "bytes");
        let Some(job) = told.job else {
            return text;
        };
        text += &format!("{:10} {job}\n", "job");
        let failed = match &self.catalog {
            Some(catalog) => {
                let failed = catalog.outcomes(job, OutcomeFilter::Failed, None, FAILURES);
                failed.await.unwrap_or_default()
            }
            None => Vec::new(),
        };
        if !failed.is_empty() {
            text += "\nWhat failed first:\n";
        }
        for row in failed {
            let reason = row
                .reason
                .map_or_else(String::new, |reason| reason.to_string());
            let detail = row.detail.unwrap_or_default();
            text += &format!("  {}\n    {reason}: {}\n", plain(&row.url), plain(&detail));
        }
        text + &format!("\n`gannet jobs {job} --failed` lists all that failed.\n")
    }
}

/// The subject: what happened to which schedule or job.
fn subject(told: &Told) -> String {
    let subject = match told.event.split_once('.') {
        Some(("job", _)) => {
            let sentence = told.sentence();
            let end = sentence.find(" (").unwrap_or(sentence.len());
            format!("gannet: {}", &sentence[..end])
        }
        _ => format!("gannet: {}", told.sentence()),
    };
    plain(&subject).chars().take(SUBJECT).collect()
}

/// A text of one line: what comes from lists begins none of its own.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

/// A connection that can be taken back from lettre.
#[derive(Debug, Clone)]
struct Lent(Arc<Mutex<Option<TcpStream>>>);

impl Lent {
    fn take(&self) -> Option<TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with<T>(
        &self,
        act: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stream.as_mut() {
            Some(stream) => act(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncTokioStream for Lent {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.with(|stream| Poll::Ready(stream.peer_addr())) {
            Poll::Ready(address) => address,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}

/// A connection whose server has greeted already. lettre waits for a greeting, but there is none after `STARTTLS`.
#[derive(Debug)]
struct Greeted {
    /// The rest of a made-up greeting.
    greeting: &'static [u8],
    line: Line,
}

impl AsyncTokioStream for Greeted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.line.peer_addr()
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.greeting.is_empty() {
            return Pin::new(&mut self.line).poll_read(cx, buffer);
        }
        let (now, later) = self
            .greeting
            .split_at(self.greeting.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.greeting = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::told::told;
    use super::*;

    #[test]
    fn a_subject_is_one_line_whatever_a_name_holds() {
        let payload = json!({ "schedule": "a\r\nBcc: x@example.org", "counts": { "targets": 1 } });
        let subject = subject(&told(1, "job.failed", &payload));
        assert_eq!(subject, "gannet: schedule `a  Bcc: x@example.org` failed");
        let payload = json!({ "album": "x".repeat(999) });
        let long = super::subject(&told(1, "album.created", &payload));
        assert_eq!(long.chars().count(), SUBJECT);
    }
}
