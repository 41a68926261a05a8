//! Lines out of bytes: LF, CRLF and lone CR, numbered, each in bounded memory.

use std::io::{self, Read};

/// Longest line that is kept. What is longer is read over, and counts as one line.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;

/// Bytes that are read at a time. Four of the longest lines fit, so few bytes are ever moved.
const BUFFER_BYTES: usize = 4 * MAX_LINE_BYTES;

/// How much of an overlong line is kept to show it.
const SHOWN_BYTES: usize = 1024;

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub(super) number: u64,
    /// Its bytes; for an overlong line, the first of them.
    pub(super) bytes: &'a [u8],
    /// Whether it is longer than [`MAX_LINE_BYTES`].
    pub(super) overlong: bool,
}

/// Splits what a reader yields into lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    inner: R,
    buffer: Box<[u8]>,
    /// `buffer[start..end]` is read and not yet handed out.
    start: usize,
    end: usize,
    ended: bool,
    /// The last line ended in CR: an LF that comes next belongs to it.
    after_cr: bool,
    /// First bytes of an overlong line.
    shown: Vec<u8>,
    number: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            ended: false,
            after_cr: false,
            shown: Vec::new(),
            number: 0,
        }
    }

    /// The next line; `None` at the end. What follows the last line end is a line only if it is not empty.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut searched = 0;
        let mut discarding = false;
        loop {
            if self.after_cr && self.start < self.end {
                self.after_cr = false;
                if self.buffer[self.start] == b'\n' {
                    self.start += 1;
                }
            }
            let rest = &self.buffer[self.start..self.end];
            let searched_to = searched.min(rest.len());
            if let Some(at) = memchr::memchr2(b'\n', b'\r', &rest[searched_to..]) {
                let length = searched_to + at;
                let begin = self.start;
                self.after_cr = rest[length] == b'\r';
                self.start += length + 1;
                return Ok(Some(self.line(begin, length, discarding)));
            }
            searched = rest.len();
            if self.ended {
                if rest.is_empty() && !discarding {
                    return Ok(None);
                }
                let begin = self.start;
                self.start = self.end;
                return Ok(Some(self.line(begin, searched, discarding)));
            }
            if rest.len() > MAX_LINE_BYTES {
                if !discarding {
                    self.shown.clear();
                    self.shown.extend_from_slice(&rest[..SHOWN_BYTES]);
                    discarding = true;
                }
                self.start = self.end;
                searched = 0;
            }
            self.fill()?;
        }
    }

    fn line(&mut self, begin: usize, length: usize, discarding: bool) -> Line<'_> {
        self.number += 1;
        let bytes = &self.buffer[begin..begin + length];
        let (bytes, overlong) = if discarding {
            (self.shown.as_slice(), true)
        } else if length > MAX_LINE_BYTES {
            (&bytes[..SHOWN_BYTES], true)
        } else {
            (bytes, false)
        };
        Line {
            number: self.number,
            bytes,
            overlong,
        }
    }

    /// Reads once, after making room. At most [`MAX_LINE_BYTES`] bytes are waiting when it is called.
    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(n) => {
                    self.end += n;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands out at most `step` bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(out.len()).min(self.0.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn lines(bytes: &[u8], step: usize) -> Vec<(u64, Vec<u8>, bool)> {
        let mut lines = Lines::new(Dribble(bytes, step));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.bytes.to_vec(), line.overlong));
        }
        all
    }

    #[test]
    fn every_kind_of_line_end_ends_one_line() {
        for step in [1, 2, 100] {
            let all = lines(b"a\nb\r\nc\rd\n\r\ne", step);
            let texts: Vec<_> = all.iter().map(|(_, text, _)| text.as_slice()).collect();
            assert_eq!(texts, [&b"a"[..], b"b", b"c", b"d", b"", b"e"]);
            assert_eq!(all.last().map(|(number, ..)| *number), Some(6));
        }
        assert!(lines(b"", 1).is_empty());
        assert_eq!(lines(b"\r\n", 1).len(), 1);
    }

    #[test]
    fn an_overlong_line_is_one_line_and_the_next_is_whole() {
        for length in [MAX_LINE_BYTES + 1, BUFFER_BYTES, 3_000_000] {
            for step in [977, 65_536, usize::MAX] {
                let mut bytes = vec![b'x'; length];
                bytes.extend_from_slice(b"\r\nshort");
                let all = lines(&bytes, step);
                assert_eq!(all.len(), 2, "{length} {step}");
                assert!(all[0].2 && all[0].1.len() == SHOWN_BYTES);
                assert_eq!(all[1], (2, b"short".to_vec(), false));
            }
        }
        let longest = lines(&vec![b'x'; MAX_LINE_BYTES], 977);
        assert!(!longest[0].2);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a')], 0..60),
            step in 1_usize..9,
        ) {
            let text = String::from_utf8(bytes.clone()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
            let wanted: Vec<_> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            let got: Vec<_> = lines(&bytes, step).into_iter().map(|(_, text, _)| text).collect();
            prop_assert_eq!(got, wanted);
        }
    }
}
