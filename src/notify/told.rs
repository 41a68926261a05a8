//! What receivers get to read: an event as JSON, as a sentence, or as a text of their own.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::catalog::EventRow;

/// What stands as it is in a segment of a URL.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// An event for whoever wants it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Greater than that of every earlier event of the catalog: what comes twice has the same.
    pub id: i64,
    /// What happened, such as `job.failed`.
    pub event: String,
    /// The job.
    pub job: Option<Uuid>,
    fields: Map<String, Value>,
}

impl Told {
    /// The event of a row, whole: nobody has to ask back.
    pub fn of(row: &EventRow) -> Self {
        let mut fields = match serde_json::from_str(&row.event.payload) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        if row.event.event != "file.deleted"
            && let Some(path) = fields.get("path").and_then(Value::as_str)
        {
            let segments: Vec<String> = path
                .split('/')
                .map(|segment| utf8_percent_encode(segment, SEGMENT).to_string())
                .collect();
            fields.insert(
                "href".to_owned(),
                format!("/files/{}", segments.join("/")).into(),
            );
        }
        let time = row.created;
        let time = time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        fields.insert("id".to_owned(), row.id.into());
        fields.insert("event".to_owned(), row.event.event.clone().into());
        fields.insert("time".to_owned(), time.into());
        fields.insert("job".to_owned(), json!(row.event.job));
        Self {
            id: row.id,
            event: row.event.event.clone(),
            job: row.event.job,
            fields,
        }
    }

    /// One that was told as JSON.
    pub fn from_json(told: &Value) -> Option<Self> {
        Some(Self {
            id: told["id"].as_i64()?,
            event: told["event"].as_str()?.to_owned(),
            job: told["job"].as_str().and_then(|job| job.parse().ok()),
            fields: told.as_object()?.clone(),
        })
    }

    /// One that says only that it is a test.
    pub fn test(receiver: &str) -> Self {
        let mut told = Self::of(&EventRow {
            id: 0,
            created: chrono::Utc::now(),
            event: crate::catalog::Event {
                job: None,
                event: "test".to_owned(),
                payload: "{}".to_owned(),
            },
        });
        told.fields.insert("receiver".to_owned(), receiver.into());
        told
    }

    /// All of it.
    pub fn json(&self) -> String {
        Value::from(self.fields.clone()).to_string()
    }

    /// The text at `key`, which may go down by dots: `counts.stored`. Empty where there is none. `sentence` is all of
    /// it, see [`sentence`](Self::sentence).
    pub fn text(&self, key: &str) -> String {
        if key == "sentence" {
            return self.sentence();
        }
        let (first, rest) = key.split_once('.').unwrap_or((key, ""));
        let value = rest
            .split('.')
            .filter(|key| !key.is_empty())
            .try_fold(self.fields.get(first), |value, key| Some(value?.get(key)));
        match value.flatten() {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        }
    }

    fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or(0)
    }

    /// What it tells, in a sentence.
    pub fn sentence(&self) -> String {
        let (kind, what) = self.event.split_once('.').unwrap_or((&self.event, ""));
        match kind {
            "job" => self.job_sentence(what),
            "file" => {
                let (path, album) = (self.text("path"), self.text("album"));
                let album = match album.is_empty() || path.starts_with(&format!("{album}/")) {
                    true => String::new(),
                    false => format!(" of album `{album}`"),
                };
                let format = self.text("format");
                let size = match (self.text("width"), self.text("height")) {
                    (width, height) if !width.is_empty() => format!(", {width}×{height}"),
                    _ => String::new(),
                };
                let bytes = self.number("bytes");
                let facts = format!("({format}{size}, {bytes} bytes)");
                match (what, self.text("from")) {
                    ("updated", _) => {
                        format!("`{path}`{album} has new metadata: {}", self.changed())
                    }
                    (_, from) if !from.is_empty() => {
                        format!("`{from}` was moved to `{path}`{album} {facts}")
                    }
                    _ => format!("`{path}`{album} was {what} {facts}"),
                }
            }
            "album" => match (what, self.text("from"), self.text("album")) {
                ("updated", _, album) => {
                    format!("album `{album}` has new metadata: {}", self.changed())
                }
                (_, from, album) if !from.is_empty() => {
                    format!("album `{from}` was renamed to `{album}`")
                }
                (_, _, album) => format!("album `{album}` was {what}"),
            },
            _ => format!(
                "this is a test: receiver `{}` gets events of gannet",
                self.text("receiver")
            ),
        }
    }

    /// The members of metadata that changed, as a list for people.
    fn changed(&self) -> String {
        let names = self.fields.get("changed").and_then(Value::as_array);
        let names: Vec<String> = names
            .into_iter()
            .flatten()
            .filter_map(|name| Some(format!("`{}`", name.as_str()?)))
            .collect();
        names.join(", ")
    }

    /// The job by the name that people know it by.
    pub(super) fn job_name(&self) -> String {
        let name = self.text("schedule");
        if name.is_empty() {
            format!("job {}", self.text("job"))
        } else {
            format!("schedule `{name}`")
        }
    }

    fn job_sentence(&self, what: &str) -> String {
        let name = self.job_name();
        if what == "started" || what == "resumed" {
            return format!(
                "{name} has {what}: {} from {}",
                self.text("kind"),
                self.text("source")
            );
        }
        let what = match self.text("interrupted") == "true" {
            true => "was interrupted",
            false if what == "cancelled" => "was cancelled",
            false if what == "failed" => "failed",
            false if what == "incomplete" => "is incomplete",
            false => "is completed",
        };
        let count = |outcome: &str| match self.number(&format!("counts.{outcome}")) {
            0 => None,
            count => Some(format!("{count} {outcome}")),
        };
        let outcomes = [
            "stored",
            "changed",
            "unchanged",
            "duplicate",
            "rejected",
            "failed",
            "skipped",
        ];
        let targets = match self.number("counts.targets") {
            1 => "1 target".to_owned(),
            count => format!("{count} targets"),
        };
        let counts: Vec<String> = [targets]
            .into_iter()
            .chain(outcomes.iter().filter_map(|outcome| count(outcome)))
            .collect();
        let why = match self.text("error") {
            why if why.is_empty() => String::new(),
            why => format!(": {why}"),
        };
        format!("{name} {what} ({}){why}", counts.join(", "))
    }
}

/// A text with fields in braces, such as `gannet/{event/}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            let field = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let Some((field, behind)) = field else {
                return Err(format!("`{text}` has a brace without another"));
            };
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/');
            if field.is_empty() || !field.bytes().all(is_plain) {
                return Err(format!(
                    "`{{{field}}}` is no field; fields are such as `{{album}}`"
                ));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Field(field.to_owned()));
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// The fields in it.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(field.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// What stands between them.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Field(_) => None,
        })
    }

    /// The text about an event, with each field as `value` has it.
    pub fn fill(&self, told: &Told, value: impl Fn(&Told, &str) -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(field) => value(told, field),
        };
        self.0.iter().map(piece).collect()
    }
}

#[cfg(test)]
pub(super) fn told(id: i64, event: &str, payload: &Value) -> Told {
    Told::of(&EventRow {
        id,
        created: chrono::DateTime::UNIX_EPOCH,
        event: crate::catalog::Event {
            job: Some(Uuid::nil()),
            event: event.to_owned(),
            payload: payload.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_whole() {
        let told = told(
            7,
            "file.stored",
            &json!({ "path": "a b/ü.png", "bytes": 3 }),
        );
        let whole: Value = serde_json::from_str(&told.json()).unwrap();
        let expected = json!({
            "id": 7,
            "event": "file.stored",
            "time": "1970-01-01T00:00:00.000Z",
            "job": "00000000-0000-0000-0000-000000000000",
            "path": "a b/ü.png",
            "href": "/files/a%20b/%C3%BC.png",
            "bytes": 3,
        });
        assert_eq!(whole, expected);
    }

    #[test]
    fn an_event_is_told_in_a_sentence() {
        let file = json!({
            "path": "shop/a.png", "album": "shop", "format": "png", "width": 3, "height": 2, "bytes": 99
        });
        let job = json!({
            "schedule": "cams", "source": "list.txt", "kind": "image", "error": "no luck",
            "counts": { "targets": 3, "stored": 1, "failed": 2 }
        });
        for (event, payload, sentence) in [
            (
                "file.stored",
                &file,
                "`shop/a.png` was stored (png, 3×2, 99 bytes)",
            ),
            (
                "job.started",
                &job,
                "schedule `cams` has started: image from list.txt",
            ),
            (
                "job.failed",
                &job,
                "schedule `cams` failed (3 targets, 1 stored, 2 failed): no luck",
            ),
            (
                "job.resumed",
                &job,
                "schedule `cams` has resumed: image from list.txt",
            ),
            (
                "album.created",
                &json!({ "album": "x" }),
                "album `x` was created",
            ),
            (
                "album.renamed",
                &json!({ "album": "y", "from": "x" }),
                "album `x` was renamed to `y`",
            ),
            (
                "album.updated",
                &json!({ "album": "x", "changed": ["a", "b"], "metadata": {} }),
                "album `x` has new metadata: `a`, `b`",
            ),
            (
                "file.changed",
                &json!({ "path": "s/b.png", "from": "s/a.png", "album": "s", "format": "png", "bytes": 9 }),
                "`s/a.png` was moved to `s/b.png` (png, 9 bytes)",
            ),
            (
                "file.updated",
                &json!({ "path": "s/b.png", "album": "s", "changed": ["title"] }),
                "`s/b.png` has new metadata: `title`",
            ),
        ] {
            assert_eq!(told(1, event, payload).sentence(), sentence);
        }
    }

    #[test]
    fn a_template_is_filled() {
        let template = Template::new("{event}: {path} ({counts.stored}), {nothing}!").unwrap();
        let told = told(
            1,
            "file.stored",
            &json!({ "path": "a", "counts": { "stored": 2 } }),
        );
        let filled = template.fill(&told, |told, field| told.text(field));
        assert_eq!(filled, "file.stored: a (2), !");
        for wrong in ["{", "}", "a{b", "{}", "{a b}", "{{x}}"] {
            assert!(Template::new(wrong).is_err(), "{wrong}");
        }
    }
}
