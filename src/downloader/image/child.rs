//! Decoding in a process of its own.
//!
//! A few bytes of SVG can keep a renderer busy for hours or exhaust its stack, and some decoders abort where others
//! return an error. Such a decoder runs in a child, a second process of the same executable, with limits of memory and
//! time that the system enforces. The file goes in through standard input, pixels come out through standard output.
//!
//! Only an executable whose `main` begins with [`answer`] has children. In any other, these formats are not decoded.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use image::DynamicImage;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

use super::{ImageFormat, foreign};

/// First argument of a child.
const ARGUMENT: &str = "__decode";

/// This very executable, also after an update has replaced its file.
const EXECUTABLE: &str = "/proc/self/exe";

/// Time of a processor that a child may take, and what it gets for each megapixel of a picture besides. Drawings for the
/// web take milliseconds.
const PROCESSOR: Duration = Duration::from_secs(10);
const MEGAPIXEL: Duration = Duration::from_secs(2);

/// Time that a child may take on a busy machine, as a multiple of that of the processor.
const BUSY: u32 = 6;

/// Address space of the executable itself, of its allocator and its stacks.
const BASE: u64 = 192 * 1024 * 1024;

/// Stack of the thread that decodes. Documents nest, and decoders recurse.
const STACK: usize = 64 * 1024 * 1024;

/// Set once `main` has called [`answer`], so that children can be started.
static HAS_CHILDREN: AtomicBool = AtomicBool::new(false);

/// A request for pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    pub(super) format: ImageFormat,
    /// Width and height of the picture; of the drawing, for a vector format.
    pub(super) size: (u32, u32),
    /// The share of the picture's width and height that is drawn, from its middle.
    pub(super) taken: (f64, f64),
    /// Whether all frames are decoded before the first is sent.
    pub(super) all: bool,
    /// Memory that the child may take, in bytes.
    pub(super) memory: u64,
}

/// Why there are no pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NoPixels {
    /// They cannot be decoded here, which says nothing against the picture.
    Unknown(String),
    /// The picture is damaged.
    Damaged(String),
}

/// Answers a parent process, if this process was started as its child. `None`: it was not. To be called first in `main`.
pub fn answer() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != ARGUMENT) {
        HAS_CHILDREN.store(true, Ordering::Relaxed);
        return None;
    }
    let ask = Ask::parse(arguments)?;
    let code = match ask.limit().and_then(|()| reply(ask)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    };
    Some(code)
}

impl Ask {
    fn arguments(&self) -> Vec<String> {
        let Self {
            format,
            size: (width, height),
            taken: (across, down),
            all,
            memory,
        } = self;
        vec![
            format.name().to_owned(),
            width.to_string(),
            height.to_string(),
            across.to_string(),
            down.to_string(),
            all.to_string(),
            memory.to_string(),
        ]
    }

    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut next = || arguments.next()?.into_string().ok();
        Some(Self {
            format: ImageFormat::named(&next()?)?,
            size: (next()?.parse().ok()?, next()?.parse().ok()?),
            taken: (next()?.parse().ok()?, next()?.parse().ok()?),
            all: next()?.parse().ok()?,
            memory: next()?.parse().ok()?,
        })
    }

    /// Time of a processor for it.
    fn processor(&self) -> Duration {
        let pixels = u64::from(self.size.0) * u64::from(self.size.1);
        let megapixels = u32::try_from(pixels / 1_000_000).unwrap_or(u32::MAX);
        match self.format {
            ImageFormat::Svg => PROCESSOR,
            _ => PROCESSOR.saturating_add(MEGAPIXEL.saturating_mul(megapixels)),
        }
    }

    /// Limits this process.
    fn limit(&self) -> io::Result<()> {
        let limit = |resource, value| {
            let (current, maximum) = (Some(value), Some(value));
            setrlimit(resource, Rlimit { current, maximum })
        };
        limit(Resource::Core, 0)?;
        limit(Resource::Cpu, self.processor().as_secs())?;
        limit(Resource::Data, self.memory.saturating_add(BASE))?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    }
}

/// Decodes what standard input brings.
fn reply(ask: Ask) -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let decoding = thread::Builder::new().stack_size(STACK);
    let decoded = decoding.spawn(move || decode(&ask, &bytes))?.join();
    let mut out = io::stdout().lock();
    match decoded {
        Ok(Ok(image)) => write_pixels(&mut out, &image)?,
        Ok(Err(NoPixels::Damaged(detail))) => write!(out, "d{detail}")?,
        Ok(Err(NoPixels::Unknown(detail))) => write!(out, "u{detail}")?,
        Err(_) => write!(out, "uits decoder gave up")?,
    }
    out.flush()
}

fn decode(ask: &Ask, bytes: &[u8]) -> Result<DynamicImage, NoPixels> {
    match ask.format {
        ImageFormat::Svg => super::svg::draw(bytes, ask.size, ask.taken),
        ImageFormat::Jxl => foreign::jxl(bytes, ask.memory, ask.all),
        ImageFormat::Jp2 => foreign::jp2(bytes),
        ImageFormat::Avif => foreign::avif(bytes),
        other => Err(NoPixels::Unknown(format!(
            "there is no decoder for {other}"
        ))),
    }
}

/// Writes `p`, kind, width, height, and the samples.
fn write_pixels(out: &mut impl io::Write, image: &DynamicImage) -> io::Result<()> {
    let kind = match image {
        DynamicImage::ImageLuma8(_) => b'g',
        DynamicImage::ImageLumaA8(_) => b'G',
        DynamicImage::ImageRgb8(_) => b'c',
        DynamicImage::ImageRgba8(_) => b'C',
        DynamicImage::ImageRgb16(_) => b'w',
        DynamicImage::ImageRgba16(_) => b'W',
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    out.write_all(&[b'p', kind])?;
    out.write_all(&image.width().to_ne_bytes())?;
    out.write_all(&image.height().to_ne_bytes())?;
    out.write_all(image.as_bytes())
}

fn read_pixels(reply: &[u8]) -> Option<DynamicImage> {
    let (kind, rest) = reply.split_first()?;
    let (width, rest) = rest.split_first_chunk()?;
    let (height, samples) = rest.split_first_chunk()?;
    let (width, height) = (u32::from_ne_bytes(*width), u32::from_ne_bytes(*height));
    let wide = || {
        let pairs = samples.as_chunks().0.iter();
        pairs.map(|pair| u16::from_ne_bytes(*pair)).collect()
    };
    Some(match kind {
        b'g' => image::GrayImage::from_raw(width, height, samples.to_vec())?.into(),
        b'G' => image::GrayAlphaImage::from_raw(width, height, samples.to_vec())?.into(),
        b'c' => image::RgbImage::from_raw(width, height, samples.to_vec())?.into(),
        b'C' => image::RgbaImage::from_raw(width, height, samples.to_vec())?.into(),
        b'w' => DynamicImage::ImageRgb16(image::ImageBuffer::from_raw(width, height, wide())?),
        b'W' => DynamicImage::ImageRgba16(image::ImageBuffer::from_raw(width, height, wide())?),
        _ => return None,
    })
}

/// The pixels of the file `bytes`. Blocks the thread until the child has ended. The child gets its own share of memory,
/// which the caller holds, and so does the reply, which is no larger.
pub(super) fn pixels(ask: &Ask, bytes: &[u8]) -> Result<DynamicImage, NoPixels> {
    let unknown = |detail: &str| NoPixels::Unknown(detail.to_owned());
    if !HAS_CHILDREN.load(Ordering::Relaxed) {
        return Err(unknown("this program does not decode it"));
    }
    let mut command = Command::new(EXECUTABLE);
    command
        .arg0("gannet")
        .arg(ARGUMENT)
        .args(ask.arguments())
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| NoPixels::Unknown(format!("its decoder does not start: {error}")))?;
    let time = ask.processor().saturating_mul(BUSY);
    let reply = converse(&mut child, bytes, ask.memory, time);
    // It has closed its output, or is killed.
    let ended = child.wait();
    match reply {
        Ok(reply) if ended.is_ok_and(|status| status.success()) => match reply.split_first() {
            Some((b'p', pixels)) => {
                read_pixels(pixels).ok_or_else(|| unknown("its decoder failed"))
            }
            Some((b'd', detail)) => Err(NoPixels::Damaged(String::from_utf8_lossy(detail).into())),
            Some((_, detail)) => Err(NoPixels::Unknown(String::from_utf8_lossy(detail).into())),
            None => Err(unknown("its decoder failed")),
        },
        _ => Err(unknown("it takes too much memory or time")),
    }
}

/// Gives the child its input, and takes its output, of at most `most` bytes.
fn converse(child: &mut Child, bytes: &[u8], most: u64, time: Duration) -> io::Result<Vec<u8>> {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            // The child may end before it has read all.
            let _ = input.write_all(bytes);
        });
        scope.spawn(move || {
            let late = ended.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
            // Its number stays taken until it has been waited for.
            if let (true, Some(pid)) = (late, pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let mut reply = Vec::new();
        let read = output.take(most.saturating_add(1)).read_to_end(&mut reply);
        let is_whole = read.is_ok() && reply.len() as u64 <= most;
        if let (false, Some(pid)) = (is_whole, pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
        drop(done);
        read.map(|_| reply)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_arrives() {
        let ask = Ask {
            format: ImageFormat::Svg,
            size: (3, 4),
            taken: (1.0, 0.1),
            all: true,
            memory: 5,
        };
        let arguments = ask.arguments().into_iter().map(OsString::from);
        assert_eq!(Ask::parse(arguments), Some(ask));
    }

    #[test]
    fn pixels_arrive() {
        let deep = image::ImageBuffer::from_fn(3, 2, |x, y| image::Rgb([x as u16, 300, y as u16]));
        for image in [
            DynamicImage::ImageRgb16(deep.clone()),
            DynamicImage::ImageRgb16(deep.clone()).into_rgba16().into(),
            DynamicImage::ImageRgb16(deep.clone()).into_rgb8().into(),
            DynamicImage::ImageRgb16(deep.clone()).into_rgba8().into(),
            DynamicImage::ImageRgb16(deep.clone()).into_luma8().into(),
            DynamicImage::ImageRgb16(deep).into_luma_alpha8().into(),
        ] {
            let mut sent = Vec::new();
            write_pixels(&mut sent, &image).unwrap();
            assert_eq!(read_pixels(&sent[1..]), Some(image));
            sent.pop();
            assert_eq!(read_pixels(&sent[1..]), None);
        }
    }
}
