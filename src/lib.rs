//! gannet keeps a folder in step with lists of URLs.

pub mod target;
