//! Files and lists of proxies.

use std::collections::HashSet;

use super::settings::ProxyUrl;

/// Lines that are told of by their number.
const SHOWN: usize = 5;

/// What a list names, in its order, and what is wrong with it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) proxies: Vec<ProxyUrl>,
    /// Lines that name no proxy.
    pub(super) broken: usize,
    /// Numbers of the first of them, counted from 1.
    pub(super) first_broken: Vec<usize>,
}

impl Listed {
    /// The broken lines in words, none of which repeats what may be a password; `None`: there are none.
    pub(super) fn complaint(&self) -> Option<String> {
        let shown = self.first_broken.iter().map(usize::to_string);
        let numbers = shown.collect::<Vec<_>>().join(", ");
        match self.broken {
            0 => None,
            1 => Some(format!("line {numbers} is no proxy, and left out")),
            count if count <= SHOWN => {
                Some(format!("lines {numbers} are no proxies, and left out"))
            }
            count => Some(format!(
                "{count} lines are no proxies, and left out: {numbers}, …"
            )),
        }
    }
}

/// Reads one proxy a line: a URL, or `HOST:PORT` of an HTTP proxy. What follows a `#` that begins a word is a comment.
/// Ends at the first `most` different ones.
pub(super) fn parse(text: &str, most: usize) -> Listed {
    let mut listed = Listed::default();
    let mut seen = HashSet::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = match line.split_once('#') {
            Some((before, _)) if before.is_empty() || before.ends_with(char::is_whitespace) => {
                before
            }
            _ => line,
        };
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Some(proxy) if seen.contains(&proxy) => {}
            Some(_) if seen.len() == most => break,
            Some(proxy) => {
                seen.insert(proxy.clone());
                listed.proxies.push(proxy);
            }
            None => {
                listed.broken += 1;
                if listed.first_broken.len() < SHOWN {
                    listed.first_broken.push(number + 1);
                }
            }
        }
    }
    listed
}

fn parse_line(line: &str) -> Option<ProxyUrl> {
    if line.contains(char::is_whitespace) {
        return None;
    }
    if line.contains("://") {
        return ProxyUrl::parse(line);
    }
    let (host, port) = line.rsplit_once(':')?;
    let is_port = port.bytes().all(|digit| digit.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    // Anything else that a URL may hold would be taken for something that it is not.
    let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', '\\']);
    (is_port && is_host)
        .then(|| ProxyUrl::parse(&format!("http://{line}")))
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_names_proxies_and_tells_of_lines_that_name_none() {
        let text = "\u{feff}# proxies\n\n192.0.2.1:3128\r\nhttp://ann:hush@p.example:8080 # ours\n\
                    socks5://[2001:db8::1]:1080\nnonsense\n192.0.2.1\nhttps://p.example\nftp://p.example\n\
                    [2001:db8::2]:80\n192.0.2.1:99999\nann:hush@p.example:1\n192.0.2.1:0\na b:1\n\
                    http://a{b:3128\na}b:80\nsocks5://%31.0.0.1:1\n";
        let listed = parse(text, 99);
        let shown: Vec<_> = listed.proxies.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "http://192.0.2.1:3128",
                "http://p.example:8080",
                "socks5://[2001:db8::1]:1080",
                "https://p.example",
                "http://[2001:db8::2]",
            ]
        );
        assert_eq!(listed.broken, 10);
        assert_eq!(listed.first_broken, [6, 7, 9, 11, 12]);
        let complaint = listed.complaint().unwrap();
        assert!(
            complaint.contains("6, 7, 9") && !complaint.contains("hush"),
            "{complaint}"
        );
    }

    #[test]
    fn no_more_of_a_list_is_kept_than_is_used() {
        let text: String = (0..5000)
            .map(|n| format!("p{}.example:80\nnonsense\n", n / 2))
            .collect();
        let listed = parse(&text, 10);
        assert_eq!(listed.proxies.len(), 10);
        assert!(listed.first_broken.len() == SHOWN && listed.broken == 20);
    }

    proptest! {
        #[test]
        fn whatever_a_list_holds_each_line_is_a_proxy_or_broken_or_nothing(text in "(?s).{0,300}") {
            let listed = parse(&text, 99);
            prop_assert!(listed.proxies.len() + listed.broken <= text.lines().count());
            prop_assert!(listed.first_broken.iter().all(|line| (1..=text.lines().count()).contains(line)));
            for proxy in listed.proxies {
                prop_assert_eq!(ProxyUrl::parse(&proxy.to_string()).map(|p| p.to_string()), Some(proxy.to_string()));
            }
        }

        #[test]
        fn what_is_written_as_a_proxy_is_read_as_one(
            proxies in prop::collection::vec(("[a-z]{1,9}\\.example", 1u16.., prop::sample::select(vec!["", "http://", "https://", "socks5://", "socks5h://"])), 0..20)
        ) {
            let text: String = proxies.iter().map(|(host, port, scheme)| format!("{scheme}{host}:{port}\n")).collect();
            let listed = parse(&text, 99);
            prop_assert_eq!(listed.broken, 0);
            let mut wanted = Vec::new();
            for line in text.lines() {
                let proxy = parse_line(line).unwrap();
                if !wanted.contains(&proxy) {
                    wanted.push(proxy);
                }
            }
            prop_assert_eq!(listed.proxies, wanted);
        }
    }
}
