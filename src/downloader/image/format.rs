//! The formats of pictures.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::downloader::Format;

macro_rules! formats {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $(| $alias:literal)*, $media_type:literal, $extensions:expr, $phrase:literal;)*) => {
        /// A format that `image` knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ImageFormat {
            $($(#[$doc])* #[serde(rename = $name $(, alias = $alias)*)] $variant,)*
        }

        impl ImageFormat {
            /// Every format.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name, media type and extensions.
            pub const fn format(self) -> Format {
                match self {
                    $(Self::$variant => Format {
                        name: $name,
                        media_type: $media_type,
                        extensions: &$extensions,
                    },)*
                }
            }

            /// What a body of this format is, in words.
            pub(crate) const fn phrase(self) -> &'static str {
                match self { $(Self::$variant => $phrase,)* }
            }
        }
    };
}

formats! {
    /// Windows and OS/2 bitmap.
    Bmp = "bmp", "image/bmp", ["bmp", "dib"], "a BMP image";
    /// GIF87a and GIF89a.
    Gif = "gif", "image/gif", ["gif"], "a GIF image";
    /// JPEG (ITU-T T.81), JFIF, Exif, MPO.
    Jpeg = "jpeg" | "jpg", "image/jpeg", ["jpg", "jpeg", "jpe", "jfif", "mpo"], "a JPEG image";
    /// Scalable Vector Graphics.
    Svg = "svg", "image/svg+xml", ["svg"], "an SVG image";
    /// Scalable Vector Graphics inside gzip.
    Svgz = "svgz", "image/svg+xml", ["svgz"], "an SVGZ image";
    /// TIFF 6.0 and BigTIFF.
    Tiff = "tiff" | "tif", "image/tiff", ["tif", "tiff"], "a TIFF image";
    /// Windows icon.
    Ico = "ico", "image/vnd.microsoft.icon", ["ico"], "a Windows icon";
    /// SGI image file.
    Rgb = "rgb" | "sgi", "image/x-rgb", ["rgb", "sgi", "rgba", "bw", "int", "inta"], "an SGI image";
    /// Portable Network Graphics.
    Png = "png", "image/png", ["png", "apng"], "a PNG image";
    /// WebP (RFC 9649).
    Webp = "webp", "image/webp", ["webp"], "a WebP image";
    /// AV1 image file.
    Avif = "avif", "image/avif", ["avif", "avifs"], "an AVIF image";
    /// High efficiency image file with HEVC.
    Heic = "heic" | "heif", "image/heic", ["heic", "heif", "heics", "heifs", "hif"], "a HEIC image";
    /// JPEG XL.
    Jxl = "jxl", "image/jxl", ["jxl"], "a JPEG XL image";
    /// JPEG 2000, in its container or bare.
    Jp2 = "jp2", "image/jp2", ["jp2", "jpf", "jpx", "j2k", "j2c", "jpc"], "a JPEG 2000 image";
    /// Adobe Photoshop.
    Psd = "psd", "image/vnd.adobe.photoshop", ["psd", "psb"], "a Photoshop image";
    /// Windows cursor.
    Cur = "cur", "image/x-win-bitmap", ["cur"], "a Windows cursor";
}

impl ImageFormat {
    /// gannet's word for it, such as `jpeg`.
    pub const fn name(self) -> &'static str {
        self.format().name
    }

    /// The format of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|f| f.name() == name)
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
