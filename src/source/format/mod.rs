//! The list formats, a file each.

mod counted;
mod json;
mod table;
mod tags;
mod text;
mod xml;

use url::Url;

use crate::source::ListFormat;
use crate::source::decode::Input;
use crate::source::error::Stop;
use crate::source::sink::SharedSink;

/// Longest element of a list that has no lines, in bytes of its notation.
const MAX_ELEMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Puts what `input` holds into `sink`, to the end or to the first place where the format breaks. `base` is the URL
/// of the list, if it has one.
pub(super) fn parse(
    format: ListFormat,
    input: Input,
    base: Option<Url>,
    sink: &SharedSink,
) -> Result<(), Stop> {
    match format {
        ListFormat::Text => text::parse(input, sink),
        ListFormat::Csv => table::parse(input, None, sink),
        ListFormat::Tsv => table::parse(input, Some(b'\t'), sink),
        ListFormat::Jsonl => json::parse(input, sink),
        ListFormat::Sitemap | ListFormat::Feed => xml::parse(input, format, base, sink),
    }
}
