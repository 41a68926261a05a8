//! Sitemaps with the image extension, RSS and Atom.
//!
//! Elements are known by their local names: prefixes are free, and what lists use is not ambiguous.

use std::io;

use quick_xml::escape::{EscapeError, resolve_predefined_entity};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Error as XmlError, Reader, XmlVersion};
use url::Url;

use super::counted::{Counted, Position};
use crate::source::address::{self, Refusal};
use crate::source::decode::Input;
use crate::source::error::Stop;
use crate::source::lines::MAX_LINE_BYTES;
use crate::source::sink::SharedSink;
use crate::source::{Entry, row};
use crate::target::Target;

/// Deepest nesting. Sitemaps and feeds need less than ten levels.
const MAX_DEPTH: usize = 256;

/// One entry for each picture of a sitemap's page, or for the page where it names none; one for each
/// enclosure of a feed. The sitemaps of an index go their own way. `base` is the URL of the document.
pub(super) fn parse(input: Input, base: Option<Url>, sink: &SharedSink) -> Result<(), Stop> {
    let input = Counted::new(input);
    let position = input.position();
    let mut reader = Reader::from_reader(input);
    let mut buffer = Vec::new();
    let mut walk = Walk {
        position: &position,
        sink,
        path: Vec::new(),
        bases: base.map(|base| (0, base)).into_iter().collect(),
        text: None,
        page: None,
        has_image: false,
        items: 0,
        enclosures: 0,
    };
    let mut complete = false;
    loop {
        buffer.clear();
        let event = reader
            .read_event_into(&mut buffer)
            .map_err(|error| stop(error, &position))?;
        match event {
            Event::Start(element) => walk.start(&element)?,
            Event::Empty(element) => {
                walk.start(&element)?;
                complete = walk.end()?;
            }
            Event::End(_) => complete = walk.end()?,
            Event::Text(text) => walk.add(&text.xml10_content()),
            Event::CData(text) => walk.add(&text.xml10_content()),
            Event::GeneralRef(reference) => walk.add_reference(&reference),
            Event::Eof => break,
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
        }
        position.element_done();
        // What follows the root element is not part of the document.
        if complete {
            break;
        }
    }
    // A list without any element is blank: whatever else has no root was refused when it was opened.
    if !complete && let Some(element) = walk.path.last() {
        return Err(Stop::broken(
            position.line(),
            format!("it ends within `{element}`"),
        ));
    }
    if walk.items > 0 && walk.enclosures == 0 {
        tracing::warn!(
            items = walk.items,
            "a feed names no files: none of its items has an enclosure or a `media:content`"
        );
    }
    Ok(())
}

fn stop(error: XmlError, position: &Position) -> Stop {
    match error {
        XmlError::Io(error) => Stop::Read(io::Error::new(error.kind(), error)),
        other => Stop::broken(position.line(), other.to_string()),
    }
}

/// Where in a document the parser is, and what it has gathered there.
struct Walk<'a> {
    position: &'a Position,
    sink: &'a SharedSink,
    /// Local names of the open elements.
    path: Vec<String>,
    /// What relative URLs are relative to, innermost last, and how many elements are open where each holds.
    bases: Vec<(usize, Url)>,
    /// The `loc` that is open.
    text: Option<Text>,
    /// The `loc` of the page that is open.
    page: Option<Text>,
    /// Whether that page names pictures.
    has_image: bool,
    /// Items of a feed.
    items: u64,
    enclosures: u64,
}

/// What a document says, in place of a URL.
#[derive(Debug)]
struct Text {
    text: String,
    /// Where it begins.
    line: u64,
    /// Why it cannot be read: it refers to what XML itself does not have.
    problem: Option<String>,
}

impl Text {
    fn new(line: u64) -> Self {
        Self {
            text: String::new(),
            line,
            problem: None,
        }
    }

    fn url(&self, base: Option<&Url>) -> Result<Url, Refusal> {
        match &self.problem {
            Some(problem) => Err(Refusal::invalid(problem)),
            None => address::resolve(&self.text, base),
        }
    }
}

/// Entities of a document's own are never expanded: a few lines of them may stand for gigabytes.
fn unknown_entity(name: &str) -> String {
    format!("it refers to the entity `{name}`, which is not one of XML's own")
}

impl Walk<'_> {
    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), Stop> {
        let line = self.position.line();
        if self.path.len() >= MAX_DEPTH {
            return Err(Stop::broken(
                line,
                format!("elements are nested deeper than {MAX_DEPTH}"),
            ));
        }
        // Attributes that cannot be read matter only where a URL is wanted.
        if let Ok(Some(base)) = self.attribute(element, |key| key == "xml:base")
            && let Ok(base) = base.url(self.base())
        {
            self.bases.push((self.path.len() + 1, base));
        }
        let name = element.local_name();
        let name = name.as_ref();
        match name {
            "loc" => self.text = Some(Text::new(line)),
            "url" => {
                self.page = None;
                self.has_image = false;
            }
            "item" | "entry" => self.items += 1,
            "enclosure" => self.enclosure(element, &["url", "resource"])?,
            // `content` alone is Atom's text; only that of Media RSS has a `url`.
            "content" if element.name().as_ref().contains(':') => {
                self.enclosure(element, &["url"])?;
            }
            "link"
                if self
                    .attribute(element, |key| key == "rel")?
                    .is_some_and(|rel| rel.text == "enclosure") =>
            {
                self.enclosure(element, &["href"])?;
            }
            _ => {}
        }
        self.path.push(name.to_owned());
        Ok(())
    }

    /// Closes the innermost element; `true` when it was the root.
    fn end(&mut self) -> Result<bool, Stop> {
        let name = self.path.pop().unwrap_or_default();
        let parent = self.path.last().map_or("", String::as_str);
        match (name.as_str(), parent) {
            ("loc", "url") => self.page = self.text.take(),
            ("loc", "image") => {
                if let Some(text) = self.text.take() {
                    self.has_image = true;
                    self.push(&text, None)?;
                }
            }
            ("loc", "sitemap") => {
                if let Some(text) = self.text.take() {
                    self.push_sitemap(&text)?;
                }
            }
            ("loc", _) => self.text = None,
            ("url", "urlset") if !self.has_image => {
                let page = self.page.take();
                let page = page.unwrap_or_else(|| Text::new(self.position.line()));
                self.push(&page, None)?;
            }
            _ => {}
        }
        self.bases.pop_if(|(depth, _)| *depth > self.path.len());
        Ok(self.path.is_empty())
    }

    fn base(&self) -> Option<&Url> {
        self.bases.last().map(|(_, base)| base)
    }

    fn add(&mut self, piece: &str) {
        if let Some(text) = &mut self.text
            // What is too long is refused by what is there already.
            && text.text.len() <= MAX_LINE_BYTES
        {
            text.text.push_str(piece);
        }
    }

    fn add_reference(&mut self, reference: &BytesRef<'_>) {
        let Some(text) = &mut self.text else {
            return;
        };
        if let Ok(Some(c)) = reference.resolve_char_ref() {
            self.add(c.encode_utf8(&mut [0; 4]));
        } else if let Some(text) = resolve_predefined_entity(reference) {
            self.add(text);
        } else {
            let name: String = reference.chars().take(40).collect();
            text.problem.get_or_insert_with(|| unknown_entity(&name));
            self.add("&");
            self.add(reference);
            self.add(";");
        }
    }

    fn enclosure(&mut self, element: &BytesStart<'_>, names: &[&str]) -> Result<(), Stop> {
        let Some(url) = self.attribute(element, |key| names.contains(&key))? else {
            return Ok(());
        };
        self.enclosures += 1;
        self.push(&url, self.base())
    }

    /// The value of the first attribute whose local name, or name in the space `xml`, is `wanted`.
    fn attribute(
        &self,
        element: &BytesStart<'_>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<Text>, Stop> {
        let broken = |error: XmlError| Stop::broken(self.position.line(), error.to_string());
        for attribute in element.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| broken(error.into()))?;
            let (name, local) = (attribute.key.as_ref(), attribute.key.local_name());
            if !wanted(name) && !wanted(local.as_ref()) {
                continue;
            }
            let mut text = Text::new(self.position.line());
            match attribute.normalized_value(XmlVersion::Implicit1_0) {
                Ok(value) => text.text = value.into_owned(),
                Err(XmlError::Escape(error)) => {
                    text.text = attribute.value.into_owned();
                    text.problem = Some(match error {
                        EscapeError::UnrecognizedEntity(_, name) => unknown_entity(&name),
                        other => other.to_string(),
                    });
                }
                Err(error) => return Err(broken(error)),
            }
            return Ok(Some(text));
        }
        Ok(None)
    }

    fn push(&self, text: &Text, base: Option<&Url>) -> Result<(), Stop> {
        let entry = if text.text.len() > MAX_LINE_BYTES {
            row::overlong(text.line, text.text.as_bytes())
        } else {
            match text.url(base) {
                Ok(url) => {
                    let mut target = Target::new(url);
                    target.line = Some(text.line);
                    Entry::Target(target)
                }
                Err(refusal) => Entry::Invalid(refusal.at(Some(text.line), &text.text)),
            }
        };
        self.sink.borrow_mut().push(entry)
    }

    fn push_sitemap(&self, text: &Text) -> Result<(), Stop> {
        match text.url(None) {
            Ok(url) => self.sink.borrow_mut().push_sitemap(url),
            Err(refusal) => self
                .sink
                .borrow_mut()
                .push(Entry::Invalid(refusal.at(Some(text.line), &text.text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::source::ListFormat::{Feed, Sitemap};
    use crate::source::testing::{entries_until_failure, failure, said};

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
        // Sitemaps are not relative to anything.
        let sitemap = "<urlset xml:base='https://a.example/'><url><loc>1</loc></url></urlset>";
        assert_eq!(said(Sitemap, sitemap), ["1 !invalid-url 1"]);
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
                "3 !invalid-url https://a.example/?a&b",
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
        let deep = format!("<urlset>{}", "<a>".repeat(1000));
        assert!(failure(Sitemap, &deep).contains("deeper"));
        let long = format!("<urlset><url><loc>{}", "x".repeat(6_000_000));
        assert!(failure(Sitemap, &long).contains("longer than 4 MiB"));
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
