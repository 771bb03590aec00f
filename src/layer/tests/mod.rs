// SPDX-License-Identifier: MulanPSL-2.0
//! The layer store over a driver that fails on demand. What needs a real driver is in `tests/layer_*.rs`.

mod concurrency;
mod crash;
mod create;
mod delete;
mod fake;
mod heal;
mod load;
mod mount;
mod power_cut;
mod quarantine;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::driver::Limits;
use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::persist::{Durability, Ownership};
use crate::sys::testing::TestRoot;

use super::{CreateLayer, Created, LayerStore, LayerStoreOptions};
use fake::{FakeDriver, World};

/// A root, a run root and a kernel.
struct Place {
    root: TestRoot,
    world: Arc<World>,
}

impl Place {
    fn new() -> Place {
        Place { root: TestRoot::in_memory("layer"), world: Arc::default() }
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    fn options(&self, ownership: Ownership) -> LayerStoreOptions {
        LayerStoreOptions {
            root: self.path("root"),
            run_root: self.path("run"),
            driver: "vfs".to_owned(),
            driver_options: Vec::new(),
            durability: Durability::Full,
            ownership,
            owner_shift: None,
            limits: Limits::default(),
        }
    }

    fn try_open(&self, ownership: Ownership) -> Result<LayerStore> {
        let world = self.world.clone();
        LayerStore::open_with(self.options(ownership), |options| FakeDriver::open(options, world))
    }

    fn open(&self) -> LayerStore {
        self.try_open(Ownership::Owner).unwrap()
    }

    fn open_read_only(&self) -> LayerStore {
        self.try_open(Ownership::ReadOnly).unwrap()
    }

    fn record_dir(&self, id: &LayerId) -> PathBuf {
        self.path("root/vfs-layers").join(id)
    }

    fn data_dir(&self, id: &LayerId) -> PathBuf {
        self.path("root/vfs").join(id)
    }

    fn run_file(&self, id: &LayerId) -> PathBuf {
        self.path("run/vfs-layers").join(format!("{id}.json"))
    }

    /// Overwrites a file, as an operator or a crash of the reference would.
    #[allow(clippy::disallowed_methods, reason = "a test's file")]
    fn put(&self, path: &Path, content: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Nothing of a layer is on disk but what was put aside.
    fn assert_absent(&self, id: &LayerId) {
        for path in [self.record_dir(id), self.data_dir(id), self.run_file(id)] {
            assert!(!path.exists(), "{} is left", path.display());
        }
    }

    /// The trash of store and driver is empty.
    fn assert_no_trash(&self) {
        for trash in ["root/.isula-storage/vfs-layers/trash", "root/vfs/.isula-storage/trash"] {
            let left: Vec<_> = std::fs::read_dir(self.path(trash)).unwrap().collect();
            assert!(left.is_empty(), "{trash}: {left:?}");
        }
    }
}

fn id(number: u32) -> LayerId {
    LayerId::new(&format!("{number:064x}")).unwrap()
}

/// An image layer made of `content`.
fn image(parent: Option<LayerId>, content: &str) -> CreateLayer {
    let digest = Some(Digest::of(content.as_bytes()).to_string());
    CreateLayer {
        parent,
        compressed_digest: digest.clone(),
        uncompressed_digest: digest,
        ..CreateLayer::default()
    }
}

fn container(parent: LayerId) -> CreateLayer {
    CreateLayer { parent: Some(parent), writable: true, ..CreateLayer::default() }
}

fn named(names: &[&str]) -> CreateLayer {
    CreateLayer { names: names.iter().map(|name| (*name).to_owned()).collect(), ..CreateLayer::default() }
}

fn add_image(store: &LayerStore, number: u32, parent: Option<u32>) -> LayerId {
    let content = format!("content of {number}");
    let layer = image(parent.map(id), &content);
    let created = store.create(&id(number), &layer, Some(&mut content.as_bytes())).unwrap();
    assert_eq!(created, Created::New(id(number)));
    id(number)
}

fn add_container(store: &LayerStore, number: u32, parent: u32) -> LayerId {
    let created = store.create(&id(number), &container(id(parent)), None).unwrap();
    assert_eq!(created, Created::New(id(number)));
    id(number)
}

fn ids(store: &LayerStore) -> Vec<LayerId> {
    store.list().into_iter().map(|layer| layer.id).collect()
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.map_err(|error: Error| error.kind()).unwrap_err()
}

/// All files below a directory with mode and content; directories with mode and nothing.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Option<String>)> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, (u32, Option<String>)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = std::fs::symlink_metadata(&path).unwrap();
            let content = if stat.is_symlink() {
                Some(std::fs::read_link(&path).unwrap().display().to_string())
            } else {
                (!stat.is_dir()).then(|| String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned())
            };
            found.insert(
                path.strip_prefix(root).unwrap().to_owned(),
                (stat.permissions().mode() & 0o7777, content),
            );
            if stat.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}
