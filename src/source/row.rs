//! What CSV, TSV and JSON Lines have in common: columns, and the row that they make.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::source::address::{self, Refusal};
use crate::source::{Entry, Invalid};
use crate::target::{AlbumName, Sha256, Target};

/// Longest group name, in bytes.
const MAX_GROUP_BYTES: usize = 255;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Url,
    /// A column that holds the URL where none is called `url`; the lower rank wins.
    MaybeUrl(usize),
    Name,
    Album,
    Sha256,
    Group,
    Other,
}

impl Column {
    /// What a column of this name holds; case, spaces and hyphens do not matter.
    pub(super) fn of(name: &str) -> Self {
        const MAYBE: [&str; 7] = [
            "image_url",
            "imageurl",
            "image",
            "link",
            "src",
            "href",
            "enclosure",
        ];
        let name: String = name
            .trim()
            .trim_start_matches('\u{feff}')
            .chars()
            .map(|c| match c {
                ' ' | '-' => '_',
                c => c.to_ascii_lowercase(),
            })
            .collect();
        match name.as_str() {
            "url" => Self::Url,
            "name" | "filename" | "file_name" => Self::Name,
            "album" => Self::Album,
            "sha256" => Self::Sha256,
            "group" => Self::Group,
            other => MAYBE
                .iter()
                .position(|maybe| *maybe == other)
                .map_or(Self::Other, Self::MaybeUrl),
        }
    }

    /// Whether it is a column that gannet reads, so that a row of such names is a header.
    pub(super) fn may_hold_url(self) -> bool {
        matches!(self, Self::Url | Self::MaybeUrl(_))
    }
}

/// Which of `columns` holds the URL.
pub(super) fn url_column(columns: impl Iterator<Item = Column>) -> Option<usize> {
    columns
        .enumerate()
        .filter_map(|(at, column)| match column {
            Column::Url => Some((0, at)),
            Column::MaybeUrl(rank) => Some((rank + 1, at)),
            _ => None,
        })
        .min()
        .map(|(_, at)| at)
}

/// Cells of one row as they come in. Text is as the list has it.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    pub(super) url: &'a [u8],
    pub(super) name: Option<String>,
    pub(super) album: Option<&'a str>,
    pub(super) sha256: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) metadata: Map<String, Value>,
}

/// Makes entries of rows; neighbours share the text of their album and group.
#[derive(Debug, Default)]
pub(super) struct RowReader {
    album: Option<AlbumName>,
    group: Option<Arc<str>>,
}

impl RowReader {
    /// The entry for a row. An empty cell says nothing; a cell that makes no sense spoils its row.
    pub(super) fn entry(&mut self, row: Row<'_>, line: u64) -> Entry {
        let text = row.url;
        match self.target(row, line) {
            Ok(target) => Entry::Target(target),
            Err(refusal) => Entry::Invalid(refusal.at(Some(line), &String::from_utf8_lossy(text))),
        }
    }

    fn target(&mut self, row: Row<'_>, line: u64) -> Result<Target, Refusal> {
        if row.url.trim_ascii().is_empty() {
            return Err(Refusal::invalid("the URL is empty"));
        }
        let mut target = Target::new(address::parse(row.url)?);
        target.line = Some(line);
        target.name = row.name.filter(|name| !name.trim().is_empty());
        target.album = self.album(row.album)?;
        if let Some(digits) = row.sha256.map(str::trim).filter(|text| !text.is_empty()) {
            let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
            target.sha256 = Some(
                digits
                    .parse::<Sha256>()
                    .map_err(|error| Refusal::invalid(format!("column `sha256`: {error}")))?,
            );
        }
        target.group = self.group(row.group)?;
        if !row.metadata.is_empty() {
            target.metadata = Some(Box::new(row.metadata));
        }
        Ok(target)
    }

    fn album(&mut self, text: Option<&str>) -> Result<Option<AlbumName>, Refusal> {
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if self.album.as_ref().is_none_or(|last| last.as_str() != text) {
            let album = AlbumName::listed(text)
                .map_err(|error| Refusal::invalid(format!("column `album`: {error}")))?;
            self.album = Some(album);
        }
        Ok(self.album.clone())
    }

    fn group(&mut self, text: Option<&str>) -> Result<Option<Arc<str>>, Refusal> {
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if self.group.as_deref() != Some(text) {
            if text.len() > MAX_GROUP_BYTES || text.contains(char::is_control) {
                return Err(Refusal::invalid(format!(
                    "column `group`: a group has at most {MAX_GROUP_BYTES} bytes and no control characters"
                )));
            }
            self.group = Some(text.into());
        }
        Ok(self.group.clone())
    }
}

/// The entry for a line that is too long to be read.
pub(super) fn overlong(line: u64, start: &[u8]) -> Entry {
    let detail = format!(
        "the line is longer than {} KiB",
        super::lines::MAX_LINE_BYTES / 1024
    );
    invalid(line, start, detail)
}

/// An entry for what cannot be read as a row at all.
pub(super) fn invalid(line: u64, text: &[u8], detail: impl Into<String>) -> Entry {
    // Lossy text is bounded first: `shown` looks at no more than this.
    let text = &text[..text.len().min(8 * 1024)];
    let invalid: Invalid = Refusal::invalid(detail).at(Some(line), &String::from_utf8_lossy(text));
    Entry::Invalid(invalid)
}
