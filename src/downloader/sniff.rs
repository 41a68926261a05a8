//! What the first bytes of a body show, in one word.
//!
//! The `infer` crate does the looking. Where its own matchers are too trusting (two letters for a BMP) or
//! blind (SVG, SGI, BigTIFF, cursors, most brands of HEIF), stricter ones of ours are asked before them.

use std::sync::LazyLock;

use infer::{Infer, MatcherType};

use super::HEAD_BYTES;
use super::image::{ImageFormat, sniffers, unpack_head};
use super::markup::{self, Markup};

/// What a head shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// A picture of a format that `image` knows.
    Picture(ImageFormat),
    /// A file of another kind that `infer` knows.
    Known(Known),
    Html,
    Xml,
    Text,
    /// Bytes that nothing is known of.
    Bytes,
    /// There are too few bytes to tell.
    Undecided,
}

/// A kind of file that is none of our pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) group: MatcherType,
    pub(crate) media_type: &'static str,
    pub(crate) extension: &'static str,
}

/// Bytes without which nothing is ruled out, unless they are all there are.
const ENOUGH: usize = 64;

static INFER: LazyLock<Infer> = LazyLock::new(|| {
    let mut infer = Infer::new();
    for (format, matches) in sniffers() {
        infer.add(format.format().media_type, format.name(), *matches);
    }
    infer
});

/// Looks at `head`; `last` means that no more bytes will come to it.
pub(crate) fn look(head: &[u8], last: bool) -> Look {
    if let Some(packed) = look_inside(head, last) {
        return packed;
    }
    if let Some(found) = INFER.get(head) {
        let picture = ImageFormat::named(found.extension());
        match (found.matcher_type(), picture) {
            (MatcherType::Custom, Some(format)) => return Look::Picture(format),
            // Text is judged below, and the image matchers that have a stricter twin above found too little.
            (MatcherType::Text, _) => {}
            (MatcherType::Image, _) if is_ours(found.mime_type()) => {}
            // `%!` and `%PDF` anywhere in the first kilobyte are in many a text and page.
            _ if markup::judge(head) != Markup::None => {}
            (group, _) => {
                return Look::Known(Known {
                    group,
                    media_type: found.mime_type(),
                    extension: found.extension(),
                });
            }
        }
    }
    match markup::judge(head) {
        Markup::Svg => Look::Picture(ImageFormat::Svg),
        Markup::Html => Look::Html,
        Markup::Xml => Look::Xml,
        Markup::Undecided if !last => Look::Undecided,
        _ if head.len() < ENOUGH && !last => Look::Undecided,
        _ if markup::is_text(head) => Look::Text,
        _ => Look::Bytes,
    }
}

/// Looks for an SVG inside gzip. `None`: it is none.
fn look_inside(head: &[u8], last: bool) -> Option<Look> {
    let text = unpack_head(head, HEAD_BYTES)?;
    match markup::judge(&text) {
        Markup::Svg => Some(Look::Picture(ImageFormat::Svgz)),
        // Tables stand before the first byte of text.
        Markup::None if text.len() < ENOUGH && !last && head.len() < 1024 => Some(Look::Undecided),
        Markup::Undecided if !last && text.len() < HEAD_BYTES => Some(Look::Undecided),
        _ => None,
    }
}

/// Whether `infer` says that of bytes which a matcher of ours has turned down.
fn is_ours(media_type: &str) -> bool {
    matches!(media_type, "image/heif" | "image/avif" | "image/tiff")
        || ImageFormat::ALL
            .iter()
            .any(|f| f.format().media_type == media_type)
}

impl Look {
    /// What it is, in words, with an article.
    pub(crate) fn phrase(self) -> String {
        match self {
            Self::Picture(format) => format.phrase().to_owned(),
            Self::Html => "an HTML page".to_owned(),
            Self::Xml => "an XML document".to_owned(),
            Self::Text => "plain text".to_owned(),
            Self::Bytes | Self::Undecided => "of no known format".to_owned(),
            Self::Known(known) => known.phrase(),
        }
    }
}

impl Known {
    fn phrase(self) -> String {
        let word = match self.extension {
            "pdf" => "a PDF",
            "zip" => "a ZIP archive",
            "gz" => "gzip-compressed data",
            "zst" => "zstd-compressed data",
            "xz" => "xz-compressed data",
            "bz2" => "bzip2-compressed data",
            "elf" | "exe" | "dll" | "mach" => "a program",
            "msi" => "an OLE compound file",
            other => {
                let group = match self.group {
                    MatcherType::App => "an application file",
                    MatcherType::Archive => "an archive",
                    MatcherType::Audio => "an audio file",
                    MatcherType::Book => "a book",
                    MatcherType::Doc => "a document",
                    MatcherType::Font => "a font",
                    MatcherType::Image => "an image",
                    MatcherType::Text => "a text",
                    MatcherType::Video => "a video",
                    MatcherType::Custom => "a file",
                };
                return format!("{group} ({other})");
            }
        };
        word.to_owned()
    }
}
