//! `[events]` and `[[notify]]`.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use lettre::message::Mailbox;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::told::{Template, Told};
use crate::catalog::{EVENTS, Wants};
use crate::local_path::LocalPath;

/// `[events]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Events that may wait for their receivers.
    pub keep: u64,
    /// How long one may wait.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// How long a receiver that answers with 404 or its like is asked again, before the event is a dead letter.
    #[serde(with = "humantime_serde")]
    pub refused_for: Duration,
    /// Dead letters that are kept for each receiver.
    pub dead_letters: u32,
    /// How long a process that ends goes on to deliver what waits.
    #[serde(with = "humantime_serde")]
    pub stop_timeout: Duration,
    /// Whether receivers may have addresses that are not on the public Internet.
    pub private_networks: bool,
}

/// A `[[notify]]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    #[serde(rename = "type")]
    kind: KindName,
    name: Option<String>,
    events: Option<Vec<String>>,
    #[serde(default)]
    schedules: Vec<String>,
    #[serde(default)]
    albums: Vec<String>,
    url: Option<String>,
    url_file: Option<LocalPath>,
    #[serde(default, with = "humantime_serde")]
    timeout: Option<Duration>,
    ca_file: Option<LocalPath>,
    user: Option<String>,
    password: Option<SecretString>,
    password_file: Option<LocalPath>,
    // MQTT
    version: Option<MqttVersion>,
    client_id: Option<String>,
    topic: Option<String>,
    payload: Option<String>,
    status_topic: Option<String>,
    // Webhooks
    secret: Option<SecretString>,
    secret_file: Option<LocalPath>,
    format: Option<Format>,
    headers: Option<BTreeMap<String, SecretString>>,
    // Mail
    tls: Option<MailTls>,
    from: Option<String>,
    to: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Mqtt,
    Webhook,
    Mail,
}

impl KindName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        }
    }
}

/// Which protocol a broker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MqttVersion {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V4,
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
}

/// What a webhook gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The event.
    Json,
    /// A sentence.
    Text,
    /// A sentence, as Slack, Mattermost and Rocket.Chat take it.
    Slack,
    /// A sentence, as Discord takes it.
    Discord,
    /// A sentence in an adaptive card, as the workflows of Teams take it.
    Teams,
}

/// How a connection to a mail server is kept secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// It begins openly, and goes on encrypted or not at all.
    StartTls,
    /// It is encrypted from the beginning.
    Tls,
    /// It is not.
    None,
}

/// Somebody who gets events.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// What it is called: how far it is, is remembered by its name.
    pub name: String,
    /// What it wants.
    pub events: Wants,
    /// The schedules whose events it wants; empty: of all, and of what is no schedule's.
    pub schedules: Vec<String>,
    /// The albums whose events it wants; empty: of all.
    pub albums: Vec<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// A PEM file with authorities that it trusts besides the system's.
    pub ca_file: Option<LocalPath>,
    /// How it gets them.
    pub kind: Kind,
}

/// How a receiver gets events.
#[derive(Debug, Clone)]
pub enum Kind {
    /// From a broker.
    Mqtt(Mqtt),
    /// By HTTP.
    Webhook(Webhook),
    /// By mail.
    Mail(Mail),
}

/// A broker.
#[derive(Debug, Clone)]
pub struct Mqtt {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
    /// The protocol.
    pub version: MqttVersion,
    /// How gannet calls itself.
    pub client_id: Option<String>,
    /// Who it says it is.
    pub credentials: Option<(String, SecretString)>,
    /// Where an event goes.
    pub topic: Template,
    /// What it says; `None`: JSON.
    pub payload: Option<Template>,
    /// Where `online` and `offline` stand; `None`: nowhere.
    pub status_topic: Option<String>,
}

/// A URL that events are posted to.
#[derive(Clone)]
pub struct Webhook {
    /// The URL. It may be a secret.
    pub url: Url,
    /// Signs what is posted.
    pub secret: Option<SecretString>,
    /// What it gets.
    pub format: Format,
    /// Further headers.
    pub headers: HeaderMap,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("host", &self.url.host_str())
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is kept secret.
    pub tls: MailTls,
    /// Who gannet says it is.
    pub credentials: Option<(String, SecretString)>,
    /// Who sends.
    pub from: Mailbox,
    /// Who gets it.
    pub to: Vec<Mailbox>,
}

/// What is wrong with a `[[notify]]`: the key, and why.
type Wrong = (&'static str, String);

impl Written {
    /// Reads what it means, and the files that hold its secrets.
    ///
    /// # Errors
    ///
    /// The key at fault, and what is wrong with it.
    pub fn resolve(&self) -> Result<Receiver, Wrong> {
        self.check_keys()?;
        let kind_name = self.kind.as_str();
        let name = self.name.clone().unwrap_or_else(|| kind_name.to_owned());
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err((
                "name",
                "expected up to 64 letters, digits, `_`, `-` and `.`".to_owned(),
            ));
        }
        let default: &[&str] = match self.kind {
            KindName::Mail => &[
                "job.completed",
                "job.incomplete",
                "job.failed",
                "job.cancelled",
            ],
            _ => &["*"],
        };
        let events = match &self.events {
            Some(events) => Wants::new(events.iter().map(String::as_str)),
            None => Wants::new(default.iter().copied()),
        };
        let events = events.map_err(|wrong| {
            let known = EVENTS.join("`, `");
            (
                "events",
                format!(
                    "`{wrong}` means no event; there are `{known}`, and patterns such as `job.*`"
                ),
            )
        })?;
        let kind = match self.kind {
            KindName::Mqtt => Kind::Mqtt(self.mqtt()?),
            KindName::Webhook => Kind::Webhook(self.webhook()?),
            KindName::Mail => Kind::Mail(self.mail()?),
        };
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if timeout.is_zero() {
            return Err(("timeout", "leaves no time".to_owned()));
        }
        Ok(Receiver {
            name,
            events,
            schedules: self.schedules.clone(),
            albums: self.albums.clone(),
            timeout,
            ca_file: self.ca_file.clone(),
            kind,
        })
    }

    /// Keys that belong to receivers of another type.
    fn check_keys(&self) -> Result<(), Wrong> {
        use KindName::{Mail, Mqtt, Webhook};
        let keys: [(&'static str, bool, &[KindName]); 15] = [
            ("version", self.version.is_some(), &[Mqtt]),
            ("client_id", self.client_id.is_some(), &[Mqtt]),
            ("topic", self.topic.is_some(), &[Mqtt]),
            ("payload", self.payload.is_some(), &[Mqtt]),
            ("status_topic", self.status_topic.is_some(), &[Mqtt]),
            ("user", self.user.is_some(), &[Mqtt, Mail]),
            ("password", self.password.is_some(), &[Mqtt, Mail]),
            ("password_file", self.password_file.is_some(), &[Mqtt, Mail]),
            ("secret", self.secret.is_some(), &[Webhook]),
            ("secret_file", self.secret_file.is_some(), &[Webhook]),
            ("format", self.format.is_some(), &[Webhook]),
            ("headers", self.headers.is_some(), &[Webhook]),
            ("tls", self.tls.is_some(), &[Mail]),
            ("from", self.from.is_some(), &[Mail]),
            ("to", self.to.is_some(), &[Mail]),
        ];
        let stray = keys
            .into_iter()
            .find(|(_, is_set, kinds)| *is_set && !kinds.contains(&self.kind));
        match stray {
            Some((key, _, kinds)) => {
                let kinds: Vec<_> = kinds
                    .iter()
                    .map(|kind| format!("\"{}\"", kind.as_str()))
                    .collect();
                let (kinds, kind) = (kinds.join(" and "), self.kind.as_str());
                Err((key, format!("is for type {kinds}, not for \"{kind}\"")))
            }
            None => Ok(()),
        }
    }

    /// The URL, whose scheme is one of `schemes`.
    fn url(&self, schemes: &[&str]) -> Result<Url, Wrong> {
        let expected = schemes.join("://`, `");
        let text = match (&self.url, &self.url_file) {
            (Some(_), Some(_)) => {
                return Err(("url_file", "cannot be combined with `url`".to_owned()));
            }
            (Some(url), None) => url.clone(),
            (None, Some(file)) => read("url_file", file)?,
            (None, None) => {
                return Err((
                    "type",
                    format!("needs a `url` beside it, with `{expected}://`"),
                ));
            }
        };
        // A URL may be a secret, and is not repeated.
        let url = Url::parse(&text).ok();
        let url = url.filter(|url| {
            schemes.contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty())
        });
        let Some(url) = url else {
            return Err(("url", format!("is no URL with `{expected}://` and a host")));
        };
        if self.kind != KindName::Webhook
            && (!url.username().is_empty() || url.password().is_some())
        {
            return Err((
                "url",
                "holds credentials; write them as `user` and `password`, or `password_file`"
                    .to_owned(),
            ));
        }
        Ok(url)
    }

    fn secret(
        key: &'static str,
        plain: Option<&SecretString>,
        file_key: &'static str,
        file: Option<&LocalPath>,
    ) -> Result<Option<SecretString>, Wrong> {
        match (plain, file) {
            (Some(_), Some(_)) => Err((file_key, format!("cannot be combined with `{key}`"))),
            (None, Some(file)) => Ok(Some(read(file_key, file)?.into())),
            (plain, None) => Ok(plain.cloned()),
        }
    }

    fn credentials(&self) -> Result<Option<(String, SecretString)>, Wrong> {
        let password = Self::secret(
            "password",
            self.password.as_ref(),
            "password_file",
            self.password_file.as_ref(),
        )?;
        match (&self.user, password) {
            (None, Some(_)) => Err(("type", "has a password without `user`".to_owned())),
            (Some(user), password) => Ok(Some((user.clone(), password.unwrap_or_default()))),
            (None, None) => Ok(None),
        }
    }

    fn mqtt(&self) -> Result<Mqtt, Wrong> {
        let url = self.url(&["mqtt", "mqtts"])?;
        let topic = self.topic.as_deref().unwrap_or("gannet/{event/}");
        let topic = Template::new(topic).map_err(|problem| ("topic", problem))?;
        if let Some(field) = topic.fields().find(|field| !TOPIC_FIELDS.contains(field)) {
            let known = TOPIC_FIELDS.join("}`, `{");
            return Err((
                "topic",
                format!("`{{{field}}}` is no field of a topic; there are `{{{known}}}`"),
            ));
        }
        let all: String = topic.texts().collect();
        check_topic("topic", &all)?;
        if all.is_empty() && topic.fields().next().is_none() {
            return Err(("topic", "is empty".to_owned()));
        }
        let payload = match self.payload.as_deref() {
            None | Some("json") => None,
            Some("text") => Some(Template::new("{sentence}")),
            Some(text) => Some(Template::new(text)),
        };
        let payload = payload
            .transpose()
            .map_err(|problem| ("payload", problem))?;
        let status_topic = match self.status_topic.as_deref() {
            Some("") => None,
            Some(topic) => {
                check_topic("status_topic", topic)?;
                Some(topic.to_owned())
            }
            None => {
                // Beside the events: behind what all their topics begin with.
                let first = topic.texts().next().unwrap_or_default();
                let prefix = first
                    .rsplit_once('/')
                    .map_or("gannet", |(prefix, _)| prefix);
                Some(format!("{prefix}/status"))
            }
        };
        let is_tls = url.scheme() == "mqtts";
        Ok(Mqtt {
            host: host(&url),
            port: url.port().unwrap_or(if is_tls { 8883 } else { 1883 }),
            is_tls,
            version: self.version.unwrap_or(MqttVersion::V5),
            client_id: self.client_id.clone(),
            credentials: self.credentials()?,
            topic,
            payload,
            status_topic,
        })
    }

    fn webhook(&self) -> Result<Webhook, Wrong> {
        let url = self.url(&["https", "http"])?;
        let secret = Self::secret(
            "secret",
            self.secret.as_ref(),
            "secret_file",
            self.secret_file.as_ref(),
        )?;
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.iter().flatten() {
            let wrong = || ("headers", format!("`{name}` cannot be sent as a header"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Webhook {
            url,
            secret,
            format: self.format.unwrap_or(Format::Json),
            headers,
        })
    }

    fn mail(&self) -> Result<Mail, Wrong> {
        let url = self.url(&["smtp", "smtps"])?;
        let tls = match (url.scheme(), self.tls) {
            ("smtps", None | Some(MailTls::Tls)) | ("smtp", Some(MailTls::Tls)) => MailTls::Tls,
            ("smtps", Some(_)) => return Err(("tls", "cannot differ from `smtps://`".to_owned())),
            (_, tls) => tls.unwrap_or(MailTls::StartTls),
        };
        let port = url.port().unwrap_or(match tls {
            MailTls::StartTls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        });
        let mailbox = |key: &'static str, text: &str| {
            text.parse::<Mailbox>().map_err(|_| {
                (key, format!("`{text}` is no address; expected one such as \"gannet <gannet@example.org>\""))
            })
        };
        let from = self
            .from
            .as_deref()
            .ok_or(("type", "needs `from` beside it".to_owned()))?;
        let to = self.to.as_deref().unwrap_or_default();
        if to.is_empty() {
            return Err((
                "type",
                "needs `to` beside it: a list of addresses".to_owned(),
            ));
        }
        let credentials = self.credentials()?;
        if credentials.is_some() && tls == MailTls::None {
            return Err((
                "tls",
                "`none` would send the password for all to read".to_owned(),
            ));
        }
        Ok(Mail {
            host: host(&url),
            port,
            tls,
            credentials,
            from: mailbox("from", from)?,
            to: to
                .iter()
                .map(|to| mailbox("to", to))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// How long one attempt may take, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What may stand in a topic.
const TOPIC_FIELDS: [&str; 7] = [
    "event", "event/", "album", "schedule", "job", "format", "id",
];

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).to_owned()
}

/// Topics that messages go to have no wildcards (MQTT 5, section 4.7).
fn check_topic(key: &'static str, text: &str) -> Result<(), Wrong> {
    if text.contains(['+', '#', '\0']) {
        return Err((
            key,
            "holds `+` or `#`, which only subscriptions may".to_owned(),
        ));
    }
    if text.len() > 1024 {
        return Err((key, "is longer than 1024 bytes".to_owned()));
    }
    Ok(())
}

fn read(key: &'static str, file: &LocalPath) -> Result<String, Wrong> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| (key, format!("cannot read `{}`: {error}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl Receiver {
    /// Whether it is to have an event.
    pub fn wants(&self, told: &Told) -> bool {
        let among =
            |names: &[String], key: &str| names.is_empty() || names.contains(&told.text(key));
        self.events.has(&told.event)
            && among(&self.schedules, "schedule")
            && among(&self.albums, "album")
    }

    /// How it gets them, for people; no secret.
    pub fn place(&self) -> String {
        match &self.kind {
            Kind::Mqtt(mqtt) => format!("MQTT broker `{}:{}`", mqtt.host, mqtt.port),
            Kind::Webhook(webhook) => {
                let host = webhook.url.host_str().unwrap_or_default();
                match webhook.url.port() {
                    Some(port) => format!("webhook at `{host}:{port}`"),
                    None => format!("webhook at `{host}`"),
                }
            }
            Kind::Mail(mail) => format!("mail server `{}:{}`", mail.host, mail.port),
        }
    }
}
