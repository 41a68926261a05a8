//! Sitemaps with the image extension, RSS and Atom.
//!
//! Elements are known by their local names: prefixes are free, and what lists use is not ambiguous.

use std::io;

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Error as XmlError, Reader, XmlVersion};

use super::counted::{Counted, Position};
use crate::source::address;
use crate::source::decode::Input;
use crate::source::error::Stop;
use crate::source::lines::MAX_LINE_BYTES;
use crate::source::sink::SharedSink;
use crate::source::{Entry, row};
use crate::target::Target;

/// Deepest nesting. Sitemaps and feeds need less than ten levels.
const MAX_DEPTH: usize = 256;

/// One entry for each picture of a sitemap's page, or for the page where it names none; one for each
/// enclosure of a feed. The sitemaps of an index go their own way.
pub(super) fn parse(input: Input, sink: &SharedSink) -> Result<(), Stop> {
    let input = Counted::new(input);
    let position = input.position();
    let mut reader = Reader::from_reader(input);
    let mut buffer = Vec::new();
    let mut walk = Walk {
        position: &position,
        sink,
        path: Vec::new(),
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
    /// Text of the `loc` that is open, and the line of its beginning.
    text: Option<(String, u64)>,
    /// The `loc` of the page that is open.
    page: Option<(String, u64)>,
    /// Whether that page names pictures.
    has_image: bool,
    /// Items of a feed.
    items: u64,
    enclosures: u64,
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
        let name = element.local_name();
        let name = name.as_ref();
        match name {
            "loc" => self.text = Some((String::new(), line)),
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
            "link" if self.attribute(element, &["rel"])?.as_deref() == Some("enclosure") => {
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
                if let Some((text, line)) = self.text.take() {
                    self.has_image = true;
                    self.push(&text, line)?;
                }
            }
            ("loc", "sitemap") => {
                if let Some((text, line)) = self.text.take() {
                    self.push_sitemap(&text, line)?;
                }
            }
            ("loc", _) => self.text = None,
            ("url", "urlset") if !self.has_image => {
                let line = self.position.line();
                let (text, line) = self.page.take().unwrap_or((String::new(), line));
                self.push(&text, line)?;
            }
            _ => {}
        }
        Ok(self.path.is_empty())
    }

    fn add(&mut self, piece: &str) {
        if let Some((text, _)) = &mut self.text
            // What is too long is refused by what is there already.
            && text.len() <= MAX_LINE_BYTES
        {
            text.push_str(piece);
        }
    }

    fn add_reference(&mut self, reference: &BytesRef<'_>) {
        if self.text.is_none() {
            return;
        }
        if let Ok(Some(c)) = reference.resolve_char_ref() {
            self.add(c.encode_utf8(&mut [0; 4]));
        } else if let Some(text) = resolve_predefined_entity(reference) {
            self.add(text);
        } else {
            // Entities of a document's own are not resolved; the URL shows it.
            self.add("&");
            self.add(reference);
            self.add(";");
        }
    }

    fn enclosure(&mut self, element: &BytesStart<'_>, names: &[&str]) -> Result<(), Stop> {
        let line = self.position.line();
        let Some(url) = self.attribute(element, names)? else {
            return Ok(());
        };
        self.enclosures += 1;
        self.push(&url, line)
    }

    /// The value of the first attribute that has one of the local names.
    fn attribute(&self, element: &BytesStart<'_>, names: &[&str]) -> Result<Option<String>, Stop> {
        let broken = |detail: String| Stop::broken(self.position.line(), detail);
        for attribute in element.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| broken(error.to_string()))?;
            if names.contains(&attribute.key.local_name().as_ref()) {
                let value = attribute
                    .normalized_value(XmlVersion::Implicit1_0)
                    .map_err(|error| broken(error.to_string()))?;
                return Ok(Some(value.into_owned()));
            }
        }
        Ok(None)
    }

    fn push(&self, text: &str, line: u64) -> Result<(), Stop> {
        let entry = if text.len() > MAX_LINE_BYTES {
            row::overlong(line, text.as_bytes())
        } else {
            match address::parse(text.as_bytes()) {
                Ok(url) => {
                    let mut target = Target::new(url);
                    target.line = Some(line);
                    Entry::Target(target)
                }
                Err(refusal) => Entry::Invalid(refusal.at(Some(line), text)),
            }
        };
        self.sink.borrow_mut().push(entry)
    }

    fn push_sitemap(&self, text: &str, line: u64) -> Result<(), Stop> {
        match address::parse(text.as_bytes()) {
            Ok(url) => self.sink.borrow_mut().push_sitemap(url),
            Err(refusal) => self
                .sink
                .borrow_mut()
                .push(Entry::Invalid(refusal.at(Some(line), text))),
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
