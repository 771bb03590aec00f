// SPDX-License-Identifier: MulanPSL-2.0
//! The floor of writing a layer: its files from memory with as few system calls as there can be, nothing checked. A plan is made
//! before the clock starts; directories first, then files, several threads taking one directory after the other.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

const BLOCK: usize = 512;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

struct File<'t> {
    name: String,
    content: &'t [u8],
    header: &'t [u8],
}

/// The regular files of a layer by directory, and its directories, parents first. The few other entries are left out.
pub(crate) struct Plan<'t> {
    dirs: BTreeMap<String, Option<&'t [u8]>>,
    files: Vec<(String, Vec<File<'t>>)>,
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn octal(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[1..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    u64::from_str_radix(text(field).trim(), 8).unwrap_or(0)
}

/// The value of a record of an extended header.
fn record(body: &[u8], key: &str) -> Option<String> {
    let mut rest = body;
    while let Some(blank) = rest.iter().position(|byte| *byte == b' ') {
        let len: usize = std::str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
        let line = String::from_utf8_lossy(&rest[blank + 1..len - 1]).into_owned();
        if let Some(value) = line.strip_prefix(key).and_then(|value| value.strip_prefix('=')) {
            return Some(value.to_owned());
        }
        rest = &rest[len..];
    }
    None
}

impl<'t> Plan<'t> {
    pub(crate) fn of(tar: &'t [u8]) -> Plan<'t> {
        let mut dirs = BTreeMap::new();
        let mut files: BTreeMap<String, BTreeMap<String, File<'t>>> = BTreeMap::new();
        let mut at = 0;
        let mut long = None;
        while let Some(header) = tar.get(at..at + BLOCK).filter(|header| header[0] != 0) {
            let size = usize::try_from(octal(&header[124..136])).unwrap();
            let content = &tar[at + BLOCK..at + BLOCK + size];
            at += BLOCK + size.next_multiple_of(BLOCK);
            match header[156] {
                b'L' => long = Some(text(content)),
                b'x' => long = record(content, "path").or(long),
                b'0' | 0 | b'5' => {
                    let mut name = text(&header[..100]);
                    if &header[257..263] == b"ustar\0" && header[345] != 0 {
                        name = format!("{}/{name}", text(&header[345..500]));
                    }
                    let name = long.take().unwrap_or(name);
                    let name = name.trim_start_matches("./").trim_matches('/');
                    let (parent, base) = name.rsplit_once('/').unwrap_or(("", name));
                    let mut above = if header[156] == b'5' { name } else { parent };
                    if header[156] == b'5' && !name.is_empty() {
                        dirs.insert(name.to_owned(), Some(header));
                    }
                    while !above.is_empty() {
                        dirs.entry(above.to_owned()).or_insert(None);
                        above = above.rsplit_once('/').map_or("", |(parent, _)| parent);
                    }
                    if header[156] != b'5' {
                        let file = File { name: base.to_owned(), content, header };
                        files.entry(parent.to_owned()).or_default().insert(base.to_owned(), file);
                    }
                }
                _ => long = None,
            }
        }
        let files = files.into_iter().map(|(dir, files)| (dir, files.into_values().collect())).collect();
        Plan { dirs, files }
    }

    pub(crate) fn carry_out(&self, out: &Path, threads: usize) {
        std::fs::create_dir(out).unwrap();
        let root = rustix::fs::open(out, DIRECTORY, Mode::empty()).unwrap();
        for (dir, header) in &self.dirs {
            let mode = header.map_or(0o755, |header| octal(&header[100..108]));
            let mode = Mode::from_raw_mode(u32::try_from(mode & 0o7777).unwrap() | 0o700);
            rustix::fs::mkdirat(&root, dir, mode).unwrap();
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((dir, files)) = self.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let dir: OwnedFd = match dir.as_str() {
                    "" => root.try_clone().unwrap(),
                    dir => rustix::fs::openat(&root, dir, DIRECTORY, Mode::empty()).unwrap(),
                };
                files.iter().for_each(|file| write(&dir, file));
            }
        };
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        for (dir, header) in &self.dirs {
            if let Some(header) = header {
                rustix::fs::utimensat(&root, dir, &times(header), AtFlags::empty()).unwrap();
            }
        }
    }
}

fn times(header: &[u8]) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(octal(&header[136..148])).unwrap(), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn write(dir: &OwnedFd, file: &File<'_>) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(u32::try_from(octal(&file.header[100..108]) & 0o7777).unwrap());
    let fd = rustix::fs::openat(dir, file.name.as_str(), flags, mode).unwrap();
    let mut rest = file.content;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&fd, rest).unwrap()..];
    }
    let id = |field: &[u8]| u32::try_from(octal(field)).unwrap();
    let (uid, gid) = (id(&file.header[108..116]), id(&file.header[116..124]));
    if (uid, gid) != (0, 0) {
        rustix::fs::fchown(fd.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).unwrap();
    }
    rustix::fs::futimens(&fd, &times(file.header)).unwrap();
}
