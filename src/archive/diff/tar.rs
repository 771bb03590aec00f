// SPDX-License-Identifier: MulanPSL-2.0
//! Headers of a tar, made: POSIX ustar, with PAX records for what has no room there. Pure.
//!
//! Source: POSIX.1-2024 `pax`; GNU tar manual, "Storing Sparse Files", format 1.0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::archive::header::{BLOCK, sign};
use crate::archive::pax::Time;
use crate::archive::sparse::Region;

/// Name of a PAX header itself; readers take no notice of it.
const PAX_NAME: &[u8] = b"././@PaxHeader";
/// What a reader that does not know sparse files calls one.
const SPARSE_DIRECTORY: &[u8] = b"GNUSparseFile.0/";
/// Longest name in a header block.
const NAME_MAX: usize = 100;
/// Highest numbers in fields of 7 and 11 octal digits.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// Types of entries.
pub(super) const FILE: u8 = b'0';
pub(super) const HARD_LINK: u8 = b'1';
pub(super) const SYMLINK: u8 = b'2';
pub(super) const CHAR_DEVICE: u8 = b'3';
pub(super) const BLOCK_DEVICE: u8 = b'4';
pub(super) const DIRECTORY: u8 = b'5';
pub(super) const FIFO: u8 = b'6';
const PAX: u8 = b'x';

/// An entry to be written.
#[derive(Debug, Default)]
pub(super) struct Header<'a> {
    pub(super) kind: u8,
    /// With a slash at the end if it is a directory's.
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// What follows the header, without padding.
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) device: (u64, u64),
    /// Size of the whole file, if what follows is a map and data.
    pub(super) sparse: Option<u64>,
    /// Further records.
    pub(super) records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header<'_> {
    /// The blocks of the header, a PAX header before it included.
    pub(super) fn blocks(&self) -> Vec<u8> {
        let mut short = self.name;
        let stand_in;
        let mut records = Vec::new();
        if self.sparse.is_some() {
            let name = self.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            stand_in = [SPARSE_DIRECTORY, name].concat();
            short = &stand_in;
        }
        let long_name = self.sparse.is_none() && self.name.len() > NAME_MAX;
        let long_link = self.link.len() > NAME_MAX;
        if (long_name || self.sparse.is_some()) && !is_text(self.name) || long_link && !is_text(self.link) {
            record(&mut records, b"hdrcharset", b"BINARY");
        }
        if long_name {
            record(&mut records, b"path", self.name);
        }
        if long_link {
            record(&mut records, b"linkpath", self.link);
        }
        for (key, value, most) in
            [(&b"size"[..], self.size, OCTAL_11), (b"uid", self.uid, OCTAL_7), (b"gid", self.gid, OCTAL_7)]
        {
            if value > most {
                record(&mut records, key, value.to_string().as_bytes());
            }
        }
        let seconds = u64::try_from(self.mtime.seconds).ok().filter(|seconds| *seconds <= OCTAL_11);
        if self.mtime.nanos != 0 || seconds.is_none() {
            record(&mut records, b"mtime", time_text(self.mtime).as_bytes());
        }
        if let Some(size) = self.sparse {
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.minor", b"0");
            record(&mut records, b"GNU.sparse.name", self.name);
            record(&mut records, b"GNU.sparse.realsize", size.to_string().as_bytes());
        }
        for (key, value) in &self.records {
            record(&mut records, key, value);
        }

        let mut blocks = Vec::new();
        if !records.is_empty() {
            let pax =
                Header { kind: PAX, name: PAX_NAME, mode: 0o644, size: len(&records), ..Header::default() };
            blocks.extend_from_slice(&pax.block(PAX_NAME));
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        blocks.extend_from_slice(&self.block(short));
        blocks
    }

    fn block(&self, name: &[u8]) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK);
        let within = |value: u64, most: u64| if value > most { 0 } else { value };
        let seconds = u64::try_from(self.mtime.seconds).unwrap_or_default();
        field(&mut block, name, NAME_MAX);
        octal(&mut block, u64::from(self.mode), 7);
        octal(&mut block, within(self.uid, OCTAL_7), 7);
        octal(&mut block, within(self.gid, OCTAL_7), 7);
        octal(&mut block, within(self.size, OCTAL_11), 11);
        octal(&mut block, within(seconds, OCTAL_11), 11);
        field(&mut block, b"", 8);
        block.push(self.kind);
        field(&mut block, self.link, NAME_MAX);
        field(&mut block, b"ustar\x0000", 8);
        // Names of owners: none.
        field(&mut block, b"", 32 + 32);
        octal(&mut block, self.device.0, 7);
        octal(&mut block, self.device.1, 7);
        block.resize(BLOCK, 0);
        sign(&mut block);
        block
    }
}

/// Text of at most `length` bytes, with NULs behind it.
fn field(block: &mut Vec<u8>, text: &[u8], length: usize) {
    let start = block.len();
    block.extend_from_slice(text.get(..length).unwrap_or(text));
    block.resize(start + length, 0);
}

fn octal(block: &mut Vec<u8>, value: u64, digits: usize) {
    block.extend_from_slice(format!("{value:0digits$o}\0").as_bytes());
}

/// Appends `<length> <keyword>=<value>\n`, the length counting itself.
fn record(records: &mut Vec<u8>, keyword: &[u8], value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(keyword);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The record of an extended attribute. A keyword ends at the first `=`; a name with one goes in libarchive's way, with the
/// name escaped and the value in base64.
pub(super) fn xattr_record(name: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if !name.contains(&b'=') {
        return ([b"SCHILY.xattr.", name].concat(), value.to_vec());
    }
    let mut keyword = b"LIBARCHIVE.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' | b'%' => keyword.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => keyword.push(*byte),
        }
    }
    (keyword, STANDARD_NO_PAD.encode(value).into_bytes())
}

/// The map of a sparse file as it stands before its data, padded.
pub(super) fn sparse_map(map: &[Region], size: u64) -> Vec<u8> {
    let end = map.last().map_or(0, |(offset, length)| offset + length);
    let mut regions = map.to_vec();
    if end < size {
        // A hole at the end shows only so to some readers.
        regions.push((size, 0));
    }
    let mut text = format!("{}\n", regions.len());
    for (offset, length) in regions {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Decimal seconds with a fraction. What lies before 1970 counts backwards.
fn time_text(time: Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

fn is_text(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok()
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_seconds() {
        for (seconds, nanos, text) in [
            (0, 0, "0"),
            (5, 500_000_000, "5.5"),
            (5, 1, "5.000000001"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.5"),
            (-2, 999_999_999, "-1.000000001"),
        ] {
            assert_eq!(time_text(Time { seconds, nanos }), text);
        }
    }

    #[test]
    fn records_count_their_own_length() {
        for (value, expected) in [(1, 6), (93, 99), (94, 101), (95, 102)] {
            let mut records = Vec::new();
            record(&mut records, b"a", &vec![b'x'; value]);
            let (length, _) = std::str::from_utf8(&records).unwrap().split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), records.len());
            assert_eq!(records.len(), expected, "{value}");
        }
    }

    #[test]
    fn attributes_with_an_equals_sign_go_another_way() {
        assert_eq!(xattr_record(b"user.a", b"\0"), (b"SCHILY.xattr.user.a".to_vec(), b"\0".to_vec()));
        let expected = (b"LIBARCHIVE.xattr.user.%25a%3Db".to_vec(), b"aGk".to_vec());
        assert_eq!(xattr_record(b"user.%a=b", b"hi"), expected);
    }

    #[test]
    fn a_map_ends_where_the_file_does() {
        let text = |map: &[Region], size| {
            let map = sparse_map(map, size);
            assert_eq!(map.len(), BLOCK);
            String::from_utf8(map).unwrap().trim_end_matches('\0').to_owned()
        };
        assert_eq!(text(&[], 10), "1\n10\n0\n");
        assert_eq!(text(&[(0, 4), (8, 2)], 10), "2\n0\n4\n8\n2\n");
        assert_eq!(text(&[(0, 4)], 10), "2\n0\n4\n10\n0\n");
    }
}
