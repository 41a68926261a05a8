//! Whether what came through a proxy of the pool is believed when it is no good.
//!
//! A proxy may alter what it sees, and cut off whatever it carries. So a rejection is believed once another proxy brought the same: one
//! that has brought good files, or several that have not. Where another one brings a good file, those before are to blame.

use std::time::{Duration, Instant};

use url::Url;

use crate::downloader::{DownloadError, Failure};
use crate::fetch::{FetchError, Via};
use crate::target::describe;

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
    asked_again: u32,
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

    /// Attempts that were made for another opinion only.
    pub(super) fn asked_again(&self) -> u32 {
        self.asked_again
    }

    /// A redirect came.
    pub(super) fn redirected(&mut self, via: Option<Via>) {
        self.redirects.extend(via.filter(Via::is_plain));
    }

    /// The target came to nothing, at `moved_to` where redirects led. Answers whether it is to be asked for once more,
    /// through another proxy.
    pub(super) fn wants_another(&mut self, failure: &Failure, moved_to: Option<&Url>) -> bool {
        let redirects = std::mem::take(&mut self.redirects);
        if let DownloadError::Store(_)
        | DownloadError::Robots
        | DownloadError::Fetch(FetchError::Proxies { .. }) = failure.error
        {
            return false;
        }
        let brought = failure.via.clone();
        let brought = brought.filter(|via| may_be_a_proxys(&failure.error, via));
        // Whoever sent it elsewhere answers for what is there.
        let Some(last) = redirects.first().or(brought.as_ref()).cloned() else {
            return false;
        };
        let is_believed = self.opinions + 1 >= OPINIONS || self.opinions > 0 && last.is_proven();
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
        self.vias.push(last.clone());
        let wants = !is_believed && last.has_other_than(&self.vias);
        if !wants {
            // What a later attempt brings says nothing of those that agreed in this one.
            self.vias.clear();
            self.complaints.clear();
            self.opinions = 0;
        }
        self.asked_again += u32::from(wants);
        wants
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
