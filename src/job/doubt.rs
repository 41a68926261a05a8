//! Decides whether to believe a bad result: bytes from several answers, and results that came through a proxy of the
//! pool.
//!
//! Bytes from several answers may belong to several versions of the file, whatever the validators say. So a file made
//! of such bytes is rejected only after one more request for the whole file.
//!
//! A proxy may alter what it carries, and may cut it off. So a rejection is believed once another proxy has brought
//! the same: one that has brought good files before, or several that have not. If another proxy brings a good file,
//! the earlier ones are to blame.

use std::time::{Duration, Instant};

use url::Url;

use crate::downloader::{DownloadError, Failure};
use crate::fetch::{FetchError, Via};
use crate::target::describe;

/// The next step after an attempt that did not bring an acceptable file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Count the attempt. The target is retried if the failure may pass, and otherwise has its outcome.
    Count,
    /// Request the whole file, because the parts of this one may not belong together. Its body is not continued.
    Whole,
    /// Ask another proxy, because this one may have altered the file or cut it off.
    AnotherProxy,
}

/// The facts behind the decision.
#[derive(Debug, Clone, Copy, Default)]
struct Evidence {
    /// Set if bytes of several answers made a file that is not acceptable.
    is_stitched: bool,
    /// Set if that has happened before.
    was_stitched: bool,
    /// For a failure that a proxy may have caused: whether that proxy has brought good files, and whether there are
    /// others.
    suspect: Option<(bool, bool)>,
    /// Number of earlier opinions.
    opinions: u32,
}

/// Parts that may not belong together are decided first, because no proxy is to blame for them.
fn next(evidence: Evidence) -> Next {
    let Evidence {
        is_stitched,
        was_stitched,
        suspect,
        opinions,
    } = evidence;
    match suspect {
        _ if is_stitched && !was_stitched => Next::Whole,
        Some((is_proven, true)) if !is_believed(opinions, is_proven) => Next::AnotherProxy,
        _ => Next::Count,
    }
}

/// Returns `true` if one more opinion is enough. It comes from a proxy that has brought good files if `is_proven`.
fn is_believed(opinions: u32, is_proven: bool) -> bool {
    opinions + 1 >= OPINIONS || opinions > 0 && is_proven
}

/// Opinions that make up for none of them coming from a proxy that is known to be good.
const OPINIONS: u32 = 4;

/// What proxies brought for one target.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Those that the redirects of this attempt came through, where they could have been made up.
    redirects: Vec<Via>,
    /// Those whose word is in question, as long as another one may say something else.
    vias: Vec<Via>,
    complaints: Vec<Complaint>,
    opinions: u32,
    /// Set if bytes of several answers have made a file that was not acceptable.
    was_stitched: bool,
    /// Set once the origin is believed to break bodies off or to be slow. Proxies are not blamed for that any more.
    origin_breaks_off: bool,
}

/// What one proxy did, perhaps.
#[derive(Debug)]
struct Complaint {
    via: Via,
    deed: Deed,
    /// Where redirects led that time.
    moved_to: Option<Url>,
    problem: String,
    at: Instant,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Redirected,
    Brought,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It may have altered what it brought.
    Altered,
    /// It cut it off.
    Cut,
    /// It was not waited for any longer than this.
    Late(Duration),
}

impl Doubts {
    /// Proxies that had better not be asked for this target.
    pub(super) fn vias(&self) -> &[Via] {
        &self.vias
    }

    /// Returns `true` if the target has to be requested as a whole, without continuing a body that is cut off.
    pub(super) fn wants_whole(&self) -> bool {
        self.was_stitched
    }

    /// A redirect came.
    pub(super) fn redirected(&mut self, via: Option<Via>) {
        self.redirects.extend(via.filter(Via::is_plain));
    }

    /// Decides the next step after a failure. `moved_to` is the URL that redirects led to.
    pub(super) fn next(&mut self, failure: &Failure, moved_to: Option<&Url>) -> Next {
        let redirects = std::mem::take(&mut self.redirects);
        // The origin announced this part.
        if failure.is_part {
            return Next::Count;
        }
        if let DownloadError::Store(_)
        | DownloadError::Robots(_)
        | DownloadError::Fetch(FetchError::Proxies { .. }) = failure.error
        {
            return Next::Count;
        }
        let brought = failure.via.clone();
        let breaks_off = !matches!(kind(&failure.error), Kind::Altered);
        let is_known = breaks_off && self.origin_breaks_off;
        let brought = brought.filter(|via| !is_known && may_be_a_proxys(&failure.error, via));
        // Whoever sent it elsewhere answers for what is there.
        let last = redirects.first().or(brought.as_ref()).cloned();
        let is_rejected = matches!(failure.error, DownloadError::Rejected(_));
        let next = next(Evidence {
            is_stitched: is_rejected && failure.is_stitched,
            was_stitched: self.was_stitched,
            suspect: last.as_ref().map(|via| {
                let asked = [&self.vias[..], std::slice::from_ref(via)].concat();
                (via.is_proven(), via.has_other_than(&asked))
            }),
            opinions: self.opinions,
        });
        self.was_stitched |= next == Next::Whole;
        let Some(last) = last.filter(|_| next != Next::Whole) else {
            return next;
        };
        self.opinions += 1;
        let redirected = redirects.into_iter().map(|via| (via, Deed::Redirected));
        let suspects = redirected.chain(brought.map(|via| (via, Deed::Brought)));
        let complaint = |(via, deed)| Complaint {
            via,
            deed,
            moved_to: moved_to.cloned(),
            problem: describe(&failure.error),
            at: Instant::now(),
            kind: kind(&failure.error),
        };
        self.complaints.extend(suspects.map(complaint));
        self.vias.push(last);
        if next == Next::Count {
            self.origin_breaks_off |= breaks_off;
            // What a later attempt brings says nothing of those that agreed in this one.
            self.vias.clear();
            self.complaints.clear();
            self.opinions = 0;
        }
        next
    }

    /// A good file came through `via`, from `moved_to` where redirects led.
    pub(super) fn resolve(&mut self, via: Option<&Via>, moved_to: Option<&Url>) {
        if let Some(via) = via {
            via.accept();
        }
        self.vias.clear();
        for complaint in self.complaints.drain(..) {
            // Where the same redirect came again it was right, and who brought something from elsewhere may have been.
            let is_from_there = complaint.moved_to.as_ref() == moved_to;
            if is_from_there == (complaint.deed == Deed::Redirected) {
                continue;
            }
            let (via, problem) = (complaint.via, complaint.problem);
            match complaint.kind {
                Kind::Altered => via.blame(&problem),
                Kind::Cut => via.did_worse(problem),
                // This one may have been waited for longer.
                Kind::Late(waited) if complaint.at.elapsed() < waited => via.did_worse(problem),
                Kind::Late(_) => {}
            }
        }
    }
}

fn kind(error: &DownloadError) -> Kind {
    match error {
        DownloadError::Fetch(FetchError::Truncated { .. } | FetchError::Reset { .. }) => Kind::Cut,
        DownloadError::Fetch(
            FetchError::Timeout { limit: waited, .. } | FetchError::TooSlow { window: waited, .. },
        ) => Kind::Late(*waited),
        _ => Kind::Altered,
    }
}

/// Whether the proxy may be what made it fail: it could have altered the answer, or cut it off.
fn may_be_a_proxys(error: &DownloadError, via: &Via) -> bool {
    let DownloadError::Fetch(error) = error else {
        return via.is_plain();
    };
    match error {
        FetchError::Truncated { .. }
        | FetchError::Reset { .. }
        | FetchError::Timeout { .. }
        | FetchError::TooSlow { .. } => true,
        // Who asks for a rest gets it.
        FetchError::Status { status: 429, .. }
        | FetchError::Status {
            retry_after: Some(_),
            ..
        } => false,
        _ => via.is_plain(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_once_nothing_else_can_explain_it() {
        let (proven, unproven) = (Some((true, true)), Some((false, true)));
        let (last_proven, last_unproven) = (Some((true, false)), Some((false, false)));
        for (is_stitched, was_stitched, suspect, opinions, expected) in [
            // One answer, and no proxy: believed at once.
            (false, false, None, 0, Next::Count),
            (false, true, None, 0, Next::Count),
            // Several answers: requested once more, and only once.
            (true, false, None, 0, Next::Whole),
            (true, true, None, 0, Next::Count),
            // That comes before any proxy is suspected.
            (true, false, unproven, 0, Next::Whole),
            (true, false, proven, 3, Next::Whole),
            (true, false, last_unproven, 0, Next::Whole),
            // After that, each proxy has a say, as with a single answer.
            (false, true, unproven, 0, Next::AnotherProxy),
            (false, false, unproven, 0, Next::AnotherProxy),
            (false, false, proven, 0, Next::AnotherProxy),
            (false, false, unproven, 1, Next::AnotherProxy),
            (false, false, proven, 1, Next::Count),
            (false, false, unproven, OPINIONS - 2, Next::AnotherProxy),
            (false, false, unproven, OPINIONS - 1, Next::Count),
            // If there is no other proxy, the last one is believed.
            (false, false, last_proven, 0, Next::Count),
            (false, false, last_unproven, 0, Next::Count),
        ] {
            let evidence = Evidence {
                is_stitched,
                was_stitched,
                suspect,
                opinions,
            };
            assert_eq!(next(evidence), expected, "{evidence:?}");
        }
    }
}
