//! Smaller or converted pictures, made once and kept for the next who asks.
//!
//! [`Renditions`] makes them on its [`Workers`], as [`Params`] say, upright, in sRGB and without metadata, and keeps them on disk
//! under the digest of the original and what was wanted. This room knows nothing of albums, jobs or HTTP.
//!
//! - `params`: what is wanted, and how large that comes out;
//! - `render`: pictures of pictures;
//! - `cache`: a folder of bounded size;
//! - `workers`: threads for what takes a processor.

mod cache;
mod params;
mod render;
mod settings;
mod workers;

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use image::{DynamicImage, ImageReader};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::downloader::image::{self as picture, Converted, Decoder, ImageFormat};
use crate::downloader::{Body, Format, Rejection};
use crate::target::Sha256;
use cache::Cache;

pub use params::{Fit, MAX_SIDE, OutOfRange, Output, Params, QUALITY};
pub use settings::Settings;
pub use workers::{Gone, Workers};

/// Who wants the same has the same turn. Those who want different things and share one are few.
const TURNS: usize = 256;

/// Pictures that were made of others. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Renditions(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    workers: Workers,
    decoder: Decoder,
    folder: PathBuf,
    cache: Cache,
    /// So that what many ask for at once is made once.
    turns: Vec<Arc<Mutex<()>>>,
    hashing: RandomState,
    /// How often something was decoded.
    #[cfg(test)]
    rendered: std::sync::atomic::AtomicUsize,
}

/// A picture that was made of another, on disk.
#[derive(Debug)]
pub struct Rendition {
    /// Open to read, from its beginning. It stays readable, whatever becomes of its name.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Its format.
    pub format: Format,
}

/// A picture that was made of another, in memory.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub sha256: Sha256,
    /// Its format.
    pub format: Format,
    /// Width and height in pixels.
    pub dimensions: (u32, u32),
}

/// What is wanted of one original, with nothing left open.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    original: ImageFormat,
    sha256: Sha256,
    params: Params,
}

impl Wanted {
    /// What `params` mean for an original of that digest and format, in gannet's word for it.
    ///
    /// # Errors
    ///
    /// When nothing can be made of such a file.
    pub fn new(sha256: Sha256, format: &str, params: Params) -> Result<Self, RenditionError> {
        let original = ImageFormat::named(format);
        let known = original.filter(|format| Decoder::knows(*format));
        let original = known.ok_or_else(|| RenditionError::Unsupported {
            what: original.map_or_else(|| format!("a `{format}` file"), |f| f.phrase().to_owned()),
        })?;
        Ok(Self {
            original,
            sha256,
            params: params.resolved(original),
        })
    }

    /// What tells it from all others, of this original and any other.
    pub fn key(&self) -> String {
        format!("{}-{}", self.sha256, self.params.key())
    }

    /// What stands behind the `?` of a URL below `/files/` that asks for it.
    pub fn query(&self) -> String {
        self.params.query()
    }

    /// The format that it has.
    pub fn format(&self) -> Format {
        self.params.format.unwrap_or(Output::Png).format()
    }
}

/// Why nothing was made of a picture.
#[derive(Debug, thiserror::Error)]
pub enum RenditionError {
    /// There is no decoder for it.
    #[error("{what} cannot be resized")]
    Unsupported {
        /// What it is, with an article.
        what: String,
    },
    /// It is too large, or damaged.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What was made could not be kept.
    #[error("cannot keep a rendition in `{}`", folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The work ended early.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl RenditionError {
    /// Whether it is the original that stands in the way.
    pub fn is_of_original(&self) -> bool {
        match self {
            Self::Unsupported { .. } => true,
            // One that cannot be read says nothing of itself.
            Self::Rejected(rejection) => rejection.reason != crate::target::Reason::StoreError,
            Self::Io { .. } | Self::Gone(_) => false,
        }
    }
}

impl Renditions {
    /// Keeps them in `folder`, which is made when it is missing. What an earlier process left half done is deleted.
    /// `pictures` limits what is decoded. `workers`: see [`Workers::new`].
    ///
    /// # Errors
    ///
    /// When there can be no such folder.
    pub fn new(
        folder: &Path,
        settings: &Settings,
        pictures: &picture::Settings,
        workers: usize,
    ) -> io::Result<Self> {
        Ok(Self(Arc::new(Shelf {
            workers: Workers::new(workers),
            decoder: Decoder::new(pictures),
            folder: folder.to_owned(),
            cache: Cache::open(folder, settings.max_bytes.as_u64())?,
            turns: (0..TURNS).map(|_| Arc::default()).collect(),
            hashing: RandomState::new(),
            #[cfg(test)]
            rendered: Default::default(),
        })))
    }

    /// Those that make them.
    pub fn workers(&self) -> &Workers {
        &self.0.workers
    }

    /// What is wanted of the original `source`, from disk where it has been made before. However many ask for it at
    /// once, it is made once. Who drops the future waits no longer.
    ///
    /// # Errors
    ///
    /// When `source` does not decode, or its rendition cannot be kept.
    pub async fn make(&self, source: Body, wanted: Wanted) -> Result<Rendition, RenditionError> {
        if let Some(found) = self.find(wanted).await? {
            return Ok(found);
        }
        let turn = self.0.turn(&wanted.key()).lock_owned().await;
        if let Some(found) = self.find(wanted).await? {
            return Ok(found);
        }
        let shelf = self.0.clone();
        let made = self.0.workers.run(move || {
            // Until it is kept, also where nobody waits for it any more.
            let _turn = turn;
            let (picture, _) = shelf.pixels(&source, wanted)?;
            let bytes = render::encode(picture, &wanted.params)?;
            let name = wanted.params.file_name(wanted.sha256);
            let kept = shelf.cache.keep(&name, &bytes);
            kept.map_err(|error| shelf.error(error))
        });
        let (file, bytes) = made.await??;
        let format = wanted.format();
        Ok(Rendition {
            file,
            bytes,
            format,
        })
    }

    async fn find(&self, wanted: Wanted) -> Result<Option<Rendition>, RenditionError> {
        let shelf = self.0.clone();
        let found = spawn_blocking(move || {
            let found = shelf.cache.find(&wanted.params.file_name(wanted.sha256));
            found.map_err(|error| shelf.error(error))
        });
        let found = found.await.map_err(|_| Gone)??;
        let format = wanted.format();
        Ok(found.map(|(file, bytes)| Rendition {
            file,
            bytes,
            format,
        }))
    }

    /// The same in memory, and not kept. `None`: it would be as large as the original, which is of the wanted format, so
    /// that nothing is to be done.
    ///
    /// # Errors
    ///
    /// When `source` does not decode.
    pub async fn replace(
        &self,
        source: Body,
        wanted: Wanted,
    ) -> Result<Option<Made>, RenditionError> {
        let shelf = self.0.clone();
        let made = self.0.workers.run(move || {
            let (picture, is_same) = shelf.pixels(&source, wanted)?;
            if is_same && wanted.original.format() == wanted.format() {
                return Ok::<_, Rejection>(None);
            }
            let dimensions = (picture.image.width(), picture.image.height());
            let bytes = render::encode(picture, &wanted.params)?;
            Ok(Some(Made {
                sha256: Sha256::of(&bytes),
                bytes: bytes.into(),
                format: wanted.format(),
                dimensions,
            }))
        });
        Ok(made.await??)
    }

    /// What `wanted` asks for, as pixels of 8 bits, in sRGB.
    ///
    /// # Errors
    ///
    /// When `source` does not decode.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        source: Body,
        wanted: Wanted,
        compute: impl FnOnce(DynamicImage) -> T + Send + 'static,
    ) -> Result<T, RenditionError> {
        let shelf = self.0.clone();
        let made = self.0.workers.run(move || {
            shelf
                .pixels(&source, wanted)
                .map(|(picture, _)| compute(picture.image))
        });
        Ok(made.await??)
    }
}

impl Rendition {
    /// Reads its width and height in pixels.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn dimensions(&self) -> Result<(u32, u32), RenditionError> {
        let file = Arc::new(self.file.try_clone().map_err(|_| Gone)?);
        let body = Body::File(file, self.bytes);
        let read = spawn_blocking(move || {
            let reader = ImageReader::new(body.reader()).with_guessed_format().ok()?;
            reader.into_dimensions().ok()
        });
        Ok(read.await.ok().flatten().ok_or(Gone)?)
    }
}

impl Shelf {
    fn turn(&self, key: &str) -> Arc<Mutex<()>> {
        let turns = self.turns.len() as u64;
        self.turns[(self.hashing.hash_one(key) % turns) as usize].clone()
    }

    /// And whether they are those of the original.
    fn pixels(&self, source: &Body, wanted: Wanted) -> Result<(Converted, bool), Rejection> {
        #[cfg(test)]
        self.rendered
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        render::render(&self.decoder, source, wanted.original, &wanted.params)
    }

    fn error(&self, source: io::Error) -> RenditionError {
        let folder = self.folder.clone();
        RenditionError::Io { folder, source }
    }
}

#[cfg(test)]
pub(crate) mod tests;
