//! Kinds of files, and how to tell that what arrived is one of them.
//!
//! [`Downloader`] is gannet's extension point: it says what to ask an origin for, judges the first bytes as soon as
//! they are there, and judges the whole body when it is complete. It may also detect damage while a long body
//! arrives. [`Registry`] finds a downloader by the name of its kind. `image`, `document` and `any` are built in; a
//! library user adds one with [`Registry::register`].
//!
//! This room knows nothing of jobs, names or the catalog.

pub mod any;
mod body;
pub mod document;
pub mod image;
mod markup;
mod sniff;
pub mod standard;
mod window;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::target::Reason;

pub use crate::target::Format;

use async_trait::async_trait;

pub use body::{Body, BodyReader};
pub use standard::{
    Answer, Arrived, Ask, Context, Download, DownloadError, Failure, Intake, Memory, Meta, Partial,
    Received,
};

/// A kind of file.
///
/// # Contract
///
/// - Formats are known by bytes. Headers and names are hints: they may settle a tie, never overrule bytes.
/// - `sniff` is called with a growing head of the body until it answers anything but [`Verdict::More`];
///   it must answer when `hints.complete` is true.
/// - `inspect_prefix` is called after `sniff` accepted a body that is long or was cut off. It may be called several
///   times, with longer and longer prefixes: at least twice as long each time while the body arrives, and at least a
///   quarter longer where it is cut off.
/// - `inspect` is called once, with the complete body, after `sniff` accepted it. Neither panics, whatever the bytes,
///   and their memory is bounded independently of the body's length.
#[async_trait]
pub trait Downloader: fmt::Debug + Send + Sync + 'static {
    /// The name under which settings and reports know this kind, such as `image`.
    fn kind(&self) -> &str;

    /// The `Accept` header (RFC 9110, section 12.5.1) of a request for this kind.
    fn accept(&self) -> &str;

    /// Judges the first bytes.
    fn sniff(&self, head: &[u8], hints: &Hints<'_>) -> Verdict;

    /// Judges the beginning of a body that `sniff` accepted as `format`. `length` is the length of the whole body in
    /// bytes, if the origin announced it.
    ///
    /// `Ok` means that the body may turn out to be acceptable. The default never rejects.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] if `inspect` would reject the body, whatever follows. It ends the transfer.
    fn inspect_prefix(
        &self,
        prefix: &Body,
        format: Format,
        length: Option<u64>,
    ) -> Result<(), Rejection> {
        let _ = (prefix, format, length);
        Ok(())
    }

    /// Judges the whole body, of which `sniff` said that it is `format`.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] says why the body is not an acceptable file; so does a body that cannot be read.
    fn inspect(&self, body: &Body, format: Format) -> Result<Facts, Rejection>;

    /// Returns `true` if `inspect` may take longer than about 100 µs, so that it has to run on a blocking thread.
    /// `inspect_prefix` has to stay below that for 128 KiB.
    fn is_heavy(&self) -> bool {
        false
    }

    /// Names the checks that an accepted file has passed, in a short text that begins with the kind. The text is kept
    /// with each file. Downloaders with the same criteria have to accept the same files, so every setting that
    /// changes what [`inspect`](Self::inspect) accepts belongs in it.
    fn criteria(&self) -> &str {
        self.kind()
    }

    /// Returns whether a kept file is acceptable by its record. `None` if its bytes have to go through
    /// [`sniff`](Self::sniff) and [`inspect`](Self::inspect).
    fn accepts_kept(&self, kept: &Kept<'_>) -> Option<bool> {
        (kept.criteria == Some(self.criteria())).then_some(true)
    }

    /// Largest acceptable body of this kind in bytes; `None`: only `fetch.max_bytes` counts.
    fn max_bytes(&self) -> Option<u64> {
        None
    }

    /// Sends one request and takes its answer in. The default asks with [`accept`](Self::accept), hangs up on a body
    /// that [`sniff`](Self::sniff) or [`inspect_prefix`](Self::inspect_prefix) rejects, and judges the whole with
    /// [`inspect`](Self::inspect). Retries, redirects and politeness are the caller's.
    async fn download(self: Arc<Self>, cx: &Context, ask: Ask<'_>) -> Result<Answer, Failure> {
        standard::download(self, cx, ask).await
    }
}

/// What is known of a body besides its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The media type that the origin claims, without parameters, in lower case.
    pub media_type: Option<&'a str>,
    /// A file name that the list, a header or the URL suggests.
    pub name: Option<&'a str>,
    /// Whether `head` is the whole body.
    pub complete: bool,
}

/// What the first bytes show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is this format; go on.
    Accept(Format),
    /// It is nothing that is wanted; hang up.
    Reject(Rejection),
    /// More bytes are needed to tell. At [`HEAD_BYTES`] the head is final.
    More,
}

/// Most bytes that are shown to [`Downloader::sniff`] before it must decide.
pub const HEAD_BYTES: usize = 64 * 1024;

/// What `inspect` found out about an acceptable file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The format that the bytes show.
    pub format: Format,
    /// Width and height in pixels, for kinds that have them: as shown, with `orientation` applied.
    pub dimensions: Option<(u32, u32)>,
    /// Whether the file may run code in a browser: an SVG with script, event handlers or foreign content.
    pub active: bool,
    /// How the picture has to be turned to stand upright: the EXIF orientation, 2 to 8. `None`: as it is, or unknown.
    pub orientation: Option<u8>,
    /// The variant that nothing decodes, in words, if `check = "decode"` could not look at the pixels.
    pub undecoded: Option<String>,
}

impl Facts {
    /// Facts of a file that has neither size nor script.
    pub const fn of(format: Format) -> Self {
        Self {
            format,
            dimensions: None,
            active: false,
            orientation: None,
            undecoded: None,
        }
    }
}

/// The record of a kept file.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The [`Downloader::criteria`] by which it was accepted. `None` if unknown.
    pub criteria: Option<&'a str>,
    /// gannet's word for the format.
    pub format: &'a str,
    /// Length in bytes.
    pub bytes: u64,
    /// Width and height in pixels, if they were measured.
    pub dimensions: Option<(u32, u32)>,
    /// Set if its pixels could not be decoded.
    pub undecoded: bool,
}

/// Why bytes are not an acceptable file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Rejection {
    /// The stable code.
    pub reason: Reason,
    /// What was found, in words.
    pub detail: String,
}

impl Rejection {
    /// A rejection for `reason`, explained by `detail`.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// The extensions that agree with a format of gannet's; none: any does, or there is no such format.
pub(crate) fn extensions(format: &str) -> &'static [&'static str] {
    match (image::ImageFormat::named(format), format) {
        (Some(picture), _) => picture.format().extensions,
        (None, "html") => any::HTML,
        (None, other) => any::extensions(other),
    }
}

/// A kind that nobody registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no downloader for the kind `{kind}`; `job.kind` and `--kind` know {known}")]
pub struct UnknownKind {
    kind: String,
    /// All kinds, in words.
    known: String,
}

/// The format of a file that was recorded under this name; any bytes, where no kind of ours has it.
pub(crate) fn known_format(name: &str) -> Format {
    image::ImageFormat::named(name)
        .map(image::ImageFormat::format)
        .or_else(|| document::format_named(name))
        .unwrap_or(any::BYTES)
}

/// What gannet calls the format of this name or extension: `jpeg` for `jpg`. Other words stay as they are.
pub(crate) fn format_name(word: String) -> String {
    let mut pictures = image::ImageFormat::ALL.iter().map(|format| format.format());
    let has = |format: &Format| format.name == word || format.extensions.contains(&&*word);
    pictures
        .find(has)
        .map_or(word, |format| format.name.to_owned())
}

/// The kinds that gannet itself knows: `any`, `document` and `image`.
pub fn builtin(image: &image::Settings) -> Registry {
    let mut registry = Registry::default();
    registry.register(Arc::new(any::Any));
    registry.register(Arc::new(document::Document));
    registry.register(Arc::new(image::Image::new(image)));
    registry
}

/// The kinds that a process knows, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry(BTreeMap<String, Arc<dyn Downloader>>);

impl Registry {
    /// Adds a kind, in place of an earlier one of the same name.
    pub fn register(&mut self, downloader: Arc<dyn Downloader>) {
        self.0.insert(downloader.kind().to_owned(), downloader);
    }

    /// The downloader of a kind.
    pub fn get(&self, kind: &str) -> Option<Arc<dyn Downloader>> {
        self.0.get(kind).cloned()
    }

    /// The downloader of a kind, or an error that names all there are.
    ///
    /// # Errors
    ///
    /// When nobody registered the kind.
    pub fn find(&self, kind: &str) -> Result<Arc<dyn Downloader>, UnknownKind> {
        self.get(kind).ok_or_else(|| UnknownKind {
            kind: kind.to_owned(),
            known: self
                .kinds()
                .map(|kind| format!("`{kind}`"))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The names of all kinds, in alphabetical order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
