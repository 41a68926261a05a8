//! `[[schedule]]`: what runs when, and by which settings.

use std::str::FromStr;
use std::time::Duration;

use chrono_tz::Tz;
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use super::Config;
use crate::local_path::LocalPath;
use crate::schedule::{Cron, Overlap, Policy};
use crate::source::{ListEncoding, ListFormat};

/// Sections of which a schedule may have its own values.
const SECTIONS: [&str; 6] = ["job", "fetch", "hosts", "image", "naming", "retention"];

/// Keys that belong to the whole process.
const SHARED: [(&str, &str); 3] = [
    ("fetch", "concurrency"),
    ("fetch", "body_memory"),
    ("fetch", "max_rate"),
];

/// Keys below each of `[hosts]` that belong to the whole process.
const SHARED_OF_HOST: [&str; 2] = ["shared", "max_rate"];

/// A `[[schedule]]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    #[serde(deserialize_with = "name")]
    name: String,
    cron: Cron,
    #[serde(default, deserialize_with = "timezone")]
    timezone: Tz,
    #[serde(deserialize_with = "one_or_more")]
    source: Vec<String>,
    list_format: Option<ListFormat>,
    list_encoding: Option<ListEncoding>,
    #[serde(default, with = "humantime_serde")]
    jitter: Duration,
    overlap: Option<Overlap>,
    #[serde(default)]
    catch_up: bool,
    #[serde(default)]
    run_at_start: bool,
    count: Option<u64>,
    #[serde(default)]
    refresh: bool,
    #[serde(default, deserialize_with = "one_or_more")]
    report: Vec<LocalPath>,
    // Short for keys of `[job]`.
    album: Option<Value>,
    kind: Option<Value>,
    deadline: Option<Value>,
    max_failures: Option<Value>,
    // Whole sections.
    job: Option<Table>,
    fetch: Option<Table>,
    hosts: Option<Table>,
    image: Option<Table>,
    naming: Option<Table>,
    retention: Option<Table>,
}

/// A schedule with the settings that its jobs run by.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// When it is due.
    pub policy: Policy,
    /// Its lists, as [`parse_source`](crate::source::parse_source) reads them.
    pub sources: Vec<String>,
    /// The format of its lists; `None`: find out.
    pub list_format: Option<ListFormat>,
    /// Encoding of its lists. `None` takes that of the settings.
    pub list_encoding: Option<ListEncoding>,
    /// Store exactly so many files each time.
    pub count: Option<u64>,
    /// Ask about every URL, however fresh.
    pub refresh: bool,
    /// Reports that each run writes anew.
    pub reports: Vec<LocalPath>,
    /// All settings, its own over the common ones.
    pub config: Config,
    /// Whether its pictures are checked by other settings.
    pub has_own_kinds: bool,
}

impl Written {
    /// The settings that it lays over the common ones; or the key that no schedule may have of its own.
    pub(super) fn overrides(&self) -> Result<Table, Vec<String>> {
        let mut overrides = Table::new();
        let sections = [
            &self.job,
            &self.fetch,
            &self.hosts,
            &self.image,
            &self.naming,
            &self.retention,
        ];
        for (name, section) in SECTIONS.into_iter().zip(sections) {
            if let Some(section) = section {
                overrides.insert(name.to_owned(), Value::Table(section.clone()));
            }
        }
        let shared = SHARED.into_iter().find(|(section, key)| {
            let section = overrides.get(*section);
            section.is_some_and(|section| section.get(key).is_some())
        });
        if let Some((section, key)) = shared {
            return Err(vec![section.to_owned(), key.to_owned()]);
        }
        if let Some(hosts) = overrides.get("hosts").and_then(Value::as_table) {
            for (name, host) in hosts {
                if let Some(key) = SHARED_OF_HOST
                    .into_iter()
                    .find(|key| host.get(key).is_some())
                {
                    return Err(["hosts", name, key].map(str::to_owned).into());
                }
            }
        }
        let short = [
            ("album", &self.album),
            ("kind", &self.kind),
            ("deadline", &self.deadline),
            ("max_failures", &self.max_failures),
        ];
        for (key, value) in short {
            let Some(value) = value else { continue };
            let job = overrides
                .entry("job")
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(job) = job {
                job.insert(key.to_owned(), value.clone());
            }
        }
        Ok(overrides)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn resolved(&self, config: Config) -> Schedule {
        Schedule {
            name: self.name.clone(),
            policy: Policy {
                cron: self.cron.clone(),
                timezone: self.timezone,
                jitter: self.jitter,
                overlap: self.overlap.unwrap_or(Overlap::Skip),
                catch_up: self.catch_up,
                run_at_start: self.run_at_start,
            },
            sources: self.source.clone(),
            list_format: self.list_format,
            list_encoding: self.list_encoding,
            count: self.count,
            refresh: self.refresh,
            reports: self.report.clone(),
            config,
            has_own_kinds: self.image.is_some(),
        }
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(is_plain) && !name.starts_with(['.', '-'])
    {
        return Ok(name);
    }
    Err(serde::de::Error::custom(format!(
        "`{name}` is no name for a schedule; expected up to 64 letters, digits, `_`, `-` and `.`, such as \"shop-pictures\""
    )))
}

fn timezone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    let name = String::deserialize(deserializer)?;
    Tz::from_str(&name).map_err(|_| {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let meant = crate::target::nearest(&name, names)
            .map_or_else(String::new, |zone| format!("; did you mean \"{zone}\"?"));
        serde::de::Error::custom(format!(
            "`{name}` is no time zone of the IANA database, such as \"Europe/Berlin\"{meant}"
        ))
    })
}

fn one_or_more<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        More(Vec<String>),
    }
    let texts = match Either::deserialize(deserializer) {
        Ok(Either::One(one)) => vec![one],
        Ok(Either::More(more)) if !more.is_empty() => more,
        _ => {
            return Err(serde::de::Error::custom(
                "expected a text such as \"list.txt\", or a list of such",
            ));
        }
    };
    let texts = texts.into_iter().map(String::into_deserializer);
    texts.map(T::deserialize).collect()
}
