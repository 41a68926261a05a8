//! `[renditions]`.

use bytesize::ByteSize;
use serde::Deserialize;

/// `[renditions]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How much they may take on disk, in bytes. The oldest go.
    pub max_bytes: ByteSize,
}
