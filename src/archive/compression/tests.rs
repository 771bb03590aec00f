// SPDX-License-Identifier: MulanPSL-2.0
//! Formats, members, and what is none.

use super::*;
use std::io::Write;

fn packed(content: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => content.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(content, 1).unwrap(),
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn unpacked(bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    decompressed(Box::new(io::Cursor::new(bytes)))?.read_to_end(&mut content).during(|| "read")?;
    Ok(content)
}

const PACKED: [Compression; 4] = [Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

#[test]
fn each_format_is_known_by_its_magic_and_read() {
    let content = b"the quick brown fox".repeat(1000);
    for compression in PACKED {
        let bytes = packed(&content, compression);
        assert_eq!(detect(&bytes), compression);
        assert_eq!(detect(&packed(b"", compression)), compression);
        assert_eq!(unpacked(bytes).unwrap(), content, "{compression:?}");
    }
    for plain in [&b""[..], b"B", b"BZh", b"BZh9notes.txt", b"\x1f", b"etc/passwd", b"\xfd7zXZ"] {
        if plain != b"BZh" {
            assert_eq!(detect(plain), Compression::None, "{}", plain.escape_ascii());
        }
    }
    assert_eq!(unpacked(b"plain".to_vec()).unwrap(), b"plain");
}

#[test]
fn members_one_after_the_other_are_one_stream() {
    for compression in PACKED {
        let mut bytes = packed(b"one ", compression);
        bytes.extend(packed(b"", compression));
        bytes.extend(packed(b"two", compression));
        assert_eq!(unpacked(bytes.clone()).unwrap(), b"one two", "{compression:?}");
        bytes.extend([0; 512]);
        assert_eq!(unpacked(bytes).unwrap(), b"one two", "{compression:?} with padding");
    }
}

#[test]
fn garbage_behind_the_stream_is_an_error() {
    for compression in PACKED {
        for garbage in [&b"x"[..], b"\0x", b"\x1f", b"\x1f\x8b", b"BZh", b"\xfd7", b"\x28\xb5"] {
            let mut bytes = packed(b"content", compression);
            bytes.extend_from_slice(garbage);
            let error = unpacked(bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{compression:?} {error:?}");
        }
    }
}

/// A pipe may pad for ever.
#[test]
fn padding_has_an_end() {
    for compression in PACKED {
        let stream = io::Cursor::new(packed(b"content", compression)).chain(io::repeat(0));
        let mut content = Vec::new();
        let error =
            decompressed(Box::new(stream)).unwrap().read_to_end(&mut content).during(|| "read").unwrap_err();
        assert_eq!(
            (error.kind(), &content[..]),
            (ErrorKind::LimitExceeded, &b"content"[..]),
            "{compression:?}"
        );
    }
}

#[test]
fn a_cut_or_damaged_stream_is_an_error() {
    let content: Vec<u8> = (0..20_000u32).flat_map(|number| (number * number).to_le_bytes()).collect();
    for compression in PACKED {
        let bytes = packed(&content, compression);
        for cut in [11, 100, bytes.len() / 2, bytes.len() - 1] {
            let error = unpacked(bytes.get(..cut).unwrap().to_vec()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{compression:?} at {cut}: {error:?}");
        }
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        // zstd has no checksum unless asked for; all others must notice.
        if compression != Compression::Zstd {
            assert_eq!(unpacked(damaged).unwrap_err().kind(), ErrorKind::InvalidData, "{compression:?}");
        }
    }
}

#[test]
fn an_error_of_the_source_keeps_its_errno() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ECONNRESET))
        }
    }
    for compression in PACKED {
        let bytes = packed(b"some content", compression);
        let start = io::Cursor::new(bytes.get(..bytes.len() / 2).unwrap().to_vec());
        let mut content = Vec::new();
        let error = decompressed(Box::new(start.chain(Broken)))
            .unwrap()
            .read_to_end(&mut content)
            .during(|| "unpack")
            .unwrap_err();
        assert_eq!(error.errno(), libc::ECONNRESET, "{compression:?}");
    }
}

fn most_empty() -> usize {
    usize::try_from(MOST_EMPTY).unwrap()
}

#[test]
fn members_without_content_are_taken_up_to_a_number_in_a_row() {
    let most = most_empty();
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let mut table: Vec<_> =
        PACKED.iter().map(|compression| (*compression, packed(b"", *compression))).collect();
    table.push((Compression::Zstd, skipped));
    for (compression, empty) in table {
        let content = vec![b'x'; usize::try_from(least(compression)).unwrap()];
        let some = packed(&content, compression);
        let row = empty.repeat(most);
        let fits = [&row[..], &some, &row, &some, &row].concat();
        assert_eq!(unpacked(fits).unwrap(), content.repeat(2), "{compression:?}");
        for more in [[&row[..], &empty, &some].concat(), [&some[..], &row, &empty, &some].concat()] {
            let error = unpacked(more).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{compression:?} {error:?}");
            assert!(error.report().contains("more than 4096"), "{}", error.report());
        }
    }
}

/// As tools write them that compress each file by itself, some of which are empty.
#[test]
fn any_number_of_small_members_is_taken() {
    for compression in [Compression::Bzip2, Compression::Xz] {
        let error = unpacked(packed(b"x", compression).repeat(most_empty() + 2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{compression:?} {error:?}");
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (one, none) = (packed(b"a small file", compression), packed(b"", compression));
        let pair = [&one[..], &none, &none].concat();
        let content = unpacked(pair.repeat(30_000)).unwrap();
        assert_eq!(content.len(), 12 * 30_000, "{compression:?}");
    }
}

/// A frame whose header says that so large a window is needed.
fn zstd_with_window(log: u32, content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(content).unwrap();
    let mut bytes = encoder.finish().unwrap();
    assert_eq!(bytes[4] & 0xe3, 0, "a frame with nothing but its window");
    bytes[5] = u8::try_from((log - 10) << 3).unwrap();
    bytes
}

/// A stream whose block says that so large a dictionary is needed: twice the number is the power of two, odd ones are
/// half as much more.
fn xz_with_dictionary(twice: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = packed(content, Compression::Xz);
    let len = (usize::from(bytes[12]) + 1) * 4;
    let header = &mut bytes[12..12 + len];
    assert_eq!(header[2..4], [0x21, 1], "LZMA2 alone");
    header[4] = twice - 24;
    let mut crc = flate2::Crc::new();
    crc.update(&header[..len - 4]);
    header[len - 4..].copy_from_slice(&crc.sum().to_le_bytes());
    bytes
}

#[test]
fn windows_are_taken_up_to_128_mib_and_named_beyond() {
    let content = b"the quick brown fox".repeat(1000);
    for log in [15, 20, 21, 23, 26, 27] {
        assert_eq!(unpacked(zstd_with_window(log, &content)).unwrap(), content, "2^{log}");
    }
    for twice in [24, 40, 41, 46, 52, 53, 54] {
        assert_eq!(unpacked(xz_with_dictionary(twice, &content)).unwrap(), content, "2^({twice}/2)");
    }
    for (bytes, words) in [
        (zstd_with_window(28, &content), "a window of 256.0 MiB; at most 128.0 MiB"),
        (zstd_with_window(41, &content), "a window of 2.0 TiB; at most 128.0 MiB"),
        (xz_with_dictionary(55, &content), "a dictionary of 192.0 MiB; at most 128.0 MiB"),
        (xz_with_dictionary(56, &content), "a dictionary of 256.0 MiB; at most 128.0 MiB"),
        (xz_with_dictionary(64, &content), "a dictionary of 4.0 GiB; at most 128.0 MiB"),
    ] {
        let error = unpacked(bytes).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::LimitExceeded, libc::EFBIG), "{error:?}");
        assert!(error.report().contains(words), "{}", error.report());
    }
}

/// In pieces of a byte, so that each header comes in many, and with windows that grow and shrink.
#[test]
fn windows_change_within_a_stream() {
    let content = b"the quick brown fox".repeat(100);
    for (make, sizes) in [
        (zstd_with_window as fn(u32, &[u8]) -> Vec<u8>, [12, 27, 20, 23, 24]),
        (
            |twice, content: &[u8]| xz_with_dictionary(u8::try_from(twice).unwrap(), content),
            [24, 54, 40, 46, 48],
        ),
    ] {
        let bytes: Vec<u8> = sizes.iter().flat_map(|size| make(*size, &content)).collect();
        let compression = detect(&bytes);
        let small = BufReader::with_capacity(1, bytes.as_slice());
        let mut back = Vec::new();
        Decoder::new(small, compression).unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, content.repeat(5), "{compression:?}");
    }
}
