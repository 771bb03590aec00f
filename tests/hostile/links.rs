// SPDX-License-Identifier: MulanPSL-2.0
//! Links that lead out of the layer, or round in circles.

use isula_storage::error::ErrorKind;

use crate::archive_common::{Header, Tar};
use crate::harness::{World, on_each_driver};

const DISK: u64 = 32 << 20;

fn canary(world: &World) -> String {
    world.path().join("canary").to_str().unwrap().to_owned()
}

#[test]
fn links_planted_by_earlier_entries_stay_inside() {
    on_each_driver(DISK, |world| {
        for target in ["../canary", "../../../../../../../../../../..", "/", "/.."] {
            let tar =
                Tar::new().symlink("s", target).file("s/new", "x").dir("s/dir/").file("s/dir/evil", "x");
            world.taken(target, &tar.end(), &["s"]);
        }
        let absolute = canary(world);
        let tar = Tar::new().symlink("s", &absolute).file("s/etc/passwd", "x").file("s/deep/new", "x");
        world.taken(
            "absolute",
            &tar.end(),
            &[&format!(".{absolute}/etc/passwd"), &format!(".{absolute}/deep/new")],
        );
        // On plain copies the parent's own link is there already.
        let tar = Tar::new().file("esc/etc/passwd", "x").file("up/evil", "x").end();
        world.taken("a link of the parent", &tar, &[]);
        let tar = Tar::new()
            .symlink("a", "b/../../c")
            .dir("b/")
            .dir("c/")
            .symlink("d", "a/../..")
            .file("d/new", "x");
        world.taken("dots in targets", &tar.end(), &["new"]);
    });
}

/// What lies below is not looked at on overlay, and is there on plain copies: what differs for that is documented.
#[test]
fn directories_that_are_not_declared_are_new_on_overlay_and_kept_on_copies() {
    use std::os::unix::fs::MetadataExt;
    on_each_driver(DISK, |world| {
        let overlay = world.driver != "vfs";
        let private = Header { mode: 0o700, uid: 7, ..Header::new("private/", b'5') };
        let below = Tar::new().header(&private).dir("usr/").dir("usr/lib/").symlink("lib", "usr/lib");
        let below = world.create("below", &below.end()).unwrap();
        let above = Tar::new().file("private/f", "x").file("lib/g", "x").end();
        let above = world.create_on("above", &below, &above).unwrap();
        world.mounted("above", &above, |tree| {
            let private = std::fs::metadata(tree.join("private")).unwrap();
            let found = (private.mode() & 0o7777, private.uid());
            assert_eq!(found, if overlay { (0o755, 0) } else { (0o700, 7) });
            let lib = std::fs::symlink_metadata(tree.join("lib")).unwrap();
            assert_eq!(lib.is_dir(), overlay);
            assert!(tree.join("lib/g").exists());
            assert_eq!(tree.join("usr/lib/g").exists(), !overlay);
        });
        world.delete(&above);
        world.delete(&below);
        world.assert_clean("not declared");
    });
}

#[test]
fn directories_replaced_by_links_are_not_followed_out() {
    on_each_driver(DISK, |world| {
        let absolute = canary(world);
        for target in ["../canary", &absolute, "/"] {
            let tar = Tar::new()
                .dir("r/")
                .file("r/f", "x")
                .dir("r/etc/")
                .symlink("r", target)
                .file("r/etc/passwd", "x")
                .dir("r/target/")
                .file("r/target/evil", "x");
            world.taken(target, &tar.end(), &["r"]);
            // The parent's directory, which on plain copies is there. (`/etc` would be the link itself.)
            let to = if target == "/" { "/d".to_owned() } else { format!("{target}/etc") };
            let tar = Tar::new().symlink("etc", to).file("etc/passwd", "x");
            world.taken(target, &tar.end(), &["etc"]);
            // Back again, and something below that.
            let tar = Tar::new().symlink("r", target).dir("r/").file("r/evil", "x");
            world.taken(target, &tar.end(), &["r/evil"]);
        }
    });
}

#[test]
fn chains_and_loops_of_links_end() {
    on_each_driver(DISK, |world| {
        let mut tar = Tar::new().dir("end/");
        for link in 0..40 {
            let to = if link == 0 { "end".to_owned() } else { format!("l{}", link - 1) };
            tar = tar.symlink(format!("l{link}"), to);
        }
        world.taken("chain", &tar.clone().file("l39/f", "x").end(), &["end/f"]);
        let words = "too many symbolic links";
        let longer = tar.symlink("l40", "l39").file("l40/f", "x").end();
        world.refused("too long a chain", &longer, ErrorKind::InvalidData, words);
        for (what, tar) in [
            ("loop", Tar::new().symlink("a", "b").symlink("b", "a").file("a/f", "x")),
            ("loop of one", Tar::new().symlink("a", "a").file("a/f", "x")),
            ("loop through directories", Tar::new().dir("d/").symlink("d/a", "../d/a").file("d/a/f", "x")),
            ("growing loop", Tar::new().symlink("a", "a/a").file("a/f", "x")),
            ("hard link into a loop", Tar::new().symlink("a", "a").hard_link("h", "a/f")),
            ("whiteout in a loop", Tar::new().symlink("a", "a").file("a/.wh.f", "")),
        ] {
            world.refused(what, &tar.end(), ErrorKind::InvalidData, words);
        }
        // Each link doubles the way: 2^39 steps if nobody counted.
        let mut tar = Tar::new().dir("end/");
        for link in 0..39 {
            let to = if link == 0 { "end".to_owned() } else { format!("x{0}/../x{0}", link - 1) };
            tar = tar.symlink(format!("x{link}"), to);
        }
        world.refused("doubling", &tar.file("x38/f", "x").end(), ErrorKind::InvalidData, words);
    });
}

#[test]
fn magic_links_of_proc_lead_nowhere() {
    on_each_driver(DISK, |world| {
        let mut tar = Tar::new();
        let magic = ["/proc/self/cwd", "/proc/self/root", "/proc/1/root", "/proc/self/fd/3", "/dev/fd/0"];
        for (number, target) in magic.iter().enumerate() {
            tar = tar.symlink(format!("m{number}"), target).file(format!("m{number}/evil"), "x");
        }
        let tar = tar.file("/proc/self/fd/4/evil", "x").file("/proc/self/exe", "x").end();
        let paths: Vec<String> = magic.iter().map(|target| format!(".{target}/evil")).collect();
        world.taken("proc", &tar, &paths.iter().map(String::as_str).collect::<Vec<_>>());
        for target in magic {
            let link = Tar::new().symlink("m", target).hard_link("h", "m/etc/passwd").end();
            world.refused(target, &link, ErrorKind::InvalidData, "no such file in the layer");
        }
    });
}

#[test]
fn hard_links_out_of_the_layer_are_refused() {
    on_each_driver(DISK, |world| {
        let absolute = format!("{}/etc/passwd", canary(world));
        let outside = ["../canary/etc/passwd", &absolute, "/etc/hostname", "../../../../../../etc/hostname"];
        for target in outside {
            let tar = Tar::new().hard_link("link", target).end();
            world.refused(target, &tar, ErrorKind::InvalidData, "no such file in the layer");
            let through = Tar::new().symlink("s", "/").symlink("u", "..").symlink("c", canary(world));
            for link in ["s", "u", "c"] {
                let tar = through.clone().hard_link("link", format!("{link}/{target}")).end();
                world.refused(target, &tar, ErrorKind::InvalidData, "no such file in the layer");
            }
        }
        let table: [(&str, Tar, &str); 8] = [
            ("directory", Tar::new().dir("d/").hard_link("l", "d"), "a directory"),
            ("root", Tar::new().hard_link("l", "."), "a directory"),
            ("above", Tar::new().hard_link("l", "../.."), "a directory"),
            ("itself", Tar::new().file("f", "x").hard_link("f", "f"), "the link itself"),
            (
                "disguised",
                Tar::new().file("f", "x").symlink("s", ".").hard_link("f", "s/../f"),
                "the link itself",
            ),
            ("nothing", Tar::new().hard_link("l", ""), "a directory"),
            ("below a file", Tar::new().file("f", "x").hard_link("l", "f/x"), "is not a directory"),
            ("what comes later", Tar::new().hard_link("l", "f").file("f", "x"), "no such file in the layer"),
        ];
        for (what, tar, words) in table {
            world.refused(what, &tar.end(), ErrorKind::InvalidData, words);
        }
        // One more name of a link that leads out, or of a device, is no way out either.
        let tar = Tar::new().symlink("s", &absolute).hard_link("h", "s").hard_link("i", "h").end();
        world.taken("of a link", &tar, &["h", "i"]);
        let tar = Tar::new().symlink("s", &absolute).hard_link("h", "s").file("h", "evil").end();
        world.taken("of a link, replaced", &tar, &["h"]);
        // The parent's files are not this layer's: written through a link of the child they would change below others.
        let tar = Tar::new().hard_link("h", "etc/passwd").file("h", "evil").end();
        match world.driver {
            "overlay" => {
                world.refused("of the parent", &tar, ErrorKind::InvalidData, "no such file in the layer")
            }
            _ => world.taken("of the parent", &tar, &["h"]),
        }
    });
}

#[test]
fn a_link_where_an_entry_goes_is_replaced_not_followed() {
    on_each_driver(DISK, |world| {
        let secret = format!("{}/etc/passwd", canary(world));
        for target in [&secret[..], "../../../canary/etc/passwd", "f"] {
            for kind in [b'0', b'3', b'4', b'5', b'6'] {
                let entry = Header { device: (1, 3), mode: 0o4777, uid: 7, ..Header::new("s", kind) };
                let tar = Tar::new().file("f", "x").symlink("s", target).header(&entry).end();
                world.taken_and("entry", &tar, |content| {
                    let found = std::fs::symlink_metadata(content.join("s")).unwrap();
                    assert!(!found.file_type().is_symlink());
                });
            }
            let tar = Tar::new().file("f", "x").symlink("s", target).hard_link("s", "f").end();
            world.taken("hard link", &tar, &["s"]);
            // Attributes go to the link, never to where it leads.
            let attributes: [(&str, &[u8]); 2] = [("SCHILY.xattr.trusted.evil", b"x"), ("mtime", b"12345.5")];
            let tar = Tar::new().pax(&attributes).symlink("s", target).end();
            world.taken("attributes of a link", &tar, &["s"]);
        }
    });
}

#[test]
fn a_file_is_no_directory() {
    on_each_driver(DISK, |world| {
        for (what, tar, words) in [
            ("parent", Tar::new().file("f", "x").file("f/below", "x"), "\"f\" is not a directory"),
            (
                "link to a file",
                Tar::new().file("f", "x").symlink("s", "f").file("s/below", "x"),
                "is not a directory",
            ),
            (
                "device",
                Tar::new().header(&Header { device: (1, 3), ..Header::new("n", b'3') }).file("n/below", "x"),
                "is not a directory",
            ),
            (
                "name of a directory",
                Tar::new().header(&Header { size: 3, ..Header::new("d/", b'0') }).content(b"abc"),
                "a directory's name",
            ),
        ] {
            world.refused(what, &tar.end(), ErrorKind::InvalidData, words);
        }
    });
}
