//! Memory for decoding, shared by all that decode at a time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytesize::ByteSize;

use crate::downloader::Rejection;
use crate::target::Reason;

/// A budget of bytes. Whoever wants more than is left waits, in the order of asking.
#[derive(Debug)]
pub(super) struct Memory {
    budget: u64,
    /// Bytes that nobody holds. Locked for sums only.
    free: Mutex<u64>,
    freed: Condvar,
    /// Held by the one who waits, so that small pictures do not pass a large one by for ever.
    turn: Mutex<()>,
}

/// Bytes of the budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Memory, u64);

impl Memory {
    pub(super) const fn new(budget: u64) -> Self {
        Self {
            budget,
            free: Mutex::new(budget),
            freed: Condvar::new(),
            turn: Mutex::new(()),
        }
    }

    /// Bytes that can be held at most.
    pub(super) const fn budget(&self) -> u64 {
        self.budget
    }

    /// Waits for `bytes`. Blocks the thread, and must not be asked by one that holds some already.
    ///
    /// # Errors
    ///
    /// When they are more than the whole budget.
    pub(super) fn hold(&self, bytes: u64) -> Result<Held<'_>, Rejection> {
        if bytes > self.budget {
            return Err(Rejection::new(
                Reason::DecodeMemory,
                format!(
                    "needs {} of memory to decode, more than `image.decode_memory` ({}) allows",
                    ByteSize(bytes),
                    ByteSize(self.budget)
                ),
            ));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(self.free(), |free| *free < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Ok(Held(self, bytes))
    }

    fn free(&self) -> MutexGuard<'_, u64> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.0.free() += self.1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn no_more_is_held_at_a_time_than_the_budget() {
        let memory = Memory::new(10);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for n in 0..64 {
                let (memory, held, most) = (&memory, &held, &most);
                scope.spawn(move || {
                    let bytes = n % 10 + 1;
                    let _held = memory.hold(bytes).unwrap();
                    let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    held.fetch_sub(bytes, Ordering::SeqCst);
                });
            }
        });
        assert!(most.into_inner() <= 10);
        assert_eq!(*memory.free(), 10);
        let rejection = memory.hold(11).unwrap_err();
        assert_eq!(rejection.reason, Reason::DecodeMemory);
        assert!(rejection.detail.contains("`image.decode_memory` (10 B)"));
    }
}
