//! JSON Lines, and a JSON array as one document.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead as _};

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::counted::{Counted, Position};
use crate::source::Entry;
use crate::source::decode::Input;
use crate::source::error::Stop;
use crate::source::lines::Lines;
use crate::source::row::{self, Column, Row, RowReader, url_column};
use crate::source::sink::SharedSink;

/// One entry for each line that is not blank, or for each element of the array.
pub(super) fn parse(input: Input, sink: &SharedSink) -> Result<(), Stop> {
    let (head, input) =
        crate::source::decode::peek(input, 64 * 1024, |head| !head.trim_ascii_start().is_empty())?;
    if head.trim_ascii_start().first() == Some(&b'[') {
        array(input, sink)
    } else {
        lines(input, sink)
    }
}

fn lines(input: Input, sink: &SharedSink) -> Result<(), Stop> {
    let mut lines = Lines::new(input);
    let mut reader = RowReader::default();
    let mut first = true;
    while let Some(line) = lines.next()? {
        if line.overlong {
            let entry = row::overlong(line.number, line.bytes);
            sink.borrow_mut().push(entry)?;
            continue;
        }
        let text = line.bytes.trim_ascii();
        // Lines taken from an array end with commas.
        let text = text.strip_suffix(b",").unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        let entry = match serde_json::from_slice::<Value>(text) {
            Ok(value) => entry(value, line.number, &mut reader),
            // An object that goes on below: every line of it would be called invalid.
            Err(error) if first && text[0] == b'{' && error.is_eof() => {
                return Err(Stop::not_a_list(
                    "a JSON document over several lines",
                    "write one string or object a line, or one array of them",
                ));
            }
            Err(error) => row::invalid(
                line.number,
                text,
                format!("it is no JSON: {}", without_place(&error)),
            ),
        };
        first = false;
        sink.borrow_mut().push(entry)?;
    }
    Ok(())
}

/// The error's text without its `at line 1 column 5`: the line is another one in the list.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Returns the entry for a line of a text that is a JSON object, as JSON Lines may have after their first strings. `None`
/// if it is none.
pub(super) fn object_line(text: &str, line: u64, reader: &mut RowReader) -> Option<Entry> {
    if !text.starts_with('{') {
        return None;
    }
    let text = text.strip_suffix(',').unwrap_or(text);
    let object = serde_json::from_str(text).ok()?;
    Some(object_entry(object, line, reader))
}

/// The entry for one string or object.
fn entry(value: Value, line: u64, reader: &mut RowReader) -> Entry {
    match value {
        Value::String(url) => {
            let row = Row {
                url: url.as_bytes(),
                ..Row::default()
            };
            reader.entry(row, line)
        }
        Value::Object(object) => object_entry(object, line, reader),
        other => row::invalid(
            line,
            other.to_string().as_bytes(),
            "it is neither a string nor an object",
        ),
    }
}

fn object_entry(object: Map<String, Value>, line: u64, reader: &mut RowReader) -> Entry {
    let url_at = url_column(
        object
            .iter()
            // What is null is not there.
            .map(|(name, value)| {
                if value.is_null() {
                    Column::Other
                } else {
                    Column::of(name)
                }
            }),
    );
    let Some(url_at) = url_at else {
        let text = Value::Object(object).to_string();
        return row::invalid(line, text.as_bytes(), "the object has no `url`");
    };
    let mut url = String::new();
    let [mut name, mut album, mut sha256, mut group] = [const { None::<String> }; 4];
    let mut metadata = Map::new();
    for (at, (key, value)) in object.into_iter().enumerate() {
        let place = match Column::of(&key) {
            _ if at == url_at => {
                let Value::String(text) = value else {
                    let text = value.to_string();
                    return row::invalid(line, text.as_bytes(), format!("`{key}` is no string"));
                };
                url = text;
                continue;
            }
            _ if value.is_null() => continue,
            Column::Name => &mut name,
            Column::Album => &mut album,
            Column::Sha256 => &mut sha256,
            Column::Group => &mut group,
            Column::Url | Column::MaybeUrl(_) | Column::Other => {
                metadata.insert(key, value);
                continue;
            }
        };
        *place = match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            other => {
                let detail = format!("`{key}` is no string: {other:.40}");
                return row::invalid(line, url.as_bytes(), detail);
            }
        };
    }
    let row = Row {
        url: url.as_bytes(),
        name,
        album: album.as_deref(),
        sha256: sha256.as_deref(),
        group: group.as_deref(),
        metadata,
    };
    reader.entry(row, line)
}

fn array(input: Input, sink: &SharedSink) -> Result<(), Stop> {
    let mut input = Counted::new(input);
    let position = input.position();
    let mut elements = Elements {
        position: position.clone(),
        sink,
        reader: RowReader::default(),
        ends_in_comma: false,
        stop: None,
    };
    let parsed = serde_json::Deserializer::from_reader(&mut input).deserialize_seq(&mut elements);
    if let Some(stop) = elements.stop {
        return Err(stop);
    }
    if let Err(error) = parsed
        && !elements.ends_in_comma
    {
        return Err(if error.is_io() {
            Stop::Read(io::Error::from(error))
        } else {
            Stop::broken(position.line(), without_place(&error))
        });
    }
    loop {
        let rest = input.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        if !rest.trim_ascii().is_empty() {
            return Err(Stop::broken(position.line(), "something follows the array"));
        }
        let n = rest.len();
        input.consume(n);
        position.element_done();
    }
}

/// Takes the elements of an array one by one.
struct Elements<'a> {
    position: Position,
    sink: &'a SharedSink,
    reader: RowReader,
    /// Set if a comma follows the last element, as is common in hand-written arrays.
    ends_in_comma: bool,
    stop: Option<Stop>,
}

impl<'de> Visitor<'de> for &mut Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        loop {
            let is_begun = Cell::new(false);
            let element = Element(&self.position, &is_begun);
            let (value, line) = match elements.next_element_seed(element) {
                Ok(Some(element)) => element,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // An error in the element itself takes precedence, if there is one.
                    let is_comma = error.to_string().starts_with("trailing comma");
                    self.ends_in_comma = is_comma && !is_begun.get();
                    return Err(error);
                }
            };
            let entry = entry(value, line, &mut self.reader);
            if let Err(stop) = self.sink.borrow_mut().push(entry) {
                self.stop = Some(stop);
                return Err(A::Error::custom("nobody reads on"));
            }
            self.position.element_done();
        }
    }
}

/// An element, and the line on which it begins: it is read when its first byte has been seen.
struct Element<'a>(&'a Position, &'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = (Value, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let line = self.0.line();
        self.1.set(true);
        serde::Deserialize::deserialize(deserializer).map(|value| (value, line))
    }
}

#[cfg(test)]
mod tests {
    use crate::source::ListFormat::Jsonl;
    use crate::source::testing::{entries, failure, said, targets};
    use serde_json::json;

    #[test]
    fn lines_are_strings_or_objects() {
        let list = "\"https://a.example/1\"\n\n{\"id\": 7, \"URL\": \"https://a.example/2\", \"name\": \"n\", \"album\": \"b\", \
                    \"group\": 3, \"tags\": [1], \"none\": null}\r\n{\"url\": null, \"image\": \"https://a.example/3\"}\n";
        assert_eq!(
            said(Jsonl, list),
            [
                "1 https://a.example/1",
                "3 https://a.example/2",
                "4 https://a.example/3"
            ]
        );
        let all = entries(Jsonl, list.as_bytes()).unwrap();
        let target = targets(&all)[1];
        assert_eq!(target.name.as_deref(), Some("n"));
        assert_eq!(target.group.as_deref(), Some("3"));
        assert_eq!(
            serde_json::Value::Object(*target.metadata.clone().unwrap()),
            json!({"id": 7, "tags": [1]})
        );
    }

    #[test]
    fn a_line_that_is_no_row_is_an_item() {
        let list = "{}\n7\n{\"url\": 7}\n{broken\nhttps://a.example/\n{\"url\": \"\"}\n{\"url\": \"https://a.example/\", \"album\": [1]}\n\
                    {\"url\": \"https://a.example/ok\"}";
        let said = said(Jsonl, list);
        assert_eq!(said.len(), 8);
        assert!(
            said[..7].iter().all(|line| line.contains("!invalid-url")),
            "{said:?}"
        );
        assert_eq!(said[7], "8 https://a.example/ok");
    }

    #[test]
    fn an_array_is_read_element_by_element() {
        let list =
            "\n[\n \"https://a.example/1\",\n\n {\"url\":\n  \"https://a.example/2\"}, 7\n]\n\n";
        assert_eq!(
            said(Jsonl, list),
            [
                "3 https://a.example/1",
                "5 https://a.example/2",
                "6 !invalid-url 7"
            ]
        );
        assert!(said(Jsonl, "[]").is_empty());
        let commas = "[\n \"https://a.example/1\",\n {\"url\": \"https://a.example/2\"},\n]\n";
        assert_eq!(
            said(Jsonl, commas),
            ["2 https://a.example/1", "3 https://a.example/2"]
        );
        for (list, line) in [
            ("[\"https://a.example/\",\n", 2),
            ("[\n{\"a\"}]", 2),
            ("[1] x", 1),
            ("[1,] x", 1),
            ("[1,,]", 1),
            ("[{\"a\":1,}]", 1),
            ("[1,", 1),
        ] {
            let failure = failure(Jsonl, list);
            assert!(
                failure.contains(&format!("broken at line {line}")),
                "{list:?}: {failure}"
            );
        }
    }

    #[test]
    fn an_array_has_no_endless_element() {
        let list = format!("[\"https://a.example/\", \"{}\"]", "x".repeat(6_000_000));
        assert!(failure(Jsonl, &list).contains("longer than 4 MiB"));
    }

    #[test]
    fn a_document_over_several_lines_is_no_list() {
        assert!(failure(Jsonl, "{\n \"images\": []\n}").contains("several lines"));
    }
}
