//! Bytes whose lines are counted, for parsers that know no lines, and that is never too many at once.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use super::MAX_ELEMENT_BYTES;
use crate::source::decode::Input;

/// Where a parser is. Shared with the [`Counted`] that it reads from.
#[derive(Debug, Clone)]
pub(super) struct Position(Rc<Cell<(u64, u64)>>);

impl Position {
    /// The line of the next byte, counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.0.get().0
    }

    /// Says that an element is complete: the next may be as long again.
    pub(super) fn element_done(&self) {
        self.0.set((self.line(), 0));
    }
}

/// Counts what is taken from it; an element longer than [`MAX_ELEMENT_BYTES`] is an error.
pub(super) struct Counted {
    inner: BufReader<Input>,
    position: Position,
}

impl Counted {
    pub(super) fn new(input: Input) -> Self {
        Self {
            inner: BufReader::with_capacity(64 * 1024, input),
            position: Position(Rc::new(Cell::new((1, 0)))),
        }
    }

    pub(super) fn position(&self) -> Position {
        self.position.clone()
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position.0.get().1 > MAX_ELEMENT_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an element is longer than {} MiB", MAX_ELEMENT_BYTES >> 20),
            ));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        let taken = &self.inner.buffer()[..amount];
        let (line, bytes) = self.position.0.get();
        let lines = memchr::memchr_iter(b'\n', taken).count() as u64;
        self.position.0.set((line + lines, bytes + amount as u64));
        self.inner.consume(amount);
    }
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(out.len());
        out[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}
