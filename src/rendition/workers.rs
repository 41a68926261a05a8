//! Threads for what takes a processor.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Does what takes a processor, a few at a time. The others wait, in the order of asking. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Semaphore>);

/// The work ended before it was done: it panicked, or the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker thread ended early")]
pub struct Gone;

impl Workers {
    /// As many as there are processors, or `count` where that is not 0.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(Self::count(count))))
    }

    pub(crate) fn count(count: usize) -> usize {
        match count {
            0 => available_parallelism().map_or(1, usize::from),
            count => count.min(Semaphore::MAX_PERMITS),
        }
    }

    /// Does `work`. Whoever drops this before it began takes it back; what has begun goes on to its end, and keeps its
    /// worker until then.
    ///
    /// # Errors
    ///
    /// When the work panics, or the process ends.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let permit = self.0.clone().acquire_owned().await.map_err(|_| Gone)?;
        let worked = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        worked.await.map_err(|_| Gone)
    }
}
