//! gannet keeps a folder in step with lists of URLs: it fetches what is new, checks that every file is
//! what it claims, names it, keeps it so that no crash leaves half of it, and records it.
//!
//! The way of a URL, forward only, every hop a bounded channel:
//!
//! ```text
//! source ─► plan ─► frontier ─► downloader ─► stage ─► record ─► publish ─► announce
//! ```
//!
//! The rooms, from the ground up; each knows only rooms above it in this list:
//!
//! | room | what it does |
//! |---|---|
//! | [`fault`] | faults that tests ask for; in no release |
//! | [`target`] | the words that every room speaks |
//! | [`local_path`] | paths of the local file system, as given in settings and flags |
//! | [`clock`] | decides whether a recorded time can be believed |
//! | `metrics` | figures of the process, as they are counted |
//! | [`naming`] | names for files, from headers and lists, made safe |
//! | [`fetch`] | the one HTTP client, behind the egress guard |
//! | [`store`] | keeps bytes under names: stage, sync, publish |
//! | [`catalog`] | what is known: URLs, files, jobs, outcomes |
//! | [`source`] | reads lists |
//! | [`frontier`] | who is asked next: a polite lane per host |
//! | [`schedule`] | when a schedule is due |
//! | [`downloader`] | kinds of files, and how to tell that what arrived is one |
//! | [`rendition`] | smaller or converted pictures, made once |
//! | [`step`] | work on a file that has arrived |
//! | [`job`] | the engine that runs a job down the way |
//! | [`notify`] | delivers events: MQTT, webhooks, mail |
//! | [`api`] | jobs, schedules, albums and files over HTTP |
//! | [`daemon`] | runs schedules, unattended |
//! | [`telemetry`] | logs |
//! | [`config`] | the settings, and the layers they come from |
//! | [`demo`] | an origin for the demo, offline |
//! | [`cli`] | the subcommands |

pub mod api;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod downloader;
pub mod fault;
pub mod fetch;
pub mod frontier;
pub mod job;
pub mod local_path;
mod metrics;
pub mod naming;
pub mod notify;
pub mod rendition;
pub mod schedule;
pub mod source;
pub mod step;
pub mod store;
pub mod target;
pub mod telemetry;
