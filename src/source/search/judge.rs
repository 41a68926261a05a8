//! What an answer is: a page, or the reason why it is none.

use serde_json::Value;

use super::found::tidy;
use super::{Answer, Cursor, Page, Query, SearchError, SearchProvider};

/// Longest text that is quoted of an answer, in characters.
const QUOTED: usize = 200;

/// What `provider` says in `answer` to what was asked for the page at `cursor`.
///
/// # Errors
///
/// When it is no page, or when it has items and none of them could be read.
pub fn read_page(
    provider: &dyn SearchProvider,
    query: &Query,
    cursor: Option<&Cursor>,
    answer: &Answer,
) -> Result<Page, SearchError> {
    let page = provider.parse(query, cursor, answer)?;
    if page.results.is_empty() && page.broken > 0 {
        return Err(SearchError::Changed {
            detail: format!("none of {} results could be read", page.broken),
        });
    }
    Ok(page)
}

/// What a status means with most services.
pub(super) fn judge(answer: &Answer) -> Result<(), SearchError> {
    let detail = said(answer);
    Err(match answer.status {
        200..=299 => return Ok(()),
        401 | 403 => SearchError::Key { detail },
        429 => SearchError::Quota {
            detail,
            retry_after: answer.retry_after(),
        },
        408 | 425 | 500..=599 => SearchError::Outage {
            detail,
            retry_after: answer.retry_after(),
            is_retriable: true,
        },
        300..=399 => SearchError::Outage {
            detail: format!("{detail}, and redirects are not followed; correct its `url`"),
            retry_after: None,
            is_retriable: false,
        },
        _ => SearchError::Refused { detail },
    })
}

/// What a status means with pages that are made for people.
pub(super) fn judge_page(answer: &Answer) -> Result<(), SearchError> {
    if answer.status == 200 {
        return Ok(());
    }
    match (answer.status, challenge(answer)) {
        (300..=399 | 401 | 403, challenge) => Err(SearchError::Blocked {
            detail: challenge.unwrap_or_else(|| said(answer)),
        }),
        (429, Some(detail)) => Err(SearchError::Blocked { detail }),
        _ => judge(answer),
    }
}

/// The status, and what an answer says of it.
pub(super) fn said(answer: &Answer) -> String {
    let status = answer.status;
    match reason(answer) {
        Some(reason) => format!("{status}: {reason}"),
        None => format!("status {status}"),
    }
}

/// What a JSON document says of why it is no page, where the services of this room have it.
fn reason(answer: &Answer) -> Option<String> {
    let json: Value = serde_json::from_slice(&answer.body).ok()?;
    let places = [
        "/error/message",
        "/error/detail",
        "/error/info",
        "/detail",
        "/message",
        "/error",
    ];
    let text = places
        .iter()
        .find_map(|place| json.pointer(place)?.as_str())?;
    quoted(text)
}

/// A short piece of `text`, fit for a message.
pub(super) fn quoted(text: &str) -> Option<String> {
    Some(tidy(text)?.chars().take(QUOTED).collect())
}

/// How a page that was sent in place of results says that it wants a person, where it does.
pub(super) fn challenge(answer: &Answer) -> Option<String> {
    let location = answer.header("location").unwrap_or_default();
    let text = format!("{location} {}", answer.text()).to_ascii_lowercase();
    let marks = [
        "captcha",
        "unusual traffic",
        "/sorry/",
        "turnstile",
        "verify you are human",
    ];
    let mark = marks.into_iter().find(|mark| text.contains(mark))?;
    Some(format!("its page speaks of `{mark}`"))
}
