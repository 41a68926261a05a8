//! Room for what is known only at the end.

use std::io::{self, Seek, SeekFrom, Write};

/// Room in an output for what is known only at the end.
#[derive(Debug)]
pub(super) struct Slot {
    offset: u64,
    len: usize,
}

impl Slot {
    /// Writes `text`, padded with spaces to `len` bytes. `None` where the output cannot seek, such as
    /// a pipe; nothing is written then.
    pub(super) fn reserve<W: Write + Seek>(
        out: &mut W,
        text: &str,
        len: usize,
    ) -> io::Result<Option<Self>> {
        let Ok(offset) = out.stream_position() else {
            return Ok(None);
        };
        let slot = Self {
            offset,
            len: len.max(text.len()),
        };
        slot.write(out, text)?;
        Ok(Some(slot))
    }

    /// Puts `text` in its place and goes back to where the output was. A text that is longer than
    /// the room is left out.
    pub(super) fn fill<W: Write + Seek>(self, out: &mut W, text: &str) -> io::Result<()> {
        if text.len() > self.len {
            return Ok(());
        }
        let end = out.stream_position()?;
        out.seek(SeekFrom::Start(self.offset))?;
        self.write(out, text)?;
        out.seek(SeekFrom::Start(end))?;
        Ok(())
    }

    fn write<W: Write>(&self, out: &mut W, text: &str) -> io::Result<()> {
        write!(out, "{text}{:1$}", "", self.len - text.len())
    }
}
