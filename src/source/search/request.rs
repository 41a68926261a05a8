//! What is asked of a provider, and what it answers.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::SearchError;
use crate::fetch;
use crate::source::encoding;

/// Largest answer that is read.
pub(in crate::source) const MAX_ANSWER: u64 = 8 * 1024 * 1024;

/// A key that is shorter is no secret, and would be found in any text.
const SHORTEST_KEY: usize = 4;

/// So much of a key is enough to know it by: what is quoted may be cut off within it.
const BEGINNING: usize = 6;

/// Where a page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Its number, or that of its first result, as the provider counts.
    At(u64),
    /// The address by which the provider calls it.
    Next(Url),
}

impl Cursor {
    /// The number that `cursor` is; without one, that of the first page.
    pub fn at(cursor: Option<&Self>, first: u64) -> u64 {
        match cursor {
            Some(Self::At(at)) => *at,
            _ => first,
        }
    }
}

/// A GET. Its `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Without secrets.
    url: Url,
    headers: HeaderMap,
    /// The name of the parameter that has the key.
    secret_name: Option<&'static str>,
    key: Option<SecretString>,
}

impl PageRequest {
    /// Asks `base` with these parameters, in place of those of the same names that it has.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(
        base: &Url,
        parameters: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let parameters: Vec<(K, V)> = parameters.into_iter().collect();
        let mut url = base.clone();
        let own: Vec<(String, String)> = base
            .query_pairs()
            .filter(|(name, _)| !parameters.iter().any(|(other, _)| other.as_ref() == name))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(own)
            .extend_pairs(parameters);
        Self {
            url,
            headers: HeaderMap::new(),
            secret_name: None,
            key: None,
        }
    }

    /// With a header, in place of the one of that name that every request has.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With a key in a header, behind `prefix`.
    ///
    /// # Errors
    ///
    /// When it cannot stand in a header.
    pub fn secret_header(
        mut self,
        name: HeaderName,
        prefix: &str,
        key: &SecretString,
    ) -> Result<Self, SearchError> {
        let value = format!("{prefix}{}", key.expose_secret());
        let mut value = HeaderValue::from_str(&value).map_err(|_| SearchError::Key {
            detail: "it cannot stand in a header".to_owned(),
        })?;
        value.set_sensitive(true);
        self.key = Some(key.clone());
        Ok(self.header(name, value))
    }

    /// With `Authorization: Bearer` (RFC 6750).
    ///
    /// # Errors
    ///
    /// As [`secret_header`](Self::secret_header).
    pub fn bearer(self, key: &SecretString) -> Result<Self, SearchError> {
        self.secret_header(AUTHORIZATION, "Bearer ", key)
    }

    /// With a key among the parameters.
    pub fn secret_parameter(mut self, name: &'static str, key: &SecretString) -> Self {
        self.secret_name = Some(name);
        self.key = Some(key.clone());
        self
    }

    /// Where it goes, without secrets.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its headers; secrets are marked as sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its whole query, where that has a secret. Not to be shown.
    pub(in crate::source) fn query(&self) -> Option<String> {
        let (name, key) = (self.secret_name?, self.key.as_ref()?);
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair(name, key.expose_secret());
        url.query().map(str::to_owned)
    }

    /// What a provider says, without the key, which it may quote as it is or as it stands in an address.
    pub(super) fn masked(&self, said: &str) -> String {
        let key = self.key.as_ref().map(ExposeSecret::expose_secret);
        match key.filter(|key| key.len() >= SHORTEST_KEY) {
            Some(key) => {
                let encoded: String = byte_serialize(key.as_bytes()).collect();
                without(said, &[key, &encoded])
            }
            None => said.to_owned(),
        }
    }
}

/// `text` with `***` in place of a secret that has these forms, and of what a cut has left of it.
fn without(mut text: &str, forms: &[&str]) -> String {
    let beginning = |form: &str| form.chars().take(BEGINNING).collect::<String>();
    let beginnings: Vec<_> = forms.iter().map(|form| beginning(form)).collect();
    let mut masked = String::with_capacity(text.len());
    while let Some(at) = beginnings.iter().filter_map(|b| text.find(b)).min() {
        let (before, from) = text.split_at(at);
        let length = forms.iter().map(|form| in_common(form, from)).max();
        masked.push_str(before);
        masked.push_str("***");
        text = &from[length.unwrap_or(from.len())..];
    }
    masked + text
}

/// So many bytes are the same at the beginning of both.
fn in_common(one: &str, other: &str) -> usize {
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b);
    same.map(|(a, _)| a.len_utf8()).sum()
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// What was asked, without secrets.
    pub url: Url,
    /// Its body, with any `Content-Encoding` undone.
    pub body: Bytes,
}

impl Answer {
    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long it asks to stay away, by `Retry-After` (RFC 9110, section 10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        fetch::retry_after(&self.headers, SystemTime::now())
    }

    /// Its body as text.
    pub fn text(&self) -> Cow<'_, str> {
        encoding::text(&self.body, self.header("content-type"))
    }
}

/// Brings the answers of providers.
///
/// # Contract
///
/// - Every connection goes through the egress guard. No redirect is followed, so that no key goes elsewhere.
/// - An answer of any status is one. A body that is longer than 8 MiB is a failure.
#[async_trait]
pub trait Ask: fmt::Debug + Send + Sync + 'static {
    /// Sends the request and reads the whole answer.
    async fn ask(&self, request: &PageRequest) -> Result<Answer, AskFailure>;
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskFailure {
    /// In words, without secrets.
    pub text: String,
    /// Whether another attempt may help.
    pub is_retriable: bool,
}
