//! TIFF 6.0 (Adobe 1992) and BigTIFF, both byte orders: directories, and strips or tiles inside the file.

use super::metadata::{self, Part};
use super::{Limits, Picture};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

/// Directories that are followed; a scan of thousands of pages needs no more to show damage.
pub(super) const MAX_DIRECTORIES: usize = 1024;

/// Strips and tiles that are looked at in all directories together: directories may share their lists, so
/// that the length of the file is no bound.
const MAX_PIECES: u64 = 4 * 1024 * 1024;

pub(crate) fn matches(head: &[u8]) -> bool {
    matches!(
        head,
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..]
    ) && head.get(8..11) != Some(b"CR\x02")
}

pub(super) fn inspect(window: &mut Window<'_>, limits: &Limits) -> Result<Picture, Rejection> {
    let (tiff, mut next) = Tiff::open(window)?;
    let mut seen = Vec::new();
    let mut first = None;
    let mut budget = MAX_PIECES;
    while next != 0 && seen.len() < MAX_DIRECTORIES {
        if seen.contains(&next) {
            // Decoders stop where a chain bites its tail; the pictures before are whole.
            break;
        }
        seen.push(next);
        let directory = tiff.directory(window, next)?;
        let dimensions = directory.check(&tiff, window, limits, &mut budget)?;
        first = first.or(dimensions);
        next = directory.next;
    }
    first
        .map(Picture::still)
        .ok_or_else(|| corrupt("holds no picture"))
}

/// How numbers are written.
#[derive(Debug)]
struct Tiff {
    little: bool,
    big: bool,
}

/// An array that a directory entry points to, or holds.
#[derive(Debug, Clone, Copy)]
struct Values {
    /// Bytes of one number.
    width: u8,
    count: u64,
    at: u64,
    /// Whether they are unsigned whole numbers.
    whole: bool,
}

impl Values {
    const fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.width as u64)
    }
}

/// What a directory says of where its picture is.
#[derive(Debug, Default)]
struct Directory {
    width: Option<u64>,
    height: Option<u64>,
    bits: u64,
    samples: u64,
    compression: u64,
    planar: u64,
    offsets: Option<Values>,
    counts: Option<Values>,
    tiled: bool,
    jpeg: Option<u64>,
    next: u64,
}

/// The first directory that describes a picture, entry by entry.
#[derive(Debug)]
pub(super) struct Page {
    tiff: Tiff,
    entries: Vec<(u16, Values)>,
}

impl Page {
    pub(super) fn first(window: &mut Window<'_>) -> Result<Self, Rejection> {
        let (tiff, mut next) = Tiff::open(window)?;
        let mut page = Self {
            tiff,
            entries: Vec::new(),
        };
        for _ in 0..MAX_DIRECTORIES {
            if next == 0 {
                break;
            }
            let entries = &mut page.entries;
            entries.clear();
            next = page.tiff.entries(window, next, |_, tag, values| {
                entries.push((tag, values));
                Ok(())
            })?;
            if page.find(256).is_some() && page.find(257).is_some() {
                return Ok(page);
            }
        }
        Err(corrupt("holds no picture"))
    }

    /// Whether numbers are written with their lowest byte first.
    pub(super) const fn is_little(&self) -> bool {
        self.tiff.little
    }

    /// Width and height in pixels, as they are stored.
    pub(super) fn size(&self, window: &mut Window<'_>) -> Result<(u32, u32), Rejection> {
        let mut side = |tag| {
            let side = self.number(window, tag)?.unwrap_or(0);
            Ok::<_, Rejection>(u32::try_from(side).unwrap_or(u32::MAX))
        };
        Ok((side(256)?, side(257)?))
    }

    fn find(&self, tag: u16) -> Option<Values> {
        let found = self.entries.iter().find(|(known, _)| *known == tag);
        found.map(|(_, values)| *values)
    }

    /// The first number of an entry; `None` without such an entry.
    pub(super) fn number(
        &self,
        window: &mut Window<'_>,
        tag: u16,
    ) -> Result<Option<u64>, Rejection> {
        let found = self.find(tag).filter(|values| values.whole);
        found
            .map(|values| self.tiff.first(window, values))
            .transpose()
    }

    /// The numbers of an entry, at most `most` of them.
    pub(super) fn numbers(
        &self,
        window: &mut Window<'_>,
        tag: u16,
        most: u64,
    ) -> Result<Option<Vec<u64>>, Rejection> {
        let Some(values) = self.find(tag).filter(|values| values.whole) else {
            return Ok(None);
        };
        window.require(values.at, values.bytes())?;
        (0..values.count.min(most))
            .map(|n| self.tiff.value(window, values, n))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The bytes of an entry, at most `most` of them.
    pub(super) fn bytes(
        &self,
        window: &mut Window<'_>,
        tag: u16,
        most: usize,
    ) -> Result<Option<Vec<u8>>, Rejection> {
        let Some(values) = self.find(tag) else {
            return Ok(None);
        };
        let part = Part {
            at: values.at,
            len: values.bytes(),
        };
        metadata::bytes(window, part, most).map(Some)
    }
}

impl Tiff {
    /// How the file writes numbers, and where its first directory is.
    fn open(window: &mut Window<'_>) -> Result<(Self, u64), Rejection> {
        let head = window.array::<4>(0)?;
        let tiff = Self {
            little: head[0] == b'I',
            big: head.contains(&43),
        };
        let next = if tiff.big {
            tiff.u64(window, 8)?
        } else {
            tiff.u32(window, 4)?.into()
        };
        Ok((tiff, next))
    }

    fn u16(&self, window: &mut Window<'_>, at: u64) -> Result<u16, Rejection> {
        if self.little {
            window.le16(at)
        } else {
            window.be16(at)
        }
    }

    fn u32(&self, window: &mut Window<'_>, at: u64) -> Result<u32, Rejection> {
        if self.little {
            window.le32(at)
        } else {
            window.be32(at)
        }
    }

    fn u64(&self, window: &mut Window<'_>, at: u64) -> Result<u64, Rejection> {
        Ok(if self.little {
            u64::from_le_bytes(window.array(at)?)
        } else {
            window.be64(at)?
        })
    }

    fn directory(&self, window: &mut Window<'_>, at: u64) -> Result<Directory, Rejection> {
        let mut found = Directory {
            bits: 1,
            samples: 1,
            compression: 1,
            planar: 1,
            ..Directory::default()
        };
        found.next = self.entries(window, at, |window, tag, values| {
            // Writers put long values at the end of the file, where a cut takes them away.
            window.require(values.at, values.bytes())?;
            if !values.whole {
                return Ok(());
            }
            let mut first = || self.first(window, values);
            match tag {
                256 => found.width = Some(first()?),
                257 => found.height = Some(first()?),
                258 => found.bits = first()?,
                259 => found.compression = first()?,
                277 => found.samples = first()?,
                284 => found.planar = first()?,
                273 | 324 => {
                    found.offsets = Some(values);
                    found.tiled = tag == 324;
                }
                279 | 325 => found.counts = Some(values),
                513 => found.jpeg = Some(first()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Shows `visit` the entries of the directory at `at`. Returns where the next directory is, or 0.
    fn entries<'a>(
        &self,
        window: &mut Window<'a>,
        at: u64,
        mut visit: impl FnMut(&mut Window<'a>, u16, Values) -> Result<(), Rejection>,
    ) -> Result<u64, Rejection> {
        let (count, entries, size) = if self.big {
            (self.u64(window, at)?, at.saturating_add(8), 20)
        } else {
            (self.u16(window, at)?.into(), at.saturating_add(2), 12)
        };
        if count > u64::from(u16::MAX) {
            return Err(corrupt(format!("has a directory of {count} entries")));
        }
        window.require(entries, count * size)?;
        for entry in 0..count {
            let at = entries + entry * size;
            let tag = self.u16(window, at)?;
            if let Some(values) = self.values(window, at)? {
                visit(window, tag, values)?;
            }
        }
        let link = entries + count * size;
        // Some old writers leave the last link out at the end of the file.
        let width = if self.big { 8 } else { 4 };
        if window.up_to(link, width)?.len() < width {
            return Ok(0);
        }
        if self.big {
            self.u64(window, link)
        } else {
            self.u32(window, link).map(u64::from)
        }
    }

    /// The array of the entry at `at`; `None` for an empty one, and for a type that does not exist.
    fn values(&self, window: &mut Window<'_>, at: u64) -> Result<Option<Values>, Rejection> {
        let (width, whole) = match self.u16(window, at + 2)? {
            1 => (1, true),
            3 => (2, true),
            4 | 13 => (4, true),
            16 | 18 => (8, true),
            2 | 6 | 7 => (1, false),
            8 => (2, false),
            9 | 11 => (4, false),
            5 | 10 | 12 | 17 => (8, false),
            _ => return Ok(None),
        };
        let (count, slot, room) = if self.big {
            (self.u64(window, at + 4)?, at + 12, 8)
        } else {
            (self.u32(window, at + 4)?.into(), at + 8, 4)
        };
        if count == 0 {
            return Ok(None);
        }
        let at = match (count.saturating_mul(width.into()) <= room, self.big) {
            (true, _) => slot,
            (false, true) => self.u64(window, slot)?,
            (false, false) => self.u32(window, slot)?.into(),
        };
        Ok(Some(Values {
            width,
            count,
            at,
            whole,
        }))
    }

    fn first(&self, window: &mut Window<'_>, values: Values) -> Result<u64, Rejection> {
        self.value(window, values, 0)
    }

    fn value(&self, window: &mut Window<'_>, values: Values, n: u64) -> Result<u64, Rejection> {
        let at = values.at.saturating_add(n * u64::from(values.width));
        Ok(match values.width {
            1 => window.u8(at)?.into(),
            2 => self.u16(window, at)?.into(),
            4 => self.u32(window, at)?.into(),
            _ => self.u64(window, at)?,
        })
    }
}

impl Directory {
    /// The picture's size; `None` for a directory that holds none.
    fn check(
        &self,
        tiff: &Tiff,
        window: &mut Window<'_>,
        limits: &Limits,
        budget: &mut u64,
    ) -> Result<Option<(u32, u32)>, Rejection> {
        let (Some(width), Some(height)) = (self.width, self.height) else {
            return Ok(None);
        };
        let side = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let dimensions = limits.admit(side(width), side(height))?;
        match (self.offsets, self.counts) {
            (Some(offsets), Some(counts)) => {
                self.check_pieces(tiff, window, offsets, counts, budget)?
            }
            // Without counts, as old writers leave them, every piece has to begin inside at least.
            (Some(offsets), None) => {
                window.require(offsets.at, offsets.bytes())?;
                for n in 0..spend(budget, offsets.count) {
                    let at = tiff.value(window, offsets, n)?;
                    window.require(at, 1)?;
                }
                if let (1, Some(bytes)) = (offsets.count, self.plain_bytes()) {
                    let at = tiff.value(window, offsets, 0)?;
                    window.require(at, bytes)?;
                }
            }
            // Old-style JPEG (section 22) may be found by its own tag alone.
            (None, _) => match self.jpeg {
                Some(at) => window.require(at, 2)?,
                None => return Err(corrupt("has a picture without strips or tiles")),
            },
        }
        Ok(Some(dimensions))
    }

    fn check_pieces(
        &self,
        tiff: &Tiff,
        window: &mut Window<'_>,
        offsets: Values,
        counts: Values,
        budget: &mut u64,
    ) -> Result<(), Rejection> {
        for values in [offsets, counts] {
            // Bounds the walk below by the length of the file.
            window.require(values.at, values.bytes())?;
        }
        if offsets.count == 1 && !self.tiled {
            let (at, bytes) = (
                tiff.value(window, offsets, 0)?,
                tiff.value(window, counts, 0)?,
            );
            // The count of a single plain strip is often wrong; decoders go by the size of the picture.
            return window.require(at, self.plain_bytes().unwrap_or(bytes));
        }
        for n in 0..spend(budget, offsets.count.min(counts.count)) {
            let (at, bytes) = (
                tiff.value(window, offsets, n)?,
                tiff.value(window, counts, n)?,
            );
            // Sparse files leave pieces out with both numbers zero.
            if at != 0 || bytes != 0 {
                window.require(at, bytes)?;
            }
        }
        Ok(())
    }

    /// Bytes of the picture as one uncompressed strip.
    fn plain_bytes(&self) -> Option<u64> {
        if self.compression != 1 || self.planar != 1 || self.tiled {
            return None;
        }
        let row = self
            .width?
            .checked_mul(self.bits)?
            .checked_mul(self.samples)?
            .div_ceil(8);
        row.checked_mul(self.height?)
    }
}

/// As many of `n` pieces as the budget has left.
fn spend(budget: &mut u64, n: u64) -> u64 {
    let n = n.min(*budget);
    *budget -= n;
    n
}
