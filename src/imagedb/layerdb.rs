// SPDX-License-Identifier: MulanPSL-2.0
//! Docker's records of layers, only read.
//!
//! ```text
//! layerdb/sha256/<64 hex of the chain id>/
//!     diff                0644  diff ID
//!     parent              0644  chain ID of the layer below; none of a base layer
//!     size                0644  decimal, in bytes
//!     cache-id            0644  name of the layer's directory in the graph driver's
//!     tar-split.json.gz   0644
//! ```
//!
//! Source: the layer metadata store of Docker; dockerd 20.10 writes this.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::sys::fs::Dir;

use super::layers::{Layers, RemovedLayer};

/// Longest file that is read, in bytes.
const LIMIT: u64 = 4096;
/// Most layers of an image: Docker takes 125, this store 500.
const MOST_LAYERS: usize = 1024;

/// A layer of Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerLayer {
    /// Chain ID.
    pub chain_id: Digest,
    /// Diff ID.
    pub diff_id: Digest,
    /// Chain ID of the layer below.
    pub parent: Option<Digest>,
    /// Name of its directory in the graph driver's.
    pub cache_id: String,
    /// Size of the layer alone, in bytes.
    pub diff_size: u64,
    /// Size of the layer and all below it, in bytes.
    pub size: u64,
}

/// The layers of a Docker daemon: to look at, never changed. A layer is read when it is first asked for.
pub struct DockerLayers {
    /// `None`: there is no such directory.
    dir: Option<Dir>,
    known: Mutex<HashMap<Digest, Arc<DockerLayer>>>,
}

impl fmt::Debug for DockerLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DockerLayers({:?})", self.dir.as_ref().map(Dir::path))
    }
}

impl DockerLayers {
    /// Opens `layerdb/sha256` below `root`; there need not be one.
    pub fn open(root: &Path) -> Result<DockerLayers> {
        let dir = match Dir::open(root).and_then(|root| root.open_dir("layerdb")?.open_dir("sha256")) {
            Ok(dir) => Some(dir),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.context("open Docker's layers")),
        };
        Ok(DockerLayers { dir, known: Mutex::default() })
    }

    /// A layer. It, or one below it, is not there: `NotFound`; a record contradicts itself: `Corrupt`.
    pub fn get(&self, chain_id: &Digest) -> Result<Arc<DockerLayer>> {
        // From the top down to one that is known, then up again, so that no chain is too long for the stack.
        let mut records = Vec::new();
        let mut next = Some(*chain_id);
        let mut below = None;
        while let Some(at) = next {
            if let Some(known) = self.known.lock().get(&at) {
                below = Some(known.clone());
                break;
            }
            let record = self.read(&at).during(|| format!("read layer {at}"))?;
            next = record.parent;
            records.push(record);
            if records.len() > MOST_LAYERS {
                return Err(Error::corrupt(format!("layer {chain_id} has more than {MOST_LAYERS} below it")));
            }
        }
        for mut record in records.into_iter().rev() {
            let size_below = below.as_ref().map_or(0, |below| below.size);
            record.size = record.diff_size.saturating_add(size_below);
            let record = Arc::new(record);
            self.known.lock().insert(record.chain_id, record.clone());
            below = Some(record);
        }
        below.ok_or_else(|| Error::not_found("layer does not exist"))
    }

    /// Chain IDs of all layers that have a record, sorted.
    pub fn ids(&self) -> Result<Vec<Digest>> {
        let Some(dir) = &self.dir else { return Ok(Vec::new()) };
        let entries = dir.entries().during(|| "list layers")?;
        let mut ids: Vec<_> =
            entries.iter().filter_map(|entry| Digest::from_hex(entry.name.to_str()?).ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn read(&self, chain_id: &Digest) -> Result<DockerLayer> {
        let dir = self.dir.as_ref().ok_or_else(|| Error::not_found("there are no layers"))?;
        let dir = dir.open_dir(chain_id.hex())?;
        let file = |name: &str| -> Result<String> {
            String::from_utf8(dir.read(name, LIMIT)?)
                .map_err(|_| Error::corrupt(format!("{name} is not text")))
        };
        // A record without one of its files is damaged, not absent.
        let required = |name: &str| {
            file(name).map_err(|error| match error.kind() {
                ErrorKind::NotFound => error.with_kind(ErrorKind::Corrupt),
                _ => error,
            })
        };
        let digest = |name: &str, text: &str| {
            let parsed = Digest::parse(text.trim()).map_err(|error| error.with_kind(ErrorKind::Corrupt));
            parsed.during(|| name.to_owned())
        };
        let diff_id = digest("diff", &required("diff")?)?;
        let parent = match file("parent") {
            Ok(text) => Some(digest("parent", &text)?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let size = required("size")?;
        let diff_size = size.parse().map_err(|_| Error::corrupt(format!("size {size:?} is no number")))?;
        let cache_id = required("cache-id")?.trim().to_owned();
        if cache_id.is_empty() || cache_id.contains(['/', '\0']) || cache_id.starts_with('.') {
            return Err(Error::corrupt(format!("cache-id {cache_id:?} is no name of a directory")));
        }
        if diff_id.chained_on(parent) != *chain_id {
            return Err(Error::corrupt("its diff ID and parent make another chain ID"));
        }
        Ok(DockerLayer { chain_id: *chain_id, diff_id, parent, cache_id, diff_size, size: 0 })
    }
}

/// References are not counted: nothing is ever removed.
impl Layers for DockerLayers {
    fn retain(&self, chain_id: &Digest) -> Result<()> {
        self.get(chain_id).map(drop)
    }

    fn release(&self, _: &Digest) -> Result<Vec<RemovedLayer>> {
        Ok(Vec::new())
    }

    fn forget(&self, _: &Digest) {}
}
