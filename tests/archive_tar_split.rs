// SPDX-License-Identifier: MulanPSL-2.0
//! The tar-split stream: against the public tool, against streams of a real store, line by line, and where a tree no
//! longer fits it.

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
use std::path::Path;

use archive_common::{
    Header, Scratch, Tar, apply, apply_and_check, is_root, layers_of, rebuild, run, shell, tree, verify,
};
use isula_storage::archive::{ApplyOptions, Verdict, Whiteouts};
use isula_storage::error::ErrorKind;

fn lines(split: &[u8]) -> Vec<String> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(split).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn packed(lines: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(lines.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A small tree of every kind of entry, packed in this format.
fn sample(scratch: &Scratch, options: &str) -> Vec<u8> {
    let script = format!(
        r#"
        rm -rf src; mkdir -p src/dir; cd src; seq 1 50000 >big; printf 'x' >small; printf '' >empty; ln small hard
        ln -s small soft; mkfifo fifo; mknod null c 1 3; printf raw >$'dir/\xff'; printf '"\n' >$'dir/"\\\n<&>'
        l=$(printf 'n%.0s' {{1..200}}); mkdir $l; printf long >$l/$l; setfattr -n user.a -v b small
        tar -cf - {options} .
    "#
    );
    shell(&script, scratch.path())
}

const FORMATS: [&str; 4] =
    ["--format=gnu", "--format=pax --xattrs", "--format=oldgnu", "--format=pax -b 64 --pax-option=comment=c"];

#[test]
fn the_public_tool_rebuilds_the_tar_from_our_stream() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut layers: Vec<Vec<u8>> = FORMATS.iter().map(|format| sample(&scratch, format)).collect();
    for image in ["bb.tar.gz", "bb-nonutf8.tar.gz", "opq.tar.gz"] {
        layers.extend(layers_of(image));
    }
    for (index, tar) in layers.into_iter().enumerate() {
        let target = scratch.dir(&format!("layer {index}"));
        let (_, split) = apply_and_check(&tar, &target);
        std::fs::write(scratch.path().join("split.gz"), split).unwrap();
        let arguments = ["asm", "--input", "split.gz", "--output", "out.tar", "--path"];
        let mut arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(std::ffi::OsStr::new).collect();
        arguments.push(target.as_os_str());
        run("tar-split", &arguments, scratch.path());
        assert!(std::fs::read(scratch.path().join("out.tar")).unwrap() == tar, "layer {index}");
    }
}

#[test]
fn the_tar_is_rebuilt_from_the_public_tools_stream() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    for (index, format) in FORMATS.iter().enumerate() {
        let tar = sample(&scratch, format);
        let target = scratch.dir(&format!("layer {index}"));
        apply(&tar, &target).unwrap();
        std::fs::write(scratch.path().join("layer.tar"), &tar).unwrap();
        shell("tar-split disasm --output split.gz layer.tar >/dev/null", scratch.path());
        let split = std::fs::read(scratch.path().join("split.gz")).unwrap();
        assert!(rebuild(&split, &target).unwrap().1 == tar, "{format}");
        // The tool takes a global header for a file.
        if !format.contains("comment") {
            assert_eq!(verify(&split, &target).unwrap(), Verdict::Valid);
        }
    }
}

#[test]
fn lines_are_spelt_as_the_reference_spells_them() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let tar = Tar::new().dir("d/").file("d/one", "one\n").file(b"\xff", "").symlink("s", "d").end();
    let (_, split) = apply_and_check(&tar, &scratch.dir("target"));
    // No time, no name, made on Unix.
    assert_eq!(split[..4], [0x1f, 0x8b, 8, 0]);
    assert_eq!(split[4..8], [0; 4]);
    assert_eq!(split[9], 3);
    let lines = lines(&split);
    let entries: Vec<_> = lines.iter().filter(|line| line.contains(r#""type":1,"#)).collect();
    assert_eq!(
        entries,
        [
            r#"{"type":1,"name":"d/","position":1}"#,
            r#"{"type":1,"name":"d/one","size":4,"payload":"YULdjAAAAAA=","position":3}"#,
            r#"{"type":1,"name_raw":"/w==","position":5}"#,
            r#"{"type":1,"name":"s","position":7}"#,
        ]
    );
    assert!(lines[0].starts_with(r#"{"type":2,"payload":"ZC8AAAA"#) && lines[0].ends_with("AAA=\"}"));
    assert_eq!(lines.len(), 9);
}

/// The three layers in the trees of a real daemon.
fn real_layers(scratch: &Scratch) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/isulad-trees.tar.xz");
    let arguments = ["-xp", "--xattrs", "--xattrs-include=*", "-f"];
    let mut arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(std::ffi::OsStr::new).collect();
    arguments.push(trees.as_os_str());
    run("tar", &arguments, scratch.path());
    let found = shell("find . -name '*.tar-split.gz'", scratch.path());
    let mut layers = Vec::new();
    for path in String::from_utf8(found).unwrap().lines() {
        let path = scratch.path().join(path);
        let id = path.parent().unwrap().file_name().unwrap().to_owned();
        let storage = path.ancestors().nth(3).unwrap();
        layers.push((storage.join("overlay").join(id).join("diff"), std::fs::read(&path).unwrap()));
    }
    layers
}

#[test]
fn layers_of_a_real_store_are_verified_by_their_own_streams() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let layers = real_layers(&scratch);
    assert!(layers.len() >= 5);
    for (layer, split) in &layers {
        assert_eq!(verify(split, layer).unwrap(), Verdict::Valid, "{}", layer.display());
        let error = rebuild(split, layer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.report().contains("checksums only"), "{}", error.report());
    }
    let (layer, split) = layers.iter().find(|(layer, _)| layer.join("etc/passwd").exists()).unwrap();
    shell("sed -i s/root/toor/ etc/passwd", layer);
    let Verdict::Differs(what) = verify(split, layer).unwrap() else { panic!("not noticed") };
    assert_eq!(what, "\"etc/passwd\": its content has changed");
    shell("rm etc/group", layer);
    let Verdict::Differs(what) = verify(split, layer).unwrap() else { panic!("not noticed") };
    assert_eq!(what, "\"etc/group\": it is missing");
}

#[test]
fn a_changed_tree_is_noticed_and_never_rebuilt() {
    if !is_root() {
        return;
    }
    let table = [
        ("printf y >d/small", "\"d/small\": its content has changed", "content has changed"),
        ("printf xx >d/small", "\"d/small\": it has 2 bytes, the layer had 1", "has 2 bytes"),
        ("rm d/small", "\"d/small\": it is missing", "it is missing"),
        ("rm -r d", "\"d/\": it is missing", "it is missing"),
        ("rm d/small; ln -s /etc/passwd d/small", "\"d/small\": it is not a regular file", "not a regular"),
        ("rm d/small; mkfifo d/small", "\"d/small\": it is not a regular file", "not a regular"),
        ("rm d/small; mkdir d/small", "\"d/small\": it is not a regular file", "not a regular"),
        ("mv d e; ln -s /etc d", "\"d/\": it is not a directory", "it is missing"),
    ];
    let tar = Tar::new().dir("d/").file("d/small", "x").end();
    for (script, verdict, error) in table {
        let scratch = Scratch::new();
        let (_, split) = apply_and_check(&tar, &scratch.dir("target"));
        let target = scratch.path().join("target");
        shell(script, &target);
        assert_eq!(verify(&split, &target).unwrap(), Verdict::Differs(verdict.to_owned()), "{script}");
        let found = rebuild(&split, &target).unwrap_err();
        assert_eq!(found.kind(), ErrorKind::Corrupt, "{script}: {}", found.report());
        assert!(found.report().contains(error), "{script}: {}", found.report());
    }
}

#[test]
fn what_the_archive_does_not_name_may_change() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.dir("target");
    let (_, split) = apply_and_check(&Tar::new().dir("d/").file("d/small", "x").end(), &target);
    shell("echo more >d/other; touch -d @1 d d/small; ln -s x y", &target);
    assert_eq!(verify(&split, &target).unwrap(), Verdict::Valid);
    rebuild(&split, &target).unwrap();
}

#[test]
fn a_damaged_stream_is_corrupt() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.dir("target");
    let (_, split) = apply_and_check(&Tar::new().dir("d/").file("d/small", "x").end(), &target);
    let mut streams = vec![Vec::new(), b"not gzip".to_vec()];
    streams.extend((1..split.len()).step_by(7).map(|cut| split[..cut].to_vec()));
    for text in [
        "{\n",
        "\n",
        "[]\n",
        "{\"type\":1,\"name\":\"d/\"}",
        "{\"type\":1,\"name\":\"d/small\",\"size\":1,\"payload\":\"YULd\"}\n",
        "{\"type\":1,\"name\":\"d/small\",\"size\":-1}\n",
        "{\"type\":2,\"payload\":\"*\"}\n",
        "{\"type\":1,\"name\":\"d/small\",\"size\":1,\"sparse\":\"0,2\"}\n",
        "{\"type\":1,\"name\":\"d/small\",\"size\":1,\"sparse\":\"x\"}\n",
        "{\"type\":2,\"payload\":\"AAAA\"}\n{\"type\":3,\"size\":5,\"payload\":\"YULdjAAAAAA=\",\"sparse\":\"0,5\"}\n",
        "{\"type\":3,\"size\":5}\n",
    ] {
        streams.push(packed(text));
    }
    for stream in streams {
        let shown = stream.escape_ascii().to_string();
        let Err(error) = rebuild(&stream, &target) else { panic!("taken: {shown}") };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{shown}: {}", error.report());
    }
    // Lines of kinds unknown, and keys unknown, are for others.
    let more = packed("{\"type\":9,\"name\":5e1}\n{\"type\":2,\"payload\":\"YWJj\",\"new\":[{}]}\n");
    let error = rebuild(&more, &target);
    assert!(error.is_err() || error.unwrap().1 == b"abc");
    assert_eq!(rebuild(&packed(""), &target).unwrap().1, b"");
}

#[test]
fn content_that_a_later_entry_replaces_is_kept() {
    if !is_root() {
        return;
    }
    let big = "0123456789".repeat(10_000);
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("file", Tar::new().file("a", "one").file("a", "two!").file("a", "three").end()),
        ("same", Tar::new().file("a", "one").file("b", "one").file("a", "one").file("b", "x").end()),
        ("big", Tar::new().file("a", &big).file("./a", &big[1..]).file("a", "").end()),
        ("directory", Tar::new().file("d/a", "one").file("d/e/b", &big).file("d", "file").end()),
        ("link", Tar::new().file("a", "one").symlink("a", "b").file("b", "two").end()),
        ("hard", Tar::new().file("a", "one").hard_link("b", "a").file("a", "two").file("b", "tre").end()),
        ("hard over", Tar::new().file("a", "one").file("b", "two").hard_link("a", "b").end()),
        ("device", Tar::new().file("a", "one").header(&Header::new("a", b'6')).end()),
        (
            "moved link",
            Tar::new()
                .dir("x/")
                .dir("y/")
                .symlink("s", "x")
                .file("s/f", "one")
                .symlink("s", "y")
                .file("s/f", "two")
                .end(),
        ),
        ("link to directory", Tar::new().dir("x/").symlink("s", "x").file("s/f", "one").dir("s/").end()),
        ("whiteout with content", Tar::new().file(".wh.a", &big).file("d/.wh..wh..opq", "opaque").end()),
        ("metadata with content", Tar::new().dir(".wh..wh.plnk/").file(".wh..wh.plnk/1.2", "kept").end()),
        (
            "lost below",
            Tar::new().dir("d/").dir("d/e/").file("d/e/a", "one").file("d/b", "two").symlink("d", "/").end(),
        ),
    ];
    for (name, tar) in table {
        let scratch = Scratch::new();
        apply_and_check(&tar, &scratch.dir(name));
    }
}

#[test]
fn content_of_a_replaced_sparse_file_is_kept_without_its_holes() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let script = r#"
        mkdir src; cd src; truncate -s 5G f; for at in 1000 70000 4000000000; do
        printf data | dd of=f bs=1 seek=$at conv=notrunc status=none; done
        tar --sparse -cf ../layer.tar f; echo two >f; tar -rf ../layer.tar f; cat ../layer.tar
    "#;
    let tar = shell(script, scratch.path());
    let (_, split) = apply_and_check(&tar, &scratch.dir("target"));
    assert!(split.len() < 10_000);
}

#[test]
fn replaced_content_of_the_parent_is_not_kept() {
    let scratch = Scratch::new();
    let target = scratch.dir("target");
    std::fs::write(target.join("a"), "of the parent").unwrap();
    let options = ApplyOptions { whiteouts: Whiteouts::Remove, owners: false, ..ApplyOptions::default() };
    let tar = Tar::new().file("a", "one").file("a", "two").end();
    let (_, split) = archive_common::apply_with(&tar, &target, &options).unwrap();
    let kept = lines(&split).into_iter().filter(|line| line.starts_with(r#"{"type":3"#)).count();
    assert_eq!(kept, 1);
    assert_eq!(rebuild(&split, &target).unwrap().1, tar);
    assert_eq!(tree(&target).len(), 2);
}
