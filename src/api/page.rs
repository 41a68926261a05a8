//! Long lists, page by page.

use serde::Serialize;

/// Some of a list, in the order of a key.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    items: Vec<T>,
    /// What `cursor` has to be for the next page; `None`: this is the last one.
    next: Option<String>,
}

impl<T> Page<T> {
    /// All of a short list.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}
