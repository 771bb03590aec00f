// SPDX-License-Identifier: MulanPSL-2.0
//! From trees back to archives: what is unpacked, compared and unpacked again is the same, other tools read the archive as
//! we do, and what an archive cannot say is an error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use archive_common::{
    EVERYTHING, Scratch, Tar, Tree, apply, apply_with, assert_same_trees, differences, is_root, layers_of,
    path, run, shell, tree,
};
use isula_storage::archive::{
    self, ApplyOptions, Change, ChangeKind, DiffBase, Diffed, OwnerShift, Whiteouts,
};
use isula_storage::digest::Digest;
use isula_storage::error::{Error, ErrorKind};

fn open(path: &Path) -> File {
    File::open(path).unwrap()
}

fn diff_to(out: &mut dyn Write, upper: &Path, base: &DiffBase<'_>) -> Result<Diffed, Error> {
    archive::diff(open(upper).as_fd(), base, None, out)
}

fn diff(upper: &Path, base: &DiffBase<'_>) -> Result<(Diffed, Vec<u8>), Error> {
    let mut tar = Vec::new();
    let diffed = diff_to(&mut tar, upper, base)?;
    assert_eq!(diffed.diff_id, Digest::of(&tar));
    assert_eq!(diffed.tar_size.0, tar.len() as u64);
    assert_eq!(tar.len() % 512, 0);
    assert_eq!(archive::diff_size(open(upper).as_fd(), base)?, diffed.content_size);
    Ok((diffed, tar))
}

fn diff_of(upper: &Path, base: &DiffBase<'_>) -> Vec<u8> {
    diff(upper, base).unwrap_or_else(|error| panic!("{}", error.report())).1
}

/// An overlay directory on nothing.
fn alone(upper: &Path) -> Vec<u8> {
    diff_of(upper, &DiffBase::Lowers(&[]))
}

fn changes(upper: &Path, base: &DiffBase<'_>) -> Vec<String> {
    let mut found = Vec::new();
    archive::changes(open(upper).as_fd(), base, &mut |Change { path, kind }| {
        let letter = match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        };
        found.push(format!("{letter} {}", path.escape_ascii()));
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{}", error.report()));
    found
}

/// Trees, but for the times of whiteouts, which an archive does not keep, and for what they share an inode with.
fn assert_same_layers(left: &Path, right: &Path) {
    let whiteouts_alike = |mut tree: Tree| {
        for node in tree.values_mut().filter(|node| node.mode == 0o020_000 && node.device == 0) {
            node.mtime = (0, 0);
            node.links.clear();
        }
        tree
    };
    let found = differences(&whiteouts_alike(tree(left)), &whiteouts_alike(tree(right)));
    assert!(found.is_empty(), "{} and {} differ:\n{}", left.display(), right.display(), found.join("\n"));
}

/// An archive becomes a tree, its archive the same tree, and the archive of that the same archive.
fn comes_back(layer: &[u8], whiteouts: Whiteouts) {
    let scratch = Scratch::new();
    let (one, two) = (scratch.dir("one"), scratch.dir("two"));
    let options = ApplyOptions { whiteouts, ..ApplyOptions::default() };
    let (applied, _) = apply_with(layer, &one, &options).unwrap_or_else(|error| panic!("{}", error.report()));
    let base = if whiteouts == Whiteouts::Overlay { DiffBase::Lowers(&[]) } else { DiffBase::Tree(None) };
    let (first, tar) = diff(&one, &base).unwrap();
    let (again, _) = apply_with(&tar, &two, &options).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(again.diff_id, first.diff_id);
    assert_eq!(again.content_size, first.content_size);
    assert_eq!(again.entries, first.entries);
    assert!(applied.entries >= 1);
    assert_same_layers(&one, &two);
    assert_eq!(diff(&two, &base).unwrap().0.diff_id, first.diff_id, "the same tree gives the same bytes");
}

#[test]
fn every_kind_of_entry_comes_back() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    shell(EVERYTHING, &source);
    let target = scratch.dir("target");
    for base in [DiffBase::Lowers(&[]), DiffBase::Tree(None)] {
        let tar = diff_of(&source, &base);
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir(&target).unwrap();
        apply(&tar, &target).unwrap_or_else(|error| panic!("{}", error.report()));
        assert_same_trees(&source, &target);
        assert_eq!(diff_of(&target, &base), tar);
    }
}

#[test]
fn other_tools_read_the_same_from_it() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    shell(EVERYTHING, &source);
    shell("setfattr -x user.a=b%c f0; truncate -s 3M holes; printf end >>holes", &source);
    fs::write(scratch.path().join("layer.tar"), alone(&source)).unwrap();
    let script = r#"
        mkdir gnu bsd; tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf layer.tar -C gnu 2>gnu.log
        bsdtar --xattrs --acls --numeric-owner -xpf layer.tar -C bsd
        python3 -c 'import tarfile; print(len(tarfile.open("layer.tar").getmembers()))' >python
    "#;
    shell(script, scratch.path());
    assert_same_trees(&source, &scratch.path().join("gnu"));
    // It takes no trusted attributes, no times for the directory it is in, and fractions before 1970 the other way.
    let without = |root: &Path| -> Tree {
        let mut tree = tree(root);
        tree.retain(|path, _| path != Path::new("") && path != Path::new("ids"));
        tree.values_mut().for_each(|node| node.xattrs.retain(|name, _| !name.starts_with(b"trusted.")));
        tree
    };
    let found = differences(&without(&source), &without(&scratch.path().join("bsd")));
    assert!(found.is_empty(), "{}", found.join("\n"));
    let members: u64 = fs::read_to_string(scratch.path().join("python")).unwrap().trim().parse().unwrap();
    assert_eq!(members, diff(&source, &DiffBase::Lowers(&[])).unwrap().0.entries);
}

#[test]
fn layers_of_real_images_come_back() {
    if !is_root() {
        return;
    }
    for image in ["bb.tar.gz", "bb-nonutf8.tar.gz", "opq.tar.gz"] {
        for layer in layers_of(image) {
            comes_back(&layer, Whiteouts::Overlay);
            comes_back(&layer, Whiteouts::Remove);
        }
    }
}

#[test]
fn whiteouts_and_opaque_directories_come_back() {
    if !is_root() {
        return;
    }
    let longest = [b'n'; 255];
    let layer = Tar::new()
        .dir("d/")
        .file("d/.wh.gone", b"")
        .file("d/kept", b"k")
        .dir("o/")
        .file("o/.wh..wh..opq", b"")
        .file("o/new", b"n")
        .file([b".wh.".as_slice(), &longest].concat(), b"")
        .file(".wh..wh..opq", b"")
        .end();
    comes_back(&layer, Whiteouts::Overlay);
}

#[test]
fn both_ways_of_the_kernel_to_say_whiteout_are_known() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    shell(
        "mkdir d; mknod -m 0 dev c 0 0; touch d/file; setfattr -n trusted.overlay.whiteout d/file
         setfattr -n trusted.overlay.opaque -v x d; printf full >d/full; setfattr -n trusted.overlay.whiteout d/full
         setfattr -n trusted.overlay.origin -v o d/full; setfattr -n trusted.overlay.impure -v y .",
        &root,
    );
    assert_eq!(names(&alone(&root)), ["./", "d/", "d/.wh.file", "d/full", ".wh.dev"].map(str::to_owned));
}

/// Names of an archive in order, escaped.
fn names(tar: &[u8]) -> Vec<String> {
    let scratch = Scratch::new();
    fs::write(scratch.path().join("tar"), tar).unwrap();
    let script = r#"python3 -c 'import tarfile
for member in tarfile.open("tar").getmembers(): print(member.name + ("/" if member.isdir() else ""))'"#;
    String::from_utf8(shell(script, scratch.path()))
        .unwrap()
        .lines()
        .map(|line| line.replace(".//", "./"))
        .collect()
}

#[test]
fn what_only_the_kernel_understands_is_refused_before_a_byte_is_written() {
    if !is_root() {
        return;
    }
    for (script, what) in [
        ("mkdir -p a/b; setfattr -n trusted.overlay.redirect -v /c a/b", "renamed"),
        ("mkdir a; echo x >a/f; setfattr -n trusted.overlay.metacopy a/f", "content is in a layer below"),
    ] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        shell(script, &root);
        let mut out = Vec::new();
        let error = diff_to(&mut out, &root, &DiffBase::Lowers(&[])).unwrap_err();
        assert_eq!((error.kind(), out.len()), (ErrorKind::Unsupported, 0));
        assert!(error.report().contains(what), "{}", error.report());
        let lowers = DiffBase::Lowers(&[]);
        assert_eq!(
            archive::diff_size(open(&root).as_fd(), &lowers).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        let listed = archive::changes(open(&root).as_fd(), &lowers, &mut |_| Ok(()));
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unsupported);
        // Of a whole tree these are nobody's business.
        diff_of(&root, &DiffBase::Tree(None));
    }
}

#[test]
fn what_an_archive_would_turn_into_something_else_is_an_error() {
    if !is_root() {
        return;
    }
    for (script, below, tree_only) in [
        ("echo x >.wh.file", "true", false),
        ("mkdir .wh.dir", "true", false),
        ("mkdir d; echo x >d/.wh..wh..opq", "mkdir d", false),
        ("true", "echo x >.wh.hidden", true),
    ] {
        let scratch = Scratch::new();
        let (upper, lower) = (scratch.dir("upper"), scratch.dir("lower"));
        shell(script, &upper);
        shell(below, &lower);
        let lower = open(&lower);
        let bases = [DiffBase::Tree(Some(lower.as_fd())), DiffBase::Lowers(&[])];
        for base in &bases[..if tree_only { 1 } else { 2 }] {
            let error = diff(&upper, base).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{script}: {}", error.report());
        }
    }
}

#[test]
fn sockets_are_left_out_but_go_on_hiding() {
    let scratch = Scratch::new();
    let (upper, lower) = (scratch.dir("upper"), scratch.dir("lower"));
    for name in ["new", "over"] {
        drop(std::os::unix::net::UnixListener::bind(upper.join(name)).unwrap());
    }
    fs::write(lower.join("over"), b"x").unwrap();
    let lower = open(&lower);
    for base in [DiffBase::Lowers(&[lower.as_fd()]), DiffBase::Tree(Some(lower.as_fd()))] {
        let (diffed, tar) = diff(&upper, &base).unwrap();
        assert_eq!(diffed.skipped, 2);
        assert_eq!(names(&tar), ["./", ".wh.over"]);
        assert_eq!(changes(&upper, &base), ["D over"]);
    }
}

/// An image may hold such a device. On an overlay it hides what is below; on a copy it is there, and says the same.
#[test]
fn devices_of_number_zero_are_left_out_but_go_on_hiding() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (upper, lower) = (scratch.dir("upper"), scratch.dir("lower"));
    shell("for name in new over both; do mknod $name c 0 0; done; echo x >back; mknod null c 1 3", &upper);
    shell("echo x >over; mknod both c 0 0; mknod back c 0 0; mknod gone c 0 0", &lower);
    let lower = open(&lower);
    let base = DiffBase::Tree(Some(lower.as_fd()));
    let (diffed, tar) = diff(&upper, &base).unwrap();
    assert_eq!(diffed.skipped, 3);
    assert_eq!(names(&tar), ["./", "back", "null", ".wh.over"]);
    assert_eq!(changes(&upper, &base), ["A back", "A null", "D over"]);
}

#[test]
fn holes_cost_nothing() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.dir("one"), scratch.dir("two"));
    shell(
        "truncate -s 1T huge; printf middle | dd of=huge bs=1 seek=500G conv=notrunc status=none; truncate -s 200K all
         head -c 40K /dev/zero >zeros; truncate -s 100K few; printf x | dd of=few bs=1 seek=90K conv=notrunc status=none",
        &one,
    );
    let (diffed, tar) = diff(&one, &DiffBase::Lowers(&[])).unwrap();
    assert!(tar.len() < 200 << 10, "{}", tar.len());
    assert_eq!(diffed.content_size.0, (1 << 40) + (200 << 10) + (40 << 10) + (100 << 10));
    let (applied, _) = apply(&tar, &two).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(applied.content_size, diffed.content_size);
    assert_same_trees(&one, &two);
}

/// Depth beyond what any path can name, and names of the greatest length.
#[test]
fn hostile_names_and_depth_are_no_obstacle() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.dir("one"), scratch.dir("two"));
    let script = r#"import os, sys
os.chdir(sys.argv[1]); os.mkdir(b"p"); fd = os.open(b"p", os.O_RDONLY)
for i in range(int(sys.argv[2])):
    name = bytes([128 + i % 100]) * int(sys.argv[3]); os.mkdir(name, dir_fd=fd)
    fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd; os.close(old)
os.close(os.open(b"\n", os.O_CREAT | os.O_WRONLY, dir_fd=fd))"#;
    let make = |dir: &Path, depth: &str, length: &str| {
        run(
            "python3",
            &["-c", script, dir.to_str().unwrap(), depth, length].map(AsRef::as_ref),
            scratch.path(),
        );
    };
    make(&one, "14", "255");
    let tar = alone(&one);
    apply(&tar, &two).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_same_trees(&one, &two);

    let deep = scratch.dir("deep");
    make(&deep, "600", "255");
    let (diffed, tar) = diff(&deep, &DiffBase::Lowers(&[])).unwrap();
    assert_eq!(diffed.entries, 603);
    let three = scratch.dir("three");
    assert_eq!(apply(&tar, &three).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let mut options = ApplyOptions::default();
    options.limits.path = 1 << 20;
    let (applied, _) =
        apply_with(&tar, &three, &options).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(applied.entries, 603);
    assert_eq!(alone(&three), tar);
    // Both are beside each other down to the ground.
    let below = open(&deep);
    let same = changes(&three, &DiffBase::Tree(Some(below.as_fd())));
    assert!(same.is_empty(), "{same:?}");
    assert_eq!(changes(&three, &DiffBase::Lowers(&[below.as_fd()])).len(), 602);
    shell("rm -rf deep three", scratch.path());
}

#[test]
fn a_link_that_leads_out_is_a_link() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    shell("ln -s /etc etc; ln -s / slash; ln -s ../.. up; ln -s self self", &root);
    assert_eq!(names(&alone(&root)), ["./", "etc", "self", "slash", "up"]);
}

/// Does something when bytes with this in them come by.
struct Meddler<'a> {
    trigger: &'a [u8],
    act: &'a mut dyn FnMut(),
    done: bool,
}

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.done && bytes.windows(self.trigger.len()).any(|window| window == self.trigger) {
            self.done = true;
            (self.act)();
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_tree_that_changes_meanwhile_is_an_error() {
    // What is done when the header of the file b/f comes by.
    for act in [
        "truncate -s 1000 b/f",
        "truncate -s 2000000 b/f",
        "printf y | dd of=b/f bs=1 seek=700000 conv=notrunc status=none",
        "touch -d 2001-01-01 b/f",
        "rm -r c",
        "mv c d",
        "mv b/g b/h",
        "touch b/new",
        "rm -rf c; ln -s / c",
        "mv b a/",
        "rm c/x/y; touch new",
    ] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        shell("mkdir -p a b c/x; head -c 1M /dev/urandom >b/f; touch b/g c/x/y", &root);
        // A change within the same tick of the clock would leave no trace.
        shell("sleep 0.02", &root);
        let mut change = || drop(shell(act, &root));
        let mut out = Meddler { trigger: b"b/f", act: &mut change, done: false };
        let error = diff_to(&mut out, &root, &DiffBase::Lowers(&[])).expect_err(act);
        assert!(out.done);
        assert_eq!(error.kind(), ErrorKind::InUse, "{act}: {}", error.report());
    }
}

#[test]
fn a_writer_that_fails_ends_it_with_its_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let scratch = Scratch::new();
    let error = diff_to(&mut Full, scratch.path(), &DiffBase::Lowers(&[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Os(libc::ENOSPC));
}

#[test]
fn the_shift_of_a_user_namespace_is_taken_back() {
    if !is_root() {
        return;
    }
    let shift = OwnerShift { uid: 100_000, gid: 200_000 };
    let scratch = Scratch::new();
    let (source, one) = (scratch.dir("source"), scratch.dir("one"));
    shell(EVERYTHING, &source);
    shell("chown 3000000000:0 ids; chmod 755 .; mknod -m 0 gone c 0 0", &source);
    let tar = alone(&source);
    let options = ApplyOptions { owner_shift: Some(shift), ..ApplyOptions::default() };
    apply_with(&tar, &one, &options).unwrap_or_else(|error| panic!("{}", error.report()));
    let mut back = Vec::new();
    archive::diff(open(&one).as_fd(), &DiffBase::Lowers(&[]), Some(shift), &mut back)
        .unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(back, tar);
    // The kernel makes whiteouts in the name of the host's root; nothing else of the layer may be his.
    shell("chown 0:0 gone", &one);
    archive::diff(open(&one).as_fd(), &DiffBase::Lowers(&[]), Some(shift), &mut io::sink()).unwrap();
    shell("chown 0:0 late", &one);
    let error =
        archive::diff(open(&one).as_fd(), &DiffBase::Lowers(&[]), Some(shift), &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.report().contains("user 0 is not of the user namespace"), "{}", error.report());
}

const BELOW: &str = r#"
    mkdir -p same/deep gone/in meta replaced opaque; echo s >same/deep/file; echo g >gone/in/file; echo f >file; echo t >touched
    echo d >dir-of-file; mkdir file-of-dir; echo x >file-of-dir/x; echo a >meta/attribute; echo o >opaque/old; echo r >opaque/re
    ln -s a link; echo same >content; touch -d 2001-01-01 content; echo h >hard1; ln hard1 hard2; mkdir -p way/to/it; echo w >way/to/it/f
"#;
/// The same changes, made of a copy and of an overlay by hand.
const CHANGES: &str = r#"
    rm -r gone; touch -d 2010-10-10 touched; rm dir-of-file; mkdir dir-of-file; echo n >dir-of-file/n
    rm -r file-of-dir; echo f >file-of-dir; setfattr -n user.a -v b meta/attribute; ln -sfT b link; echo SAME >content
    touch -d 2001-01-01 content; chmod 600 hard1; echo new >way/to/it/new; ln way/to/it/new way/to/it/new2
"#;

#[test]
fn trees_are_compared_by_everything_that_a_layer_keeps() {
    let scratch = Scratch::new();
    let (lower, upper) = (scratch.dir("lower"), scratch.dir("upper"));
    shell(BELOW, &lower);
    shell("cp -a lower/. upper", scratch.path());
    let below = open(&lower);
    let base = DiffBase::Tree(Some(below.as_fd()));
    assert_eq!(changes(&upper, &base), [""; 0]);
    let (diffed, tar) = diff(&upper, &base).unwrap();
    assert_eq!((diffed.entries, tar), (0, vec![0; 1024]), "nothing has changed");
    shell(CHANGES, &upper);
    let expected = [
        "C content",
        "C dir-of-file",
        "A dir-of-file/n",
        "C file-of-dir",
        "D gone",
        "C hard1",
        "C hard2",
        "C link",
        "C meta",
        "C meta/attribute",
        "C touched",
        "C way",
        "C way/to",
        "C way/to/it",
        "A way/to/it/new",
        "A way/to/it/new2",
    ];
    assert_eq!(changes(&upper, &base), expected);
    let tar = diff_of(&upper, &base);
    assert_eq!(
        names(&tar),
        [
            "./",
            "content",
            "dir-of-file/",
            "dir-of-file/n",
            "file-of-dir",
            ".wh.gone",
            "hard1",
            "hard2",
            "link",
            "meta/",
            "meta/attribute",
            "touched",
            "way/",
            "way/to/",
            "way/to/it/",
            "way/to/it/new",
            "way/to/it/new2",
        ]
    );
    let options = ApplyOptions { whiteouts: Whiteouts::Remove, ..ApplyOptions::default() };
    apply_with(&tar, &lower, &options).unwrap();
    assert_same_trees(&lower, &upper);
}

/// A file that got one more name belongs to the layer, or the name would be a file of its own, as on no overlay.
#[test]
fn a_link_to_a_file_that_has_not_changed_stays_a_link() {
    let scratch = Scratch::new();
    let (lower, upper) = (scratch.dir("lower"), scratch.dir("upper"));
    shell("mkdir d; echo a >d/a; ln d/a b; echo c >c; ln -s c s; mkfifo f; ln c e; ln c g", &lower);
    shell("cp -a lower/. upper", scratch.path());
    shell("touch -r d keep; ln d/a new; ln s t; ln f d/f; rm g; touch -r keep d .; rm keep", &upper);
    shell("touch -r ../upper d .", &lower);
    shell("touch -r ../lower d .", &upper);
    let below = open(&lower);
    let base = DiffBase::Tree(Some(below.as_fd()));
    assert_eq!(changes(&upper, &base), ["C b", "C d", "C d/a", "A d/f", "C f", "D g", "A new", "C s", "A t"]);
    let options = ApplyOptions { whiteouts: Whiteouts::Remove, ..ApplyOptions::default() };
    let tar = diff_of(&upper, &base);
    apply_with(&tar, &lower, &options).unwrap();
    assert_same_trees(&upper, &lower);
}

#[test]
fn what_is_below_tells_added_from_modified() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (bottom, middle, upper) = (scratch.dir("bottom"), scratch.dir("middle"), scratch.dir("upper"));
    shell("mkdir -p d/e o p; touch d/x d/e/y gone top o/1 o/2 p/q", &bottom);
    shell(
        "mkdir -p d p; touch d/z o-2; mknod d/x c 0 0; setfattr -n trusted.overlay.opaque -v y p; touch p/r",
        &middle,
    );
    shell(
        "mkdir -p d/e n o p; touch d/x d/z d/e/y d/e/new n/new o/2 o/3 p/q p/r; mknod gone c 0 0; mknod never c 0 0
         setfattr -n trusted.overlay.opaque -v y o; setfattr -n trusted.overlay.opaque -v y n; mknod d/gone c 0 0",
        &upper,
    );
    let lowers = [open(&middle), open(&bottom)];
    let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(AsFd::as_fd).collect();
    let base = DiffBase::Lowers(&lowers);
    assert_eq!(
        changes(&upper, &base),
        [
            "C d",
            "C d/e",
            "A d/e/new",
            "C d/e/y",
            "A d/x",
            "C d/z",
            "D gone",
            "A n",
            "A n/new",
            "C o",
            "D o/1",
            "C o/2",
            "A o/3",
            "C p",
            "A p/q",
            "C p/r",
        ]
    );
    // The archive keeps every mark, whatever is below.
    let kept = names(&diff_of(&upper, &base));
    for mark in [".wh.never", ".wh.gone", "d/.wh.gone", "o/.wh..wh..opq", "n/.wh..wh..opq"] {
        assert!(kept.iter().any(|name| name == mark), "{mark} of {kept:?}");
    }
}

/// A container's changes, made through the kernel's overlay.
#[test]
fn the_kernels_overlay_and_the_archive_show_the_same() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let dir = |name: &str| scratch.dir(name);
    let (lower, upper, work, merged) = (dir("lower"), dir("upper"), dir("work"), dir("merged"));
    shell(BELOW, &lower);
    let mount = |lowers: &str, target: &str| {
        shell(&format!("mount -t overlay overlay -o {lowers} {target}"), scratch.path())
    };
    let _merged = Mounted(merged.clone());
    mount(&format!("lowerdir=lower,upperdir=upper,workdir={}", work.display()), "merged");
    shell(CHANGES, &merged);
    shell("rm -r opaque; mkdir opaque; echo new >opaque/re; mknod null c 1 3; chown 5:6 same", &merged);
    let below = open(&lower);
    let by_marks = diff_of(&upper, &DiffBase::Lowers(&[below.as_fd()]));
    let by_view = diff_of(&merged, &DiffBase::Tree(Some(below.as_fd())));
    let seen: Tree = tree(&merged);
    for (name, tar) in [("by-marks", by_marks), ("by-view", by_view)] {
        let layer = dir(name);
        let shown = dir(&format!("{name}-shown"));
        apply(&tar, &layer).unwrap_or_else(|error| panic!("{}", error.report()));
        let _shown = Mounted(shown.clone());
        mount(&format!("lowerdir={name}:lower"), &format!("{name}-shown"));
        let found = differences(&seen, &tree(&shown));
        assert!(
            found.is_empty(),
            "{name}:
{}",
            found.join(
                "
"
            )
        );
        // And as plain copies.
        let copy = dir(&format!("{name}-copy"));
        shell(&format!("cp -a lower/. {name}-copy"), scratch.path());
        let options = ApplyOptions { whiteouts: Whiteouts::Remove, ..ApplyOptions::default() };
        apply_with(&tar, &copy, &options).unwrap();
        let found = differences(&seen, &tree(&copy));
        assert!(
            found.is_empty(),
            "{name} copied:
{}",
            found.join(
                "
"
            )
        );
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _done = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn names_of_bytes_stay_bytes() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let name = path(b"\xff\n\x01");
    fs::write(root.join(&name), b"x").unwrap();
    let listed = changes(&root, &DiffBase::Lowers(&[]));
    assert_eq!(listed, [format!("A {}", name.as_os_str().as_bytes().escape_ascii())]);
}
