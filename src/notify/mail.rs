//! Mail: a message for each event, meant for the ends of jobs: what came of it, what failed first, where to look.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lettre::Message;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret as _;

use super::delivery::{Deliver, Failure};
use super::line::Dial;
use super::settings::{Mail, MailTls};
use super::told::Told;
use crate::catalog::{Catalog, OutcomeFilter};
use crate::local_path::LocalPath;

/// Failures that a message names.
const FAILURES: u32 = 10;

/// Longest subject, in characters.
const SUBJECT: usize = 150;

pub(super) struct Mailing {
    pub(super) to: Mail,
    pub(super) dial: Dial,
    pub(super) timeout: Duration,
    /// PEM files with authorities that are trusted besides the system's.
    pub(super) authorities: Vec<LocalPath>,
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
        true => Failure::refused(text),
        false => Failure::away(text),
    }
}

impl Mailing {
    async fn send(&self, told: &Told) -> Result<(), Failure> {
        let message = self.message(told).await?;
        let away = |error: std::io::Error| Failure::away(error.to_string());
        let line = self.dial.connect().await.map_err(away)?;
        let hello = ClientId::default();
        let connection = AsyncSmtpConnection::connect_with_transport(Box::new(line), &hello);
        let mut connection = connection.await.map_err(|error| said(&error))?;
        if self.to.tls == MailTls::StartTls {
            // What fails here leaves no connection to say good-bye by.
            let upgraded = connection.starttls(self.parameters()?, &hello).await;
            upgraded.map_err(|error| {
                let text = crate::target::describe(&error);
                Failure::away(format!("no STARTTLS: {text}; see `tls` and `ca_file`"))
            })?;
        }
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

    fn parameters(&self) -> Result<TlsParameters, Failure> {
        let mut parameters = TlsParameters::builder(self.dial.host.clone());
        for path in &self.authorities {
            let pem = std::fs::read(path).map_err(|error| {
                Failure::away(format!("cannot read `{}`: {error}", path.display()))
            })?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| said(&error))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters.build().map_err(|error| said(&error))
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
