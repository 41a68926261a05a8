//! Files and lists of proxies.

use super::settings::ProxyUrl;

/// What a list names, in its order, and what is wrong with it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) proxies: Vec<ProxyUrl>,
    /// Numbers of the lines, counted from 1, that name no proxy.
    pub(super) broken: Vec<usize>,
}

impl Listed {
    /// The broken lines in words, none of which repeats what may be a password; `None`: there are none.
    pub(super) fn complaint(&self) -> Option<String> {
        const SHOWN: usize = 5;
        let shown = self.broken.iter().take(SHOWN).map(usize::to_string);
        let numbers = shown.collect::<Vec<_>>().join(", ");
        match self.broken.len() {
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
pub(super) fn parse(text: &str) -> Listed {
    let mut listed = Listed::default();
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
            Some(proxy) => listed.proxies.push(proxy),
            None => listed.broken.push(number + 1),
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
        let listed = parse(text);
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
        assert_eq!(listed.broken, [6, 7, 9, 11, 12, 13, 14, 15, 16, 17]);
        let complaint = listed.complaint().unwrap();
        assert!(
            complaint.contains("6, 7, 9") && !complaint.contains("hush"),
            "{complaint}"
        );
    }

    proptest! {
        #[test]
        fn whatever_a_list_holds_each_line_is_a_proxy_or_broken_or_nothing(text in "(?s).{0,300}") {
            let listed = parse(&text);
            prop_assert!(listed.proxies.len() + listed.broken.len() <= text.lines().count());
            prop_assert!(listed.broken.iter().all(|line| (1..=text.lines().count()).contains(line)));
            for proxy in listed.proxies {
                prop_assert_eq!(ProxyUrl::parse(&proxy.to_string()).map(|p| p.to_string()), Some(proxy.to_string()));
            }
        }

        #[test]
        fn what_is_written_as_a_proxy_is_read_as_one(
            proxies in prop::collection::vec(("[a-z]{1,9}\\.example", 1u16.., prop::sample::select(vec!["", "http://", "https://", "socks5://", "socks5h://"])), 0..20)
        ) {
            let text: String = proxies.iter().map(|(host, port, scheme)| format!("{scheme}{host}:{port}\n")).collect();
            let listed = parse(&text);
            prop_assert_eq!(&listed.broken, &Vec::<usize>::new());
            let ports: Vec<u16> = listed.proxies.iter().map(ProxyUrl::port).collect();
            prop_assert_eq!(ports, proxies.iter().map(|(_, port, _)| *port).collect::<Vec<_>>());
        }
    }
}
