//! robots.txt (RFC 9309).
//!
//! [`Robots`] fetches the rules of each origin and caches them. Groups, precedence and wildcards are robotxt's work;
//! `tidied` first drops all other lines, and `canonical` brings paths and patterns to a common form.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::{Position, Url};

use super::agent::token;
use super::client::Client;
use super::error::{Cause, FetchError};

/// How long rules are kept, RFC 9309 section 2.4.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// What is read of a robots.txt, RFC 9309 section 2.5; the rest is as if it were not there.
const MAX_BYTES: usize = robotxt::BYTE_LIMIT;

/// Redirects that are followed, RFC 9309 section 2.3.1.2.
const REDIRECTS: u32 = 5;

/// Memory limit of the cache, in bytes as [`Rules::size`] counts them.
const MAX_CACHE: usize = 64 * 1024 * 1024;

/// Upper bound of the memory for a cached origin, without its rules.
const ORIGIN_SIZE: usize = 1024;

/// Upper bound of the memory for a rule, without its pattern.
const RULE_SIZE: usize = 64;

/// The rules of origins, each read once a day.
#[derive(Debug, Default)]
pub struct Robots {
    /// Held for look-ups only, never during a request.
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// Rules by origin and product token.
    origins: HashMap<String, Slot>,
    /// Total size of the slots, in bytes.
    size: usize,
}

/// An origin's robots.txt applied to one URL.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Permission to request the URL.
    pub permission: Permission,
    /// The origin's interval between requests, and the time until which its rules are cached.
    pub crawl_delay: Option<(Duration, Instant)>,
    /// Set if the rules were in the cache, so that no request was made for them.
    pub was_known: bool,
}

/// Permission to request a URL.
#[derive(Debug, Clone)]
pub enum Permission {
    /// The URL may be requested.
    Allowed,
    /// A rule disallows the URL.
    Forbidden,
    /// robots.txt itself answered 402 (Payment Required), with this error.
    Payment(Arc<FetchError>),
}

#[derive(Debug, Clone)]
struct Slot {
    /// Filled by the first who asks; the others wait for it.
    rules: Arc<OnceCell<(Rules, Instant)>>,
    used: Instant,
    /// Memory for the slot, in bytes. Counts its rules once they are there.
    size: usize,
}

enum Rules {
    All,
    Some(Box<Parsed>),
    /// 402 (Payment Required).
    Payment(Arc<FetchError>),
    /// Nobody knows: they could not be had.
    Unknown(Arc<FetchError>),
}

/// A robots.txt as it applies to one product.
struct Parsed {
    rules: robotxt::Robots,
    crawl_delay: Option<Duration>,
}

impl Rules {
    /// Returns an upper bound of the memory for the rules, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::All | Self::Payment(_) | Self::Unknown(_) => 0,
            Self::Some(parsed) => {
                let rules = parsed.rules.rules().iter();
                rules.map(|rule| RULE_SIZE + 2 * rule.pattern().len()).sum()
            }
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Some(_) => "Some",
            Self::Payment(_) => "Payment",
            Self::Unknown(_) => "Unknown",
        })
    }
}

impl Robots {
    /// Returns what the origin's robots.txt says about `url` to this client. Requests robots.txt if it is not in the
    /// cache.
    ///
    /// An origin without a robots.txt (any 4xx but 402 and 429) allows everything.
    ///
    /// # Errors
    ///
    /// [`FetchError::NoRules`] when robots.txt is not available: the origin answers 5xx or 429, breaks off, or cannot
    /// be reached. Nothing may be requested there in that case, RFC 9309 section 2.3.1.4. The failure is not cached:
    /// the next call asks again.
    pub async fn judge(&self, client: &Client, url: &Url) -> Result<Verdict, FetchError> {
        let agent = client.agent(url);
        let key = format!("{} {agent}", url.origin().ascii_serialization());
        let slot = self.lock().slot(&key);
        let was_known = slot.rules.initialized();
        let (rules, until) = slot
            .rules
            .get_or_init(|| async {
                let rules = ask(client, url, agent).await;
                // A fault is the answer to those who waited for it, and to nobody else.
                let keep = match rules {
                    Rules::Unknown(_) => Duration::ZERO,
                    Rules::All | Rules::Some(_) | Rules::Payment(_) => KEEP,
                };
                (rules, Instant::now() + keep)
            })
            .await;
        if !was_known {
            self.lock().count(&key, &slot, rules.size());
        }
        let (permission, crawl_delay) = match rules {
            Rules::All => (Permission::Allowed, None),
            Rules::Payment(error) => (Permission::Payment(error.clone()), None),
            Rules::Some(parsed) => {
                let path = canonical(
                    url[Position::BeforePath..Position::AfterQuery].as_bytes(),
                    Side::Url,
                );
                let is_allowed = parsed.rules.is_allowed(&String::from_utf8_lossy(&path));
                let permission = match is_allowed {
                    true => Permission::Allowed,
                    false => Permission::Forbidden,
                };
                (permission, parsed.crawl_delay)
            }
            Rules::Unknown(source) => {
                return Err(FetchError::NoRules {
                    host: url.host_str().unwrap_or_default().to_owned(),
                    source: source.clone(),
                });
            }
        };
        Ok(Verdict {
            permission,
            crawl_delay: crawl_delay.map(|delay| (delay, *until)),
            was_known,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // A panic elsewhere leaves the cache sound.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Returns the slot of `key`. It is a new one unless its rules are valid or being requested.
    fn slot(&mut self, key: &str) -> Slot {
        let now = Instant::now();
        if let Some(slot) = self.origins.get_mut(key)
            && slot.rules.get().is_none_or(|(_, until)| now < *until)
        {
            slot.used = now;
            return slot.clone();
        }
        let slot = Slot {
            rules: Arc::default(),
            used: now,
            size: ORIGIN_SIZE,
        };
        let before = self.origins.insert(key.to_owned(), slot.clone());
        self.size += slot.size;
        self.size -= before.map_or(0, |before| before.size);
        self.make_room();
        slot
    }

    /// Counts the rules that a slot has got. Does nothing if the slot has been evicted.
    fn count(&mut self, key: &str, slot: &Slot, size: usize) {
        if let Some(known) = self.origins.get_mut(key)
            && Arc::ptr_eq(&known.rules, &slot.rules)
        {
            let size = ORIGIN_SIZE + size;
            self.size += size;
            self.size -= std::mem::replace(&mut known.size, size);
            self.make_room();
        }
    }

    /// Evicts the least recently used slots if the cache is too large. Leaves half of the cache free, so that evictions are rare.
    fn make_room(&mut self) {
        if self.size <= MAX_CACHE {
            return;
        }
        let mut uses: Vec<_> = self.origins.iter().collect();
        uses.sort_unstable_by_key(|(_, slot)| Reverse(slot.used));
        let mut kept = 0;
        let fits = |(key, slot): (&String, &Slot)| {
            kept += slot.size;
            (kept <= MAX_CACHE / 2).then(|| key.clone())
        };
        let recent: HashSet<String> = uses.into_iter().map_while(fits).collect();
        self.origins.retain(|key, _| recent.contains(key));
        self.size = self.origins.values().map(|slot| slot.size).sum();
    }
}

async fn ask(client: &Client, url: &Url, agent: &str) -> Rules {
    let mut robots = url.clone();
    robots.set_path("/robots.txt");
    robots.set_query(None);
    robots.set_fragment(None);
    match read(client, &robots).await {
        Ok(text) => match catch_unwind(AssertUnwindSafe(|| parse(&text, agent))) {
            Ok(rules) => Rules::Some(Box::new(rules)),
            Err(_) => Rules::Unknown(Arc::new(FetchError::BadResponse {
                url: (&robots).into(),
                status: None,
                source: Cause(
                    "the code that reads its rules panicked; please report it".to_owned(),
                ),
            })),
        },
        Err(error @ FetchError::Status { status: 402, .. }) => Rules::Payment(Arc::new(error)),
        // No rules: 4xx (RFC 9309 section 2.3.1.3), an empty answer such as 204, or a choice of several (300).
        Err(FetchError::Status {
            status: 200..=428 | 430..=499,
            ..
        }) => Rules::All,
        // More redirects than are followed: as if there were none, RFC 9309 section 2.3.1.2.
        Err(FetchError::Redirects { .. }) => Rules::All,
        Err(error) => Rules::Unknown(Arc::new(error)),
    }
}

async fn read(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut response = client
        .follow(url, "text/plain, */*;q=0.1", u64::MAX, REDIRECTS, None)
        .await?;
    let mut text = Vec::new();
    // Reads one byte more than is used, which shows whether the last line is complete.
    while text.len() <= MAX_BYTES
        && let Some(chunk) = response.chunk().await?
    {
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// Parses the rules for the product `agent`.
fn parse(text: &[u8], agent: &str) -> Parsed {
    let text = whole_lines(text);
    let parse = |keys: &[Key]| robotxt::Robots::parse(&tidied(text, keys), agent);
    let rules = [Key::UserAgent, Key::Allow, Key::Disallow];
    Parsed {
        // Records that RFC 9309 does not define, such as `Crawl-delay`, must not end a group's list of agents (section 2.2.4).
        rules: parse(&rules),
        // A delay applies to the agents before it.
        crawl_delay: parse(&[&rules[..], &[Key::CrawlDelay]].concat()).crawl_delay(),
    }
}

/// Drops a line that [`MAX_BYTES`] cuts, because half a rule may mean the opposite of the whole.
fn whole_lines(text: &[u8]) -> &[u8] {
    let Some(window) = text.get(..=MAX_BYTES) else {
        return text;
    };
    let end = window.iter().rposition(|byte| is_line_end(*byte));
    &text[..end.unwrap_or(0)]
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | b'\0')
}

/// Returns the lines of a robots.txt with one of `keys`. User agents become product tokens, and patterns canonical.
fn tidied(text: &[u8], keys: &[Key]) -> Vec<u8> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut tidy = Vec::new();
    for line in text.split(|byte| is_line_end(*byte)) {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or(line);
        let Some((key, value)) = record(line.trim_ascii()) else {
            continue;
        };
        if !keys.contains(&key) {
            continue;
        }
        let mut put = |value: &[u8]| {
            tidy.extend_from_slice(key.name());
            tidy.push(b':');
            tidy.extend_from_slice(value);
            tidy.push(b'\n');
        };
        match key {
            Key::UserAgent => agents(value).for_each(put),
            Key::Allow | Key::Disallow => put(&canonical(value, Side::Pattern)),
            Key::CrawlDelay => put(value),
        }
    }
    tidy
}

/// Splits a line into key and value. Some files lack the colon between them.
fn record(line: &[u8]) -> Option<(Key, &[u8])> {
    let (spelling, key) = SPELLINGS.iter().find(|(spelling, _)| {
        line.get(..spelling.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(spelling))
    })?;
    let rest = &line[spelling.len()..];
    let value = rest.trim_ascii_start();
    match value.strip_prefix(b":") {
        Some(value) => Some((*key, value.trim_ascii())),
        None => (value.len() < rest.len()).then_some((*key, value)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    UserAgent,
    Allow,
    Disallow,
    CrawlDelay,
}

impl Key {
    fn name(self) -> &'static [u8] {
        match self {
            Self::UserAgent => b"user-agent",
            Self::Allow => b"allow",
            Self::Disallow => b"disallow",
            Self::CrawlDelay => b"crawl-delay",
        }
    }
}

/// Accepted spellings of keys. None is a prefix of another one.
const SPELLINGS: [(&[u8], Key); 15] = [
    (b"user-agent", Key::UserAgent),
    (b"user agent", Key::UserAgent),
    (b"useragent", Key::UserAgent),
    (b"allow", Key::Allow),
    (b"alow", Key::Allow),
    (b"allaw", Key::Allow),
    (b"disallow", Key::Disallow),
    (b"dissallow", Key::Disallow),
    (b"dissalow", Key::Disallow),
    (b"disalow", Key::Disallow),
    (b"diasllow", Key::Disallow),
    (b"disallaw", Key::Disallow),
    (b"crawl-delay", Key::CrawlDelay),
    (b"crawl delay", Key::CrawlDelay),
    (b"crawldelay", Key::CrawlDelay),
];

/// Returns the product tokens of a `User-agent` line: `PictureBot` for `PictureBot/2.1`, several if commas separate
/// them.
fn agents(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(|agent| {
        let agent = agent.trim_ascii();
        let product = std::str::from_utf8(agent).map_or(0, |agent| token(agent).len());
        // Some files write `PictureBot*` for the robots whose names begin like that.
        let product = agent[..product]
            .iter()
            .position(|byte| *byte == b'*')
            .unwrap_or(product);
        match &agent[..product] {
            // Text that does not start with a token stays as it is, and matches no robot.
            b"" => agent,
            product => product,
        }
    })
}

/// Where a path comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// A URL, in which every character is literal.
    Url,
    /// A rule, in which `*` and a final `$` are wildcards.
    Pattern,
}

/// Converts a path with its query to the form in which paths and patterns are compared, where robotxt does not do
/// that itself (RFC 9309, sections 2.2.2 and 2.2.3):
///
/// - Literal `*` and `$` become `%2A` and `%24`, so that a rule can name them.
/// - Reserved characters, and others that only some writers of URLs encode, are encoded.
/// - In the query, `/` and `?` are not separators, and are decoded. In the path, `%2F` and `/` stay distinct.
fn canonical(path: &[u8], side: Side) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| !matches!(byte, b'%' | b'*' | b'$') && !is_seldom_encoded(*byte);
    if path.iter().all(is_plain) {
        return Cow::Borrowed(path);
    }
    let mut form = Vec::with_capacity(path.len() + 8);
    let mut in_query = false;
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let hex = path
                    .get(at..at + 2)
                    .and_then(|hex| std::str::from_utf8(hex).ok());
                let octet = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                match octet {
                    Some(octet @ (b'/' | b'?')) if in_query => {
                        form.push(octet);
                        at += 2;
                    }
                    _ => form.push(byte),
                }
            }
            b'*' if side == Side::Pattern => form.push(byte),
            b'$' if side == Side::Pattern && at == path.len() => form.push(byte),
            b'*' | b'$' => encode(byte, &mut form),
            byte if is_seldom_encoded(byte) => encode(byte, &mut form),
            byte => {
                in_query |= byte == b'?';
                form.push(byte);
            }
        }
    }
    Cow::Owned(form)
}

/// Reserved characters (RFC 3986, section 2.2) that divide no path, and those that the URL standard encodes in some
/// places only.
fn is_seldom_encoded(byte: u8) -> bool {
    b":@!'()+,;=&[]\\^|".contains(&byte)
}

fn encode(byte: u8, form: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
    form.extend_from_slice(&[b'%', high, low]);
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Checks `rules` that address all robots against a path, as the `url` crate writes it.
    fn allows(rules: &str, path: &str) -> bool {
        allows_agent(format!("User-agent: *\n{rules}").as_bytes(), "gannet", path)
    }

    fn allows_agent(text: &[u8], agent: &str, path: &str) -> bool {
        let url = Url::parse(&format!("http://example.org{path}")).unwrap();
        let path = &url[Position::BeforePath..Position::AfterQuery];
        let path = canonical(path.as_bytes(), Side::Url);
        let rules = parse(text, agent).rules;
        rules.is_allowed(std::str::from_utf8(&path).unwrap())
    }

    #[test]
    fn one_path_has_one_form() {
        for (pattern, same) in [
            ("/%7Ejoe/", "/~joe/x"),
            ("/~joe/", "/%7ejoe/x"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/caf%C3%A9", "/café"),
            ("/café", "/caf%c3%A9"),
            ("/%61dir", "/adir"),
            ("/adir", "/%61d%69r"),
            ("/a b", "/a%20b"),
            ("/a%20b", "/a b"),
            ("/a\"b<c>`{d}", "/a%22b%3Cc%3E%60%7Bd%7D"),
            ("/it's", "/it%27s"),
            ("/a?it%27s", "/a?it's"),
            ("/a^b|c[d]", "/a%5Eb%7Cc%5Bd%5D"),
            ("/a%5eb%7cc%5bd%5d", "/a^b|c[d]"),
            ("/a:b", "/a%3Ab"),
            ("/a%3ab", "/a:b"),
            ("/a%26b", "/a&b"),
            ("/a?b=%26c", "/a?b=&c"),
            ("/@(a)!+;=&',", "/%40%28a%29%21%2B%3B%3D%26%27%2C"),
            ("/%40%28a%29%21%2b%3b%3d%26%27%2c", "/@(a)!+;=&',"),
            ("/?@(a)!+;=&',", "/?%40%28a%29%21%2B%3B%3D%26%27%2C"),
            ("/?%40%28a%29%21%2b%3b%3d%26%27%2c", "/?@(a)!+;=&',"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            // Examples from RFC 9309.
            ("/foo/bar?baz=quz", "/foo/bar?baz=quz"),
            (
                "/foo/bar?baz=https://foo.bar",
                "/foo/bar?baz=https%3A%2F%2Ffoo.bar",
            ),
            (
                "/foo/bar?baz=https%3a%2f%2Ffoo.bar",
                "/foo/bar?baz=https://foo.bar",
            ),
            ("/foo/bar/\u{30c4}", "/foo/bar/%E3%83%84"),
            ("/foo/bar/%62%61%7A", "/foo/bar/baz"),
            ("/path/file-with-a-%2A.html", "/path/file-with-a-*.html"),
            ("/path/foo-%24", "/path/foo-$"),
            ("/path/foo-%24$", "/path/foo-$"),
            ("/a$b", "/a%24b"),
            ("/a$b", "/a$b"),
            ("/a%24b", "/a$b"),
        ] {
            assert!(
                !allows(&format!("Disallow: {pattern}"), same),
                "{pattern} {same}"
            );
        }
    }

    #[test]
    fn different_paths_stay_different() {
        for (pattern, other) in [
            ("/a%2Fb", "/a/b"),
            ("/a/b", "/a%2Fb"),
            ("/a%3Fb", "/a?b"),
            ("/a?b", "/a%3Fb"),
            ("/a?b", "/a%3fb"),
            ("/%2541", "/%41"),
            ("/A", "/a"),
            ("/a%2Ab", "/axb"),
            ("/a%24", "/a"),
            ("/fish$", "/fish.html"),
            ("/fish", "/catfish"),
        ] {
            assert!(
                allows(&format!("Disallow: {pattern}"), other),
                "{pattern} {other}"
            );
        }
    }

    #[test]
    fn the_longest_rule_counts_and_allow_wins_a_tie() {
        for (rules, path, allowed) in [
            ("Disallow: /\nAllow: /p", "/page", true),
            ("Allow: /p\nDisallow: /", "/page", true),
            ("Allow: /folder\nDisallow: /folder", "/folder/x", true),
            ("Disallow: /%61bc\nAllow: /abc", "/abc", true),
            ("Allow: /page\nDisallow: /*.htm", "/page.htm", false),
            ("Allow: /$\nDisallow: /", "/", true),
            ("Allow: /$\nDisallow: /", "/page.htm", false),
            ("Disallow: /*.php$", "/a.php", false),
            ("Disallow: /*.php$", "/a.php?b", true),
            ("Disallow: /*?*id=", "/a?x=1&id=2", false),
            ("Disallow:", "/", true),
            ("Disallow: /\nAllow:", "/", false),
            ("Disallow: *.gif", "/a/b.gif", false),
            ("Disallow: private", "/private", false),
            ("Disallow /no-colon", "/no-colon", false),
            ("Disallow /a:b", "/a:b", false),
            ("Disallow\t/a:b", "/a:b", false),
            ("Disallow : /a:b", "/a:b", false),
            ("Disallow:/a:b", "/a:b", false),
            ("Disallow /a:b", "/a", true),
            ("Disallowed: /a", "/a", true),
            ("dissallow: /misspelt", "/misspelt", false),
            ("Disallow: /a # comment", "/a", false),
            (
                "Disallow: /a\rDisallow: /b\r\nDisallow: /c\0Disallow: /d",
                "/d",
                false,
            ),
        ] {
            assert_eq!(allows(rules, path), allowed, "{rules:?} {path}");
        }
    }

    #[test]
    fn groups_are_found_by_product() {
        let text = "User-agent: *\nDisallow: /all\n\nUSER-AGENT: PictureBot/2.1 (beta)\nDisallow: /one\nUser-agent: a, b\n\
             Sitemap: https://example.org/map\nUser-agent: c\nDisallow: /shared\nuser agent: picturebot\nDisallow: /two\n";
        for (agent, path, allowed) in [
            ("PictureBot", "/one", false),
            ("picturebot", "/two", false),
            ("PictureBot", "/all", true),
            ("PictureBot-Images", "/one", true),
            ("PictureBot-Images", "/all", false),
            ("gannet", "/all", false),
            ("gannet", "/one", true),
            ("a", "/shared", false),
            ("b", "/shared", false),
            ("C", "/shared", false),
        ] {
            assert_eq!(
                allows_agent(text.as_bytes(), agent, path),
                allowed,
                "{agent} {path}"
            );
        }
        for agent in [
            "User-agent:",
            "user agent:",
            "USERAGENT:",
            "User-agent",
            "User agent ",
        ] {
            let text = format!("{agent} gannet\nDisallow /a:b\nUser-agent: *\nDisallow: /");
            assert!(!allows_agent(text.as_bytes(), "gannet", "/a:b"), "{agent}");
            assert!(allows_agent(text.as_bytes(), "gannet", "/a"), "{agent}");
        }
        for agent in ["gannet*", "Gannet/*", "gannet *"] {
            let text = format!("User-agent: {agent}\nDisallow: /a");
            assert!(!allows_agent(text.as_bytes(), "gannet", "/a"), "{agent}");
            assert!(allows_agent(text.as_bytes(), "other", "/a"), "{agent}");
        }
        // Rules outside of a group, rules for a robot without a name, and rules after a byte order mark.
        assert!(allows_agent(b"Disallow: /\n", "gannet", "/a"));
        assert!(allows_agent(b"User-agent:\nDisallow: /\n", "gannet", "/a"));
        let marked = b"\xef\xbb\xbfUser-agent: *\nDisallow: /a\n";
        assert!(!allows_agent(marked, "gannet", "/a"));
    }

    #[test]
    fn other_lines_do_not_end_the_list_of_agents() {
        for line in [
            "Crawl-delay: 5",
            "crawldelay 5",
            "Sitemap: https://example.org/map",
            "Host: example.org",
            "Clean-param: a&b /",
            "Request-rate: 1/5",
            "nonsense",
            "",
        ] {
            let text = format!("User-agent: gannet\n{line}\nUser-agent: *\nDisallow: /");
            for agent in ["gannet", "other"] {
                assert!(!allows_agent(text.as_bytes(), agent, "/a"), "{line}");
            }
            let text = format!("User-agent: *\nDisallow: /a\n{line}\nDisallow: /b");
            assert!(!allows_agent(text.as_bytes(), "gannet", "/b"), "{line}");
        }
    }

    #[test]
    fn the_cache_stays_within_its_memory_limit() {
        let rule = "Disallow: /x\n";
        let mut text = "User-agent: *\n".to_owned();
        text.push_str(&rule.repeat((MAX_BYTES - text.len()) / rule.len()));
        let large = Rules::Some(Box::new(parse(text.as_bytes(), "gannet"))).size();
        assert!((MAX_BYTES..8 * MAX_BYTES).contains(&large), "{large}");
        for (size, origins) in [(large, 100), (0, 100_000)] {
            let mut cache = Cache::default();
            for n in 0..origins {
                let key = n.to_string();
                let slot = cache.slot(&key);
                cache.count(&key, &slot, size);
                assert!(cache.size <= MAX_CACHE, "{n}");
            }
            let slots = cache.origins.values();
            assert_eq!(cache.size, slots.map(|slot| slot.size).sum::<usize>());
            let left = cache.origins.len();
            let fit = MAX_CACHE / (ORIGIN_SIZE + size);
            assert!((fit / 2..=fit).contains(&left), "{left}");
            assert!(cache.origins.contains_key(&(origins - 1).to_string()));
        }
    }

    #[test]
    fn lines_that_are_not_rules_take_no_memory() {
        let filler = "Sitemap: https://example.org/map\n".repeat(10_000);
        let parsed = parse(filler.as_bytes(), "gannet");
        assert!(parsed.rules.sitemaps().is_empty());
        assert_eq!(Rules::Some(Box::new(parsed)).size(), 0);
    }

    #[test]
    fn a_delay_is_that_of_the_group() {
        for (text, expected) in [
            ("User-agent: *\nCrawl-delay: 1", Some(1000)),
            ("User-agent: *\ncrawl-delay : 0.5 # half", Some(500)),
            (
                "User-agent: *\nCrawl-delay: 9\nUser-agent: gannet\nCrawl-delay: 2",
                Some(2000),
            ),
            (
                "User-agent: *\nCrawl-delay: 9\nUser-agent: gannet\nAllow: /",
                None,
            ),
            ("User-agent: *\nCrawl-delay: -1", None),
            ("User-agent: *\nCrawl-delay: soon", None),
            ("User-agent: *\nCrawl-delay: 1e400", None),
            ("Crawl-delay: 1", None),
            (
                "User-agent: gannet\nCrawl-delay: 5\nUser-agent: *\nDisallow: /",
                Some(5000),
            ),
            // It applies to the agent before it.
            (
                "User-agent: other\nCrawl-delay: 5\nUser-agent: *\nDisallow: /",
                None,
            ),
            (
                "User-agent: other\nUser-agent: *\nCrawl delay 5",
                Some(5000),
            ),
        ] {
            let delay = parse(text.as_bytes(), "gannet").crawl_delay;
            assert_eq!(delay, expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn what_lies_beyond_the_limit_does_not_count_nor_does_a_line_that_it_cuts() {
        let line = "# filler\n";
        let mut text = "User-agent: *\nDisallow: /private\n".to_owned();
        while text.len() + line.len() < MAX_BYTES - "Allow: /pri".len() {
            text.push_str(line);
        }
        text.push_str(&"#".repeat(MAX_BYTES - "\nAllow: /pri".len() - text.len()));
        text.push_str("\nAllow: /private/but/not/this\nDisallow: /late\n");
        assert_eq!(&text[MAX_BYTES - 11..MAX_BYTES], "Allow: /pri");
        assert!(!allows_agent(text.as_bytes(), "gannet", "/private"));
        assert!(allows_agent(text.as_bytes(), "gannet", "/late"));
    }

    #[test]
    fn what_is_no_robots_txt_forbids_nothing_and_breaks_nothing() {
        let mut noise: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        noise.extend_from_slice(b"%%%2%*$\xff\xfe$$");
        for text in [
            &b"<!DOCTYPE html>\n<html><body>\n<p>Disallow: / is not here</p>"[..],
            b"",
            b"\xff\xfeU\0s\0e\0r",
            b":\n::\n:\0\r\n%",
            &noise,
        ] {
            assert!(allows_agent(text, "gannet", "/a"));
        }
    }

    #[test]
    fn a_pattern_of_many_stars_costs_no_more_than_its_length() {
        let mut rules = String::from("User-agent: *\n");
        for n in 0..1000 {
            let _ = writeln!(rules, "Disallow: /{}b{n}$", "*a".repeat(200));
        }
        let rules = parse(rules.as_bytes(), "gannet").rules;
        let path = format!("/{}", "a".repeat(8000));
        let begun = std::time::Instant::now();
        assert!(rules.is_allowed(&path));
        // Takes milliseconds. With backtracking it would never end.
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_read(text: Vec<u8>, path: String) {
            let path = canonical(path.as_bytes(), Side::Url);
            let _ = parse(&text, "gannet").rules.is_allowed(&String::from_utf8_lossy(&path));
        }
    }
}
