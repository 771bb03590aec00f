// SPDX-License-Identifier: MulanPSL-2.0
//! Large layers, which are unpacked by several threads: the same outcome as of small ones, and nothing left running.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use archive_common::{Header, Scratch, Tar, apply_and_check, apply_with, is_root};
use isula_storage::archive::{self, ApplyOptions, Limits};
use isula_storage::error::{Error, ErrorKind, Result};

/// Content that does not shrink to nothing.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state % 23) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Some mebibytes: many small files, a few that are larger than any buffer, links and whiteouts between them.
fn layer() -> Tar {
    let mut tar = Tar::new();
    for number in 0..600usize {
        if number % 50 == 0 {
            tar = tar.dir(format!("d{}/", number / 50));
        }
        let len = if number % 150 == 7 { 700_000 } else { number * 31 % 9000 };
        tar = tar.file(format!("d{}/f{number}", number / 50), noise(number as u64, len));
        if number % 40 == 3 {
            tar = tar.symlink(format!("d{}/s{number}", number / 50), "f1");
            tar = tar.hard_link(format!("d{}/h{number}", number / 50), format!("d{}/f{number}", number / 50));
        }
        if number % 60 == 9 {
            tar = tar.file(format!("d{}/.wh.gone{number}", number / 50), "");
        }
    }
    tar
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn options() -> ApplyOptions {
    ApplyOptions { owners: rustix::process::geteuid().is_root(), ..ApplyOptions::default() }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            fs::read_to_string(name).is_ok_and(|name| name.starts_with("layer-"))
        })
        .count()
}

/// Gives bytes in pieces, then something else; remembers who asked.
struct Source<'a, F> {
    bytes: &'a [u8],
    piece: usize,
    then: F,
    asked_by: Vec<ThreadId>,
}

impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for Source<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let me = thread::current().id();
        if !self.asked_by.contains(&me) {
            self.asked_by.push(me);
        }
        if self.bytes.is_empty() {
            return (self.then)(buffer);
        }
        let most = self.piece.min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}

fn feed(
    bytes: &[u8],
    piece: usize,
    out: &mut (dyn Write + Send),
    limits: Limits,
    then: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> Result<archive::Applied> {
    let scratch = Scratch::new();
    let target = File::open(scratch.dir("target")).unwrap();
    let mut source = Source { bytes, piece, then, asked_by: Vec::new() };
    let outcome = archive::apply(&mut source, target.as_fd(), out, &ApplyOptions { limits, ..options() });
    assert_eq!(source.asked_by, [thread::current().id()], "only the caller reads");
    outcome
}

/// One test at a time, for threads of the process are counted.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn nothing_is_left_running_whatever_happens() {
    let _alone = alone();
    let tar = layer().end();
    let packed = gzip(&tar);
    for stream in [&tar, &packed] {
        for piece in [700, 60_000, usize::MAX] {
            let applied = feed(stream, piece, &mut io::sink(), Limits::default(), |_| Ok(0)).unwrap();
            assert_eq!(applied.tar_size.0, tar.len() as u64);
        }
        for cut in [stream.len() / 2, stream.len() * 9 / 10, stream.len() - 1] {
            let cut = &stream[..cut];
            let limits = Limits::default;
            let error = feed(cut, 4096, &mut io::sink(), limits(), |_| Ok(0)).unwrap_err();
            // A plain archive may end with one zero block.
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{}", error.report());
            let fails = |_: &mut [u8]| Err(io::Error::from_raw_os_error(libc::ECONNRESET));
            let error = feed(cut, 4096, &mut io::sink(), limits(), fails).unwrap_err();
            assert_eq!(error.errno(), libc::ECONNRESET);
            let cancels = |_: &mut [u8]| Err(Error::new(ErrorKind::Cancelled, "stop").into());
            let error = feed(cut, 4096, &mut io::sink(), limits(), cancels).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                feed(cut, 4096, &mut io::sink(), limits(), |_| panic!("the caller's own"))
            }));
            assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"the caller's own"));
            assert_eq!(threads(), 0);
        }
        // What cannot be unpacked ends the reading of an endless stream.
        let endless = |buffer: &mut [u8]| {
            buffer.fill(b'x');
            Ok(buffer.len())
        };
        if stream == &tar {
            let few = Limits { entries: 100, ..Limits::default() };
            let bad = &tar[..tar.len() - 1024];
            for limits in [few, Limits::default()] {
                let error = feed(bad, 4096, &mut io::sink(), limits, endless).unwrap_err();
                let expected = [ErrorKind::InvalidData, ErrorKind::LimitExceeded];
                assert!(expected.contains(&error.kind()), "{}", error.report());
            }
        }
        assert_eq!(threads(), 0);
    }
    // Tar-split that cannot be written, from its first byte to its last.
    let mut whole = Vec::new();
    feed(&packed, 4096, &mut whole, Limits::default(), |_| Ok(0)).unwrap();
    for room in [0, 10, 40_000, whole.len() - 1] {
        let error = feed(&packed, 4096, &mut Full(room), Limits::default(), |_| Ok(0)).unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC, "room for {room}: {}", error.report());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            feed(&packed, 4096, &mut Panics(room), Limits::default(), |_| Ok(0))
        }));
        assert_eq!(outcome.unwrap().unwrap_err().errno(), libc::EIO, "a panic of another thread");
        assert_eq!(threads(), 0);
    }
}

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

struct Panics(usize);

impl Write for Panics {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).expect("no room");
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn several_threads_do_what_one_does() {
    let _alone = alone();
    if !is_root() {
        return;
    }
    let tar = layer().end();
    let scratch = Scratch::new();
    let (plain, packed) = (scratch.dir("plain"), scratch.dir("packed"));
    let (applied, split) = apply_and_check(&tar, &plain);
    assert_eq!(applied.entries, 600 + 12 + 30 + 10);
    let (_, split_of_packed) = apply_and_check(&gzip(&tar), &packed);
    assert_eq!(split, split_of_packed);
    // A whiteout has the time of its making.
    let mut found =
        archive_common::differences(&archive_common::tree(&plain), &archive_common::tree(&packed));
    found.retain(|difference| !difference.contains("/gone"));
    assert!(found.is_empty(), "{}", found.join("\n"));
    // Each entry in an archive of its own is unpacked by the caller's thread alone.
    let single = scratch.dir("single");
    for number in [7usize, 157, 599] {
        let small = Tar::new().dir(format!("d{}/", number / 50));
        let content = fs::read(plain.join(format!("d{}/f{number}", number / 50))).unwrap();
        let small = small.file(format!("d{}/f{number}", number / 50), content);
        apply_with(&small.end(), &single, &options()).unwrap();
        let [left, right] = [&single, &plain].map(|root| {
            let meta = fs::metadata(root.join(format!("d{}/f{number}", number / 50))).unwrap();
            (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.len())
        });
        assert_eq!(left, right);
    }
}

/// What the kernel gives a new file depends on umask and directory; it must not show.
#[test]
fn owners_and_modes_are_those_of_the_archive() {
    let _alone = alone();
    if !is_root() {
        return;
    }
    let file = |name: &str, mode, uid, gid| Header { mode, uid, gid, ..Header::new(name, b'0') };
    let dir = |name: &str, mode, gid| Header { mode, gid, ..Header::new(name, b'5') };
    let mut wanted = vec![
        dir("s/", 0o2777, 7),
        file("s/a", 0o666, 0, 0),
        file("s/b", 0o777, 0, 7),
        file("s/c", 0o4755, 0, 0),
        file("s/d", 0o2755, 3, 7),
        file("s/e", 0o1777, 3, 4),
        file("s/f", 0, 0, 0),
        file("s/g", 0o6751, 0, 0),
    ];
    let kinds = |name: &str, gid| Header { gid, mode: 0o666, ..Header::new(name, b'6') };
    wanted.push(kinds("s/fifo", 0));
    wanted.push(kinds("s/fifo7", 7));
    wanted.push(Header { gid: 0, ..dir("s/below/", 0o755, 0) });
    wanted.push(file("s/below/h", 0o640, 0, 0));
    let ballast = noise(1, 3 << 20);
    for large in [false, true] {
        let scratch = Scratch::new();
        let target = scratch.dir("target");
        let mut tar = Tar::new();
        if large {
            tar = tar.file("ballast", &ballast);
        }
        for header in &wanted {
            tar = tar.header(header);
        }
        // The directory changes its group and loses the bit: what comes then is given something else.
        let last = dir("s/", 0o755, 8);
        let late = [file("s/i", 0o644, 0, 0), file("s/j", 0o644, 0, 7), file("s/k", 0o644, 0, 8)];
        tar = tar.header(&last);
        for header in &late {
            tar = tar.header(header);
        }
        apply_and_check(&tar.end(), &target);
        for header in wanted.iter().skip(1).chain(&late).chain([&last]) {
            let name = String::from_utf8_lossy(&header.name).into_owned();
            let meta = fs::symlink_metadata(target.join(&name)).unwrap();
            let found = (meta.mode() & 0o7777, meta.uid(), meta.gid());
            assert_eq!(found, (header.mode, header.uid, header.gid), "{name}, large: {large}");
        }
    }
}
