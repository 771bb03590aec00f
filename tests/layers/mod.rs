// SPDX-License-Identifier: MulanPSL-2.0
//! What the tests of the drivers share: small archives, trees as text, a driver on a store of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isula_storage::digest::Digest;
use isula_storage::driver::{self, Applied, DriverOptions, GraphDriver, LayerKind, Limits, NewLayer};
use isula_storage::error::Result;
use isula_storage::id::LayerId;
use isula_storage::persist::Durability;

/// A tar archive in the making: plain ustar, every owner 0:0, every time 1000000000.
#[derive(Default, Clone)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn dir(self, name: &str) -> Tar {
        self.entry(name, b'5', 0o755, b"", "")
    }

    pub fn file(self, name: &str, content: &[u8]) -> Tar {
        self.entry(name, b'0', 0o644, content, "")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.entry(name, b'1', 0o644, b"", target)
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(name, b'2', 0o777, b"", target)
    }

    fn entry(self, name: &str, kind: u8, mode: u32, content: &[u8], link: &str) -> Tar {
        self.any(name, kind, mode, (0, 0), content, link)
    }

    /// Extended attributes of the next entry.
    pub fn xattr(self, name: &str, value: &[u8]) -> Tar {
        let mut rest = format!(" SCHILY.xattr.{name}=").into_bytes();
        rest.extend_from_slice(value);
        rest.push(b'\n');
        let mut length = rest.len();
        while format!("{length}").len() + rest.len() != length {
            length = format!("{length}").len() + rest.len();
        }
        let record = [format!("{length}").as_bytes(), &rest].concat();
        self.entry("pax", b'x', 0o644, &record, "")
    }

    /// An entry of any type, with its owner; a device is 1:3.
    pub fn any(
        mut self,
        name: &str,
        kind: u8,
        mode: u32,
        owner: (u32, u32),
        content: &[u8],
        link: &str,
    ) -> Tar {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, format!("{:07o}\0", owner.0).as_bytes());
        put(116, format!("{:07o}\0", owner.1).as_bytes());
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, format!("{:011o}\0", 1_000_000_000).as_bytes());
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        if matches!(kind, b'3' | b'4') {
            put(329, b"0000001\0");
            put(337, b"0000003\0");
        }
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The bytes of the whole archive.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.0;
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

pub fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

/// A driver's options on a storage root.
pub fn options(root: &Path, name: &str) -> DriverOptions {
    DriverOptions {
        root: root.to_owned(),
        name: name.to_owned(),
        options: Vec::new(),
        durability: Durability::Full,
        read_only: false,
        owner_shift: None,
    }
}

pub fn open(root: &Path, name: &str) -> Arc<dyn GraphDriver> {
    driver::open(&options(root, name)).unwrap_or_else(|error| panic!("{}", error.report()))
}

pub fn create(
    driver: &dyn GraphDriver,
    id: &LayerId,
    parent: Option<&LayerId>,
    kind: LayerKind,
) -> Result<()> {
    driver.create(&NewLayer { id, parent, kind, storage_options: &[], mount_label: None })
}

/// An image layer from an archive: what was found and its tar-split stream.
pub fn image_layer(
    driver: &dyn GraphDriver,
    id: &LayerId,
    parent: Option<&LayerId>,
    tar: &[u8],
) -> (Applied, Vec<u8>) {
    create(driver, id, parent, LayerKind::ReadOnly).unwrap_or_else(|error| panic!("{}", error.report()));
    let mut tar_split = Vec::new();
    let applied = driver
        .apply(id, &mut &tar[..], &mut tar_split, &Limits::default())
        .unwrap_or_else(|error| panic!("{}", error.report()));
    driver.sync(id).unwrap();
    assert_eq!(applied.diff_id, Digest::of(tar));
    (applied, tar_split)
}

/// A container's layer.
pub fn container_layer(driver: &dyn GraphDriver, id: &LayerId, parent: Option<&LayerId>) {
    create(driver, id, parent, LayerKind::ReadWrite).unwrap_or_else(|error| panic!("{}", error.report()));
}

/// Everything below a directory: path to what it is and holds, one line each. Directories of ours are passed over.
pub fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, dir: &Path, tree: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.file_name().is_some_and(|name| name == ".isula-storage") {
            continue;
        }
        let metadata = path.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let mode = metadata.mode() & 0o7777;
        let owner = format!("{}:{}", metadata.uid(), metadata.gid());
        let what = if kind.is_dir() {
            format!("dir {mode:o} {owner}")
        } else if kind.is_symlink() {
            format!("link {}", std::fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            format!("file {mode:o} {owner} {}", Digest::of(&std::fs::read(&path).unwrap()).hex())
        } else if kind.is_char_device() {
            format!("char {mode:o} {owner} {:x}", metadata.rdev())
        } else if kind.is_block_device() {
            format!("block {mode:o} {owner} {:x}", metadata.rdev())
        } else {
            format!("other {mode:o} {owner}")
        };
        tree.insert(name, what);
        if kind.is_dir() {
            walk(root, &path, tree);
        }
    }
}

/// Names below a mounted layer, sorted, directories with a slash.
pub fn names(root: &Path) -> Vec<String> {
    let tree = tree(root);
    tree.iter()
        .map(|(name, what)| if what.starts_with("dir") { format!("{name}/") } else { name.clone() })
        .collect()
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

#[allow(clippy::disallowed_methods, reason = "a test's own files")]
pub fn write(path: impl AsRef<Path>, content: &str) {
    let path = path.as_ref();
    std::fs::write(path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

/// The value of a key of a layer's metadata.
pub fn metadata(driver: &dyn GraphDriver, id: &LayerId, key: &str) -> Option<PathBuf> {
    let found = driver.metadata(id).unwrap().into_iter().find(|(name, _)| *name == key);
    found.map(|(_, value)| PathBuf::from(value))
}

/// Unpacks the stores that a real iSulad daemon wrote, see `tests/golden/README.md`. Needs root.
pub fn unpack_golden(to: &Path) {
    use std::process::{Command, Stdio};
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let mut tar = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C"])
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut plain = liblzma::read::XzDecoder::new(std::fs::File::open(archive).unwrap());
    std::io::copy(&mut plain, tar.stdin.as_mut().unwrap()).unwrap();
    drop(tar.stdin.take());
    assert!(tar.wait().unwrap().success());
}
