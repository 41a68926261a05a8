//! Lists out of bytes, for the tests of this room.

use std::io::Cursor;

use crate::source::detect::Hints;
use crate::source::list::parse_on_thread;
use crate::source::{Entry, List, ListFormat, SourceError};
use crate::target::Target;

/// Opens the list that `bytes` hold.
pub(super) async fn open(
    format: Option<ListFormat>,
    bytes: impl AsRef<[u8]> + Send + 'static,
) -> Result<List, SourceError> {
    let hints = Hints {
        format,
        ..Hints::default()
    };
    parse_on_thread("list".to_owned(), hints, None, move |_| {
        Ok(Box::new(Cursor::new(bytes)))
    })
    .await
}

/// Reads a list to its end, or to the error that ends it.
pub(super) async fn drain(mut list: List) -> (Vec<Entry>, Option<SourceError>) {
    drain_from(&mut list).await
}

async fn drain_from(list: &mut List) -> (Vec<Entry>, Option<SourceError>) {
    let mut all = Vec::new();
    loop {
        match list.next_chunk().await {
            Ok(Some(entries)) => {
                assert!((1..=super::CHUNK_ENTRIES).contains(&entries.len()));
                all.extend(entries);
            }
            Ok(None) => return (all, None),
            Err(error) => {
                assert!(matches!(list.next_chunk().await, Ok(None)));
                return (all, Some(error));
            }
        }
    }
}

/// The entries of a list, and the error that ends it.
pub(super) fn entries_until_failure(
    format: ListFormat,
    bytes: &[u8],
) -> (Vec<Entry>, Option<String>) {
    read(Some(format), bytes)
}

/// As [`entries_until_failure`], where the format may be left to be found out.
pub(super) fn read(format: Option<ListFormat>, bytes: &[u8]) -> (Vec<Entry>, Option<String>) {
    let (entries, _, failure) = read_noticing(format, bytes);
    (entries, failure)
}

/// Like [`read`], with the texts of notices in between.
pub(super) fn read_noticing(
    format: Option<ListFormat>,
    bytes: &[u8],
) -> (Vec<Entry>, Vec<String>, Option<String>) {
    let bytes = bytes.to_vec();
    let mut texts = Vec::new();
    let (entries, error) = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(async {
            match open(format, bytes).await {
                Ok(mut list) => {
                    let read = drain_from(&mut list).await;
                    texts.extend(list.notices().into_iter().map(|notice| notice.text));
                    read
                }
                Err(error) => (Vec::new(), Some(error)),
            }
        });
    (entries, texts, error.map(|error| with_causes(&error)))
}

/// An error's text, and that of what caused it.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_causes(source)),
        None => error.to_string(),
    }
}

/// The entries of a list that is whole.
pub(super) fn entries(format: ListFormat, bytes: &[u8]) -> Result<Vec<Entry>, String> {
    match entries_until_failure(format, bytes) {
        (entries, None) => Ok(entries),
        (_, Some(failure)) => Err(failure),
    }
}

/// The error that ends a list, with its causes.
pub(super) fn failure(format: ListFormat, list: &str) -> String {
    entries_until_failure(format, list.as_bytes())
        .1
        .unwrap_or_else(|| panic!("{list:.100} is a list"))
}

/// A list in short: `LINE URL`, or `LINE !REASON TEXT`.
pub(super) fn said(format: ListFormat, list: &str) -> Vec<String> {
    entries(format, list.as_bytes())
        .unwrap_or_else(|failure| panic!("{list:.100}: {failure}"))
        .iter()
        .map(short)
        .collect()
}

/// An entry in short.
pub(super) fn short(entry: &Entry) -> String {
    let (line, text) = match entry {
        Entry::Target(target) => (target.line, target.url.to_string()),
        Entry::Invalid(invalid) => (
            invalid.line,
            format!("!{} {}", invalid.reason, invalid.text),
        ),
    };
    match line {
        Some(line) => format!("{line} {text}"),
        None => text,
    }
}

/// The targets among entries.
pub(super) fn targets(entries: &[Entry]) -> Vec<&Target> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Target(target) => Some(target),
            Entry::Invalid(_) => None,
        })
        .collect()
}
