//! Reads the file name in `Content-Disposition` (RFC 6266), as origins really send it.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use percent_encoding::percent_decode;

use super::encoded_word;
use super::sanitise::base_name;

/// The file name that a `Content-Disposition` suggests: the last part of it where it is a path, otherwise as
/// sent, which means that it is not safe yet ([`sanitise`](super::sanitise()) makes it so).
///
/// The first that holds a name counts:
///
/// 1. `filename*` (RFC 8187) when it is valid, in any charset that browsers know
/// 2. `filename`, quoted or not, in UTF-8 or Latin-1, with encoded words (RFC 2047) and backslash escapes
/// 3. `filename*0`, `filename*1` … put together (RFC 2231, section 3)
///
/// A `filename*` that breaks RFC 8187 is passed over. Of a repeated parameter the first counts. The type does not matter, nor whether there is one.
pub fn content_disposition(value: &[u8]) -> Option<String> {
    let parameters = parse(value);
    let named = |is_extended| {
        parameters
            .iter()
            .find(|p| p.is_extended == is_extended && p.name.eq_ignore_ascii_case(b"filename"))
    };
    let part = |name: String| {
        let name = base_name(&name).trim();
        // Dots and spaces alone name nothing, so what else the header offers counts.
        (!name.trim_matches(['.', ' ']).is_empty()).then(|| name.to_owned())
    };
    named(true)
        .and_then(|p| extended_value(&p.value))
        .and_then(part)
        .or_else(|| named(false).map(plain_value).and_then(part))
        .or_else(|| continued_value(&parameters).and_then(part))
}

/// One `name=value`.
#[derive(Debug)]
struct Parameter<'a> {
    /// Without the `*` at its end.
    name: &'a [u8],
    /// Whether there was a `*` at the end of the name.
    is_extended: bool,
    /// Without quotes and escapes.
    value: Cow<'a, [u8]>,
}

/// Splits a header into its parameters; what is none, such as the type, is passed over.
fn parse(mut rest: &[u8]) -> Vec<Parameter<'_>> {
    let mut parameters = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|b| b";=\"".contains(b));
        let Some(end) = end else { break };
        let (name, tail) = (&rest[..end], &rest[end + 1..]);
        rest = match rest[end] {
            b';' => tail,
            // A quoted string where a name should be.
            b'"' => after_semicolon(quoted(tail).1),
            _ => {
                let (value, tail) = parse_value(tail);
                let name = trim(name);
                let (name, is_extended) = match name.strip_suffix(b"*") {
                    Some(name) => (trim(name), true),
                    None => (name, false),
                };
                // A missing `;` leaves the type, or whatever, in front: `attachment filename=a.jpg`.
                let start = name
                    .iter()
                    .rposition(|&b| b.is_ascii_whitespace() || b == b',' || b == b':')
                    .map_or(0, |at| at + 1);
                parameters.push(Parameter {
                    name: &name[start..],
                    is_extended,
                    value,
                });
                tail
            }
        };
    }
    parameters
}

/// A value, and what follows its `;`.
fn parse_value(text: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let text = text.trim_ascii_start();
    if let Some(inner) = text.strip_prefix(b"\"") {
        let (value, tail) = quoted(inner);
        return (value, after_semicolon(tail));
    }
    // No quotes: all up to the next `;`, although spaces and more are not allowed in a token.
    let end = text.iter().position(|&b| b == b';').unwrap_or(text.len());
    let value = trim(&text[..end]);
    let value = trim(value.strip_suffix(b"\"").unwrap_or(value));
    (Cow::Borrowed(value), after_semicolon(&text[end..]))
}

fn after_semicolon(text: &[u8]) -> &[u8] {
    match text.iter().position(|&b| b == b';') {
        Some(at) => &text[at + 1..],
        None => &[],
    }
}

fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// The content of a quoted string (RFC 9110, section 5.6.4), whose opening quote is gone, and what follows
/// the closing one. Without a closing one, it ends where the next parameter begins.
fn quoted(text: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let mut end = 0;
    let mut has_escapes = false;
    // A Windows path is sent with bare backslashes: they are no escapes.
    let is_path = is_windows_path(text);
    loop {
        match text.get(end) {
            Some(b'"') => break,
            Some(b'\\') if !is_path => {
                has_escapes = true;
                end += 2;
            }
            Some(_) => end += 1,
            None => {
                let end = next_parameter(text);
                let value = trim(&text[..end]);
                return (unescape(value, has_escapes), &text[end..]);
            }
        }
    }
    (unescape(&text[..end], has_escapes), &text[end + 1..])
}

fn unescape(text: &[u8], has_escapes: bool) -> Cow<'_, [u8]> {
    if !has_escapes {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            // One at the very end escapes nothing and is dropped.
            b'\\' => plain.extend(rest.next()),
            _ => plain.push(byte),
        }
    }
    Cow::Owned(plain)
}

/// Whether a quoted string begins as `C:\x` or `..\x` do: an escape of a plain letter makes no sense.
fn is_windows_path(text: &[u8]) -> bool {
    let rest = match text {
        [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() => rest,
        [b'.', b'.', rest @ ..] | [b'.', rest @ ..] => rest,
        _ => return false,
    };
    matches!(rest, [b'\\', next, ..] if !b"\\\"".contains(next))
}

/// Where in an unclosed quoted string `; name=` begins.
fn next_parameter(text: &[u8]) -> usize {
    let begins = |at: usize| {
        let name = text[at + 1..].trim_ascii_start();
        let end = name
            .iter()
            .position(|b| !b.is_ascii_alphanumeric() && !b"-*".contains(b));
        end.is_some_and(|end| end > 0 && name[end] == b'=')
    };
    (0..text.len())
        .filter(|&at| text[at] == b';')
        .find(|&at| begins(at))
        .unwrap_or(text.len())
}

/// UTF-8 where it is valid, otherwise Latin-1 (as browsers read it: Windows-1252).
fn decode_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => WINDOWS_1252
            .decode_without_bom_handling(bytes)
            .0
            .into_owned(),
    }
}

fn plain_value(parameter: &Parameter<'_>) -> String {
    let text = decode_text(&parameter.value);
    encoded_word::decode(&text).unwrap_or(text)
}

/// `charset'language'percent-encoded` (RFC 8187, section 3.2); `None` unless all of it is valid.
fn extended_value(value: &[u8]) -> Option<String> {
    let (charset, rest) = split_at_quote(value)?;
    let (_language, encoded) = split_at_quote(rest)?;
    let charset = charset_of(charset)?;
    has_valid_escapes(encoded).then_some(())?;
    decode_percent(charset, encoded)
}

/// An empty charset is not allowed, but sent by some; UTF-8 is what they mean.
fn charset_of(label: &[u8]) -> Option<&'static Encoding> {
    match trim(label) {
        b"" => Some(UTF_8),
        label => Encoding::for_label(label),
    }
}

fn split_at_quote(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&b| b == b'\'')?;
    Some((&text[..at], &text[at + 1..]))
}

fn has_valid_escapes(encoded: &[u8]) -> bool {
    encoded.iter().enumerate().all(|(at, &byte)| {
        byte != b'%'
            || encoded
                .get(at + 1..at + 3)
                .is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    })
}

fn decode_percent(charset: &'static Encoding, encoded: &[u8]) -> Option<String> {
    let bytes: Cow<'_, [u8]> = percent_decode(encoded).into();
    charset
        .decode_without_bom_handling_and_without_replacement(&bytes)
        .map(Cow::into_owned)
}

/// Most pieces of one name; the search for each goes through all parameters.
const MAX_PIECES: usize = 100;

/// `filename*0`, `filename*1*` … in order, up to the first that is missing. Only pieces whose name ends in `*`
/// are percent-encoded; the first of these names the charset.
fn continued_value(parameters: &[Parameter<'_>]) -> Option<String> {
    let mut bytes = Vec::new();
    let mut charset = None;
    for number in 0..MAX_PIECES {
        let name = format!("filename*{number}");
        let piece = parameters
            .iter()
            .find(|p| p.name.eq_ignore_ascii_case(name.as_bytes()));
        let Some(piece) = piece else { break };
        let mut value = &*piece.value;
        if piece.is_extended {
            if number == 0 {
                let (label, rest) = split_at_quote(value)?;
                charset = Some(charset_of(label)?);
                value = split_at_quote(rest)?.1;
            }
            bytes.extend(percent_decode(value));
        } else {
            bytes.extend_from_slice(value);
        }
    }
    match charset {
        _ if bytes.is_empty() => None,
        Some(charset) => charset
            .decode_without_bom_handling_and_without_replacement(&bytes)
            .map(Cow::into_owned),
        None => Some(decode_text(&bytes)),
    }
}

#[cfg(test)]
mod tests;
