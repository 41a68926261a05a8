//! Pictures: the kind `image`.
//!
//! [`Image`] accepts the formats that its [`Settings`] list. A file beside this one knows one format, or a
//! few related ones: how it begins, and what the whole file must hold to be whole. `decode` goes through
//! every pixel where there is a decoder.

mod bmp;
mod child;
mod color;
mod criteria;
mod decode;
mod foreign;
mod format;
mod gif;
mod ico;
mod isobmff;
mod jp2;
mod jpeg;
mod jxl;
mod limits;
mod memory;
mod metadata;
mod pixels;
mod png;
mod psd;
mod rgb;
mod settings;
mod svg;
#[cfg(test)]
mod tests;
mod tiff;
mod tiff_pixels;
mod webp;

use std::borrow::Cow;

use super::sniff::{self, Look};
use super::window::{Window, corrupt};
use super::{Body, Downloader, Facts, Format, HEAD_BYTES, Hints, Kept, Rejection, Verdict};
use crate::target::Reason;

pub use child::answer as answer_parent;
#[cfg(test)]
pub(crate) use color::profiles;
pub(crate) use color::{Color, Converted, to_srgb};
use criteria::Criteria;
use decode::Decoded;
pub use format::ImageFormat;
pub(crate) use limits::Limits;
use memory::Memory;
pub(crate) use pixels::{Decoder, Pixels};
pub use settings::{Check, Settings, Undecoded};
pub(crate) use svg::unpack_head;

/// What a format's own check finds out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picture {
    dimensions: Option<(u32, u32)>,
    active: bool,
}

impl Picture {
    /// A picture that cannot run code.
    const fn still(dimensions: (u32, u32)) -> Self {
        Self {
            dimensions: Some(dimensions),
            active: false,
        }
    }
}

/// Matchers for the first bytes, the frequent and cheap ones first.
pub(crate) fn sniffers() -> &'static [(ImageFormat, infer::Matcher)] {
    &[
        (ImageFormat::Jpeg, infer::image::is_jpeg),
        (ImageFormat::Png, |head| head.starts_with(png::SIGNATURE)),
        (ImageFormat::Gif, gif::matches),
        (ImageFormat::Webp, webp::matches),
        (ImageFormat::Bmp, bmp::matches),
        (ImageFormat::Tiff, tiff::matches),
        (ImageFormat::Ico, |head| ico::matches(head, 1)),
        (ImageFormat::Cur, |head| ico::matches(head, 2)),
        (ImageFormat::Rgb, rgb::matches),
        (ImageFormat::Psd, psd::matches),
        (ImageFormat::Avif, |head| {
            isobmff::brand(head) == Some(ImageFormat::Avif)
        }),
        (ImageFormat::Heic, |head| {
            isobmff::brand(head) == Some(ImageFormat::Heic)
        }),
        (ImageFormat::Jxl, jxl::matches),
        (ImageFormat::Jp2, jp2::matches),
    ]
}

/// Downloads pictures.
#[derive(Debug)]
pub struct Image {
    settings: Settings,
    limits: Limits,
    /// For `decode`.
    memory: Memory,
    accept: String,
    criteria: String,
}

impl Image {
    /// A downloader for the formats and within the limits that `settings` give.
    pub fn new(settings: &Settings) -> Self {
        let mut accept = String::new();
        for format in &settings.formats {
            let media_type = format.format().media_type;
            if !accept.contains(media_type) {
                accept.push_str(media_type);
                accept.push(',');
            }
        }
        // Some servers answer 406 to a header that leaves everything else out.
        accept.push_str("*/*;q=0.1");
        Self {
            limits: Limits::new(settings),
            memory: Memory::new(settings.decode_memory.as_u64()),
            settings: settings.clone(),
            accept,
            criteria: Criteria::of(settings).to_string(),
        }
    }

    fn accepts(&self, format: ImageFormat) -> Verdict {
        if self.settings.formats.contains(&format) {
            return Verdict::Accept(format.format());
        }
        wrong_kind(format!(
            "the body is {}; add \"{format}\" to `image.formats` to accept it",
            format.phrase()
        ))
    }

    /// Decodes the picture. Returns why it could not, if it is kept all the same.
    fn undecoded(
        &self,
        body: &Body,
        format: ImageFormat,
        picture: &Picture,
    ) -> Result<Option<Cow<'static, str>>, Rejection> {
        let size = picture.dimensions.unwrap_or_default();
        let decoded = decode::decode(body, format, size, &self.limits, &self.memory)?;
        match (decoded, self.settings.undecoded) {
            (Decoded::Whole, _) => Ok(None),
            (Decoded::Undecoded(why), Undecoded::Keep) => Ok(Some(why)),
            (Decoded::Undecoded(why), Undecoded::Reject) => Err(Rejection::new(
                Reason::Undecoded,
                format!("{why}, and `image.undecoded` is \"reject\""),
            )),
        }
    }

    fn check_length(&self, body: &Body) -> Result<(), Rejection> {
        let len = body.len();
        let (min, max) = (
            self.settings.min_bytes.as_u64(),
            self.settings.max_bytes.as_u64(),
        );
        if len == 0 {
            return Err(Rejection::new(Reason::Empty, "the body has no bytes"));
        }
        if len < min {
            return Err(corrupt(format!(
                "has {len} bytes, fewer than `image.min_bytes` ({min})"
            )));
        }
        if len > max {
            return Err(Rejection::new(
                Reason::TooLarge,
                format!("has {len} bytes, more than `image.max_bytes` ({max})"),
            ));
        }
        Ok(())
    }

    fn check_structure(
        &self,
        window: &mut Window<'_>,
        format: ImageFormat,
    ) -> Result<Picture, Rejection> {
        let limits = &self.limits;
        match format {
            ImageFormat::Bmp => bmp::inspect(window, limits),
            ImageFormat::Gif => gif::inspect(window, limits),
            ImageFormat::Jpeg => jpeg::inspect(window, limits, &self.memory),
            ImageFormat::Svg => svg::inspect(window),
            ImageFormat::Svgz => svg::inspect_packed(window, self.settings.max_bytes.as_u64()),
            ImageFormat::Tiff => tiff::inspect(window, limits),
            ImageFormat::Ico | ImageFormat::Cur => ico::inspect(window, limits),
            ImageFormat::Rgb => rgb::inspect(window, limits),
            ImageFormat::Png => png::inspect(window, limits, self.settings.check == Check::Decode),
            ImageFormat::Webp => webp::inspect(window, limits),
            ImageFormat::Avif | ImageFormat::Heic => isobmff::inspect(window, limits),
            ImageFormat::Jxl => jxl::inspect(window, limits),
            ImageFormat::Jp2 => jp2::inspect(window, limits),
            ImageFormat::Psd => psd::inspect(window, limits),
        }
    }
}

impl Downloader for Image {
    fn kind(&self) -> &str {
        "image"
    }

    fn accept(&self) -> &str {
        &self.accept
    }

    fn sniff(&self, head: &[u8], hints: &Hints<'_>) -> Verdict {
        if head.is_empty() && hints.complete {
            return Verdict::Reject(Rejection::new(Reason::Empty, "the body has no bytes"));
        }
        // A full head is not all of a longer body, whatever the caller says of it.
        match sniff::look(head, hints.complete && head.len() < HEAD_BYTES) {
            Look::Picture(format) => self.accepts(format),
            Look::Undecided if head.len() < HEAD_BYTES => Verdict::More,
            // A comment, an instruction or a document type longer than the head. `inspect` finds the root element.
            Look::Undecided if self.settings.check != Check::Sniff || suggests_svg(hints) => {
                self.accepts(ImageFormat::Svg)
            }
            look @ (Look::Bytes | Look::Undecided) => {
                wrong_kind(format!("the body is {}, not an image", look.phrase()))
            }
            look => wrong_kind(format!(
                "the body looks like {}, not an image",
                look.phrase()
            )),
        }
    }

    fn inspect_prefix(
        &self,
        prefix: &Body,
        format: Format,
        length: Option<u64>,
    ) -> Result<(), Rejection> {
        let Some(known) = ImageFormat::named(format.name) else {
            return Ok(());
        };
        if self.settings.check == Check::Sniff {
            return Ok(());
        }
        let window = &mut Window::prefix(prefix, length);
        match self.check_structure(window, known) {
            Err(rejection) if !window.is_short() && rejection.reason != Reason::StoreError => {
                Err(name_format(rejection, known))
            }
            _ => Ok(()),
        }
    }

    fn inspect(&self, body: &Body, format: Format) -> Result<Facts, Rejection> {
        self.check_length(body)?;
        let window = &mut Window::new(body);
        let known = ImageFormat::named(format.name).ok_or_else(|| {
            Rejection::new(
                Reason::WrongKind,
                format!("`{}` is no image format", format.name),
            )
        })?;
        if self.settings.check == Check::Sniff {
            return Ok(Facts::of(format));
        }
        let picture = self
            .check_structure(window, known)
            .map_err(|r| name_format(r, known))?;
        let undecoded = match self.settings.check {
            Check::Sniff | Check::Header => None,
            Check::Decode => self
                .undecoded(body, known, &picture)
                .map_err(|r| name_format(r, known))?,
        };
        let orientation = metadata::orientation(window, known);
        Ok(Facts {
            dimensions: picture
                .dimensions
                .map(|size| metadata::shown(size, orientation)),
            active: picture.active,
            orientation: orientation.filter(|orientation| *orientation > 1),
            undecoded: undecoded.map(|why| of_format(&why, known)),
            ..Facts::of(format)
        })
    }

    fn criteria(&self) -> &str {
        &self.criteria
    }

    fn accepts_kept(&self, kept: &Kept<'_>) -> Option<bool> {
        let format = ImageFormat::named(kept.format)?;
        let lengths = self.settings.min_bytes.as_u64()..=self.settings.max_bytes.as_u64();
        if !self.settings.formats.contains(&format) || !lengths.contains(&kept.bytes) {
            return Some(false);
        }
        let passed = match kept.criteria {
            Some(criteria) => Criteria::parse(criteria)?,
            // Recorded by an earlier version, which stored dimensions only after the header check.
            None => Criteria::measured(kept.dimensions?),
        };
        passed
            .suffices(&Criteria::of(&self.settings))
            .then_some(true)
    }

    fn is_heavy(&self) -> bool {
        self.settings.check == Check::Decode
    }

    fn max_bytes(&self) -> Option<u64> {
        Some(self.settings.max_bytes.as_u64())
    }
}

fn suggests_svg(hints: &Hints<'_>) -> bool {
    hints.media_type == Some("image/svg+xml")
        || hints
            .name
            .is_some_and(|name| name.to_ascii_lowercase().ends_with(".svg"))
}

fn wrong_kind(detail: String) -> Verdict {
    Verdict::Reject(Rejection::new(Reason::WrongKind, detail))
}

/// Puts the format before what was found: "the JPEG image is truncated".
fn name_format(mut rejection: Rejection, format: ImageFormat) -> Rejection {
    if rejection.reason != Reason::StoreError {
        rejection.detail = of_format(&rejection.detail, format);
    }
    rejection
}

fn of_format(found: &str, format: ImageFormat) -> String {
    let (_, name) = format
        .phrase()
        .split_once(' ')
        .expect("a phrase has an article");
    format!("the {name} {found}")
}
