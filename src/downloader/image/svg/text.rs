//! Text of any encoding as UTF-8, a piece at a time.

use std::io::{self, BufRead, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding};

use crate::downloader::Rejection;
use crate::downloader::window::corrupt;
use crate::target::Reason;

/// Bytes that are decoded at a time.
const PIECE: usize = 16 * 1024;

/// Most bytes of one tag, text or comment, which the parser holds at a time. Pictures are embedded as
/// attributes, so that this has to be roomy.
const MAX_EVENT: usize = 32 * 1024 * 1024;

/// Decodes what `inner` brings.
pub(super) struct Utf8Reader<R> {
    inner: R,
    decoder: Decoder,
    piece: Vec<u8>,
    at: usize,
    done: bool,
    event: usize,
}

impl<R: BufRead> Utf8Reader<R> {
    pub(super) fn new(inner: R, encoding: &'static Encoding) -> Self {
        Self {
            inner,
            decoder: encoding.new_decoder_with_bom_removal(),
            piece: Vec::new(),
            at: 0,
            done: false,
            event: 0,
        }
    }

    /// Begins to count the bytes of another event.
    pub(super) fn begin_event(&mut self) {
        self.event = 0;
    }

    fn decode(&mut self) -> io::Result<()> {
        while self.at == self.piece.len() && !self.done {
            let input = self.inner.fill_buf()?;
            let last = input.is_empty();
            self.piece.resize(PIECE, 0);
            let (result, read, written) =
                self.decoder
                    .decode_to_utf8_without_replacement(input, &mut self.piece, last);
            self.inner.consume(read);
            self.piece.truncate(written);
            self.at = 0;
            match result {
                DecoderResult::InputEmpty => self.done = last,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    let name = self.decoder.encoding().name();
                    return Err(io::Error::other(corrupt(format!("is not text in {name}"))));
                }
            }
        }
        Ok(())
    }
}

impl<R: BufRead> BufRead for Utf8Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.event > MAX_EVENT {
            return Err(io::Error::other(Rejection::new(
                Reason::TooLarge,
                format!("has an element of more than {MAX_EVENT} bytes"),
            )));
        }
        self.decode()?;
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.event += n;
    }
}

impl<R: BufRead> Read for Utf8Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}
