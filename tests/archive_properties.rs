// SPDX-License-Identifier: MulanPSL-2.0
//! What holds of any archive: of trees that GNU tar packs, of entries in any order whatsoever, and of bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use archive_common::{
    Header, Scratch, Tar, apply_and_check, apply_with, differences, is_root, path, rebuild, shell, tree,
    verify,
};
use isula_storage::archive::{ApplyOptions, Verdict, Whiteouts};
use isula_storage::error::ErrorKind;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    }
}

#[derive(Debug, Clone)]
enum What {
    File(Vec<u8>),
    Sparse(Vec<(u32, u8)>),
    Dir,
    Symlink(Vec<u8>),
    HardLink(prop::sample::Index),
    Fifo,
    Device(u32, u32),
}

#[derive(Debug, Clone)]
struct Thing {
    parent: prop::sample::Index,
    name: Vec<u8>,
    what: What,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(b' '), Just(b'\n'), Just(b'"'), Just(b'\\'), 1..=255u8];
    prop_oneof![
        8 => prop::collection::vec(byte.clone(), 1..12),
        1 => prop::collection::vec(byte, 95..255),
    ]
    .prop_filter("a name", |name| {
        !name.contains(&b'/') && name != b"." && name != b".." && !name.starts_with(b".wh.")
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    let what = prop_oneof![
        5 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(What::File),
        1 => prop::collection::vec((0..3_000_000u32, 1..=255u8), 0..5).prop_map(What::Sparse),
        4 => Just(What::Dir),
        2 => prop::collection::vec(1..=255u8, 1..150).prop_map(What::Symlink),
        2 => any::<prop::sample::Index>().prop_map(What::HardLink),
        1 => Just(What::Fifo),
        1 => (0..4096u32, 1..1_048_576u32).prop_map(|(major, minor)| What::Device(major, minor)),
    ];
    let owner = (0..70_000u32, 0..70_000u32);
    let mtime = (-1_000_000_000..5_000_000_000i64, 0..1_000_000_000i64);
    (any::<prop::sample::Index>(), name(), what, 0..0o10_000u32, owner, mtime)
        .prop_map(|(parent, name, what, mode, owner, mtime)| Thing { parent, name, what, mode, owner, mtime })
}

/// Makes a tree of these things; those whose name is taken are left out.
fn grow(root: &Path, things: &[Thing]) {
    use std::os::unix::fs::FileExt;
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Thing)> = Vec::new();
    for thing in things {
        let place = dirs[thing.parent.index(dirs.len())].join(path(&thing.name));
        if place.symlink_metadata().is_ok() {
            continue;
        }
        match &thing.what {
            What::File(content) => std::fs::write(&place, content).unwrap(),
            What::Sparse(bytes) => {
                let file = std::fs::File::create(&place).unwrap();
                file.set_len(3_000_000).unwrap();
                for (at, byte) in bytes {
                    file.write_all_at(&[*byte], u64::from(*at)).unwrap();
                }
            }
            What::Dir => std::fs::create_dir(&place).unwrap(),
            What::Symlink(target) => symlink(path(target), &place).unwrap(),
            What::HardLink(index) => {
                if files.is_empty() {
                    continue;
                }
                std::fs::hard_link(&files[index.index(files.len())], &place).unwrap();
                continue;
            }
            What::Fifo => rustix::fs::mknodat(CWD, &place, FileType::Fifo, Mode::empty(), 0).unwrap(),
            What::Device(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                rustix::fs::mknodat(CWD, &place, FileType::BlockDevice, Mode::empty(), device).unwrap();
            }
        }
        match thing.what {
            What::Dir => dirs.push(place.clone()),
            What::File(_) | What::Sparse(_) => files.push(place.clone()),
            _ => {}
        }
        made.push((place, thing));
    }
    for (place, thing) in made.iter().rev() {
        let (uid, gid) = thing.owner;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(CWD, place, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        if !matches!(thing.what, What::Symlink(_)) {
            rustix::fs::chmod(place, Mode::from_raw_mode(thing.mode)).unwrap();
        }
        let mtime = Timespec { tv_sec: thing.mtime.0, tv_nsec: thing.mtime.1 };
        let times = Timestamps { last_access: mtime, last_modification: mtime };
        rustix::fs::utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn any_tree_that_gnu_tar_packs_comes_out_the_same(
        things in prop::collection::vec(thing(), 1..25),
        format in prop_oneof![Just("gnu"), Just("oldgnu"), Just("pax")],
        sparse in any::<bool>(),
    ) {
        if !is_root() {
            return Ok(());
        }
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        grow(&source, &things);
        let pack = format!("tar -cf - --format={format} {} .", if sparse { "--sparse" } else { "" });
        let tar = shell(&pack, &source);
        let target = scratch.dir("target");
        apply_and_check(&tar, &target);
        let (mut before, after) = (tree(&source), tree(&target));
        if format != "pax" {
            for node in before.values_mut() {
                node.mtime.1 = 0;
            }
        }
        let found = differences(&before, &after);
        prop_assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

/// A name of a small world full of traps.
fn trap() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        6 => "[abc]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => "[abc]".prop_map(|name| format!(".wh.{name}")),
        1 => Just(".wh..wh..opq".to_owned()),
    ];
    prop::collection::vec(component, 1..4).prop_map(|components| components.join("/"))
}

#[derive(Debug, Clone)]
enum Entry {
    File(String, Vec<u8>),
    Dir(String),
    Symlink(String, String),
    HardLink(String, String),
    Fifo(String),
    Sparse(String),
}

fn entry() -> impl Strategy<Value = Entry> {
    let target = prop_oneof![trap(), Just("/".to_owned()), Just("../..".to_owned()), Just("a".to_owned())];
    prop_oneof![
        6 => (trap(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(name, bytes)| Entry::File(name, bytes)),
        4 => trap().prop_map(Entry::Dir),
        4 => (trap(), target).prop_map(|(name, target)| Entry::Symlink(name, target)),
        3 => (trap(), trap()).prop_map(|(name, target)| Entry::HardLink(name, target)),
        1 => trap().prop_map(Entry::Fifo),
        1 => trap().prop_map(Entry::Sparse),
    ]
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Tar::new();
    for entry in entries {
        tar = match entry {
            Entry::File(name, content) => tar.file(name, content),
            Entry::Dir(name) => tar.dir(name),
            Entry::Symlink(name, target) => tar.symlink(name, target),
            Entry::HardLink(name, target) => tar.hard_link(name, target),
            Entry::Fifo(name) => tar.header(&Header::new(name, b'6')),
            Entry::Sparse(name) => tar
                .pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"10,3,8000,2")])
                .file(name, "abcde"),
        };
    }
    tar.end()
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn whatever_the_entries_the_tar_is_rebuilt_or_refused(
        entries in prop::collection::vec(entry(), 1..16),
        whiteouts in prop_oneof![Just(Whiteouts::Overlay), Just(Whiteouts::Remove), Just(Whiteouts::Keep)],
    ) {
        let scratch = Scratch::new();
        let target = scratch.dir("target/layer");
        let owners = rustix::process::geteuid().is_root();
        if !owners && whiteouts == Whiteouts::Overlay {
            return Ok(());
        }
        let options = ApplyOptions { whiteouts, owners, ..ApplyOptions::default() };
        let tar = archive(&entries);
        let outcome = apply_with(&tar, &target, &options);
        let outside: Vec<_> = tree(scratch.path())
            .into_keys()
            .filter(|path| !path.starts_with("target/layer") && path != Path::new("") && path != Path::new("target"))
            .collect();
        prop_assert!(outside.is_empty(), "outside: {outside:?}");
        match outcome {
            Ok((_, split)) => {
                let rebuilt = rebuild(&split, &target);
                prop_assert!(rebuilt.is_ok(), "{}", rebuilt.unwrap_err().report());
                prop_assert!(rebuilt.unwrap().1 == tar, "the rebuilt tar differs");
                if whiteouts == Whiteouts::Overlay {
                    prop_assert_eq!(verify(&split, &target).unwrap(), Verdict::Valid);
                }
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidData, "{}", error.report()),
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn no_bytes_make_it_panic(
        start in prop::collection::vec(entry(), 0..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        sign_again in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut tar = archive(&start);
        for (index, byte) in damage {
            let at = index.index(tar.len());
            tar[at] = byte;
            if sign_again {
                let block: &mut [u8; 512] = (&mut tar[at / 512 * 512..][..512]).try_into().unwrap();
                archive_common::sign(block);
            }
        }
        tar.truncate(cut.index(tar.len() + 1).max(tar.len() / 2));
        let scratch = Scratch::new();
        let target = scratch.dir("target");
        let options = ApplyOptions { owners: false, whiteouts: Whiteouts::Keep, ..ApplyOptions::default() };
        if let Ok((_, split)) = apply_with(&tar, &target, &options) {
            let rebuilt = rebuild(&split, &target);
            prop_assert!(rebuilt.is_ok(), "{}", rebuilt.unwrap_err().report());
            prop_assert!(rebuilt.unwrap().1 == tar, "the rebuilt tar differs");
        }
    }
}
