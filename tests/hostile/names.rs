// SPDX-License-Identifier: MulanPSL-2.0
//! Names of entries.

use isula_storage::error::ErrorKind;

use crate::archive_common::{Header, Tar};
use crate::harness::on_each_driver;

const DISK: u64 = 32 << 20;

#[test]
fn names_that_point_outside_stay_inside() {
    let table: [(&str, &str); 10] = [
        ("../../evil", "evil"),
        ("../evil", "evil"),
        ("/evil", "evil"),
        ("//../../evil", "evil"),
        ("a/b/../../../../evil", "evil"),
        ("../../../../../../../../../../../../tmp/evil", "tmp/evil"),
        ("up/../../evil", "evil"),
        ("./././evil", "evil"),
        ("a//b///evil", "a/b/evil"),
        (".../evil", ".../evil"),
    ];
    on_each_driver(DISK, |world| {
        for (name, path) in table {
            world.taken(name, &Tar::new().file(name, "evil").end(), &[path]);
            world.taken(name, &Tar::new().dir(name).end(), &[path]);
            world.taken(name, &Tar::new().symlink(name, "/etc/passwd").end(), &[path]);
            let link = Tar::new().file("f", "x").hard_link(name, "../../f").end();
            world.taken(name, &link, &[path]);
            let fifo = Tar::new().header(&Header::new(name, b'6')).end();
            world.taken(name, &fifo, &[path]);
        }
    });
}

#[test]
fn names_without_a_name_are_the_root_and_replace_nothing() {
    on_each_driver(DISK, |world| {
        for name in ["", "/", ".", "..", "./", "./.", "a/..", "../..", "//"] {
            for kind in [b'0', b'1', b'2', b'3', b'6'] {
                let tar = Tar::new().header(&Header {
                    link: b"x".to_vec(),
                    device: (1, 3),
                    ..Header::new(name, kind)
                });
                // A file whose name ends with a slash is a directory, as in the first tars.
                if kind == b'0' && name.ends_with('/') {
                    world.taken(name, &tar.end(), &["."]);
                } else {
                    world.refused(name, &tar.end(), ErrorKind::InvalidData, "replace the root");
                }
            }
            world.taken(name, &Tar::new().dir(name).file("f", "x").end(), &["f"]);
        }
    });
}

#[test]
fn long_names_are_taken_up_to_4096_bytes() {
    let long = |len: usize| {
        let mut name = b"abcdefghi/".repeat(len / 10 + 1);
        name.truncate(len);
        // A slash at the end would say that it is a directory.
        if name.ends_with(b"/") {
            name[len - 1] = b'x';
        }
        name
    };
    on_each_driver(DISK, |world| {
        for len in [100, 255, 256, 4095, 4096] {
            for (what, tar) in [
                ("pax", Tar::new().pax(&[("path", &long(len))]).file("f", "x")),
                ("gnu", Tar::new().extended(b'L', &long(len)).file("f", "x")),
            ] {
                // The kernel takes no path of 4096 bytes at once, so looking for it is done by parts elsewhere.
                world.taken(&format!("{what} {len}"), &tar.end(), &["abcdefghi"]);
            }
        }
        for len in [4097, 8192, 100_000] {
            for (what, tar) in [
                ("pax", Tar::new().pax(&[("path", &long(len))]).file("f", "x")),
                ("gnu", Tar::new().extended(b'L', &long(len)).file("f", "x")),
                ("link", Tar::new().pax(&[("linkpath", &long(len))]).symlink("f", "x")),
            ] {
                let what = format!("{what} {len}");
                world.refused(&what, &tar.end(), ErrorKind::LimitExceeded, "longer than 4096 bytes");
            }
        }
        let component = Tar::new().pax(&[("path", &[b'a'; 256])]).file("f", "").end();
        world.refused("component", &component, ErrorKind::InvalidData, "longer than 255");
        let component = Tar::new().pax(&[("path", &[b'a'; 255])]).file("f", "x").end();
        world.taken("component", &component, &[&"a".repeat(255)]);
        let dots =
            Tar::new().pax(&[("path", &[&b"./".repeat(2000)[..], b"f"].concat())]).file("g", "x").end();
        world.taken("dots", &dots, &["f"]);
        let up =
            Tar::new().pax(&[("path", &[&b"../".repeat(1300)[..], b"evil"].concat())]).file("g", "x").end();
        world.taken("up and up", &up, &["evil"]);
    });
}

#[test]
fn names_with_nul_are_refused_or_end_there() {
    on_each_driver(DISK, |world| {
        for (what, tar) in [
            ("path", Tar::new().pax(&[("path", b"a\0b")]).file("f", "")),
            ("path at the end", Tar::new().pax(&[("path", b"a\0")]).file("f", "")),
            ("link", Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("f", "x")),
            ("hard link", Tar::new().file("a", "").pax(&[("linkpath", b"a\0b")]).hard_link("f", "x")),
        ] {
            world.refused(what, &tar.end(), ErrorKind::InvalidData, "NUL");
        }
        // In fixed fields and GNU's long names the first NUL is the end.
        world.taken("field", &Tar::new().file(b"a\0/../../evil", "x").end(), &["a"]);
        world.taken("gnu", &Tar::new().extended(b'L', b"a\0/../../evil").file("f", "x").end(), &["a"]);
    });
}

#[test]
fn names_of_odd_bytes_are_kept() {
    on_each_driver(DISK, |world| {
        for name in
            [&b"\xff\xfe"[..], b"a\nb", b"\x1b[2J", b"-rf", b" ", b"\\..\\evil", "\u{202e}".as_bytes()]
        {
            let tar = Tar::new().file(name, "x").end();
            let path = crate::archive_common::path(name);
            let what = name.escape_ascii().to_string();
            world.taken_and(&what, &tar, |content| {
                assert!(std::fs::symlink_metadata(content.join(&path)).is_ok(), "{what}");
            });
        }
    });
}
