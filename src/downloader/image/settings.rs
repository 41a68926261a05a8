//! The section `[image]`.

use std::num::{NonZeroU32, NonZeroU64};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de};

use super::ImageFormat;

/// `[image]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Formats that are accepted.
    #[serde(deserialize_with = "some")]
    pub formats: Vec<ImageFormat>,
    /// How closely a picture is looked at.
    pub check: Check,
    /// What becomes of a picture that nothing decodes, where `check` is to decode it.
    pub undecoded: Undecoded,
    /// Most pixels of a picture.
    pub max_pixels: NonZeroU64,
    /// Longest side of a picture in pixels.
    pub max_side: NonZeroU32,
    /// Memory for decoding, over all pictures that are decoded at a time.
    pub decode_memory: ByteSize,
    /// Smallest file of a picture.
    pub min_bytes: ByteSize,
    /// Largest file of a picture.
    pub max_bytes: ByteSize,
}

/// How closely a picture is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Its first bytes only.
    Sniff,
    /// Format, dimensions, and the structure that shows truncation.
    Header,
    /// Every pixel.
    Decode,
}

impl Check {
    /// All checks, loosest first.
    pub const ALL: [Self; 3] = [Self::Sniff, Self::Header, Self::Decode];

    /// The word for it in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sniff => "sniff",
            Self::Header => "header",
            Self::Decode => "decode",
        }
    }
}

/// What becomes of a picture that nothing decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Undecoded {
    /// It is kept for its structure.
    Keep,
    /// It is rejected.
    Reject,
}

impl Undecoded {
    /// Both, the looser one first.
    pub const ALL: [Self; 2] = [Self::Keep, Self::Reject];

    /// The word for it in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Reject => "reject",
        }
    }
}

/// A list of formats that is not empty: no picture would ever be accepted.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ImageFormat>, D::Error> {
    let formats = Vec::<ImageFormat>::deserialize(deserializer)?;
    if formats.is_empty() {
        return Err(de::Error::invalid_length(0, &"at least one format"));
    }
    Ok(formats)
}
