// SPDX-License-Identifier: MulanPSL-2.0
//! What the image store wants of a store of layers.

use crate::digest::Digest;
use crate::error::{Error, Result};

/// A layer that [`Layers::release`] has removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedLayer {
    /// Chain ID.
    pub chain_id: Digest,
    /// Diff ID, where it is known.
    pub diff_id: Option<Digest>,
    /// Size of the layer and all it stands on, in bytes.
    pub size: u64,
    /// Size of the layer alone, in bytes.
    pub diff_size: u64,
}

/// A store of layers. An image holds one reference on its top layer as long as it is in the image store. No lock is held
/// while one of these is called; they may be called from several threads at once.
pub trait Layers: Send + Sync {
    /// Takes a reference on the layer with this chain ID. There is none: `NotFound`.
    fn retain(&self, chain_id: &Digest) -> Result<()>;

    /// Gives a reference back for good: removes the layer and what it stands on as far as nothing uses them any more, and
    /// returns what is gone, top first.
    fn release(&self, chain_id: &Digest) -> Result<Vec<RemovedLayer>>;

    /// Gives a reference back and removes nothing: the image stays, only this store is closed, or the image was not made.
    fn forget(&self, chain_id: &Digest);
}

/// No layers at all: every image has to be without.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLayers;

impl Layers for NoLayers {
    fn retain(&self, _: &Digest) -> Result<()> {
        Err(Error::not_found("there is no layer store"))
    }

    fn release(&self, _: &Digest) -> Result<Vec<RemovedLayer>> {
        Ok(Vec::new())
    }

    fn forget(&self, _: &Digest) {}
}

/// Whatever the layers are: only for looking at images.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyLayers;

impl Layers for AnyLayers {
    fn retain(&self, _: &Digest) -> Result<()> {
        Ok(())
    }

    fn release(&self, _: &Digest) -> Result<Vec<RemovedLayer>> {
        Ok(Vec::new())
    }

    fn forget(&self, _: &Digest) {}
}
