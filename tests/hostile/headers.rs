// SPDX-License-Identifier: MulanPSL-2.0
//! Headers that lie: checksums, numbers, lengths of PAX records, sparse maps.

use isula_storage::error::ErrorKind;

use crate::archive_common::{Header, Tar, record, sign};
use crate::harness::{World, on_each_driver};

const DISK: u64 = 32 << 20;

fn refuse(world: &World, table: &[(&str, Vec<u8>, &str)]) {
    for (what, tar, words) in table {
        world.refused(what, tar, ErrorKind::InvalidData, words);
        // The same behind something good, and where several threads are at work.
        let behind = [&Tar::new().dir("good/").file("good/f", vec![b'x'; 600 << 10]).0[..], tar].concat();
        world.refused(&format!("{what}, behind"), &behind, ErrorKind::InvalidData, words);
    }
}

fn block(change: impl Fn(&mut [u8; 512])) -> Vec<u8> {
    let mut block = Header::new("f", b'0').block();
    change(&mut block);
    sign(&mut block);
    Tar::new().raw(&block).end()
}

#[test]
fn headers_with_a_wrong_checksum_are_refused() {
    let changed = |at: usize, to: u8| {
        let mut block = Header::new("f", b'0').block();
        block[at] = to;
        Tar::new().raw(&block).end()
    };
    let checksum = |text: &[u8; 8]| {
        let mut block = Header::new("f", b'0').block();
        block[148..156].copy_from_slice(text);
        Tar::new().raw(&block).end()
    };
    let table = [
        ("name", changed(0, b'g'), "checksum"),
        ("type", changed(156, b'5'), "checksum"),
        ("last byte", changed(511, 1), "checksum"),
        ("zero", checksum(&[0; 8]), "checksum"),
        ("text", checksum(b"checksum"), "checksum"),
        ("all ones", checksum(&[0xff; 8]), "checksum"),
        ("no tar at all", vec![b'x'; 1024], "checksum"),
        ("a page", b"<html>404</html>".repeat(100), "checksum"),
    ];
    on_each_driver(DISK, |world| refuse(world, &table));
}

#[test]
fn numbers_that_overflow_or_are_negative_are_refused() {
    let table = [
        ("size of nines", block(|b| b[124..136].copy_from_slice(b"99999999999\0")), "size is not a number"),
        ("size of text", block(|b| b[124..136].copy_from_slice(b"12 34567890\0")), "size is not a number"),
        ("negative size", block(|b| b[124..136].fill(0xff)), "size is negative"),
        ("minus", block(|b| b[124..136].copy_from_slice(b"-0000000001\0")), "size is not a number"),
        (
            "least size",
            block(|b| b[124..136].copy_from_slice(b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0")),
            "size is",
        ),
        ("size of 2^63", block(|b| b[124..136].copy_from_slice(b"\x80\0\0\0\x80\0\0\0\0\0\0\0")), "size is"),
        ("size of 2^64", block(|b| b[124..136].copy_from_slice(b"\x80\0\0\x01\0\0\0\0\0\0\0\0")), "size is"),
        (
            "greatest size",
            block(|b| b[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            "truncated",
        ),
        (
            "size of all of base 256",
            block(|b| {
                b[124] = 0xbf;
                b[125..136].fill(0xff)
            }),
            "size is",
        ),
        ("mode", block(|b| b[100..108].copy_from_slice(b"rwxrwxrw")), "mode is not a number"),
        ("uid", block(|b| b[108..116].copy_from_slice(b"-0000001")), "user id is not a number"),
        ("negative uid", block(|b| b[108..116].fill(0xff)), "user id is negative"),
        (
            "uid of nobody",
            block(|b| b[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff")),
            "user id 42949672",
        ),
        ("gid", block(|b| b[116..124].copy_from_slice(b"\x80\0\0\x01\0\0\0\0")), "group id 4294967296"),
        ("mtime", block(|b| b[136..148].copy_from_slice(b"yesterday   ")), "modification time"),
    ];
    on_each_driver(DISK, |world| {
        refuse(world, &table);
        // A time before the epoch is none of these.
        world.taken(
            "old",
            &block(|b| {
                b[136] = 0xff;
                b[137..148].fill(0xff)
            }),
            &["f"],
        );
    });
}

#[test]
fn pax_records_that_lie_about_their_length_are_refused() {
    let pax = |body: &[u8]| Tar::new().extended(b'x', body).file("f", "").end();
    let global = |keyword: &str| Tar::new().extended(b'g', &record(keyword, b"1")).file("f", "x").end();
    let malformed = "malformed record";
    let sized = |size: &[u8], content: &[u8]| Tar::new().pax(&[("size", size)]).file("f", content).end();
    let table = [
        ("too short", pax(b"5 path=x\n"), malformed),
        ("too long", pax(b"99 path=x\n"), malformed),
        ("one too long", pax(b"10 path=x\n\0"), malformed),
        ("zero", pax(b"0 path=x\n"), malformed),
        ("negative", pax(b"-9 path=x\n"), malformed),
        ("no length", pax(b" path=x\n"), malformed),
        ("text", pax(b"x path=x\n"), malformed),
        ("2^64", pax(b"18446744073709551616 path=x\n"), malformed),
        ("2^64 + 9", pax(b"18446744073709551625 path=x\n"), malformed),
        ("no newline", pax(b"9 path=xy"), malformed),
        ("no equals", pax(b"7 path\n"), "without a keyword"),
        ("second one", pax(b"9 path=x\n8 path=x\n"), malformed),
        ("nul", pax(&record("path", b"a\0b")), "NUL"),
        ("negative size", sized(b"-1", b""), "size"),
        ("size of text", sized(b"1x", b""), "size"),
        ("size of 2^64", sized(b"18446744073709551616", b""), "size"),
        ("size beyond the stream", sized(b"4096", b"x"), "truncated"),
        ("endless size", sized(b"9223372036854775807", b"x"), "truncated"),
        ("size below the content", sized(b"1", &[b'x'; 600]), "checksum"),
        ("global path", global("path"), "for all entries"),
        ("global size", global("size"), "for all entries"),
        ("global map", global("GNU.sparse.map"), "for all entries"),
        ("attribute without a name", pax(&record("SCHILY.xattr.", b"x")), "name"),
        ("header at the end", Tar::new().pax(&[("path", b"x")]).end(), "ends after an extended header"),
        ("nothing behind", Tar::new().pax(&[("path", b"x")]).0, "truncated"),
    ];
    on_each_driver(DISK, |world| {
        refuse(world, &table);
        let huge = Tar::new().header(&Header { size: 1 << 40, ..Header::new("x", b'x') }).end();
        world.refused("header of a tebibyte", &huge, ErrorKind::LimitExceeded, "extended header");
        let long = Tar::new().extended(b'x', &record("comment", &vec![b'x'; 1 << 20])).file("f", "").end();
        world.refused("header of a mebibyte", &long, ErrorKind::LimitExceeded, "extended header");
        let mut chain = Tar::new();
        for _ in 0..6 {
            chain = chain.extended(b'g', &record("comment", &vec![b'x'; 1_000_000]));
        }
        world.refused(
            "headers for ever",
            &chain.file("f", "").end(),
            ErrorKind::LimitExceeded,
            "extended headers",
        );
        // The last of a kind counts; a path of PAX before that of the header.
        let tar = Tar::new().pax(&[("path", b"first"), ("path", b"second")]).file("f", "x").end();
        world.taken("twice", &tar, &["second"]);
    });
}

#[test]
fn sparse_maps_that_overlap_or_exceed_are_refused() {
    let pax = |records: &[(&str, &[u8])]| Tar::new().pax(records).file("f", "0123456789").end();
    let old = |map: &[(u64, u64)], real: u64, extended: bool| {
        let mut block = Header { size: 10, ..Header::new("f", b'S') }.block();
        block[257..265].copy_from_slice(b"ustar  \0");
        for (index, (offset, length)) in map.iter().enumerate() {
            let at = 386 + 24 * index;
            block[at..at + 24].copy_from_slice(format!("{offset:011o}\0{length:011o}\0").as_bytes());
        }
        block[482] = u8::from(extended);
        block[483..495].copy_from_slice(format!("{real:011o}\0").as_bytes());
        sign(&mut block);
        Tar::new().raw(&block).content(b"0123456789").end()
    };
    let size: (&str, &[u8]) = ("GNU.sparse.size", b"100");
    let map = |map: &'static [u8]| pax(&[size, ("GNU.sparse.map", map)]);
    let table = [
        ("overlap", map(b"0,5,4,5"), "overlaps itself"),
        ("twice", map(b"0,5,0,5"), "overlaps itself"),
        ("backwards", map(b"50,5,0,5"), "overlaps itself"),
        ("beyond the file", map(b"95,10"), "exceeds the file"),
        ("too little", map(b"0,5"), "does not add up"),
        ("too much", map(b"0,50"), "does not add up"),
        ("odd", map(b"0,5,5"), "odd"),
        ("overflow", map(b"9223372036854775807,9223372036854775807"), "exceeds"),
        ("overflow to zero", map(b"18446744073709551615,1"), "GNU.sparse"),
        ("negative", map(b"-5,10"), "GNU.sparse"),
        ("no size", pax(&[("GNU.sparse.map", b"0,10")]), "without a size"),
        (
            "offset only",
            pax(&[size, ("GNU.sparse.offset", b"0"), ("GNU.sparse.offset", b"5")]),
            "without a length",
        ),
        ("unknown", pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")]), "not supported"),
        ("old overlap", old(&[(0, 5), (4, 5)], 100, false), "overlaps itself"),
        ("old beyond", old(&[(95, 10)], 100, false), "exceeds the file"),
        ("old, extension missing", old(&[(0, 10)], 100, true), "sparse map"),
        ("map of text", sparse(b"one\n", b"100"), "not made of numbers"),
        ("map without end", sparse(b"3\n0\n10\n", b"100"), "not made of numbers"),
        ("map beyond the entry", sparse(&[b'1'; 600], b"100"), "not made of numbers"),
        ("endless map", sparse(b"99999999\n0\n1\n", b"100"), "not made of numbers"),
        ("map overlaps", sparse(b"2\n0\n5\n4\n5\n", b"100"), "overlaps itself"),
        ("map exceeds", sparse(b"1\n95\n10\n", b"100"), "exceeds the file"),
    ];
    on_each_driver(DISK, |world| {
        refuse(world, &table);
        world.taken("good", &sparse(b"1\n0\n10\n", b"100"), &["f"]);
    });
}

/// A sparse file of format 1.0: its map is the start of its content.
fn sparse(map: &[u8], size: &[u8]) -> Vec<u8> {
    let mut content = map.to_vec();
    content.resize(map.len().next_multiple_of(512), 0);
    content.extend_from_slice(b"0123456789");
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", size)];
    Tar::new().pax(&records).file("f", &content).end()
}

/// What is a hole costs nothing: neither to unpack, nor to check, to give back or to copy for the next layer.
#[test]
fn files_of_terabytes_of_nothing_cost_nothing() {
    on_each_driver(DISK, |world| {
        // Three data regions of ten bytes each in 8 TiB: as much as ext4 takes with blocks of a kibibyte and more.
        let size = (1u64 << 40) + 12345;
        let map = format!("1\n{}\n10\n", size - 10);
        let tar = sparse(map.as_bytes(), size.to_string().as_bytes());
        world.taken_and("hole", &tar, |content| {
            use std::os::unix::fs::MetadataExt;
            let meta = std::fs::metadata(content.join("f")).unwrap();
            assert_eq!(meta.len(), size);
            assert!(meta.blocks() < 100);
        });
        // One replaced by another: what the first one had is kept for the exact tar, without its holes.
        let twice = [&tar[..tar.len() - 1024], &tar].concat();
        world.taken("hole, twice", &twice, &["f"]);
        let gone = [&tar[..tar.len() - 1024], &Tar::new().file("f", "x").end()].concat();
        world.taken("hole, replaced", &gone, &["f"]);
        for size in ["9223372036854775807", "9000000000000000000"] {
            let endless = sparse(b"1\n0\n10\n", size.as_bytes());
            assert_eq!(world.create(size, &endless).unwrap_err().errno(), libc::EFBIG);
            world.assert_clean(size);
        }
        for size in ["9223372036854775808", "18446744073709551616", "-1"] {
            world.refused(size, &sparse(b"1\n0\n10\n", size.as_bytes()), ErrorKind::InvalidData, "");
        }
    });
}
