//! Makes a safe file name of any text.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::FileName;
use super::path::{join, split_extension};
use crate::target::Format;

/// Turns `raw` into a name that every common file system accepts and whose extension agrees with `format`.
///
/// Only the part after the last `/` or `\` counts. Control and format characters (bidirectional overrides among them)
/// are left out, characters that Windows reserves become `_`, and the rest is normalised to NFC. Dots and spaces are
/// stripped from both ends, and dashes from the start, where commands would take the name for an option. The
/// extension stays as written if it is one of the format's; another file type's extension is replaced. Anything else
/// after a dot is part of the name, and the format's preferred extension follows it. A name that is too long loses
/// the end of its stem.
///
/// `None` if nothing usable remains: `.png` and `-.png` are an extension without a name. Sanitising the result again does not change it.
pub fn sanitise(raw: &str, format: &Format) -> Option<FileName> {
    let legible = legible(base_name(raw));
    let name = trim(&legible);
    if name.is_empty() || is_extension(&legible, format) {
        return None;
    }
    let Some(preferred) = format.extensions.first().copied() else {
        let (stem, extension) = split_extension(name);
        return Some(join(stem, extension));
    };
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if is_of(format, extension) => (stem, extension),
        // `photo.jpg.html`: what stands below the false extension may be the right one.
        Some((stem, extension)) if is_well_known(extension) => match stem.rsplit_once('.') {
            Some((inner, extension)) if is_of(format, extension) => (inner, extension),
            _ => (stem, preferred),
        },
        _ => (name, preferred),
    };
    // The stem of a clean name does not begin with a dot, space or dash, so something remains.
    Some(join(stem.trim_end_matches(is_edge), Some(extension)))
}

/// The part after the last separator of either kind.
pub(super) fn base_name(raw: &str) -> &str {
    raw.rsplit(['/', '\\']).next().unwrap_or_default()
}

/// Returns `true` if `name` has nothing but the extension of a file type.
fn is_extension(name: &str, format: &Format) -> bool {
    let split = name.trim_end_matches(is_edge).rsplit_once('.');
    split.is_some_and(|(stem, extension)| {
        trim(stem).is_empty() && (is_of(format, extension) || is_well_known(extension))
    })
}

/// Leaves out, replaces, normalises and trims; may come out empty or too long.
pub(super) fn clean(text: &str) -> String {
    trim(&legible(text)).to_owned()
}

/// Strips what a name must neither begin nor end with.
fn trim(name: &str) -> &str {
    name.trim_end_matches(is_edge)
        .trim_start_matches(|c| c == '-' || is_edge(c))
}

/// Leaves out, replaces and normalises, but keeps what stands at the ends.
fn legible(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_whitespace() && c != '\u{3000}' && c != '\u{a0}' {
                ' '
            } else {
                c
            }
        })
        .filter(|&c| !is_removed(c))
        .nfc()
        // After composing, since `<` and U+0338 together are a letter of their own.
        .map(|c| if is_reserved(c) { '_' } else { c })
        .collect()
}

/// Cuts `text` to at most `max` bytes and trims what the cut lays bare. Neither a character is cut nor a
/// combining mark taken from its base, unless the marks alone fill the name.
pub(super) fn truncate(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let fits = text.floor_char_boundary(max);
    let mut end = fits;
    while end > 0 && text[end..].starts_with(is_combining_mark) {
        end = text.floor_char_boundary(end - 1);
    }
    let cut = text[..end].trim_end_matches(is_edge);
    if cut.is_empty() { &text[..fits] } else { cut }
}

/// Returns `true` if a name must neither begin nor end with `c`. It must not begin with a dash either.
pub(super) fn is_edge(c: char) -> bool {
    c == '.' || c.is_whitespace()
}

/// Control and format characters, separators of lines, and code points that are no characters.
pub(super) fn is_removed(c: char) -> bool {
    c.is_control()
        || u32::from(c) & 0xfffe == 0xfffe
        || ('\u{fdd0}'..='\u{fdef}').contains(&c)
        || matches!(
            c.general_category(),
            GeneralCategory::Format
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
        )
}

/// What no component of a path may hold on Windows, and `/` anywhere.
pub(super) fn is_reserved(c: char) -> bool {
    matches!(c, '<' | '>' | ':' | '"' | '/' | '\\' | '|' | '?' | '*')
}

/// Whether Windows takes `name` for a device, whatever extension it has.
pub(super) fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let is = |device: &str| stem.eq_ignore_ascii_case(device);
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
        .into_iter()
        .any(is)
    {
        return true;
    }
    // Windows counts the superscript digits of Latin-1 as digits here.
    let mut rest = stem.chars();
    let number = rest.next_back();
    let port = rest.as_str();
    (port.eq_ignore_ascii_case("COM") || port.eq_ignore_ascii_case("LPT"))
        && number.is_some_and(|c| c.is_ascii_digit() || "¹²³".contains(c))
}

fn is_of(format: &Format, extension: &str) -> bool {
    format
        .extensions
        .iter()
        .any(|e| e.eq_ignore_ascii_case(extension))
}

fn is_well_known(extension: &str) -> bool {
    WELL_KNOWN
        .binary_search(&&*extension.to_ascii_lowercase())
        .is_ok()
}

/// Extensions that tell of a file's type, so that a wrong one misleads. Sorted.
#[rustfmt::skip]
const WELL_KNOWN: &[&str] = &[
    "7z", "aac", "action", "ai", "apk", "apng", "arw", "asp", "aspx", "avi", "avif", "bak", "bat", "bin",
    "bmp", "bz2", "cfm", "cgi", "cmd", "cr2", "cr3", "css", "csv", "cur", "dat", "dcm", "dib", "dll", "dmg",
    "dng", "do", "doc", "docm", "docx", "download", "emf", "eps", "epub", "exe", "exr", "fcgi", "flv", "gif",
    "gz", "hdr", "heic", "heif", "hif", "htm", "html", "ico", "img", "indd", "iso", "j2k", "jar",
    "jfi", "jfif", "jif", "jp2", "jpe", "jpeg", "jpf", "jpg", "jpx", "js", "json", "jsonl", "jsp", "jspx",
    "jxl", "jxr", "m4a", "m4v", "md", "mjs", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "msi", "nef", "odg",
    "odp", "ods", "odt", "ogg", "ogv", "orf", "part", "pbm", "pcx", "pdf", "pgm", "php", "php3", "php4",
    "php5", "php7", "phps", "phtml", "pict", "pjp", "pjpeg", "pl", "png", "pnm", "ppm", "pps", "ppsx", "ppt",
    "pptx", "ps", "psb", "psd", "py", "qoi", "rar", "raw", "rb", "rgb", "rgba", "rtf", "rw2", "sgi", "sh",
    "shtml", "svg", "svgz", "swf", "tar", "temp", "tga", "tgz", "tif", "tiff", "tmp", "tsv", "txt", "url",
    "vbs", "wav", "wbmp", "webm", "webp", "wmf", "wmv", "xbm", "xhtml", "xls", "xlsm", "xlsx", "xml", "xpm",
    "xz", "yaml", "yml", "zip", "zst",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_extensions_can_be_searched() {
        assert!(WELL_KNOWN.is_sorted());
    }
}
