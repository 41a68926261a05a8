//! Sitemaps with the image extension, RSS and Atom, well-formed or not.
//!
//! Elements are matched by local name, ignoring case. Prefixes are arbitrary, and the names that lists use are
//! unambiguous. A fault in a document costs at most one entry. Faults are reported in one notice.

use std::borrow::Cow;

use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart};
use url::Url;

use super::tags::{Faults, MAX_REFERENCE_BYTES, Piece, Tags};
use crate::source::address::{self, Refusal};
use crate::source::decode::Input;
use crate::source::detect::by_root;
use crate::source::error::Stop;
use crate::source::lines::MAX_LINE_BYTES;
use crate::source::search::html;
use crate::source::sink::SharedSink;
use crate::source::{Entry, ListFormat, row};
use crate::target::Target;

/// Deepest nesting that is tracked. Sitemaps and feeds need fewer than ten levels.
const MAX_DEPTH: usize = 256;

/// Longest URL in a sitemap index, in bytes (sitemaps.org, "XML tag definitions": `loc`).
const MAX_SITEMAP_URL_BYTES: usize = 2048;

/// Most levels of escaping in a URL.
const MAX_ESCAPES: usize = 4;

/// Elements that stand for one entry. A new one closes an open one of the same name.
const RECORDS: [&str; 3] = ["item", "entry", "sitemap"];

/// HTML elements without an end tag, which texts in feeds contain unescaped.
const VOID: [&str; 8] = ["br", "hr", "img", "input", "wbr", "col", "area", "embed"];

/// One entry for each picture of a sitemap's page, or for the page where it names none; one for each
/// enclosure of a feed. The sitemaps of an index go their own way. `base` is the URL of the document.
pub(super) fn parse(
    input: Input,
    format: ListFormat,
    base: Option<Url>,
    sink: &SharedSink,
) -> Result<(), Stop> {
    let mut tags = Tags::new(input);
    let mut walk = Walk {
        is_sitemap: format == ListFormat::Sitemap,
        sink,
        path: Vec::new(),
        root: None,
        has_root: false,
        bases: base.map(|base| (0, base)).into_iter().collect(),
        line: 1,
        text: None,
        page: None,
        has_image: false,
        items: 0,
        enclosures: 0,
        faults: Faults::default(),
    };
    let mut is_blank = true;
    while let Some((line, piece)) = tags.next()? {
        walk.line = line;
        is_blank &= matches!(piece, Piece::Text(text) if text.trim_start_matches('\u{feff}').trim().is_empty());
        match piece {
            Piece::Text(text) => walk.add_text(text),
            Piece::CData(text) => walk.add(&text.replace('&', "&amp;")),
            Piece::Start(element) => walk.start(&element, false)?,
            Piece::Empty(element) => walk.start(&element, true)?,
            Piece::End(name) => walk.end(name)?,
        }
        tags.set_within_root(walk.root.is_some());
    }
    if !is_blank && !walk.has_root {
        return Err(Stop::not_a_list(
            format!("markup without the root element of a {format}"),
            "open it in a browser: it may be a login or an error page",
        ));
    }
    // After the root element has ended, the document may break off anywhere.
    if walk.root.is_some() {
        let within = match (tags.unfinished(), walk.path.last()) {
            (Some(what), _) => what.to_owned(),
            (None, element) => format!("`{}`", element.map_or("", String::as_str)),
        };
        return Err(Stop::broken(
            tags.line(),
            format!("it ends within {within}"),
        ));
    }
    let mut faults = tags.faults;
    faults.append(walk.faults);
    if let Some(summary) = faults.summary() {
        sink.borrow_mut().warn(summary);
    }
    if walk.items > 0 && walk.enclosures == 0 {
        let items = walk.items;
        sink.borrow_mut().warn(format!(
            "none of the {items} items of the feed has an enclosure or a `media:content`"
        ));
    }
    Ok(())
}

/// Where in a document the parser is, and what it has gathered there.
struct Walk<'a> {
    is_sitemap: bool,
    sink: &'a SharedSink,
    /// Local names of the open elements, in lower case.
    path: Vec<String>,
    /// Depth at which the root element of the list is open; `None` before and after it.
    root: Option<usize>,
    /// Set once a root element has begun.
    has_root: bool,
    /// What relative URLs are relative to, innermost last, and how many elements are open where each holds.
    bases: Vec<(usize, Url)>,
    /// The line where the current piece begins.
    line: u64,
    /// The `loc` that is open.
    text: Option<Text>,
    /// The `loc` of the page that is open.
    page: Option<Text>,
    /// Whether that page names pictures.
    has_image: bool,
    /// Items of a feed.
    items: u64,
    enclosures: u64,
    faults: Faults,
}

/// What a document says, in place of a URL.
#[derive(Debug)]
struct Text {
    /// As written, with references unresolved.
    raw: String,
    /// Where it begins.
    line: u64,
}

impl Walk<'_> {
    fn start(&mut self, element: &BytesStart<'_>, is_empty: bool) -> Result<(), Stop> {
        let line = self.line;
        let name = element.local_name();
        let name = name.as_ref().to_ascii_lowercase();
        let name = name.as_str();
        self.close_what_ends_before(name)?;
        let base = self.base_of(element);
        match name {
            "loc" => {
                self.text = Some(Text {
                    raw: String::new(),
                    line,
                });
            }
            "url" => {
                self.page = None;
                self.has_image = false;
            }
            "item" | "entry" => self.items += 1,
            "enclosure" => self.enclosure(element, &["url", "resource"], base.as_ref())?,
            // Atom's `content` holds text, and has no `url` attribute.
            "content" => self.enclosure(element, &["url"], base.as_ref())?,
            "link" if self.is_enclosure(element) => {
                self.enclosure(element, &["href"], base.as_ref())?;
            }
            _ => {}
        }
        if self.root.is_none() && by_root(name).is_some() {
            self.has_root = true;
            self.root = Some(self.path.len());
        }
        let is_void = VOID.contains(&name);
        if is_void && !is_empty {
            self.faults.add(line, || not_closed(name));
        }
        if is_void || self.path.len() >= MAX_DEPTH {
            // No end tag will match an element that is not followed.
            self.root = self.root.filter(|root| *root < self.path.len());
            return Ok(());
        }
        self.path.push(name.to_owned());
        if let Some(base) = base {
            self.bases.push((self.path.len(), base));
        }
        if is_empty {
            self.close()?;
        }
        Ok(())
    }

    /// Closes elements that cannot contain a new element `name`: an open record of that name, or a `loc`, which
    /// contains only text.
    fn close_what_ends_before(&mut self, name: &str) -> Result<(), Stop> {
        let is_record = RECORDS.contains(&name) || (name == "url" && self.is_sitemap);
        let innermost = |wanted: &str| self.path.iter().rposition(|open| open == wanted);
        let record = || innermost(name).filter(|_| is_record);
        let Some(at) = record().or_else(|| innermost("loc")) else {
            // Nesting this deep comes from missing end tags. Records have to be tracked nevertheless, so half of it
            // is closed.
            return match is_record && self.path.len() >= MAX_DEPTH {
                true => self.close_to(MAX_DEPTH / 2),
                false => Ok(()),
            };
        };
        let open = &self.path[at];
        let line = self.line;
        self.faults.add(line, || not_closed(open));
        self.close_to(at)
    }

    /// Closes elements until `depth` are open.
    fn close_to(&mut self, depth: usize) -> Result<(), Stop> {
        while self.path.len() > depth {
            self.close()?;
        }
        Ok(())
    }

    /// Handles an end tag. It also closes elements that are still open within the element.
    fn end(&mut self, name: &str) -> Result<(), Stop> {
        let name = name.rsplit(':').next().unwrap_or(name).trim();
        let name = name.to_ascii_lowercase();
        let Some(at) = self.path.iter().rposition(|open| *open == name) else {
            if !VOID.contains(&name.as_str()) {
                let line = self.line;
                self.faults
                    .add(line, || format!("`</{}>` closes nothing", shown(&name)));
            }
            return Ok(());
        };
        if let Some(open) = self.path.get(at + 1) {
            self.faults.add(self.line, || not_closed(open));
        }
        self.close_to(at)
    }

    /// Closes the innermost element.
    fn close(&mut self) -> Result<(), Stop> {
        let name = self.path.pop().unwrap_or_default();
        let is_container = |name: &&String| {
            matches!(
                name.as_str(),
                "url" | "image" | "sitemap" | "video" | "news"
            )
        };
        let container = self.path.iter().rfind(is_container);
        let container = container.map_or("", String::as_str);
        match name.as_str() {
            "loc" => {
                let text = self.text.take();
                match (container, text) {
                    ("url", text) => self.page = text,
                    ("image", Some(text)) => {
                        self.has_image = true;
                        self.push(&text, self.base())?;
                    }
                    ("sitemap", Some(text)) => self.push_sitemap(&text)?,
                    _ => {}
                }
            }
            "url" if self.is_sitemap && !self.has_image => {
                let page = self.page.take().unwrap_or(Text {
                    raw: String::new(),
                    line: self.line,
                });
                self.push(&page, self.base())?;
            }
            _ => {}
        }
        self.root = self.root.filter(|root| *root < self.path.len());
        self.bases.pop_if(|(depth, _)| *depth > self.path.len());
        Ok(())
    }

    fn base(&self) -> Option<&Url> {
        self.bases.last().map(|(_, base)| base)
    }

    /// Returns the base URL that `xml:base` sets on an element.
    fn base_of(&self, element: &BytesStart<'_>) -> Option<Url> {
        let base = self.attribute(element, |name| name == "xml:base")?;
        base.url(self.base()).ok()
    }

    /// Adds text as written.
    fn add_text(&mut self, piece: &str) {
        let line = self.line;
        if has_bare_ampersand(piece) {
            self.faults
                .add(line, || "a `&` begins no reference".to_owned());
        }
        if self.path.is_empty()
            && !piece
                .trim_matches(['\u{feff}', ' ', '\t', '\r', '\n'])
                .is_empty()
        {
            self.faults.add(line, || {
                "text stands outside of the root element".to_owned()
            });
        }
        self.add(piece);
    }

    fn add(&mut self, piece: &str) {
        if let Some(text) = &mut self.text
            // What is too long is refused by what is there already.
            && text.raw.len() <= MAX_LINE_BYTES
        {
            text.raw.push_str(piece);
        }
    }

    /// Returns `true` if a `link` element points to an enclosure (RFC 4287, section 4.2.7.2).
    fn is_enclosure(&self, element: &BytesStart<'_>) -> bool {
        self.attribute(element, |name| name == "rel")
            .is_some_and(|rel| {
                let mut words = rel.raw.split_ascii_whitespace();
                words.any(|word| {
                    let word = word.rsplit('/').next().unwrap_or(word);
                    word.eq_ignore_ascii_case("enclosure")
                })
            })
    }

    fn enclosure(
        &mut self,
        element: &BytesStart<'_>,
        names: &[&str],
        base: Option<&Url>,
    ) -> Result<(), Stop> {
        let Some(url) = self.attribute(element, |name| names.contains(&name)) else {
            return Ok(());
        };
        self.enclosures += 1;
        if has_bare_ampersand(&url.raw) {
            self.faults
                .add(url.line, || "a `&` begins no reference".to_owned());
        }
        self.push(&url, base.or(self.base()))
    }

    /// The value of the first attribute whose local name, or name in the space `xml`, is `wanted`.
    fn attribute(&self, element: &BytesStart<'_>, wanted: impl Fn(&str) -> bool) -> Option<Text> {
        let mut attributes = element.html_attributes();
        // Attributes that do not parse are skipped.
        let found = attributes
            .with_checks(false)
            .filter_map(Result::ok)
            .find(|attribute| {
                let (name, local) = (attribute.key.as_ref(), attribute.key.local_name());
                wanted(&name.to_ascii_lowercase()) || wanted(&local.as_ref().to_ascii_lowercase())
            })?;
        Some(Text {
            raw: without_next_name(&found.value).to_owned(),
            line: self.line,
        })
    }

    fn push(&self, text: &Text, base: Option<&Url>) -> Result<(), Stop> {
        let entry = if text.raw.len() > MAX_LINE_BYTES {
            row::overlong(text.line, text.raw.as_bytes())
        } else {
            match text.url(base) {
                Ok(url) => {
                    let mut target = Target::new(url);
                    target.line = Some(text.line);
                    Entry::Target(target)
                }
                Err(refusal) => text.refused(refusal),
            }
        };
        self.sink.borrow_mut().push(entry)
    }

    fn push_sitemap(&self, text: &Text) -> Result<(), Stop> {
        let mut sink = self.sink.borrow_mut();
        let url = text.url(self.base()).and_then(|url| {
            if url.as_str().len() > MAX_SITEMAP_URL_BYTES {
                let detail =
                    format!("the URL of a sitemap is longer than {MAX_SITEMAP_URL_BYTES} bytes");
                return Err(Refusal::invalid(detail));
            }
            Ok(url)
        });
        match url {
            Ok(url) => sink.push_sitemap(url),
            Err(refusal) => sink.push(text.refused(refusal)),
        }
    }
}

fn not_closed(name: &str) -> String {
    format!("`<{}>` is not closed", shown(name))
}

/// Shortens a name for messages, and drops control characters.
fn shown(name: &str) -> String {
    name.chars().take(40).filter(|c| !c.is_control()).collect()
}

impl Text {
    fn url(&self, base: Option<&Url>) -> Result<Url, Refusal> {
        match unescaped(&self.raw) {
            (_, Some(entity)) => Err(Refusal::invalid(format!(
                "it refers to the entity `{entity}`, which is one of a document's own or none at all"
            ))),
            (text, None) => address::resolve(&text, base),
        }
    }

    fn refused(&self, refusal: Refusal) -> Entry {
        Entry::Invalid(refusal.at(Some(self.line), &unescaped(&self.raw).0))
    }
}

/// Strips the name of the next attribute, which is part of the value if its closing quote is missing.
fn without_next_name(value: &str) -> &str {
    let Some((url, name)) = value.rsplit_once(|c: char| c.is_ascii_whitespace()) else {
        return value;
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || b":-_".contains(&byte))
    };
    match name.strip_suffix('=') {
        Some(name) if is_name(name) => url.trim_end(),
        _ => value,
    }
}

/// Returns the name in the reference (XML 1.0, section 4.1) that `text`, at its `&`, begins with.
fn reference(text: &str) -> Option<&str> {
    let bytes = &text.as_bytes()[1..];
    let end = memchr::memchr(b';', &bytes[..bytes.len().min(MAX_REFERENCE_BYTES)])?;
    let name = &text[1..=end];
    let digits = name.strip_prefix('#').unwrap_or(name);
    let is_name = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_name.then_some(name)
}

fn has_bare_ampersand(text: &str) -> bool {
    memchr::memchr_iter(b'&', text.as_bytes()).any(|at| reference(&text[at..]).is_none())
}

/// Returns the text of a reference to a character, or to an entity of XML or HTML.
///
/// Entities declared in the document are never expanded, because a few lines of them may expand to gigabytes.
fn resolved(name: &str) -> Option<Cow<'static, str>> {
    if name.starts_with('#') {
        let c = BytesRef::new(name).resolve_char_ref().ok()??;
        return Some(Cow::Owned(c.into()));
    }
    if let Some(text) = resolve_xml_entity(name) {
        return Some(text.into());
    }
    let written = format!("&{name};");
    let text = html::plain(&written);
    // A `;` that remains means a prefix match: `&notme;` would decode as `&not;` and more.
    (!text.contains(';')).then_some(text.into())
}

/// Resolves the references in a URL. Also returns the first unknown one. A `&` that begins no reference stays as it
/// is.
fn unescaped(raw: &str) -> (Cow<'_, str>, Option<&str>) {
    if !raw.contains('&') {
        return (Cow::Borrowed(raw), None);
    }
    let mut unknown = None;
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = reference(rest);
        let written;
        (written, rest) = rest.split_at(name.map_or(1, |name| name.len() + 2));
        match name.map(|name| resolved(name).ok_or(name)) {
            Some(Ok(meant)) => text.push_str(&meant),
            Some(Err(name)) => {
                unknown.get_or_insert(name);
                text.push_str(written);
            }
            None => text.push_str(written),
        }
    }
    text.push_str(rest);
    // Resolves ampersands that were escaped more than once. No URL contains these references otherwise.
    for _ in 1..MAX_ESCAPES {
        for escaped in ["&amp;", "&#38;", "&#038;", "&#x26;"] {
            if text.contains(escaped) {
                text = text.replace(escaped, "&");
            }
        }
    }
    (Cow::Owned(text), unknown)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Cursor;
    use std::rc::Rc;

    use crate::source::Entry;
    use crate::source::ListFormat::{Feed, Sitemap};
    use crate::source::sink::Sink;
    use crate::source::testing::{
        entries, entries_until_failure, failure, read_noticing, said, short,
    };

    #[test]
    fn pages_of_a_sitemap_yield_their_pictures_or_themselves() {
        let list = "<?xml version=\"1.0\"?>\n<urlset xmlns=\"x\" xmlns:image=\"y\">\n<url><loc> https://a.example/1?a=1&amp;b=2 </loc></url>\n\
            <url>\n<loc>https://a.example/page</loc>\n<image:image><image:loc><![CDATA[https://a.example/2.jpg?x&y]]></image:loc></image:image>\n\
            <image:image><image:title>t</image:title><image:loc>https://a.example/&#x33;.jpg</image:loc></image:image></url>\n\
            <url><lastmod>2026</lastmod></url>\n<url><loc>&none;</loc></url>\n</urlset>\ntrailing";
        assert_eq!(
            said(Sitemap, list),
            [
                "3 https://a.example/1?a=1&b=2",
                "6 https://a.example/2.jpg?x&y",
                "7 https://a.example/3.jpg",
                "8 !invalid-url ",
                "9 !invalid-url &none;",
            ]
        );
    }

    #[test]
    fn feeds_yield_their_enclosures() {
        let rss = "<rss version='2.0' xmlns:media='m'><channel><link>https://a.example/</link><image><url>https://a.example/logo</url></image>\n\
            <item><enclosure url='https://a.example/1.jpg?a&amp;b' type='image/jpeg'/></item>\n\
            <item><media:group><media:content url=\"https://a.example/2.jpg\"></media:content></media:group>\
            <media:thumbnail url='https://a.example/no'/></item></channel></rss>";
        assert_eq!(
            said(Feed, rss),
            ["2 https://a.example/1.jpg?a&b", "3 https://a.example/2.jpg"]
        );
        let atom = "<feed xmlns='a'><entry><link href='https://a.example/no'/><link rel='enclosure' href='https://a.example/1'/>\
            <content type='html'>x</content></entry></feed>";
        assert_eq!(said(Feed, atom), ["1 https://a.example/1"]);
    }

    #[test]
    fn relative_enclosures_go_by_the_nearest_base() {
        let feed = "<feed xml:base='https://a.example/x/'><entry xml:base='y/'><link rel='enclosure' href='1.jpg'/>\n\
            <link rel='enclosure' href='2.jpg' xml:base='/z/'/><link rel='enclosure' href='3.jpg'/></entry>\n\
            <link rel='enclosure' href='4.jpg' base='/no/'/><link rel='enclosure' href='//b.example/5'/>\
            <link rel='enclosure' href='https://b.example/6'/><link rel='enclosure' href=''/>\
            <link rel='enclosure' href='ftp://a.example/7'/></feed>";
        assert_eq!(
            said(Feed, feed),
            [
                "1 https://a.example/x/y/1.jpg",
                "2 https://a.example/z/2.jpg",
                "2 https://a.example/x/y/3.jpg",
                "3 https://a.example/x/4.jpg",
                "3 https://b.example/5",
                "3 https://b.example/6",
                "3 !invalid-url ",
                "3 !unsupported-scheme ftp://a.example/7",
            ]
        );
        // Nothing says what these are relative to.
        for feed in [
            "<rss><enclosure url='1.jpg'/></rss>",
            "<rss xml:base='x/'><enclosure url='1.jpg'/></rss>",
        ] {
            assert_eq!(said(Feed, feed), ["1 !invalid-url 1.jpg"]);
        }
        let sitemap = "<urlset xml:base='https://a.example/x/'><url><loc>1?a=1&amp;b=2</loc>\n\
            <image:image><image:loc>/2</image:loc></image:image></url>\n<url><loc>?3</loc></url></urlset>";
        assert_eq!(
            said(Sitemap, sitemap),
            ["2 https://a.example/2", "3 https://a.example/x/?3"]
        );
        let all = entries(Sitemap, b"<urlset><url><loc>d.png</loc></url></urlset>").unwrap();
        let Entry::Invalid(invalid) = &all[0] else {
            panic!("{all:?}")
        };
        assert!(
            invalid.detail.contains("relative URL"),
            "{}",
            invalid.detail
        );
    }

    #[test]
    fn entities_of_a_documents_own_are_not_expanded() {
        let dtd = "<!DOCTYPE x [<!ENTITY host \"a.example\"><!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;&lol;\">\n\
            <!-- ]> --> <!ENTITY e SYSTEM 'file:///etc/passwd'>]>";
        let sitemap = format!(
            "{dtd}<urlset><url><loc>https://&host;/1</loc></url><url><loc>https://a.example/2</loc></url></urlset>"
        );
        assert_eq!(
            said(Sitemap, &sitemap),
            ["2 !invalid-url https://&host;/1", "2 https://a.example/2"]
        );
        let rss = format!(
            "{dtd}<rss><channel><title>&lol2;&nbsp;</title><item><enclosure url='https://a.example/&lol2;'/></item>\n\
            <item><enclosure url='https://a.example/?a&b'/></item><item><enclosure url='https://a.example/3'/></item></channel></rss>"
        );
        assert_eq!(
            said(Feed, &rss),
            [
                "2 !invalid-url https://a.example/&lol2;",
                "3 https://a.example/?a&b",
                "3 https://a.example/3"
            ]
        );
    }

    #[test]
    fn broken_xml_is_an_error_after_what_came_before() {
        for (list, detail) in [
            (
                "<urlset><url><loc>https://a.example/1</loc></url>\n<url><loc>https://a",
                "line 2: it ends within `loc`",
            ),
            (
                "<urlset><url><loc>https://a.example/1</loc></url>\n</wrong>",
                "line 2",
            ),
            (
                "<urlset><url><loc>https://a.example/1</loc></url>\n<url",
                "line 2",
            ),
        ] {
            let (entries, failure) = entries_until_failure(Sitemap, list.as_bytes());
            assert_eq!(entries.len(), 1, "{list}");
            assert!(
                failure.is_some_and(|failure| failure.contains(detail)),
                "{list}"
            );
        }
    }

    #[test]
    fn depth_and_length_cost_no_other_entry() {
        let good = "<url><loc>https://a.example/1</loc></url></urlset>";
        let deep = format!("<urlset>{}{good}", "<a>".repeat(1000));
        assert_eq!(said(Sitemap, &deep), ["1 https://a.example/1"]);
        let long = "x".repeat(6_000_000);
        for long in [
            format!("<loc>{long}</loc>"),
            format!("<loc><![CDATA[{long}]]></loc>"),
        ] {
            let all = entries(
                Sitemap,
                format!("<urlset><url>{long}</url>{good}").as_bytes(),
            );
            let all = all.unwrap();
            assert_eq!(all.len(), 2);
            assert!(
                matches!(&all[0], Entry::Invalid(invalid) if invalid.detail.contains("longer"))
            );
        }
        for long in [
            format!("<lastmod>{long}</lastmod>"),
            format!("<a b='{long}'/>"),
            format!("<!-- {long} -->"),
        ] {
            let list = format!("<urlset>{long}{good}");
            assert_eq!(said(Sitemap, &list), ["1 https://a.example/1"]);
        }
    }

    /// Reads a list that has faults, and returns its entries and notices.
    fn faulty(format: crate::source::ListFormat, list: &str) -> (Vec<String>, Vec<String>) {
        let (entries, notices, failure) = read_noticing(Some(format), list.as_bytes());
        assert_eq!(failure, None, "{list}");
        (entries.iter().map(short).collect(), notices)
    }

    #[test]
    fn a_fault_of_a_feed_costs_one_entry_at_most_and_is_made_known_once() {
        let good = "<enclosure url='https://a.example/2'/></item></channel></rss>";
        for (item, wanted) in [
            ("<title>Salt & pepper</title>", true),
            ("<title>AT&T; R&D</title>", true),
            ("<title>a<br>b</title>", true),
            ("<title>a<br></title>", true),
            ("<title>1 < 2 <3</title>", true),
            ("<title>it's < 'it</title>", true),
            ("<title><b>a<i>b</b></title>", true),
            ("<title>a</tilte>", true),
            ("<title>a", true),
            ("<description><p>a<p>b</description>", true),
            ("</p>", true),
            ("</item><item>x</channel>", true),
            ("<a href='x>y</a>", true),
            ("<a href=x' title=\"y'z\">y</a>", false),
            ("<enclosure type=\"image/png/>", true),
            ("<a <b>x</b>", true),
            ("<![CDATA[a]]>]]> & ", true),
            ("<title>What is <? in PHP</title>", true),
            ("<title>What is <?php in PHP</title>", true),
            ("<title>What is <?= in PHP", true),
            ("<title><! don't</title>", true),
            ("<title><!DOCTYPE html SYSTEM \"x</title>", true),
            ("<title><!a<!a<!a</title>", true),
        ] {
            let list = format!("<rss><channel><item>\n{item}\n{good}");
            let (entries, notices) = faulty(Feed, &list);
            let line = 3;
            assert_eq!(entries, [format!("{line} https://a.example/2")], "{list}");
            assert_eq!(notices.len(), usize::from(wanted), "{list} {notices:?}");
            if wanted {
                assert!(
                    notices[0].contains("not well-formed XML (line "),
                    "{notices:?}"
                );
            }
        }
        // Unusual but valid XML is not a fault.
        for item in [
            "<!-- a -- b & c <d> -->",
            "<?php if (1 > 0) ?>",
            "<title>caf&eacute;&nbsp;</title>",
            "<title><![CDATA[a & <b>]]></title>",
            "<title>\u{b}\u{1}</title>",
            "<a title='1 > 0'/>",
        ] {
            let list = format!("<rss><channel><item>\n{item}\n{good}");
            assert_eq!(
                faulty(Feed, &list),
                (vec!["3 https://a.example/2".to_owned()], vec![]),
                "{list}"
            );
        }
    }

    #[test]
    fn urls_are_read_as_they_are_meant() {
        for (written, meant) in [
            ("'/?a=1&b=2'", "/?a=1&b=2"),
            ("'/?a=1&copy=2&lt=3'", "/?a=1&copy=2&lt=3"),
            ("'/?a=1&amp;amp;b=2'", "/?a=1&b=2"),
            ("'/?a=1&#38;b=2&#x26;c'", "/?a=1&b=2&c"),
            ("'/?a=1&amp;#038;b=2'", "/?a=1&b=2"),
            ("'/caf&eacute;'", "/caf%C3%A9"),
            ("/2?a=b type=image/png", "/2?a=b"),
            ("/2/", "/2/"),
            ("\"/2 type=\"image/png\"", "/2"),
            ("\"/2", "/2"),
            (" = '/2'", "/2"),
        ] {
            let enclosure = match written.strip_prefix(' ') {
                Some(rest) => format!("<enclosure url {rest}/>"),
                None => format!("<enclosure url={written}/>"),
            };
            let list = format!(
                "<rss xml:base='https://a.example/x/'><item>{enclosure}</item><item><enclosure url='/3'/></item></rss>"
            );
            let (entries, _) = faulty(Feed, &list);
            let wanted = [meant, "/3"].map(|path| format!("1 https://a.example{path}"));
            assert_eq!(entries, wanted, "{list}");
        }
    }

    #[test]
    fn a_fault_of_a_sitemap_costs_one_entry_at_most() {
        for (urls, wanted) in [
            (
                "<url><loc>https://a.example/?a&b</loc></url>",
                "2 https://a.example/?a&b",
            ),
            ("<url><loc>https://a.example/1", "2 https://a.example/1"),
            (
                "<url><loc>https://a.example/1<lastmod>2026</lastmod></url>",
                "2 https://a.example/1",
            ),
            (
                "<url><loc>https://a.example/1</lco></url>",
                "2 https://a.example/1",
            ),
            (
                "<URL><Loc>https://a.example/1</loc></Url>",
                "2 https://a.example/1",
            ),
            (
                "<x:url><y:loc>https://a.example/1</z:loc></x:url>",
                "2 https://a.example/1",
            ),
            (
                "<url><loc>https://&no;/</loc></url>",
                "2 !invalid-url https://&no;/",
            ),
            (
                "<url><loc><![CDATA[https://a.example/?a&amp;b]]></loc></url>",
                "2 https://a.example/?a&b",
            ),
            (
                "<url><image:image><image:title>x<image:loc>https://a.example/1</image:loc></image:image></url>",
                "2 https://a.example/1",
            ),
        ] {
            let list =
                format!("<urlset>\n{urls}\n<url><loc>https://a.example/9</loc></url></urlset>");
            let (entries, _) = faulty(Sitemap, &list);
            assert_eq!(entries, [wanted, "3 https://a.example/9"], "{list}");
        }
    }

    #[test]
    fn what_stands_around_the_root_does_not_matter() {
        let root = "<urlset><url><loc>https://a.example/1</loc></url></urlset>";
        for (list, lines) in [
            (format!("\u{feff}\n{root}\n"), 1),
            (
                format!("<br />\n<b>Warning</b>: & in <x>\n<?xml version='1.0'?>{root}"),
                1,
            ),
            (
                format!("<?xml version='1.0'?>{root}<!-- --></div><script>a<b"),
                1,
            ),
            (format!("{root}\n{root}"), 2),
            (
                format!("<?xml version='1.0'?>{root}<?xml version='1.0'?>{root}"),
                2,
            ),
        ] {
            let (entries, _) = faulty(Sitemap, &list);
            assert_eq!(entries.len(), lines, "{list} {entries:?}");
        }
    }

    #[test]
    fn what_has_no_root_is_no_list() {
        let parsed = |list: &'static str| {
            let (out, _messages) = tokio::sync::mpsc::channel(1);
            let sink = Rc::new(RefCell::new(Sink::new("list".to_owned(), out)));
            super::parse(Box::new(Cursor::new(list)), Feed, None, &sink)
        };
        for list in ["<p>Log in</p>", "Log in", "<!--\n<rdf:RDF>--><p>", "</rss>"] {
            let stop = parsed(list).unwrap_err().to_string();
            assert!(stop.contains("root element of a feed"), "{list} {stop}");
        }
        for blank in ["", "\u{feff}\n", "<!-- <rss> -->\n"] {
            assert!(parsed(blank).is_ok(), "{blank:?}");
        }
    }

    #[test]
    fn a_sitemap_of_an_overlong_url_is_a_fault_of_its_entry() {
        for length in [3000, 200_000] {
            let list = format!(
                "<sitemapindex>\n<sitemap><loc>https://a.example/{}</loc></sitemap></sitemapindex>",
                "x".repeat(length)
            );
            let all = entries(Sitemap, list.as_bytes()).unwrap();
            let [Entry::Invalid(invalid)] = &all[..] else {
                panic!("{all:?}")
            };
            assert!(
                invalid.line == Some(2) && invalid.detail.contains("longer than 2048"),
                "{invalid:?}"
            );
        }
    }

    #[test]
    fn a_declared_encoding_is_undone() {
        let list = b"<?xml version='1.0' encoding='ISO-8859-1'?><urlset><url><loc>https://a.example/\xe9</loc></url></urlset>";
        let (entries, failure) = entries_until_failure(Sitemap, list);
        assert!(failure.is_none());
        assert_eq!(
            crate::source::testing::targets(&entries)[0].url.as_str(),
            "https://a.example/%C3%A9"
        );
    }

    #[test]
    fn a_sitemap_index_without_a_way_to_fetch_is_an_error() {
        let list =
            "<sitemapindex><sitemap><loc>https://a.example/1.xml</loc></sitemap></sitemapindex>";
        assert!(failure(Sitemap, list).contains("sitemap index"));
    }
}
