// SPDX-License-Identifier: MulanPSL-2.0
//! The layers of a storage for the images of a Docker-style image store.
//!
//! The reference of such an image is a hold on its top layer. Holds are in memory only: after a start they are taken
//! again when the image store is opened.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::imagedb::{Layers, RemovedLayer};
use crate::layer::Layer;

use super::Storage;

impl Layers for Storage {
    fn retain(&self, chain_id: &Digest) -> Result<()> {
        let id = LayerId::from(*chain_id);
        // A container's layer has an id of its own choice, which may look like a chain ID.
        if self.layers().find(id.as_str()).is_some_and(|layer| layer.writable) {
            return Err(Error::not_found(format!("layer {id} is a container's")));
        }
        self.layers().hold(&id)
    }

    fn release(&self, chain_id: &Digest) -> Result<Vec<RemovedLayer>> {
        let id = LayerId::from(*chain_id);
        let chain = match self.chain(id.as_str()) {
            Ok(chain) => chain,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Storage::release(self, &id)?;
        let gone = self.delete_unused_chain(&id)?;
        Ok(removed(&chain, gone.len()))
    }

    fn forget(&self, chain_id: &Digest) {
        if let Err(error) = Storage::release(self, &LayerId::from(*chain_id)) {
            log::warn!("drop the hold on layer {chain_id}: {}", error.report());
        }
    }
}

/// The first `count` layers of a chain from the top down, with what they and all below them take.
fn removed(chain: &[Layer], count: usize) -> Vec<RemovedLayer> {
    let size = |layer: &Layer| u64::try_from(layer.uncompressed_size).unwrap_or(0);
    let mut left: u64 = chain.iter().map(size).fold(0, u64::saturating_add);
    let mut all = Vec::with_capacity(count);
    for layer in chain.iter().take(count) {
        let diff_id = layer.uncompressed_digest.as_deref().and_then(|text| Digest::parse(text).ok());
        if let Ok(chain_id) = Digest::from_hex(layer.id.as_str()) {
            all.push(RemovedLayer { chain_id, diff_id, size: left, diff_size: size(layer) });
        }
        left = left.saturating_sub(size(layer));
    }
    all
}
