//! Plain text: one URL per line, captions, comments, and the option lines of aria2's input files.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::json;
use crate::local_path::LocalPath;
use crate::source::Entry;
use crate::source::address::{self, Refusal, begins_url, is_blank};
use crate::source::decode::Input;
use crate::source::error::Stop;
use crate::source::lines::Lines;
use crate::source::row::{self, RowReader};
use crate::source::sink::{SharedSink, Sink};
use crate::target::{AlbumName, Target};

/// Most segments of an album's name.
const MAX_SEGMENTS: usize = 8;

/// One entry for each line that is neither blank, nor a comment, nor an option.
pub(super) fn parse(input: Input, sink: &SharedSink) -> Result<(), Stop> {
    let mut lines = Lines::new(input);
    let mut reader = RowReader::default();
    while let Some(line) = lines.next()? {
        if line.overlong {
            let entry = row::overlong(line.number, line.bytes);
            sink.borrow_mut().push(entry)?;
            continue;
        }
        let text = String::from_utf8_lossy(line.bytes);
        let text = text.trim_matches(is_blank);
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if matches!(line.bytes[0], b' ' | b'\t')
            && let Some((name, value)) = option(text)
        {
            apply(&mut sink.borrow_mut(), name, value);
            continue;
        }
        if let Some(entry) = json::object_line(text, line.number, &mut reader) {
            sink.borrow_mut().push(entry)?;
            continue;
        }
        let (url, caption) = parts(text);
        let entry = match address::parse(url.as_bytes()) {
            Ok(url) => {
                let mut target = Target::new(url);
                target.line = Some(line.number);
                target.metadata = caption.map(|caption| {
                    let caption = Value::String(caption.to_owned());
                    Box::new(Map::from_iter([("caption".to_owned(), caption)]))
                });
                Entry::Target(target)
            }
            Err(refusal) => Entry::Invalid(refusal.at(Some(line.number), text)),
        };
        sink.borrow_mut().push(entry)?;
    }
    Ok(())
}

/// Splits a line into its URL and the caption after it.
///
/// A URL ends at white space, unless it is in quotes or angle brackets. A comma after it is dropped, as lines of an
/// array have one. aria2 accepts several mirrors of one file, separated by tabs; the first one counts.
fn parts(text: &str) -> (Cow<'_, str>, Option<&str>) {
    let (url, mut rest) = quoted(text).unwrap_or_else(|| {
        let (url, rest) = text.split_at(text.find(is_blank).unwrap_or(text.len()));
        (url.strip_suffix(',').unwrap_or(url).into(), rest)
    });
    let caption = loop {
        let caption = rest.trim_start_matches(is_blank);
        let caption = caption.strip_prefix([',', ';']).unwrap_or(caption);
        let caption = caption.trim_start_matches(is_blank);
        if caption.is_empty() || caption.starts_with('#') {
            return (url, None);
        }
        if !begins_url(caption) {
            break caption;
        }
        if !rest[..rest.len() - caption.len()].contains('\t') {
            // Two URLs on one line. The whole line is refused.
            return (text.into(), None);
        }
        rest = &caption[caption.find(is_blank).unwrap_or(caption.len())..];
    };
    // White space within a host is a mistake, not the end of the URL.
    let is_cut = |host: &str| !host.contains(['/', '?', '.', ':']);
    match url.split_once("://") {
        Some((_, host)) if is_cut(host) => (text.into(), None),
        _ => (url, Some(without_quotes(caption))),
    }
}

/// Strips the separator at the end of a caption, and the quotes around it.
fn without_quotes(caption: &str) -> &str {
    let inner = caption.strip_suffix([',', ';']).unwrap_or(caption);
    let inner = inner.trim_end_matches(is_blank);
    for quote in ['"', '\''] {
        let unquoted = inner
            .strip_prefix(quote)
            .and_then(|inner| inner.strip_suffix(quote));
        if let Some(unquoted) = unquoted.filter(|inner| !inner.contains(quote)) {
            return unquoted;
        }
    }
    // A `;` may end a reference such as `&amp;`.
    caption.strip_suffix(',').unwrap_or(caption)
}

/// Splits off the text in the quotes or angle brackets that `text` begins with. Returns it with the rest.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let close = match text.as_bytes()[0] {
        b'<' => '>',
        quote @ (b'"' | b'\'') => quote.into(),
        _ => return None,
    };
    let (inner, rest) = text[1..].split_once(close)?;
    if close == '"' && inner.contains('\\') {
        // A JSON string, in which slashes may be escaped.
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(inner)) = strings.next() {
            return Some((inner.into(), &text[strings.byte_offset()..]));
        }
    }
    Some((inner.into(), rest))
}

/// `name=value`, where the name is written as aria2 writes its options. No URL is.
fn option(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    is_name.then_some((name, value.trim()))
}

/// Amends the newest target. Options that mean nothing to gannet are ignored, as are those of an invalid line.
fn apply(sink: &mut Sink, name: &str, value: &str) {
    let Some(target) = sink.newest() else {
        return;
    };
    match name {
        "out" if !value.is_empty() => target.name = Some(value.to_owned()),
        "dir" => match LocalPath::new(value) {
            Ok(_) => target.album = album(value),
            Err(error) => sink.spoil_newest(format!("option `dir`: {error}")),
        },
        "checksum" => {
            let Some((kind, digits)) = value.split_once('=') else {
                return;
            };
            if kind.eq_ignore_ascii_case("sha-256") {
                match digits.trim().parse() {
                    Ok(digest) => target.sha256 = Some(digest),
                    Err(error) => {
                        let refusal = Refusal::invalid(format!("option `checksum`: {error}"));
                        sink.spoil_newest(refusal.detail);
                    }
                }
            }
        }
        _ => {}
    }
}

/// The album for a folder, as near to it as an album's name may be: relative, nothing hidden, nothing
/// that leads upwards. `None` when nothing is left.
fn album(dir: &str) -> Option<AlbumName> {
    let mut name = String::new();
    let segments = dir
        .split(['/', '\\'])
        .map(|segment| segment.trim_start_matches(['-', ' ', '\t']).trim())
        .map(|segment| segment.trim_end_matches(['.', ' ']))
        .filter(|segment| !segment.is_empty() && !segment.starts_with('.'));
    for segment in segments.take(MAX_SEGMENTS) {
        if name.len() + 1 + segment.len() > AlbumName::MAX_BYTES {
            break;
        }
        if !name.is_empty() {
            name.push('/');
        }
        name.extend(segment.chars().map(|c| {
            if c.is_control() || ":*?\"<>|".contains(c) {
                '_'
            } else {
                c
            }
        }));
    }
    AlbumName::new(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ListFormat::Text;
    use crate::source::testing::{entries, read, said, short, targets};

    #[test]
    fn lines_become_targets_with_their_numbers() {
        let list = "# a list\n\nhttps://a.example/1\r\n  https://a.example/2 # two\rhttps://a.example/x y\n\
                    <https://a.example/4>\n\"https://a.example/5\" # five\n'https://a.example/6'\n\
                    https://a.example/7\thttps://b.example/7\nhttps://a.example/8#part";
        assert_eq!(
            said(Text, list),
            [
                "3 https://a.example/1",
                "4 https://a.example/2",
                "5 https://a.example/x",
                "6 https://a.example/4",
                "7 https://a.example/5",
                "8 https://a.example/6",
                "9 https://a.example/7",
                "10 https://a.example/8",
            ]
        );
    }

    #[test]
    fn a_url_ends_at_white_space_and_a_caption_follows() {
        for (line, url, caption) in [
            (
                "http://a/1 a harbour at dawn",
                "http://a/1",
                Some("a harbour at dawn"),
            ),
            ("http://a/1\ta  harbour", "http://a/1", Some("a  harbour")),
            ("http://a/1\u{a0}ein Hafen", "http://a/1", Some("ein Hafen")),
            ("http://a/1\u{3000}\u{6e2f}", "http://a/1", Some("\u{6e2f}")),
            ("http://a/1 photo #3", "http://a/1", Some("photo #3")),
            (
                "http://a/1 from http://b/",
                "http://a/1",
                Some("from http://b/"),
            ),
            ("http://a/1 # comment", "http://a/1", None),
            ("\"http://a/1\" a harbour", "http://a/1", Some("a harbour")),
            ("'http://a/1', a harbour", "http://a/1", Some("a harbour")),
            ("<http://a/1> a harbour", "http://a/1", Some("a harbour")),
            (
                "\"http://a/1\", \"a harbour\",",
                "http://a/1",
                Some("a harbour"),
            ),
            ("\"http://a/1\";", "http://a/1", None),
            ("http://a/1 'a'; 'b'", "http://a/1", Some("'a'; 'b'")),
            ("http://a/1 a &amp;", "http://a/1", Some("a &amp;")),
            ("http://a/1, a harbour", "http://a/1", Some("a harbour")),
            ("http://a/1?x=1,2 a", "http://a/1?x=1,2", Some("a")),
            ("\"http://a/1\",", "http://a/1", None),
            ("'http://a/1' ,", "http://a/1", None),
            ("\"http://a/1\", # one", "http://a/1", None),
            ("<http://a/1>,", "http://a/1", None),
            ("http://a/1,", "http://a/1", None),
            ("\"http://a/x y\"", "http://a/x y", None),
            (
                "\"http:\\/\\/a\\/\\u00fc\", \"a\\/b\"",
                "http://a/ü",
                Some("a\\/b"),
            ),
            ("\"http:\\/\\/a\",", "http://a", None),
            ("\"http://a\\x\"", "http://a\\x", None),
            ("http://a/1\thttp://b/1", "http://a/1", None),
            ("http://a/1\thttp://b/1\thttp://c/1", "http://a/1", None),
            (
                "http://a/1\thttp://b/1\ta harbour",
                "http://a/1",
                Some("a harbour"),
            ),
            // Refused as a whole.
            ("http://a/1 http://b/1", "http://a/1 http://b/1", None),
            (
                "http://a/1\u{3000}http://b/1",
                "http://a/1\u{3000}http://b/1",
                None,
            ),
            (
                "\"http://a/1\", \"http://b/1\"",
                "\"http://a/1\", \"http://b/1\"",
                None,
            ),
            ("http://exa mple.org/", "http://exa mple.org/", None),
            ("\"http://a/1", "\"http://a/1", None),
            ("hello world", "hello", Some("world")),
        ] {
            assert_eq!(parts(line), (url.into(), caption), "{line}");
        }
        let list = "https://a.example/1 a harbour\n  out=harbour.jpg\nhttps://a.example/2\n";
        let all = entries(Text, list.as_bytes()).unwrap();
        let found = targets(&all);
        let metadata = found[0].metadata.as_ref().unwrap();
        assert_eq!(metadata["caption"], "a harbour");
        assert_eq!(found[0].name.as_deref(), Some("harbour.jpg"));
        assert_eq!(found[1].metadata, None);
    }

    #[test]
    fn two_urls_on_a_line_are_refused_whatever_divides_them() {
        for between in [" ", "\u{a0}", "\u{3000}", " \u{200b}", ", ", " \"", " <"] {
            let list = format!("#\nhttps://a.example/1{between}https://a.example/2\n");
            let all = entries(Text, list.as_bytes()).unwrap();
            let [Entry::Invalid(invalid)] = &all[..] else {
                panic!("{all:?}")
            };
            assert!(invalid.detail.contains("two URLs"), "{invalid:?}");
        }
    }

    #[test]
    fn escaped_slashes_are_slashes_in_every_reading() {
        let lines = "\"https:\\/\\/a.example\\/1.jpg\",\n\"https:\\/\\/a.example\\/2.jpg\"\n";
        for (format, before, first) in [(None, "", 1), (None, "# a list\n", 2), (Some(Text), "", 1)]
        {
            let list = format!("{before}{lines}");
            let (entries, failure) = read(format, list.as_bytes());
            assert_eq!(failure, None);
            let said: Vec<_> = entries.iter().map(short).collect();
            let wanted = [1, 2].map(|n| format!("{} https://a.example/{n}.jpg", first + n - 1));
            assert_eq!(said, wanted, "{list}");
        }
    }

    #[test]
    fn a_text_may_quote_only_its_first_url() {
        let list = "\"http://a/1\"\nhttp://a/2\nhttp://a/3 a harbour\n";
        let (entries, failure) = read(None, list.as_bytes());
        assert_eq!(failure, None);
        let said: Vec<_> = entries.iter().map(short).collect();
        assert_eq!(said, ["1 http://a/1", "2 http://a/2", "3 http://a/3"]);
    }

    #[test]
    fn objects_may_follow_strings() {
        let list = "\"http://a/1\"\n{\"url\":\"http://a/2\"},\n\n{\"url\":\"http://a/3\"}\n{x\n";
        let (entries, failure) = read(None, list.as_bytes());
        assert_eq!(failure, None);
        let said: Vec<_> = entries.iter().map(short).collect();
        let wanted = [
            "1 http://a/1",
            "2 http://a/2",
            "4 http://a/3",
            "5 !invalid-url {x",
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_line_that_is_no_url_is_an_item_with_its_line() {
        let list = "hello\nftp://a.example/\n\nhttps://a.example/\n\0\nout=x\n";
        assert_eq!(
            said(Text, list),
            [
                "1 !invalid-url hello",
                "2 !unsupported-scheme ftp://a.example/",
                "4 https://a.example/",
                "5 !invalid-url \u{fffd}",
                "6 !invalid-url out=x",
            ]
        );
    }

    #[test]
    fn an_overlong_line_is_one_item() {
        let list = format!(
            "https://a.example/{}\nhttps://a.example/2",
            "x".repeat(10_000_000)
        );
        let all = entries(Text, list.as_bytes()).unwrap();
        assert_eq!(all.len(), 2);
        let Entry::Invalid(invalid) = &all[0] else {
            panic!()
        };
        assert!(invalid.detail.contains("longer than 64 KiB"));
        assert_eq!(invalid.text.chars().count(), 200);
    }

    #[test]
    fn options_amend_the_target_above_them() {
        let digest = "ab".repeat(32);
        let list = format!(
            "  out=ignored\nhttps://a.example/1\n  out=cat one.jpg\n# comment\n\tdir=pets/cats\n  split=5\n  \
             checksum=sha-256={digest}\nhttps://a.example/2\n checksum=md5=aa\nhttps://a.example/3\n \
             checksum=sha-256=aa\n out=late\nhttps://a.example/4"
        );
        let all = entries(Text, list.as_bytes()).unwrap();
        assert_eq!(all.len(), 4);
        let found = targets(&all);
        assert_eq!(found[0].name.as_deref(), Some("cat one.jpg"));
        assert_eq!(
            found[0].album.as_ref().map(AlbumName::as_str),
            Some("pets/cats")
        );
        assert_eq!(
            found[0].sha256.map(|digest| digest.to_string()),
            Some(digest)
        );
        assert_eq!(found[1].sha256, None);
        let Entry::Invalid(invalid) = &all[2] else {
            panic!()
        };
        assert!(invalid.detail.contains("`checksum`") && invalid.line == Some(10));
        assert_eq!(found[2].name, None);
    }

    #[test]
    fn an_option_reaches_the_last_target_of_a_full_chunk() {
        let list = (1..=1501)
            .map(|n| format!("https://a.example/{n}\n  out={n}.jpg\n"))
            .collect::<String>();
        let all = entries(Text, list.as_bytes()).unwrap();
        assert_eq!(all.len(), 1501);
        for (at, target) in targets(&all).into_iter().enumerate() {
            assert_eq!(target.name, Some(format!("{}.jpg", at + 1)));
        }
    }

    #[test]
    fn a_folder_that_is_a_url_is_a_fault_of_its_line() {
        let list = "https://a.example/1\n dir=s3://q/z\nhttps://a.example/2\n dir=C:\\pics\n";
        let found = entries(Text, list.as_bytes()).unwrap();
        let crate::source::Entry::Invalid(invalid) = &found[0] else {
            panic!("{found:?}");
        };
        assert_eq!(invalid.line, Some(1));
        assert!(
            invalid
                .detail
                .starts_with("option `dir`: `s3://q/z` is a URL"),
            "{}",
            invalid.detail
        );
        assert!(matches!(&found[1], crate::source::Entry::Target(_)));
    }

    #[test]
    fn a_folder_becomes_an_album_inside_the_store() {
        for (dir, wanted) in [
            ("cats", Some("cats")),
            ("/srv/pictures/", Some("srv/pictures")),
            ("../../etc", Some("etc")),
            ("a/./.hidden/../b.", Some("a/b")),
            ("C:\\pics", Some("C_/pics")),
            ("..", None),
            ("/", None),
            (".gannet", None),
        ] {
            assert_eq!(album(dir).as_ref().map(AlbumName::as_str), wanted, "{dir}");
        }
        assert_eq!(album(&"a/".repeat(20)).unwrap().as_str(), "a/a/a/a/a/a/a/a");
        assert!(album(&"x".repeat(300)).is_none());
    }
}
