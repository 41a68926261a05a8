//! The entropy-coded data of a JPEG, without its pixels: every code of every block of every scan.
//!
//! All that can be wrong with coded data shows here: codes that no table has, coefficients beyond the last, restart
//! markers in the wrong place, and blocks that are not there. Dequantisation, transform and colours cannot fail.
//! A picture with one scan takes no memory; refining scans need one bit for each coefficient.

use super::super::memory::{Held, Memory};
use super::{EOI, SOS, next_marker};
use crate::downloader::Rejection;
use crate::downloader::window::{Window, corrupt};

/// Most scans that are walked. Encoders make at most a few dozen.
const MAX_SCANS: u32 = 500;

/// Bits that the first look into a Huffman table takes.
const FAST: u32 = 9;

/// Bytes that are taken from the body at a time.
const CHUNK: usize = 16 * 1024;

/// Result of a walk that found no damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Walked {
    /// Every block is there.
    Whole,
    /// The coding is not known; the text names it.
    Unknown(&'static str),
}

/// Walks through all scans of the picture.
///
/// The end-of-image marker is not needed where all blocks are there without it.
pub(in super::super) fn walk(
    window: &mut Window<'_>,
    memory: &Memory,
) -> Result<Walked, Rejection> {
    let mut walk = Walk {
        memory,
        held: None,
        tables: Default::default(),
        interval: 0,
        frame: None,
    };
    match walk.segments(window) {
        Ok(()) => Ok(Walked::Whole),
        Err(Stop::Unknown(why)) => Ok(Walked::Unknown(why)),
        Err(Stop::Rejected(rejection)) => Err(rejection),
        Err(Stop::Short) => Err(corrupt(
            "is truncated: part of its picture data is not there",
        )),
        Err(Stop::Bad(what)) => Err(corrupt(format!("does not decode: {what}"))),
    }
}

/// Why the walk stops before the end.
enum Stop {
    Rejected(Rejection),
    Unknown(&'static str),
    /// The data ends, or a marker stands, where codes should be.
    Short,
    Bad(&'static str),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

type Step<T = ()> = Result<T, Stop>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Sequential,
    Progressive,
    Lossless,
}

struct Frame {
    process: Process,
    width: u64,
    height: u64,
    h_max: u64,
    v_max: u64,
    components: Vec<Component>,
}

struct Component {
    id: u8,
    h: u64,
    v: u64,
    /// The lowest bit of each coefficient that has come; sequential scans bring all at once.
    lowest: [Option<u8>; 64],
    /// For each block the coefficients that are not zero, where scans refine them.
    nonzero: Vec<u64>,
}

impl Component {
    /// Whether nothing more can come of it.
    fn is_whole(&self, process: Process) -> bool {
        match process {
            Process::Progressive => self.lowest.iter().all(|lowest| *lowest == Some(0)),
            Process::Sequential | Process::Lossless => self.lowest[0].is_some(),
        }
    }
}

impl Frame {
    /// Blocks in a scan of this component alone: across and down.
    fn blocks(&self, component: &Component) -> (u64, u64) {
        let unit = if self.process == Process::Lossless {
            1
        } else {
            8
        };
        (
            (self.width * component.h).div_ceil(self.h_max * unit),
            (self.height * component.v).div_ceil(self.v_max * unit),
        )
    }

    /// MCUs in a scan of several components.
    fn mcus(&self) -> u64 {
        let unit = if self.process == Process::Lossless {
            1
        } else {
            8
        };
        self.width.div_ceil(self.h_max * unit) * self.height.div_ceil(self.v_max * unit)
    }
}

struct Walk<'m> {
    memory: &'m Memory,
    /// For `Component::nonzero`.
    held: Option<Held<'m>>,
    /// DC, then AC.
    tables: [[Option<Table>; 4]; 2],
    /// MCUs between restart markers; 0: none.
    interval: u64,
    frame: Option<Frame>,
}

impl Walk<'_> {
    fn segments(&mut self, window: &mut Window<'_>) -> Step {
        let (mut at, mut scans) = (2, 0);
        loop {
            let (marker, behind) = match next_marker(window, at) {
                Ok(found) => found,
                // Between scans the data ends, or something else follows.
                Err(_) if scans > 0 => return Err(Stop::Short),
                Err(rejection) => return Err(rejection.into()),
            };
            at = behind;
            match marker {
                0xd8 | 0x01 | 0xd0..=0xd7 => continue,
                EOI => {
                    let has_come = |c: &Component| c.lowest[0].is_some();
                    return match &self.frame {
                        Some(frame) if frame.components.iter().all(has_come) => Ok(()),
                        _ => Err(Stop::Short),
                    };
                }
                _ => {}
            }
            let length = u64::from(window.be16(at)?);
            if length < 2 {
                return Err(Stop::Bad("a segment has no length"));
            }
            let segment = window.bytes(at, length as usize)?[2..].to_vec();
            at += length;
            match marker {
                0xc4 => self.huffman_tables(&segment)?,
                0xdd if segment.len() >= 2 => {
                    self.interval = u16::from_be_bytes([segment[0], segment[1]]).into();
                }
                0xc0..=0xcf if !matches!(marker, 0xc8 | 0xcc) => {
                    // A second frame is another picture's, which hierarchical coding has.
                    if self.frame.is_some() {
                        return Err(Stop::Unknown(
                            "has more than one frame, which is not decoded",
                        ));
                    }
                    self.frame = Some(frame(marker, &segment)?);
                }
                SOS => {
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err(Stop::Unknown(
                            "has more than 500 scans, which is not decoded",
                        ));
                    }
                    at = self.scan(window, at, &segment)?;
                    let frame = self.frame.as_ref().expect("a scan needs a frame");
                    let process = frame.process;
                    if frame.components.iter().all(|c| c.is_whole(process)) {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Step {
        while let [head, rest @ ..] = segment {
            let (class, slot) = (usize::from(head >> 4), usize::from(head & 15));
            let counts = rest.get(..16).ok_or(Stop::Bad("a Huffman table is cut"))?;
            let total = counts.iter().map(|n| usize::from(*n)).sum();
            let values = rest[16..]
                .get(..total)
                .ok_or(Stop::Bad("a Huffman table is cut"))?;
            if class > 1 || slot > 3 {
                return Err(Stop::Bad("a Huffman table has no such number"));
            }
            self.tables[class][slot] = Some(Table::new(counts, values)?);
            segment = &rest[16 + total..];
        }
        Ok(())
    }

    /// Walks through one scan, whose coded data begins at `at`. Returns where it ends.
    fn scan(&mut self, window: &mut Window<'_>, at: u64, header: &[u8]) -> Step<u64> {
        const SHORT: Stop = Stop::Bad("a scan header is too short");
        let frame = self
            .frame
            .as_mut()
            .ok_or(Stop::Bad("a scan stands before its frame"))?;
        let [count, rest @ ..] = header else {
            return Err(SHORT);
        };
        let count = usize::from(*count);
        if count == 0 || count > 4 || rest.len() < 2 * count + 3 {
            return Err(SHORT);
        }
        let (first, last, bits) = (rest[2 * count], rest[2 * count + 1], rest[2 * count + 2]);
        let (high, low) = (bits >> 4, bits & 15);
        // Which components, and their tables.
        let mut parts: Vec<(usize, usize, usize)> = Vec::with_capacity(count);
        for pair in rest[..2 * count].chunks_exact(2) {
            let is_it = |(index, component): &(usize, &Component)| {
                component.id == pair[0] && parts.iter().all(|part| part.0 != *index)
            };
            let found = frame.components.iter().enumerate().find(is_it);
            let (index, _) =
                found.ok_or(Stop::Bad("a scan names a component that is not there"))?;
            let (dc, ac) = (usize::from(pair[1] >> 4), usize::from(pair[1] & 15));
            if dc > 3 || ac > 3 {
                return Err(Stop::Bad("a scan names a Huffman table that is not there"));
            }
            parts.push((index, dc, ac));
        }
        let kind = match frame.process {
            Process::Lossless => Kind::Lossless,
            Process::Sequential => Kind::Sequential,
            Process::Progressive => match (first, high) {
                _ if last > 63 || first > last || (first == 0 && last != 0) => {
                    return Err(Stop::Bad("a scan names coefficients that are not there"));
                }
                (0, 0) => Kind::DcFirst,
                (0, _) => Kind::DcRefine,
                _ if count > 1 => {
                    return Err(Stop::Bad("a scan of details has several components"));
                }
                (_, 0) => Kind::AcFirst,
                _ => Kind::AcRefine,
            },
        };
        let is_known = |class: usize, slot: usize| self.tables[class][slot].is_some();
        let known = parts.iter().all(|(_, dc, ac)| match kind {
            Kind::Sequential => is_known(0, *dc) && is_known(1, *ac),
            Kind::Lossless | Kind::DcFirst => is_known(0, *dc),
            Kind::DcRefine => true,
            Kind::AcFirst | Kind::AcRefine => is_known(1, *ac),
        });
        if !known {
            return Err(Stop::Unknown(
                "has no Huffman tables of its own, which is not decoded",
            ));
        }
        if matches!(kind, Kind::AcRefine) || matches!(kind, Kind::AcFirst) && low > 0 {
            if self.held.is_none() {
                let blocks = |c: &Component| {
                    let (across, down) = frame.blocks(c);
                    across * down * 8
                };
                let bytes = frame.components.iter().map(blocks).sum();
                self.held = Some(self.memory.hold(bytes)?);
            }
            let (across, down) = frame.blocks(&frame.components[parts[0].0]);
            let nonzero = &mut frame.components[parts[0].0].nonzero;
            nonzero.resize((across * down) as usize, 0);
        }

        // Blocks of each part in an MCU, and MCUs.
        let (units, mcus) = match &parts[..] {
            [(index, ..)] => {
                let (across, down) = frame.blocks(&frame.components[*index]);
                (vec![1], across * down)
            }
            several => {
                let of = |(index, ..): &(usize, usize, usize)| {
                    frame.components[*index].h * frame.components[*index].v
                };
                (several.iter().map(of).collect(), frame.mcus())
            }
        };
        let mut bits = Bits::new(window, at);
        let mut none = Vec::new();
        let mut run = 0;
        let mut restart = 0;
        let mut mcu = 0;
        while mcu < mcus {
            if self.interval > 0 && mcu > 0 && mcu % self.interval == 0 {
                bits.restart(restart)?;
                restart = (restart + 1) % 8;
                run = 0;
            }
            // A run of blocks without anything new, as far as the next restart.
            if kind == Kind::AcFirst && run > 0 {
                let left = match self.interval {
                    0 => mcus - mcu,
                    interval => (interval - mcu % interval).min(mcus - mcu),
                };
                let skipped = left.min(run);
                (run, mcu) = (run - skipped, mcu + skipped);
                continue;
            }
            for ((index, dc, ac), blocks) in parts.iter().zip(&units) {
                let component = &mut frame.components[*index];
                let nonzero = match component.nonzero.is_empty() {
                    true => &mut none,
                    false => &mut component.nonzero,
                };
                let mut block = Block {
                    bits: &mut bits,
                    dc: self.tables[0][*dc].as_ref(),
                    ac: self.tables[1][*ac].as_ref(),
                    first: first.into(),
                    last: last.into(),
                    nonzero: nonzero.get_mut(mcu as usize),
                    run: &mut run,
                };
                for _ in 0..*blocks {
                    block.walk(kind)?;
                }
            }
            mcu += 1;
        }
        let end = bits.end()?;
        for (index, ..) in &parts {
            let range = match kind {
                Kind::Lossless | Kind::Sequential => 0..=63,
                _ => usize::from(first)..=usize::from(last),
            };
            let low = if frame.process == Process::Progressive {
                low
            } else {
                0
            };
            frame.components[*index].lowest[range].fill(Some(low));
        }
        Ok(end)
    }
}

fn frame(marker: u8, segment: &[u8]) -> Step<Frame> {
    let process = match marker {
        0xc0 | 0xc1 => Process::Sequential,
        0xc2 => Process::Progressive,
        0xc3 => Process::Lossless,
        0xc9..=0xcb => {
            return Err(Stop::Unknown(
                "is coded arithmetically, which is not decoded",
            ));
        }
        _ => {
            return Err(Stop::Unknown(
                "is coded hierarchically, which is not decoded",
            ));
        }
    };
    let [_precision, h0, h1, w0, w1, count, rest @ ..] = segment else {
        return Err(Stop::Bad("the frame header is too short"));
    };
    let components: Vec<Component> = rest
        .chunks_exact(3)
        .take((*count).into())
        .map(|part| Component {
            id: part[0],
            h: (part[1] >> 4).into(),
            v: (part[1] & 15).into(),
            lowest: [None; 64],
            nonzero: Vec::new(),
        })
        .collect();
    let is_sampled = |c: &Component| (1..=4).contains(&c.h) && (1..=4).contains(&c.v);
    if components.is_empty() || components.len() < usize::from(*count) {
        return Err(Stop::Bad("the frame header is too short"));
    }
    if !components.iter().all(is_sampled) {
        return Err(Stop::Bad(
            "the frame header has impossible sampling factors",
        ));
    }
    Ok(Frame {
        process,
        width: u16::from_be_bytes([*w0, *w1]).into(),
        height: u16::from_be_bytes([*h0, *h1]).into(),
        h_max: components.iter().map(|c| c.h).max().unwrap_or(1),
        v_max: components.iter().map(|c| c.v).max().unwrap_or(1),
        components,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lossless,
    Sequential,
    DcFirst,
    DcRefine,
    AcFirst,
    AcRefine,
}

/// One block, in T.81's words: F.2.2, G.1.2 and H.1.2.
struct Block<'a, 'w, 'b> {
    bits: &'a mut Bits<'w, 'b>,
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
    first: u32,
    last: u32,
    nonzero: Option<&'a mut u64>,
    /// Blocks that have nothing new (EOBRUN).
    run: &'a mut u64,
}

impl Block<'_, '_, '_> {
    fn walk(&mut self, kind: Kind) -> Step {
        match kind {
            Kind::Lossless => {
                let category = self.bits.code(self.dc)?;
                match category {
                    // The one difference without further bits.
                    16 => Ok(()),
                    0..16 => self.bits.skip(category.into()),
                    _ => Err(Stop::Bad("a difference is too large")),
                }
            }
            Kind::Sequential => {
                self.dc()?;
                self.last = 63;
                self.ac_first(1)
            }
            Kind::DcFirst => self.dc(),
            Kind::DcRefine => self.bits.skip(1),
            Kind::AcFirst => self.ac_first(self.first),
            Kind::AcRefine => self.ac_refine(),
        }
    }

    fn dc(&mut self) -> Step {
        let category = self.bits.code(self.dc)?;
        if category > 15 {
            return Err(Stop::Bad("a difference is too large"));
        }
        self.bits.skip(category.into())
    }

    fn ac_first(&mut self, mut k: u32) -> Step {
        while k <= self.last {
            let symbol = self.bits.code(self.ac)?;
            let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, size) {
                (15, 0) => k += 16,
                (_, 0) => {
                    // Sequential scans have runs of one block only.
                    if zeros > 0 {
                        *self.run = (1 << zeros) - 1 + u64::from(self.bits.take(zeros)?);
                    }
                    return Ok(());
                }
                _ => {
                    k += zeros;
                    if k > self.last {
                        return Err(Stop::Bad("a block has too many coefficients"));
                    }
                    self.bits.skip(size)?;
                    if let Some(nonzero) = self.nonzero.as_deref_mut() {
                        *nonzero |= 1 << k;
                    }
                    k += 1;
                }
            }
        }
        Ok(())
    }

    fn ac_refine(&mut self) -> Step {
        let mut none = 0;
        let nonzero = match self.nonzero.as_deref_mut() {
            Some(nonzero) => nonzero,
            None => &mut none,
        };
        let mut k = self.first;
        while *self.run == 0 && k <= self.last {
            let symbol = self.bits.code(self.ac)?;
            let (mut zeros, size) = (u32::from(symbol >> 4), symbol & 15);
            match size {
                0 if zeros < 15 => {
                    *self.run = (1 << zeros) + u64::from(self.bits.take(zeros)?);
                    break;
                }
                0 => {}
                1 => self.bits.skip(1)?,
                _ => return Err(Stop::Bad("a refinement has more than one bit")),
            }
            while k <= self.last {
                if *nonzero >> k & 1 == 1 {
                    self.bits.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                k += 1;
            }
            if size == 1 {
                if k > self.last {
                    return Err(Stop::Bad("a block has too many coefficients"));
                }
                *nonzero |= 1 << k;
            }
            k += 1;
        }
        if *self.run > 0 {
            *self.run -= 1;
            if k <= self.last {
                let mask = (u64::MAX << k) & (u64::MAX >> (63 - self.last));
                let mut left = (*nonzero & mask).count_ones();
                while left > 0 {
                    let n = left.min(16);
                    self.bits.skip(n)?;
                    left -= n;
                }
            }
        }
        Ok(())
    }
}

/// A Huffman table.
struct Table {
    /// By the next bits: length and value of the code; 0: it is longer.
    fast: Box<[u16; 1 << FAST]>,
    /// By length: what is above all codes of it, in 16 bits, and what leads from a code to its value.
    longer: [(u32, i32); 17],
    values: Vec<u8>,
}

impl Table {
    fn new(counts: &[u8], values: &[u8]) -> Step<Self> {
        let mut fast = Box::new([0; 1 << FAST]);
        let mut longer = [(0, 0); 17];
        let (mut code, mut at) = (0_u32, 0_usize);
        for (length, count) in (1_u32..).zip(counts) {
            let first = at as i32 - code as i32;
            for value in &values[at..at + usize::from(*count)] {
                if code >= 1 << length {
                    return Err(Stop::Bad("a Huffman table has too many codes"));
                }
                if length <= FAST {
                    let from = (code << (FAST - length)) as usize;
                    fast[from..from + (1 << (FAST - length))]
                        .fill((length as u16) << 8 | u16::from(*value));
                }
                (code, at) = (code + 1, at + 1);
            }
            longer[length as usize] = (code << (16 - length), first);
            code <<= 1;
        }
        Ok(Self {
            fast,
            longer,
            values: values.to_vec(),
        })
    }
}

/// Coded data, bit by bit, without its stuffing.
struct Bits<'w, 'b> {
    window: &'w mut Window<'b>,
    /// Bytes of the body from `start` on, of which `next` comes next.
    chunk: Vec<u8>,
    start: u64,
    next: usize,
    /// The next bits, from the highest down.
    held: u64,
    count: u32,
    /// Whether a marker, or the end, stands next.
    is_over: bool,
}

impl<'w, 'b> Bits<'w, 'b> {
    fn new(window: &'w mut Window<'b>, at: u64) -> Self {
        Self {
            window,
            chunk: Vec::new(),
            start: at,
            next: 0,
            held: 0,
            count: 0,
            is_over: false,
        }
    }

    /// The byte `ahead` of the next; `None`: the body ends before.
    #[inline]
    fn peek(&mut self, ahead: usize) -> Step<Option<u8>> {
        if let Some(byte) = self.chunk.get(self.next + ahead) {
            return Ok(Some(*byte));
        }
        self.start += self.next as u64;
        self.next = 0;
        let found = self.window.up_to(self.start, CHUNK)?;
        self.chunk.clear();
        self.chunk.extend_from_slice(found);
        Ok(self.chunk.get(ahead).copied())
    }

    fn fill(&mut self) -> Step {
        while self.count <= 48 && !self.is_over {
            match self.peek(0)? {
                Some(0xff) => match self.peek(1)? {
                    Some(0) => {
                        self.push(0xff);
                        self.next += 2;
                    }
                    // A fill byte.
                    Some(0xff) => self.next += 1,
                    _ => self.is_over = true,
                },
                Some(byte) => {
                    self.push(byte);
                    self.next += 1;
                }
                None => self.is_over = true,
            }
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.held |= u64::from(byte) << (56 - self.count);
        self.count += 8;
    }

    /// The value of the next code.
    #[inline]
    fn code(&mut self, table: Option<&Table>) -> Step<u8> {
        let table = table.ok_or(Stop::Bad("a Huffman table is missing"))?;
        if self.count < 16 {
            self.fill()?;
        }
        let bits = (self.held >> 48) as u32;
        let entry = table.fast[(bits >> (16 - FAST)) as usize];
        if entry != 0 {
            self.drop(u32::from(entry >> 8))?;
            return Ok(entry as u8);
        }
        for length in FAST + 1..=16 {
            let (above, first) = table.longer[length as usize];
            if bits < above {
                self.drop(length)?;
                let index = (bits >> (16 - length)) as i32 + first;
                return usize::try_from(index)
                    .ok()
                    .and_then(|index| table.values.get(index).copied())
                    .ok_or(Stop::Bad("a code is in no Huffman table"));
            }
        }
        match self.count < 16 {
            true => Err(Stop::Short),
            false => Err(Stop::Bad("a code is in no Huffman table")),
        }
    }

    /// The next `n` bits, at most 16.
    #[inline]
    fn take(&mut self, n: u32) -> Step<u32> {
        if self.count < n {
            self.fill()?;
        }
        let bits = (self.held >> 32) as u32;
        self.drop(n)?;
        Ok(if n == 0 { 0 } else { bits >> (32 - n) })
    }

    /// Passes over `n` bits, at most 16.
    #[inline]
    fn skip(&mut self, n: u32) -> Step {
        if self.count < n {
            self.fill()?;
        }
        self.drop(n)
    }

    #[inline]
    fn drop(&mut self, n: u32) -> Step {
        if n > self.count {
            return Err(Stop::Short);
        }
        self.held <<= n;
        self.count -= n;
        Ok(())
    }

    /// Passes over the restart marker of this number, and whatever pads the data before it.
    fn restart(&mut self, number: u8) -> Step {
        let at = self.end()?;
        let is_it = |marker: &[u8]| marker.len() == 2 && marker[1] == 0xd0 + number;
        let marker = self.window.up_to(at, 2)?;
        match marker {
            _ if is_it(marker) => {}
            [_, 0xd0..=0xd7] => return Err(Stop::Bad("a restart marker is missing")),
            _ => return Err(Stop::Short),
        }
        (self.start, self.next) = (at + 2, 0);
        self.chunk.clear();
        self.is_over = false;
        Ok(())
    }

    /// Passes over the rest of the data. Returns where the marker behind it, or the end of the body, is.
    fn end(&mut self) -> Step<u64> {
        loop {
            (self.held, self.count) = (0, 0);
            if self.is_over {
                return Ok(self.start + self.next as u64);
            }
            self.fill()?;
        }
    }
}
