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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_work_at_a_time_than_they_are() {
        let workers = Workers::new(3);
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..100).map(|n| {
            let (workers, busy, most) = (workers.clone(), busy.clone(), most.clone());
            tokio::spawn(async move {
                let work = move || {
                    most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    busy.fetch_sub(1, Ordering::SeqCst);
                    n
                };
                workers.run(work).await.unwrap()
            })
        });
        for (n, work) in work.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(work.await.unwrap(), n);
        }
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn work_that_panics_leaves_its_place() {
        let workers = Workers::new(1);
        let work = workers.run(|| panic!("as the test wants it"));
        assert_eq!(work.await, Err::<(), _>(Gone));
        assert_eq!(workers.run(|| 1).await, Ok(1));
    }
}
