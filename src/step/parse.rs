//! What a job says of its steps.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{MAX_STEPS, Planned, Registry, Steps};

/// A step that cannot be run as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct StepsError {
    /// Where it stands, counted from 0.
    pub index: usize,
    /// The name of its kind, where it has one.
    pub step: Option<String>,
    /// The parameter that is the matter, where it is one.
    pub field: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for StepsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`steps[{}]", self.index)?;
        if let Some(field) = &self.field {
            write!(f, ".{field}")?;
        }
        write!(f, "`")?;
        if let Some(step) = &self.step {
            write!(f, " (step `{step}`)")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Parameters that no step can be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The parameter that is the matter, where it is one.
    pub field: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

impl Wrong {
    /// `problem` is the matter with `field`.
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            problem: problem.into(),
        }
    }
}

/// Reads the parameters of a step. `P` denies unknown fields, so that a misspelt one is an error.
///
/// # Errors
///
/// What does not fit, by its name.
pub fn parameters<P: DeserializeOwned>(given: Map<String, Value>) -> Result<P, Wrong> {
    serde_path_to_error::deserialize(Value::Object(given)).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner().to_string();
        // Of what is not there there is no path.
        let missing = problem
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'))
            .map(str::to_owned);
        match missing {
            Some(field) => Wrong::field(field, "is needed"),
            None => Wrong {
                field: (path != ".").then_some(path),
                problem: problem.replace("unknown field", "unknown parameter"),
            },
        }
    })
}

impl Registry {
    /// The steps that a job asks for: each the name of a kind, or an object with `step`, that name, and parameters.
    ///
    /// # Errors
    ///
    /// The first step that cannot be run as it is asked for.
    pub fn parse(&self, given: &[Value]) -> Result<Steps, StepsError> {
        if given.len() > MAX_STEPS {
            return Err(StepsError {
                index: MAX_STEPS,
                step: None,
                field: None,
                problem: format!("there are more than {MAX_STEPS} steps"),
            });
        }
        let mut counts = BTreeMap::<&str, usize>::new();
        let mut steps = Vec::with_capacity(given.len());
        for (index, value) in given.iter().enumerate() {
            let fail = |step: Option<&str>, wrong: Wrong| StepsError {
                index,
                step: step.map(str::to_owned),
                field: wrong.field,
                problem: wrong.problem,
            };
            let (name, parameters) = split(value).map_err(|wrong| fail(None, wrong))?;
            let kind = self.0.get(name).ok_or_else(|| {
                let field = value.is_object().then(|| "step".to_owned());
                let problem = self.unknown(name);
                fail(None, Wrong { field, problem })
            })?;
            let step = kind
                .step(parameters)
                .map_err(|wrong| fail(Some(name), wrong))?;
            let count = counts.entry(name).or_default();
            *count += 1;
            steps.push(Planned {
                key: match *count {
                    1 => name.to_owned(),
                    count => format!("{name}#{count}"),
                },
                kind: name.to_owned(),
                step,
            });
        }
        Ok(Steps(steps.into()))
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.kinds().collect();
        let known = known.join("`, `");
        format!("there is no step `{name}`; there are `{known}`")
    }
}

/// The name of a kind, and the parameters.
fn split(value: &Value) -> Result<(&str, Map<String, Value>), Wrong> {
    match value {
        Value::String(name) => Ok((name, Map::new())),
        Value::Object(object) => match object.get("step") {
            Some(Value::String(name)) => {
                let mut parameters = object.clone();
                parameters.remove("step");
                Ok((name, parameters))
            }
            Some(_) => Err(Wrong::field("step", "is no text")),
            None => Err(Wrong::field("step", "is needed: the name of a step")),
        },
        _ => Err(Wrong {
            field: None,
            problem: "is neither the name of a step nor an object with `step`".to_owned(),
        }),
    }
}
