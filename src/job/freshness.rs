//! Decides from the record of a URL whether to request it: whether the record serves a job, is fresh, or rests after
//! failures.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::JobError;
use super::item::Would;
use super::removal::recorded;
use crate::catalog::{Acceptance, Catalog, Known, KnownFile, TargetKey};
use crate::clock;
use crate::downloader::standard::inspect_kept;
use crate::downloader::{Body, Downloader, Facts, Kept};
use crate::fetch::{self, Effective, HostSettings, Hosts};
use crate::step::Steps;
use crate::store::{Opened, StageId, Store};
use crate::target::{Reason, Sha256, Target};

/// Kept files inspected at a time.
const LOOKS: usize = 8;

/// A look-up of records for one job.
pub(super) struct Lookup<'a> {
    pub(super) catalog: &'a dyn Catalog,
    pub(super) store: &'a Store,
    pub(super) distrusted: &'a HashSet<Uuid>,
    pub(super) downloader: &'a Arc<dyn Downloader>,
    pub(super) steps: &'a Steps,
    pub(super) fetch: &'a fetch::Settings,
    pub(super) hosts: &'a Hosts,
    /// Cancelled when nothing more is begun. Kept files are not inspected any more then.
    pub(super) halt: &'a CancellationToken,
}

impl Lookup<'_> {
    /// Returns the records of `targets`, limited to what holds for this job. If the file is missing or not acceptable
    /// to the job, its validators and freshness are dropped. Failures that concern only other jobs are dropped too.
    pub(super) async fn known(
        &self,
        targets: impl Iterator<Item = (TargetKey, &Target)>,
    ) -> Result<HashMap<TargetKey, Known>, JobError> {
        let targets: Vec<_> = targets.collect();
        let keys = targets.iter().map(|(key, _)| *key).collect();
        let mut known = self.catalog.known(keys).await?;
        forget_missing_files(self.store, self.distrusted, known.values_mut()).await?;
        let mut unclear = Vec::new();
        for (key, target) in targets {
            let Some(known) = known.get_mut(&key) else {
                continue;
            };
            if known.failures > 0 && !self.failed_for_this(known, target) {
                known.failures = 0;
            }
            let Some(file) = known.file.as_ref().filter(|file| file.is_present) else {
                continue;
            };
            let max_bytes = self.max_bytes(known, target);
            match is_accepted(&**self.downloader, file, target.sha256, max_bytes) {
                Some(true) => {}
                Some(false) => known.forget_validators(),
                None => unclear.push((key, file.clone(), target.name.clone())),
            }
        }
        let looks = unclear
            .into_iter()
            .map(|(key, file, name)| async move { (key, self.look_again(file, name).await) });
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS);
        while let Some((key, accepted)) = looks.next().await {
            let Some(known) = known.get_mut(&key) else {
                continue;
            };
            match accepted {
                Some(file) => known.file = Some(file),
                None => known.forget_validators(),
            }
        }
        Ok(known)
    }

    /// Returns `true` if the last failure would also be one for this job.
    fn failed_for_this(&self, known: &Known, target: &Target) -> bool {
        match known.failed_under {
            Some(under) => {
                let limits = size_limits(self.fetch, self.hosts);
                under == acceptance(&**self.downloader, self.steps, target, &limits)
            }
            // Records of earlier versions do not say under which settings a file was judged.
            None => !known.reason.is_some_and(is_judgement),
        }
    }

    /// Returns the largest body that the job accepts from the host that answered.
    fn max_bytes(&self, known: &Known, target: &Target) -> u64 {
        let answered = known.answered.as_deref();
        let answered = answered.and_then(|url| Url::parse(url).ok());
        let answered = answered.as_ref().unwrap_or(&target.url);
        self.fetch.of(self.hosts, answered).max_bytes().as_u64()
    }

    /// Inspects a kept file by the job's criteria, and returns it with the facts found. `None` if it is not accepted,
    /// or cannot be read.
    async fn look_again(&self, mut file: KnownFile, name: Option<String>) -> Option<KnownFile> {
        if self.halt.is_cancelled() {
            return None;
        }
        let (path, stage) = (file.path.clone(), StageId(file.stage));
        let opened = self
            .store
            .open_recorded(path, stage, recorded(&file), file.sha256);
        let Ok(Opened::Whole(open)) = opened.await else {
            return None;
        };
        let body = Body::File(Arc::new(open), file.bytes);
        let looked = inspect_kept(self.downloader.clone(), body, name, file.media_type.clone());
        match looked.await {
            Ok(facts) => {
                note_facts(&mut file, &facts, self.downloader.criteria());
                Some(file)
            }
            Err(rejection) => {
                tracing::debug!(
                    "`{}` does not serve a job of kind `{}`: {rejection}",
                    file.path,
                    self.downloader.kind()
                );
                None
            }
        }
    }
}

/// Returns whether a job accepts a file by its record alone. `None` if its bytes have to be inspected.
pub(super) fn is_accepted(
    downloader: &dyn Downloader,
    file: &KnownFile,
    promised: Option<Sha256>,
    max_bytes: u64,
) -> Option<bool> {
    if promised.is_some_and(|promised| promised != file.sha256) || file.bytes > max_bytes {
        return Some(false);
    }
    downloader.accepts_kept(&Kept {
        criteria: file.criteria.as_deref(),
        format: &file.format,
        bytes: file.bytes,
        dimensions: file.dimensions,
        undecoded: file.undecoded.is_some(),
    })
}

/// Updates a file's record with the facts that an inspection under `criteria` found.
pub(super) fn note_facts(file: &mut KnownFile, facts: &Facts, criteria: &str) {
    file.format = facts.format.name.to_owned();
    file.media_type = facts.format.media_type.to_owned();
    file.dimensions = facts.dimensions;
    file.active = facts.active;
    file.orientation = facts.orientation;
    file.undecoded.clone_from(&facts.undecoded);
    file.criteria = Some(criteria.to_owned());
    file.is_rechecked = true;
}

/// Lists the size limits of all hosts: redirects may lead to any of them.
pub(super) fn size_limits(fetch: &fetch::Settings, hosts: &Hosts) -> String {
    let of_host = |(name, host): (&str, &HostSettings)| {
        let limit = host.max_bytes?;
        Some(format!(" {name} {}", limit.as_u64()))
    };
    let mut limits: Vec<String> = hosts.iter().filter_map(of_host).collect();
    limits.sort_unstable();
    format!("{}{}", fetch.max_bytes.as_u64(), limits.concat())
}

/// Identifies the criteria by which a job accepts a target. `size_limits` are [those of all hosts](size_limits).
pub(super) fn acceptance(
    downloader: &dyn Downloader,
    steps: &Steps,
    target: &Target,
    size_limits: &str,
) -> Acceptance {
    let max_of_kind = downloader.max_bytes().unwrap_or(u64::MAX);
    let promised = target.sha256.map(|sha256| sha256.to_string());
    Acceptance::of(&[
        downloader.criteria(),
        downloader.accept(),
        size_limits,
        &max_of_kind.to_string(),
        promised.as_deref().unwrap_or_default(),
        &serde_json::to_string(steps).unwrap_or_default(),
    ])
}

/// Returns `true` if the reason is a job's verdict on the file, so that another job may decide otherwise.
pub(super) fn is_judgement(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::WrongKind
            | Reason::Corrupt
            | Reason::TooManyPixels
            | Reason::DecodeMemory
            | Reason::Undecoded
            | Reason::TooLarge
            | Reason::Empty
            | Reason::Checksum
            | Reason::Step
    )
}

/// Drops the validators of files that someone removed or changed. These have to be fetched again, even if the origin
/// has no new version.
async fn forget_missing_files(
    store: &Store,
    distrusted: &HashSet<Uuid>,
    known: impl Iterator<Item = &mut Known>,
) -> Result<(), JobError> {
    let mut known: Vec<&mut Known> = known.filter(|known| known.file.is_some()).collect();
    let paths = known
        .iter()
        .filter_map(|known| Some(known.file.as_ref()?.path.clone()))
        .collect();
    let stats = store.stats(paths).await?;
    for (known, stat) in known.iter_mut().zip(stats) {
        let is_as_kept = |file: &KnownFile| {
            !distrusted.contains(&file.id)
                && stat.is_some_and(|stat| recorded(file).agrees_with(stat))
        };
        if !known.file.as_ref().is_none_or(is_as_kept) {
            known.forget_validators();
            if let Some(file) = &mut known.file {
                file.is_present = false;
            }
        }
    }
    Ok(())
}

/// Decides what to do about a target whose record `known` comes from [a look-up](Lookup::known). A file that was
/// fetched or confirmed at `fresh_since` or later, and has not failed since, is fresh.
pub(super) fn decide(
    known: Option<&Known>,
    refresh: bool,
    fresh_since: Option<DateTime<Utc>>,
    fetch: &Effective<'_>,
    now: DateTime<Utc>,
) -> Would {
    let Some(known) = known else {
        return Would::Fetch;
    };
    if !refresh && rests_until(known, fetch, now).is_some_and(|until| now < until) {
        return Would::Wait;
    }
    match (&known.file, known.checked) {
        (Some(_), Some(checked)) => {
            let is_recent = fresh_since.is_some_and(|since| checked >= since)
                && known.failures == 0
                && clock::is_believable(checked, now);
            if !refresh && (is_recent || known.is_fresh(now, fetch.refresh_after())) {
                Would::Fresh
            } else {
                Would::Ask
            }
        }
        _ => Would::Fetch,
    }
}

/// What the next job does about a URL, as far as its record decides that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// What it does.
    pub action: Would,
    /// When [`Would::Fresh`] or [`Would::Wait`] ends. `None` also if it does not end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Why a job waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Returns what a job that begins `now` does about a URL with the record `known`, whose file has been looked for.
pub(super) fn outlook(known: &Known, fetch: &Effective<'_>, now: DateTime<Utc>) -> Outlook {
    let action = decide(Some(known), false, None, fetch, now);
    let until = match action {
        Would::Fetch | Would::Ask => None,
        Would::Wait => rests_until(known, fetch, now),
        Would::Fresh => {
            let refresh_after = TimeDelta::from_std(fetch.refresh_after()).ok();
            let refreshed = known.checked.zip(refresh_after);
            let refreshed =
                refreshed.and_then(|(checked, after)| checked.checked_add_signed(after));
            known.fresh_until.max(refreshed)
        }
    };
    Outlook {
        action,
        until: until.filter(|until| *until <= longest_freshness(now)),
        detail: (action == Would::Wait).then(|| resting(known, fetch, now)),
    }
}

/// Returns until when a URL that keeps failing is left alone. After a 410 (RFC 9110, section 15.5.11) that is at least
/// [`Known::gone_until`]. `None` also if the failure is dated in the future, which is not believed.
fn rests_until(known: &Known, fetch: &Effective<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let tried = known.tried.filter(|_| known.failures > 0)?;
    if !clock::is_believable(tried, now) {
        return None;
    }
    let rest = TimeDelta::from_std(fetch.failure_backoff(known.failures)).ok();
    let rested = rest.map(|rest| {
        let rested = tried.checked_add_signed(rest);
        rested.unwrap_or(DateTime::<Utc>::MAX_UTC)
    });
    rested.max(known.gone_until)
}

/// Returns the message for a URL that is left alone.
pub(super) fn resting(known: &Known, fetch: &Effective<'_>, now: DateTime<Utc>) -> String {
    let tried = known
        .tried
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Secs, true);
    let text = |until: DateTime<Utc>| until.to_rfc3339_opts(SecondsFormat::Secs, true);
    match (known.gone_until, rests_until(known, fetch, now)) {
        (Some(gone), _) if gone > longest_freshness(now) => format!(
            "not asked: at {tried} it answered 410, gone for good; `--refresh` asks all the same"
        ),
        (Some(gone), _) if now < gone => format!(
            "not asked: at {tried} the URL that it redirects to answered 410, gone for good, and the redirect is fresh \
             until {}; `--refresh` asks all the same",
            text(gone)
        ),
        (_, until) => {
            let times = match known.failures {
                1 => "once".to_owned(),
                times => format!("{times} times in a row"),
            };
            let until = text(until.unwrap_or(DateTime::<Utc>::MAX_UTC));
            format!(
                "not asked: it failed {times}, last at {tried}; `fetch.failure_backoff` leaves it alone until {until}, \
                 `--refresh` asks at once"
            )
        }
    }
}

/// Returns the latest time until which an answer may be fresh.
fn longest_freshness(now: DateTime<Utc>) -> DateTime<Utc> {
    let longest = TimeDelta::from_std(fetch::LONGEST).unwrap_or(TimeDelta::MAX);
    clock::latest_believable(now)
        .checked_add_signed(longest)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::downloader::{self, Format, Hints, Rejection, Verdict};
    use crate::fetch::Settings;
    use crate::naming::NameFrom;
    use crate::target::Outcome;

    fn settings(changes: &[&str]) -> Config {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let sets: Vec<(String, String)> = changes
            .iter()
            .filter_map(|set| set.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Config::load(Some(empty.path()), std::iter::empty(), &sets)
            .unwrap()
            .config
    }

    fn file(criteria: Option<&str>) -> KnownFile {
        KnownFile {
            id: Uuid::nil(),
            stage: Uuid::nil(),
            path: "a.png".to_owned(),
            format: "png".to_owned(),
            media_type: "image/png".to_owned(),
            bytes: 100,
            sha256: Sha256::of(b"a"),
            dimensions: None,
            active: false,
            orientation: None,
            undecoded: None,
            name_from: NameFrom::Random,
            mtime_ns: None,
            shared: false,
            criteria: criteria.map(str::to_owned),
            is_present: true,
            is_rechecked: false,
        }
    }

    fn known(now: DateTime<Utc>, change: impl FnOnce(&mut Known)) -> Known {
        let mut known = Known {
            job: Uuid::nil(),
            file: Some(file(None)),
            etag: None,
            last_modified: None,
            answered: None,
            fresh_until: None,
            checked: Some(now - TimeDelta::minutes(10)),
            tried: Some(now - TimeDelta::minutes(10)),
            status: Some(200),
            failures: 0,
            failed_under: None,
            gone_until: None,
            outcome: Outcome::Stored,
            reason: None,
        };
        change(&mut known);
        known
    }

    #[test]
    fn what_is_asked_for_follows_from_what_is_known() {
        let config = settings(&["fetch.failure_backoff=1h"]);
        let fetch: &Settings = &config.fetch;
        let hosts = Hosts::default();
        let fetch = fetch.of_host(&hosts, "a.example");
        let now = Utc::now();
        let minutes = TimeDelta::minutes;
        let years = TimeDelta::days(3650);
        type Change = Box<dyn FnOnce(&mut Known)>;
        let cases: Vec<(&str, Would, Change)> = vec![
            ("stale", Would::Ask, Box::new(|_| {})),
            (
                "fresh",
                Would::Fresh,
                Box::new(move |k| k.fresh_until = Some(now + minutes(1))),
            ),
            (
                "no longer fresh",
                Would::Ask,
                Box::new(move |k| k.fresh_until = Some(now)),
            ),
            (
                "fresh by a clock that is a moment behind",
                Would::Fresh,
                Box::new(move |k| {
                    k.checked = Some(now + TimeDelta::seconds(30));
                    k.fresh_until = Some(now + minutes(1));
                }),
            ),
            (
                "fresh by a clock that was ahead",
                Would::Ask,
                Box::new(move |k| {
                    k.checked = Some(now + years);
                    k.fresh_until = Some(now + years + minutes(1));
                }),
            ),
            (
                "fresh for longer than anything is",
                Would::Ask,
                Box::new(move |k| k.fresh_until = Some(now + years)),
            ),
            (
                "never brought",
                Would::Fetch,
                Box::new(|k| (k.file, k.checked) = (None, None)),
            ),
            (
                "resting",
                Would::Wait,
                Box::new(|k| (k.file, k.failures) = (None, 1)),
            ),
            (
                "rested",
                Would::Fetch,
                Box::new(move |k| {
                    (k.file, k.failures) = (None, 1);
                    k.tried = Some(now - minutes(61));
                }),
            ),
            (
                "failed by a clock that was ahead",
                Would::Fetch,
                Box::new(move |k| {
                    (k.file, k.failures) = (None, 1);
                    k.tried = Some(now + years);
                }),
            ),
            (
                "gone",
                Would::Wait,
                Box::new(move |k| {
                    (k.file, k.failures, k.status) = (None, 1, Some(410));
                    k.tried = Some(now - years);
                    k.gone_until = Some(DateTime::<Utc>::MAX_UTC);
                }),
            ),
            (
                "gone by way of a redirect that is fresh",
                Would::Wait,
                Box::new(move |k| {
                    (k.file, k.failures, k.status) = (None, 1, Some(410));
                    k.tried = Some(now - minutes(90));
                    k.gone_until = Some(now + minutes(1));
                }),
            ),
            (
                "gone by way of a redirect that was fresh",
                Would::Fetch,
                Box::new(move |k| {
                    (k.file, k.failures, k.status) = (None, 1, Some(410));
                    k.tried = Some(now - minutes(90));
                    k.gone_until = Some(now - minutes(1));
                }),
            ),
            (
                "gone by way of a redirect that never was fresh",
                Would::Fetch,
                Box::new(move |k| {
                    (k.file, k.failures, k.status) = (None, 1, Some(410));
                    k.tried = Some(now - minutes(90));
                }),
            ),
            (
                "gone by a clock that was ahead",
                Would::Fetch,
                Box::new(move |k| {
                    (k.file, k.failures, k.status) = (None, 1, Some(410));
                    k.tried = Some(now + years);
                    k.gone_until = Some(DateTime::<Utc>::MAX_UTC);
                }),
            ),
        ];
        for (name, expected, change) in cases {
            let known = known(now, change);
            assert_eq!(
                decide(Some(&known), false, None, &fetch, now),
                expected,
                "{name}"
            );
        }
        assert_eq!(decide(None, false, None, &fetch, now), Would::Fetch);
        // Targets that an interrupted job has done are fresh, unless its clock was ahead.
        let had = |checked| known(now, |k| k.checked = Some(checked));
        for (checked, expected) in [
            (now - minutes(1), Would::Fresh),
            (now - minutes(9), Would::Ask),
            (now + years, Would::Ask),
        ] {
            let since = Some(now - minutes(5));
            let would = decide(Some(&had(checked)), false, since, &fetch, now);
            assert_eq!(would, expected, "{checked}");
        }
    }

    /// A kind that a library user registers.
    #[derive(Debug)]
    struct Own(&'static str);

    impl Downloader for Own {
        fn kind(&self) -> &str {
            self.0
        }

        fn accept(&self) -> &str {
            "*/*"
        }

        fn sniff(&self, _: &[u8], _: &Hints<'_>) -> Verdict {
            Verdict::Accept(Format {
                name: "own",
                media_type: "x/own",
                extensions: &[],
            })
        }

        fn inspect(&self, _: &Body, format: Format) -> Result<Facts, Rejection> {
            Ok(Facts::of(format))
        }
    }

    #[test]
    fn a_record_tells_whether_a_job_accepts_its_file_or_that_somebody_has_to_look() {
        let kinds = |changes: &[&str]| downloader::builtin(&settings(changes).image);
        let defaults = kinds(&[]);
        let header = defaults.get("image").unwrap().criteria().to_owned();
        let (any, document) = (Some("any"), Some("document"));
        let image = Some(&*header);
        /// A kind, changes to its settings, the criteria that the file passed, and the expected answer.
        type Case<'a> = (&'a str, &'a [&'a str], Option<&'a str>, Option<bool>);
        let cases: [Case<'_>; 13] = [
            ("any", &[], any, Some(true)),
            ("any", &[], image, Some(true)),
            ("any", &[], None, Some(true)),
            ("document", &[], document, Some(true)),
            ("document", &[], any, None),
            ("document", &[], None, None),
            ("image", &[], image, Some(true)),
            ("image", &[], any, None),
            ("image", &[], None, None),
            ("image", &["image.check=decode"], image, None),
            ("image", &["image.check=sniff"], image, Some(true)),
            ("image", &["image.formats=[\"gif\"]"], image, Some(false)),
            ("image", &["image.max_bytes=99"], image, Some(false)),
        ];
        for (kind, changes, criteria, expected) in cases {
            let downloader = kinds(changes).get(kind).unwrap();
            let accepted = is_accepted(&*downloader, &file(criteria), None, 100);
            assert_eq!(accepted, expected, "{kind} {changes:?} {criteria:?}");
        }
        // Registered kinds are treated like built-in ones.
        let own = |kind, criteria| is_accepted(&Own(kind), &file(criteria), None, 100);
        assert_eq!(own("own", Some("own")), Some(true));
        assert_eq!(own("own", any), None);
        assert_eq!(own("image", image), None);
        // The list's checksum and the limit of bodies come first.
        let any = defaults.get("any").unwrap();
        let promised = |body: &[u8]| Some(Sha256::of(body));
        let kept = file(Some("any"));
        assert_eq!(is_accepted(&*any, &kept, promised(b"a"), 100), Some(true));
        assert_eq!(is_accepted(&*any, &kept, promised(b"b"), 100), Some(false));
        assert_eq!(is_accepted(&*any, &kept, None, 99), Some(false));
    }

    #[test]
    fn whatever_decides_a_judgement_has_a_part_in_its_name() {
        let name = |kind: &str, changes: &[&str], promised: Option<&[u8]>| {
            let config = settings(changes);
            let limits = size_limits(&config.fetch, &config.hosts);
            let downloader = downloader::builtin(&config.image).get(kind).unwrap();
            let mut target = Target::new(Url::parse("http://a.example/").unwrap());
            target.sha256 = promised.map(Sha256::of);
            acceptance(&*downloader, &Steps::default(), &target, &limits)
        };
        let this = name("image", &[], None);
        assert_eq!(name("image", &["image.decode_memory=1GiB"], None), this);
        for other in [
            name("any", &[], None),
            name("image", &["image.check=decode"], None),
            name("image", &["image.formats=[\"png\"]"], None),
            name("image", &["image.max_pixels=5"], None),
            name("image", &["image.max_side=5"], None),
            name("image", &["image.min_bytes=5"], None),
            name("image", &["image.max_bytes=5"], None),
            name("image", &["fetch.max_bytes=99"], None),
            // Redirects may lead there.
            name("image", &["hosts.\"b.example\".max_bytes=99"], None),
            name("image", &[], Some(b"a")),
        ] {
            assert_ne!(other, this);
        }
    }
}
