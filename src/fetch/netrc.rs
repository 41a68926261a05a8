//! `.netrc`: user names and passwords by host, as curl reads them.

use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use url::Host;

use super::error::{Cause, SetupError};

/// Entries of the file in order. The first match counts.
#[derive(Debug, Default)]
pub(super) struct Netrc(Vec<Entry>);

#[derive(Default)]
struct Entry {
    /// `None` for the entry `default`.
    machine: Option<String>,
    login: Option<String>,
    password: Option<SecretString>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}

impl Netrc {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, SetupError> {
        let text = std::fs::read_to_string(path).map_err(|source| SetupError::ReadNetrc {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|(line, why)| SetupError::BadNetrc {
            path: path.to_owned(),
            line,
            source: Cause(why.to_owned()),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns user name and password for `host`, in the form of [`Url::host_str`](url::Url::host_str). The user name
    /// may be empty. If `user` is given, entries for other users do not match. The entry `default` matches only if
    /// `takes_default`.
    pub(super) fn get(
        &self,
        host: &str,
        user: Option<&str>,
        takes_default: bool,
    ) -> Option<(&str, &str)> {
        let entry = self.0.iter().find(|entry| {
            let is_host = match &entry.machine {
                Some(machine) => machine == host,
                None => takes_default,
            };
            // `https://ann@host/` takes the password of ann, or one for any user.
            is_host && (user.is_none() || entry.login.is_none() || entry.login.as_deref() == user)
        })?;
        let password = entry.password.as_ref().map_or("", |it| it.expose_secret());
        Some((entry.login.as_deref().unwrap_or_default(), password))
    }

    /// Errors carry a line number, and never quote the line, since any word may be a password.
    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut words = Words {
            text: text.trim_start_matches('\u{feff}'),
            line: 1,
        };
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(word) = words.next(true)? {
            let line = words.line;
            let mut value = || {
                words
                    .next(false)?
                    .ok_or((line, "the last word lacks its value"))
            };
            match word.as_str() {
                "machine" => {
                    let machine = Some(normal(&value()?));
                    entries.push(Entry {
                        machine,
                        ..Entry::default()
                    });
                }
                "default" => entries.push(Entry::default()),
                "login" => {
                    let login = value()?;
                    if let Some(entry) = entries.last_mut() {
                        entry.login = Some(login);
                    }
                }
                "password" => {
                    let password = value()?;
                    if let Some(entry) = entries.last_mut() {
                        entry.password = Some(password.into());
                    }
                }
                "account" => drop(value()?),
                "macdef" => words.skip_macro(),
                // Other programs define words of their own.
                _ => {}
            }
        }
        entries.retain(|entry| entry.login.is_some() || entry.password.is_some());
        Ok(Self(entries))
    }
}

/// Converts `machine` to the form it has in URLs.
fn normal(machine: &str) -> String {
    let host = Host::parse(machine).or_else(|_| Host::parse(&format!("[{machine}]")));
    host.map_or_else(|_| machine.to_ascii_lowercase(), |host| host.to_string())
}

/// Words separated by white space; a word may be quoted.
struct Words<'a> {
    text: &'a str,
    line: usize,
}

impl Words<'_> {
    /// Returns the next word. `#` starts a comment only if `takes_comment`, because a password may start with it.
    fn next(&mut self, takes_comment: bool) -> Result<Option<String>, (usize, &'static str)> {
        loop {
            let rest = self.text.trim_start();
            self.advance(self.text.len() - rest.len());
            if !takes_comment || !rest.starts_with('#') {
                break;
            }
            let end = rest.find('\n').unwrap_or(rest.len());
            self.advance(end);
        }
        if self.text.is_empty() {
            return Ok(None);
        }
        if !self.text.starts_with('"') {
            let end = self.text.find(char::is_whitespace);
            let end = end.unwrap_or(self.text.len());
            let word = self.text[..end].to_owned();
            self.advance(end);
            return Ok(Some(word));
        }
        let mut word = String::new();
        let mut chars = self.text.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.advance(at + 1);
                    return Ok(Some(word));
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, 'n')) => word.push('\n'),
                    Some((_, 'r')) => word.push('\r'),
                    Some((_, 't')) => word.push('\t'),
                    Some((_, other)) => word.push(other),
                    None => break,
                },
                other => word.push(other),
            }
        }
        Err((self.line, "a quoted word does not end on its line"))
    }

    /// Skips a macro: its name, and its lines up to an empty one.
    fn skip_macro(&mut self) {
        let mut end = 0;
        for line in self.text.split_inclusive('\n') {
            end += line.len();
            if end > line.len() && line.trim().is_empty() {
                break;
            }
        }
        self.advance(end);
    }

    fn advance(&mut self, bytes: usize) {
        let (gone, rest) = self.text.split_at(bytes);
        self.line += gone.matches('\n').count();
        self.text = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_found_by_host_and_user() {
        let netrc = Netrc::parse(
            "# mine\n\
             machine A.example login ann password hush1\n\
             machine a.example\n\tlogin bob\n\tpassword \"two words \\\"x\\\"\" # his\n\
             machine key.example password #hush3 login eve port 8080\n\
             machine token.example password only\n\
             macdef init\nmachine no.example login no password no\n\n\
             machine 127.0.0.1 account x login lo password cal machine ::1 login six password vi\n\
             machine b\u{fc}cher.example login umlaut password \u{fc}\n\
             machine empty.example\n\
             machine user.example login alone\n\
             default login anonymous password me@a.example\n\
             machine late.example login late password no\n",
        )
        .unwrap();
        for (host, user, expected) in [
            ("a.example", None, Some(("ann", "hush1"))),
            ("a.example", Some("bob"), Some(("bob", "two words \"x\""))),
            ("a.example", Some("other"), None),
            ("b.a.example", None, None),
            ("key.example", None, Some(("eve", "#hush3"))),
            ("token.example", None, Some(("", "only"))),
            ("token.example", Some("ann"), Some(("", "only"))),
            ("no.example", None, None),
            ("127.0.0.1", None, Some(("lo", "cal"))),
            ("[::1]", None, Some(("six", "vi"))),
            ("xn--bcher-kva.example", None, Some(("umlaut", "\u{fc}"))),
            ("empty.example", None, None),
            ("user.example", None, Some(("alone", ""))),
        ] {
            assert_eq!(netrc.get(host, user, false), expected, "{host} {user:?}");
        }
        let default = Some(("anonymous", "me@a.example"));
        assert_eq!(netrc.get("other.example", None, true), default);
        // The first match counts.
        assert_eq!(netrc.get("late.example", None, true), default);
        assert_eq!(netrc.get("a.example", None, true), Some(("ann", "hush1")));
        assert!(!format!("{netrc:?}").contains("hush"));
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line_and_not_shown() {
        for (text, line) in [
            ("machine", 1),
            ("machine a.example\nlogin ann\npassword", 3),
            ("machine a.example\nlogin \"hush", 2),
            ("machine a.example password \"hush\nlogin\" ann", 1),
        ] {
            let (at, why) = Netrc::parse(text).map(drop).unwrap_err();
            assert_eq!(at, line, "{text}: {why}");
        }
    }

    #[test]
    fn a_file_without_entries_is_none() {
        for text in [
            "",
            "\n\n",
            "# nothing",
            "login ann password hush",
            "macdef x",
        ] {
            assert!(Netrc::parse(text).unwrap().is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s)(machine|default|login|password|macdef|\"|#|\\\\| |\n|.){0,40}") {
            let _ = Netrc::parse(&text);
        }

        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec(("[a-z]{1,9}", "[a-z]{1,9}", "[!-~]{1,9}"), 0..6)) {
            let text: String = entries
                .iter()
                .map(|(host, login, password)| {
                    let password = password.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("machine {host}.example login {login}\npassword \"{password}\"\n")
                })
                .collect();
            let netrc = Netrc::parse(&text).unwrap();
            for (host, login, _) in &entries {
                let host = format!("{host}.example");
                let first = entries.iter().find(|(h, l, _)| format!("{h}.example") == host && l == login);
                let (_, _, password) = first.unwrap();
                prop_assert_eq!(netrc.get(&host, Some(login), false), Some((login.as_str(), password.as_str())));
            }
        }
    }
}
