//! `phash`: a digest of what a picture looks like, by which similar ones are found.

use std::sync::Arc;

use async_trait::async_trait;
use image_hasher::{BitOrder, HashAlg, HasherConfig};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, Output, Step, Subject, Wrong, parameters};
use crate::rendition::{Params, Renditions, Wanted};

/// Of the pixels of a picture as it stands upright, 64 frequencies: whether each is above their median.
const ALGORITHM: &str = "dct-median";

/// Pixels of a side from which the digest is taken. It knows frequencies of a fraction of them only.
const SIDE: u32 = 256;

#[derive(Debug)]
pub(super) struct Kind(pub(super) Renditions);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug)]
struct Phash(Renditions);

impl super::Kind for Kind {
    fn name(&self) -> &str {
        "phash"
    }

    fn step(&self, given: Map<String, Value>) -> Result<Arc<dyn Step>, Wrong> {
        let Nothing {} = parameters(given)?;
        Ok(Arc::new(Phash(self.0.clone())))
    }
}

#[async_trait]
impl Step for Phash {
    fn given(&self) -> Map<String, Value> {
        Map::new()
    }

    async fn run(&self, subject: &Subject) -> Result<Output, Failure> {
        let params = Params::within(SIDE, SIDE);
        let wanted = Wanted::new(subject.sha256, subject.facts.format.name, params)?;
        let body = subject.body.clone();
        let hash = self.0.compute(body, wanted, |image| {
            let hasher = HasherConfig::with_bytes_type::<[u8; 8]>()
                .hash_size(8, 8)
                .hash_alg(HashAlg::Median)
                .preproc_dct()
                .bit_order(BitOrder::MsbFirst)
                .to_hasher();
            u64::from_be_bytes(hasher.hash_image(&image).into_inner())
        });
        let hash = format!("{:016x}", hash.await?);
        Ok(json!({"algorithm": ALGORITHM, "bits": 64, "hash": hash}).into())
    }
}
