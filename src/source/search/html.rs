//! Reading HTML that others write.

use html5gum::{DefaultEmitter, Token, Tokenizer};

/// A start tag: its name in lower case, and its attributes with entities decoded.
#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    /// The value of an attribute, whose name is in lower case here.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it is of this class, perhaps among others.
    pub(super) fn is_of_class(&self, class: &str) -> bool {
        self.attribute("class")
            .is_some_and(|all| all.split_ascii_whitespace().any(|one| one == class))
    }
}

/// What a document consists of.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Tag(Tag),
    /// The name of an end tag, in lower case.
    End(String),
    /// Text between tags; also that of scripts.
    Text(String),
}

/// Takes a document apart (WHATWG HTML, section 13.2.5), whatever it is.
pub(super) fn pieces(document: &str) -> impl Iterator<Item = Piece> {
    let mut emitter = DefaultEmitter::<()>::default();
    // What stands in a script is no tag.
    emitter.naively_switch_states(true);
    Tokenizer::new_with_emitter(document, emitter).filter_map(|token| {
        Some(match token {
            Ok(Token::StartTag(tag)) => Piece::Tag(Tag {
                name: text(&tag.name),
                attributes: tag
                    .attributes
                    .iter()
                    .map(|(name, value)| (text(name), text(&value.value)))
                    .collect(),
            }),
            Ok(Token::EndTag(tag)) => Piece::End(text(&tag.name)),
            Ok(Token::String(string)) => Piece::Text(text(&string.value)),
            _ => return None,
        })
    })
}

/// The text of a piece of HTML, without its tags.
pub(in crate::source) fn plain(html: &str) -> String {
    let texts = pieces(html).filter_map(|piece| match piece {
        Piece::Text(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
