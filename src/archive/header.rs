// SPDX-License-Identifier: MulanPSL-2.0
//! One 512-byte header block of a tar: v7, ustar, GNU (and star, which is ustar with a shorter prefix).
//!
//! Pure: block in, values out. Source: POSIX.1-2024 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar
//! Format".

use std::ops::Range;

/// Length of a block; everything in a tar is a multiple of it.
pub(super) const BLOCK: usize = 512;

/// Which of the dialects a block claims to be; decides where a name continues and whether it can be sparse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_SPARSE: Range<usize> = 386..482;
const GNU_EXTENDED: usize = 482;
const GNU_REAL_SIZE: Range<usize> = 483..495;
/// An extension block of an old GNU sparse map: 21 pairs, then the flag "one more follows".
const EXTENSION: Range<usize> = 0..504;
const EXTENSION_MORE: usize = 504;

impl<'a> Header<'a> {
    /// Takes a block whose checksum is right, by the unsigned sum or by the signed one of some old writers.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, &'static str> {
        let header = Header(block);
        let stored = number(header.field(CHECKSUM)).ok_or("header checksum is not a number")?;
        let mut unsigned = 0i64;
        let mut signed = 0i64;
        for (at, byte) in block.iter().enumerate() {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored == unsigned || stored == signed {
            Ok(header)
        } else {
            Err("header checksum does not match")
        }
    }

    fn field(&self, range: Range<usize>) -> &'a [u8] {
        self.0.get(range).unwrap_or_default()
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.field(MAGIC) {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if self.field(STAR_TRAILER) == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0.get(TYPE).copied().unwrap_or_default()
    }

    /// Appends the name, with its prefix where the dialect has one.
    pub(super) fn name(&self, name: &mut Vec<u8>) {
        let prefix = match self.dialect() {
            Dialect::Ustar => text(self.field(PREFIX)),
            Dialect::Star => text(self.field(STAR_PREFIX)),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
        name.extend_from_slice(text(self.field(NAME)));
    }

    pub(super) fn link(&self) -> &'a [u8] {
        text(self.field(LINK))
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        let size = number(self.field(SIZE)).ok_or("size is not a number")?;
        u64::try_from(size).map_err(|_| "size is negative")
    }

    /// The permission bits with set-uid, set-gid and sticky; the file type that some v7 writers add is cut off.
    pub(super) fn mode(&self) -> Result<u32, &'static str> {
        let mode = number(self.field(MODE)).ok_or("mode is not a number")?;
        u32::try_from(mode & 0o7777).map_err(|_| "mode is out of range")
    }

    pub(super) fn uid(&self) -> Result<u64, &'static str> {
        let uid = number(self.field(UID)).ok_or("user id is not a number")?;
        u64::try_from(uid).map_err(|_| "user id is negative")
    }

    pub(super) fn gid(&self) -> Result<u64, &'static str> {
        let gid = number(self.field(GID)).ok_or("group id is not a number")?;
        u64::try_from(gid).map_err(|_| "group id is negative")
    }

    pub(super) fn mtime(&self) -> Result<i64, &'static str> {
        number(self.field(MTIME)).ok_or("modification time is not a number")
    }

    /// Major and minor number of a device; v7 headers have none.
    pub(super) fn device(&self) -> Result<(u64, u64), &'static str> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        let part = |range| number(self.field(range)).and_then(|value| u64::try_from(value).ok());
        part(MAJOR).zip(part(MINOR)).ok_or("device number is not a number")
    }

    /// Size of the expanded file of an old GNU sparse entry.
    pub(super) fn real_size(&self) -> Result<u64, &'static str> {
        let size = number(self.field(GNU_REAL_SIZE)).ok_or("sparse file size is not a number")?;
        u64::try_from(size).map_err(|_| "sparse file size is negative")
    }

    /// Appends the pairs of an old GNU sparse map; true when an extension block follows.
    pub(super) fn sparse_map(&self, map: &mut Vec<(u64, u64)>) -> Result<bool, &'static str> {
        sparse_pairs(self.field(GNU_SPARSE), map)?;
        Ok(self.0.get(GNU_EXTENDED).is_some_and(|flag| *flag != 0))
    }
}

/// Appends the pairs of an extension block of an old GNU sparse map; true when another follows.
pub(super) fn sparse_extension(block: &[u8; BLOCK], map: &mut Vec<(u64, u64)>) -> Result<bool, &'static str> {
    sparse_pairs(block.get(EXTENSION).unwrap_or_default(), map)?;
    Ok(block.get(EXTENSION_MORE).is_some_and(|flag| *flag != 0))
}

fn sparse_pairs(bytes: &[u8], map: &mut Vec<(u64, u64)>) -> Result<(), &'static str> {
    let unsigned = |field| number(field).and_then(|value| u64::try_from(value).ok());
    for pair in bytes.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        // A pair that starts with NUL ends the map.
        if offset.first() == Some(&0) {
            break;
        }
        let region = unsigned(offset).zip(unsigned(length)).ok_or("sparse map is not made of numbers")?;
        map.push(region);
    }
    Ok(())
}

/// Gives a block the checksum it should have.
pub(super) fn sign(block: &mut [u8]) {
    if let Some(field) = block.get_mut(CHECKSUM) {
        field.fill(b' ');
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    if let Some(field) = block.get_mut(CHECKSUM).filter(|field| field.len() == text.len()) {
        field.copy_from_slice(text.as_bytes());
    }
}

/// A text field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    field.get(..end).unwrap_or_default()
}

/// A number: octal text between blanks and NULs (nothing at all is 0), or base-256 when the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => base256(*first, rest),
        _ => octal(field),
    }
}

/// Two's complement big-endian without the marking first bit.
fn base256(first: u8, rest: &[u8]) -> Option<i64> {
    let negative = first & 0x40 != 0;
    let start = if negative { i128::from(first | 0x80) - 256 } else { i128::from(first & 0x7f) };
    let mut value = start;
    for byte in rest {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = field.get(start..).unwrap_or_default();
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let (digits, after) = digits.split_at(end);
    if !after.iter().all(blank) {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let table: &[(&[u8], Option<i64>)] = &[
            (b"", Some(0)),
            (b"\0\0\0\0", Some(0)),
            (b"       ", Some(0)),
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"64 4\0", None),
            (b"7777777777777777777777777", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", Some(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xc0\0\0\0\0\0\0\0\0\0\0\0", None),
        ];
        for (field, value) in table {
            assert_eq!(number(field), *value, "{:?}", field.escape_ascii().to_string());
        }
    }

    #[test]
    fn either_checksum_is_taken_and_no_other() {
        let mut block = [0u8; BLOCK];
        block[0] = 0xff;
        for (sum, good) in [(0xff + 8 * 32, true), (8 * 32 - 1, true), (8 * 32, false), (0, false)] {
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert_eq!(Header::parse(&block).is_ok(), good, "{sum}");
        }
    }
}
