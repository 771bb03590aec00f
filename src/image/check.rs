// SPDX-License-Identifier: MulanPSL-2.0
//! Comparing big data with what is recorded.

use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{ErrorKind, Result};
use crate::layer::Problem;

use super::ImageStore;
use super::big_data::recorded;
use super::files;
use super::index::Image;

pub(super) fn check(store: &ImageStore) -> Result<Vec<Problem>> {
    let images: Vec<Arc<Image>> = store.read(|index| index.list().cloned().collect())?;
    let mut problems = store.problems();
    for image in images {
        // Deleted meanwhile: nothing to say about it.
        let found: Vec<String> =
            image.record.big_data_names.iter().filter_map(|key| check_one(store, &image, key)).collect();
        if !found.is_empty() && store.find(image.id.as_str()).is_ok() {
            let subject = format!("image {}", image.id);
            problems.extend(found.into_iter().map(|reason| Problem {
                subject: subject.clone(),
                reason,
                quarantined: false,
            }));
        }
    }
    Ok(problems)
}

/// What is wrong with one piece of big data.
fn check_one(store: &ImageStore, image: &Image, key: &str) -> Option<String> {
    let content = match files::read_big_data(&store.root, image.id.as_str(), key) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Some(format!("big data {key:?} is missing"));
        }
        Err(error) => return Some(error.report()),
    };
    let size = i64::try_from(content.len()).unwrap_or(i64::MAX);
    if let Some(wanted) =
        recorded(image.record.big_data_sizes.as_ref(), key).filter(|wanted| **wanted != size)
    {
        return Some(format!("big data {key:?} has {size} bytes, recorded are {wanted}"));
    }
    let digest = Digest::of(&content).to_string();
    let wanted = recorded(image.record.big_data_digests.as_ref(), key).filter(|wanted| **wanted != digest)?;
    Some(format!("big data {key:?} has digest {digest}, recorded is {wanted}"))
}
