// SPDX-License-Identifier: MulanPSL-2.0
//! Devices, fifos, sockets, set-uid, and extended attributes.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use isula_storage::error::ErrorKind;

use crate::archive_common::{self, Header, Tar, sign};
use crate::common::need_root;
use crate::harness::{DRIVERS, World, on_each_driver};

const DISK: u64 = 32 << 20;

/// A layer with a device is the image's right; only a mount decides whether it can be used. It is made, never opened.
#[test]
fn devices_and_fifos_are_made_and_never_opened() {
    on_each_driver(DISK, |world| {
        let attribute: (&str, &[u8]) = ("SCHILY.xattr.trusted.x", b"y");
        let mut tar = Tar::new();
        let nodes = [
            ("null", b'3', (1, 3)),
            ("mem", b'3', (1, 1)),
            ("sda", b'4', (8, 0)),
            ("nothing", b'3', (255, 255)),
            ("pipe", b'6', (0, 0)),
        ];
        for (name, kind, device) in nodes {
            tar = tar.pax(&[attribute]).header(&Header {
                device,
                mode: 0o6666,
                uid: 3,
                ..Header::new(name, kind)
            });
        }
        // Each once more: what is replaced is not opened either, a fifo would wait for ever.
        let twice = tar.clone().raw(&tar.0).file("pipe", "x").file("sda", "x").end();
        world.taken_and("nodes", &tar.end(), |content| {
            let meta = |name: &str| std::fs::symlink_metadata(content.join(name)).unwrap();
            assert!(meta("null").file_type().is_char_device() && meta("sda").file_type().is_block_device());
            assert!(meta("pipe").file_type().is_fifo());
            assert_eq!(meta("mem").rdev(), rustix::fs::makedev(1, 1));
            assert_eq!((meta("sda").permissions().mode() & 0o7777, meta("sda").uid()), (0o6666, 3));
        });
        world.taken("nodes twice", &twice, &["null", "pipe", "sda"]);
        let tar = Tar::new().header(&Header { size: 3, ..Header::new("pipe", b'6') }).content(b"abc").end();
        match world.create("content of a fifo", &tar) {
            Ok(id) => world.delete(&id),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidData, "{}", error.report()),
        }
        world.assert_clean("content of a fifo");
    });
}

#[test]
fn sockets_and_unknown_types_are_refused() {
    on_each_driver(DISK, |world| {
        // Solaris has a socket as 's'; what tar has no type for is not made up.
        for kind in [b's', b'S' + 1, b'D', b'M', b'8', b'9', b'Z', 0xff] {
            let tar = Tar::new().header(&Header::new("f", kind)).end();
            world.refused(&format!("type {kind}"), &tar, ErrorKind::InvalidData, "not supported");
        }
        // A mode that says socket is a mode.
        let tar = Tar::new().header(&Header { mode: 0o140_777, ..Header::new("f", b'0') }).end();
        world.taken_and("mode of a socket", &tar, |content| {
            assert!(std::fs::symlink_metadata(content.join("f")).unwrap().is_file());
        });
    });
}

#[test]
fn set_uid_goes_to_the_named_file_only() {
    on_each_driver(DISK, |world| {
        let suid = |name: &str, kind| Header { mode: 0o6755, uid: 0, ..Header::new(name, kind) };
        let tar = Tar::new()
            .file("plain", "x")
            .hard_link("other", "plain")
            .header(&suid("su", b'0'))
            .header(&Header { uid: 5, gid: 5, ..suid("su5", b'0') })
            .header(&suid("dir/", b'5'))
            .header(&Header { link: b"plain".to_vec(), ..suid("link", b'2') })
            .header(&Header { link: b"plain".to_vec(), uid: 9, ..suid("hard", b'1') })
            .end();
        world.taken_and("set-uid", &tar, |content| {
            let mode = |name: &str| std::fs::symlink_metadata(content.join(name)).unwrap().mode() & 0o7777;
            assert_eq!((mode("su"), mode("su5"), mode("dir")), (0o6755, 0o6755, 0o6755));
            // Not that of a hard link's header, which names nothing of its own.
            assert_eq!((mode("plain"), mode("hard"), mode("other")), (0o755, 0o755, 0o755));
        });
    });
}

fn xattr(name: &str, value: &[u8]) -> Tar {
    Tar::new().pax(&[(&format!("SCHILY.xattr.{name}"), value)])
}

fn attributes(world: &World, what: &str, tar: &[u8], path: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let id = world.create(what, tar).unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    let nodes = archive_common::tree(&world.content(&id));
    let found = nodes[std::path::Path::new(path)].xattrs.clone().into_iter().collect();
    world.assert_exact(what, &id, tar);
    world.stands(what, &id);
    world.delete(&id);
    world.assert_clean(what);
    found
}

#[test]
fn trusted_and_security_attributes_go_to_their_file_only() {
    on_each_driver(DISK, |world| {
        let capability = b"\x01\0\0\x02\xff\xff\xff\xff\0\0\0\0\xff\0\0\0\0\0\0\0";
        let found = attributes(
            world,
            "capability",
            &xattr("security.capability", capability).file("f", "x").end(),
            "f",
        );
        assert_eq!(found, [(b"security.capability".to_vec(), capability.to_vec())]);
        let found = attributes(world, "trusted", &xattr("trusted.any", b"x").file("f", "x").end(), "f");
        assert_eq!(found, [(b"trusted.any".to_vec(), b"x".to_vec())]);
        let found = attributes(
            world,
            "replaced",
            &xattr("trusted.any", b"x").file("f", "x").file("f", "y").end(),
            "f",
        );
        assert!(found.is_empty(), "{found:?}");
        // Malformed ones are the kernel's to refuse, and the archive's fault.
        for (name, value, words) in [
            (
                "security.capability",
                &b"short"[..],
                "\"f\": attribute \"security.capability\" of 5 bytes is malformed",
            ),
            (
                "system.posix_acl_access",
                b"\x02\0\0\0\xff",
                "\"system.posix_acl_access\" of 5 bytes is malformed",
            ),
        ] {
            let tar = xattr(name, value).file("f", "x").end();
            world.refused(name, &tar, ErrorKind::InvalidData, words);
        }
        for name in ["", "user.", "trusted.", "nonsense", "foo.bar", "security."] {
            let tar = xattr(name, b"x").file("f", "x").end();
            match world.create(name, &tar) {
                Ok(id) => world.delete(&id),
                Err(error) => assert!(
                    error.report().contains("attribute") || error.report().contains("name"),
                    "{}",
                    error.report()
                ),
            }
            world.assert_clean(name);
        }
    });
}

#[test]
fn attributes_of_64_kib_are_taken_or_refused_and_leave_nothing() {
    on_each_driver(DISK, |world| {
        for len in [800, 64 << 10, (64 << 10) + 1, 200_000] {
            let tar = xattr("user.big", &vec![b'x'; len]).file("f", "x").end();
            match world.create("big", &tar) {
                Ok(id) => {
                    world.assert_exact("big", &id, &tar);
                    world.delete(&id);
                }
                // ext4 has room for a block of them only, without the feature for more.
                Err(error) => {
                    assert!(
                        len > 800 && error.kind() == ErrorKind::LimitExceeded,
                        "{len}: {}",
                        error.report()
                    );
                    assert!(error.report().contains("\"f\": attribute \"user.big\""), "{}", error.report());
                }
            }
            world.assert_clean("big");
        }
        let mut many = Vec::new();
        for number in 0..2000 {
            many.extend(archive_common::record(&format!("SCHILY.xattr.user.n{number}"), &[b'x'; 100]));
        }
        let tar = Tar::new().extended(b'x', &many).file("f", "x").end();
        let words = "no room for the entry's 2000 attributes of";
        world.refused("many", &tar, ErrorKind::LimitExceeded, words);
        let name = format!("user.{}", "n".repeat(300));
        let tar = xattr(&name, b"x").file("f", "x").end();
        world.refused("long name", &tar, ErrorKind::LimitExceeded, "too long a name");
        let tar = xattr("user.x", b"x").symlink("s", "f").end();
        world.refused("of a link", &tar, ErrorKind::InvalidData, "\"s\": attribute \"user.x\" is for files");
    });
}

/// In memory there is room for as much as the kernel takes, and for that only.
#[test]
fn attributes_of_64_kib_are_kept_where_the_file_system_has_room() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::in_memory(driver, &[]);
        let value = vec![b'x'; 64 << 10];
        let tar = |name: &str, value: &[u8]| xattr(name, value).file("f", "x").end();
        let found = attributes(&world, "greatest", &tar("trusted.big", &value), "f");
        assert!(found == [(b"trusted.big".to_vec(), value.clone())], "{driver}");
        let more = [&value[..], b"x"].concat();
        let words = "of 65537 bytes is larger than the kernel takes";
        world.refused("more", &tar("trusted.big", &more), ErrorKind::LimitExceeded, words);
        world.end();
    }
}

#[test]
fn numbers_of_devices_and_owners_are_bounded() {
    on_each_driver(DISK, |world| {
        let device = |major: &[u8; 8]| {
            let mut block = Header::new("n", b'3').block();
            block[329..337].copy_from_slice(major);
            sign(&mut block);
            Tar::new().raw(&block).end()
        };
        world.refused("major", &device(b"0010000\0"), ErrorKind::InvalidData, "device number");
        world.refused("negative major", &device(&[0xff; 8]), ErrorKind::InvalidData, "device number");
        for uid in ["4294967295", "4294967296", "-1", "99999999999999999999"] {
            let tar = Tar::new().pax(&[("uid", uid.as_bytes())]).file("f", "").end();
            world.refused(uid, &tar, ErrorKind::InvalidData, "id");
        }
        let tar = Tar::new().pax(&[("uid", b"4294967294"), ("gid", b"4294967294")]).file("f", "").end();
        world.taken("greatest", &tar, &["f"]);
        for time in ["-9223372036854775807", "9223372036854775807.999999999", "-1.5", "99999999999"] {
            let tar = Tar::new().pax(&[("mtime", time.as_bytes())]).file("f", "").dir("d/").end();
            match world.create(time, &tar) {
                Ok(id) => {
                    world.assert_exact(time, &id, &tar);
                    world.delete(&id);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidData, "{time}: {}", error.report()),
            }
            world.assert_clean(time);
        }
    });
}
