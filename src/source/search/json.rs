//! Reading JSON that others write: whatever is not as expected is not there.

use serde_json::Value;

use super::{Answer, SearchError};

/// The document that an answer is.
pub(super) fn document(answer: &Answer) -> Result<Value, SearchError> {
    serde_json::from_str(&answer.text()).map_err(|error| SearchError::Changed {
        detail: format!("its answer is no JSON: {error}"),
    })
}

/// The items at `name`.
pub(super) fn items<'a>(document: &'a Value, name: &str) -> Result<&'a [Value], SearchError> {
    match document.get(name) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(SearchError::Changed {
            detail: format!("its answer has no list `{name}`"),
        }),
    }
}

/// A text that is not empty.
pub(super) fn text<'a>(value: &'a Value, place: &str) -> Option<&'a str> {
    value
        .pointer(place)?
        .as_str()
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

/// The same, to keep.
pub(super) fn string(value: &Value, place: &str) -> Option<String> {
    text(value, place).map(str::to_owned)
}

/// A whole number above 0, be it written as a text.
pub(super) fn number(value: &Value, place: &str) -> Option<u64> {
    let number = match value.pointer(place)? {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64(),
    };
    number.filter(|number| *number > 0)
}
