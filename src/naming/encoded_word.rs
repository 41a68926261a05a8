//! Encoded words (RFC 2047) in file names: no header of HTTP allows them, many origins send them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use encoding_rs::Encoding;

/// Senders differ on whether the padding belongs to the word.
const STANDARD_PAD_INDIFFERENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes every encoded word of `text`, such as `=?UTF-8?B?Y2F0?=`. `None` when it holds none, or one that
/// cannot be decoded.
///
/// White space between two words is not part of the text (section 6.2). Pieces in the same charset are
/// joined before they are decoded, since origins cut characters in two.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut run: Option<(&'static Encoding, Vec<u8>)> = None;
    let mut rest = text;
    let mut found = false;
    while !rest.is_empty() {
        let start = rest.find("=?").unwrap_or(rest.len());
        let (plain, tail) = rest.split_at(start);
        let is_gap = run.is_some() && !tail.is_empty() && plain.trim().is_empty();
        if !plain.is_empty() && !is_gap {
            flush(&mut run, &mut out)?;
            out.push_str(plain);
        }
        if tail.is_empty() {
            break;
        }
        let (word, tail) = split_word(tail)?;
        found = true;
        match &mut run {
            Some((encoding, bytes)) if *encoding == word.0 => bytes.extend(word.1),
            _ => {
                flush(&mut run, &mut out)?;
                run = Some(word);
            }
        }
        rest = tail;
    }
    flush(&mut run, &mut out)?;
    found.then_some(out)
}

fn flush(run: &mut Option<(&'static Encoding, Vec<u8>)>, out: &mut String) -> Option<()> {
    if let Some((encoding, bytes)) = run.take() {
        out.push_str(&encoding.decode_without_bom_handling_and_without_replacement(&bytes)?);
    }
    Some(())
}

/// Splits `=?charset?encoding?text?=` off the front.
fn split_word(text: &str) -> Option<((&'static Encoding, Vec<u8>), &str)> {
    let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (payload, tail) = rest.split_once("?=")?;
    // RFC 2231, section 5: a language may follow the charset.
    let charset = charset.split('*').next().unwrap_or_default();
    let charset = Encoding::for_label(charset.as_bytes())?;
    let bytes = if encoding.eq_ignore_ascii_case("b") {
        STANDARD_PAD_INDIFFERENT.decode(payload.trim()).ok()?
    } else if encoding.eq_ignore_ascii_case("q") {
        quoted(payload)?
    } else {
        return None;
    };
    Some(((charset, bytes), tail))
}

/// The "Q" encoding (section 4.2).
fn quoted(payload: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(payload.len());
    let mut rest = payload.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? << 4 | digit(rest.next())?) as u8
            }
            other => other,
        });
    }
    Some(bytes)
}
