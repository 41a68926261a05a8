//! The words that every room speaks: [`Target`], [`Outcome`], [`Reason`], [`AlbumName`], [`Sha256`].
//!
//! This room knows no other room. Everything here is plain data: cheap to move, free of I/O.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};
use url::Url;

/// One URL to fetch, with what the list says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What to fetch, normalised by the URL standard (WHATWG). May hold credentials: print it as [`SafeUrl`].
    pub url: Url,
    /// Where it stands in its list, counted from 1; `None` for URLs that no list holds.
    pub line: Option<u64>,
    /// The name that the list asks for, as written there. `naming` makes it safe.
    pub name: Option<String>,
    /// The album that the list asks for; `None` means the job's album.
    pub album: Option<AlbumName>,
    /// What the list promises about the bytes.
    pub sha256: Option<Sha256>,
    /// The group that the list puts it in.
    pub group: Option<Arc<str>>,
    /// Other columns of the list, kept with the file; `None` when there are none.
    pub metadata: Option<Box<serde_json::Map<String, serde_json::Value>>>,
    /// Where it stands in a posted job; `None` in all other jobs.
    pub place: Option<Place>,
}

impl Target {
    /// A target about which nothing but its URL is known.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            line: None,
            name: None,
            album: None,
            sha256: None,
            group: None,
            metadata: None,
            place: None,
        }
    }
}

/// What a failure means for the rest of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Nothing: its targets run in any order, beside each other.
    #[default]
    Continue,
    /// Its targets run in order, and none behind the failure.
    Stop,
}

impl OnError {
    /// The word for it in the API and the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Stop => "stop",
        }
    }
}

impl FromStr for OnError {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Continue, Self::Stop]
            .into_iter()
            .find(|rule| rule.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

/// Where a target stands in a posted job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Order within the job, from 0. The same after a restart.
    pub seq: u64,
    /// The number of its group.
    pub group: Option<u32>,
    /// What a failure means for the rest of that.
    pub on_error: OnError,
}

/// What became of a target: exactly one of these.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// New bytes are kept.
    Stored,
    /// The URL was known, its bytes differ, the new ones are kept.
    Changed,
    /// The origin said so (304), the record is still fresh, or the same bytes came again.
    Unchanged,
    /// Another URL already brought these bytes into this album.
    Duplicate,
    /// Bytes arrived but are not an acceptable file.
    Rejected,
    /// No complete answer after all retries, or an error status.
    Failed,
    /// Not tried.
    Skipped,
}

impl Outcome {
    /// Every outcome, in the order in which counters list them.
    pub const ALL: [Self; 7] = [
        Self::Stored,
        Self::Changed,
        Self::Unchanged,
        Self::Duplicate,
        Self::Rejected,
        Self::Failed,
        Self::Skipped,
    ];

    /// The word for it in reports, the API and the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether the target was wanted and could not be had, also where its host, the time or the store ran out
    /// before it was tried. What robots.txt asks and a stopped group are as the user wants them.
    pub const fn is_failure(self, reason: Option<Reason>) -> bool {
        match self {
            Self::Rejected | Self::Failed => true,
            Self::Skipped => !matches!(reason, Some(Reason::Robots | Reason::GroupStopped)),
            Self::Stored | Self::Changed | Self::Unchanged | Self::Duplicate => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|o| o.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// Why a target was rejected, failed or skipped: a stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code for it in reports, the API and the catalog.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

reasons! {
    /// The line is no URL.
    InvalidUrl = "invalid-url",
    /// A URL of a scheme other than `http` and `https`.
    UnsupportedScheme = "unsupported-scheme",
    /// The egress guard denies the address.
    DeniedAddress = "denied-address",
    /// The name does not resolve.
    Dns = "dns",
    /// No connection to the host.
    Connect = "connect",
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls = "tls",
    /// The proxy refused or failed.
    Proxy = "proxy",
    /// A limit of time ran out: connect, first byte, idle, or the whole attempt.
    Timeout = "timeout",
    /// The body came slower than `fetch.min_speed`.
    TooSlow = "too-slow",
    /// The connection was lost before or within the answer.
    Reset = "reset",
    /// The body is shorter than the answer promised.
    Truncated = "truncated",
    /// The answer breaks the protocol, or cannot be decoded.
    BadResponse = "bad-response",
    /// Too many redirects, a loop, or one that leads nowhere.
    Redirects = "redirects",
    /// A status that brings no body.
    Status = "status",
    /// The body is larger than `fetch.max_bytes`.
    TooLarge = "too-large",
    /// The body has no bytes.
    Empty = "empty",
    /// The bytes are of another kind or format than wanted.
    WrongKind = "wrong-kind",
    /// The bytes are of the wanted kind, but damaged.
    Corrupt = "corrupt",
    /// The picture has more pixels, or a longer side, than allowed.
    TooManyPixels = "too-many-pixels",
    /// Decoding the picture takes more memory than allowed.
    DecodeMemory = "decode-memory",
    /// Nothing decodes the picture's format or its variant, and the settings ask for that.
    Undecoded = "undecoded",
    /// The bytes do not have the sha256 that the list promises.
    Checksum = "checksum",
    /// robots.txt, `X-Robots-Tag` or a 402 asks robots not to fetch or use it.
    Robots = "robots",
    /// The host was given up: it kept failing, or asked for too long a rest.
    HostDown = "host-down",
    /// An earlier error stopped the group.
    GroupStopped = "group-stopped",
    /// The job was cancelled.
    Cancelled = "cancelled",
    /// The job's deadline passed.
    Deadline = "deadline",
    /// A step after the download failed.
    Step = "step",
    /// The store has no room left.
    StoreFull = "store-full",
    /// The store or the catalog failed.
    StoreError = "store-error",
}

impl utoipa::ToSchema for Reason {}

impl utoipa::PartialSchema for Reason {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let words = Self::ALL.iter().map(|reason| reason.as_str());
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .description(Some(
                "Why a target was rejected, failed or skipped: a stable code.",
            ))
            .enum_values(Some(words))
            .into()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .iter()
            .copied()
            .find(|r| r.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waiting for its turn.
    Queued,
    /// Running.
    Ongoing,
    /// Ended, and every target is fine.
    Completed,
    /// Ended, but some targets were rejected or failed, or fewer files came than were asked for.
    Incomplete,
    /// Could not run, or not to its end.
    Failed,
    /// Ended by a signal or a client.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Ongoing,
        Self::Completed,
        Self::Incomplete,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it in reports, the API and the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ongoing => "ongoing",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for State {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Targets of a job by outcome. The one place from which every figure is derived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counts {
    /// All targets that have an outcome: the sum of the others.
    pub targets: u64,
    /// See [`Outcome::Stored`].
    pub stored: u64,
    /// See [`Outcome::Changed`].
    pub changed: u64,
    /// See [`Outcome::Unchanged`].
    pub unchanged: u64,
    /// See [`Outcome::Duplicate`].
    pub duplicate: u64,
    /// See [`Outcome::Rejected`].
    pub rejected: u64,
    /// See [`Outcome::Failed`].
    pub failed: u64,
    /// See [`Outcome::Skipped`].
    pub skipped: u64,
}

impl Counts {
    /// Counts one more target.
    pub fn add(&mut self, outcome: Outcome) {
        self.targets += 1;
        *match outcome {
            Outcome::Stored => &mut self.stored,
            Outcome::Changed => &mut self.changed,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Duplicate => &mut self.duplicate,
            Outcome::Rejected => &mut self.rejected,
            Outcome::Failed => &mut self.failed,
            Outcome::Skipped => &mut self.skipped,
        } += 1;
    }

    /// The number of targets with `outcome`.
    pub fn get(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Stored => self.stored,
            Outcome::Changed => self.changed,
            Outcome::Unchanged => self.unchanged,
            Outcome::Duplicate => self.duplicate,
            Outcome::Rejected => self.rejected,
            Outcome::Failed => self.failed,
            Outcome::Skipped => self.skipped,
        }
    }
}

/// The counts in words, without those that are zero: `3 targets (1 stored, 2 failed)`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.targets {
            0 => return f.write_str("no targets"),
            1 => f.write_str("1 target")?,
            targets => write!(f, "{targets} targets")?,
        }
        let mut separator = " (";
        for outcome in Outcome::ALL {
            let count = self.get(outcome);
            if count > 0 {
                write!(f, "{separator}{count} {outcome}")?;
                separator = ", ";
            }
        }
        f.write_str(")")
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.targets += other.targets;
        self.stored += other.stored;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Which of `known` was probably meant by `word`.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::damerau_levenshtein(known, word), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}

/// A word that is none of the closed set it was looked up in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word `{0}`")]
pub struct UnknownWord(pub String);

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// gannet's word for it, such as `jpeg`.
    pub name: &'static str,
    /// Its registered media type, such as `image/jpeg`.
    pub media_type: &'static str,
    /// File name extensions, without the dot and in lower case, the preferred one first.
    /// Empty: any extension may stay.
    pub extensions: &'static [&'static str],
}

/// A SHA-256 digest (FIPS 180-4); prints and parses as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
pub struct Sha256(pub [u8; 32]);

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Sha256Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Makes a [`Sha256`] of bytes that come in pieces.
#[derive(Clone)]
pub struct Sha256Hasher(ring::digest::Context);

impl Sha256Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Sha256 {
        let digest = self.0.finish();
        Sha256(
            digest
                .as_ref()
                .try_into()
                .expect("SHA-256 digests have 32 bytes"),
        )
    }
}

impl Default for Sha256Hasher {
    fn default() -> Self {
        // ring's has vector code for processors without SHA instructions, where it takes half the time.
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256Hasher")
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&hex).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = InvalidSha256;

    fn from_str(text: &str) -> Result<Self, InvalidSha256> {
        let digits = text.as_bytes();
        let mut digest = [0; 32];
        if digits.len() != 64 {
            return Err(InvalidSha256);
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16).ok_or(InvalidSha256);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sha256 is 64 hexadecimal digits")]
pub struct InvalidSha256;

/// The name of an album: one to eight segments joined by `/`, each a safe folder name.
///
/// The root of the store is the album without a name; it is `None` where an album is optional.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AlbumName(Arc<str>);

impl AlbumName {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Takes `name`, in Unicode's normalisation form C, so that names that look the same are the same folder.
    ///
    /// # Errors
    ///
    /// When a segment is empty, `.`, `..`, begins with a dot or dash, ends with a dot or space, or holds a control or
    /// format character or one of `\ : * ? " < > |`; when there are over eight segments or
    /// [`MAX_BYTES`](Self::MAX_BYTES) bytes.
    pub fn new(name: &str) -> Result<Self, InvalidAlbumName> {
        let album = Self::recorded(name)?;
        if album.0.split('/').any(|segment| segment.starts_with('-')) {
            return Err(InvalidAlbumName {
                name: name.to_owned(),
                why: "a segment begins with a dash",
            });
        }
        Ok(album)
    }

    /// Takes the name that a list gives an album. Dashes that begin a segment are left out, as at the start of file
    /// names.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for the dash.
    pub fn listed(name: &str) -> Result<Self, InvalidAlbumName> {
        let segments = name.split('/').map(|segment| match segment.as_bytes() {
            [b'-', ..] => segment.trim_start_matches(['-', ' ', '\t']),
            _ => segment,
        });
        Self::new(&segments.collect::<Vec<_>>().join("/"))
    }

    /// Takes the name of an existing album. Earlier versions allowed segments that begin with a dash.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for the dash.
    pub fn recorded(name: &str) -> Result<Self, InvalidAlbumName> {
        let bad = |why| {
            Err(InvalidAlbumName {
                name: name.to_owned(),
                why,
            })
        };
        let name: String = name.nfc().collect();
        if name.is_empty() {
            return bad("it is empty");
        }
        if name.len() > Self::MAX_BYTES {
            return bad("it is longer than 255 bytes");
        }
        if name.split('/').count() > 8 {
            return bad("it has more than eight segments");
        }
        for segment in name.split('/') {
            if segment.is_empty() {
                return bad("a segment is empty");
            }
            if segment.starts_with('.') {
                return bad("a segment begins with a dot");
            }
            if segment.ends_with(['.', ' ']) || segment.starts_with(' ') {
                return bad("a segment ends with a dot, or begins or ends with a space");
            }
            if segment.contains(|c: char| is_invisible(c) || "\\:*?\"<>|".contains(c)) {
                return bad("it holds a control or format character or one of \\ : * ? \" < > |");
            }
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AlbumName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for AlbumName {
    type Err = InvalidAlbumName;

    fn from_str(name: &str) -> Result<Self, InvalidAlbumName> {
        Self::new(name)
    }
}

impl<'de> Deserialize<'de> for AlbumName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(serde::de::Error::custom)
    }
}

/// Control characters, and format characters, which turn or hide the text around them.
fn is_invisible(c: char) -> bool {
    c.is_control() || c.general_category() == GeneralCategory::Format
}

/// A text that cannot name an album.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot name an album: {why}", name.escape_debug())]
pub struct InvalidAlbumName {
    name: String,
    why: &'static str,
}

/// A URL that prints without its credentials: `https://user:***@host/path`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SafeUrl(Url);

impl SafeUrl {
    /// Masks the password, or the user name when that stands alone, since it may be a token.
    pub fn new(url: &Url) -> Self {
        let mut url = url.clone();
        // Both setters fail only for URLs without a host, which hold no credentials.
        if url.password().is_some() {
            let _ = url.set_password(Some("***"));
        } else if !url.username().is_empty() {
            let _ = url.set_username("***");
        }
        Self(url)
    }

    /// The masked URL as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}

impl Serialize for SafeUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl From<&Url> for SafeUrl {
    fn from(url: &Url) -> Self {
        Self::new(url)
    }
}

/// Most characters that [`printable`] keeps.
const MAX_CHARS: usize = 300;

/// Text from lists and origins as a terminal may see it: on one line, of bounded length, and without
/// control sequences or characters that turn the direction of writing. Nothing is escaped: what prints it may do so.
pub(crate) fn printable(text: &str) -> String {
    let strange = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut chars = text.chars().map(|c| {
        if strange(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    });
    let mut kept: String = chars.by_ref().take(MAX_CHARS).collect();
    if chars.next().is_some() {
        kept.push('…');
    }
    kept
}

/// An error and its sources in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    // Where in the line the text of the last error begins.
    let mut last = 0;
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own text, and some repeat their own text in their source.
        if cause_text.ends_with(&text[last..]) {
            text.truncate(last);
            text.push_str(&cause_text);
        } else if !text.ends_with(&cause_text) {
            text.push_str(": ");
            last = text.len();
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_words_leave_out_zeros() {
        let mut counts = Counts::default();
        assert_eq!(counts.to_string(), "no targets");
        counts.add(Outcome::Failed);
        assert_eq!(counts.to_string(), "1 target (1 failed)");
        counts.add(Outcome::Stored);
        counts.add(Outcome::Failed);
        assert_eq!(counts.to_string(), "3 targets (1 stored, 2 failed)");
    }

    #[test]
    fn printable_text_is_bounded_and_steers_no_terminal_but_is_not_escaped() {
        let quoted = r#"`C:\x "y"` answered 404"#;
        assert_eq!(printable(quoted), quoted);
        assert_eq!(
            printable("a\x1b[2J\u{202e}b\n"),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}"
        );
        assert_eq!(printable(&"x".repeat(400)).chars().count(), 301);
    }

    #[test]
    fn a_safe_url_prints_no_credentials() {
        let safe = |text: &str| SafeUrl::new(&Url::parse(text).unwrap()).to_string();
        assert_eq!(
            safe("https://ann:secret@example.org/a?b"),
            "https://ann:***@example.org/a?b"
        );
        assert_eq!(
            safe("https://token@example.org/"),
            "https://***@example.org/"
        );
        assert_eq!(safe("https://example.org/"), "https://example.org/");
    }

    #[test]
    fn an_error_is_described_without_repetition() {
        #[derive(Debug)]
        struct Chain(&'static [&'static str]);
        impl fmt::Display for Chain {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0[0])
            }
        }
        impl std::error::Error for Chain {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                let rest: &'static [&'static str] = &self.0[1..];
                (!rest.is_empty())
                    .then(|| -> &dyn std::error::Error { Box::leak(Box::new(Chain(rest))) })
            }
        }
        for (chain, text) in [
            (
                &["cannot open", "io", "refused"][..],
                "cannot open: io: refused",
            ),
            (
                &["cannot open", "io: refused", "refused"],
                "cannot open: io: refused",
            ),
            (
                &["cannot open", "locked", "code 5: locked"],
                "cannot open: code 5: locked",
            ),
            (&["locked", "code 5: locked", "locked"], "code 5: locked"),
            (&["same", "same"], "same"),
        ] {
            assert_eq!(describe(&Chain(chain)), text);
        }
    }

    #[test]
    fn what_the_user_wants_skipped_is_no_failure() {
        let skipped_on_purpose: Vec<Reason> = Reason::ALL
            .iter()
            .copied()
            .filter(|reason| !Outcome::Skipped.is_failure(Some(*reason)))
            .collect();
        assert_eq!(skipped_on_purpose, [Reason::Robots, Reason::GroupStopped]);
        let failures = Outcome::ALL.map(|outcome| outcome.is_failure(None));
        assert_eq!(failures, [false, false, false, false, true, true, true]);
    }

    #[test]
    fn words_come_back_as_they_were_written() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
        }
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert!("nearly".parse::<Reason>().is_err());
    }

    #[test]
    fn a_digest_prints_and_parses_as_hexadecimal() {
        let digest = Sha256::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(digest));
        assert!("e3".parse::<Sha256>().is_err());
        assert!("g".repeat(64).parse::<Sha256>().is_err());
    }

    #[test]
    fn an_album_is_the_same_however_its_letters_are_composed() {
        let (composed, apart) = (
            AlbumName::new("caf\u{e9}/\u{1e69}"),
            AlbumName::new("cafe\u{301}/s\u{323}\u{307}"),
        );
        assert_eq!(composed, apart);
        assert_eq!(apart.unwrap().as_str(), "caf\u{e9}/\u{1e69}");
    }

    #[test]
    fn an_album_never_leaves_the_store() {
        for bad in [
            "",
            "/",
            "..",
            "a/../b",
            "a//b",
            ".hidden",
            "a/.gannet",
            "c:",
            "a\0",
            "nl\n",
            "a\\b",
            "dot.",
            &"x".repeat(256),
            "a/b/c/d/e/f/g/h/i",
        ] {
            assert!(AlbumName::new(bad).is_err(), "{bad:?}");
            assert!(AlbumName::recorded(bad).is_err(), "{bad:?}");
        }
        for option in ["-", "-rf", "--all", "a/-b"] {
            assert!(AlbumName::new(option).is_err(), "{option:?}");
            assert_eq!(AlbumName::recorded(option).unwrap().as_str(), option);
        }
        for (listed, name) in [("-rf", "rf"), ("a/-- b", "a/b"), ("a-b", "a-b")] {
            assert_eq!(AlbumName::listed(listed).unwrap().as_str(), name);
        }
        assert!(AlbumName::listed("a/-").is_err());
        for good in ["cats", "shops/2026-11", "Größe", "猫"] {
            assert_eq!(AlbumName::new(good).unwrap().as_str(), good);
        }
    }
}
