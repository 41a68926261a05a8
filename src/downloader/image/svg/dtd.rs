//! The document type: the entities and the attribute defaults that it declares.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::downloader::Rejection;
use crate::downloader::window::corrupt;

/// Longest value of an entity, in bytes. Namespaces are shorter; bombs are not.
const MAX_VALUE: usize = 1024;

/// Most entities.
const MAX_ENTITIES: usize = 256;

/// Entities by name.
#[derive(Debug, Default)]
pub(super) struct Entities(HashMap<String, String>);

/// A default for an attribute (XML 1.0, section 3.3.2). Elements have it without showing it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AttributeDefault<'a> {
    pub(super) element: &'a str,
    pub(super) name: &'a str,
    /// As written, with its references.
    pub(super) value: &'a str,
}

impl Entities {
    /// Reads `doctype`, what stands between `<!DOCTYPE` and its `>`, and returns the defaults of attributes too.
    ///
    /// # Errors
    ///
    /// When it declares external, parameter or nested entities, or long ones.
    pub(super) fn declared_in(
        doctype: &str,
    ) -> Result<(Self, Vec<AttributeDefault<'_>>), Rejection> {
        let (mut entities, mut defaults) = (Self::default(), Vec::new());
        let Some((_, subset)) = split_at_subset(doctype) else {
            return Ok((entities, defaults));
        };
        let mut rest = subset.trim_start();
        while !rest.is_empty() && !rest.starts_with(']') {
            if let Some(comment) = rest.strip_prefix("<!--") {
                rest = behind(comment, "-->")?;
            } else if let Some(instruction) = rest.strip_prefix("<?") {
                rest = behind(instruction, "?>")?;
            } else if let Some(declaration) = rest.strip_prefix("<!") {
                let end = end_of_declaration(declaration)?;
                if let Some(entity) = declaration[..end].strip_prefix("ENTITY") {
                    entities.declare(entity)?;
                } else if let Some(list) = declaration[..end].strip_prefix("ATTLIST") {
                    attribute_defaults(list, &mut defaults)?;
                }
                rest = &declaration[end + 1..];
            } else if rest.starts_with('%') {
                return Err(corrupt("uses parameter entities"));
            } else {
                return Err(corrupt("has a damaged document type"));
            }
            rest = rest.trim_start();
        }
        Ok((entities, defaults))
    }

    /// Takes what stands between `<!ENTITY` and its `>`.
    fn declare(&mut self, declaration: &str) -> Result<(), Rejection> {
        let damaged = || corrupt("has a damaged entity declaration");
        let declaration = declaration.trim();
        if declaration.starts_with('%') {
            return Err(corrupt("declares parameter entities"));
        }
        let (name, value) = declaration
            .split_once(|c: char| c.is_ascii_whitespace())
            .ok_or_else(damaged)?;
        let value = value.trim();
        if value.starts_with("SYSTEM") || value.starts_with("PUBLIC") {
            return Err(corrupt(format!(
                "declares the external entity `{}`",
                brief(name)
            )));
        }
        let quote = value
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\''))
            .ok_or_else(damaged)?;
        let value = value[1..].strip_suffix(quote).ok_or_else(damaged)?;
        if value.len() > MAX_VALUE {
            return Err(corrupt(format!(
                "declares the entity `{}` of {} bytes",
                brief(name),
                value.len()
            )));
        }
        let value = characters(value)
            .ok_or_else(|| corrupt(format!("declares the nested entity `{}`", brief(name))))?;
        if self.0.len() >= MAX_ENTITIES {
            return Err(corrupt(format!(
                "declares more than {MAX_ENTITIES} entities"
            )));
        }
        // The first declaration of a name is the one that counts (section 4.2).
        self.0.entry(name.to_owned()).or_insert(value);
        Ok(())
    }

    /// Holds that the reference `name`, without `&` and `;`, stands for something.
    /// Returns whether that something is markup, which hides from this pass what it does.
    pub(super) fn check(&self, name: &str) -> Result<bool, Rejection> {
        self.value(name).map(|value| value.contains('<'))
    }

    /// `value` with its references replaced.
    pub(super) fn resolve<'a>(&self, value: &'a str) -> Result<Cow<'a, str>, Rejection> {
        let Some(special) = memchr::memchr2(b'&', b'<', value.as_bytes()) else {
            return Ok(Cow::Borrowed(value));
        };
        let mut resolved = value[..special].to_owned();
        let mut rest = &value[special..];
        loop {
            if rest.starts_with('<') {
                return Err(corrupt("has a `<` in an attribute's value"));
            }
            let (name, behind) = rest[1..]
                .split_once(';')
                .ok_or_else(|| corrupt("has an `&` that begins no reference"))?;
            // Values are short, and what a picture says in a few bytes is not meant to be long.
            if resolved.len() < 64 * 1024 + value.len() {
                resolved.push_str(&self.value(name)?);
            }
            let Some(next) = memchr::memchr2(b'&', b'<', behind.as_bytes()) else {
                resolved.push_str(behind);
                return Ok(Cow::Owned(resolved));
            };
            resolved.push_str(&behind[..next]);
            rest = &behind[next..];
        }
    }

    fn value(&self, name: &str) -> Result<Cow<'_, str>, Rejection> {
        if let Some(value) = self.0.get(name) {
            return Ok(Cow::Borrowed(value));
        }
        Ok(match name {
            "lt" | "gt" | "amp" => Cow::Borrowed(" "),
            "quot" => Cow::Borrowed("\""),
            "apos" => Cow::Borrowed("'"),
            _ => match name.strip_prefix('#').and_then(character) {
                Some(c) => Cow::Owned(c.to_string()),
                None => {
                    return Err(corrupt(format!(
                        "uses the undeclared entity `{}`",
                        brief(name)
                    )));
                }
            },
        })
    }
}

/// Adds the defaults of `list`, what stands between `<!ATTLIST` and its `>`: an element, then attributes with a type
/// and a rule each.
fn attribute_defaults<'a>(
    list: &'a str,
    defaults: &mut Vec<AttributeDefault<'a>>,
) -> Result<(), Rejection> {
    let damaged = || corrupt("has a damaged attribute declaration");
    let mut tokens = Tokens(list);
    let element = tokens.next().ok_or_else(damaged)?;
    while let Some(name) = tokens.next() {
        let kind = tokens.next().ok_or_else(damaged)?;
        if kind == "NOTATION" {
            tokens.next().ok_or_else(damaged)?;
        }
        let value = match tokens.next().ok_or_else(damaged)? {
            "#REQUIRED" | "#IMPLIED" => continue,
            "#FIXED" => tokens.next().ok_or_else(damaged)?,
            value => value,
        };
        let value = value
            .strip_prefix(['"', '\''])
            .and_then(|value| value.strip_suffix(['"', '\'']))
            .ok_or_else(damaged)?;
        defaults.push(AttributeDefault {
            element,
            name,
            value,
        });
    }
    Ok(())
}

/// The tokens of an attribute declaration: words, quoted values and groups in parentheses.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let closed = |close: char| text[1..].find(close).map(|at| at + 2);
        let end = match text.chars().next()? {
            quote @ ('"' | '\'') => closed(quote),
            '(' => closed(')'),
            _ => text.find(|c: char| c.is_ascii_whitespace() || matches!(c, '"' | '\'' | '(')),
        };
        let (token, rest) = text.split_at(end.unwrap_or(text.len()));
        self.0 = rest;
        Some(token)
    }
}

/// The character of a reference, given what stands between `&#` and `;`.
fn character(number: &str) -> Option<char> {
    let code = match number.strip_prefix('x') {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    char::from_u32(code.ok()?).filter(|c| *c >= ' ' || matches!(c, '\t' | '\n' | '\r'))
}

/// `value` with its character references replaced; `None` when it holds other references, or characters
/// that would make some when they are read again.
fn characters(value: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = value;
    while let Some(at) = rest.find(['&', '%']) {
        plain.push_str(&rest[..at]);
        let (number, behind) = rest[at..].strip_prefix("&#")?.split_once(';')?;
        plain.push(character(number).filter(|c| !matches!(c, '&' | '%' | '<'))?);
        rest = behind;
    }
    plain.push_str(rest);
    Some(plain)
}

/// Splits at the `[` outside of quotes.
fn split_at_subset(doctype: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, byte) in doctype.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), close) if open == close => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'[') => return Some((&doctype[..at], &doctype[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Where the `>` stands that ends a declaration.
fn end_of_declaration(declaration: &str) -> Result<usize, Rejection> {
    let mut quote = None;
    for (at, byte) in declaration.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), close) if open == close => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'>') => return Ok(at),
            _ => {}
        }
    }
    Err(corrupt("has a damaged document type"))
}

fn behind<'a>(text: &'a str, end: &str) -> Result<&'a str, Rejection> {
    text.split_once(end)
        .map(|(_, rest)| rest)
        .ok_or_else(|| corrupt("has a damaged document type"))
}

/// A name that is fit for a message.
fn brief(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_plain_entities_are_taken() {
        let entities = Entities::declared_in(
            r#" svg PUBLIC "-//W3C//DTD SVG 1.0//EN" "http://x/[svg].dtd" [
                <!-- <!ENTITY no "no"> -->
                <!ENTITY ns_svg "http://www.w3.org/2000/svg">
                <!ENTITY nbsp '&#160;'>
                <!ATTLIST svg a CDATA "x>y">
            ]"#,
        )
        .unwrap()
        .0;
        assert_eq!(
            entities.resolve("&ns_svg;!").unwrap(),
            "http://www.w3.org/2000/svg!"
        );
        assert_eq!(
            entities.resolve("a&nbsp;&#x41;&quot;").unwrap(),
            "a\u{a0}A\""
        );
        for undeclared in ["&no;", "&nothing;", "&", "&#0;", "&#xd800;", "a<b"] {
            assert!(entities.resolve(undeclared).is_err(), "{undeclared}");
        }
    }

    #[test]
    fn attributes_have_the_defaults_that_are_declared() {
        let subset = r##"svg [
            <!ATTLIST svg
                a CDATA #IMPLIED
                b (x|y) "x"
                c NOTATION (n) #FIXED 'it is "c"'
                d ID #REQUIRED
                e CDATA"> (">
            <!ATTLIST g f CDATA ''>
            <!ATTLIST g>
        ]"##;
        let (_, defaults) = Entities::declared_in(subset).unwrap();
        let found: Vec<_> = defaults
            .iter()
            .map(|found| (found.element, found.name, found.value))
            .collect();
        let expected = [
            ("svg", "b", "x"),
            ("svg", "c", "it is \"c\""),
            ("svg", "e", "> ("),
            ("g", "f", ""),
        ];
        assert_eq!(found, expected);
        for damaged in ["", "g a", "g a CDATA", "g a CDATA x", "g a CDATA #FIXED"] {
            let subset = format!("svg [<!ATTLIST {damaged}>]");
            assert!(Entities::declared_in(&subset).is_err(), "{damaged}");
        }
    }

    #[test]
    fn what_could_lead_a_parser_astray_is_rejected() {
        let long = format!("<!ENTITY a \"{}\">", "x".repeat(MAX_VALUE + 1));
        for subset in [
            r#"<!ENTITY a SYSTEM "file:///etc/passwd">"#,
            r#"<!ENTITY a PUBLIC "x" "http://x/">"#,
            r#"<!ENTITY % a "x">"#,
            "%a;",
            r#"<!ENTITY a "&b;&b;">"#,
            r#"<!ENTITY a "&#38;b;">"#,
            r#"<!ENTITY a "&#x26;b;">"#,
            r#"<!ENTITY a "100%">"#,
            "<!ENTITY a>",
            "<!ENTITY a x>",
            "<!ENTITY a \"",
            "junk",
            &long,
        ] {
            assert!(
                Entities::declared_in(&format!("svg [{subset}]")).is_err(),
                "{subset}"
            );
        }
    }
}
