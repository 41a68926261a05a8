//! The order of services for names: the `hosts` line of nsswitch.conf(5), as glibc reads it.

/// A service that gannet knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// The hosts file.
    Files,
    /// The name servers.
    Dns,
}

/// A service, and after which of its failures no other service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) service: Service,
    /// Set if the search ends where the service does not have the name.
    pub(super) ends_without_name: bool,
    /// Set if the search ends where the service does not answer.
    pub(super) ends_on_failure: bool,
}

impl Step {
    pub(super) fn new(service: Service) -> Self {
        Self {
            service,
            ends_without_name: false,
            ends_on_failure: false,
        }
    }

    /// Applies what stands in brackets behind the service.
    fn apply(&mut self, actions: &str) {
        for action in actions.split_ascii_whitespace() {
            let Some((status, action)) = action.split_once('=') else {
                continue;
            };
            let ends = match action.to_ascii_lowercase().as_str() {
                "return" => true,
                "continue" => false,
                _ => continue,
            };
            let (is_negated, status) = match status.strip_prefix('!') {
                Some(status) => (true, status),
                None => (false, status),
            };
            for (name, field) in [
                ("notfound", &mut self.ends_without_name),
                ("tryagain", &mut self.ends_on_failure),
            ] {
                if status.eq_ignore_ascii_case(name) != is_negated {
                    *field = ends;
                }
            }
        }
    }
}

/// Returns the services of the `hosts` line in their order. Services that gannet does not know are left out. Without a
/// line, these are `files dns`.
///
/// systemd-resolved, `resolve`, asks the name servers after the hosts file. It counts as both if no `dns` is named.
pub(super) fn parse(text: &[u8]) -> Vec<Step> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().filter_map(|line| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        line.trim_start()
            .strip_prefix("hosts")?
            .trim_start()
            .strip_prefix(':')
    });
    let Some(mut rest) = lines.next_back() else {
        return [Service::Files, Service::Dns].map(Step::new).into();
    };
    // Each service with its actions.
    let mut named: Vec<(&str, Vec<&str>)> = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        if let Some(inner) = rest.strip_prefix('[') {
            let (actions, behind) = inner.split_once(']').unwrap_or((inner, ""));
            if let Some((_, of)) = named.last_mut() {
                of.push(actions);
            }
            rest = behind;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '[');
        let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
        named.push((name, Vec::new()));
        rest = behind;
    }
    let has_dns = named.iter().any(|(name, _)| *name == "dns");
    let mut steps: Vec<Step> = Vec::new();
    for (name, actions) in named {
        let service = match name {
            "files" => Service::Files,
            "dns" => Service::Dns,
            "resolve" if !has_dns => {
                if steps.iter().all(|step| step.service != Service::Files) {
                    steps.push(Step::new(Service::Files));
                }
                Service::Dns
            }
            _ => continue,
        };
        let mut step = Step::new(service);
        for actions in actions {
            step.apply(actions);
        }
        steps.push(step);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps as words: `!` where a missing name ends the search, `?` where a failure does.
    fn words(text: &str) -> String {
        let word = |step: &Step| {
            let name = match step.service {
                Service::Files => "files",
                Service::Dns => "dns",
            };
            let without_name = if step.ends_without_name { "!" } else { "" };
            let failure = if step.ends_on_failure { "?" } else { "" };
            format!("{name}{without_name}{failure}")
        };
        let words: Vec<_> = parse(text.as_bytes()).iter().map(word).collect();
        words.join(" ")
    }

    #[test]
    fn services_are_those_of_the_last_hosts_line() {
        for (text, expected) in [
            ("", "files dns"),
            (
                "passwd: files\n# hosts: dns\nhosts dns\nhostsx: dns",
                "files dns",
            ),
            ("hosts: files", "files"),
            ("hosts:\tdns files # in this order", "dns files"),
            (" hosts : dns\r\n", "dns"),
            ("hosts: dns\nhosts: files\n", "files"),
            ("hosts:", ""),
            ("hosts: nis myhostname", ""),
            ("hosts: files dns [!UNAVAIL=return] nis", "files dns!?"),
            ("hosts: dns [NOTFOUND=return] files", "dns! files"),
            ("hosts: dns[notfound=RETURN]files", "dns! files"),
            ("hosts: dns [UNAVAIL=return] files", "dns files"),
            ("hosts: dns [TRYAGAIN=return] files", "dns? files"),
            (
                "hosts: dns [!UNAVAIL=return NOTFOUND=continue] files",
                "dns? files",
            ),
            (
                "hosts: dns [NOTFOUND=merge SUCCESS=return =x y] files",
                "dns files",
            ),
            ("hosts: dns [NOTFOUND=return", "dns!"),
            ("hosts: [NOTFOUND=return] dns", "dns"),
            (
                "hosts: files mdns4_minimal [NOTFOUND=return] dns",
                "files dns",
            ),
            (
                "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns",
                "files dns",
            ),
            ("hosts: files resolve", "files dns"),
            (
                "hosts: resolve [!UNAVAIL=return] files",
                "files dns!? files",
            ),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }
}
