//! From what stands in a list to a URL, or to the words that say why it is none.

use std::borrow::Cow;

use url::Url;

use crate::fetch::recorded_url;
use crate::source::Invalid;
use crate::target::Reason;

/// Longest text of an [`Invalid`], in characters.
const SHOWN_CHARS: usize = 200;

/// Why a text is no URL that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self {
            reason: Reason::InvalidUrl,
            detail: detail.into(),
        }
    }

    /// The entry for it, which shows `text`.
    pub(super) fn at(self, line: Option<u64>, text: &str) -> Invalid {
        Invalid {
            line,
            text: shown(text),
            reason: self.reason,
            detail: self.detail,
            group: None,
            place: None,
        }
    }
}

/// Takes an absolute `http` or `https` URL, without its fragment.
///
/// Spaces around it are trimmed and spaces within are percent-encoded (WHATWG URL, section 4.4), as are
/// bytes that are not UTF-8. What is percent-encoded already stays as it is.
pub(super) fn parse(bytes: &[u8]) -> Result<Url, Refusal> {
    let url = normalise(bytes)?;
    // As it stands in reports and in the output of `jobs --failed`: a wrong login could lock the account.
    if url.password() == Some("***") || url.username() == "***" {
        return Err(Refusal::invalid(
            "its credentials are masked; `[hosts]` takes user and password, or a token",
        ));
    }
    Ok(url)
}

/// The URL of a target in the form of [`recorded_url`], whether its credentials are masked already or not.
///
/// # Errors
///
/// Says why the text is no URL of a target.
pub fn recorded_target(text: &str) -> Result<String, String> {
    let url = normalise(text.as_bytes()).map_err(|refusal| refusal.detail)?;
    Ok(recorded_url(&url))
}

fn normalise(bytes: &[u8]) -> Result<Url, Refusal> {
    // The first `#` begins the fragment, which is never sent.
    let bytes = memchr::memchr(b'#', bytes).map_or(bytes, |at| &bytes[..at]);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(encode_foreign_bytes(bytes)),
    };
    let text = text.trim_matches(is_blank);
    if text.is_empty() {
        return Err(Refusal::invalid("there is no URL"));
    }
    // Folded without a branch, so that it costs little on the many lines that are fine.
    if text
        .bytes()
        .fold(false, |found, byte| found | (byte < 0x20) | (byte == 0x7f))
    {
        return Err(Refusal::invalid(if text.contains('\0') {
            "it holds a NUL byte"
        } else {
            "it holds a control character"
        }));
    }
    if !has_prefix(text, "http://") && !has_prefix(text, "https://") {
        return other(text);
    }
    if holds_two(text) {
        return Err(Refusal::invalid(
            "two URLs stand on one line; write each on its own",
        ));
    }
    web(text)
}

/// As [`parse`], where a relative URL (RFC 3986, section 4.2) is taken from `base`.
pub(super) fn resolve(text: &str, base: Option<&Url>) -> Result<Url, Refusal> {
    let relative = text.split('#').next().unwrap_or_default().trim();
    if relative.is_empty()
        || split_scheme(relative).is_some()
        || relative.contains(char::is_control)
    {
        return parse(text.as_bytes());
    }
    let Some(base) = base else {
        return Err(Refusal::invalid(
            "it is a relative URL, and the list has no URL that it could be relative to; read the list from its URL, or write whole URLs",
        ));
    };
    let url = base
        .join(relative)
        .map_err(|error| Refusal::invalid(format!("it is no relative URL: {error}")))?;
    parse(url.as_str().as_bytes())
}

fn web(text: &str) -> Result<Url, Refusal> {
    Url::parse(text)
        .map_err(|error| Refusal::invalid(format!("it is no URL by the URL standard: {error}")))
}

/// What is not plainly a web address.
fn other(text: &str) -> Result<Url, Refusal> {
    if let Some(rest) = text.strip_prefix("//") {
        return Err(no_scheme(rest));
    }
    let Some((scheme, rest)) = split_scheme(text) else {
        return Err(no_scheme(text));
    };
    // The standard reads `https:/host` and `https:\\host` as it reads `https://host`.
    if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") {
        return web(text);
    }
    if scheme.len() == 1 {
        return Err(Refusal::invalid("it is a path of this machine, not a URL"));
    }
    let port = rest.split(['/', '?']).next().unwrap_or_default();
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_scheme(text));
    }
    if rest.is_empty() || rest.starts_with(char::is_whitespace) {
        return Err(Refusal::invalid("it is no URL"));
    }
    Err(Refusal {
        reason: Reason::UnsupportedScheme,
        detail: format!(
            "the scheme `{}` is not supported, only `http` and `https`",
            scheme.to_ascii_lowercase()
        ),
    })
}

fn no_scheme(rest: &str) -> Refusal {
    let host = rest.split(['/', '?', ':']).next().unwrap_or_default();
    let like_a_host = host == "localhost"
        || (host.contains('.')
            && !host.starts_with('.')
            && !host.ends_with('.')
            && host
                .chars()
                .all(|c| c.is_alphanumeric() || c == '.' || c == '-'));
    Refusal::invalid(if like_a_host && !rest.contains('@') {
        let short: String = rest.chars().take(SHOWN_CHARS).collect();
        format!("it has no scheme; write `https://{short}`")
    } else {
        "it is no URL: it does not begin with `http://` or `https://`".to_owned()
    })
}

/// Scheme and rest (RFC 3986, section 3.1).
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let wellformed = bytes.next()?.is_ascii_alphabetic()
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    wellformed.then_some((scheme, rest))
}

/// Whether `text` begins with an address at all, so that a table's first row is no header.
pub(super) fn looks_like_url(text: &str) -> bool {
    let text = text.trim_start_matches(is_blank);
    has_prefix(text, "http://") || has_prefix(text, "https://")
}

pub(super) fn has_prefix(text: &str, prefix: &str) -> bool {
    text.as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// As [`looks_like_url`], also for an address in quotes or angle brackets.
pub(super) fn begins_url(text: &str) -> bool {
    looks_like_url(text.trim_start_matches(|c| is_blank(c) || matches!(c, '"' | '\'' | '<')))
}

/// Unicode white space and invisible characters. Joined files have byte order marks inside.
pub(super) fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{feff}')
}

/// Returns `true` if another address follows after a blank.
fn holds_two(text: &str) -> bool {
    let may_hold_blanks = text.bytes().any(|byte| byte == b' ' || !byte.is_ascii());
    may_hold_blanks && text.split(is_blank).skip(1).any(begins_url)
}

/// Percent-encodes the bytes that are not UTF-8, such as Latin-1's; hosts do not survive that, paths do.
fn encode_foreign_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "%{byte:02X}"); // writing to a string does not fail
        }
    }
    text
}

/// What an [`Invalid`] shows of a text: bounded, without credentials and control characters.
pub(super) fn shown(text: &str) -> String {
    // Bounded before anything is searched: a text may be as long as a line.
    let start: String = text.trim().chars().take(8 * SHOWN_CHARS).collect();
    mask(&start)
        .chars()
        .take(SHOWN_CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Whether no `@` can end credentials: in a mail address, and in a path without a scheme, such as
/// `example.org/cat@2x.png`.
fn is_harmless(text: &str, last_at: usize) -> bool {
    let before = text[..last_at].strip_prefix("mailto:");
    let before = before.unwrap_or(&text[..last_at]);
    let in_path = before
        .split('@')
        .next()
        .is_some_and(|start| start.contains('/'));
    let in_mail = !before.contains(['/', '@']) && !text[last_at..].contains('/');
    (in_path || in_mail)
        && !before.contains("//")
        && !before.contains(|c: char| c.is_whitespace() || ":\\\"'<>".contains(c))
}

/// Masks what may be credentials, in a text that need not be a URL at all.
///
/// What stands before an `@` back to a slash, quote or space goes; so does everything from `//` on
/// when a colon shows that a password with a slash in it may be meant. Better too much than too little.
fn mask(text: &str) -> Cow<'_, str> {
    let Some(last_at) = text.rfind('@') else {
        return Cow::Borrowed(text);
    };
    if is_harmless(text, last_at) {
        return Cow::Borrowed(text);
    }
    let authority = text.find("//").map(|at| at + 2);
    if let Some(begin) = authority
        && begin < last_at
    {
        let rest = &text[begin..last_at];
        let user = rest.split(['/', '@']).next().unwrap_or_default();
        if user.contains(':') || !rest.contains('/') {
            return Cow::Owned(format!("{}***{}", &text[..begin], &text[last_at..]));
        }
    }
    let mut masked = String::with_capacity(text.len());
    let mut pieces = text.split('@').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            masked.push_str(piece);
        } else {
            let keep = piece
                .rfind(|c: char| c.is_whitespace() || "/\\\"'<>".contains(c))
                .map_or(0, |at| at + 1);
            // A separator may be longer than a byte: `rfind` answers with where it begins.
            let keep = piece.ceil_char_boundary(keep);
            masked.push_str(&piece[..keep]);
            masked.push_str(if keep < piece.len() { "***@" } else { "@" });
        }
    }
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(text: &str) -> Reason {
        parse(text.as_bytes()).expect_err(text).reason
    }

    #[test]
    fn addresses_are_normalised_and_nothing_else() {
        for (written, meant) in [
            ("https://example.org", "https://example.org/"),
            ("HTTPS://EXAMPLE.org/A", "https://example.org/A"),
            (" https://example.org/a \t", "https://example.org/a"),
            (
                "https://example.org/a b.jpg",
                "https://example.org/a%20b.jpg",
            ),
            (
                "https://example.org/a%20b.jpg",
                "https://example.org/a%20b.jpg",
            ),
            (
                "https://example.org/%7euser/%zz",
                "https://example.org/%7euser/%zz",
            ),
            (
                "https://example.org/a?q=b c#part",
                "https://example.org/a?q=b%20c",
            ),
            ("https://example.org/a #comment", "https://example.org/a"),
            (
                "https://bücher.example/ü",
                "https://xn--bcher-kva.example/%C3%BC",
            ),
            (
                "https://example.org:443/../a/./b",
                "https://example.org/a/b",
            ),
            ("http:/example.org/a", "http://example.org/a"),
            ("\u{feff}https://example.org/", "https://example.org/"),
            (
                "\u{3000}https://example.org/\u{200b}",
                "https://example.org/",
            ),
            (
                "https://example.org/?u=https://b.example/",
                "https://example.org/?u=https://b.example/",
            ),
            ("https://ann:pw@example.org/", "https://ann:pw@example.org/"),
            ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ] {
            assert_eq!(parse(written.as_bytes()).expect(written).as_str(), meant);
        }
        assert_eq!(
            parse(b"https://example.org/caf\xe9.jpg").unwrap().as_str(),
            "https://example.org/caf%E9.jpg"
        );
    }

    #[test]
    fn what_is_no_web_address_says_why() {
        for text in [
            "",
            "   ",
            "#",
            "hello",
            "hello world",
            "note: this",
            "http://",
            "https://",
            "https:///",
            "http://exa mple.org/",
            "http://example.org:99999/",
            "http://[::1/a",
            "example.org/a.jpg",
            "//example.org/a.png",
            "/images/a.png",
            "C:\\a.png",
            "example.org:8080/a",
            "http://a\0b/",
            "http://example.org/\u{1}",
            "https://a.example/1 https://b.example/2",
            "https://a.example/1\u{3000}https://b.example/2",
            "https://a.example/1\u{a0}HTTP://b.example/2",
            "https://a.example/1, \"https://b.example/2\"",
            "https://a.example/1 <https://b.example/2>",
            "url",
            "http://%ff/",
        ] {
            assert_eq!(reason(text), Reason::InvalidUrl, "{text:?}");
        }
        for text in [
            "ftp://example.org/a",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "javascript:alert(1)",
            "mailto:ann@example.org",
            "s3://bucket/key",
            "FTP://EXAMPLE.ORG/",
            "blob:https://example.org/1",
        ] {
            assert_eq!(reason(text), Reason::UnsupportedScheme, "{text:?}");
        }
        let detail = |text: &str| parse(text.as_bytes()).unwrap_err().detail;
        assert!(detail("example.org/a.jpg").contains("write `https://example.org/a.jpg`"));
        assert!(detail("//example.org/a.png").contains("write `https://example.org/a.png`"));
        assert!(detail("localhost:80/x").contains("write `https://localhost:80/x`"));
        assert!(detail("ftp://example.org/").contains("`ftp`"));
        assert!(detail("http://a\0b/").contains("NUL"));
    }

    #[test]
    fn what_is_shown_holds_no_credentials() {
        for text in [
            "https://ann:secret@example.org:99999/",
            "https://secret@example.org:99999/",
            "ann:secret@example.org/a",
            "//ann:secret@example.org/a",
            "ftp://ann:secret@example.org/a",
            "https://ann:sec/secret@example.org/a",
            "https://ann:secret@x@example.org:x/",
            "https:ann:secret@example.org:x",
            "see <https://ann:secret@example.org:x>",
            "secret@example.org/a",
            "mailto:ann:secret@example.org",
            "a/b ann:secret@example.org",
            "a/ann:secret@example.org",
            "//secret@example.org",
            "猫\u{3000}ann:secret@example.org",
        ] {
            assert!(!shown(text).contains("secret"), "{text} -> {}", shown(text));
            assert!(
                shown(text).contains("example.org"),
                "{text} -> {}",
                shown(text)
            );
            if let Err(refusal) = parse(text.as_bytes()) {
                assert!(!refusal.detail.contains("secret"), "{text}");
            }
        }
        assert_eq!(shown("https://example.org:x/@ann/1"), "https://***@ann/1");
        for text in [
            "ann@example.org",
            "mailto:ann@example.org",
            "example.org/@ann/cat@2x.png",
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("a\0b"), "a\u{fffd}b");
        assert_eq!(shown(&"ü".repeat(500)).chars().count(), 200);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_address_or_a_refusal(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let mut url = b"https://".to_vec();
            url.extend(&bytes);
            if let Ok(url) = parse(&url) {
                prop_assert!(url.fragment().is_none() && url.has_host());
            }
        }

        #[test]
        fn any_text_can_be_shown(text: String, at in "[a:/@ é]{0,30}") {
            prop_assert!(shown(&text).chars().count() <= 200);
            shown(&at);
        }
    }
}
