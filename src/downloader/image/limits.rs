//! How large a picture may be.

use super::Settings;
use crate::downloader::Rejection;
use crate::downloader::window::corrupt;
use crate::target::Reason;

/// Limits that are held against a picture's size before anything else is done with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    max_pixels: u64,
    max_side: u32,
}

impl Limits {
    pub(super) const fn new(settings: &Settings) -> Self {
        Self {
            max_pixels: settings.max_pixels.get(),
            max_side: settings.max_side.get(),
        }
    }

    /// Most pixels of one picture.
    pub(super) const fn max_pixels(&self) -> u64 {
        self.max_pixels
    }

    /// The size, if it is allowed.
    pub(super) fn admit(&self, width: u32, height: u32) -> Result<(u32, u32), Rejection> {
        if width == 0 || height == 0 {
            return Err(corrupt(format!("states a size of {width}×{height} pixels")));
        }
        self.admit_frame(width, height)?;
        Ok((width, height))
    }

    /// Holds the limits against one frame of several, which may be empty.
    pub(super) fn admit_frame(&self, width: u32, height: u32) -> Result<(), Rejection> {
        let pixels = u64::from(width) * u64::from(height);
        let limit = if width.max(height) > self.max_side {
            format!("`image.max_side` ({})", self.max_side)
        } else if pixels > self.max_pixels {
            format!("`image.max_pixels` ({})", self.max_pixels)
        } else {
            return Ok(());
        };
        Err(Rejection::new(
            Reason::TooManyPixels,
            format!("is {width}×{height} pixels large, more than {limit} allows"),
        ))
    }
}
