//! gannet keeps a folder in step with lists of URLs.

pub mod catalog;
pub mod config;
pub mod demo;
pub mod downloader;
pub mod fetch;
pub mod frontier;
pub mod job;
pub mod naming;
pub mod source;
pub mod store;
pub mod target;
pub mod telemetry;
