// SPDX-License-Identifier: MulanPSL-2.0
//! One image, as it lies in its bucket.

use super::{Labels, NamespacedImage};
use crate::error::{During, Error, Result};
use crate::metadata::boltfile::{Bucket, BucketMut};
use crate::metadata::budget::Budget;
use crate::metadata::gotime;
use crate::metadata::images::{DIGEST, MEDIA_TYPE, SIZE, read_target};
use crate::metadata::varint;
use crate::time::Timestamp;

const CREATED: &[u8] = b"createdat";
const UPDATED: &[u8] = b"updatedat";
const TARGET: &[u8] = b"target";
const ANNOTATIONS: &[u8] = b"annotations";
pub(super) const LABELS: &[u8] = b"labels";

/// Reads an image; keys that are missing are empty, those that are not known are passed over.
pub(super) fn read(name: &[u8], bucket: &Bucket<'_>, budget: &mut Budget) -> Result<NamespacedImage> {
    let text = std::str::from_utf8(name).map_err(|_| Error::corrupt("its name is not UTF-8"))?;
    budget.take(text.len())?;
    let target = match bucket.bucket(TARGET)? {
        Some(target) => read_target(&target, budget)?,
        None => return Err(Error::corrupt("it has no target")),
    };
    Ok(NamespacedImage {
        name: text.to_owned(),
        target,
        annotations: read_labels(bucket, ANNOTATIONS, budget)?,
        labels: read_labels(bucket, LABELS, budget)?,
        created: read_time(bucket, CREATED)?,
        updated: read_time(bucket, UPDATED)?,
    })
}

fn read_time(bucket: &Bucket<'_>, key: &[u8]) -> Result<Option<Timestamp>> {
    let time = bucket.get(key)?.map(|value| gotime::decode(&value)).transpose();
    time.during(|| String::from_utf8_lossy(key).into_owned())
}

pub(super) fn read_labels(bucket: &Bucket<'_>, name: &[u8], budget: &mut Budget) -> Result<Labels> {
    let mut labels = Labels::new();
    let Some(bucket) = bucket.bucket(name)? else { return Ok(labels) };
    for item in bucket.items() {
        let item = item?;
        let Some(value) = item.value else { continue };
        labels.insert(budget.text(&item.key)?, budget.text(&value)?);
    }
    Ok(labels)
}

/// Writes an image into its bucket, in the place of what is there.
pub(super) fn write(image: &NamespacedImage, bucket: &mut BucketMut<'_>) -> Result<()> {
    for (key, time) in [(CREATED, image.created), (UPDATED, image.updated)] {
        match time {
            Some(time) => bucket.put(key, &gotime::encode(time))?,
            None => bucket.delete(key)?,
        }
    }
    write_labels(&image.labels, bucket, LABELS)?;
    write_labels(&image.annotations, bucket, ANNOTATIONS)?;
    let mut target = bucket.create_bucket_if_not_exists(TARGET)?;
    target.put(DIGEST, image.target.digest.as_bytes())?;
    target.put(MEDIA_TYPE, image.target.media_type.as_bytes())?;
    target.put(SIZE, &varint::encode(image.target.size))
}

/// Empty values are not stored, and without any value there is no bucket.
pub(super) fn write_labels(labels: &Labels, bucket: &mut BucketMut<'_>, name: &[u8]) -> Result<()> {
    if bucket.view().bucket(name)?.is_some() {
        bucket.delete_bucket(name)?;
    }
    if labels.values().all(String::is_empty) {
        return Ok(());
    }
    let mut bucket = bucket.create_bucket(name)?;
    for (key, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        bucket.put(key.as_bytes(), value.as_bytes())?;
    }
    Ok(())
}
