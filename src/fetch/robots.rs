//! robots.txt (RFC 9309).
//!
//! [`Robots`] fetches the rules of each origin and caches them. Groups, precedence and wildcards are robotxt's work;
//! `canonical` first brings paths and patterns to a common form.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Origins that are remembered.
const MAX_ORIGINS: usize = 4096;

/// The rules of origins, each read once a day.
#[derive(Debug, Default)]
pub struct Robots {
    /// Rules by origin and product token. Held for look-ups only, never during a request.
    origins: Mutex<HashMap<String, Slot>>,
}

/// An origin's robots.txt applied to one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Set if the URL may be requested.
    pub is_allowed: bool,
    /// The origin's interval between requests, and the time until which its rules are cached.
    pub crawl_delay: Option<(Duration, Instant)>,
    /// Set if the rules were in the cache, so that no request was made for them.
    pub was_known: bool,
}

#[derive(Debug, Clone)]
struct Slot {
    /// Filled by the first who asks; the others wait for it.
    rules: Arc<OnceCell<(Rules, Instant)>>,
    used: Instant,
}

enum Rules {
    All,
    Some(Box<robotxt::Robots>),
    /// Nobody knows: they could not be had.
    Unknown(Arc<FetchError>),
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Some(_) => "Some",
            Self::Unknown(_) => "Unknown",
        })
    }
}

impl Robots {
    /// Returns `true` if the origin of `url` allows this client to request it, see [`judge`](Self::judge).
    ///
    /// # Errors
    ///
    /// Those of [`judge`](Self::judge).
    pub async fn allows(&self, client: &Client, url: &Url) -> Result<bool, FetchError> {
        Ok(self.judge(client, url).await?.is_allowed)
    }

    /// Returns what the origin's robots.txt says about `url` to this client. Requests robots.txt if it is not in the
    /// cache.
    ///
    /// An origin without a robots.txt (any 4xx but 429) allows everything.
    ///
    /// # Errors
    ///
    /// [`FetchError::NoRules`] when robots.txt is not available: the origin answers 5xx or 429, breaks off, or cannot
    /// be reached. Nothing may be requested there in that case, RFC 9309 section 2.3.1.4. The failure is not cached:
    /// the next call asks again.
    pub async fn judge(&self, client: &Client, url: &Url) -> Result<Verdict, FetchError> {
        let agent = client.agent(url);
        let slot = self.slot(format!("{} {agent}", url.origin().ascii_serialization()));
        let was_known = slot.rules.initialized();
        let (rules, until) = slot
            .rules
            .get_or_init(|| async {
                let rules = ask(client, url, agent).await;
                // A fault is the answer to those who waited for it, and to nobody else.
                let keep = match rules {
                    Rules::Unknown(_) => Duration::ZERO,
                    Rules::All | Rules::Some(_) => KEEP,
                };
                (rules, Instant::now() + keep)
            })
            .await;
        let (is_allowed, crawl_delay) = match rules {
            Rules::All => (true, None),
            Rules::Some(rules) => {
                let path = canonical(
                    url[Position::BeforePath..Position::AfterQuery].as_bytes(),
                    Side::Url,
                );
                let is_allowed = rules.is_allowed(&String::from_utf8_lossy(&path));
                (is_allowed, rules.crawl_delay())
            }
            Rules::Unknown(source) => {
                return Err(FetchError::NoRules {
                    host: url.host_str().unwrap_or_default().to_owned(),
                    source: source.clone(),
                });
            }
        };
        Ok(Verdict {
            is_allowed,
            crawl_delay: crawl_delay.map(|delay| (delay, *until)),
            was_known,
        })
    }

    fn slot(&self, key: String) -> Slot {
        let now = Instant::now();
        // A panic elsewhere leaves the map whole: it is only changed by single calls.
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = origins.get_mut(&key)
            && slot.rules.get().is_none_or(|(_, until)| now < *until)
        {
            slot.used = now;
            return slot.clone();
        }
        if origins.len() >= MAX_ORIGINS {
            // Half at a time, so that the search for the oldest is rare.
            let mut uses: Vec<_> = origins.values().map(|slot| slot.used).collect();
            let (_, median, _) = uses.select_nth_unstable(MAX_ORIGINS / 2);
            let median = *median;
            origins.retain(|_, slot| slot.used > median);
        }
        let slot = Slot {
            rules: Arc::default(),
            used: now,
        };
        origins.insert(key, slot.clone());
        slot
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
fn parse(text: &[u8], agent: &str) -> robotxt::Robots {
    robotxt::Robots::parse(&tidied(whole_lines(text)), agent)
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

/// Returns the lines of a robots.txt that hold rules. User agents become product tokens, and patterns canonical.
fn tidied(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut tidy = Vec::with_capacity(text.len());
    for line in text.split(|byte| is_line_end(*byte)) {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or(line);
        let line = line.trim_ascii();
        let colon = line.iter().position(|byte| *byte == b':');
        // Some files lack the colon.
        let Some(end) = colon.or_else(|| line.iter().position(u8::is_ascii_whitespace)) else {
            continue;
        };
        let (key, value) = (line[..end].trim_ascii(), line[end + 1..].trim_ascii());
        let mut put = |value: &[u8]| {
            tidy.extend_from_slice(key);
            tidy.extend_from_slice(b": ");
            tidy.extend_from_slice(value);
            tidy.push(b'\n');
        };
        match Key::of(key) {
            Key::UserAgent => agents(value).for_each(put),
            Key::Pattern => put(&canonical(value, Side::Pattern)),
            Key::Other => put(value),
        }
    }
    tidy
}

enum Key {
    UserAgent,
    /// `Allow`, `Disallow`, or a misspelling that robotxt accepts.
    Pattern,
    Other,
}

impl Key {
    fn of(key: &[u8]) -> Self {
        let has = |prefix: &[u8]| {
            key.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if has(b"user") {
            Self::UserAgent
        } else if has(b"al") || has(b"di") {
            Self::Pattern
        } else {
            Self::Other
        }
    }
}

/// Returns the product tokens of a `User-agent` line: `PictureBot` for `PictureBot/2.1`, several if commas separate
/// them.
fn agents(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(|agent| {
        let agent = agent.trim_ascii();
        let product = std::str::from_utf8(agent).map_or(0, |agent| token(agent).len());
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
/// - Characters that only some writers of URLs encode are encoded.
/// - In the query, `/` `:` `?` and `@` are not separators, and are decoded. In the path, `%2F` and `/` stay distinct.
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
                    Some(octet @ (b'/' | b':' | b'?' | b'@')) if in_query => {
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

/// Characters that the URL standard encodes in some places only, and that no URL needs unencoded.
fn is_seldom_encoded(byte: u8) -> bool {
    matches!(byte, b'\'' | b'[' | b']' | b'\\' | b'^' | b'|')
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
        parse(text, agent).is_allowed(std::str::from_utf8(&path).unwrap())
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
            ("/a%26b", "/a&b"),
            ("/a?b=%26c", "/a?b=&c"),
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
        // Rules outside of a group, rules for a robot without a name, and rules after a byte order mark.
        assert!(allows_agent(b"Disallow: /\n", "gannet", "/a"));
        assert!(allows_agent(b"User-agent:\nDisallow: /\n", "gannet", "/a"));
        let marked = b"\xef\xbb\xbfUser-agent: *\nDisallow: /a\n";
        assert!(!allows_agent(marked, "gannet", "/a"));
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
        ] {
            let delay = parse(text.as_bytes(), "gannet").crawl_delay();
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
        let rules = parse(rules.as_bytes(), "gannet");
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
            let _ = parse(&text, "gannet").is_allowed(&String::from_utf8_lossy(&path));
        }
    }
}
