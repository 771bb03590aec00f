// SPDX-License-Identifier: MulanPSL-2.0
//! A million entries, a hundred thousand links, trees as deep as they come: made while they are read.

use std::io::{self, Read};

use isula_storage::error::ErrorKind;

use crate::archive_common::Tar;
use crate::common::need_root;
use crate::harness::{DRIVERS, World, at_most};

/// A tar whose entries are made when they are needed, so that none of it is in memory at once.
struct Generated<F> {
    pending: Vec<u8>,
    at: usize,
    number: usize,
    count: usize,
    entry: F,
}

impl<F: Fn(usize) -> Tar> Generated<F> {
    fn new(count: usize, entry: F) -> Self {
        Generated { pending: Vec::new(), at: 0, number: 0, count, entry }
    }
}

impl<F: Fn(usize) -> Tar> Read for Generated<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.pending.len() && self.number <= self.count {
            self.at = 0;
            self.pending = match self.number {
                last if last == self.count => vec![0; 1024],
                number => (self.entry)(number).0,
            };
            self.number += 1;
        }
        let count = (&self.pending[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

/// Directories of a thousand names, again and again: a million entries, and no million inodes.
#[test]
fn a_million_entries_are_taken() {
    if !need_root() {
        return;
    }
    let thousands = at_most(1000, 20);
    let world = World::in_memory("overlay", &[]);
    let thousand = (0..1000).fold(Tar::new(), |tar, number| tar.dir(format!("d{number}/")));
    let mut stream = Generated::new(thousands, |_| thousand.clone());
    let id = world.create_from("million", &mut stream).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(std::fs::read_dir(world.content(&id)).unwrap().count(), 1000);
    world.assert_sound("million");
    world.delete(&id);
    world.end();
}

/// A million files would be made: stopped long before.
#[test]
fn a_million_files_beyond_the_limit_are_stopped_early() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::in_memory(driver, &["layer.max_entries=1000"]);
        let mut stream = Generated::new(1_000_000, |number| Tar::new().file(format!("f{number}"), ""));
        world.stream_refused("million", &mut stream, ErrorKind::LimitExceeded, "more than 1000 entries");
        // What several threads had read ahead, and no more.
        assert!(stream.number < 20_000, "{} entries were asked for", stream.number);
        world.end();
    }
}

#[test]
fn a_hundred_thousand_links_to_one_file_are_taken_where_the_file_system_takes_them() {
    if !need_root() {
        return;
    }
    let links = |count| {
        Generated::new(count, |number| match number {
            0 => Tar::new().file("f", "x"),
            _ => Tar::new().hard_link(format!("l{number}"), "f"),
        })
    };
    let count = at_most(100_000, 2000);
    let world = World::in_memory("overlay", &[]);
    let id =
        world.create_from("links", &mut links(count)).unwrap_or_else(|error| panic!("{}", error.report()));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(world.content(&id).join("f")).unwrap().nlink(), count as u64);
    world.assert_sound("links");
    world.delete(&id);
    world.end();

    // ext4 has 65,000 names for a file.
    if count > 65_000 {
        let world = World::on_disk("overlay", 64 << 20, &[]);
        let error = world.create_from("links", &mut links(count)).unwrap_err();
        assert_eq!(error.errno(), libc::EMLINK, "{}", error.report());
        world.assert_clean("links");
        world.end();
    }
}

/// One path has 4,096 bytes at most, and a link 1,024 on this disk, but one link leads deeper than the other: 5,000 levels.
#[test]
fn trees_of_any_depth_come_and_go() {
    if !need_root() {
        return;
    }
    const STEP: usize = 500;
    let steps = at_most(10, 3);
    let down = "d/".repeat(STEP);
    let mut tar = Tar::new();
    for step in 0..steps {
        // Each link leads to the depth that the one before has reached.
        let from = if step == 0 { String::new() } else { format!("l{}/", step - 1) };
        tar = tar
            .pax(&[("path", format!("{from}{down}f").as_bytes())])
            .file("f", "x")
            .pax(&[("linkpath", format!("{from}{down}.").as_bytes())])
            .symlink(format!("l{step}"), "x");
    }
    let tar = tar.end();
    for driver in DRIVERS {
        let world = World::on_disk(driver, 256 << 20, &[]);
        let id = world.create("deep", &tar).unwrap_or_else(|error| panic!("{}: {}", driver, error.report()));
        world.assert_exact("deep", &id, &tar);
        world.assert_sound("deep");
        assert!(world.layers().usage(&id).unwrap().is_some());
        // Plain copies copy all of it.
        world.stands("deep", &id);
        let tar = Tar::new().file(format!("l{}/new", steps - 1), "x").file(".wh.d", "").end();
        let child = world.create_on("deeper", &id, &tar).unwrap_or_else(|error| panic!("{}", error.report()));
        world.delete(&child);
        world.delete(&id);
        world.end();
    }
}

/// Names that are all alike, in one directory, and each replaced a few times.
#[test]
fn entries_that_replace_each_other_leave_the_last() {
    if !need_root() {
        return;
    }
    for driver in DRIVERS {
        let world = World::on_disk(driver, 64 << 20, &[]);
        let kinds = [b'0', b'5', b'2', b'6', b'3', b'1'];
        let mut tar = Tar::new().file("base", "x");
        for round in 0..200 {
            let header = crate::archive_common::Header {
                link: b"base".to_vec(),
                device: (1, 3),
                ..crate::archive_common::Header::new("e", kinds[round % kinds.len()])
            };
            tar = tar.header(&header);
            if kinds[round % kinds.len()] == b'5' {
                tar = tar.file(format!("e/f{round}"), "below").dir("e/sub/").file("e/sub/.wh.x", "");
            }
        }
        world.taken("replaced", &tar.file("e", "last").end(), &["e"]);
        world.end();
    }
}
