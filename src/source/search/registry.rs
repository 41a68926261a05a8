//! The providers that there are, and `[search]`.

use std::num::NonZeroU32;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::filter::listed;
use super::lanes::Limits;
use super::{SearchProvider, bing, brave, google, openverse, searxng, wikimedia};

/// Makes of modules with a function `new` the providers and their sections.
macro_rules! registry {
    ($($name:ident)*) => {
        /// `[search]`. Defaults are in `config/default.toml` and nowhere else.
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            /// Whether providers may have addresses that are not on the public Internet.
            pub private_networks: bool,
            $(
                #[doc = concat!("`[search.", stringify!($name), "]`")]
                pub $name: Provider,
            )*
        }

        /// The names of all providers.
        pub const PROVIDERS: &[&str] = &[$(stringify!($name)),*];

        impl Settings {
            /// The section of a provider.
            pub(super) fn of(&self, name: &str) -> &Provider {
                match name {
                    $(stringify!($name) => &self.$name,)*
                    _ => unreachable!("`provider` makes those of `PROVIDERS` alone"),
                }
            }
        }

        fn make(name: &str, settings: &Settings) -> Option<Made> {
            match name {
                $(stringify!($name) => Some($name::new(&settings.$name)),)*
                _ => None,
            }
        }
    };
}

registry! { openverse wikimedia google bing brave searxng }

/// A provider, or which setting it lacks.
pub(super) type Made = Result<Arc<dyn SearchProvider>, String>;

/// `[search.NAME]`: how one provider is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename = "Settings")]
pub struct Provider {
    /// Where it answers.
    #[serde(deserialize_with = "address")]
    pub url: Option<Url>,
    /// Where its results pages are, for those that have both these and an interface for programs.
    #[serde(default, deserialize_with = "address")]
    pub pages_url: Option<Url>,
    /// The key that it gave; empty: none.
    #[serde(default = "nothing")]
    pub key: SecretString,
    /// Which of the operator's engines with the provider is asked.
    #[serde(default)]
    pub engine: String,
    /// Results to ask for at a time.
    pub page_size: Option<NonZeroU32>,
    /// Requests a minute, evenly spaced; 0: any.
    pub per_minute: u32,
    /// Requests within any 24 hours of the process; 0: any.
    pub per_day: u32,
}

impl Provider {
    /// The key, where there is one.
    pub(super) fn key(&self) -> Option<&SecretString> {
        (!self.key.expose_secret().is_empty()).then_some(&self.key)
    }

    /// The address, or that it is missing.
    pub(super) fn url(&self, name: &str) -> Result<Url, String> {
        self.url
            .clone()
            .ok_or_else(|| format!("`{name}` needs an address: set `search.{name}.url`"))
    }

    /// Of the keys that not every provider has, these and no others may be set.
    pub(super) fn only(&self, name: &str, takes: &[&str]) -> Result<(), String> {
        let set = [
            ("pages_url", self.pages_url.is_some()),
            ("key", self.key().is_some()),
            ("engine", !self.engine.trim().is_empty()),
            ("page_size", self.page_size.is_some()),
        ];
        let unused = set
            .iter()
            .find(|(key, is_set)| *is_set && !takes.contains(key));
        match unused {
            Some((key, _)) => Err(format!(
                "`{name}` has no `{key}`: remove `search.{name}.{key}`"
            )),
            None => Ok(()),
        }
    }

    /// Results to ask for at a time, `most` being what the provider takes.
    pub(super) fn page_size(&self, most: u32) -> u64 {
        self.page_size
            .map_or(most, |size| size.get().min(most))
            .into()
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            per_minute: self.per_minute,
            per_day: self.per_day,
        }
    }
}

/// The provider of this name, by its settings.
///
/// # Errors
///
/// When there is none, or when it lacks a setting. In words.
pub fn provider(name: &str, settings: &Settings) -> Made {
    make(name, settings).unwrap_or_else(|| Err(unknown(name)))
}

/// Says that there is no such provider, and which there are.
pub(super) fn unknown(name: &str) -> String {
    format!(
        "there is no provider `{}`, only {}",
        name.escape_debug(),
        listed(PROVIDERS)
    )
}

fn nothing() -> SecretString {
    String::new().into()
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(&text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match url {
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(D::Error::custom(
                "credentials do not belong here; `[hosts]` takes user and password, or a token",
            ))
        }
        Some(url) => Ok(Some(url)),
        None => Err(D::Error::custom(
            "expected an address such as \"https://search.example.org/\"",
        )),
    }
}
