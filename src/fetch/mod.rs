//! The one HTTP client of the process.
//!
//! - [`Client`] sends a [`Request`] and gives a [`Response`], whose body comes in chunks, decoded and within
//!   the limits of [`Settings`].
//! - [`Guard`] judges addresses. Every request passes it: a literal address before it is sent, a name at the
//!   moment of connecting, a proxy as well, and each redirect anew, since [`Client::send`] goes one hop.
//! - [`FetchError`] says why there is no body: its reason, and whether another attempt may help;
//!   [`backoff`] how long to wait for it.
//! - [`Validators`] and [`Resume`] ask for a body only if it changed, or for the rest of it. Validators are kept as
//!   [`StoredValidators`], with the URL that sent them.
//! - [`Via`] is the proxy of a pool that an answer came through, and takes a verdict on it.
//! - [`Trail`] keeps the state of one chain of requests: redirects and their freshness, cookies, challenges.
//!   [`Client::next`] decides what to do after an answer. [`Robots`] reads robots.txt, and [`Refusal`] is an answer
//!   that asks robots not to use the file.
//!
//! This room knows nothing of jobs, lanes or files. Retrying is up to the caller, who schedules requests. There are
//! no cookies beyond a chain, no caches of bodies, and no way around the guard: `clippy.toml` closes reqwest's own
//! entrances to other rooms.

mod agent;
mod backoff;
mod bandwidth;
mod body;
mod caching;
mod classify;
mod client;
mod coding;
mod cookies;
mod digest;
mod error;
mod guard;
mod headers;
mod hosts;
mod netrc;
mod pool;
mod proxy;
mod ranges;
mod redirect;
mod refusal;
mod relay;
mod resolver;
mod response;
mod robots;
mod settings;
pub(crate) mod tls;
mod wire;

pub use backoff::{backoff, failure_backoff};
pub use bandwidth::{InvalidMaxRate, MaxRate};
pub use caching::{LONGEST, Resume, StoredValidators, Validators, recorded_url, retry_after};
pub use client::{Asked, Client, Posted, Request};
pub(crate) use coding::{begins_gzip, begins_zstd};
pub use cookies::Jar as CookieJar;
pub use error::{Cause, FetchError, Phase, RedirectProblem, SetupError, is_retriable_status};
pub use guard::{Denied, Guard};
pub use hosts::{Hosts, Shared, authority, host_name};
pub use pool::{
    Checked, Health as ProxyHealth, ProxyUrl, Rotation, Settings as ProxySettings, Via,
};
pub use ranges::Range;
pub use redirect::{Next, Trail};
pub use refusal::{Price, Refusal, RobotsTag};
pub use response::Response;
pub use robots::{Permission, Robots, Verdict};
pub use settings::{
    Auth, Effective, Headers, HostSettings, InvalidHeader, InvalidNetwork, ProxySetting, Settings,
    parse_network,
};
