//! `delay`: a fixed time, in place of something slow.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, Output, Step, Subject, Wrong, parameters};

/// Longest delay.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct Kind;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    ms: Option<u64>,
    #[serde(default, rename = "for", with = "humantime_serde")]
    duration: Option<Duration>,
}

#[derive(Debug)]
struct Delay {
    ms: u64,
}

impl super::Kind for Kind {
    fn name(&self) -> &str {
        "delay"
    }

    fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong> {
        let given: Given = parameters(given)?;
        let (field, duration) = match (given.ms, given.duration) {
            (Some(ms), None) => ("ms", Duration::from_millis(ms)),
            (None, Some(duration)) => ("for", duration),
            (None, None) => return Err(Wrong::field("ms", "is needed, or `for`")),
            (Some(_), Some(_)) => return Err(Wrong::field("for", "cannot stand beside `ms`")),
        };
        if duration > LONGEST {
            return Err(Wrong::field(field, "is longer than a day"));
        }
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ok(Arc::new(Delay { ms }))
    }
}

#[async_trait]
impl Step for Delay {
    fn given(&self) -> Map<String, Value> {
        Map::from_iter([("ms".to_owned(), self.ms.into())])
    }

    /// Holds neither a thread nor a worker.
    async fn run(&self, _: &Subject) -> Result<Output, Failure> {
        tokio::time::sleep(Duration::from_millis(self.ms)).await;
        Ok(json!({"ms": self.ms}).into())
    }
}
