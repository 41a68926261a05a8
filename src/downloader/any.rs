//! Every file: the kind `any`.

use super::sniff::{self, Known, Look};
use super::{Body, Downloader, Facts, Format, HEAD_BYTES, Hints, Kept, Rejection, Verdict};
use crate::target::Reason;

/// Downloads whatever arrives, and says what it looks like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Any;

impl Downloader for Any {
    fn kind(&self) -> &str {
        "any"
    }

    fn accept(&self) -> &str {
        "*/*"
    }

    fn sniff(&self, head: &[u8], hints: &Hints<'_>) -> Verdict {
        if head.is_empty() && hints.complete {
            return Verdict::Reject(Rejection::new(Reason::Empty, "the body has no bytes"));
        }
        match sniff::look(head, hints.complete || head.len() >= HEAD_BYTES) {
            Look::Undecided => Verdict::More,
            look => Verdict::Accept(format(look)),
        }
    }

    fn accepts_kept(&self, _: &Kept<'_>) -> Option<bool> {
        Some(true)
    }

    fn inspect(&self, body: &Body, format: Format) -> Result<Facts, Rejection> {
        if body.is_empty() {
            return Err(Rejection::new(Reason::Empty, "the body has no bytes"));
        }
        Ok(Facts {
            // A browser runs what an HTML page or a picture in SVG holds; nobody has looked for it here.
            active: matches!(format.name, "html" | "svg" | "svgz" | "xml"),
            ..Facts::of(format)
        })
    }
}

/// What pages are called.
pub(super) const HTML: &[&str] = &["html", "htm", "xhtml", "php", "asp", "aspx", "jsp"];

fn format(look: Look) -> Format {
    match look {
        Look::Picture(format) => format.format(),
        Look::Html => Format {
            name: "html",
            media_type: "text/html",
            extensions: HTML,
        },
        Look::Xml => Format {
            name: "xml",
            media_type: "application/xml",
            extensions: &[],
        },
        Look::Text => Format {
            name: "txt",
            media_type: "text/plain",
            extensions: &[],
        },
        Look::Known(known) => known_format(known),
        Look::Bytes | Look::Undecided => BYTES,
    }
}

/// What shows nothing of what it is.
pub(super) const BYTES: Format = Format {
    name: "bin",
    media_type: "application/octet-stream",
    extensions: &[],
};

fn known_format(known: Known) -> Format {
    Format {
        name: known.extension,
        media_type: known.media_type,
        extensions: extensions(known.extension),
    }
}

/// The extensions that agree with what `infer` found. Containers that stand for many formats keep any.
pub(super) fn extensions(name: &str) -> &'static [&'static str] {
    macro_rules! extensions {
        ($($name:literal $(, $more:literal)*;)*) => {
            match name {
                $($name => &[$name $(, $more)*],)*
                _ => &[],
            }
        };
    }
    extensions! {
        "pdf"; "epub"; "mobi";
        "docx", "docm", "dotx"; "xlsx", "xlsm", "xltx"; "pptx", "pptm", "ppsx", "potx";
        "doc", "dot"; "xls", "xlt"; "ppt", "pps", "pot";
        "odt"; "ods"; "odp"; "rtf"; "ps", "eps", "ai";
        "mp4", "m4v", "mov", "m4a"; "m4v", "mp4"; "mkv", "mka", "webm"; "webm", "mkv"; "mov", "qt", "mp4";
        "avi"; "wmv", "asf", "wma"; "mpg", "mpeg", "vob"; "flv";
        "mp3"; "m4a", "mp4", "m4b"; "opus", "ogg"; "ogg", "oga", "ogv", "ogx"; "flac"; "wav"; "amr"; "aac";
        "aiff", "aif", "aifc"; "midi", "mid";
        "woff"; "woff2"; "ttf"; "otf"; "eot";
        "tar"; "rar", "cbr"; "7z", "cb7"; "bz2", "tbz2", "tbz"; "xz", "txz"; "zst", "tzst";
        "gz", "tgz", "svgz"; "lz"; "lz4"; "rpm"; "deb", "udeb"; "cab"; "swf"; "wasm";
        "cr2"; "jxr", "wdp", "hdp"; "djvu", "djv"; "dwg"; "ora";
    }
}
