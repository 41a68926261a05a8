//! Random access to a body: in memory without copying, in a file through one small buffer.
//!
//! The body may be the beginning of a longer one ([`Window::prefix`]). The checks are the same. They assume that
//! bytes after the beginning are present; a check that has to read such bytes marks the window as short, and its
//! result is ignored.

use std::io;

use super::{Body, Rejection};
use crate::target::Reason;

/// Most bytes that one look may ask for.
pub(crate) const MAX_LOOK: usize = 64 * 1024;

/// Bytes that are read from a file at a time, so that a walk over small pieces costs few reads.
const READ_AHEAD: usize = 16 * 1024;

/// A body under examination.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    body: &'a Body,
    memory: Option<&'a [u8]>,
    /// Number of bytes that can be read.
    available: u64,
    /// Length of the whole body, or a huge number if it is unknown.
    len: u64,
    /// Set if a read went past the available bytes, but not past the end of the body.
    is_short: bool,
    /// Bytes of a file from offset `start` on; stays empty for bodies in memory.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(body: &'a Body) -> Self {
        Self {
            body,
            memory: body.as_slice(),
            available: body.len(),
            len: body.len(),
            is_short: false,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Returns a window on the beginning of a body. `length` is the length of the whole, if known.
    pub(crate) fn prefix(beginning: &'a Body, length: Option<u64>) -> Self {
        // Leaves room for additions without overflow.
        const UNKNOWN: u64 = u64::MAX >> 2;
        let window = Self::new(beginning);
        Self {
            len: length.unwrap_or(UNKNOWN).max(window.available),
            ..window
        }
    }

    /// Returns the length of the whole body.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns `true` if only the beginning of the body is available.
    pub(crate) fn is_prefix(&self) -> bool {
        self.available < self.len
    }

    /// Returns `true` if a check needed bytes that have not arrived. Its result is not final.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }

    /// The body itself.
    pub(crate) fn body(&self) -> &'a Body {
        self.body
    }

    /// Exactly `n` bytes from `offset`, at most [`MAX_LOOK`] of them.
    ///
    /// # Errors
    ///
    /// When the body ends before: it is truncated.
    #[inline]
    pub(crate) fn bytes(&mut self, offset: u64, n: usize) -> Result<&[u8], Rejection> {
        let len = self.len;
        let found = self.up_to(offset, n)?;
        if found.len() < n {
            return Err(ends_early(offset.saturating_add(n as u64), len));
        }
        Ok(found)
    }

    /// Up to `n` bytes from `offset`, at most [`MAX_LOOK`] of them; fewer only where the body ends.
    #[inline]
    pub(crate) fn up_to(&mut self, offset: u64, n: usize) -> Result<&[u8], Rejection> {
        debug_assert!(n <= MAX_LOOK, "a look is bounded");
        if self.is_prefix() {
            let end = offset.saturating_add(n as u64).min(self.len);
            self.is_short |= end > self.available.max(offset);
        }
        match self.memory {
            Some(bytes) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |o| o.min(bytes.len()));
                let rest = &bytes[start..];
                Ok(&rest[..n.min(rest.len())])
            }
            None => self.read(offset, n),
        }
    }

    fn read(&mut self, offset: u64, n: usize) -> Result<&[u8], Rejection> {
        let rest = self.available.saturating_sub(offset);
        let n = usize::try_from(rest).map_or(n, |rest| rest.min(n));
        let held = self.start..self.start + self.buffer.len() as u64;
        if n > 0 && (offset < held.start || offset + n as u64 > held.end) {
            self.buffer.resize(n.max(READ_AHEAD), 0);
            let got = self.body.read_at(&mut self.buffer, offset);
            self.buffer.truncate(*got.as_ref().unwrap_or(&0));
            self.start = offset;
            got.map_err(|error| unreadable(&error))?;
        }
        if n == 0 {
            return Ok(&[]);
        }
        let from = (offset - self.start) as usize;
        let to = (from + n).min(self.buffer.len());
        Ok(&self.buffer[from.min(to)..to])
    }

    /// One byte.
    #[inline]
    pub(crate) fn u8(&mut self, offset: u64) -> Result<u8, Rejection> {
        Ok(self.bytes(offset, 1)?[0])
    }

    /// `N` bytes as an array.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], Rejection> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(offset, N)?);
        Ok(array)
    }

    /// A big-endian number of two bytes.
    #[inline]
    pub(crate) fn be16(&mut self, offset: u64) -> Result<u16, Rejection> {
        Ok(u16::from_be_bytes(self.array(offset)?))
    }

    /// A big-endian number of four bytes.
    #[inline]
    pub(crate) fn be32(&mut self, offset: u64) -> Result<u32, Rejection> {
        Ok(u32::from_be_bytes(self.array(offset)?))
    }

    /// A big-endian number of eight bytes.
    #[inline]
    pub(crate) fn be64(&mut self, offset: u64) -> Result<u64, Rejection> {
        Ok(u64::from_be_bytes(self.array(offset)?))
    }

    /// A little-endian number of two bytes.
    #[inline]
    pub(crate) fn le16(&mut self, offset: u64) -> Result<u16, Rejection> {
        Ok(u16::from_le_bytes(self.array(offset)?))
    }

    /// A little-endian number of four bytes.
    #[inline]
    pub(crate) fn le32(&mut self, offset: u64) -> Result<u32, Rejection> {
        Ok(u32::from_le_bytes(self.array(offset)?))
    }

    /// Checks that the `n` bytes from `offset` are inside the body. Does not read them, so they need not have
    /// arrived.
    #[inline]
    pub(crate) fn require(&self, offset: u64, n: u64) -> Result<(), Rejection> {
        match offset.checked_add(n) {
            Some(end) if end <= self.len => Ok(()),
            end => Err(ends_early(end.unwrap_or(u64::MAX), self.len)),
        }
    }

    /// Where `needle` stands last at or after `from`.
    pub(crate) fn rfind(&mut self, from: u64, needle: &[u8]) -> Result<Option<u64>, Rejection> {
        if self.is_prefix() {
            self.is_short = true;
            return Ok(None);
        }
        let mut end = self.len;
        while end.saturating_sub(from) >= needle.len() as u64 {
            let start = end.saturating_sub(READ_AHEAD as u64).max(from);
            let piece = self.up_to(start, (end - start) as usize)?;
            if let Some(at) = memchr::memmem::rfind(piece, needle) {
                return Ok(Some(start + at as u64));
            }
            if start == from {
                break;
            }
            // Pieces overlap, so that a needle across their border is found.
            end = start + needle.len() as u64 - 1;
        }
        Ok(None)
    }
}

/// A rejection of damaged bytes.
#[cold]
pub(crate) fn corrupt(detail: impl Into<String>) -> Rejection {
    Rejection::new(Reason::Corrupt, detail)
}

/// A rejection of a body that cannot be read.
#[cold]
pub(crate) fn unreadable(error: &io::Error) -> Rejection {
    Rejection::new(
        Reason::StoreError,
        format!("cannot read the downloaded body: {error}"),
    )
}

#[cold]
fn ends_early(needed: u64, len: u64) -> Rejection {
    corrupt(format!(
        "ends after {len} bytes where its structure needs {needed}"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn memory_and_file_show_the_same_bytes() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 253) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        for body in [
            Body::Memory(bytes.clone().into()),
            Body::File(Arc::new(file), bytes.len() as u64),
        ] {
            let mut window = Window::new(&body);
            for (offset, n) in [(0, 10), (99_990, 10), (50_000, 64 * 1024 - 16_000), (7, 1)] {
                assert_eq!(
                    window.bytes(offset, n).unwrap(),
                    &bytes[offset as usize..offset as usize + n]
                );
            }
            assert_eq!(window.up_to(99_999, 5).unwrap(), &bytes[99_999..]);
            assert!(window.up_to(u64::MAX, 5).unwrap().is_empty());
            assert!(window.bytes(99_999, 2).is_err());
            assert!(window.require(u64::MAX, 2).is_err());
            let last = bytes.windows(3).rposition(|w| w == [251, 252, 0]);
            assert_eq!(
                window.rfind(0, &[251, 252, 0]).unwrap(),
                last.map(|at| at as u64)
            );
            assert_eq!(window.rfind(3, &[9, 9]).unwrap(), None);
        }
    }

    #[test]
    fn a_look_past_a_prefix_is_noted_and_one_past_the_end_is_not() {
        let body = Body::Memory(vec![7; 10].into());
        type Look = fn(&mut Window<'_>) -> bool;
        let cases: [(Look, Option<u64>, bool, bool); 13] = [
            (|w| w.bytes(0, 10).is_ok(), Some(20), true, false),
            (|w| w.bytes(8, 3).is_ok(), Some(20), false, true),
            (|w| w.bytes(15, 1).is_ok(), Some(20), false, true),
            (|w| w.bytes(20, 1).is_ok(), Some(20), false, false),
            (|w| w.bytes(u64::MAX, 1).is_ok(), Some(20), false, false),
            (|w| w.bytes(20, 1).is_ok(), None, false, true),
            (|w| w.up_to(8, 5).is_ok(), Some(20), true, true),
            (|w| w.up_to(8, 5).is_ok(), Some(10), true, false),
            (|w| w.require(15, 5).is_ok(), Some(20), true, false),
            (|w| w.require(15, 6).is_ok(), Some(20), false, false),
            (|w| w.require(15, 1 << 40).is_ok(), None, true, false),
            (|w| w.rfind(0, &[7]).is_ok(), Some(20), true, true),
            (|w| w.rfind(0, &[7]).is_ok(), Some(10), true, false),
        ];
        for (n, (look, length, is_ok, is_short)) in cases.into_iter().enumerate() {
            let mut window = Window::prefix(&body, length);
            assert_eq!(
                (look(&mut window), window.is_short()),
                (is_ok, is_short),
                "case {n}"
            );
        }
    }

    #[test]
    fn a_needle_across_the_border_of_two_pieces_is_found() {
        let mut bytes = vec![0; 3 * READ_AHEAD];
        let at = bytes.len() - READ_AHEAD - 1;
        bytes[at..at + 2].copy_from_slice(b"XY");
        let body = Body::Memory(bytes.into());
        assert_eq!(Window::new(&body).rfind(0, b"XY").unwrap(), Some(at as u64));
    }
}
