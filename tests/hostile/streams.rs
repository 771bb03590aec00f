// SPDX-License-Identifier: MulanPSL-2.0
//! Streams that end too early or too late, and callers whose read function misbehaves.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use isula_storage::error::{Error, ErrorKind};

use crate::archive_common::Tar;
use crate::harness::{World, at_most, base_id, id_of, on_each_driver};

const DISK: u64 = 32 << 20;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(len)
    .collect()
}

/// Where entries end, so that a stream may.
struct Sample {
    tar: Vec<u8>,
    complete: Vec<usize>,
}

fn sample(content: usize) -> Sample {
    let mut tar = Tar::new().dir("s/");
    let mut complete = vec![0, tar.0.len()];
    // Complete when its last byte is there: the padding is looked for when the next entry is.
    tar = tar.file("s/f", noise(content));
    complete.push(tar.0.len());
    tar = tar.pax(&[("path", b"s/long"), ("mtime", b"1.5")]).file("short", "y");
    complete.push(tar.0.len());
    tar = tar.extended(b'L', b"s/longer\0").symlink("short", "f");
    complete.push(tar.0.len());
    let tar = tar.end();
    complete.extend([tar.len() - 512, tar.len()]);
    Sample { tar, complete }
}

#[test]
fn a_tar_cut_at_every_512th_byte_is_refused_or_ends_between_entries() {
    let Sample { tar, complete } = sample(1100);
    on_each_driver(DISK, |world| {
        for cut in (0..=tar.len()).step_by(512) {
            let what = format!("cut at {cut}");
            if complete.contains(&cut) {
                world.taken(&what, &tar[..cut], &[]);
            } else {
                world.refused(&what, &tar[..cut], ErrorKind::InvalidData, "truncated");
            }
            for odd in [cut + 1, cut + 511] {
                if odd < tar.len() {
                    let what = format!("cut at {odd}");
                    world.refused(&what, &tar[..odd], ErrorKind::InvalidData, "truncated");
                }
            }
        }
    });
}

/// Long enough for several threads, packed and not.
#[test]
fn a_large_stream_cut_at_every_512th_byte_near_its_ends_and_between_is_refused() {
    let Sample { tar, complete } = sample(700 << 10);
    let packed = gzip(&tar);
    on_each_driver(DISK, |world| {
        for (what, stream, may) in [("plain", &tar, &complete[..]), ("packed", &packed, &[])] {
            let near = (512..3 * 512).step_by(512);
            let between = (3 * 512..stream.len()).step_by(512 * at_most(173, 673));
            let end = (stream.len() / 512 * 512 - 8 * 512..stream.len()).step_by(512);
            for cut in near.chain(between).chain(end).filter(|cut| !may.contains(cut)) {
                let what = format!("{what}, cut at {cut}");
                world.refused(&what, &stream[..cut], ErrorKind::InvalidData, "truncated");
            }
        }
        let cut = packed.len() - 1;
        world.refused("the last byte", &packed[..cut], ErrorKind::InvalidData, "truncated");
    });
}

/// Every cut of the compressed stream itself.
#[test]
fn a_packed_stream_cut_anywhere_is_refused() {
    let Sample { tar, .. } = sample(100);
    let streams = [gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()];
    on_each_driver(DISK, |world| {
        for stream in &streams {
            for cut in (2..stream.len()).step_by(at_most(7, 50)) {
                let error = world.create("cut", &stream[..cut]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData, "cut at {cut}: {}", error.report());
            }
        }
        world.assert_clean("cut");
    });
}

#[test]
fn members_one_after_the_other_are_one_stream() {
    let Sample { tar, .. } = sample(700 << 10);
    on_each_driver(DISK, |world| {
        let by = |piece: usize| tar.chunks(piece).flat_map(gzip).collect::<Vec<_>>();
        world.taken("two", &by(tar.len() / 2), &["s/f"]);
        world.taken("many", &by(4096), &["s/f"]);
        let empty = gzip(b"");
        let between =
            [&gzip(&tar[..700]), &empty.repeat(1000), &gzip(&tar[700..]), &empty].map(|v| &v[..]).concat();
        world.taken("empty ones between", &between, &["s/f"]);
        world.taken("padded", &[&gzip(&tar)[..], &[0; 10240]].concat(), &["s/f"]);
        let second = [&gzip(&tar)[..], &gzip(&tar)[..50]].concat();
        world.refused("half a second one", &second, ErrorKind::InvalidData, "truncated");
        let damaged = |at: usize| {
            let mut stream = by(tar.len() / 2);
            let at = stream.len() - at;
            stream[at] ^= 0x10;
            stream
        };
        // Checksum and length at the end of the last member.
        for at in 1..=8 {
            world.refused("trailer", &damaged(at), ErrorKind::InvalidData, "malformed");
        }
        world.refused("content", &damaged(2000), ErrorKind::InvalidData, "");
    });
}

#[test]
fn garbage_behind_a_compressed_stream_is_refused() {
    let Sample { tar, .. } = sample(100);
    let streams = [gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()];
    on_each_driver(DISK, |world| {
        for stream in &streams {
            for garbage in [
                &b"x"[..],
                b"\0x",
                b"\x1f",
                b"\x1f\x8b",
                b"\x1f\x8b\x08",
                &tar[..512],
                b"\x28\xb5",
                &[0xff; 100_000],
            ] {
                let what = garbage[..garbage.len().min(9)].escape_ascii().to_string();
                world.refused(
                    &what,
                    &[stream, garbage].concat(),
                    ErrorKind::InvalidData,
                    "compressed stream",
                );
            }
        }
        // Behind a plain tar it belongs to the digest, as everywhere, and nobody looks at it.
        let hidden = [&tar[..], &Tar::new().file("../evil", "x").end(), b"odd"].concat();
        world.taken("hidden", &hidden, &["s/f"]);
        let id = world.create("hidden", &hidden).unwrap();
        assert!(!world.content(&id).join("evil").exists());
        world.delete(&id);
    });
}

#[test]
fn streams_of_other_formats_are_refused() {
    on_each_driver(DISK, |world| {
        world.taken("nothing at all", b"", &[]);
        world.taken("a packed nothing", &gzip(b""), &[]);
        for (what, stream) in [
            ("zip", &b"PK\x03\x04rest of it that is long enough"[..]),
            ("cpio", b"070701000000000000000000000000"),
            ("ar", b"!<arch>\ndebian-binary   1342943816  0     0     100644  4"),
            ("7z", b"7z\xbc\xaf\x27\x1c\0\0\0\0\0\0\0\0\0\0"),
            ("lz4", b"\x04\x22\x4d\x18\0\0\0\0\0\0\0\0\0\0"),
            ("compress", b"\x1f\x9d\x90\0\0\0\0\0\0\0\0\0\0\0"),
            ("one byte", b"\x1f"),
            ("magic only", b"\x1f\x8b"),
            ("bzip2 without blocks", b"BZh91AY&SY"),
            ("xz header only", b"\xfd7zXZ\0\0\x04"),
            ("zstd magic only", b"\x28\xb5\x2f\xfd"),
        ] {
            world.refused(what, stream, ErrorKind::InvalidData, "");
        }
        // Windows of 2 GiB, which would be allocated.
        let window = b"\x28\xb5\x2f\xfd\0\xa8\x01\0\0rest";
        world.refused("zstd window", window, ErrorKind::LimitExceeded, "a window of 2.0 GiB");
    });
}

/// A stream that does something of its own after some bytes.
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

/// A tar for one thread and one for several, packed and not.
fn tars() -> Vec<Vec<u8>> {
    let tars = [sample(1100).tar, sample(at_most(900, 600) << 10).tar];
    tars.iter().flat_map(|tar| [tar.clone(), gzip(tar)]).collect()
}

#[test]
fn errors_of_the_read_function_are_those_of_the_call() {
    let tars = tars();
    on_each_driver(DISK, |world| {
        for stream in &tars {
            for cut in [0, 5, 512, stream.len() / 2, stream.len() - 1, stream.len()] {
                let feed = |then: &mut (dyn FnMut(&mut [u8]) -> io::Result<usize> + Send)| {
                    world
                        .create_from("source", &mut Source { bytes: &stream[..cut], piece: 4096, then })
                        .unwrap_err()
                };
                for code in [libc::EIO, libc::ECONNRESET, libc::EAGAIN, libc::ENOENT, libc::ENOSPC] {
                    let error = feed(&mut |_| Err(io::Error::from_raw_os_error(code)));
                    assert_eq!(error.errno(), code, "cut at {cut}: {}", error.report());
                }
                let error = feed(&mut |_| Err(Error::new(ErrorKind::Cancelled, "stop").into()));
                assert_eq!(error.kind(), ErrorKind::Cancelled, "cut at {cut}");
            }
            world.assert_clean("errors");
        }
    });
}

#[test]
fn a_read_function_that_says_too_much_is_refused() {
    let tars = tars();
    on_each_driver(DISK, |world| {
        for stream in &tars {
            for cut in [0, 5, 512, stream.len() / 2, stream.len()] {
                for more in [1, 4096, usize::MAX / 2] {
                    let then = |buffer: &mut [u8]| Ok(buffer.len().saturating_add(more));
                    let mut source = Source { bytes: &stream[..cut], piece: 4096, then };
                    let error = world.create_from("source", &mut source).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "cut at {cut}: {}", error.report());
                }
            }
            world.assert_clean("too much");
        }
    });
}

#[test]
fn short_reads_and_interruptions_make_no_difference() {
    let tars = tars();
    on_each_driver(DISK, |world| {
        for stream in &tars {
            for piece in [1, 7, 511, 513, 70_000] {
                if piece < 100 && stream.len() > 100_000 {
                    continue;
                }
                let mut interruptions = 0;
                let then = |_: &mut [u8]| {
                    interruptions += 1;
                    if interruptions < 3 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(0) }
                };
                let id = world.create_from("short", &mut Source { bytes: stream, piece, then }).unwrap();
                world.assert_exact("short", &id, stream);
                world.delete(&id);
            }
        }
        world.assert_clean("short reads");
    });
}

/// Says that it was asked, and waits to be allowed to go on.
struct Blocking<'a> {
    bytes: &'a [u8],
    blocked: Sender<()>,
    go_on: Receiver<()>,
}

impl Read for Blocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.blocked.send(()).unwrap();
        self.go_on.recv().unwrap();
        let most = buffer.len().min(self.bytes.len().div_ceil(4).max(1));
        self.bytes.read(&mut buffer[..most])
    }
}

/// While one caller's stream does not go on, everything else does.
#[test]
fn a_read_function_that_blocks_keeps_nobody_else_waiting() {
    let tars = tars();
    on_each_driver(DISK, |world| {
        for stream in &tars {
            let (blocked, is_blocked) = channel();
            let (allow, go_on) = channel();
            std::thread::scope(|scope| {
                let creating = scope.spawn(move || {
                    world.create_from("blocked", &mut Blocking { bytes: stream, blocked, go_on })
                });
                let mut number = 0;
                while is_blocked.recv().is_ok() {
                    // All of this would hang if anything were held.
                    others_work(world, number);
                    number += 1;
                    allow.send(()).unwrap();
                }
                let id = creating.join().unwrap().unwrap();
                assert!(number > 3);
                world.assert_exact("blocked", &id, stream);
                world.delete(&id);
            });
            world.assert_clean("blocked");
        }
    });
}

fn others_work(world: &World, number: usize) {
    let layers = world.layers();
    assert!(layers.find(id_of("blocked").as_str()).is_none());
    assert!(layers.exists(base_id().as_str()));
    assert_eq!(layers.list().len(), 1);
    let other = format!("other {number}");
    let id = world.create(&other, &Tar::new().file("f", "x").end()).unwrap();
    world.mounted(&other, &id, |merged| assert!(merged.join("f").exists()));
    world.delete(&id);
    assert_eq!(layers.delete(base_id().as_str()).unwrap_err().kind(), ErrorKind::InUse);
}
