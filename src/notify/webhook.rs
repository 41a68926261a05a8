//! Webhooks: a POST for each event.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tokio::time::Instant;

use super::delivery::{Deliver, Failure};
use super::settings::{Format, Webhook};
use super::told::Told;
use crate::fetch::Client;
use crate::target::describe;

/// How long a call goes on to post, before what arrived is noted.
const SPELL: Duration = Duration::from_secs(1);

/// Longest text that Discord takes, in characters.
const DISCORD: usize = 2000;

pub(super) struct Posting {
    pub(super) client: Arc<Client>,
    pub(super) to: Webhook,
    pub(super) timeout: Duration,
}

#[async_trait]
impl Deliver for Posting {
    async fn deliver(&mut self, events: &[Told]) -> (usize, Option<Failure>) {
        let begun = Instant::now();
        for (done, told) in events.iter().enumerate() {
            if done > 0 && begun.elapsed() > SPELL {
                return (done, None);
            }
            if let Err(failure) = self.post(told).await {
                return (done, Some(failure));
            }
        }
        (events.len(), None)
    }
}

impl Posting {
    pub(super) async fn post(&self, told: &Told) -> Result<(), Failure> {
        let (media_type, body) = body(self.to.format, told);
        let mut headers = self.to.headers.clone();
        let mut set = |name: &'static str, value: String| {
            // What is ours is plain.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set("x-gannet-event", told.event.clone());
        set("x-gannet-delivery", told.id.to_string());
        if let Some(secret) = &self.to.secret {
            let now = chrono::Utc::now().timestamp();
            set("x-gannet-signature", signature(secret, now, &body));
        }
        with_type(&mut headers, media_type);
        let posted = self
            .client
            .post(&self.to.url, headers, Bytes::from(body), self.timeout);
        // The URL may be a secret, and errors name it.
        let posted = posted.await.map_err(|error| {
            let told = describe(&error);
            let shown = crate::target::SafeUrl::new(&self.to.url).to_string();
            Failure::away(told.replace(&shown, "the webhook"))
        })?;
        let says = match posted.text.trim() {
            "" => String::new(),
            text => format!(": {}", text.escape_debug()),
        };
        let answer = format!("it answered {}{says}", posted.status);
        match posted.status {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(Failure {
                retry_after: posted.retry_after,
                ..Failure::away(answer)
            }),
            300..=399 => Err(Failure::refused(format!(
                "{answer}; redirects of webhooks are not followed"
            ))),
            // The event itself is at fault, whatever is deployed there.
            400 | 406 | 411 | 413..=415 | 422 | 431 => Err(Failure::refused(answer)),
            _ => Err(Failure {
                retry_after: posted.retry_after,
                ..Failure::not_yet(answer)
            }),
        }
    }
}

fn with_type(headers: &mut HeaderMap, media_type: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
}

/// `t=SECONDS,v1=DIGEST`: the HMAC-SHA256 of the time, a dot and the body, in hexadecimal digits.
fn signature(secret: &SecretString, now: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let digest = hmac::sign(&key, format!("{now}.{body}").as_bytes());
    let digits: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={now},v1={digits}")
}

/// The media type and the text of what is posted.
fn body(format: Format, told: &Told) -> (&'static str, String) {
    const JSON: &str = "application/json";
    let sentence = || told.sentence();
    match format {
        Format::Json => (JSON, told.json()),
        Format::Text => ("text/plain; charset=utf-8", sentence()),
        Format::Slack => {
            // Its three characters of control.
            let text = sentence()
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;");
            (JSON, json!({ "text": text }).to_string())
        }
        Format::Discord => {
            let content: String = sentence().chars().take(DISCORD).collect();
            // Nobody is called by what stands in a name.
            let body = json!({ "content": content, "allowed_mentions": { "parse": [] } });
            (JSON, body.to_string())
        }
        Format::Teams => {
            let card = json!({
                "type": "AdaptiveCard",
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "version": "1.4",
                "body": [{ "type": "TextBlock", "text": sentence(), "wrap": true }],
            });
            let body = json!({
                "type": "message",
                "attachments": [{
                    "contentType": "application/vnd.microsoft.card.adaptive",
                    "content": card,
                }],
            });
            (JSON, body.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::told::told;
    use super::*;

    #[test]
    fn a_signature_is_what_receivers_compute() {
        // openssl dgst -sha256 -hmac secret, of `1700000000.{}`.
        let signed = signature(&"secret".to_owned().into(), 1_700_000_000, "{}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let digest = hmac::sign(&key, b"1700000000.{}");
        let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(signed, format!("t=1700000000,v1={hex}"));
    }

    #[test]
    fn chats_get_a_sentence_that_calls_nobody() {
        let told = told(
            1,
            "album.created",
            &json!({ "album": "<!channel> & @everyone" }),
        );
        let get = |format| -> Value { serde_json::from_str(&body(format, &told).1).unwrap() };
        assert_eq!(
            get(Format::Slack)["text"],
            "album `&lt;!channel&gt; &amp; @everyone` was created"
        );
        assert_eq!(get(Format::Discord)["allowed_mentions"]["parse"], json!([]));
        let text = &get(Format::Teams)["attachments"][0]["content"]["body"][0]["text"];
        assert_eq!(text, "album `<!channel> & @everyone` was created");
        assert_eq!(get(Format::Json)["id"], 1);
    }
}
