//! What is wanted of a rendition, and how large that comes out.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::downloader::Format;
use crate::downloader::image::{Decoder, ImageFormat};
use crate::target::Sha256;

/// Most pixels of a side.
pub const MAX_SIDE: u32 = 4096;

/// The quality of a JPEG, where nothing is said of it.
pub const QUALITY: u8 = 80;

/// Number of the way in which renditions are made. A change to it makes them anew, and changes their ETags.
const REVISION: u32 = 2;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Pixels; at least one of the two is wanted.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// How it fits into them.
    pub fit: Fit,
    /// Whether it may become larger than the original.
    pub enlarge: bool,
    /// `None`: that of the original, or PNG where that is none of these.
    pub format: Option<Output>,
    /// 1 to 100, of a JPEG; `None`: [`QUALITY`].
    pub quality: Option<u8>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it in jobs and URLs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// How a picture fits into a width and a height.
    #[derive(Default)]
    Fit {
        /// All of it, as large as there is room.
        #[default]
        Contain = "contain",
        /// All of the room; what stands out on two sides is cut off.
        Cover = "cover",
        /// All of it in all of the room, whatever that does to its proportions.
        Fill = "fill",
    }
}

words! {
    /// A format that renditions have.
    Output {
        /// Lossy; what is transparent becomes white.
        Jpeg = "jpeg",
        /// Lossless.
        Png = "png",
        /// Lossless.
        Webp = "webp",
    }
}

impl Output {
    /// What files of it are.
    pub const fn format(self) -> Format {
        match self {
            Self::Jpeg => ImageFormat::Jpeg.format(),
            Self::Png => ImageFormat::Png.format(),
            Self::Webp => ImageFormat::Webp.format(),
        }
    }

    /// The format of what is made of an original.
    pub(super) const fn of(original: ImageFormat) -> Self {
        match original {
            ImageFormat::Jpeg => Self::Jpeg,
            ImageFormat::Webp => Self::Webp,
            _ => Self::Png,
        }
    }
}

/// A parameter that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct OutOfRange {
    /// Which one, by the name of its field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Params {
    /// What fits into `width` times `height` pixels, and nothing else said of it.
    pub const fn within(width: u32, height: u32) -> Self {
        Self {
            width: Some(width),
            height: Some(height),
            fit: Fit::Contain,
            enlarge: false,
            format: None,
            quality: None,
        }
    }

    /// Holds them against their limits.
    ///
    /// # Errors
    ///
    /// The first that is out of range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let wrong = |field, problem| Err(OutOfRange { field, problem });
        for (field, side) in [("width", self.width), ("height", self.height)] {
            if side.is_some_and(|side| side == 0 || side > MAX_SIDE) {
                return wrong(field, format!("is not between 1 and {MAX_SIDE} pixels"));
            }
        }
        if self.width.or(self.height).is_none() {
            return wrong("width", "is needed, or the height".to_owned());
        }
        if self
            .quality
            .is_some_and(|quality| quality == 0 || quality > 100)
        {
            return wrong("quality", "is not between 1 and 100".to_owned());
        }
        Ok(())
    }

    /// The same, with nothing left open, for an original of that format.
    pub(super) fn resolved(mut self, original: ImageFormat) -> Self {
        let format = self.format.unwrap_or(Output::of(original));
        self.format = Some(format);
        // A vector image has no size beyond which it loses by being larger.
        self.enlarge |= Decoder::draws(original);
        self.quality = (format == Output::Jpeg).then(|| self.quality.unwrap_or(QUALITY));
        // With one of the two, `cover` has nothing to cut off.
        if self.fit == Fit::Cover && (self.width.is_none() || self.height.is_none()) {
            self.fit = Fit::Contain;
        }
        self
    }

    /// What tells renditions of one original from one another: `256x-contain-jpeg-80-v2`.
    pub(super) fn key(&self) -> String {
        let side = |side: Option<u32>| side.map(|side| side.to_string()).unwrap_or_default();
        let mut key = format!("{}x{}", side(self.width), side(self.height));
        let format = self.format.map(Output::as_str);
        for word in [Some(self.fit.as_str()), format].into_iter().flatten() {
            key.push('-');
            key.push_str(word);
        }
        if let Some(quality) = self.quality {
            let _ = write!(key, "-{quality}");
        }
        if self.enlarge {
            key.push_str("-enlarge");
        }
        let _ = write!(key, "-v{REVISION}");
        key
    }

    pub(super) fn file_name(&self, sha256: Sha256) -> String {
        let format = self.format.unwrap_or(Output::Png).format();
        let extension = format.extensions.first().copied().unwrap_or("bin");
        format!("{sha256}-{}.{extension}", self.key())
    }

    /// What stands behind the `?` of a URL that asks for the same.
    pub(super) fn query(&self) -> String {
        let number = |number: u32| number.to_string();
        let pairs = [
            ("w", self.width.map(number)),
            ("h", self.height.map(number)),
            ("fit", Some(self.fit.as_str().to_owned())),
            ("format", self.format.map(|f| f.as_str().to_owned())),
            ("quality", self.quality.map(|q| q.to_string())),
            ("enlarge", self.enlarge.then(|| "true".to_owned())),
        ];
        let pairs = pairs.into_iter();
        let pairs = pairs.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// What is made of an original of that width and height, as it stands upright.
    pub(super) fn plan(&self, original: (u32, u32)) -> Plan {
        let (width, height) = original;
        let (w, h) = (f64::from(width), f64::from(height));
        let most = |side: Option<u32>| side.map_or(f64::from(MAX_SIDE), f64::from);
        match self.fit {
            Fit::Contain => {
                let scale = if self.enlarge {
                    (most(self.width) / w).min(most(self.height) / h)
                } else {
                    let scale = |side: Option<u32>, of| side.map_or(1.0, |s| f64::from(s) / of);
                    scale(self.width, w).min(scale(self.height, h)).min(1.0)
                };
                Plan {
                    taken: (w, h),
                    size: (rounded(w * scale), rounded(h * scale)),
                }
            }
            Fit::Cover => {
                let (room_w, room_h) = (most(self.width), most(self.height));
                let shrunk = match self.enlarge {
                    true => 1.0,
                    false => (w / room_w).min(h / room_h).min(1.0),
                };
                // The largest part of the original that has the proportions of the room.
                let part = (w / room_w).min(h / room_h);
                Plan {
                    taken: (room_w * part, room_h * part),
                    size: (rounded(room_w * shrunk), rounded(room_h * shrunk)),
                }
            }
            Fit::Fill => {
                let side = |wanted: Option<u32>, original: u32| match wanted {
                    Some(wanted) if self.enlarge => wanted,
                    Some(wanted) => wanted.min(original),
                    None => original,
                };
                Plan {
                    taken: (w, h),
                    size: (side(self.width, width), side(self.height, height)),
                }
            }
        }
    }
}

/// How a picture becomes another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// Width and height, in pixels of the original, of the part in its middle that is taken.
    pub(super) taken: (f64, f64),
    /// Width and height of the result in pixels.
    pub(super) size: (u32, u32),
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a side of a picture"
)]
fn rounded(side: f64) -> u32 {
    (side.round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(fit: Fit, enlarge: bool, wanted: (u32, u32), original: (u32, u32)) -> Plan {
        let side = |side| (side > 0).then_some(side);
        let params = Params {
            width: side(wanted.0),
            height: side(wanted.1),
            fit,
            enlarge,
            format: None,
            quality: None,
        };
        params.resolved(ImageFormat::Png).plan(original)
    }

    #[test]
    fn a_picture_fits_into_the_room_as_it_is_asked_to() {
        let whole = (400.0, 200.0);
        for (fit, enlarge, wanted, taken, size) in [
            (Fit::Contain, false, (100, 100), whole, (100, 50)),
            (Fit::Contain, false, (100, 0), whole, (100, 50)),
            (Fit::Contain, false, (0, 100), whole, (200, 100)),
            (Fit::Contain, false, (1000, 1000), whole, (400, 200)),
            (Fit::Contain, true, (1000, 1000), whole, (1000, 500)),
            (Fit::Contain, true, (0, 4000), whole, (4096, 2048)),
            (Fit::Contain, false, (1, 1), whole, (1, 1)),
            (Fit::Cover, false, (100, 100), (200.0, 200.0), (100, 100)),
            (Fit::Cover, false, (100, 0), whole, (100, 50)),
            // As much as there is, in the proportions that are wanted.
            (Fit::Cover, false, (400, 400), (200.0, 200.0), (200, 200)),
            (Fit::Cover, true, (400, 400), (200.0, 200.0), (400, 400)),
            (Fit::Fill, false, (100, 100), whole, (100, 100)),
            (Fit::Fill, false, (1000, 100), whole, (400, 100)),
            (Fit::Fill, true, (1000, 0), whole, (1000, 200)),
        ] {
            let plan = plan(fit, enlarge, wanted, (400, 200));
            let expected = Plan { taken, size };
            assert_eq!(plan, expected, "{fit:?} {enlarge} {wanted:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_comes_out_empty_or_larger_than_it_may(
            fit in 0..3_usize,
            enlarge: bool,
            wanted in (0..=MAX_SIDE, 1..=MAX_SIDE),
            original in (1..70_000_u32, 1..70_000_u32),
        ) {
            let plan = plan(Fit::ALL[fit], enlarge, wanted, original);
            let (taken, size) = (plan.taken, plan.size);
            assert!(size.0 > 0 && size.1 > 0);
            assert!(taken.0 > 0.0 && taken.0 <= f64::from(original.0) + 0.001);
            assert!(taken.1 > 0.0 && taken.1 <= f64::from(original.1) + 0.001);
            if enlarge {
                assert!(size.0 <= MAX_SIDE.max(original.0) && size.1 <= MAX_SIDE.max(original.1));
            } else {
                assert!(size.0 <= original.0 && size.1 <= original.1);
            }
        }
    }

    #[test]
    fn what_comes_out_alike_has_one_name() {
        let mut params = Params::within(64, 64);
        params.quality = Some(50);
        assert_eq!(
            params.resolved(ImageFormat::Gif).key(),
            "64x64-contain-png-v2"
        );
        let jpeg = params.resolved(ImageFormat::Jpeg);
        assert_eq!(jpeg.key(), "64x64-contain-jpeg-50-v2");
        assert_eq!(jpeg.query(), "w=64&h=64&fit=contain&format=jpeg&quality=50");
        params.height = None;
        params.fit = Fit::Cover;
        params.enlarge = true;
        let webp = params.resolved(ImageFormat::Webp);
        assert_eq!(webp.key(), "64x-contain-webp-enlarge-v2");
        assert_eq!(webp.query(), "w=64&fit=contain&format=webp&enlarge=true");
    }

    #[test]
    fn limits_name_their_parameter() {
        let params = Params::within(64, 64);
        assert_eq!(params.check(), Ok(()));
        for (params, field) in [
            (
                Params {
                    width: Some(0),
                    ..params
                },
                "width",
            ),
            (
                Params {
                    height: Some(MAX_SIDE + 1),
                    ..params
                },
                "height",
            ),
            (
                Params {
                    width: None,
                    height: None,
                    ..params
                },
                "width",
            ),
            (
                Params {
                    quality: Some(0),
                    ..params
                },
                "quality",
            ),
            (
                Params {
                    quality: Some(101),
                    ..params
                },
                "quality",
            ),
        ] {
            assert_eq!(params.check().unwrap_err().field, field);
        }
    }
}
