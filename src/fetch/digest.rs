//! Challenges of HTTP authentication (RFC 9110, section 11), and answers to Digest challenges (RFC 7616, RFC 2617,
//! RFC 2069).

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, PROXY_AUTHENTICATE, WWW_AUTHENTICATE};
use md5::{Digest as _, Md5};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use url::{Position, Url};

/// Longest name of an unknown scheme that messages quote.
const MAX_SCHEME: usize = 20;

/// RFC 7616, section 3.5.
pub(super) const AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("authentication-info");

/// Most unsupported schemes and features that messages quote.
const MAX_UNSUPPORTED: usize = 4;

/// Parameters of a challenge, as names and values in their original order.
type Params = Vec<(String, Vec<u8>)>;

/// A user name and password.
pub(super) struct Login<'a> {
    pub(super) user: &'a [u8],
    pub(super) password: &'a [u8],
}

/// The authentication schemes that an answer offers.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// The strongest Digest challenge that is supported.
    pub(super) digest: Option<Challenge>,
    pub(super) basic: bool,
    pub(super) bearer: bool,
    /// The first [`MAX_UNSUPPORTED`] unsupported schemes and features on offer, worded for messages.
    pub(super) unsupported: Vec<String>,
}

impl Offer {
    /// Parses the `WWW-Authenticate` fields of `headers`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self::parse(headers, &WWW_AUTHENTICATE)
    }

    /// Explains a proxy's 407 with these headers. Proxies get user name and password by Basic only.
    pub(super) fn refusal_of_proxy(headers: &HeaderMap) -> String {
        let offer = Self::parse(headers, &PROXY_AUTHENTICATE);
        let mut asks = offer.unsupported;
        asks.extend(offer.digest.is_some().then(|| "Digest".to_owned()));
        if offer.basic || asks.is_empty() {
            return "it wants a user name and password".to_owned();
        }
        let asks = asks.join(" or ");
        format!("it asks for {asks}, which is not supported for proxies; Basic is")
    }

    fn parse(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut offer = Self::default();
        for value in headers.get_all(name) {
            for (scheme, params) in challenges(value.as_bytes()) {
                offer.add(&scheme, &params);
            }
        }
        offer
    }

    fn add(&mut self, scheme: &str, params: &[(String, Vec<u8>)]) {
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => self.basic = true,
            "bearer" => self.bearer = true,
            "digest" => match Challenge::new(params) {
                Ok(challenge) => {
                    // The first of equally strong challenges wins.
                    let best = self.digest.as_ref().map(|best| best.algorithm);
                    if best.is_none_or(|best| challenge.algorithm > best) {
                        self.digest = Some(challenge);
                    }
                }
                Err(lack) => self.lacks(lack),
            },
            _ => self.lacks(scheme.chars().take(MAX_SCHEME).collect()),
        }
    }

    fn lacks(&mut self, what: String) {
        if self.unsupported.len() < MAX_UNSUPPORTED && !self.unsupported.contains(&what) {
            self.unsupported.push(what);
        }
    }
}

/// Hash functions, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Md5,
    Sha256,
    Sha512_256,
}

impl Algorithm {
    /// Returns the hash of `parts`, joined by colons, in lower-case hexadecimal.
    fn hash(self, parts: &[&[u8]]) -> String {
        let bytes = parts.join(&b':');
        match self {
            Self::Md5 => hex(&Md5::digest(&bytes)),
            Self::Sha256 => hex(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref()),
            Self::Sha512_256 => {
                hex(ring::digest::digest(&ring::digest::SHA512_256, &bytes).as_ref())
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A Digest challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The quoted text as it came, which is sent back unchanged. Only its unescaped form is hashed, as in curl and
    /// Apache.
    realm: Vec<u8>,
    nonce: Vec<u8>,
    opaque: Option<Vec<u8>>,
    algorithm: Algorithm,
    /// The algorithm as the origin spells it. `None` if the challenge names no algorithm, which means MD5.
    algorithm_name: Option<String>,
    /// Set for the `-sess` variants.
    is_session: bool,
    /// Set for `qop=auth`; otherwise the answer follows RFC 2069.
    has_qop: bool,
    hashes_user: bool,
    is_utf8: bool,
    /// The credentials were right, but the nonce was too old.
    pub(super) is_stale: bool,
}

impl Challenge {
    /// Parses a challenge. The error names the unsupported feature that it requires.
    fn new(params: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let get = |name: &str| {
            let found = params
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_slice())
        };
        let is = |name: &str, value: &str| {
            get(name).is_some_and(|text| text.eq_ignore_ascii_case(value.as_bytes()))
        };
        let algorithm_name =
            get("algorithm").map(|name| String::from_utf8_lossy(name).into_owned());
        let lower = algorithm_name
            .as_deref()
            .unwrap_or("MD5")
            .to_ascii_lowercase();
        let bare = lower.strip_suffix("-sess").unwrap_or(&lower);
        let algorithm = match bare {
            "md5" => Algorithm::Md5,
            "sha-256" => Algorithm::Sha256,
            "sha-512-256" => Algorithm::Sha512_256,
            _ => {
                let known = lower
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || *c == '-');
                let name: String = known.take(MAX_SCHEME).collect();
                return Err(format!("Digest with the algorithm `{name}`"));
            }
        };
        let has_qop = match get("qop") {
            // Some devices send an empty `qop` and mean no `qop`.
            None | Some(b"") => false,
            Some(qop) => {
                let mut options = qop.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                if !options.any(|option| option.eq_ignore_ascii_case(b"auth")) {
                    return Err("Digest with `qop=auth-int` only".to_owned());
                }
                true
            }
        };
        let nonce = get("nonce").ok_or("Digest without a nonce")?;
        Ok(Self {
            realm: get("realm").unwrap_or_default().to_vec(),
            nonce: nonce.to_vec(),
            opaque: get("opaque").map(<[u8]>::to_vec),
            algorithm,
            is_session: bare.len() < lower.len(),
            algorithm_name,
            has_qop,
            hashes_user: is("userhash", "true"),
            is_utf8: is("charset", "UTF-8"),
            is_stale: is("stale", "true"),
        })
    }
}

/// An origin's nonce and the number of its uses.
pub(super) struct Session {
    challenge: Challenge,
    uses: AtomicU32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(challenge: Challenge) -> Self {
        Self {
            challenge,
            uses: AtomicU32::new(0),
        }
    }

    /// Returns the next session if an answer carries a `nextnonce` (RFC 7616, section 3.5).
    pub(super) fn next(&self, headers: &HeaderMap) -> Option<Self> {
        let info = headers.get(AUTHENTICATION_INFO)?;
        // `Authentication-Info` has the syntax of a challenge without its scheme.
        let text = [b"Digest ", info.as_bytes()].concat();
        let (_, params) = challenges(&text).pop()?;
        let (_, nonce) = params
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("nextnonce"))?;
        Some(Self::new(Challenge {
            nonce,
            ..self.challenge.clone()
        }))
    }

    /// Returns the `Authorization` header for a GET of `url`. Counts as one use of the nonce.
    pub(super) fn answer(&self, login: &Login<'_>, url: &Url) -> Option<HeaderValue> {
        let uses = self.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let cnonce = hex(&rand::random::<[u8; 16]>());
        let uri = &url[Position::BeforePath..Position::AfterQuery];
        self.challenge.answer(login, "GET", uri, uses, &cnonce)
    }
}

impl Challenge {
    fn answer(
        &self,
        login: &Login<'_>,
        method: &str,
        uri: &str,
        uses: u32,
        cnonce: &str,
    ) -> Option<HeaderValue> {
        // RFC 7616, sections 3.4.1 to 3.4.4.
        let hash = |parts: &[&[u8]]| self.algorithm.hash(parts);
        let (realm, nonce) = (unescaped(&self.realm), unescaped(&self.nonce));
        let mut secret = hash(&[login.user, &realm, login.password]);
        if self.is_session {
            secret = hash(&[secret.as_bytes(), &nonce, cnonce.as_bytes()]);
        }
        let request = hash(&[method.as_bytes(), uri.as_bytes()]);
        let count = format!("{uses:08x}");
        let response = if self.has_qop {
            hash(&[
                secret.as_bytes(),
                &nonce,
                count.as_bytes(),
                cnonce.as_bytes(),
                b"auth",
                request.as_bytes(),
            ])
        } else {
            hash(&[secret.as_bytes(), &nonce, request.as_bytes()])
        };
        let mut text = b"Digest ".to_vec();
        if self.hashes_user {
            let user = hash(&[login.user, &realm]);
            quoted(&mut text, "username", user.as_bytes());
            text.extend_from_slice(b", userhash=true");
        } else if self.is_utf8 && !login.user.is_ascii() {
            text.extend_from_slice(b"username*=UTF-8''");
            let encoded = percent_encode(login.user, NON_ALPHANUMERIC).to_string();
            text.extend_from_slice(encoded.as_bytes());
        } else {
            quoted(&mut text, "username", &escaped(login.user));
        }
        let mut param = |name: &str, value: &[u8]| {
            text.extend_from_slice(b", ");
            quoted(&mut text, name, value);
        };
        param("realm", &self.realm);
        param("nonce", &self.nonce);
        param("uri", uri.as_bytes());
        param("response", response.as_bytes());
        if let Some(opaque) = &self.opaque {
            param("opaque", opaque);
        }
        if self.has_qop || self.is_session {
            param("cnonce", cnonce.as_bytes());
        }
        if self.has_qop {
            text.extend_from_slice(format!(", qop=auth, nc={count}").as_bytes());
        }
        if let Some(name) = &self.algorithm_name {
            text.extend_from_slice(format!(", algorithm={name}").as_bytes());
        }
        let mut value = HeaderValue::from_bytes(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn quoted(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"=\"");
    text.extend_from_slice(value);
    text.push(b'"');
}

/// Removes the backslashes of a quoted string, RFC 9110, section 5.6.4.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let is_text = |byte: &&u8| {
        is_escaped = **byte == b'\\' && !is_escaped;
        !is_escaped
    };
    text.iter().filter(is_text).copied().collect()
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

/// Parses the challenges of one header into schemes and parameters. Quoted values keep their backslashes.
fn challenges(text: &[u8]) -> Vec<(String, Params)> {
    let mut found: Vec<(String, Params)> = Vec::new();
    let mut rest = text;
    loop {
        rest = trimmed(rest, |byte| byte == b',' || byte.is_ascii_whitespace());
        let (name, after) = split(rest, is_token);
        if name.is_empty() {
            // Text that cannot be parsed is skipped up to the next comma.
            match rest.iter().position(|byte| *byte == b',') {
                Some(comma) => rest = &rest[comma..],
                None => return found,
            }
            continue;
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let spaced = trimmed(after, |byte| byte.is_ascii_whitespace());
        if let (Some((_, params)), Some(value)) = (found.last_mut(), spaced.strip_prefix(b"=")) {
            let (value, after) = value_of(trimmed(value, |byte| byte.is_ascii_whitespace()));
            params.push((name, value));
            rest = after;
            continue;
        }
        found.push((name, Vec::new()));
        // A token68 may stand in place of parameters, as in `Negotiate YII=`.
        let (token, after) = split(spaced, |byte| is_token(byte) || byte == b'/');
        let after = trimmed(after, |byte| byte == b'=');
        let after = trimmed(after, |byte| byte.is_ascii_whitespace());
        let is_token68 = !token.is_empty() && (after.is_empty() || after.starts_with(b","));
        rest = if is_token68 { after } else { spaced };
    }
}

/// Bytes of a token, RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn split(text: &[u8], is_in: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !is_in(*byte));
    text.split_at(end.unwrap_or(text.len()))
}

fn trimmed(text: &[u8], is_in: impl Fn(u8) -> bool) -> &[u8] {
    split(text, is_in).1
}

/// Splits off a value, which is a token or the raw text of a quoted string, and returns it with the rest.
fn value_of(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let (value, rest) = split(text, |byte| byte != b',' && !byte.is_ascii_whitespace());
        return (value.to_vec(), rest);
    };
    let mut is_escaped = false;
    let end = quoted.iter().position(|&byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    match end {
        Some(end) => (quoted[..end].to_vec(), &quoted[end + 1..]),
        None => (quoted.to_vec(), b""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MUFASA: Login<'_> = Login {
        user: b"Mufasa",
        password: b"Circle of Life",
    };

    fn offer(lines: &[&str]) -> Offer {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        Offer::of(&headers)
    }

    fn challenge(line: &str) -> Challenge {
        offer(&[line]).digest.unwrap()
    }

    fn answer(challenge: &Challenge, login: &Login<'_>, uri: &str, cnonce: &str) -> String {
        let value = challenge.answer(login, "GET", uri, 1, cnonce).unwrap();
        String::from_utf8(value.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_examples_of_the_standards_are_answered_as_they_say() {
        // RFC 7616, section 3.9.1.
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (algorithm, response) in [
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ] {
            let challenge = challenge(&format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            ));
            let text = answer(&challenge, &MUFASA, "/dir/index.html", cnonce);
            assert_eq!(
                text,
                format!(
                    "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                     nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", uri=\"/dir/index.html\", response=\"{response}\", \
                     opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\", cnonce=\"{cnonce}\", qop=auth, nc=00000001, \
                     algorithm={algorithm}"
                )
            );
        }
        // RFC 7616, section 3.9.2. The values in the standard come from another hash (erratum 4897); these are from
        // Python's hashlib.
        let hashed = challenge(
            "Digest realm=\"api@example.org\", qop=\"auth\", algorithm=SHA-512-256, nonce=\"5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK\", \
             opaque=\"HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS\", charset=UTF-8, userhash=true",
        );
        let login = Login {
            user: "J\u{e4}s\u{f8}n Doe".as_bytes(),
            password: b"Secret, or not?",
        };
        let text = answer(
            &hashed,
            &login,
            "/doe.json",
            "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm",
        );
        assert!(
            text.contains("username=\"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b\", userhash=true")
                && text.contains("response=\"7a4e1192babbba02e91182d2895bfdbf7adafc6e48d4e517ca301974843d840c\""),
            "{text}"
        );
        // RFC 2617, section 3.5.
        let old = challenge(
            "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
        );
        let login = Login {
            user: b"Mufasa",
            password: b"Circle Of Life",
        };
        let text = answer(&old, &login, "/dir/index.html", "0a4f113b");
        assert!(
            text.contains("response=\"6629fae49393a05397450978507c4ef1\""),
            "{text}"
        );
        assert!(!text.contains("algorithm"), "{text}");
        // RFC 2069, section 2.4, with its erratum 749.
        let oldest = challenge(
            "Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
        );
        let login = Login {
            user: b"Mufasa",
            password: b"CircleOfLife",
        };
        let text = answer(&oldest, &login, "/dir/index.html", "unused");
        assert!(
            text.contains("response=\"1949323746fe6a43ef61f9606e7febea\""),
            "{text}"
        );
        assert!(!text.contains("cnonce") && !text.contains("nc="), "{text}");
    }

    #[test]
    fn a_session_hashes_the_nonces_into_the_secret() {
        let challenge = challenge("Digest realm=\"r\", nonce=\"n\", qop=auth, algorithm=md5-SESS");
        let text = answer(&challenge, &MUFASA, "/", "c");
        let md5 = |text: &str| hex(&Md5::digest(text.as_bytes()));
        let secret = md5(&format!("{}:n:c", md5("Mufasa:r:Circle of Life")));
        let response = md5(&format!("{secret}:n:00000001:c:auth:{}", md5("GET:/")));
        assert!(text.contains(&format!("response=\"{response}\"")), "{text}");
        assert!(text.ends_with("algorithm=md5-SESS"), "{text}");
    }

    #[test]
    fn the_strongest_challenge_is_chosen_and_what_cannot_be_answered_named() {
        for (lines, expected) in [
            (&["Basic realm=\"a\""][..], (None, true, "")),
            (
                &["Basic realm=\"a, Digest b\", Digest realm=\"r\", nonce=\"n\""],
                (Some(Algorithm::Md5), true, ""),
            ),
            (
                &[
                    "Digest realm=r, nonce=n, algorithm=MD5",
                    "digest realm=r,nonce=n,algorithm=\"SHA-256\",qop=\"auth\"",
                ],
                (Some(Algorithm::Sha256), false, ""),
            ),
            (
                &["Digest nonce=\"n\", algorithm=SHA-512-256, Digest nonce=\"n\""],
                (Some(Algorithm::Sha512_256), false, ""),
            ),
            (
                &["Digest nonce=\"n\", qop=\"\""],
                (Some(Algorithm::Md5), false, ""),
            ),
            (
                &["Digest nonce=\"n\", qop=\"auth-int\""],
                (None, false, "Digest with `qop=auth-int` only"),
            ),
            (
                &["Digest nonce=\"n\", algorithm=TIGER"],
                (None, false, "Digest with the algorithm `tiger`"),
            ),
            (
                &["Digest realm=\"r\""],
                (None, false, "Digest without a nonce"),
            ),
            (
                &["Negotiate", "NTLM", "Basic realm=x"],
                (None, true, "Negotiate, NTLM"),
            ),
            (
                &["Negotiate YIIabc/+d==, NTLM TlRM=, Digest nonce=\"n\""],
                (Some(Algorithm::Md5), false, "Negotiate, NTLM"),
            ),
            (
                &["Negotiate abc, Basic realm=\"x\""],
                (None, true, "Negotiate"),
            ),
            (&[""], (None, false, "")),
            (&[",, ,Basic"], (None, true, "")),
            (&["\"Basic\""], (None, false, "")),
        ] {
            let offer = offer(lines);
            let algorithm = offer.digest.map(|challenge| challenge.algorithm);
            let (digest, basic, unsupported) = expected;
            assert_eq!(
                (
                    algorithm,
                    offer.basic,
                    offer.unsupported.join(", ").as_str()
                ),
                (digest, basic, unsupported),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn of_many_unsupported_ways_a_few_are_named() {
        let names: Vec<_> = (0..20_000).map(|at| format!("a{at}")).collect();
        let line = names.join(", ");
        assert_eq!(offer(&[&line]).unsupported, names[..MAX_UNSUPPORTED]);
        assert!(offer(&[&line, "Digest nonce=n, Basic"]).digest.is_some());
        let mut headers = HeaderMap::new();
        headers.insert(PROXY_AUTHENTICATE, HeaderValue::from_str(&line).unwrap());
        let text = Offer::refusal_of_proxy(&headers);
        assert!(text.contains("a0 or a1 or ") && text.len() < 200, "{text}");
    }

    #[test]
    fn a_proxy_that_takes_no_basic_is_told_from_one_that_does() {
        for (offer, expected) in [
            ("Basic realm=\"x\"", "wants a user name"),
            ("Digest nonce=\"n\", Basic", "wants a user name"),
            ("Digest nonce=\"n\"", "asks for Digest, which"),
            ("Negotiate", "asks for Negotiate, which"),
            ("", "wants a user name"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PROXY_AUTHENTICATE, HeaderValue::from_static(offer));
            let text = Offer::refusal_of_proxy(&headers);
            assert!(text.contains(expected), "{offer}: {text}");
        }
    }

    #[test]
    fn quoted_values_are_sent_back_as_they_came() {
        let challenge = challenge(
            "Digest realm=\"a \\\"b\\\", c=d\" , nonce = \"n,=\",stale=TRUE, opaque=\"\", domain=\"/a /b\"",
        );
        assert!(challenge.is_stale);
        let login = Login {
            user: b"a\"b\\c",
            password: b"p",
        };
        let text = answer(&challenge, &login, "/x?y=z&w", "c");
        assert!(
            text.starts_with(
                "Digest username=\"a\\\"b\\\\c\", realm=\"a \\\"b\\\", c=d\", nonce=\"n,=\", uri=\"/x?y=z&w\", response=\""
            ) && text.ends_with(", opaque=\"\""),
            "{text}"
        );
        let md5 = |text: &str| hex(&Md5::digest(text.as_bytes()));
        let secret = md5("a\"b\\c:a \"b\", c=d:p");
        let response = md5(&format!("{secret}:n,=:{}", md5("GET:/x?y=z&w")));
        assert!(text.contains(&response), "{text}");
        assert_eq!(unescaped(b"a\\\\b\\\"c\\"), b"a\\b\"c");
    }

    #[test]
    fn each_use_of_a_nonce_is_counted_and_a_new_one_begins_anew() {
        let session = Session::new(challenge("Digest realm=\"r\", nonce=\"n\", qop=\"auth\""));
        let url = Url::parse("http://u:p@a.example:81/x%20y?q#f").unwrap();
        for count in ["nc=00000001", "nc=00000002"] {
            let value = session.answer(&MUFASA, &url).unwrap();
            let text = value.to_str().unwrap();
            assert!(
                text.contains(count) && text.contains("uri=\"/x%20y?q\""),
                "{text}"
            );
            assert!(value.is_sensitive());
        }
        let mut headers = HeaderMap::new();
        assert!(session.next(&headers).is_none());
        headers.insert(
            "authentication-info",
            HeaderValue::from_static("rspauth=\"x\", nextnonce=\"m\", qop=auth"),
        );
        let value = session
            .next(&headers)
            .unwrap()
            .answer(&MUFASA, &url)
            .unwrap();
        let text = value.to_str().unwrap();
        assert!(
            text.contains("nonce=\"m\"") && text.contains("nc=00000001"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn whatever_an_origin_sends_is_read_to_its_end(line in "(?s).{0,120}") {
            for (scheme, _) in challenges(line.as_bytes()) {
                prop_assert!(!scheme.is_empty());
            }
        }

        #[test]
        fn parameters_come_back_as_they_were_written(
            params in prop::collection::vec(("[a-z]{1,8}", "[a-zA-Z0-9 ,=/]{0,12}"), 0..6)
        ) {
            let list: Vec<_> = params.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let text = format!("Basic realm=\"x\", Digest {}", list.join(", "));
            let found = challenges(text.as_bytes());
            prop_assert_eq!(found.len(), 2);
            let written: Vec<_> = params.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
            prop_assert_eq!(&found[1].1, &written);
        }
    }
}
