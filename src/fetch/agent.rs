//! The product token by which robots.txt and `X-Robots-Tag` address this client.

use serde::de::{Deserialize as _, Deserializer, Error as _};

/// Default token for a user agent that names no product.
const DEFAULT: &str = "gannet";

/// Returns the product token in a `User-Agent` value. That is its first product, or, if that is a browser's `Mozilla`,
/// the product in a comment, as in `Mozilla/5.0 (compatible; PictureBot/2.1; +https://example.org/bot)`, or else the
/// next product that is not a browser's.
pub(super) fn product_token(user_agent: &str) -> &str {
    let first = token(user_agent.trim_start());
    let product = if first.eq_ignore_ascii_case("mozilla") {
        let product = in_comment(user_agent).or_else(|| after_comments(user_agent));
        product.unwrap_or(first)
    } else {
        first
    };
    if product.is_empty() { DEFAULT } else { product }
}

/// Returns the product after `compatible`, or the first part of a comment that has the form `NAME/VERSION`.
fn in_comment(user_agent: &str) -> Option<&str> {
    let parts = || {
        let comments = user_agent.split('(').skip(1);
        comments.flat_map(|rest| rest.split(')').next().unwrap_or_default().split(';'))
    };
    let parts = || parts().map(str::trim);
    let mut after = parts().skip_while(|part| !part.eq_ignore_ascii_case("compatible"));
    let compatible = after.nth(1).map(token).filter(|token| !token.is_empty());
    compatible.or_else(|| parts().find_map(versioned))
}

/// Returns the first `NAME/VERSION` outside of comments that is no part of a browser.
fn after_comments(user_agent: &str) -> Option<&str> {
    const BROWSERS: [&str; 14] = [
        "Mozilla",
        "AppleWebKit",
        "Gecko",
        "Version",
        "Mobile",
        "Chrome",
        "Chromium",
        "CriOS",
        "Safari",
        "Firefox",
        "FxiOS",
        "Edg",
        "Edge",
        "OPR",
    ];
    let is_browser = |name: &&str| BROWSERS.iter().any(|part| part.eq_ignore_ascii_case(name));
    let mut pieces = user_agent.split('(');
    let before = pieces.next().into_iter();
    let after = pieces.filter_map(|piece| Some(piece.split_once(')')?.1));
    before
        .chain(after)
        .flat_map(str::split_whitespace)
        .filter_map(versioned)
        .find(|name| !is_browser(name))
}

/// Returns the name if all of `part` is `NAME/VERSION`. In browsers' comments, `Build/X` always follows other words.
fn versioned(part: &str) -> Option<&str> {
    let (name, version) = part.split_once('/')?;
    let is_product = is_product_token(name)
        && version.starts_with(|c: char| c.is_ascii_digit())
        && !version.contains(char::is_whitespace);
    is_product.then_some(name)
}

/// Returns the token (RFC 9110, section 5.6.2) at the start of `text`.
pub(super) fn token(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    &text[..text.find(|c| !is_part(c)).unwrap_or(text.len())]
}

/// RFC 9309 (section 2.2.1) allows letters, `-` and `_`; digits and dots are in common use.
fn is_product_token(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.bytes().all(is_part)
}

/// Reads `robots_agent`. An empty string means `None`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    if !is_product_token(&text) {
        return Err(D::Error::custom(format!(
            "`{text}` is not a product token; write letters, digits, `-` and `_` without a version, such as \"PictureBot\""
        )));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::product_token;

    #[test]
    fn the_product_is_found_in_every_usual_form() {
        for (user_agent, expected) in [
            ("gannet/0.1", "gannet"),
            ("PictureBot", "PictureBot"),
            (" PictureBot/2.1 (+https://example.org/bot)", "PictureBot"),
            ("picture_bot-2 someone@example.org", "picture_bot-2"),
            ("PictureBot(+https://example.org)", "PictureBot"),
            ("Mozilla/5.0 (compatible; PictureBot/2.1)", "PictureBot"),
            ("mozilla/5.0 (Compatible;PictureBot)", "PictureBot"),
            (
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; PictureBot/2.1; +https://example.org/bot) Chrome/120.0 Safari/537.36",
                "PictureBot",
            ),
            (
                "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Mobile Safari/537.36 (compatible; PictureBot/2.1; +https://example.org/bot)",
                "PictureBot",
            ),
            (
                "Mozilla/5.0 (Windows NT 6.1; rv:6.0) Gecko Firefox/6.0 (compatible; img2dataset; +https://example.org)",
                "img2dataset",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15 (PictureBot/0.1; +https://example.org)",
                "PictureBot",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Mozilla",
            ),
            ("Mozilla/5.0 (Macintosh) PictureBot/1.0", "PictureBot"),
            (
                "Mozilla/5.0 (X11) Gecko/20100101 Firefox/140.0 PictureBot/1.0",
                "PictureBot",
            ),
            ("Mozilla/5.0", "Mozilla"),
            ("Mozilla/5.0 (compatible; )", "Mozilla"),
            ("Mozilla/5.0 (compatible", "Mozilla"),
            ("", "gannet"),
            ("(+https://example.org)", "gannet"),
        ] {
            assert_eq!(product_token(user_agent), expected, "{user_agent}");
        }
    }
}
