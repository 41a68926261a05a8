//! Targets as a posted job keeps them until they are asked for.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::source::address::{self, Refusal};
use crate::source::{Entry, Invalid};
use crate::target::{AlbumName, Place, Reason, Sha256, Target};

/// A target that somebody lists, in a form that can be written down: without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// The URL; or what was given instead of one, as far as it may be shown.
    pub url: String,
    /// The name that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The album that is wanted, besides that of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub album: Option<String>,
    /// What the bytes have to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<Map<String, Value>>>,
    /// The number of its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// The line of the list that it came from, in a retry of a job that read one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The group that this list puts it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_group: Option<String>,
    /// Why it is no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<(Reason, String)>,
}

impl Listed {
    /// The target behind `url`, which may be no URL: then its [`entry`](Self::entry) is an invalid one.
    pub fn new(url: &str) -> Self {
        let (url, wrong) = match parse(url) {
            Ok(parsed) => (parsed.into(), None),
            Err(refusal) => {
                let shown = address::shown(url);
                (shown, Some((refusal.reason, refusal.detail)))
            }
        };
        Self {
            url,
            name: None,
            album: None,
            sha256: None,
            metadata: None,
            group: None,
            line: None,
            list_group: None,
            wrong,
        }
    }

    /// What a list says that has it at `place`, in a group of this name.
    pub fn entry(self, place: Place, group: Option<Arc<str>>) -> Entry {
        let invalid = |reason, detail: Cow<'_, str>, text| {
            Entry::Invalid(Invalid {
                line: None,
                text,
                reason,
                detail: detail.into_owned(),
                group: group.clone(),
                place: Some(place),
            })
        };
        if let Some((reason, detail)) = self.wrong {
            return invalid(reason, detail.into(), self.url);
        }
        let album = self.album.as_deref().map(AlbumName::recorded).transpose();
        match (Url::parse(&self.url), album) {
            (Ok(url), Ok(album)) => Entry::Target(Target {
                name: self.name,
                album,
                sha256: self.sha256,
                metadata: self.metadata,
                line: self.line,
                group: group.or_else(|| self.list_group.map(Into::into)),
                place: Some(place),
                ..Target::new(url)
            }),
            _ => invalid(
                Reason::InvalidUrl,
                "it cannot be read any more".into(),
                self.url,
            ),
        }
    }
}

fn parse(url: &str) -> Result<Url, Refusal> {
    let url = address::parse(url.as_bytes())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::invalid(
            "credentials do not belong into a URL that is posted; `[hosts]` takes user and password, or a token",
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::OnError;

    const PLACE: Place = Place {
        seq: 7,
        group: Some(3),
        on_error: OnError::Stop,
    };

    #[test]
    fn a_target_comes_back_as_it_was_listed() {
        let mut listed = Listed::new(" https://example.org/a b.png#part");
        listed.name = Some("c.png".to_owned());
        listed.album = Some("shop/1".to_owned());
        listed.group = Some(3);
        let kept = serde_json::to_string(&listed).unwrap();
        let listed: Listed = serde_json::from_str(&kept).unwrap();
        let Entry::Target(target) = listed.entry(PLACE, Some("shop-1".into())) else {
            panic!("{kept}");
        };
        assert_eq!(target.url.as_str(), "https://example.org/a%20b.png");
        assert_eq!(target.name.as_deref(), Some("c.png"));
        assert_eq!(target.album.unwrap().as_str(), "shop/1");
        assert_eq!(target.group.as_deref(), Some("shop-1"));
        assert_eq!(target.place, Some(PLACE));
    }

    #[test]
    fn what_is_no_url_and_what_has_credentials_is_told_and_not_kept() {
        for (url, shown) in [
            ("not a url", "not a url"),
            ("ftp://example.org/a", "ftp://example.org/a"),
            (
                "https://user:pass@example.org/a",
                "https://***@example.org/a",
            ),
        ] {
            let kept = serde_json::to_string(&Listed::new(url)).unwrap();
            assert!(!kept.contains("pass@"), "{kept}");
            let listed: Listed = serde_json::from_str(&kept).unwrap();
            let Entry::Invalid(invalid) = listed.entry(PLACE, None) else {
                panic!("{url}");
            };
            assert_eq!((invalid.text.as_str(), invalid.place), (shown, Some(PLACE)));
        }
    }
}
