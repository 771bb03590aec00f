// SPDX-License-Identifier: MulanPSL-2.0
//! What a comparison of a layer with its tar-split stream finds, and what it never takes for damage: one change at a time,
//! by streams of this library and by such as the reference writes; and whole layers of real stores.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use archive_common::{
    Header, Scratch, Tar, apply, apply_with, is_root, layers_of, run, shell, verify, verify_with,
};
use isula_storage::archive::{ApplyOptions, Depth, OwnerShift, Verdict, VerifyOptions, Whiteouts};

fn plain(split: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(split).read_to_string(&mut text).unwrap();
    text
}

fn packed(lines: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(lines.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The stream as the reference writes it: no headers, names and checksums only.
fn as_the_reference(split: &[u8]) -> Vec<u8> {
    let lines: Vec<String> = plain(split)
        .lines()
        .filter(|line| line.starts_with(r#"{"type":1,"#))
        .map(|line| format!("{line}\n"))
        .collect();
    packed(&lines.concat())
}

fn with(depth: Depth) -> VerifyOptions {
    VerifyOptions { depth, ..VerifyOptions::default() }
}

/// A layer of every type of entry.
fn sample(scratch: &Scratch) -> Vec<u8> {
    let script = r#"
        rm -rf src; mkdir -p src/d/deep src/opaque src/own; cd src
        printf x >d/file; : >d/empty; ln d/file d/hard; ln -s file d/soft; mkfifo d/fifo
        mknod d/char c 1 3; mknod d/block b 7 5; chmod 4755 d/file; chown 7:8 d/empty d/fifo; chown -h 9:10 d/soft
        setfattr -n user.note -v text d/file; setfattr -h -n trusted.note -v text d/soft
        setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 d/empty
        setfacl -m u:1000:r d/char; chmod 2750 d/deep; setfacl -d -m u:1000:rwx d/deep
        : >d/.wh.gone; : >.wh.top; : >opaque/.wh..wh..opq; : >own/.wh.dir; mkdir own/dir; : >own/.wh.file; : >own/file
        tar -cf - --format=pax --xattrs --xattrs-include='*' --acls --sort=name .
    "#;
    shell(script, scratch.path())
}

/// By whom a change is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// By every stream.
    Always,
    /// By headers.
    Headers,
    /// By headers, where all is compared.
    Closely,
}
use Found::{Always, Closely, Headers};

#[test]
fn every_single_change_is_found_and_told() {
    if !is_root() {
        return;
    }
    let table = [
        ("rm d/gone", Always, r#""./d/.wh.gone": the whiteout is missing"#),
        ("rm top", Always, r#""./.wh.top": the whiteout is missing"#),
        (
            "rm d/gone; echo x >d/gone",
            Always,
            r#""./d/.wh.gone": the whiteout is missing, something else is there"#,
        ),
        (
            "setfattr -x trusted.overlay.opaque opaque",
            Always,
            r#""./opaque/.wh..wh..opq": its directory is no longer opaque"#,
        ),
        (
            "setfattr -x trusted.overlay.opaque own/dir",
            Headers,
            r#""./own/.wh.dir": its directory is no longer opaque"#,
        ),
        ("rm own/file", Always, r#""./own/file": it is missing"#),
        ("rmdir own/dir", Always, r#""./own/dir/": it is missing"#),
        ("ln -sfn elsewhere d/soft", Headers, r#""./d/soft": it leads to "elsewhere", the layer had "file""#),
        ("rm d/soft; mkfifo d/soft", Headers, r#""./d/soft": it is a fifo, the layer had a symbolic link"#),
        ("rm d/fifo; : >d/fifo", Headers, r#""./d/fifo": it is a regular file, the layer had a fifo"#),
        (
            "rm d/empty; mkdir d/empty",
            Headers,
            r#""./d/empty": it is a directory, the layer had a regular file"#,
        ),
        ("printf y >d/empty", Headers, r#""./d/empty": it has 1 bytes, the layer had 0"#),
        ("printf y >d/file", Always, r#""./d/file": its content has changed"#),
        ("rm d/char; mknod d/char c 1 5", Headers, r#""./d/char": it is device 1:5, the layer had 1:3"#),
        (
            "rm d/char; mknod d/char b 1 3",
            Headers,
            r#""./d/char": it is a block device, the layer had a character device"#,
        ),
        ("rm d/block; mknod d/block b 8 5", Headers, r#""./d/block": it is device 8:5, the layer had 7:5"#),
        ("rm -r d/deep; : >d/deep", Always, r#""./d/deep/": it is not a directory"#),
        ("rm d/hard; mkdir d/hard", Headers, r#""./d/hard": it is a directory, the layer had a hard link"#),
        (
            "cp -a d/hard d/new; mv d/new d/hard",
            Closely,
            r#""./d/hard": it is no longer a hard link to "./d/file""#,
        ),
        ("chmod 755 d/file", Closely, r#""./d/file": its mode is 0755, the layer had 4755"#),
        ("chmod 700 d", Closely, r#""./d/": its mode is 0700, the layer had 0755"#),
        ("chmod 700 .", Closely, r#""./": its mode is 0700, the layer had 0755"#),
        ("chmod 600 d/fifo", Closely, r#""./d/fifo": its mode is 0600, the layer had 0644"#),
        ("chmod 600 d/block", Closely, r#""./d/block": its mode is 0600, the layer had 0644"#),
        ("chown -h 1:2 d/soft", Closely, r#""./d/soft": its owner is 1:2, the layer had 9:10"#),
        ("chown 1:8 d/fifo", Closely, r#""./d/fifo": its owner is 1:8, the layer had 7:8"#),
        ("setfattr -x user.note d/file", Closely, r#""./d/file": its attribute "user.note" is missing"#),
        (
            "setfattr -n user.note -v other d/file",
            Closely,
            r#""./d/file": its attribute "user.note" has changed"#,
        ),
        (
            "setfattr -h -x trusted.note d/soft",
            Closely,
            r#""./d/soft": its attribute "trusted.note" is missing"#,
        ),
        (
            "setfattr -x security.capability d/empty",
            Closely,
            r#""./d/empty": its attribute "security.capability" is missing"#,
        ),
        ("setfacl -b d/char", Closely, r#""./d/char": its attribute "system.posix_acl_access" is missing"#),
        ("setfacl -k d/deep", Closely, r#""./d/deep/": its attribute "system.posix_acl_default" is missing"#),
    ];
    let scratch = Scratch::new();
    let tar = sample(&scratch);
    for (script, found, what) in table {
        let target = scratch.dir("target");
        let (_, split) = apply(&tar, &target).unwrap();
        let theirs = as_the_reference(&split);
        let streams = [(&split, Depth::Content), (&split, Depth::Metadata), (&theirs, Depth::Metadata)];
        for (split, depth) in streams {
            assert_eq!(verify_with(split, &target, &with(depth)).unwrap(), Verdict::Valid, "{script}");
        }
        shell(script, &target);
        let differs = Verdict::Differs(what.to_owned());
        for (by_reference, (split, depth)) in [false, false, true].into_iter().zip(streams) {
            let expected = match found {
                Always => true,
                Headers => !by_reference,
                Closely => !by_reference && depth == Depth::Metadata,
            };
            let verdict = verify_with(split, &target, &with(depth)).unwrap();
            let expected = if expected { &differs } else { &Verdict::Valid };
            assert_eq!(&verdict, expected, "{script}, {depth:?}, by the reference: {by_reference}");
        }
        // Another driver has no whiteouts.
        let options = VerifyOptions { whiteouts: Whiteouts::Remove, ..VerifyOptions::default() };
        if what.contains("the whiteout") || what.contains("opaque") {
            assert_eq!(verify_with(&split, &target, &options).unwrap(), Verdict::Valid, "{script}");
        }
        std::fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn what_is_no_damage_is_none() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let tar = sample(&scratch);
    let target = scratch.dir("target");
    let (_, split) = apply(&tar, &target).unwrap();
    let table = [
        "find . -exec touch -h -d @1 {} +",
        "for name in origin impure redirect metacopy; do setfattr -n trusted.overlay.$name -v y d; done",
        "setfattr -n user.more -v x d/file; setfattr -n security.selinux -v x d/file d",
        "echo more >d/more; mkdir more; ln d/file more/third; ln -s d more/link",
        "chmod 700 more; mknod more/hides c 0 0",
    ];
    for script in table {
        shell(script, &target);
        for split in [&split, &as_the_reference(&split)] {
            assert_eq!(verify(split, &target).unwrap(), Verdict::Valid, "{script}");
        }
    }
    // Whoever has no owners, or has them for another namespace, has all of them otherwise.
    shell("chown -h -R 4711:4711 . ; chmod 4755 d/file; chmod 2750 d/deep", &target);
    shell("setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 d/empty", &target);
    assert_eq!(verify(&split, &target).unwrap(), Verdict::Valid);
}

/// Archives in which entries hide or replace each other.
fn self_contained() -> Vec<(&'static str, Tar)> {
    let device = |name: &str| Header { device: (0, 0), ..Header::new(name, b'3') };
    let mode = |name: &str, mode| Header { mode, ..Header::new(name, b'5') };
    let t = Tar::new;
    vec![
        (
            "twice",
            t().header(&mode("d/", 0o700)).symlink("s", "a").header(&mode("d", 0o711)).symlink("s", "b"),
        ),
        (
            "type changes",
            t().symlink("a", "b").dir("a/").file("a/f", "x").file("a", "").dir("b/").symlink("b", "a"),
        ),
        (
            "whiteout first",
            t().dir("d/").file("d/.wh.x", "").file("d/x", "x").file("d/.wh.y", "").dir("d/y/"),
        ),
        ("whiteout last", t().dir("d/").file("d/x", "x").dir("d/y/").file("d/.wh.x", "").file("d/.wh.y", "")),
        ("whiteout of a parent", t().file(".wh.d", "").file("d/e/f", "x").file("d/.wh.e", "")),
        ("whiteout replaced twice", t().file("d/.wh.x", "").file("d/x", "").dir("d/x/")),
        ("whiteout lost below", t().dir("d/").file("d/.wh.x", "").file("d/.wh..wh..opq", "").file("d", "x")),
        (
            "no longer opaque",
            t().dir("d/").file("d/.wh..wh..opq", "").file("d", "x").dir("d/").file("d/f", "x"),
        ),
        ("mark before its directory", t().file("d/.wh..wh..opq", "").file("e/.wh.x", "").dir("d/").dir("e/")),
        ("at the top", t().file(".wh.x", "").file(".wh..wh..opq", "").dir("./").file("/.wh.y", "")),
        (
            "spelt out",
            t().header(&device("x")).file("x/f", "x").header(&device("y")).dir("y/").header(&device("z")),
        ),
        (
            "spelt out and hidden",
            t().header(&device("x")).file(".wh.x", "").file(".wh.y", "").header(&device("y")),
        ),
        ("metadata", t().file(".wh..wh.plnk", "").dir("d/.wh..wh.orph/").file("d/.wh..wh.orph/1", "x")),
        (
            "whiteout with content",
            t().file(".wh.x", "content").file("d/.wh..wh..opq", "opaque").file("f", "x"),
        ),
        (
            "links",
            t().file("a", "x")
                .link(b'1', "b", "a")
                .file("a", "y")
                .link(b'1', "c", "./a")
                .link(b'1', "a", "b"),
        ),
        (
            "links below",
            t().file("d/a", "x").link(b'1', "b", "d/a").file("d", "y").symlink("l", "m").link(b'1', "k", "l"),
        ),
        (
            "behind links",
            t().dir("x/")
                .dir("y/")
                .symlink("s", "x")
                .file("s/.wh.a", "")
                .file("s/f", "1")
                .link(b'1', "h", "s/f")
                .symlink("s", "y")
                .file("s/a", "")
                .file("s/f", "2")
                .file("s/.wh.b", "")
                .file("y/b", ""),
        ),
    ]
}

#[test]
fn entries_that_later_ones_replace_are_no_difference() {
    if !is_root() {
        return;
    }
    for (name, tar) in self_contained() {
        for shift in [None, Some(OwnerShift { uid: 100_000, gid: 200_000 })] {
            for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove, Whiteouts::Keep] {
                let scratch = Scratch::new();
                let target = scratch.dir(name);
                if let Some(OwnerShift { uid, gid }) = shift {
                    std::os::unix::fs::chown(&target, Some(uid), Some(gid)).unwrap();
                }
                let options = ApplyOptions { whiteouts, owner_shift: shift, ..ApplyOptions::default() };
                let Ok((_, split)) = apply_with(&tar.clone().end(), &target, &options) else {
                    assert_ne!(whiteouts, Whiteouts::Overlay, "{name}");
                    continue;
                };
                let options = VerifyOptions { whiteouts, owner_shift: shift, depth: Depth::Metadata };
                for split in [&split, &as_the_reference(&split)] {
                    let verdict = verify_with(split, &target, &options).unwrap();
                    assert_eq!(verdict, Verdict::Valid, "{name} {whiteouts:?} {shift:?}");
                }
            }
        }
    }
}

#[test]
fn whiteouts_that_the_reference_loses_are_not_missed() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let lines = |names: &[&str]| {
        let lines = names.iter().map(|name| format!("{{\"type\":1,\"name\":\"{name}\"}}\n"));
        packed(&lines.collect::<String>())
    };
    let target = scratch.dir("target");
    shell("mkdir d e; : >d/there", &target);
    let table: [(&[&str], bool); 14] = [
        (&["d/", ".wh.x"], true),
        (&["d/", "/.wh.x"], true),
        (&["d/", ".wh..wh..opq"], true),
        (&["d/", "./.wh.x"], false),
        (&["d/", "./.wh..wh..opq"], false),
        (&["d/.wh.x", "d/"], true),
        (&["d/.wh..wh..opq", "d/"], true),
        (&["d/", "d/.wh.x"], false),
        (&["d/there", "d/.wh.x"], false),
        (&["d/", "d//.wh.x"], true),
        (&["d/", "d/.wh..wh..opq"], false),
        (&["d/", "d/there", "d/.wh.there"], true),
        (&["d/", "d/.wh.there", "d/there"], true),
        (&["d/", "gone/.wh.x"], true),
    ];
    for (names, valid) in table {
        let verdict = verify(&lines(names), &target).unwrap();
        assert_eq!(verdict == Verdict::Valid, valid, "{names:?}: {verdict:?}");
    }
}

#[test]
fn headers_that_do_not_fit_their_lines_say_nothing() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.dir("target");
    let tar = Tar::new().dir("d/").file("d/f", "x").symlink("d/s", "f").end();
    let (_, split) = apply(&tar, &target).unwrap();
    shell("ln -sfn g d/s", &target);
    let text = plain(&split);
    assert!(matches!(verify(&split, &target).unwrap(), Verdict::Differs(_)));
    let lines: Vec<&str> = text.lines().collect();
    let segments: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].starts_with("{\"type\":2")).collect();
    let mut streams = Vec::new();
    for at in &segments {
        let edits = [String::new(), "{\"type\":2,\"payload\":\"AAAA\"}".to_owned(), lines[*at].to_owned()];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            if number == 2 {
                lines.insert(*at, edit);
            } else {
                lines[*at] = edit;
            }
            streams
                .push(lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect());
        }
    }
    streams.push(text.replace("d/f", "d/s"));
    streams.push(text.replace("\"size\":1", "\"size\":2"));
    for stream in streams {
        let stream: String = stream;
        let _ = verify(&packed(&stream), &target).unwrap();
    }
    // Megabytes of what is no header wait for nothing.
    let filler = format!("{{\"type\":2,\"payload\":\"{}\"}}\n", "AAAA".repeat(8000)).repeat(400);
    assert_eq!(verify(&packed(&(filler + &text)), &target).unwrap(), Verdict::Valid);
}

/// Layers of real stores: where they lie, and their streams.
fn real_layers(scratch: &Scratch) -> Vec<(PathBuf, Vec<u8>)> {
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let arguments = ["--numeric-owner", "-xp", "--xattrs", "--xattrs-include=*", "-f"];
    let mut arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(std::ffi::OsStr::new).collect();
    arguments.push(trees.as_os_str());
    run("tar", &arguments, scratch.path());
    let found = String::from_utf8(shell("find . -name '*.tar-split.gz'", scratch.path())).unwrap();
    let layer = |path: &str| {
        let path = scratch.path().join(path);
        let id = path.parent().unwrap().file_name().unwrap().to_owned();
        let storage = path.ancestors().nth(3).unwrap();
        (storage.join("overlay").join(id).join("diff"), std::fs::read(&path).unwrap())
    };
    found.lines().map(layer).collect()
}

#[test]
fn trees_of_a_real_daemon_fit_their_archives_in_everything() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let layers = real_layers(&scratch);
    let mut streams: Vec<(Vec<String>, Vec<u8>)> = Vec::new();
    for image in ["bb.tar.gz", "opq.tar.gz"] {
        for (number, tar) in layers_of(image).iter().enumerate() {
            let (_, split) = apply(tar, &scratch.dir(&format!("{image}-{number}"))).unwrap();
            streams.push((names_of(&split), split));
        }
    }
    let mut compared = 0;
    for (layer, theirs) in &layers {
        assert_eq!(verify(theirs, layer).unwrap(), Verdict::Valid, "{}", layer.display());
        for (names, ours) in &streams {
            if *names == names_of(theirs) {
                assert_eq!(verify(ours, layer).unwrap(), Verdict::Valid, "{}", layer.display());
                compared += 1;
            }
        }
    }
    assert!(compared >= 4, "{compared}");
}

/// Names and checksums of a stream.
fn names_of(split: &[u8]) -> Vec<String> {
    let name = |line: &str| line.split(",\"position\"").next().unwrap().trim_end_matches('}').to_owned();
    plain(split).lines().filter(|line| line.starts_with(r#"{"type":1,"#)).map(name).collect()
}

#[test]
fn mounts_leave_nothing_that_is_taken_for_damage() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let lower = scratch.dir("lower");
    apply(&Tar::new().dir("d/").file("d/below", "x").dir("opaque/").file("opaque/o", "x").end(), &lower)
        .unwrap();
    let diff = scratch.dir("diff");
    let (_, split) = apply(&sample(&scratch), &diff).unwrap();
    let top = scratch.dir("top");
    for name in ["merged", "work", "topwork"] {
        scratch.dir(name);
    }
    // As the reference checks a layer: writable, itself on top. Then as a container has it: below.
    let script = r#"
        trap 'umount merged 2>/dev/null || true' EXIT
        mount -t overlay overlay -o lowerdir=lower,upperdir=diff,workdir=work merged
        find merged -type f -exec cat {} + >/dev/null; ls -lR merged >/dev/null; umount merged
        mount -t overlay overlay -o lowerdir=diff:lower,upperdir=top,workdir=topwork merged
        cat merged/d/file >/dev/null; echo y >merged/d/file; rm merged/d/soft; chmod 600 merged/d/fifo; mkdir merged/d/new
        mv merged/d/empty merged/d/moved; chown 5 merged/d; rm -r merged/own/dir; umount merged
    "#;
    shell(script, scratch.path());
    assert!(top.join("d/file").exists());
    for split in [&split, &as_the_reference(&split)] {
        assert_eq!(verify(split, &diff).unwrap(), Verdict::Valid);
    }
}

/// Entries of few names, drawn by a linear congruential generator, so that they hide, replace and link each other.
#[test]
fn no_archive_that_was_just_unpacked_differs() {
    if !is_root() {
        return;
    }
    let names = ["a", "b", "a/b", "a/c", "b/a", "a/b/c", "b/a/b"];
    let mut state = 1u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let scratch = Scratch::new();
    let mut taken = 0;
    for round in 0..2000 {
        let mut tar = Tar::new();
        let mut shown = String::new();
        for _ in 0..2 + draw(10) {
            let name = names[draw(names.len())];
            let other = names[draw(names.len())];
            let (parent, last) = name.rsplit_once('/').map_or(("", name), |(parent, last)| (parent, last));
            let beside =
                |what: &str| if parent.is_empty() { what.to_owned() } else { format!("{parent}/{what}") };
            let mode = 0o700 + u32::try_from(draw(64)).unwrap();
            let kind = draw(12);
            shown.push_str(&format!("{kind} {name} {other}\n"));
            tar = match kind {
                0..3 => tar.header(&Header { mode, ..Header::new(name, b'5') }),
                3..5 => {
                    tar.header(&Header { mode, size: 1, ..Header::new(name, b'0') }).content(last.as_bytes())
                }
                5 => tar.file(name, ""),
                6 => tar.symlink(name, "/".to_owned() + other),
                7 => tar.hard_link(name, other),
                8 | 9 => tar.file(beside(&format!(".wh.{last}")), ""),
                10 => tar.file(beside(".wh..wh..opq"), ""),
                _ => tar.header(&Header {
                    mode,
                    device: (0, u32::try_from(draw(2)).unwrap()),
                    ..Header::new(name, b'3')
                }),
            };
        }
        let tar = tar.end();
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
            let target = scratch.dir(&format!("{round} {whiteouts:?}"));
            let options = ApplyOptions { whiteouts, ..ApplyOptions::default() };
            if let Ok((_, split)) = apply_with(&tar, &target, &options) {
                taken += 1;
                let options = VerifyOptions { whiteouts, ..VerifyOptions::default() };
                for split in [&split, &as_the_reference(&split)] {
                    let verdict = verify_with(split, &target, &options).unwrap();
                    assert_eq!(verdict, Verdict::Valid, "{whiteouts:?} round {round}:\n{shown}");
                }
            }
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
    assert!(taken > 500, "{taken}");
}
