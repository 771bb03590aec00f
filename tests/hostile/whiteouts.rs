// SPDX-License-Identifier: MulanPSL-2.0
//! Whiteouts of what must not be hidden, and whiteouts in disguise.

use std::path::Path;

use isula_storage::error::ErrorKind;

use crate::archive_common::{Header, Tar};
use crate::harness::{World, on_each_driver};

const DISK: u64 = 32 << 20;

/// The archive is taken, and this is what a container sees of the base layer's `etc/passwd` and `d/keep`.
fn seen(world: &World, what: &str, tar: &[u8], passwd: bool, keep: bool) {
    let id = world.create(what, tar).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    world.mounted(what, &id, |merged| {
        let there = |path: &str| std::fs::symlink_metadata(merged.join(path)).is_ok();
        assert_eq!((there("etc/passwd"), there("d/keep")), (passwd, keep), "{}: {what}", world.driver);
    });
    world.assert_exact(what, &id, tar);
    world.delete(&id);
    world.assert_clean(what);
}

#[test]
fn whiteouts_of_a_directory_itself_or_its_parent_are_refused() {
    on_each_driver(DISK, |world| {
        for place in ["", "./", "d/", "d/e/", "/", "../", "esc/"] {
            for name in [".wh.", ".wh..", ".wh..."] {
                let name = format!("{place}{name}");
                let tar = Tar::new().file(&name, "").end();
                world.refused(&name, &tar, ErrorKind::InvalidData, "whiteout of a directory itself");
            }
        }
    });
}

#[test]
fn whiteouts_reach_what_they_name_and_nothing_else() {
    on_each_driver(DISK, |world| {
        seen(world, "file", &Tar::new().file("etc/.wh.passwd", "").end(), false, true);
        seen(world, "directory", &Tar::new().file(".wh.etc", "").end(), false, true);
        seen(world, "of nothing", &Tar::new().file(".wh.nothing", "").end(), true, true);
        seen(world, "above the root", &Tar::new().file("../../.wh.etc", "").end(), false, true);
        seen(world, "opaque", &Tar::new().file("d/.wh..wh..opq", "").end(), true, false);
        // Overlay knows no opaque root: all that a layer stands on shows through, as in Docker.
        let shows = world.driver == "overlay";
        seen(world, "opaque root", &Tar::new().file(".wh..wh..opq", "").end(), shows, shows);
        seen(world, "of the whiteout", &Tar::new().file(".wh..wh", "").end(), true, true);
        seen(world, "of a component", &Tar::new().file(".wh.d/f", "x").end(), true, true);
        // Of a link: the link goes, not what it leads to.
        seen(world, "of a link", &Tar::new().file(".wh.esc", "").file(".wh.up", "").end(), true, true);
    });
}

#[test]
fn whiteouts_through_links_stay_inside() {
    on_each_driver(DISK, |world| {
        let canary = world.path().join("canary").to_str().unwrap().to_owned();
        for target in [&canary[..], "../../../canary", "/", ".."] {
            let tar = Tar::new()
                .symlink("w", target)
                .file("w/.wh.etc", "")
                .file("w/etc/.wh.passwd", "")
                .file("w/target/.wh..wh..opq", "")
                .file("w/.wh..wh..opq", "");
            world.taken(target, &tar.end(), &[]);
            let tar = Tar::new().dir("w/").symlink("w", target).file("w/.wh..wh..opq", "");
            world.taken(target, &tar.end(), &[]);
        }
        // The parent's links, which on plain copies are there.
        let tar = Tar::new().file("esc/.wh.etc", "").file("esc/.wh..wh..opq", "").file("up/.wh..wh..opq", "");
        world.taken("of the parent", &tar.end(), &[]);
    });
}

#[test]
fn left_overs_of_aufs_are_not_in_the_tree() {
    on_each_driver(DISK, |world| {
        let tar = Tar::new()
            .dir(".wh..wh.plnk/")
            .file(".wh..wh.plnk/1.2", "hidden")
            .dir(".wh..wh.orph/")
            .file(".wh..wh.aufs", "x")
            .symlink(".wh..wh.evil", "/")
            .file(".wh..wh.evil/evil", "x")
            .hard_link(".wh..wh.link", "../../canary/etc/passwd")
            .header(&Header { device: (8, 0), ..Header::new("d/.wh..wh.disk", b'4') })
            .file("f", "x")
            .end();
        world.taken_and("aufs", &tar, |content| {
            assert!(content.join("f").exists());
            let names = |dir: &Path| -> Vec<_> {
                let entries = std::fs::read_dir(dir).into_iter().flatten();
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
            };
            let here = names(content);
            assert!(here.iter().all(|name| !name.contains(".wh.")), "{here:?}");
            assert!(names(&content.join("d")).iter().all(|name| !name.contains(".wh.")));
        });
        seen(world, "aufs", &tar, true, true);
    });
}

#[test]
fn whiteouts_that_are_no_files_are_whiteouts_all_the_same() {
    on_each_driver(DISK, |world| {
        for kind in [b'1', b'2', b'3', b'5', b'6'] {
            let header =
                Header { link: b"/etc/passwd".to_vec(), device: (8, 0), ..Header::new("d/.wh.keep", kind) };
            seen(world, &format!("kind {kind}"), &Tar::new().header(&header).end(), true, false);
        }
        seen(world, "with content", &Tar::new().file("d/.wh.keep", "content").end(), true, false);
        // A device 0/0 is a whiteout spelt out to overlay, and a device elsewhere; either way it hides one name.
        let device = Tar::new().header(&Header::new("d/keep", b'3')).end();
        let id = world.create("device", &device).unwrap();
        world.mounted("device", &id, |merged| assert!(merged.join("etc/passwd").exists()));
        world.delete(&id);
        world.assert_clean("device");
    });
}

/// In an archive they would graft directories of other layers, or of the host, into this one.
#[test]
fn attributes_of_overlay_are_not_taken() {
    on_each_driver(DISK, |world| {
        let names =
            ["opaque", "redirect", "metacopy", "origin", "impure", "nlink", "upper", "whiteout", "xattrs"];
        for name in names {
            let (keyword, value): (_, &[u8]) = match name {
                "redirect" => (format!("SCHILY.xattr.trusted.overlay.{name}"), b"/../../canary"),
                _ => (format!("SCHILY.xattr.trusted.overlay.{name}"), b"y"),
            };
            let tar = Tar::new()
                .pax(&[(&keyword, value)])
                .dir("d/")
                .pax(&[(&keyword, value)])
                .file("d/f", "x")
                .pax(&[(&keyword, value)])
                .dir("./")
                .end();
            world.taken_and(name, &tar, |content| {
                for path in ["", "d", "d/f"] {
                    let mut list = vec![0u8; 1 << 12];
                    let len = rustix::fs::llistxattr(content.join(path), list.as_mut_slice()).unwrap();
                    let list = String::from_utf8_lossy(&list[..len]).into_owned();
                    assert!(!list.contains("overlay"), "{name}: {path}: {list:?}");
                }
            });
            seen(world, name, &tar, true, true);
        }
    });
}
