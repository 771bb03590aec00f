// SPDX-License-Identifier: MulanPSL-2.0
//! The image store against what is known of Docker's; the tables of facts are those of dockerd 17.05 to 23.0.
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

mod backend;
mod config;
mod crash;
mod create;
mod layerdb;
mod names;
mod restore;
mod search;
mod store;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::sys::testing::TestRoot;

/// Layers that count their references, and remove what has none.
#[derive(Debug, Default)]
pub(super) struct FakeLayers {
    state: Mutex<FakeState>,
}

#[derive(Debug, Default)]
struct FakeState {
    /// References of each layer that is there.
    references: BTreeMap<Digest, i32>,
    /// What was called, in order.
    calls: Vec<String>,
    /// Every release fails.
    release_fails: bool,
    /// Every `retain` fails, not because there is none.
    retain_fails: bool,
}

impl FakeLayers {
    /// With these layers, each held once by somebody else.
    pub(super) fn with(layers: &[Digest]) -> Arc<FakeLayers> {
        let fake = FakeLayers::default();
        fake.state.lock().references = layers.iter().map(|layer| (*layer, 1)).collect();
        Arc::new(fake)
    }

    pub(super) fn references(&self, layer: &Digest) -> i32 {
        self.state.lock().references.get(layer).copied().unwrap_or(-1)
    }

    fn add(&self, layer: &Digest) {
        self.state.lock().references.insert(*layer, 1);
    }

    /// Somebody else lets go of it.
    fn drop_one(&self, layer: &Digest) {
        *self.state.lock().references.get_mut(layer).unwrap() -= 1;
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().calls)
    }
}

impl Layers for FakeLayers {
    fn retain(&self, chain_id: &Digest) -> Result<()> {
        let mut state = self.state.lock();
        state.calls.push("retain".into());
        if state.retain_fails {
            return Err(Error::new(ErrorKind::Os(libc::EIO), "the layer store is broken"));
        }
        let count = state.references.get_mut(chain_id);
        *count.ok_or_else(|| Error::not_found("no such layer"))? += 1;
        Ok(())
    }

    fn release(&self, chain_id: &Digest) -> Result<Vec<RemovedLayer>> {
        let mut state = self.state.lock();
        state.calls.push("release".into());
        if state.release_fails {
            return Err(Error::new(ErrorKind::Os(libc::EIO), "the layer store is broken"));
        }
        let Some(count) = state.references.get_mut(chain_id) else { return Ok(Vec::new()) };
        *count -= 1;
        if *count > 0 {
            return Ok(Vec::new());
        }
        state.references.remove(chain_id);
        Ok(vec![RemovedLayer { chain_id: *chain_id, diff_id: None, size: 7, diff_size: 7 }])
    }

    fn forget(&self, chain_id: &Digest) {
        let mut state = self.state.lock();
        state.calls.push("forget".into());
        if let Some(count) = state.references.get_mut(chain_id) {
            *count -= 1;
        }
    }
}

/// A config without layers.
pub(super) fn bare(comment: &str) -> Vec<u8> {
    format!(r#"{{"comment":"{comment}","rootfs":{{"type":"layers"}}}}"#).into_bytes()
}

/// A config with layers.
pub(super) fn layered(comment: &str, diff_ids: &[Digest]) -> Vec<u8> {
    let diff_ids: Vec<_> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
    let diff_ids = diff_ids.join(",");
    format!(r#"{{"comment":"{comment}","rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#).into_bytes()
}

pub(super) fn diff(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A store in a directory of its own.
pub(super) struct Store {
    pub(super) root: TestRoot,
    pub(super) layers: Arc<FakeLayers>,
    pub(super) db: Option<ImageDb>,
}

impl Store {
    pub(super) fn new() -> Store {
        Store::with(&[])
    }

    pub(super) fn with(layers: &[Digest]) -> Store {
        let root = TestRoot::in_memory("imagedb");
        let layers = FakeLayers::with(layers);
        let db = open(root.path(), layers.clone()).unwrap();
        Store { root, layers, db: Some(db) }
    }

    /// Closes and opens it.
    pub(super) fn reopen(&mut self) -> &ImageDb {
        self.close();
        self.db.insert(open(self.root.path(), self.layers.clone()).unwrap())
    }

    pub(super) fn close(&mut self) {
        if let Some(db) = self.db.take() {
            db.close();
        }
    }

    pub(super) fn content(&self, id: &Digest) -> PathBuf {
        self.root.join("imagedb/content/sha256").join(id.hex())
    }

    pub(super) fn metadata(&self, id: &Digest) -> PathBuf {
        self.root.join("imagedb/metadata/sha256").join(id.hex())
    }
}

impl std::ops::Deref for Store {
    type Target = ImageDb;
    fn deref(&self) -> &ImageDb {
        self.db.as_ref().unwrap()
    }
}

pub(super) fn open(root: &Path, layers: Arc<dyn Layers>) -> Result<ImageDb> {
    open_as(root, layers, Ownership::Owner)
}

pub(super) fn open_as(root: &Path, layers: Arc<dyn Layers>, ownership: Ownership) -> Result<ImageDb> {
    ImageDb::open(ImageDbOptions { root: root.to_owned(), ownership, durability: Durability::Full, layers })
}

pub(super) fn ids(images: &[Image]) -> Vec<Digest> {
    images.iter().map(|image| image.id).collect()
}

pub(super) fn sorted(mut ids: Vec<Digest>) -> Vec<Digest> {
    ids.sort_unstable();
    ids
}

/// All files and directories below, with their modes, but what is ours.
pub(super) fn tree(root: &Path) -> BTreeMap<String, u32> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, u32>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() == ".isula-storage" {
                continue;
            }
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, metadata.permissions().mode() & 0o7777);
            if metadata.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

pub(super) fn fails<T: fmt::Debug>(result: Result<T>, kind: ErrorKind, text: &str) {
    let error = result.unwrap_err();
    let report = error.report();
    assert_eq!(error.kind(), kind, "{report}");
    assert!(report.contains(text), "{report:?} does not contain {text:?}");
}
