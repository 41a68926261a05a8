//! What stands behind `search:`.

use std::fmt;
use std::sync::Arc;

use url::form_urlencoded;

use super::PROVIDERS;
use super::registry::unknown;

/// What a search is written with.
pub(in crate::source) const PREFIX: &str = "search:";

/// One question, as providers are asked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What is looked for.
    pub text: String,
    /// Filters by their names, each with its value, or several divided by commas.
    pub filters: Arc<[(String, String)]>,
}

/// A search as it was named: `search:PROVIDER,…?q=TEXT&q=TEXT&FILTER=VALUE`. Prints in one form however it was written,
/// and is read again as the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchSpec {
    providers: Vec<&'static str>,
    queries: Vec<Query>,
    filters: Arc<[(String, String)]>,
}

impl SearchSpec {
    /// Reads a search. Which filters there are is for its providers to say.
    ///
    /// # Errors
    ///
    /// When it names no provider, one that is not there, or nothing to look for. In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
            _ => return Err(format!("it does not begin with `{PREFIX}`")),
        };
        let (names, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let mut providers = Vec::new();
        for name in names.split(',') {
            let name = name.trim().to_ascii_lowercase();
            let Some(known) = PROVIDERS.iter().find(|known| **known == name) else {
                return Err(unknown(&name));
            };
            if !providers.contains(known) {
                providers.push(*known);
            }
        }
        let mut texts: Vec<String> = Vec::new();
        let mut filters: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            if value.is_empty() {
                return Err(format!("`{}` has no value", name.escape_debug()));
            }
            if value.contains(char::is_control) {
                return Err(format!(
                    "`{}` holds a control character",
                    name.escape_debug()
                ));
            }
            let name = match &*name {
                "q" if texts.contains(&value) => continue,
                "q" => {
                    texts.push(value);
                    continue;
                }
                "license" => "licence",
                name => name,
            };
            // Several values may be given one by one.
            match filters.iter_mut().find(|(other, _)| other == name) {
                Some((_, values)) => *values = format!("{values},{value}"),
                None => filters.push((name.to_owned(), value)),
            }
        }
        if texts.is_empty() {
            return Err(format!(
                "it has nothing to look for; write `{PREFIX}{}?q=red panda`",
                providers.join(",")
            ));
        }
        for (_, values) in &mut filters {
            let mut each: Vec<_> = values.split(',').map(str::trim).collect();
            each.sort_unstable();
            each.dedup();
            *values = each.join(",");
        }
        filters.sort();
        let filters: Arc<[_]> = filters.into();
        Ok(Self {
            providers,
            queries: texts
                .into_iter()
                .map(|text| Query {
                    text,
                    filters: filters.clone(),
                })
                .collect(),
            filters,
        })
    }

    /// The names of its providers, each once.
    pub fn providers(&self) -> &[&'static str] {
        &self.providers
    }

    /// What they are asked, each once.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }

    /// The filters, by their names.
    pub fn filters(&self) -> &[(String, String)] {
        &self.filters
    }
}

impl fmt::Display for SearchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.providers.join(","))?;
        let queries = self.queries.iter().map(|query| ("q", &query.text));
        let filters = self.filters.iter().map(|(name, value)| (&**name, value));
        for (at, (name, value)) in queries.chain(filters).enumerate() {
            let mark = if at == 0 { '?' } else { '&' };
            write!(f, "{mark}{}={}", Plain(name), Plain(value))?;
        }
        Ok(())
    }
}

/// A text with nothing percent-encoded but what would be read as something else.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '%' | '&' | '+' | '=' => write!(f, "%{:02X}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_prints_in_one_form_however_it_was_written() {
        for (written, printed) in [
            (
                "search:openverse?q=red panda",
                "search:openverse?q=red panda",
            ),
            (
                "SEARCH:OpenVerse?q=red+panda",
                "search:openverse?q=red panda",
            ),
            (
                "search:openverse?q=%20red%20%20panda ",
                "search:openverse?q=red panda",
            ),
            (
                "search:bing, openverse,bing?safe=on&q=b&q=a&q=b&license=cc0",
                "search:bing,openverse?q=b&q=a&licence=cc0&safe=on",
            ),
            (
                "search:openverse?q=a&licence=cc-by, cc0&licence=cc0",
                "search:openverse?q=a&licence=cc-by,cc0",
            ),
            (
                "search:openverse?q=50%25+of+R%26D+%2B+C%23%3D%3F",
                "search:openverse?q=50%25 of R%26D %2B C#%3D?",
            ),
        ] {
            let spec = SearchSpec::parse(written).unwrap();
            assert_eq!(spec.to_string(), printed);
            assert_eq!(SearchSpec::parse(printed), Ok(spec));
        }
    }

    #[test]
    fn what_is_no_search_says_what_there_is() {
        for (written, why) in [
            (
                "search:",
                "there is no provider ``, only `openverse`, `wikimedia`",
            ),
            ("search:?q=a", "there is no provider ``"),
            (
                "search:openvers?q=a",
                "no provider `openvers`, only `openverse`",
            ),
            ("search:openverse,?q=a", "there is no provider ``"),
            ("search:openverse", "write `search:openverse?q=red panda`"),
            ("search:openverse?size=large", "nothing to look for"),
            ("search:openverse?q=", "`q` has no value"),
            ("search:openverse?q=a&size=", "`size` has no value"),
            ("search:openverse?q=a%00b", "control character"),
        ] {
            let error = SearchSpec::parse(written).unwrap_err();
            assert!(error.contains(why), "{written}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_a_search_is_read_again_as_it_prints(text in "search:(openverse|bing)\\?q=\\PC{0,20}") {
            if let Ok(spec) = SearchSpec::parse(&text) {
                proptest::prop_assert_eq!(SearchSpec::parse(&spec.to_string()), Ok(spec));
            }
        }
    }
}
