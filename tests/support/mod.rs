//! What tests of the program from outside share: `mod support;`.
//!
//! [`Sandbox`] is a folder in which the real binary runs; [`Site`] an origin whose answers a test computes,
//! and holds back for as long as it likes; [`pictures`] makes small valid files.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    unused_imports,
    clippy::unwrap_used,
    reason = "every test file takes what it needs of this module"
)]

pub mod catalog;
pub mod checker;
pub mod daemon;
pub mod http;
pub mod pictures;
pub mod postgres;
pub mod proxies;
pub mod receivers;
pub mod sandbox;
pub mod site;

pub use daemon::{Daemon, Manager};
pub use receivers::{Hook, Says};
pub use sandbox::{Report, Run, Running, Sandbox};
pub use site::{Answer, Asked, Site};

/// Hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    gannet::target::Sha256::of(bytes).to_string()
}
