//! Hides secrets in a tree of settings.

use toml::{Table, Value};
use url::Url;

use crate::target::SafeUrl;

/// `tree` with the value of every secret key, and the credentials of every URL, replaced by `***`.
pub(super) fn masked(mut tree: Table) -> Table {
    for (key, value) in &mut tree {
        mask(key, value);
    }
    if let Some(Value::Table(search)) = tree.get_mut("search") {
        let providers = search
            .iter_mut()
            .filter_map(|(_, value)| value.as_table_mut());
        for key in providers.filter_map(|provider| provider.get_mut("key")) {
            if key.as_str() != Some("") {
                *key = Value::from("***");
            }
        }
    }
    tree
}

/// Headers that hold no secret by their definition.
const HARMLESS_HEADERS: [&str; 8] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "dnt",
    "from",
    "referer",
    "user-agent",
];

fn mask(key: &str, value: &mut Value) {
    match value {
        Value::Table(headers) if key == "headers" => {
            // Any other header may be a key to something, whatever its name.
            for (name, value) in headers {
                if !HARMLESS_HEADERS
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known))
                {
                    *value = Value::from("***");
                }
            }
        }
        Value::Table(table) => {
            // The path of a webhook is often its key.
            let is_webhook = key == "notify"
                && table
                    .get("type")
                    .is_some_and(|kind| kind.as_str() == Some("webhook"));
            for (key, value) in table {
                mask(key, value);
                if let Value::String(text) = value
                    && is_webhook
                    && key == "url"
                    && let Ok(url) = Url::parse(text)
                {
                    *text = format!("{}/***", url.origin().ascii_serialization());
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(key, item)),
        Value::String(text) if text.is_empty() => {}
        _ if is_secret(key) => *value = Value::from("***"),
        Value::String(text) => {
            if let Some(masked) = mask_url(text) {
                *text = masked;
            } else if matches!(key, "proxy" | "urls")
                && let Some((_, host)) = text.rsplit_once('@')
            {
                // A proxy may lack a scheme.
                *text = format!("***@{host}");
            }
        }
        _ => {}
    }
}

/// Whether a key, or a header, of this name holds a credential.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // File names, and the way to send a password, are not credentials.
    if matches!(key.as_str(), "cookies_file" | "netrc_file" | "auth") {
        return false;
    }
    [
        "password", "token", "secret", "auth", "cookie", "session", "api-key", "api_key", "apikey",
    ]
    .iter()
    .any(|word| key.contains(word))
}

/// `text` without the credentials of the URL that it is; `None` when it holds none.
pub(super) fn mask_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (credentials, _) = rest.split('/').next()?.rsplit_once('@')?;
    let masked = match Url::parse(text) {
        Ok(url) => SafeUrl::new(&url).to_string(),
        Err(_) => format!("{scheme}://***{}", &rest[credentials.len()..]),
    };
    Some(masked)
}
