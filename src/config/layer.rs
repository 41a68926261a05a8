//! The sources of settings, merged by the `config` crate, and which of them is at fault.

use std::fmt;
use std::path::PathBuf;

use config::{Map, Source};
use serde_path_to_error::Segment;
use toml::de::{DeArray, DeTable, DeValue};
use toml::{Table, Value};

use super::error::{dotted, explain};
use super::{Config, ConfigError};
use crate::target::nearest;

/// Where a layer comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
    Set,
    /// The overrides of a schedule, and the layer that has it.
    Schedule(String, Box<Origin>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in settings"),
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Variable(name) => write!(f, "environment variable `{name}`"),
            Self::Set => f.write_str("`--set`"),
            Self::Schedule(name, origin) => write!(f, "{origin}, schedule `{name}`"),
        }
    }
}

/// One source of settings.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    origin: Origin,
    table: Table,
    /// The text of a file, to find lines in.
    text: Option<String>,
    /// The same layer with its one value as text, where it was read as something else.
    as_text: Option<Table>,
    /// The same layer with its one value as a list divided by commas, where it is no TOML.
    as_list: Option<Table>,
}

impl Layer {
    /// A file.
    pub(super) fn from_text(origin: Origin, text: &str) -> Result<Self, ConfigError> {
        // A byte order mark is not TOML, but editors write it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match text.parse() {
            Ok(table) => Ok(Self {
                origin,
                table,
                text: Some(text.to_owned()),
                as_text: None,
                as_list: None,
            }),
            Err(error) => Err(ConfigError::Syntax {
                place: match error.span() {
                    Some(span) => format!("{origin}, line {}", line_at(text, span.start)),
                    None => origin.to_string(),
                },
                problem: error.message().replace('\n', ", "),
            }),
        }
    }

    /// A single value at a dotted key.
    pub(super) fn from_pair(origin: Origin, key: &str, value: &str) -> Result<Self, ConfigError> {
        let Some(path) = parse_key(key) else {
            return Err(ConfigError::Key {
                place: origin.to_string(),
                key: key.to_owned(),
            });
        };
        let text = nested(&path, Value::from(value));
        let parsed = parse_value(value);
        let list = || {
            let items = value.split(',').map(str::trim);
            let items = items.filter(|item| !item.is_empty()).map(Value::from);
            nested(&path, Value::Array(items.collect()))
        };
        Ok(Self {
            origin,
            text: None,
            as_text: parsed.is_some().then(|| text.clone()),
            as_list: parsed.is_none().then(list),
            table: parsed.map_or(text, |parsed| nested(&path, parsed)),
        })
    }

    /// The layer without what is not common to all.
    pub(super) fn without_schedules(&self) -> Self {
        let mut layer = self.clone();
        layer.table.remove("schedule");
        layer
    }

    /// The names of the schedules that `layers` define.
    pub(super) fn schedules(layers: &[Self]) -> Vec<String> {
        let list = layers
            .iter()
            .rev()
            .find_map(|layer| layer.table.get("schedule")?.as_array());
        list.into_iter()
            .flatten()
            .filter_map(|schedule| Some(schedule.get("name")?.as_str()?.to_owned()))
            .collect()
    }

    /// What a schedule lays over `layers`, one of which has it.
    pub(super) fn of_schedule(name: &str, layers: &[Self], table: Table) -> Self {
        let owner = layers
            .iter()
            .rfind(|layer| layer.table.contains_key("schedule"));
        let origin = owner.map_or(Origin::Default, |layer| layer.origin.clone());
        Self {
            origin: Origin::Schedule(name.to_owned(), Box::new(origin)),
            table,
            text: None,
            as_text: None,
            as_list: None,
        }
    }

    /// Returns `true` if the layer sets the dotted `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        lookup(&self.table, &path).is_some()
    }

    /// What to write instead of a variable that means no setting: the one most like it of this layer's keys.
    pub(super) fn variable_like(&self, variable: &str) -> String {
        let names: Vec<String> = self
            .table
            .iter()
            .filter_map(|(section, table)| Some((section, table.as_table()?)))
            .flat_map(|(section, table)| table.keys().map(move |key| (section, key)))
            .map(|(section, key)| format!("GANNET_{section}__{key}").to_ascii_uppercase())
            .collect();
        match nearest(variable, names.iter().map(String::as_str)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "settings are written `GANNET_SECTION__KEY`, such as `GANNET_FETCH__RETRIES`"
                .to_owned(),
        }
    }

    /// The layer, and the line in it that sets the key at `path`.
    fn place(&self, path: &[String]) -> String {
        match self.text.as_deref().and_then(|text| line_of(text, path)) {
            Some(line) => format!("{}, line {line}", self.origin),
            None => self.origin.to_string(),
        }
    }
}

/// The keys of `a."b.c".d`.
fn parse_key(key: &str) -> Option<Vec<String>> {
    // An `=` outside quotes, a line break or a comment would make something else than one key of this.
    let table: Table = format!("{key} = 0").parse().ok()?;
    let mut path = Vec::new();
    let mut value = Value::Table(table);
    while let Value::Table(table) = value {
        let mut entries = table.into_iter();
        let (key, inner) = entries.next()?;
        if entries.next().is_some() {
            return None;
        }
        path.push(key);
        value = inner;
    }
    (value == Value::Integer(0) && !key.contains(['\n', '#'])).then_some(path)
}

fn parse_value(text: &str) -> Option<Value> {
    let mut table: Table = format!("value = {text}").parse().ok()?;
    let value = table.remove("value")?;
    table.is_empty().then_some(value)
}

fn nested(path: &[String], leaf: Value) -> Table {
    let tree = path.iter().rev().fold(leaf, |inner, key| {
        Value::Table(Table::from_iter([(key.clone(), inner)]))
    });
    match tree {
        Value::Table(table) => table,
        _ => Table::new(),
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, config::Value>, config::ConfigError> {
        Ok(self
            .table
            .iter()
            .map(|(key, value)| (key.clone(), to_config(value)))
            .collect())
    }
}

fn to_config(value: &Value) -> config::Value {
    let kind: config::ValueKind = match value {
        Value::String(text) => text.clone().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(items) => items.iter().map(to_config).collect::<Vec<_>>().into(),
        Value::Table(table) => table
            .iter()
            .map(|(key, value)| (key.clone(), to_config(value)))
            .collect::<Map<_, _>>()
            .into(),
    };
    config::Value::new(None, kind)
}

/// Back to TOML, whose deserializer is strict: `config`'s own takes `"64"` for a number and 1.5 for 2.
fn from_config(value: config::Value) -> Value {
    use config::ValueKind;
    match value.kind {
        ValueKind::Nil => Value::from(""),
        ValueKind::Boolean(truth) => Value::from(truth),
        ValueKind::I64(number) => Value::from(number),
        ValueKind::Float(number) => Value::from(number),
        ValueKind::String(text) => Value::from(text),
        // No layer holds numbers that TOML does not have.
        ValueKind::I128(number) => Value::from(number.to_string()),
        ValueKind::U64(number) => Value::from(number.to_string()),
        ValueKind::U128(number) => Value::from(number.to_string()),
        ValueKind::Array(items) => Value::Array(items.into_iter().map(from_config).collect()),
        ValueKind::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(key, value)| (key, from_config(value)))
                .collect(),
        ),
    }
}

/// A path to the key at fault, and serde's message.
type Fault = (Vec<String>, String);

fn try_merge(layers: &[Layer]) -> Result<(Config, Table), Fault> {
    let merged = layers
        .iter()
        .fold(config::Config::builder(), |builder, layer| {
            builder.add_source(layer.clone())
        })
        .build()
        .map_err(|error| (Vec::new(), error.to_string()))?;
    let tree = from_config(merged.cache);
    let config = serde_path_to_error::deserialize(tree.clone()).map_err(|error| {
        let path = error.path().iter().map(|segment| match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.clone(),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => "?".to_owned(),
        });
        (path.collect(), error.inner().message().to_owned())
    })?;
    match tree {
        Value::Table(table) => Ok((config, table)),
        _ => Err((Vec::new(), "expected a table of sections".to_owned())),
    }
}

/// Merges all layers. The first one that makes an unusable configuration of a usable one is at fault, unless it is
/// a single value that can be used as text, or as a list where one is wanted.
pub(super) fn merge(layers: &mut [Layer]) -> Result<(Config, Table), ConfigError> {
    // Names that `config` would read as paths: it takes apart the keys of the uppermost table.
    for layer in &*layers {
        let is_plain = |key: &str| {
            key.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        if let Some(key) = layer
            .table
            .keys()
            .find(|key| key.is_empty() || !is_plain(key))
        {
            let path = [key.clone()];
            return Err(ConfigError::Value {
                place: layer.place(&path),
                key: dotted(&path),
                problem: "unknown section".to_owned(),
            });
        }
    }
    loop {
        match try_merge(layers) {
            Ok(done) => return Ok(done),
            Err(fault) => {
                let (at, fault) = (1..layers.len())
                    .find_map(|at| Some((at, try_merge(&layers[..=at]).err()?)))
                    .unwrap_or((layers.len() - 1, fault));
                let typed = layers[at].table.clone();
                if let Some(text) = layers[at].as_text.take() {
                    layers[at].table = text;
                    if try_merge(&layers[..=at]).is_ok() {
                        continue;
                    }
                    layers[at].table = typed;
                }
                let (path, message) = fault;
                if message.ends_with("expected a sequence")
                    && let Some(list) = layers[at].as_list.take()
                {
                    layers[at].table = list;
                    continue;
                }
                let value = lookup(&layers[at].table, &path);
                let problem = explain(&message, &path, value, &layers[0].table);
                return Err(ConfigError::Value {
                    place: layers[at].place(&path),
                    key: dotted(&path),
                    problem,
                });
            }
        }
    }
}

/// An error about values that do not fit together, at the one that was set last.
pub(super) fn blame(layers: &[Layer], paths: &[Vec<String>], problem: String) -> ConfigError {
    let (layer, path) = layers
        .iter()
        .rev()
        .flat_map(|layer| paths.iter().map(move |path| (layer, path)))
        .find(|(layer, path)| lookup(&layer.table, path).is_some())
        .expect("every value comes from a layer");
    ConfigError::Value {
        place: layer.place(path),
        key: dotted(path),
        problem,
    }
}

fn lookup<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(table.get(first)?, |value, key| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            value => value.get(key),
        })
}

/// The line, counted from 1, of the key at `path`, or of the nearest table above it.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = Some(document.get_ref());
    let mut list = None;
    let mut at = None;
    for key in path {
        let entry = table.and_then(|table| table.iter().find(|(k, _)| k.get_ref() == key));
        let item = list.and_then(|list: &DeArray<'_>| list.get(key.parse::<usize>().ok()?));
        let (start, value) = match (entry, item) {
            (Some((key, value)), _) => (key.span().start, value),
            (None, Some(value)) => (value.span().start, value),
            (None, None) => break,
        };
        at = Some(start);
        (table, list) = match value.get_ref() {
            DeValue::Table(inner) => (Some(inner), None),
            DeValue::Array(items) => (None, Some(items)),
            _ => (None, None),
        };
    }
    at.map(|at| line_at(text, at))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&b| b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_value_or_none() {
        assert_eq!(parse_value("1"), Some(Value::Integer(1)));
        assert_eq!(parse_value("1\nother = 2"), None);
        assert_eq!(parse_value("1\n[section]"), None);
        assert_eq!(parse_value("plain text"), None);
        assert_eq!(parse_value(""), None);
    }
}
