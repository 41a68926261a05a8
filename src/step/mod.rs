//! Work that is done on a file that has arrived: steps.
//!
//! A [`Kind`] is a sort of step, as a job names it (`resize`); a [`Step`] is one with its parameters (to 800 pixels).
//! [`Registry::parse`] makes [`Steps`] of what a job says, all of it checked, so that a job with a step that cannot be
//! run is refused before it begins. [`Steps::run`] does them, one after the other, on one [`Subject`].
//!
//! - `measure`: its width, height and perimeter;
//! - `resize`, `thumbnail`: smaller pictures of it;
//! - `phash`: a digest of what it looks like;
//! - `command`: what a program of the operator's says of it;
//! - `delay`: nothing, for a time.
//!
//! Those are built in; a library user adds one with [`Registry::register`]. What computes does so on the
//! [`Workers`](crate::rendition::Workers), of which there are as many as processors. This room knows nothing of jobs, the
//! catalog or HTTP.

mod command;
mod delay;
mod measure;
mod parse;
mod phash;
mod resize;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::downloader::{Body, Facts};
use crate::rendition::Renditions;
use crate::target::Sha256;

pub(crate) use measure::measured;
pub use parse::{StepsError, Wrong, parameters};
pub use settings::{Command, Settings};

/// Most steps of one job.
pub const MAX_STEPS: usize = 32;

/// A sort of step.
///
/// ```
/// use std::sync::Arc;
///
/// use gannet::step::{Failure, Kind, Output, Registry, Step, Subject, Wrong, parameters};
/// use serde::Deserialize;
/// use serde_json::{Map, Value, json};
///
/// /// `weigh`: the size of a file, in pieces of `of` bytes.
/// #[derive(Debug)]
/// struct Weigh;
///
/// #[derive(Debug, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Weighing {
///     of: u64,
/// }
///
/// impl Kind for Weigh {
///     fn name(&self) -> &str {
///         "weigh"
///     }
///
///     fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong> {
///         let weighing: Weighing = parameters(given)?;
///         match weighing.of {
///             0 => Err(Wrong::field("of", "is no size")),
///             _ => Ok(Arc::new(weighing)),
///         }
///     }
/// }
///
/// #[async_trait::async_trait]
/// impl Step for Weighing {
///     fn given(&self) -> Map<String, Value> {
///         Map::from_iter([("of".to_owned(), self.of.into())])
///     }
///
///     async fn run(&self, subject: &Subject) -> Result<Output, Failure> {
///         Ok(json!({"pieces": subject.body.len().div_ceil(self.of)}).into())
///     }
/// }
///
/// let mut registry = Registry::default();
/// registry.register(Arc::new(Weigh));
/// let steps = registry.parse(&[json!({"step": "weigh", "of": 1024})]);
/// assert_eq!(json!(steps.unwrap()), json!([{"step": "weigh", "of": 1024}]));
/// let error = registry.parse(&[json!({"step": "weigh", "of": 0})]).unwrap_err();
/// assert_eq!(error.to_string(), "`steps[0].of` (step `weigh`): is no size");
/// ```
pub trait Kind: fmt::Debug + Send + Sync + 'static {
    /// The name by which jobs call it, such as `measure`.
    fn name(&self) -> &str;

    /// A step of this kind. `given` is what a job says of it besides its name; [`parameters`] makes a type of that.
    ///
    /// # Errors
    ///
    /// A parameter that is unknown, missing or out of range.
    fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong>;
}

/// A step with its parameters.
///
/// # Contract
///
/// - `run` may be called any number of times at once, each time for another file.
/// - Who drops its future wants the result no more: what it has begun ends soon, and leaves nothing behind.
/// - What takes a processor for more than some 100 µs belongs on the workers, what takes a process has a limit.
#[async_trait]
pub trait Step: fmt::Debug + Send + Sync + 'static {
    /// Its parameters, defaults among them: what [`Kind::step`] would make the same step of.
    fn given(&self) -> Map<String, Value>;

    /// Does it.
    ///
    /// # Errors
    ///
    /// Why it cannot be done with this file.
    async fn run(&self, subject: &Subject) -> Result<Output, Failure>;
}

/// A file that steps are run on.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its bytes.
    pub body: Body,
    /// What is known of them.
    pub facts: Facts,
    /// Their digest.
    pub sha256: Sha256,
    /// Where they came from, with credentials masked.
    pub url: String,
    /// The album that it goes to.
    pub album: Option<String>,
    /// The name that it has or will have, as far as that is known.
    pub name: Option<String>,
    /// Whether a step may put other bytes in place of these: not those of a file that is there already.
    pub may_replace: bool,
}

/// What a step made of a file.
#[derive(Debug, Default)]
pub struct Output {
    /// What it found.
    pub result: Value,
    /// Other bytes for the file. Only where [`Subject::may_replace`] is set.
    pub replacement: Option<Replacement>,
}

impl From<Value> for Output {
    fn from(result: Value) -> Self {
        Self {
            result,
            replacement: None,
        }
    }
}

/// Bytes that are kept in place of those that arrived.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The bytes.
    pub bytes: Bytes,
    /// What is known of them.
    pub facts: Facts,
    /// Their digest.
    pub sha256: Sha256,
}

/// What all steps together made of a file.
#[derive(Debug, Default)]
pub struct Done {
    /// What each step found, by its name; that of a second step of a kind has `#2` behind it.
    pub results: Map<String, Value>,
    /// Other bytes for the file.
    pub replaced: Option<Replacement>,
}

/// Why a step cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// A failure, in words.
    pub fn new(detail: impl Into<String>) -> Self {
        Self(detail.into())
    }
}

/// The first step that could not be done.
#[derive(Debug, thiserror::Error)]
#[error("step `{step}`: {failure}")]
pub struct StepError {
    /// Its name, as in [`Done::results`].
    pub step: String,
    /// Why.
    pub failure: Failure,
    /// What the steps before it found.
    pub results: Map<String, Value>,
}

/// The kinds of steps that a process knows, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry(BTreeMap<String, Arc<dyn Kind>>);

impl Registry {
    /// The kinds that gannet itself knows. `folder` is for what steps put down while they work; what an earlier
    /// process left there is deleted.
    pub fn builtin(settings: &Settings, renditions: Renditions, folder: &Path) -> Self {
        let mut registry = Self::default();
        registry.register(Arc::new(command::Kind::new(settings, folder)));
        registry.register(Arc::new(delay::Kind));
        registry.register(Arc::new(measure::Kind));
        registry.register(Arc::new(phash::Kind(renditions.clone())));
        registry.register(Arc::new(resize::ResizeKind(renditions.clone())));
        registry.register(Arc::new(resize::ThumbnailKind(renditions)));
        registry
    }

    /// Adds a kind, in place of an earlier one of the same name.
    pub fn register(&mut self, kind: Arc<dyn Kind>) {
        self.0.insert(kind.name().to_owned(), kind);
    }

    /// The names of all kinds, in alphabetical order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The steps of a job, in their order. Cheap to clone. As JSON they are what they were parsed from, in full: a list of
/// objects.
#[derive(Debug, Clone, Default)]
pub struct Steps(Arc<[Planned]>);

#[derive(Debug)]
struct Planned {
    /// As in [`Done::results`].
    key: String,
    kind: String,
    step: Arc<dyn Step>,
}

impl Steps {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs them on `subject`, each on what the one before made of it. Dropping the future ends what is under way.
    ///
    /// # Errors
    ///
    /// The first step that cannot be done. Those behind it are not run.
    pub async fn run(&self, mut subject: Subject) -> Result<Done, StepError> {
        let mut done = Done::default();
        for planned in self.0.iter() {
            let output = match planned.step.run(&subject).await {
                Ok(output) => output,
                Err(failure) => {
                    return Err(StepError {
                        step: planned.key.clone(),
                        failure,
                        results: done.results,
                    });
                }
            };
            done.results.insert(planned.key.clone(), output.result);
            if let Some(replacement) = output.replacement.filter(|_| subject.may_replace) {
                subject.body = Body::Memory(replacement.bytes.clone());
                subject.facts = replacement.facts.clone();
                subject.sha256 = replacement.sha256;
                done.replaced = Some(replacement);
            }
        }
        Ok(done)
    }
}

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|planned| {
            let mut object = planned.step.given();
            object.insert("step".to_owned(), planned.kind.clone().into());
            object
        }))
    }
}

#[cfg(test)]
mod tests;
