// SPDX-License-Identifier: MulanPSL-2.0
//! Bombs, and the limits that callers set: by storage options, which the tool and programs in C hand in as well.

use std::io::{Read, Write};
use std::process::Command;

use isula_storage::archive::Limits;
use isula_storage::error::ErrorKind;
use isula_storage::units::Bytes;

use crate::archive_common::Tar;
use crate::common::need_root;
use crate::harness::{DRIVERS, World, at_most};
use crate::streams::gzip;

const DISK: u64 = 256 << 20;

fn in_worlds(options: &[&str], cases: impl Fn(&World)) {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::on_disk(driver, DISK, options);
        cases(&world);
        world.end();
    }
}

/// What docs/limits.md says.
#[test]
fn the_default_limits_are_those_documented() {
    let expected = Limits {
        entries: 10_000_000,
        stream: Bytes(1 << 40),
        ratio: 10_000,
        path: 4096,
        extended_header: 1 << 20,
    };
    assert_eq!(Limits::default(), expected);
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md")).unwrap();
    for words in [
        "10,000,000",
        "1 TiB",
        "10,000 ",
        "4,096",
        "1 MiB",
        "4,096 in a row",
        "128 MiB",
        "layer.max_entries",
        "layer.max_size",
        "layer.max_ratio",
    ] {
        assert!(text.contains(words), "{words}");
    }
}

#[test]
fn more_entries_than_the_limit_are_refused() {
    in_worlds(&["layer.max_entries=10"], |world| {
        let tar = |count: usize| (0..count).fold(Tar::new(), |tar, n| tar.file(format!("f{n}"), "x")).end();
        world.taken("ten", &tar(10), &["f9"]);
        world.refused("eleven", &tar(11), ErrorKind::LimitExceeded, "more than 10 entries");
        world.refused("many", &gzip(&tar(3000)), ErrorKind::LimitExceeded, "more than 10 entries");
        // Whiteouts, directories that are there, and names that lead nowhere are entries as well.
        for entry in [Tar::new().file("d/.wh.x", ""), Tar::new().dir("./"), Tar::new().file(".wh..wh.x", "")]
        {
            let tar = (0..11).fold(Tar::new(), |tar, _| tar.raw(&entry.0)).end();
            world.refused("others", &tar, ErrorKind::LimitExceeded, "more than 10 entries");
        }
    });
}

#[test]
fn more_bytes_than_the_limit_are_refused() {
    in_worlds(&["layer.max_size=1M"], |world| {
        let fits = Tar::new().file("f", vec![0; (1 << 20) - 2048]).end();
        let more = Tar::new().file("f", vec![0; 1 << 20]).end();
        // What follows the end of the archive is part of it.
        let behind = [&Tar::new().file("f", "x").end()[..], &vec![0; 1 << 20]].concat();
        world.taken("fits", &fits, &["f"]);
        world.taken("fits, packed", &gzip(&fits), &["f"]);
        for (what, tar) in [("more", &more), ("behind", &behind)] {
            let words = "larger than 1.0 MiB";
            world.refused(what, tar, ErrorKind::LimitExceeded, words);
            for packed in packers().map(|pack| pack(tar)) {
                world.refused(what, &packed, ErrorKind::LimitExceeded, words);
            }
        }
    });
}

/// Zeros by the mebibyte in a few bytes, by each compression; the default ratio lets a gzip of zeros in, so less is set.
#[test]
fn streams_that_expand_beyond_the_ratio_are_refused() {
    in_worlds(&["layer.max_ratio=100"], |world| {
        // Valgrind takes minutes for more.
        if at_most(0, 1) == 1 && world.driver != DRIVERS[0] {
            return;
        }
        let size = at_most(80 << 20, 66 << 20);
        let bomb = Tar::new().file("f", vec![0; size]).end();
        let words = "more than 100 times its size";
        let few = gzipped(&bomb);
        let all = packers().into_iter().skip(1).take(at_most(3, 0)).map(|pack| pack(&bomb));
        for packed in std::iter::once(few.clone()).chain(all) {
            assert!(packed.len() < size / 200);
            world.refused("bomb", &packed, ErrorKind::LimitExceeded, words);
        }
        // A bomb in the place that nobody looks at.
        let behind = [&Tar::new().file("f", "x").end()[..], &vec![0; size]].concat();
        world.refused("behind", &gzipped(&behind), ErrorKind::LimitExceeded, words);
        // And in a bomb there is only a file that happens to be one.
        let inner = gzip(&few);
        world.refused("two times packed", &inner, ErrorKind::InvalidData, "checksum");
        world.taken("small", &gzip(&Tar::new().file("f", vec![0; 1 << 20]).end()), &["f"]);
    });
}

/// By the program, which is fast also while this one is under valgrind.
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let place = crate::common::TestRoot::in_memory("hostile-gzip");
    std::fs::write(place.join("bytes"), bytes).unwrap();
    crate::archive_common::shell("gzip -nc bytes", place.path())
}

type Pack = fn(&[u8]) -> Vec<u8>;

fn packers() -> [Pack; 4] {
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let bzip2 = |bytes: &[u8]| {
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        bzip2.write_all(bytes).unwrap();
        bzip2.finish().unwrap()
    };
    let xz = |bytes: &[u8]| {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(bytes).unwrap();
        xz.finish().unwrap()
    };
    [gzip, zstd, bzip2, xz]
}

/// Bytes for ever.
struct Endless(Vec<u8>, usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(buffer.len())
    }
}

#[test]
fn streams_without_content_end_at_the_limit() {
    in_worlds(&["layer.max_size=1M"], |world| {
        let empty = gzip(b"");
        let frame = [&[0x50, 0x2a, 0x4d, 0x18, 100, 0, 0, 0][..], &[b'x'; 100]].concat();
        let words = "more than 4096 compressed streams without content";
        let others = packers().map(|pack| pack(b""));
        for piece in others.into_iter().chain([frame]) {
            world.stream_refused("members", &mut Endless(piece, 0), ErrorKind::LimitExceeded, words);
        }
        // With a byte each they are content, until that is more than the limit.
        let words = "larger than 2.0 MiB compressed";
        let little = &mut Endless(gzip(&[0]), 0);
        world.stream_refused("little", little, ErrorKind::LimitExceeded, words);
        let mut padding = (&empty[..]).chain(Endless(vec![0], 0));
        world.stream_refused("padding", &mut padding, ErrorKind::LimitExceeded, "larger than");
        world.stream_refused("zeros", &mut Endless(vec![0], 0), ErrorKind::LimitExceeded, "larger than");
        let global = Tar::new().extended(b'g', &crate::archive_common::record("comment", b"x")).0;
        world.stream_refused("headers", &mut Endless(global, 0), ErrorKind::LimitExceeded, "");
        let entry = Tar::new().dir("./").0;
        world.stream_refused("entries", &mut Endless(entry, 0), ErrorKind::LimitExceeded, "larger than");
    });
}

/// Windows of more than is allowed are named, not called malformed.
#[test]
fn windows_of_more_than_128_mib_are_refused() {
    in_worlds(&[], |world| {
        let tar = Tar::new().file("f", "x").end();
        let with_window = |log: u32| {
            let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            zstd.include_contentsize(false).unwrap();
            zstd.write_all(&tar).unwrap();
            let mut bytes = zstd.finish().unwrap();
            bytes[5] = u8::try_from((log - 10) << 3).unwrap();
            bytes
        };
        world.taken("128 MiB", &with_window(27), &["f"]);
        let words = "needs a window of 256.0 MiB; at most 128.0 MiB are allowed";
        world.refused("256 MiB", &with_window(28), ErrorKind::LimitExceeded, words);
        let with_dictionary = |size: u8| {
            let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
            xz.write_all(&tar).unwrap();
            let mut bytes = xz.finish().unwrap();
            let header = &mut bytes[12..24];
            header[4] = size;
            let mut crc = flate2::Crc::new();
            crc.update(&header[..8]);
            header[8..].copy_from_slice(&crc.sum().to_le_bytes());
            bytes
        };
        world.taken("128 MiB of xz", &with_dictionary(30), &["f"]);
        let words = "needs a dictionary of 192.0 MiB; at most 128.0 MiB are allowed";
        world.refused("192 MiB of xz", &with_dictionary(31), ErrorKind::LimitExceeded, words);
    });
}

#[test]
fn the_tool_takes_limits_as_storage_options() {
    if !need_root() {
        return;
    }
    let place = crate::common::TestRoot::in_memory("hostile-tool");
    let tool = |option: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isula-storage"));
        command.args(["--driver", "vfs", "--storage-opt", option]).arg("--root").arg(place.join("root"));
        command.arg("--run-root").arg(place.join("run"));
        let image = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/images/bb.tar.gz");
        let output = command.args(["import", image]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (option, code, words) in [
        ("layer.max_entries=1", 5, "more than 1 entries"),
        ("layer.max_size=1K", 5, ""),
        ("layer.max_size=0", 2, "layer.max_size=0"),
        ("layer.max_ratio=x", 2, "is no number"),
        ("layer.max=1", 2, "unknown option"),
        ("Layer.Max_Entries=100000", 0, ""),
    ] {
        let (ended, message) = tool(option);
        assert_eq!(ended, Some(code), "{option}: {message}");
        assert!(message.contains(words), "{option}: {message}");
    }
}
