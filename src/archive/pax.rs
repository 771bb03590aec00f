// SPDX-License-Identifier: MulanPSL-2.0
//! PAX extended headers: records `<length> <keyword>=<value>\n` that override fields of the header they precede.
//!
//! Taken: path, linkpath, size, uid, gid, mtime, atime; extended attributes as `SCHILY.xattr.` (raw bytes) and
//! `LIBARCHIVE.xattr.` (percent-encoded name, base64 value); access control lists as `SCHILY.acl.access` and
//! `SCHILY.acl.default` (text); device numbers as `SCHILY.devmajor` and `SCHILY.devminor`; the three forms of GNU
//! sparse files. Ignored: uname and gname (owners are numeric), ctime, comment, hdrcharset (names are bytes), file
//! flags, and everything unknown. An empty value takes an override back, except for extended attributes, where it
//! is a value.
//!
//! Pure: bytes in, values out.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Xattr {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// From `LIBARCHIVE.xattr.`, which yields to `SCHILY.xattr.`.
    second_hand: bool,
}

/// What GNU tar says of a sparse file in extended headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SparseKeys {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` (0.x) or `GNU.sparse.realsize` (1.x).
    pub(super) real_size: Option<u64>,
    /// The map of formats 0.0 and 0.1.
    pub(super) map: Vec<(u64, u64)>,
    /// An offset of format 0.0 that waits for its length.
    offset: Option<u64>,
    pub(super) mapped: bool,
}

/// What extended headers say of the next entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) acl_access: Option<Vec<u8>>,
    pub(super) acl_default: Option<Vec<u8>>,
    pub(super) sparse: Option<Box<SparseKeys>>,
}

impl Extended {
    /// Takes the records of one extended header.
    pub(super) fn parse(&mut self, body: &[u8]) -> Result<(), String> {
        for_each_record(body, |keyword, value| self.take(keyword, value))
    }

    /// Takes the records of a global header, which hold for all entries that follow.
    pub(super) fn parse_global(&mut self, body: &[u8]) -> Result<(), String> {
        for_each_record(body, |keyword, value| {
            // These make no sense for every entry at once, and readers disagree on what they do.
            let one_entry = matches!(keyword, b"path" | b"linkpath" | b"size");
            if one_entry || keyword.starts_with(b"GNU.sparse.") {
                return Err(format!("a global header sets {} for all entries", show(keyword)));
            }
            self.take(keyword, value)
        })
    }

    fn take(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), String> {
        let wrong = |what: &str| format!("record {} {what}: {}", show(keyword), show(value));
        let text = |value: &[u8]| {
            if value.contains(&0) {
                return Err(wrong("has a NUL"));
            }
            Ok((!value.is_empty()).then(|| value.to_vec()))
        };
        let unsigned = |value: &[u8]| {
            if value.is_empty() {
                return Ok(None);
            }
            decimal(value).map(Some).ok_or_else(|| wrong("is not a number"))
        };
        let time = |value: &[u8]| {
            if value.is_empty() {
                return Ok(None);
            }
            timestamp(value).map(Some).ok_or_else(|| wrong("is not a time"))
        };
        match keyword {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.linkpath = text(value)?,
            b"size" => self.size = unsigned(value)?,
            b"uid" => self.uid = unsigned(value)?,
            b"gid" => self.gid = unsigned(value)?,
            b"mtime" => self.mtime = time(value)?,
            b"atime" => self.atime = time(value)?,
            b"SCHILY.devmajor" => self.major = unsigned(value)?,
            b"SCHILY.devminor" => self.minor = unsigned(value)?,
            b"SCHILY.acl.access" => self.acl_access = text(value)?,
            b"SCHILY.acl.default" => self.acl_default = text(value)?,
            _ => {
                if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec(), false)?;
                } else if let Some(name) = keyword.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = percent_decoded(name).ok_or_else(|| wrong("has a malformed name"))?;
                    let value = value.trim_ascii();
                    let value = STANDARD_NO_PAD.decode(value).or_else(|_| STANDARD.decode(value));
                    self.xattr(name, value.map_err(|_| wrong("is not base64"))?, true)?;
                } else if let Some(name) = keyword.strip_prefix(b"GNU.sparse.") {
                    let sparse = self.sparse.get_or_insert_default();
                    sparse.take(name, value).map_err(wrong)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>, second_hand: bool) -> Result<(), String> {
        if name.is_empty() || name.contains(&0) {
            return Err(format!("extended attribute has an impossible name {}", show(&name)));
        }
        match self.xattrs.iter_mut().find(|known| known.name == name) {
            Some(known) if second_hand && !known.second_hand => {}
            Some(known) => *known = Xattr { name, value, second_hand },
            None => self.xattrs.push(Xattr { name, value, second_hand }),
        }
        Ok(())
    }
}

impl SparseKeys {
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || decimal(value).ok_or("is not a number");
        match name {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"name" => {
                if value.is_empty() || value.contains(&0) {
                    return Err("is not a name");
                }
                self.name = Some(value.to_vec());
            }
            b"size" | b"realsize" => self.real_size = Some(number()?),
            b"offset" => {
                if self.offset.replace(number()?).is_some() {
                    return Err("is an offset without a length");
                }
                self.mapped = true;
            }
            b"numbytes" => {
                let offset = self.offset.take().ok_or("is a length without an offset")?;
                self.map.push((offset, number()?));
            }
            b"map" => {
                self.map.clear();
                self.mapped = true;
                let mut numbers = value.split(|byte| *byte == b',');
                while let Some(offset) = numbers.next().filter(|text| !text.is_empty()) {
                    let length = numbers.next().ok_or("is a map of odd length")?;
                    let region = decimal(offset).zip(decimal(length)).ok_or("is not made of numbers")?;
                    self.map.push(region);
                }
            }
            // The count of format 0.0 says nothing that the map does not.
            _ => {}
        }
        Ok(())
    }
}

fn for_each_record(
    mut body: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    while !body.is_empty() {
        let (record, rest) = split_record(body).ok_or_else(|| {
            let head = body.get(..body.len().min(32)).unwrap_or_default();
            format!("malformed record at {}", show(head))
        })?;
        let equals = record.iter().position(|byte| *byte == b'=').unwrap_or(0);
        let (keyword, value) = record.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        if keyword.is_empty() || keyword.contains(&0) {
            return Err(format!("record without a keyword: {}", show(record)));
        }
        take(keyword, value)?;
        body = rest;
    }
    Ok(())
}

/// Splits `<length> <record>\n` off; the length counts itself, the blank and the newline.
fn split_record(body: &[u8]) -> Option<(&[u8], &[u8])> {
    // 20 digits hold any length; more is an attempt to make us search.
    let blank = body.iter().take(21).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(body.get(..blank)?)?).ok()?;
    if length < blank + 2 || length > body.len() {
        return None;
    }
    let (record, rest) = body.split_at(length);
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    Some((record, rest))
}

/// Decimal digits, at least one, within 63 bits.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in text {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    i64::try_from(value).is_ok().then_some(value)
}

/// `[-]seconds[.fraction]`; digits below a nanosecond are cut off towards the past.
fn timestamp(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at(point);
    let fraction = fraction.get(1..).unwrap_or_default();
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0u32;
    for place in 0..9 {
        let digit = fraction.get(place).map_or(0, |digit| digit - b'0');
        nanos = nanos * 10 + u32::from(digit);
    }
    let below = fraction.iter().skip(9).any(|digit| *digit != b'0');
    if !negative {
        return Some(Time { seconds, nanos });
    }
    let nanos = if below { nanos + 1 } else { nanos };
    if nanos == 0 {
        Some(Time { seconds: -seconds, nanos: 0 })
    } else {
        Some(Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos })
    }
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(*digit).to_digit(16));
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(bytes)
}

/// Bytes of an archive for a message: escaped, and cut where they get long.
pub(super) fn show(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let cut = bytes.get(..bytes.len().min(MOST)).unwrap_or_default();
    let dots = if bytes.len() > MOST { "…" } else { "" };
    match std::str::from_utf8(cut) {
        Ok(text) => format!("{text:?}{dots}"),
        Err(_) => format!("\"{}\"{dots}", cut.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
        let rest = keyword.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        let mut bytes = format!("{length} {keyword}=").into_bytes();
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn records_override_fields() {
        let mut body = record("path", b"a\xff/b");
        body.extend(record("size", b"8589934592"));
        body.extend(record("mtime", b"1.5"));
        body.extend(record("SCHILY.xattr.user.a", b"x\ny\0=z"));
        body.extend(record("SCHILY.xattr.user.empty", b""));
        body.extend(record("LIBARCHIVE.xattr.user.a", b"bm8"));
        body.extend(record("LIBARCHIVE.xattr.user.%25b", b"aGk="));
        body.extend(record("uname", b"nobody"));
        let mut extended = Extended::default();
        extended.parse(&body).unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a\xff/b"[..]));
        assert_eq!(extended.size, Some(1 << 33));
        assert_eq!(extended.mtime, Some(Time { seconds: 1, nanos: 500_000_000 }));
        let xattrs: Vec<_> =
            extended.xattrs.iter().map(|xattr| (xattr.name.as_slice(), xattr.value.as_slice())).collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"user.a", b"x\ny\0=z"), (b"user.empty", b""), (b"user.%b", b"hi")];
        assert_eq!(xattrs, expected);
    }

    #[test]
    fn lying_lengths_are_refused() {
        for body in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"6 a=b ",
            b"0 a=b\n",
            b"2 \n",
            b"99999999999999999999999 a=b\n",
            b"-6 a=b\n",
            b"6  a=b\n",
            b"4 =\n",
            b"5 =b\n",
            b"6 abc\n",
            b"x",
            b"\0\0\0\0",
            b"6 a=b\n\0",
        ] {
            let mut extended = Extended::default();
            assert!(extended.parse(body).is_err(), "{}", show(body));
        }
        Extended::default().parse(b"6 a=b\n").unwrap();
    }

    #[test]
    fn impossible_values_are_refused() {
        for (keyword, value) in [
            ("path", &b"a\0b"[..]),
            ("linkpath", b"\0"),
            ("size", b"-1"),
            ("size", b"1e3"),
            ("size", b"9223372036854775808"),
            ("uid", b"x"),
            ("mtime", b"1.x"),
            ("mtime", b"--1"),
            ("GNU.sparse.map", b"1,2,3"),
            ("GNU.sparse.map", b"1,-2"),
            ("GNU.sparse.numbytes", b"1"),
            ("GNU.sparse.name", b""),
            ("LIBARCHIVE.xattr.user.%2", b""),
            ("LIBARCHIVE.xattr.user.a", b"*"),
            ("SCHILY.xattr.", b"x"),
        ] {
            let mut extended = Extended::default();
            assert!(extended.parse(&record(keyword, value)).is_err(), "{keyword} {}", show(value));
        }
    }

    #[test]
    fn global_headers_set_owners_and_times_only() {
        let mut extended = Extended::default();
        extended.parse_global(&record("gid", b"5")).unwrap();
        extended.parse_global(&record("comment", b"text")).unwrap();
        assert_eq!(extended.gid, Some(5));
        for keyword in ["path", "linkpath", "size", "GNU.sparse.map"] {
            assert!(extended.parse_global(&record(keyword, b"1")).is_err(), "{keyword}");
        }
    }

    #[test]
    fn times_before_the_epoch_and_below_a_nanosecond() {
        for (text, seconds, nanos) in [
            ("0", 0, 0),
            ("12.", 12, 0),
            ("12.000000001", 12, 1),
            ("12.0000000019", 12, 1),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("-0.0000000001", -1, 999_999_999),
        ] {
            assert_eq!(timestamp(text.as_bytes()), Some(Time { seconds, nanos }), "{text}");
        }
    }
}
