//! What a reason means, and what a person can do about it.

use std::borrow::Cow;

use crate::target::Reason;

/// The reason in a few words, for headings.
pub const fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::InvalidUrl => "the line is no URL, or a column of it cannot be used",
        Reason::UnsupportedScheme => "neither http nor https",
        Reason::DeniedAddress => "the address is not on the public Internet",
        Reason::Dns => "the host name does not resolve",
        Reason::Connect => "no connection to the host",
        Reason::Tls => "no secure connection to the host",
        Reason::Proxy => "the proxy refused or failed",
        Reason::Timeout => "a time limit ran out",
        Reason::TooSlow => "the body came too slowly",
        Reason::Reset => "the connection was lost",
        Reason::Truncated => "the body ended too early",
        Reason::BadResponse => "the answer breaks the protocol",
        Reason::Redirects => "redirects that lead nowhere",
        Reason::Status => "the origin answered with an error",
        Reason::TooLarge => "the file is too large",
        Reason::Empty => "the body is empty",
        Reason::WrongKind => "another kind of file",
        Reason::Corrupt => "the file is damaged",
        Reason::TooManyPixels => "the picture has too many pixels",
        Reason::DecodeMemory => "decoding takes too much memory",
        Reason::Undecoded => "nothing decodes this kind of picture",
        Reason::Checksum => "not the bytes that the list promises",
        Reason::Robots => "the site asks robots not to",
        Reason::HostDown => "the host was given up",
        Reason::GroupStopped => "an earlier error stopped the group",
        Reason::Cancelled => "the job was cancelled",
        Reason::Deadline => "the job's deadline passed",
        Reason::Step => "a step after the download failed",
        Reason::StoreFull => "the store is full",
        Reason::StoreError => "the store failed",
    }
}

/// What to try. `status` is that of the answer; `host`, when given, appears in the names of settings.
pub fn hint(reason: Reason, status: Option<u16>, host: Option<&str>) -> Cow<'static, str> {
    let host = host.unwrap_or("HOST");
    Cow::Borrowed(match reason {
        Reason::InvalidUrl => "correct or remove the line in the list",
        Reason::UnsupportedScheme => "only http and https URLs can be fetched",
        Reason::DeniedAddress => {
            "if this network is yours, allow it with `--allow-private`, or a part of it with `--allow-net CIDR`"
        }
        Reason::Dns => {
            "check the spelling of the host, and the name servers (`fetch.name_servers`)"
        }
        Reason::Connect => {
            "check that the host is up and that no firewall is in the way; a proxy is set with `--proxy URL`"
        }
        Reason::Tls => {
            "if the certificate is from an authority of your own, name it with `--ca-file PEM`"
        }
        Reason::Proxy => {
            "check `--proxy` and the variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY"
        }
        Reason::Timeout => {
            "ask fewer at a time (`--per-host N`), or raise `fetch.connect_timeout`, `fetch.idle_timeout`, \
             `fetch.total_timeout`"
        }
        Reason::TooSlow => "lower `fetch.min_speed`, or ask fewer at a time (`--per-host N`)",
        Reason::Reset | Reason::Truncated => {
            "run it again; if it stays so, ask fewer at a time (`--per-host N`)"
        }
        Reason::BadResponse => "the fault is the origin's; see the detail",
        Reason::Redirects => "put the final address in the list, or raise `fetch.redirects`",
        Reason::Status => return status_hint(status, host),
        Reason::TooLarge => "raise `fetch.max_bytes`, for pictures also `image.max_bytes`",
        Reason::Empty => "the origin has nothing there; correct or remove the URL",
        Reason::WrongKind => {
            "see in a browser what is there; `--kind any` keeps whatever comes, `image.formats` adds formats"
        }
        Reason::Corrupt => {
            "the file is damaged at its origin; `--set image.check=sniff` keeps such files"
        }
        Reason::TooManyPixels => "raise the setting that the detail names",
        Reason::DecodeMemory => "raise `image.decode_memory`; the detail says how much it takes",
        Reason::Undecoded => "`image.undecoded = \"keep\"` keeps pictures that cannot be decoded",
        Reason::Checksum => "find out why the bytes changed before you correct the list's sha256",
        Reason::Robots => {
            "ask the site's owner; `--set fetch.robots=false` does not look at the wish"
        }
        Reason::HostDown => {
            "run it again when the host is back; the detail names the setting that gave it up"
        }
        Reason::GroupStopped => "cure the first error of the group, then run it again",
        Reason::Cancelled => "run it again: what is there is not fetched twice",
        Reason::Deadline => "run it again for the rest, or raise `--deadline`",
        Reason::Step => "see the detail",
        Reason::StoreFull => "make room in the store, then run it again",
        Reason::StoreError => "see the detail and the log; the store's folder must be writable",
    })
}

fn status_hint(status: Option<u16>, host: &str) -> Cow<'static, str> {
    Cow::Borrowed(match status {
        Some(401) => {
            return Cow::Owned(format!(
                "give credentials: `hosts.\"{host}\".user` and `.password`, or `.token`"
            ));
        }
        Some(402) => "the origin wants robots to pay; ask it for terms, or leave these URLs out",
        Some(403) => {
            return Cow::Owned(format!(
                "the origin wants something more: credentials or headers (`hosts.\"{host}\".headers`), \
                 or a `fetch.user_agent` with a contact address"
            ));
        }
        Some(404 | 410) => "the files are gone; correct or remove the URLs",
        Some(407) => "the proxy wants credentials: `--proxy http://USER:PASSWORD@PROXY:PORT`",
        Some(408 | 425 | 429 | 503) => {
            return Cow::Owned(format!(
                "ask more slowly: `--rate 1` for every host, or `hosts.\"{host}\".rate` for this one"
            ));
        }
        Some(500..=599) => "the origin is in trouble; run it again later",
        _ => "open the URL in a browser to see what the origin wants",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning_and_a_hint() {
        for reason in Reason::ALL {
            assert!(!meaning(*reason).is_empty());
            assert!(!hint(*reason, None, None).is_empty());
        }
    }

    #[test]
    fn a_hint_names_the_host_and_what_the_status_calls_for() {
        let slow = hint(Reason::Status, Some(429), Some("a.test"));
        assert!(slow.contains("`hosts.\"a.test\".rate`"), "{slow}");
        assert!(hint(Reason::Status, Some(404), None).contains("gone"));
        assert!(hint(Reason::DeniedAddress, None, None).contains("--allow-private"));
        assert!(hint(Reason::Tls, None, None).contains("--ca-file"));
    }
}
