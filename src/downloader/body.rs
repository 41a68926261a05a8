//! A complete body: in memory when it is small, in a file when it is not.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

/// The bytes that arrived for a target.
#[derive(Debug, Clone)]
pub enum Body {
    /// All of it in memory.
    Memory(Bytes),
    /// A file, and its length in bytes.
    File(Arc<File>, u64),
}

impl Body {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, where they are in memory.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self {
            Self::Memory(bytes) => Some(bytes),
            Self::File(..) => None,
        }
    }

    /// Reads up to `buffer.len()` bytes from `offset`; fewer only at the end of the body.
    ///
    /// # Errors
    ///
    /// Those of reading the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => {
                let rest = bytes
                    .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
                    .unwrap_or_default();
                let n = rest.len().min(buffer.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
            Self::File(file, _) => {
                let mut done = 0;
                while done < buffer.len() {
                    match file.read_at(&mut buffer[done..], offset + done as u64) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(done)
            }
        }
    }

    /// A reader of its own over the whole body, buffered and seekable.
    pub fn reader(&self) -> BodyReader<'_> {
        self.reader_at(0)
    }

    /// The same, with `position` as the place where it begins to read.
    pub(crate) fn reader_at(&self, position: u64) -> BodyReader<'_> {
        BodyReader {
            body: self,
            position,
            buffer: Vec::new(),
            start: 0,
        }
    }
}

/// Reads a [`Body`] from any place; holds at most 64 KiB of it.
#[derive(Debug)]
pub struct BodyReader<'a> {
    body: &'a Body,
    position: u64,
    /// Bytes of a file from offset `start` on; stays empty for bodies in memory.
    buffer: Vec<u8>,
    start: u64,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = self.fill_buf()?;
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for BodyReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        const BUFFER: usize = 64 * 1024;
        if let Self {
            body: Body::Memory(bytes),
            position,
            ..
        } = self
        {
            return Ok(bytes
                .get(usize::try_from(*position).unwrap_or(usize::MAX)..)
                .unwrap_or_default());
        }
        let inside =
            self.position >= self.start && self.position - self.start < self.buffer.len() as u64;
        if !inside {
            self.buffer.resize(BUFFER, 0);
            let n = self.body.read_at(&mut self.buffer, self.position)?;
            self.buffer.truncate(n);
            self.start = self.position;
        }
        Ok(&self.buffer[(self.position - self.start) as usize..])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount as u64;
    }
}

impl Seek for BodyReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
            SeekFrom::End(delta) => self.body.len().checked_add_signed(delta),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_and_a_slice_read_alike() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let bodies = [
            Body::Memory(bytes.clone().into()),
            Body::File(Arc::new(file), bytes.len() as u64),
        ];
        for body in &bodies {
            let mut all = Vec::new();
            body.reader().read_to_end(&mut all).unwrap();
            assert_eq!(all, bytes);
            let mut reader = body.reader();
            for (to, at) in [
                (SeekFrom::End(-3), 199_997),
                (SeekFrom::Start(70_000), 70_000),
                (SeekFrom::Current(-65_000), 5_001),
            ] {
                assert_eq!(reader.seek(to).unwrap(), at);
                let mut one = [0];
                reader.read_exact(&mut one).unwrap();
                assert_eq!(one[0], bytes[at as usize]);
            }
            let mut tail = [0; 8];
            assert_eq!(body.read_at(&mut tail, 199_996).unwrap(), 4);
            assert_eq!(body.read_at(&mut tail, 300_000).unwrap(), 0);
        }
    }
}
