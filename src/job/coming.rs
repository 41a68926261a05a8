//! Counts what is still coming to the keeper.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tickets, and plans that may bring more, that have not reached the keeper. While there are none, the
/// keeper need not wait for others.
#[derive(Debug, Clone, Default)]
pub(super) struct Coming(Arc<AtomicUsize>);

/// One of them, until it is dropped: on its arrival, or wherever else it ends.
#[derive(Debug)]
pub(super) struct OneComing(Coming);

impl Coming {
    pub(super) fn one(&self) -> OneComing {
        self.0.fetch_add(1, Ordering::Relaxed);
        OneComing(self.clone())
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for OneComing {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_ended_on_its_way() {
        let coming = Coming::default();
        let (plan, ticket) = (coming.one(), coming.one());
        drop(ticket);
        assert!(!coming.is_none());
        let ended = std::panic::catch_unwind(move || {
            let _plan = plan;
            panic!("as a plan might");
        });
        assert!(ended.is_err() && coming.is_none());
    }
}
