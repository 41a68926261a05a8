//! Filters: one word for one thing with all providers, and what each calls it.

use super::{Query, SearchProvider};

/// A filter that a provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// What it is called with all providers: `size`, `type`, `licence`, `safe`, `age`.
    pub name: &'static str,
    /// Its values: what each is called here, the provider's parameter, and what that is set to.
    pub values: &'static [(&'static str, &'static str, &'static str)],
    /// Whether it takes several values, divided by commas, any of which will do.
    pub is_list: bool,
}

impl Filter {
    /// A filter that takes one value.
    pub const fn one(
        name: &'static str,
        values: &'static [(&'static str, &'static str, &'static str)],
    ) -> Self {
        Self {
            name,
            values,
            is_list: false,
        }
    }

    /// A filter that takes several.
    pub const fn list(
        name: &'static str,
        values: &'static [(&'static str, &'static str, &'static str)],
    ) -> Self {
        Self {
            name,
            values,
            is_list: true,
        }
    }
}

impl Query {
    /// The parameters that its filters come to with a provider that has `filters`. Values of one parameter are joined by
    /// `joint`.
    pub fn parameters(&self, filters: &[Filter], joint: &str) -> Vec<(&'static str, String)> {
        let mut parameters: Vec<(&'static str, String)> = Vec::new();
        for (name, values) in self.filters.iter() {
            let Some(filter) = filters.iter().find(|filter| filter.name == name) else {
                continue;
            };
            for value in values.split(',') {
                let known = filter.values.iter().find(|(ours, ..)| *ours == value);
                let Some((_, parameter, theirs)) = known else {
                    continue;
                };
                match parameters.iter_mut().find(|(name, _)| name == parameter) {
                    Some((_, joined)) => *joined = format!("{joined}{joint}{theirs}"),
                    None => parameters.push((parameter, (*theirs).to_owned())),
                }
            }
        }
        parameters
    }
}

/// Says what is wrong with `filters`, asked of `provider`.
pub(super) fn check(
    provider: &dyn SearchProvider,
    filters: &[(String, String)],
) -> Result<(), String> {
    let (name, has) = (provider.name(), provider.filters());
    for (filter, values) in filters {
        let Some(known) = has.iter().find(|known| known.name == filter) else {
            let all: Vec<_> = has.iter().map(|known| known.name).collect();
            return Err(match all.as_slice() {
                [] => format!("`{name}` has no filter `{filter}`, nor any other"),
                all => format!("`{name}` has no filter `{filter}`; it has {}", listed(all)),
            });
        };
        for value in values.split(',') {
            if !known.values.iter().any(|(ours, ..)| *ours == value) {
                let all: Vec<_> = known.values.iter().map(|(ours, ..)| *ours).collect();
                return Err(format!(
                    "`{name}` has no `{filter}={value}`; it has {}",
                    listed(&all)
                ));
            }
        }
        if !known.is_list && values.contains(',') {
            return Err(format!("`{name}` takes one `{filter}`, not `{values}`"));
        }
    }
    Ok(())
}

/// `a`, `b`, `c`.
pub(super) fn listed(words: &[&str]) -> String {
    format!("`{}`", words.join("`, `"))
}
