//! Detection of a list's encoding.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use encoding_rs::{Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The encoding of text that is not UTF-8 and names no encoding: that of spreadsheets in Western Europe and the
/// Americas.
pub(super) const FALLBACK: &Encoding = WINDOWS_1252;

/// An encoding by a label that browsers know (WHATWG Encoding, section 4.2), such as `windows-1252` or `shift_jis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListEncoding(&'static Encoding);

impl fmt::Display for ListEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name())
    }
}

/// A name that is not a known label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no encoding; write one such as `utf-8`, `windows-1252`, `shift_jis` or `utf-16le`"
)]
pub struct UnknownEncoding(String);

impl FromStr for ListEncoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        by_label(name.as_bytes())
            .map(Self)
            .ok_or_else(|| UnknownEncoding(name.to_owned()))
    }
}

impl Serialize for ListEncoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for ListEncoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(de::Error::custom)
    }
}

/// Reads a setting in which an empty string means `None`.
pub(super) fn or_none<'de, D>(deserializer: D) -> Result<Option<ListEncoding>, D::Error>
where
    D: Deserializer<'de>,
{
    let name = String::deserialize(deserializer)?;
    match name.as_str() {
        "" => Ok(None),
        name => name.parse().map(Some).map_err(de::Error::custom),
    }
}

/// Names in common use that are not labels of browsers, with such a label.
const ALIASES: [(&str, &str); 11] = [
    ("cp932", "windows-31j"),
    ("ms932", "windows-31j"),
    ("ansi", "windows-1252"),
    ("latin-1", "windows-1252"),
    ("latin_1", "windows-1252"),
    ("cp65001", "utf-8"),
    ("cp936", "gbk"),
    ("ms936", "gbk"),
    ("cp949", "euc-kr"),
    ("cp950", "big5"),
    ("koi8r", "koi8-r"),
];

/// Returns the encoding with this label. `None` also for those that browsers refuse to decode.
///
/// ASCII means UTF-8 here rather than windows-1252, because servers label XML as ASCII that is not (RFC 3023).
fn by_label(label: &[u8]) -> Option<&'static Encoding> {
    let name = label.trim_ascii();
    if name.eq_ignore_ascii_case(b"us-ascii") || name.eq_ignore_ascii_case(b"ascii") {
        return Some(UTF_8);
    }
    let alias = ALIASES
        .iter()
        .find(|(alias, _)| name.eq_ignore_ascii_case(alias.as_bytes()));
    let label = alias.map_or(label, |(_, label)| label.as_bytes());
    Encoding::for_label(label).filter(|encoding| *encoding != REPLACEMENT)
}

/// An encoding, and how it was determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Stated by a byte order mark, by the user, or by the `charset` that came with the text.
    Said(&'static Encoding),
    /// Not stated; zero bytes show that it is UTF-16.
    Shown(&'static Encoding),
    /// Unknown. Assumed to be UTF-8, unless a declaration or the text itself shows otherwise.
    Open,
}

/// Chooses the encoding of a text that begins with `head`. Four bytes are enough.
///
/// The user's choice comes first. A byte order mark comes before the `charset` of `media_type` (RFC 7303, section 3;
/// WHATWG Encoding, section 6), because no list really begins with `ï»¿`.
pub(super) fn choose(head: &[u8], said: Option<ListEncoding>, media_type: Option<&str>) -> Choice {
    let mark = Encoding::for_bom(head).map(|(encoding, _)| encoding);
    let is_utf_16 = |encoding| encoding == UTF_16LE || encoding == UTF_16BE;
    if let Some(ListEncoding(said)) = said {
        // For a plain `utf-16`, the mark decides the byte order.
        let order = mark.filter(|mark| is_utf_16(said) && is_utf_16(*mark));
        return Choice::Said(order.unwrap_or(said));
    }
    // No text in UTF-16 begins with two bytes of ASCII.
    let is_ascii = matches!(head, [1..=0x7f, 1..=0x7f, ..]);
    let charset = || {
        let charset = media_type.and_then(charset);
        charset.filter(|charset| !(is_ascii && is_utf_16(*charset)))
    };
    if let Some(encoding) = mark.or_else(charset) {
        // Zero bytes disprove any other `charset`, and show the byte order of UTF-16.
        return match by_zeros(head) {
            Some(shown) if mark.is_none() => Choice::Shown(shown),
            _ => Choice::Said(encoding),
        };
    }
    by_zeros(head).map_or(Choice::Open, Choice::Shown)
}

/// Detects UTF-16 by the zero bytes of ASCII characters. Every list begins with two ASCII characters.
fn by_zeros(head: &[u8]) -> Option<&'static Encoding> {
    let ascii = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match *head {
        [a, 0, b, 0, ..] if ascii(a) && ascii(b) => Some(UTF_16LE),
        [0, a, 0, b, ..] if ascii(a) && ascii(b) => Some(UTF_16BE),
        _ => None,
    }
}

/// Returns `true` if `head` begins with the byte order mark of UTF-32, which is not supported.
pub(super) fn is_utf_32(head: &[u8]) -> bool {
    head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff")
}

/// Returns the `charset` of a media type (RFC 9110, section 8.3.2), if it is a known one.
pub(super) fn charset(media_type: &str) -> Option<&'static Encoding> {
    media_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| by_label(value.as_bytes())).flatten()
    })
}

/// Returns the encoding named by an XML declaration in `head` (XML 1.0, section 4.3.3).
///
/// `None` if it names UTF-16, because the declaration could not be read like this in UTF-16.
pub(super) fn xml_declared(head: &[u8]) -> Option<&'static Encoding> {
    let begin = memchr::memmem::find(head, b"<?xml")?;
    let declaration = &head[begin..];
    let declaration = &declaration[..memchr::memchr(b'>', declaration)?];
    let at = memchr::memmem::find(declaration, b"encoding")?;
    let name = declaration[at + "encoding".len()..]
        .split(|byte| matches!(byte, b'"' | b'\''))
        .nth(1)?;
    by_label(name).filter(|encoding| encoding.is_ascii_compatible())
}

/// Returns the encoding named by a `meta` element in the first 1024 bytes of a page (WHATWG HTML, section 13.2.3.2).
fn meta_declared(page: &[u8]) -> Option<&'static Encoding> {
    let head = page[..page.len().min(1024)].to_ascii_lowercase();
    let meta = memchr::memmem::find(&head, b"<meta")?;
    let at = memchr::memmem::find(&head[meta..], b"charset=")? + meta + "charset=".len();
    let value = head[at..].trim_ascii_start();
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let value = value.strip_prefix(b"'").unwrap_or(value);
    let end = value
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || b"\"'>;/".contains(byte))?;
    by_label(&value[..end]).filter(|encoding| encoding.is_ascii_compatible())
}

/// Decodes `bytes` that are not valid UTF-8 as `fallback`. If most of them are UTF-8, only the invalid bytes are.
pub(super) fn mixed<'a>(bytes: &'a [u8], fallback: &'static Encoding) -> Cow<'a, str> {
    let decode = |bytes| fallback.decode_without_bom_handling(bytes).0;
    if !fallback.is_single_byte() || !is_mostly_utf_8(bytes) {
        return decode(bytes);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(&decode(chunk.invalid()));
    }
    text.into()
}

/// Returns `true` if the multi-byte sequences in `bytes` are UTF-8 rather than a coincidence.
///
/// In windows-1252, `É»` is also a valid sequence, as is `é` with a no-break space and `»`. Sequences that begin with `Ã`
/// or `Â`, as the letters of Western Europe do in UTF-8, are less likely there, so fewer of them are needed.
fn is_mostly_utf_8(bytes: &[u8]) -> bool {
    let (mut foreign, mut chars, mut western) = (0, 0, 0);
    for chunk in bytes.utf8_chunks() {
        foreign += chunk.invalid().len();
        for byte in chunk.valid().bytes() {
            chars += usize::from(byte >= 0xc0);
            western += usize::from(matches!(byte, 0xc2 | 0xc3));
        }
    }
    chars > foreign || 4 * western >= foreign
}

/// Decodes a complete page by the rules for lists. `media_type` is that of its answer.
pub(super) fn text<'a>(page: &'a [u8], media_type: Option<&str>) -> Cow<'a, str> {
    let encoding = match choose(page, None, media_type) {
        Choice::Said(encoding) | Choice::Shown(encoding) => encoding,
        Choice::Open => UTF_8,
    };
    if encoding == UTF_8 && std::str::from_utf8(page).is_err() {
        let page = page.strip_prefix(b"\xef\xbb\xbf").unwrap_or(page);
        let declared = meta_declared(page).filter(|encoding| *encoding != UTF_8);
        return mixed(page, declared.unwrap_or(FALLBACK));
    }
    encoding.decode_with_bom_removal(page).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoding_rs::{ISO_8859_2, KOI8_R, SHIFT_JIS};

    #[test]
    fn the_user_then_a_mark_then_the_charset_then_zeros_choose() {
        use Choice::{Open, Said, Shown};
        let list = Some("text/csv; header=present; Charset=\"ISO-8859-2\"");
        for (head, said, media_type, wanted) in [
            (&b"http"[..], None, None, Open),
            (b"", None, None, Open),
            (b"http", None, Some("text/csv"), Open),
            (b"http", None, Some("text/csv; charset=binary"), Open),
            (b"http", None, Some("text/csv; charset=iso-2022-cn"), Open),
            (b"http", None, Some("text/csv; charset=utf-16"), Open),
            (b"http", None, list, Said(ISO_8859_2)),
            (b"http", None, Some("text/csv;charset=utf8"), Said(UTF_8)),
            (
                b"http",
                None,
                Some("text/csv;charset=US-ASCII"),
                Said(UTF_8),
            ),
            (b"http", Some("shift-jis"), list, Said(SHIFT_JIS)),
            (b"\xef\xbb\xbfu", None, list, Said(UTF_8)),
            (b"\xef\xbb\xbfu", Some("koi8-r"), None, Said(KOI8_R)),
            (
                b"\xff\xfeh\0",
                None,
                Some("a/b; charset=utf-8"),
                Said(UTF_16LE),
            ),
            (b"\xfe\xff\0h", None, None, Said(UTF_16BE)),
            (b"\xfe\xff\0h", Some("utf-16"), None, Said(UTF_16BE)),
            (b"h\0t\0", Some("utf-16"), None, Said(UTF_16LE)),
            (b"h\0t\0", None, None, Shown(UTF_16LE)),
            (
                b"\0h\0t",
                None,
                Some("a/b; charset=utf-16"),
                Shown(UTF_16BE),
            ),
            (b"\0h\0t", None, Some("a/b; charset=utf-8"), Shown(UTF_16BE)),
        ] {
            let said = said.map(|name| name.parse().unwrap());
            assert_eq!(
                choose(head, said, media_type),
                wanted,
                "{head:?} {media_type:?}"
            );
        }
    }

    #[test]
    fn encodings_come_back_as_they_were_written() {
        for (written, name) in [
            ("latin1", "windows-1252"),
            (" CP1252 ", "windows-1252"),
            ("utf8", "UTF-8"),
            ("Shift-JIS", "Shift_JIS"),
            (" CP932 ", "Shift_JIS"),
            ("Latin-1", "windows-1252"),
            ("cp65001", "UTF-8"),
            ("cp936", "GBK"),
            ("cp949", "EUC-KR"),
            ("cp950", "Big5"),
            ("koi8r", "KOI8-R"),
        ] {
            let encoding: ListEncoding = written.parse().unwrap();
            assert_eq!(encoding.to_string(), name);
            let json = serde_json::to_string(&encoding).unwrap();
            assert_eq!(
                serde_json::from_str::<ListEncoding>(&json).unwrap(),
                encoding
            );
        }
        for unknown in ["", "utf-32", "hz-gb-2312", "excel", "cp437"] {
            let error = unknown.parse::<ListEncoding>().unwrap_err().to_string();
            assert!(error.contains("windows-1252"), "{error}");
        }
    }

    #[test]
    fn an_xml_declaration_names_an_encoding() {
        for (head, wanted) in [
            ("<?xml version='1.0' encoding='KOI8-R'?><rss>", Some(KOI8_R)),
            (
                "\n<?xml version=\"1.0\" encoding = \"koi8-r\" ><rss>",
                Some(KOI8_R),
            ),
            ("<?xml version='1.0' encoding='UTF-16'?>", None),
            ("<?xml version='1.0'?><a encoding='koi8-r'>", None),
            ("<?xml version='1.0' encoding='koi8-r'", None),
            ("encoding='koi8-r'", None),
        ] {
            assert_eq!(xml_declared(head.as_bytes()), wanted, "{head}");
        }
    }

    #[test]
    fn pages_are_decoded_by_the_same_rule() {
        let html = Some("text/html");
        for (page, media_type, wanted) in [
            (&b"caf\xc3\xa9"[..], html, "café"),
            (b"caf\xe9", html, "café"),
            (b"M\xc3\xbcnchen caf\xe9", html, "München café"),
            (b"caf\xe9", Some("text/html; charset=utf-8"), "café"),
            (b"\xc1", Some("text/html; charset=koi8-r"), "а"),
            (b"<meta charset=koi8-r>\xc1", html, "<meta charset=koi8-r>а"),
            (
                b"<META http-equiv=x content='text/html; charset=koi8-r'>\xc1",
                None,
                "<META http-equiv=x content='text/html; charset=koi8-r'>а",
            ),
            (b"\xef\xbb\xbfa", html, "a"),
            (b"\xff\xfea\0", html, "a"),
        ] {
            assert_eq!(text(page, media_type), wanted, "{page:?}");
        }
    }
}
