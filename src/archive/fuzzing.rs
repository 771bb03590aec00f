// SPDX-License-Identifier: MulanPSL-2.0
//! Entry points for fuzzing: the parsers alone, without a file system, and unpacking into a directory that is given; with what
//! must hold whatever the input.

#![allow(clippy::panic, reason = "a broken invariant is what a fuzzer looks for")]

use std::io::Read;
use std::os::fd::BorrowedFd;

use crate::archive::Limits;
use crate::archive::apply::apply_in_chunks;
use crate::archive::compression::{self, Decoder};
use crate::archive::entry::{Entry, Reader};
use crate::archive::header;
use crate::archive::headers::Headers;
use crate::archive::pipe::Sizes;
use crate::archive::tar_split::{self, Content, Line};
use crate::archive::whiteout;
use crate::archive::{
    Applied, ApplyOptions, Compression, OwnerShift, VerifyOptions, Whiteouts, rebuild, verify,
};
use crate::digest::Digest;
use crate::error::Result;
use crate::units::Bytes;

fn limits() -> Limits {
    Limits { entries: 10_000, extended_header: 64 << 10, ..Limits::default() }
}

/// Reads a tar. What the reader gives as headers and content, in order, are the bytes it was given.
pub fn tar_reader(tar: &[u8]) {
    let mut reader = Reader::new(tar, &limits());
    let mut entry = Entry::default();
    let mut seen = Vec::with_capacity(tar.len());
    let mut path = Vec::new();
    loop {
        match reader.next(&mut entry) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return,
        }
        seen.extend_from_slice(reader.raw());
        reader.clear_raw();
        let mut stored = 0u64;
        loop {
            let Ok(piece) = reader.content() else { return };
            let count = piece.len();
            if count == 0 {
                break;
            }
            seen.extend_from_slice(piece);
            stored += count as u64;
            reader.consume(count);
        }
        let promised =
            entry.sparse.as_ref().map_or(entry.size, |map| map.iter().map(|(_, length)| length).sum());
        assert_eq!(stored, promised, "content of another length than promised");
        if whiteout::clean(&entry.name, &mut path).is_ok() {
            check_path(&path);
        }
    }
    seen.extend_from_slice(reader.raw());
    if let Ok(rest) = reader.rest() {
        seen.extend_from_slice(rest);
    }
    assert!(seen == tar, "the pieces are not the archive");
}

fn check_path(path: &[u8]) {
    for component in path.split(|byte| *byte == b'/') {
        let clean = !matches!(component, b"." | b"..") && !component.contains(&0);
        assert!(clean && (path.is_empty() || !component.is_empty()), "a path that is not clean");
    }
    if let Ok(whiteout::Meaning::Hidden { name, .. }) = whiteout::meaning(path, Whiteouts::Overlay) {
        assert!(!matches!(name, b"" | b"." | b".."), "a whiteout of a directory itself");
    }
}

/// Reads the same bytes as a tar whose header blocks all have the right checksum, so that a fuzzer gets past it.
pub fn tar_reader_signed(tar: &[u8]) {
    tar_reader(&signed(tar));
}

fn signed(tar: &[u8]) -> Vec<u8> {
    let mut signed = tar.to_vec();
    for block in signed.chunks_exact_mut(header::BLOCK) {
        // Blocks marked as content by their last byte stay as they are.
        if block.last() != Some(&0xff) && block.iter().any(|byte| *byte != 0) {
            header::sign(block);
        }
    }
    signed
}

/// Reads a tar-split stream, uncompressed. What is read and written again is read as the same.
pub fn tar_split(lines: &[u8]) {
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(line) = tar_split::parse_line(line) else { continue };
        let mut packed = Vec::new();
        let mut writer = tar_split::Writer::new(tar_split::Packer::new(&mut packed));
        let written = match &line {
            Line::Segment(bytes) if bytes.len() < 1000 => writer.segment(bytes),
            Line::Entry(record) => {
                let content = record.crc.filter(|_| record.size != 0);
                let content =
                    content.map(|crc| Content { size: record.size, crc, sparse: record.sparse.as_deref() });
                writer.entry(&record.name, record.path.as_deref(), content.as_ref())
            }
            _ => continue,
        };
        let finished = writer.finish().and_then(tar_split::Packer::finish);
        assert!(written.is_ok() && finished.is_ok(), "writing to memory failed");
        let mut source = packed.as_slice();
        let again = tar_split::Lines::new(&mut source).and_then(|mut lines| lines.next());
        match (&line, again) {
            (Line::Segment(bytes), Ok(Some(Line::Segment(again)))) => assert_eq!(*bytes, again),
            (Line::Segment(bytes), Ok(None)) => assert!(bytes.is_empty()),
            (Line::Entry(record), Ok(Some(Line::Entry(again)))) => {
                assert_eq!((&record.name, &record.path), (&again.name, &again.path));
                if record.crc.is_some() && record.size != 0 {
                    assert_eq!((record.size, record.crc), (again.size, again.crc));
                    assert_eq!(record.sparse, again.sparse);
                }
            }
            (line, again) => panic!("{line:?} was written and read as {again:?}"),
        }
    }
    let mut source = lines;
    if let Ok(mut lines) = tar_split::Lines::new(&mut source) {
        while let Ok(Some(_)) = lines.next() {}
    }
    let mut headers = Headers::new();
    for line in lines.split(|byte| *byte == b'\n') {
        match tar_split::parse_line(line) {
            Ok(Line::Segment(bytes)) => headers.segment(&bytes),
            Ok(Line::Entry(record)) => {
                if let Some(entry) = headers.entry(&record) {
                    assert!(record.size == 0 || entry.size == record.size, "headers of another entry");
                }
            }
            _ => {}
        }
    }
}

/// Decompresses a stream, at most 16 MiB of it.
pub fn decompression(stream: &[u8]) {
    let compression = compression::detect(stream);
    let Ok(decoder) = Decoder::new(stream, compression) else { return };
    let mut content = Vec::new();
    let outcome = decoder.take(16 << 20).read_to_end(&mut content);
    if compression == Compression::None {
        assert!(outcome.is_ok() && content.len() == stream.len().min(16 << 20), "plain bytes changed");
    }
}

/// Unpacks a layer twice, into two empty directories: in one thread, and in three over chunks of a few bytes. Both come to
/// the same; what was unpacked is what the tar-split stream says, and gives the exact tar back.
pub fn unpacking(layer: &[u8], alone: BorrowedFd<'_>, together: BorrowedFd<'_>) {
    let options = ApplyOptions {
        limits: Limits {
            entries: 200,
            stream: Bytes(1 << 20),
            extended_header: 64 << 10,
            ..Limits::default()
        },
        owners: false,
        ..ApplyOptions::default()
    };
    let unpack = |target, sizes| -> Result<(Applied, Vec<u8>)> {
        let mut tar_split = Vec::new();
        let mut source = layer;
        let applied = apply_in_chunks(&mut source, target, &mut tar_split, &options, sizes)?;
        Ok((applied, tar_split))
    };
    let one = unpack(alone, Sizes { chunk: 64 << 10, alone: usize::MAX });
    let three = unpack(together, Sizes { chunk: 1 + layer.len() % 700, alone: 0 });
    // Where a stretch of headers is cut into lines may differ.
    let (applied, tar_splits) = match (one, three) {
        (Ok(one), Ok(three)) => {
            assert_eq!(one.0, three.0, "threads find something else");
            (one.0, [one.1, three.1])
        }
        // Which of two errors comes first may depend on the pieces in which a decoder is asked for its output.
        (Err(_), Err(_)) => return,
        (one, three) => panic!("alone {:?}, with threads {:?}", one.map(|_| ()), three.map(|_| ())),
    };
    let mut plain = Vec::new();
    let decoder = Decoder::new(layer, applied.compression);
    let read = decoder.map(|mut decoder| decoder.read_to_end(&mut plain));
    assert!(matches!(read, Ok(Ok(_))), "what was unpacked can be decompressed");
    assert_eq!(applied.diff_id, Digest::of(&plain));
    for (target, tar_split) in [alone, together].into_iter().zip(&tar_splits) {
        // Owners are those of whoever runs this, as in no namespace.
        let shift = OwnerShift { uid: u32::MAX, gid: u32::MAX };
        let options = VerifyOptions { owner_shift: Some(shift), ..VerifyOptions::default() };
        match verify(&mut tar_split.as_slice(), target, &options) {
            Ok(verdict) => assert_eq!(verdict, crate::archive::Verdict::Valid),
            // Without privileges the mode of a file may keep its owner from reading it.
            Err(error) if error.errno() == libc::EACCES => return,
            Err(error) => panic!("verify: {}", error.report()),
        }
        let mut tar = Vec::new();
        match rebuild(&mut tar_split.as_slice(), target, &mut tar) {
            Ok((digest, _)) => assert!(tar == plain && digest == applied.diff_id, "another tar"),
            Err(error) if error.errno() == libc::EACCES => return,
            Err(error) => panic!("rebuild: {}", error.report()),
        }
    }
}

/// The same, and with right checksums; see [`tar_reader_signed`].
pub fn unpacking_signed(layer: &[u8], alone: BorrowedFd<'_>, together: BorrowedFd<'_>) {
    unpacking(&signed(layer), alone, together);
}
