//! `measure`: the size of a picture.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, Output, Step, Subject, Wrong, parameters};

#[derive(Debug)]
pub(super) struct Kind;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measure {}

impl super::Kind for Kind {
    fn name(&self) -> &str {
        "measure"
    }

    fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong> {
        Ok(Arc::new(parameters::<Measure>(given)?))
    }
}

#[async_trait]
impl Step for Measure {
    fn given(&self) -> Map<String, Value> {
        Map::new()
    }

    async fn run(&self, subject: &Subject) -> Result<Output, Failure> {
        let facts = &subject.facts;
        let (width, height) = facts.dimensions.ok_or_else(|| {
            let format = facts.format.name;
            Failure::new(format!("no width and height are known of a `{format}`"))
        })?;
        Ok(measured(width, height).into())
    }
}

/// What the step finds of a picture of so many pixels.
pub(crate) fn measured(width: u32, height: u32) -> Value {
    let perimeter = 2 * (u64::from(width) + u64::from(height));
    json!({"width": width, "height": height, "perimeter": perimeter})
}
