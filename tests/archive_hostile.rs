// SPDX-License-Identifier: MulanPSL-2.0
//! Archives and streams made to do harm: each is refused with a clear error or confined to the target, and nothing
//! outside the target changes. What `tests/hostile/` puts through a whole storage is not repeated here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use archive_common::{
    Header, Scratch, Tar, Tree, apply, apply_and_check, apply_with, is_root, record, run, shell, sign, tree,
};
use isula_storage::archive::{self, ApplyOptions, Limits};
use isula_storage::error::{Error, ErrorKind};
use isula_storage::units::Bytes;

/// A target beside things that must not change.
struct World {
    scratch: Scratch,
    before: Tree,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.dir("target");
        shell("mkdir outside; echo secret >outside/secret; chmod 600 outside/secret", scratch.path());
        let before = outside(scratch.path());
        World { scratch, before }
    }

    fn target(&self) -> PathBuf {
        self.scratch.path().join("target")
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).to_str().unwrap().to_owned()
    }

    fn assert_unharmed(&self, what: &str) {
        assert_eq!(outside(self.scratch.path()), self.before, "{what}");
        assert!(!Path::new("/evil").exists() && !self.scratch.path().join("evil").exists(), "{what}");
    }
}

fn outside(root: &Path) -> Tree {
    let mut nodes = tree(root);
    nodes.retain(|path, _| !path.starts_with("target"));
    nodes
}

fn options() -> ApplyOptions {
    ApplyOptions { owners: rustix::process::geteuid().is_root(), ..ApplyOptions::default() }
}

/// Each archive is unpacked; these paths exist in the target then, and everything that holds of good archives does.
fn assert_confined(world: &World, what: &str, tar: Tar, paths: &[&str]) {
    if options().owners {
        apply_and_check(&tar.end(), &world.target());
    } else {
        apply_with(&tar.end(), &world.target(), &options()).unwrap();
    }
    world.assert_unharmed(what);
    for path in paths {
        let path = world.target().join(path);
        assert!(std::fs::symlink_metadata(&path).is_ok(), "{what}: {} is not there", path.display());
    }
}

/// The archive is refused with this kind and words in the error.
fn assert_refused(what: &str, tar: &[u8], kind: ErrorKind, words: &str) {
    let world = World::new();
    let error = match apply_with(tar, &world.target(), &options()) {
        Ok((applied, _)) => panic!("{what}: taken: {applied:?}, {:?}", tree(&world.target()).keys()),
        Err(error) => error,
    };
    assert_eq!(error.kind(), kind, "{what}: {}", error.report());
    assert!(error.report().contains(words), "{what}: {}", error.report());
    world.assert_unharmed(what);
}

#[test]
fn names_that_point_outside_stay_inside() {
    let table: [(&str, &str); 8] = [
        ("../../evil", "evil"),
        ("../evil", "evil"),
        ("/evil", "evil"),
        ("//../../evil", "evil"),
        ("a/b/../../../../evil", "evil"),
        ("./././evil", "evil"),
        ("a//b///evil", "a/b/evil"),
        (".../evil", ".../evil"),
    ];
    for (name, path) in table {
        assert_confined(&World::new(), name, Tar::new().file(name, "evil"), &[path]);
        assert_confined(&World::new(), name, Tar::new().dir(name), &[path]);
        assert_confined(&World::new(), name, Tar::new().symlink(name, "/etc/passwd"), &[path]);
    }
}

#[test]
fn links_planted_by_earlier_entries_stay_inside() {
    for target in ["../outside", "../../../../../../../..", "/"] {
        let world = World::new();
        let tar = Tar::new().symlink("esc", target).file("esc/new", "x").dir("esc/dir/");
        assert_confined(&world, target, tar, &["esc"]);
    }
    let world = World::new();
    let absolute = world.path("outside");
    let tar = Tar::new().symlink("esc", &absolute).file("esc/secret", "x").file("esc/deep/new", "x");
    let inside = [format!(".{absolute}/secret"), format!(".{absolute}/deep/new")];
    assert_confined(&world, "absolute", tar, &[&inside[0], &inside[1]]);

    let world = World::new();
    let tar = Tar::new().dir("d/").file("d/f", "x").symlink("d", "../outside").file("d/secret", "x");
    assert_confined(&world, "replaced directory", tar, &["d", "outside/secret"]);

    let world = World::new();
    let tar =
        Tar::new().symlink("a", "b/../../c").dir("b/").dir("c/").symlink("d", "a/../..").file("d/new", "x");
    assert_confined(&world, "dots in targets", tar, &["new"]);

    let world = World::new();
    let mut tar = Tar::new().dir("end/");
    for link in 0..40 {
        let to = if link == 0 { "end".to_owned() } else { format!("l{}", link - 1) };
        tar = tar.symlink(format!("l{link}"), to);
    }
    assert_confined(&world, "chain", tar.clone().file("l39/f", "x"), &["end/f"]);
    let longer = tar.symlink("l40", "l39").file("l40/f", "x").end();
    assert_refused("too long a chain", &longer, ErrorKind::InvalidData, "too many symbolic links");

    let tar = Tar::new().symlink("a", "b").symlink("b", "a").file("a/f", "x").end();
    assert_refused("loop", &tar, ErrorKind::InvalidData, "too many symbolic links");
    let tar = Tar::new().symlink("a", "a").file("a/f", "x").end();
    assert_refused("loop of one", &tar, ErrorKind::InvalidData, "too many symbolic links");
}

#[test]
fn magic_links_lead_nowhere() {
    let world = World::new();
    let cwd = std::env::current_dir().unwrap();
    let tar = Tar::new()
        .symlink("cwd", "/proc/self/cwd")
        .file("cwd/evil-in-cwd", "x")
        .symlink("root", "/proc/1/root")
        .file("root/evil", "x")
        .file("/proc/self/fd/3/evil", "x");
    assert_confined(&world, "proc", tar, &["proc/self/cwd/evil-in-cwd", "proc/1/root/evil"]);
    assert!(!cwd.join("evil-in-cwd").exists());
}

#[test]
fn a_link_where_an_entry_goes_is_replaced_not_followed() {
    let world = World::new();
    let secret = world.path("outside/secret");
    for kind in [b'0', b'3', b'5', b'6'] {
        if kind == b'3' && !is_root() {
            continue;
        }
        let tar =
            Tar::new().symlink("s", &secret).header(&Header { device: (1, 3), ..Header::new("s", kind) });
        assert_confined(&world, "symlink", tar, &["s"]);
        let meta = std::fs::symlink_metadata(world.target().join("s")).unwrap();
        assert!(!meta.file_type().is_symlink());
    }
    let tar = Tar::new().symlink("s", &secret).file("f", "x").hard_link("s", "f");
    assert_confined(&world, "hard link", tar, &["s"]);
}

#[test]
fn hard_links_out_of_the_layer_are_refused() {
    let world = World::new();
    let absolute = world.path("outside/secret");
    for target in ["../outside/secret", &absolute, "/etc/passwd", "../../../../../../etc/passwd"] {
        let tar = Tar::new().hard_link("link", target).end();
        assert_refused(target, &tar, ErrorKind::InvalidData, "no such file in the layer");
        let through = Tar::new().symlink("esc", "/").symlink("up", "..").dir("etc/");
        for link in ["esc", "up"] {
            let tar = through.clone().hard_link("link", format!("{link}/{target}")).end();
            assert_refused(target, &tar, ErrorKind::InvalidData, "no such file in the layer");
        }
    }
    let table: [(&str, Tar, &str); 6] = [
        ("directory", Tar::new().dir("d/").hard_link("l", "d"), "a directory"),
        ("root", Tar::new().hard_link("l", "."), "a directory"),
        ("itself", Tar::new().file("f", "x").hard_link("f", "f"), "the link itself"),
        (
            "itself, disguised",
            Tar::new().file("f", "x").symlink("s", ".").hard_link("f", "s/../f"),
            "the link itself",
        ),
        ("nothing", Tar::new().hard_link("l", ""), "a directory"),
        ("below a file", Tar::new().file("f", "x").hard_link("l", "f/x"), "is not a directory"),
    ];
    for (what, tar, words) in table {
        assert_refused(what, &tar.end(), ErrorKind::InvalidData, words);
    }
    // A hard link to a symbolic link is one more name of the link.
    let world = World::new();
    let tar = Tar::new().symlink("s", world.path("outside/secret")).hard_link("h", "s");
    assert_confined(&world, "hard link to a symbolic link", tar, &["h"]);
    assert!(std::fs::symlink_metadata(world.target().join("h")).unwrap().file_type().is_symlink());
}

#[test]
fn the_root_is_replaced_by_nothing() {
    for name in ["/", ".", "..", "./", "a/..", ""] {
        for kind in [b'1', b'2', b'6'] {
            let tar = Tar::new().link(kind, name, "x").end();
            assert_refused(name, &tar, ErrorKind::InvalidData, "replace the root");
        }
    }
    assert_refused("file", &Tar::new().file(".", "x").end(), ErrorKind::InvalidData, "replace the root");
}

#[test]
fn a_file_is_no_directory() {
    let tar = Tar::new().file("f", "x").file("f/below", "x").end();
    assert_refused("file as parent", &tar, ErrorKind::InvalidData, "\"f\" is not a directory");
    let tar = Tar::new().header(&Header { size: 3, ..Header::new("d/", b'0') }).content(b"abc").end();
    assert_refused("directory with content", &tar, ErrorKind::InvalidData, "a directory's name");
}

#[test]
fn a_link_swapped_under_the_way_leads_nowhere() {
    let world = World::new();
    let mut tar = Tar::new();
    for round in 0..30 {
        for dir in 0..80 {
            tar = tar.file(format!("d{dir}/f{round}"), "x");
        }
    }
    for dir in 0..80 {
        std::fs::create_dir(world.target().join(format!("d{dir}"))).unwrap();
        std::os::unix::fs::symlink("../outside", world.target().join(format!("evil{dir}"))).unwrap();
    }
    let stop = AtomicBool::new(false);
    let target = std::fs::File::open(world.target()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for dir in 0..80 {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    let (from, to) = (format!("d{dir}"), format!("evil{dir}"));
                    rustix::fs::renameat_with(&target, from, &target, to, flags).unwrap();
                }
            }
        });
        // Whether it fails depends on who is faster; that nothing gets out does not.
        let outcome = apply_with(&tar.end(), &world.target(), &options());
        stop.store(true, Ordering::Relaxed);
        if let Err(error) = outcome {
            assert!(error.report().starts_with("unpack"), "{}", error.report());
        }
    });
    world.assert_unharmed("swapped");
}

#[test]
fn a_stream_cut_anywhere_is_refused_or_ends_between_entries() {
    let tar = Tar::new()
        .dir("d/")
        .file("d/f", "x".repeat(700))
        .pax(&[("path", b"d/long"), ("mtime", b"1.5")])
        .file("short", "y")
        .extended(b'L', b"d/longer\0")
        .file("short", "")
        .end();
    // Where an entry is complete, and within or before the end marker.
    let complete = [0, 512, 2048, 4096, 5632, 6144, 6656];
    assert_eq!(tar.len(), 6656);
    for cut in (0..tar.len()).step_by(64).chain([1, 511, 513, 1023]) {
        let world = World::new();
        let outcome = apply_with(&tar[..cut], &world.target(), &options());
        world.assert_unharmed("cut");
        match outcome {
            Ok(_) => assert!(complete.contains(&cut), "taken when cut at {cut}"),
            Err(error) => {
                assert!(!complete.contains(&cut), "refused when cut at {cut}: {}", error.report());
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert!(error.report().contains("truncated"), "{}", error.report());
            }
        }
    }
}

#[test]
fn what_follows_the_end_belongs_to_the_digest_only() {
    let mut tar = Tar::new().file("f", "x").end();
    tar.extend_from_slice(&Tar::new().file("hidden", "x").end());
    tar.extend_from_slice(b"garbage of odd length");
    let world = World::new();
    assert_confined(&world, "trailing", Tar(tar[..tar.len() - 1024].to_vec()), &["f"]);
    assert!(!world.target().join("hidden").exists());
}

#[test]
fn malformed_headers_are_refused() {
    let block = |change: &dyn Fn(&mut [u8; 512])| {
        let mut block = Header::new("f", b'0').block();
        change(&mut block);
        sign(&mut block);
        Tar::new().raw(&block).end()
    };
    assert_refused("html", b"<html>404</html>", ErrorKind::InvalidData, "truncated");
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("type", block(&|b| b[156] = b'D'), "entry type 'D' is not supported"),
        ("no type", block(&|b| b[156] = 0xff), "is not supported"),
        (
            "device",
            block(&|b| {
                b[156] = b'3';
                b[329..337].copy_from_slice(b"0010000\0")
            }),
            "device number 4096:0",
        ),
        (
            "device text",
            block(&|b| {
                b[156] = b'4';
                b[337..345].copy_from_slice(b"xxxxxxxx")
            }),
            "device number",
        ),
        ("zero block", Tar::new().raw(&[0; 512]).file("f", "x").end(), "zero block"),
    ];
    for (what, tar, words) in table {
        assert_refused(what, &tar, ErrorKind::InvalidData, words);
    }
}

#[test]
fn extended_headers_that_lie_are_refused() {
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nul in link", Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("f", "x").end(), "NUL"),
        (
            "endless header size",
            Tar::new().header(&Header { size: 1 << 62, ..Header::new("f", b'0') }).end(),
            "trunc",
        ),
        ("component", Tar::new().pax(&[("path", &[b'a'; 256])]).file("f", "").end(), "longer than 255"),
    ];
    for (what, tar, words) in table {
        assert_refused(what, &tar, ErrorKind::InvalidData, words);
    }
}

#[test]
fn limits_hold() {
    let limits = |change: &dyn Fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        ApplyOptions { limits, ..options() }
    };
    let mut many = Tar::new();
    for index in 0..11 {
        many = many.file(format!("f{index}"), "x");
    }
    let many = many.end();
    let long = Tar::new().pax(&[("path", &b"abcdefghi/".repeat(420))]).file("f", "").end();
    let link = Tar::new().extended(b'K', &b"abcdefghi/".repeat(420)).symlink("f", "").end();
    let big_header = Tar::new().pax(&[("comment", &[b'x'; 2000])]).file("f", "").end();
    let mut chain = Tar::new();
    for _ in 0..100 {
        chain = chain.extended(b'g', &record("comment", &[b'x'; 900]));
    }
    let chain = chain.file("f", "").end();
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&Tar::new().file("f", vec![0; 80 << 20]).end()).unwrap();
    let bomb = bomb.finish().unwrap();
    let table: Vec<(&str, &[u8], ApplyOptions, &str)> = vec![
        ("entries", &many, limits(&|limits| limits.entries = 10), "more than 10 entries"),
        ("stream", &many, limits(&|limits| limits.stream = Bytes(2000)), "larger than 1.9 KiB"),
        ("path", &long, options(), "longer than 4096 bytes"),
        ("link", &link, options(), "longer than 4096 bytes"),
        ("header", &big_header, limits(&|limits| limits.extended_header = 1000), "exceeds 1000"),
        ("chain", &chain, limits(&|limits| limits.extended_header = 1000), "extended headers of one entry"),
        ("bomb", &bomb, limits(&|limits| limits.ratio = 100), "more than 100 times its size"),
    ];
    for (what, tar, options, words) in table {
        let world = World::new();
        let error = apply_with(tar, &world.target(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{what}: {}", error.report());
        assert!(error.report().contains(words), "{what}: {}", error.report());
        world.assert_unharmed(what);
    }
    let world = World::new();
    apply_with(&many, &world.target(), &limits(&|limits| limits.entries = 11)).unwrap();
}

#[test]
fn depth_and_numbers_cost_no_descriptors() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let deep = "d/".repeat(2040);
    let tar = Tar::new().pax(&[("path", format!("{deep}f").as_bytes())]).file("f", "x");
    let again = tar.clone().pax(&[("path", format!("{deep}g").as_bytes())]).file("g", "x").file("d", "flat");
    let tar = again.end();
    let (_, split) = apply(&tar, &world.target()).unwrap();
    assert_eq!(tree(&world.target()).len(), 2);
    assert_eq!(archive_common::rebuild(&split, &world.target()).unwrap().1, tar);

    let mut tar = Tar::new().file("f", "x");
    for index in 0..5_000 {
        tar = tar.hard_link(format!("l{index}"), "f");
    }
    assert_confined(&World::new(), "hard links", tar, &["l4999"]);
}

#[test]
fn attributes_that_cannot_be_are_left_out_or_refused() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.nonsense", b"x"),
            ("SCHILY.xattr.foo.bar", b"x"),
            ("SCHILY.xattr.user.ok", b"y"),
        ])
        .file("f", "x")
        .pax(&[("SCHILY.acl.access", b"user::rwx,user:joe:rwx,group::r-x,mask::rwx,other::r-x")])
        .file("g", "x");
    assert_confined(&world, "unknown", tar, &["f", "g"]);
    let nodes = tree(&world.target());
    assert_eq!(nodes[Path::new("f")].xattrs.keys().map(Vec::as_slice).collect::<Vec<_>>(), [b"user.ok"]);
    assert!(nodes[Path::new("g")].xattrs.is_empty());

    let world = World::new();
    let value = vec![b'x'; (64 << 10) + 1];
    let tar = Tar::new().pax(&[("SCHILY.xattr.user.big", &value)]).file("f", "x").end();
    let error = apply(&tar, &world.target()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{}", error.report());
    let name = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    let tar = Tar::new().pax(&[(&name, b"x")]).file("f", "x").end();
    assert_eq!(apply(&tar, &world.target()).unwrap_err().kind(), ErrorKind::LimitExceeded);
    // Only files and directories have user attributes.
    let tar = Tar::new().pax(&[("SCHILY.xattr.user.x", b"x")]).symlink("s", "x").end();
    assert_eq!(apply(&tar, &world.target()).unwrap_err().kind(), ErrorKind::InvalidData);
}

/// A source that misbehaves after some bytes.
struct Source<'a, F> {
    bytes: &'a [u8],
    piece: usize,
    then: F,
}

impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for Source<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return (self.then)(buffer);
        }
        let most = self.piece.min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}

#[test]
fn sources_that_misbehave_give_their_error() {
    let tar = Tar::new().file("f", vec![b'x'; 3000]).file("g", "y").end();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar).unwrap();
    let packed = packed.finish().unwrap();
    let feed = |bytes: &[u8], piece: usize, then: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>| {
        let world = World::new();
        let target = std::fs::File::open(world.target()).unwrap();
        let mut source = Source { bytes, piece, then };
        let outcome = archive::apply(&mut source, target.as_fd(), &mut io::sink(), &options());
        world.assert_unharmed("source");
        outcome
    };
    for stream in [&tar, &packed] {
        for piece in [1, 7, 511, 1 << 20] {
            let mut interruptions = 0;
            let applied = feed(stream, piece, &mut |_| {
                interruptions += 1;
                if interruptions < 3 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(0) }
            });
            assert_eq!(applied.unwrap().entries, 2);
        }
        for cut in [0, 5, stream.len() / 2, stream.len() - 1, stream.len()] {
            let error = feed(&stream[..cut], 4096, &mut |_| Err(io::Error::from_raw_os_error(libc::EIO)));
            assert_eq!(error.unwrap_err().errno(), libc::EIO, "cut at {cut}");
            let mut cancelled = |_: &mut [u8]| Err(Error::new(ErrorKind::Cancelled, "stop").into());
            let error = feed(&stream[..cut], 4096, &mut cancelled).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "cut at {cut}");
            let error = feed(&stream[..cut], 4096, &mut |buffer| Ok(buffer.len() + 1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "cut at {cut}");
        }
    }
}

#[test]
fn a_tar_split_that_cannot_be_written_is_an_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::Error::from_raw_os_error(libc::ENOSPC))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let tar = Tar::new().file("f", "x").end();
    for room in [0, 9, 10, 50] {
        let world = World::new();
        let target = std::fs::File::open(world.target()).unwrap();
        let outcome = archive::apply(&mut &tar[..], target.as_fd(), &mut Full(room), &options());
        assert_eq!(outcome.unwrap_err().errno(), libc::ENOSPC, "room for {room}");
    }
}

#[test]
fn a_full_disk_is_an_error_at_every_stage() {
    if !is_root() {
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            run("umount", &["-l".as_ref(), self.0.as_os_str()], Path::new("/"));
        }
    }
    let mut tar = Tar::new();
    for index in 0..20 {
        tar = tar
            .dir(format!("d{index}/"))
            .pax(&[("SCHILY.xattr.user.x", &[b'x'; 3000])])
            .file(format!("d{index}/f"), vec![b'x'; 5000])
            .symlink(format!("d{index}/s"), "x".repeat(99))
            .file(format!("d{index}/.wh.gone"), "");
    }
    let tar = tar.end();
    for inodes in [2, 5, 8, 11, 1000] {
        let world = World::new();
        let script = format!("mount -t tmpfs -o size=64k,nr_inodes={inodes} tmpfs target");
        shell(&script, world.scratch.path());
        let _mounted = Mounted(world.target());
        let error = apply(&tar, &world.target()).unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC, "{}", error.report());
    }
}
