// SPDX-License-Identifier: MulanPSL-2.0
//! What an archive holds, read and checked: the same for every kind of archive.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ImageId, LayerId};
use crate::spec::config::ImageConfig;
use crate::spec::oci_layout;
use crate::time::Timestamp;

/// An image to be made.
#[derive(Debug)]
pub(in crate::storage) struct PlannedImage {
    pub(in crate::storage) id: ImageId,
    /// The bytes of the config, whose digest is the id.
    pub(in crate::storage) config: Vec<u8>,
    /// What is stored as big data `manifest`.
    pub(in crate::storage) manifest: Vec<u8>,
    /// Digest by which the image is searched.
    pub(in crate::storage) digest: Digest,
    pub(in crate::storage) created: Timestamp,
    pub(in crate::storage) names: Vec<String>,
    /// Base first; at least one.
    pub(in crate::storage) layers: Vec<PlannedLayer>,
}

/// A layer to be made.
#[derive(Debug)]
pub(in crate::storage) struct PlannedLayer {
    pub(in crate::storage) id: LayerId,
    pub(in crate::storage) diff_id: Digest,
    /// Digest of the layer archive as it lies there, where the image names it.
    pub(in crate::storage) blob: Option<Digest>,
    /// Path of the layer archive.
    pub(in crate::storage) path: String,
    /// Its size in bytes.
    pub(in crate::storage) size: u64,
}

/// Ids of the layers as iSulad makes them: of the base layer its diff ID, of each other layer the digest of
/// `<id of the layer below>+<diff ID>`, both in hex without `sha256:`. (Not the chain IDs of the OCI specification, which
/// join whole digests with a blank.)
pub(in crate::storage) fn layer_ids(diff_ids: &[Digest]) -> Vec<LayerId> {
    let mut below: Option<Digest> = None;
    diff_ids
        .iter()
        .map(|diff_id| {
            let id = match below {
                None => *diff_id,
                Some(below) => Digest::of(format!("{}+{}", below.hex(), diff_id.hex()).as_bytes()),
            };
            below = Some(id);
            LayerId::from(id)
        })
        .collect()
}

/// When the image was made, by its config; the epoch when it does not say.
pub(super) fn created(config: &ImageConfig) -> Result<Timestamp> {
    let text = config.created.as_deref().unwrap_or_default();
    let time = Timestamp::parse(text).map_err(|error| error.with_kind(ErrorKind::InvalidData))?;
    if !time.is_plausible() {
        let message = format!("the config's creation time {text:?} is not between 1970 and 2038");
        return Err(Error::new(ErrorKind::InvalidData, message));
    }
    Ok(time)
}

/// The diff IDs of a config, as many as the manifest lists layers.
pub(super) fn diff_ids(config: &ImageConfig, listed: usize) -> Result<Vec<Digest>> {
    let named = &config.rootfs.diff_ids;
    if named.len() != listed {
        let message = format!("its config names {} layers, its manifest {listed}", named.len());
        return Err(Error::new(ErrorKind::InvalidData, message));
    }
    named.iter().map(|text| oci_layout::digest(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a store that a real iSulad daemon wrote.
    #[test]
    fn layer_ids_are_those_of_isulad() {
        let diff_ids: Vec<Digest> = [
            "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3",
            "33b7c9e99d55a2e67fbd0ecdf44f19975cbb1c570347feb195557df8f9cb9c24",
            "5bad5a72b45f57c4f68997b29d7768e48751e2958e060ec947daa307f45a37d4",
        ]
        .map(|hex| Digest::from_hex(hex).unwrap())
        .to_vec();
        let ids: Vec<String> = layer_ids(&diff_ids).iter().map(LayerId::to_string).collect();
        assert_eq!(
            ids,
            [
                "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3",
                "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b",
                "2e36010176f580c7d91271f93622a79a2cabc2d9358fc4601da74f97abbcfbe8",
            ]
        );
    }

    #[test]
    fn creation_times() {
        let facts = |created: Option<&str>| ImageConfig {
            created: created.map(str::to_owned),
            ..ImageConfig::default()
        };
        assert_eq!(created(&facts(None)).unwrap(), Timestamp::default());
        assert_eq!(created(&facts(Some("0001-01-01T00:00:00Z"))).unwrap(), Timestamp::default());
        assert_eq!(created(&facts(Some("1970-01-01T00:00:09Z"))).unwrap().seconds, 9);
        for bad in ["yesterday", "2039-01-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
            assert_eq!(created(&facts(Some(bad))).unwrap_err().kind(), ErrorKind::InvalidData, "{bad}");
        }
    }
}
