//! A request that goes through a pool of proxies: which of them are asked, and who is to blame.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::body::Limits;
use super::caching;
use super::client::{Arrived, Client};
use super::error::{Cause, FetchError, Phase};
use super::hosts::host_name;
use super::pool::{NoRide, Pool, Via};
use crate::target::describe;

/// Most proxies that one request is sent through.
const MOST: usize = 8;

/// So many proxies that have delivered before have to fail alike before the target is taken to be what fails.
const WITNESSES: usize = 2;

/// The proxies that were asked, and what they said.
#[derive(Default)]
struct Tour {
    asked: Vec<Via>,
    /// Those that failed in a way that may be the target's, and how.
    suspects: Vec<Suspect>,
    /// Among them those that have delivered before.
    witnesses: usize,
    /// Those that led to a server which is not trusted.
    untrusted: usize,
    /// One of them said that the target does not answer: 502, 503 or 504, as proxies do.
    has_gateway_fault: bool,
    last: Option<FetchError>,
    /// The target's name was judged, for proxies that resolve it.
    is_judged: bool,
}

/// A proxy that failed where another one may do better.
struct Suspect {
    via: Via,
    problem: String,
    /// How long it was waited for, where that was its failure.
    waited: Option<Duration>,
}

impl Client {
    /// Sends a GET through one proxy after the other until one brings an answer; first those that are not in `avoid`.
    pub(super) async fn send_through(
        &self,
        pool: &Arc<Pool>,
        url: &Url,
        query: Option<&str>,
        avoid: &[Via],
        headers: HeaderMap,
        limits: Limits,
    ) -> Result<Arrived, FetchError> {
        pool.tend(|| self.downgrade());
        let host = host_name(url).unwrap_or_default();
        let is_plain = url.scheme() == "http";
        let mut tour = Tour::default();
        loop {
            let is_over = tour.asked.len() >= MOST || tour.witnesses >= WITNESSES;
            if is_over {
                let mut none = pool.no_ride();
                if pool.has_other(&tour.asked) {
                    // Nobody has to come back for the next attempt.
                    none.back_in = None;
                }
                return Err(tour.give_up(host, none));
            }
            // Lists and probes may take longer than there is time.
            let ride = pool.ride(host, &tour.asked, avoid);
            let ride = timeout_at(limits.deadline.at, ride).await;
            let ride = match ride.unwrap_or_else(|_| Err(pool.no_ride())) {
                Ok(ride) => Some(ride),
                // Not for a target that is out of reach for proxies that work.
                Err(_) if pool.settings().fall_back_to_direct && !pool.has_proven() => None,
                Err(none) => return Err(tour.give_up(host, none)),
            };
            let via = ride.as_ref().map(|ride| ride.via(is_plain));
            tour.asked.extend(via.clone());
            let is_last = tour.witnesses + 1 >= WITNESSES
                || tour.asked.len() >= MOST
                || !pool.has_other(&tour.asked);
            let head_limits = match is_last {
                true => limits,
                false => impatient(limits, pool),
            };
            // A body that is cut off goes on through the next proxy, which is not hurried then.
            let limits = match avoid.is_empty() {
                true => head_limits,
                false => limits,
            };
            let begun = Instant::now();
            let admitted = self.wire.admit_once(url, ride, &mut tour.is_judged);
            let admitted = admitted.await?.asking(query);
            let answer = self
                .wire
                .execute(admitted, url, &headers, None, head_limits);
            let error = match (answer.await, via) {
                (Ok(head), Some(via)) => {
                    let status = head.response.status().as_u16();
                    let is_gateway_fault = is_plain
                        && matches!(status, 502..=504)
                        && caching::retry_after(head.response.headers(), SystemTime::now())
                            .is_none();
                    if is_gateway_fault && !tour.has_gateway_fault && !is_last {
                        tour.has_gateway_fault = true;
                        tour.suspects.push(Suspect {
                            via,
                            problem: format!("it answered {status}"),
                            waited: None,
                        });
                        tour.last = Some(FetchError::Status {
                            url: url.into(),
                            status,
                            retry_after: None,
                            advice: None,
                        });
                        continue;
                    }
                    via.answered();
                    // A proxy may say with any 5xx that there is no connection. Who was not waited for as long as this
                    // one took did no worse either.
                    let took = begun.elapsed();
                    let is_better = |suspect: &Suspect| {
                        status < 500 && suspect.waited.is_none_or(|waited| took < waited)
                    };
                    for suspect in tour.suspects.into_iter().filter(is_better) {
                        suspect.via.did_worse(suspect.problem);
                    }
                    // Two that say the same are no proxies' fault.
                    let via = Some(via).filter(|_| !(is_gateway_fault && tour.has_gateway_fault));
                    return Ok(Arrived { head, limits, via });
                }
                (Ok(head), None) => {
                    return Ok(Arrived {
                        head,
                        limits,
                        via: None,
                    });
                }
                // The direct way says all there is to say of the target.
                (Err(unanswered), None) => return Err(unanswered.error),
                (Err(unanswered), Some(via)) => {
                    let problem = describe(&unanswered.error);
                    if unanswered.is_proxys_own {
                        via.failed(problem);
                    } else if may_be_a_proxys(&unanswered.error) {
                        tour.witnesses += usize::from(via.is_proven());
                        tour.untrusted +=
                            usize::from(matches!(unanswered.error, FetchError::Tls { .. }));
                        let is_late = matches!(unanswered.error, FetchError::Timeout { .. });
                        let waited = is_late.then(|| begun.elapsed());
                        tour.suspects.push(Suspect {
                            via,
                            problem,
                            waited,
                        });
                    } else {
                        return Err(unanswered.error);
                    }
                    unanswered.error
                }
            };
            tracing::debug!(
                url.host = host,
                "another proxy is asked: {}",
                describe(&error)
            );
            tour.last = Some(error);
        }
    }
}

impl Tour {
    /// What to say when no proxy brought an answer.
    fn give_up(self, host: &str, none: NoRide) -> FetchError {
        let tried = self.asked.len();
        match self.last {
            // Proxies that work agree, so that it is the target.
            Some(FetchError::Proxy { source, .. }) if self.witnesses >= WITNESSES => {
                FetchError::Connect {
                    host: host.to_owned(),
                    source: Cause(format!("{tried} proxies gave no connection; {source}")),
                }
            }
            Some(error) if self.witnesses >= WITNESSES => error,
            Some(error @ FetchError::Tls { .. }) if self.untrusted >= WITNESSES => error,
            last => {
                let problem = last.map(|error| describe(&error)).or(none.problem);
                FetchError::Proxies {
                    host: host.to_owned(),
                    count: none.count,
                    tried,
                    aside: none.aside,
                    back_in: none.back_in,
                    source: Cause(
                        problem.unwrap_or_else(|| "there is no proxy in the pool".to_owned()),
                    ),
                }
            }
        }
    }
}

/// Whether a proxy may have caused this failure. It never is one of the target alone: whatever the proxy reports, it may be wrong.
fn may_be_a_proxys(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Proxy { .. }
            | FetchError::Connect { .. }
            | FetchError::Tls { .. }
            | FetchError::Reset { .. }
            | FetchError::BadResponse { .. }
            | FetchError::Denied { .. }
            | FetchError::Dns { .. }
            | FetchError::Timeout {
                phase: Phase::Connect | Phase::Head,
                ..
            }
    )
}

/// Limits for as long as another proxy could be asked.
fn impatient(limits: Limits, pool: &Pool) -> Limits {
    let patience = pool.patience();
    Limits {
        idle: limits.idle.min(patience),
        min_speed: limits.min_speed.max(pool.least_speed()),
        window: limits.window.min(patience),
        ..limits
    }
}
