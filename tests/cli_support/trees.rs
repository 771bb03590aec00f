// SPDX-License-Identifier: MulanPSL-2.0
//! Comparison of directory trees: names, kinds, modes, owners, devices, times, links, contents, attributes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{self, TestRoot};

/// The stores that a real iSulad daemon wrote, unpacked.
pub fn golden() -> TestRoot {
    let root = TestRoot::in_memory("golden");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xJpf"])
        .arg(archive)
        .arg("-C")
        .arg(root.path());
    common::run(&mut tar);
    root
}

/// Everything that there is to know of each entry below `root`, as lines that can be compared.
pub fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut links: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    walk(root, Path::new(""), &mut found, &mut links);
    found
}

fn walk(
    root: &Path,
    below: &Path,
    found: &mut BTreeMap<PathBuf, String>,
    links: &mut BTreeMap<(u64, u64), PathBuf>,
) {
    let path = root.join(below);
    let meta = fs::symlink_metadata(&path).unwrap();
    let kind = meta.file_type();
    let mut line = format!("mode {:o} owner {}:{}", meta.mode(), meta.uid(), meta.gid());
    let whiteout = kind.is_char_device() && meta.rdev() == 0;
    // Directories change as they are filled; a whiteout is made when the layer is.
    if !kind.is_dir() && !whiteout {
        line += &format!(" mtime {}.{}", meta.mtime(), meta.mtime_nsec());
    }
    if !kind.is_dir() {
        let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| below.to_owned());
        if meta.nlink() > 1 {
            line += &format!(" linked {}", first.display());
        }
    }
    if kind.is_file() {
        line += &format!(
            " size {} content {}",
            meta.len(),
            isula_storage::digest::Digest::of(&fs::read(&path).unwrap())
        );
    } else if kind.is_symlink() {
        line += &format!(" target {}", fs::read_link(&path).unwrap().display());
    } else if kind.is_char_device() || kind.is_block_device() {
        line += &format!(" device {}", meta.rdev());
    }
    for (name, value) in attributes(&path) {
        line += &format!(" {}={value:?}", name.display());
    }
    found.insert(below.to_owned(), line);
    if kind.is_dir() {
        let mut names: Vec<OsString> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &below.join(name), found, links);
        }
    }
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut buffer = vec![0u8; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut buffer[..]).unwrap();
    buffer.truncate(len);
    let names = buffer.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = OsStr::from_bytes(name);
            let mut value = vec![0u8; 64 << 10];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(len);
            (name.to_owned(), value)
        })
        .collect()
}

/// Asserts that two trees are the same.
pub fn assert_same(ours: &Path, golden: &Path) {
    let (ours_entries, golden_entries) = (describe(ours), describe(golden));
    let mut differences = Vec::new();
    for (path, line) in &golden_entries {
        match ours_entries.get(path) {
            Some(other) if other == line => {}
            Some(other) => {
                differences.push(format!("{}:\n  golden {line}\n  ours   {other}", path.display()))
            }
            None => differences.push(format!("{}: missing", path.display())),
        }
    }
    differences.extend(
        ours_entries
            .keys()
            .filter(|path| !golden_entries.contains_key(*path))
            .map(|path| format!("{}: extra", path.display())),
    );
    assert!(
        differences.is_empty(),
        "{} differs from {}:\n{}",
        ours.display(),
        golden.display(),
        differences.join("\n")
    );
}
