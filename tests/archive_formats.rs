// SPDX-License-Identifier: MulanPSL-2.0
//! Layers of real images and archives of every format that GNU tar and bsdtar write: unpacked as GNU tar unpacks
//! them, verified, and rebuilt byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod archive_common;

use std::path::Path;

use archive_common::{
    Scratch, apply, apply_and_check, apply_with, assert_same_trees, is_root, layers_of, run, shell, tree,
};
use isula_storage::archive::{ApplyOptions, Compression, OwnerShift, Whiteouts};

/// What every format can hold.
const PLAIN: &str = r#"
    mkdir -p src/dir/empty src/links; cd src
    printf '' >f0; printf x >f1; head -c 511 /dev/zero >f511; head -c 512 /dev/zero >f512; seq 1 100 | head -c 513 >f513
    seq 1 300000 >big
    ln f1 links/hard; ln f1 dir/hard2; ln -s ../f1 links/soft; ln -s /nowhere/at/all links/dangling; ln -s . links/self
    chown 5:6 f1; chown 1000:2000 dir big; chown -h 7:8 links/soft
    chmod 4755 f1; chmod 2711 f511; chmod 1640 f512; chmod 0 f513; chmod 2775 dir; chmod 1777 dir/empty
    printf 'name' >$'dir/\xff\xfe not utf-8'; printf 'n' >'dir/"quoted\ name'$'\n''newline'; printf u >dir/ünïcødé
    touch -d '2001-02-03 04:05:06' f0 f1 dir/hard2 dir links/dangling -h; touch -d '1970-01-01 00:00:00' f511
    chmod 711 .
"#;

/// What all but v7 can hold.
const SPECIAL: &str = r#"
    mkfifo -m 604 fifo; mknod -m 620 null c 1 3; mknod disk b 259 70000; chmod 1660 disk; chown 3:4 null
"#;

const LONG_NAMES: &str = r#"
    l=$(printf 'n%.0s' {1..200}); mkdir -p "long/$l/$l"; echo deep >"long/$l/$l/$l"
    ln "long/$l/$l/$l" "long/$l/hard"; ln -s "$l/$l/$l/$l" "long/$l/soft"
    c=$(printf 'c%.0s' {1..100}); echo hundred >"long/$c"; echo 99 >"long/${c:1}"
    m=$(printf 'm%.0s' {1..255}); echo most >"$m"
"#;

const NUMBERS: &str = r#"
    echo old >old; touch -d '1901-12-14 00:00:00' old; echo late >late; touch -d '2500-01-01' late
    echo ids >ids; chown 4000000000:3000000000 ids
"#;

const NANOSECONDS: &str = r#"
    echo nano >nano; touch -d '2020-01-01 00:00:00.123456789' nano; touch -h -d '2020-01-01 00:00:00.000000001' links/soft
"#;

const ATTRIBUTES: &str = r#"
    setfattr -n user.plain -v value f0; setfattr -n user.empty f0; setfattr -n user.bin -v 0x000aff3d0a f1
    setfattr -n user.dir -v d dir; setfattr -n trusted.mine -v t big; setfattr -h -n trusted.link -v l links/soft
    setfattr -n security.capability -v 0x0100000202000000000000000000000000000000 big
"#;

const ACLS: &str = r#"
    setfacl -m u:1234:rwx,g:4321:r-x,m::rx big; setfacl -m d:u:1234:rwx,d:g::r-x dir; setfacl -m u:5:r f0
    mkdir dir/below; echo plain >dir/below/plain; setfacl -b dir/below/plain; setfacl -k dir/below
"#;

const SPARSE: &str = r#"
    truncate -s 3M holes; printf start | dd of=holes conv=notrunc status=none
    for at in 100000 1000000 1500000 2000000; do printf middle | dd of=holes bs=1 seek=$at conv=notrunc status=none; done
    truncate -s 1M hollow; cp --sparse=always holes many; for i in $(seq 1 40); do
        printf $i | dd of=many bs=1 seek=$((i * 65536 + 7)) conv=notrunc status=none; done
    truncate -s 20M many; truncate -s 9G huge; printf end | dd of=huge bs=1 seek=9663676000 conv=notrunc status=none
"#;

fn make_source(scratch: &Scratch, parts: &[&str]) {
    shell(&(PLAIN.to_owned() + &parts.concat()), scratch.path());
}

const GNU: &str = "tar -xp --xattrs --xattrs-include='*' --acls --numeric-owner --same-owner -f ../layer.tar";
const BSD: &str = "bsdtar -xp --acls --xattrs --numeric-owner --same-owner -f ../layer.tar";

/// Packs `src`, unpacks it here and with another tool, and compares.
fn round_trip(scratch: &Scratch, what: &str, pack: &str, unpack: &str) {
    let tar = shell(&format!("cd src; {pack}"), scratch.path());
    let ours = scratch.dir(&format!("ours {what}"));
    let theirs = scratch.dir(&format!("theirs {what}"));
    #[allow(clippy::disallowed_methods, reason = "tests")]
    std::fs::write(scratch.path().join("layer.tar"), &tar).unwrap();
    shell(unpack, &theirs);
    let (applied, _) = apply_and_check(&tar, &ours);
    assert!(applied.entries > 10, "{what}");
    assert_eq!(applied.compression, Compression::None);
    // bsdtar does not set the times of its working directory, nor can anyone if the archive does not name it.
    if unpack == BSD || what.contains("without dot") {
        shell(&format!("touch -r '{}' .", ours.display()), &theirs);
    }
    assert_same_trees(&theirs, &ours);
    for dir in [ours, theirs] {
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn layers_of_real_images_are_rebuilt_byte_for_byte() {
    if !is_root() {
        return;
    }
    for image in ["bb.tar.gz", "bb-nonutf8.tar.gz", "opq.tar.gz"] {
        for (index, layer) in layers_of(image).into_iter().enumerate() {
            let scratch = Scratch::new();
            let (applied, _) = apply_and_check(&layer, &scratch.dir("layer"));
            assert!(applied.entries > 0, "{image} {index}");
        }
    }
}

#[test]
fn v7_is_unpacked_as_gnu_tar_does() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[]);
    round_trip(&scratch, "v7", "tar -cf - --format=v7 .", GNU);
    round_trip(&scratch, "v7 without dot", "tar -cf - --format=v7 *", GNU);
}

#[test]
fn ustar_is_unpacked_as_gnu_tar_does() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[SPECIAL]);
    let prefix =
        r#"d=$(printf 'd%.0s' {1..70}); mkdir -p src/$d/$d; echo x >src/$d/$d.f; echo y >src/$d/$d/$d"#;
    shell(prefix, scratch.path());
    round_trip(&scratch, "ustar", "tar -cf - --format=ustar .", GNU);
    round_trip(&scratch, "bsdtar ustar", "bsdtar -cf - --format=ustar --no-acls --no-xattrs .", BSD);
}

#[test]
fn gnu_formats_are_unpacked_as_gnu_tar_does() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[SPECIAL, LONG_NAMES, NUMBERS, SPARSE]);
    round_trip(&scratch, "gnu", "tar -cf - --format=gnu --exclude=huge .", GNU);
    round_trip(&scratch, "oldgnu", "tar -cf - --format=oldgnu --exclude=huge .", GNU);
    round_trip(&scratch, "gnu sparse", "tar -cf - --format=gnu --sparse .", GNU);
    round_trip(&scratch, "oldgnu sparse", "tar -cf - --format=oldgnu --sparse .", GNU);
    round_trip(&scratch, "label", "tar -cf - --format=gnu -V 'a label' --exclude=huge .", GNU);
    let bsdtar = "bsdtar -cf - --format=gnutar --no-acls --no-xattrs --exclude=huge .";
    round_trip(&scratch, "bsdtar gnutar", bsdtar, BSD);
}

#[test]
fn pax_is_unpacked_as_gnu_tar_does() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[SPECIAL, LONG_NAMES, NUMBERS, NANOSECONDS, ATTRIBUTES, ACLS, SPARSE]);
    shell("touch -d '1969-12-31 23:59:59.25' src/dir/empty", scratch.path());
    let pack = |more: &str| {
        format!("tar -cf - --format=pax --xattrs --xattrs-include='*' --acls --numeric-owner {more} .")
    };
    round_trip(&scratch, "pax", &pack("--exclude=huge"), GNU);
    for version in ["0.0", "0.1", "1.0"] {
        round_trip(&scratch, version, &pack(&format!("--sparse --sparse-version={version}")), GNU);
    }
    round_trip(&scratch, "global", &pack("--exclude=huge --pax-option=gid=77,comment=text"), GNU);
    round_trip(&scratch, "times", &pack("--exclude=huge --pax-option='mtime:=1234567890.987654321'"), GNU);
}

#[test]
fn bsdtar_pax_is_unpacked_as_bsdtar_does() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[SPECIAL, LONG_NAMES, NUMBERS, NANOSECONDS, ATTRIBUTES, ACLS, SPARSE]);
    for options in ["", "--options=xattrheader=LIBARCHIVE", "--options=xattrheader=SCHILY"] {
        let pack = format!("bsdtar -cf - --format=pax {options} --acls --xattrs --numeric-owner .");
        round_trip(&scratch, &format!("bsdtar {options}"), &pack, BSD);
    }
}

#[test]
fn compressed_layers_give_the_same_tree_and_digests() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[SPECIAL]);
    let plain = shell("cd src; tar -cf - --format=pax . | tee ../layer.tar", scratch.path());
    let (plain_applied, _) = apply_and_check(&plain, &scratch.dir("plain"));
    for (command, compression) in [
        ("gzip -n", Compression::Gzip),
        ("zstd -q", Compression::Zstd),
        ("zstd -q -19 --long=27", Compression::Zstd),
        ("bzip2", Compression::Bzip2),
        ("xz", Compression::Xz),
    ] {
        let tar = shell(&format!("{command} <layer.tar"), scratch.path());
        let target = scratch.dir(command);
        let (applied, _) = apply_and_check(&tar, &target);
        assert_eq!(applied.compression, compression);
        assert_eq!(applied.diff_id, plain_applied.diff_id);
        assert_eq!(applied.content_size, plain_applied.content_size);
        assert_same_trees(&scratch.path().join("plain"), &target);
    }
}

#[test]
fn an_empty_stream_is_an_empty_layer() {
    let scratch = Scratch::new();
    for (name, tar) in [("nothing", Vec::new()), ("end marker", vec![0; 1024]), ("one block", vec![0; 512])] {
        let target = scratch.dir(name);
        let (applied, _) = apply_and_check(&tar, &target);
        assert_eq!(applied.entries, 0);
        assert_eq!(tree(&target).len(), 1);
    }
}

#[test]
fn owners_are_shifted_everywhere() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[SPECIAL, ACLS]);
    shell("echo w >src/.wh.hidden; chown 9:10 src/.wh.hidden", scratch.path());
    let tar = shell("cd src; tar -cf - --format=pax --acls --numeric-owner .", scratch.path());
    let options = |whiteouts, owner_shift| ApplyOptions { whiteouts, owner_shift, ..ApplyOptions::default() };
    let plain = scratch.dir("plain");
    let shifted = scratch.dir("shifted");
    let shift = OwnerShift { uid: 100_000, gid: 200_000 };
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Keep] {
        apply_with(&tar, &plain, &options(whiteouts, None)).unwrap();
        apply_with(&tar, &shifted, &options(whiteouts, Some(shift))).unwrap();
        let (plain, shifted) = (tree(&plain), tree(&shifted));
        assert_eq!(plain.len(), shifted.len());
        for (path, node) in &plain {
            let other = &shifted[path];
            assert_eq!((other.uid, other.gid), (node.uid + 100_000, node.gid + 200_000), "{path:?}");
            assert_eq!((other.mode, &other.content), (node.mode, &node.content), "{path:?}");
        }
        assert_eq!(
            plain[Path::new(if whiteouts == Whiteouts::Keep { ".wh.hidden" } else { "hidden" })].uid,
            9
        );
    }
    let list = run("getfacl", &["-nc".as_ref(), "shifted/big".as_ref()], scratch.path());
    let list = String::from_utf8(list).unwrap();
    assert!(list.contains("user:101234:rwx") && list.contains("group:204321:r-x"), "{list}");
    let too_far = OwnerShift { uid: u32::MAX - 999, gid: 0 };
    let error =
        apply_with(&tar, &scratch.dir("far"), &options(Whiteouts::Overlay, Some(too_far))).unwrap_err();
    assert!(error.report().contains("user id 1000 is out of range"), "{}", error.report());
}

#[test]
fn owners_can_be_left_to_the_caller() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    make_source(&scratch, &[]);
    shell(
        "mkdir -p src/closed/inner; echo x >src/closed/inner/file; chmod 0111 src/closed/inner; chmod 0 src/closed",
        scratch.path(),
    );
    let tar = shell("cd src; tar -cf - --format=pax .", scratch.path());
    let target = scratch.dir("target");
    apply_with(&tar, &target, &ApplyOptions { owners: false, ..ApplyOptions::default() }).unwrap();
    let nodes = tree(&target);
    assert!(nodes.values().all(|node| (node.uid, node.gid) == (0, 0)));
    assert_eq!(nodes[Path::new("f1")].mode, 0o104_755);
    assert_eq!(nodes[Path::new("closed")].mode, 0o040_000);
    assert_eq!(nodes[Path::new("closed/inner")].mode, 0o040_111);
}

#[test]
fn overlay_attributes_are_never_taken_and_trusted_ones_on_request() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let script = r#"
        mkdir -p src/dir; cd src; echo x >file
        setfattr -n trusted.overlay.redirect -v /etc dir; setfattr -n trusted.overlay.opaque -v y dir
        setfattr -n trusted.overlay.metacopy -v x file; setfattr -n trusted.other -v o file; setfattr -n user.u -v u file
    "#;
    shell(script, scratch.path());
    let tar = shell("cd src; tar -cf - --format=pax --xattrs --xattrs-include='*' .", scratch.path());
    for (drop_trusted, expected) in [(false, vec!["trusted.other", "user.u"]), (true, vec!["user.u"])] {
        let target = scratch.dir(if drop_trusted { "without" } else { "with" });
        apply_with(&tar, &target, &ApplyOptions { drop_trusted, ..ApplyOptions::default() }).unwrap();
        let nodes = tree(&target);
        assert!(nodes[Path::new("dir")].xattrs.is_empty());
        let names: Vec<_> = nodes[Path::new("file")].xattrs.keys().map(|name| name.as_slice()).collect();
        let expected: Vec<_> = expected.iter().map(|name| name.as_bytes()).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn directories_that_are_only_passed_through_keep_their_times() {
    if !is_root() {
        return;
    }
    // More directories than are kept open, filled in two rounds, so that each is opened again and again.
    let scratch = Scratch::new();
    let script = r#"
        mkdir src; cd src; for d in $(seq 1 150); do mkdir -p a$d/b; done
        find . -type d -exec touch -d '2010-01-01 00:00:00.5' {} +
    "#;
    shell(script, scratch.path());
    let dirs = shell("cd src; tar -cf - --format=pax .", scratch.path());
    let target = scratch.dir("target");
    apply(&dirs, &target).unwrap();
    shell("cd src; for r in 1 2; do for d in $(seq 1 150); do echo x >a$d/b/f$r; done; done", scratch.path());
    let script = "cd src; for r in 1 2; do for d in $(seq 1 150); do echo ./a$d/b/f$r; done; done >../list; tar -cf - --no-recursion -T ../list";
    let files = shell(script, scratch.path());
    apply(&files, &target).unwrap();
    let nodes = tree(&target);
    assert_eq!(nodes.values().filter(|node| !node.content.is_empty()).count(), 300);
    for (path, node) in nodes.iter().filter(|(_, node)| node.content.is_empty()) {
        assert_eq!(node.mtime, (1_262_304_000, 500_000_000), "{path:?}");
    }
}
