//! How many files and connections this process may hold open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process holds open however little it does: the catalog, the list, reports, logs, the runtime.
const BASE: u64 = 64;

/// What one worker may hold open: a spooled body, a name look-up, and a connection to each kind of address.
const PER_WORKER: u64 = 4;

/// How many of the `wanted` workers there is room for. Raises the process's soft limit to the hard one.
pub(super) fn workers(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    let Some(limit) = current else {
        return wanted;
    };
    let room = room(limit);
    if room >= wanted {
        return wanted;
    }
    tracing::warn!(
        "only {room} requests at a time instead of `fetch.concurrency = {wanted}`: this process may hold no \
         more than {limit} files open; raise the hard limit (`ulimit -Hn`, or `LimitNOFILE` of systemd)"
    );
    room
}

fn room(limit: u64) -> usize {
    let workers = limit.saturating_sub(BASE) / PER_WORKER;
    usize::try_from(workers).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_one_worker_at_least() {
        assert_eq!([0, 64, 71, 72, 1024].map(room), [1, 1, 1, 2, 240]);
    }
}
