// SPDX-License-Identifier: MulanPSL-2.0
//! POSIX access control lists: from the text of `SCHILY.acl.*` to what the kernel keeps in
//! `system.posix_acl_*`, and shifted into a user namespace.
//!
//! Pure. Source: `acl(5)`; `linux/posix_acl_xattr.h`.

use crate::archive::OwnerShift;

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

/// One entry: tag, permissions, id.
type Entry = (u16, u16, u32);

/// The kernel's form of a list in text, entries parted by commas or newlines: `user::rwx,user:1000:r--,mask::r--`,
/// with the numeric id also as a fourth field. `None` when an entry is malformed or names somebody without a number:
/// names mean nothing outside the layer.
pub(super) fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.split([',', '\n']) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            entries.push(entry(line)?);
        }
    }
    if entries.is_empty() {
        return None;
    }
    entries.sort_by_key(|(tag, _, id)| (*tag, *id));
    Some(encode(&entries))
}

fn entry(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split(':').map(str::trim).collect();
    let (tag, name, permissions, id) = match fields.as_slice() {
        // `mask:r--` and `other:r--` exist as well.
        [tag @ ("m" | "mask" | "o" | "other"), permissions] => (*tag, "", *permissions, None),
        [tag, name, permissions] => (*tag, *name, *permissions, None),
        [tag, name, permissions, id] => (*tag, *name, *permissions, Some(*id)),
        _ => return None,
    };
    let number = || match id {
        Some(id) if !id.is_empty() => id.parse().ok(),
        _ => name.parse().ok(),
    };
    let (tag, id) = match (tag, name.is_empty() && id.unwrap_or_default().is_empty()) {
        ("u" | "user", true) => (USER_OBJ, NO_ID),
        ("u" | "user", false) => (USER, number()?),
        ("g" | "group", true) => (GROUP_OBJ, NO_ID),
        ("g" | "group", false) => (GROUP, number()?),
        ("m" | "mask", true) => (MASK, NO_ID),
        ("o" | "other", true) => (OTHER, NO_ID),
        _ => return None,
    };
    let mut bits = 0;
    for permission in permissions.chars() {
        bits |= match permission {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return None,
        };
    }
    Some((tag, bits, id))
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// The kernel's form with named users and groups shifted. `None` when it is malformed or an id leaves the range.
pub(super) fn shifted(value: &[u8], shift: OwnerShift) -> Option<Vec<u8>> {
    with_ids(value, |tag, id| match tag {
        USER => id.checked_add(shift.uid).filter(|id| *id != NO_ID),
        GROUP => id.checked_add(shift.gid).filter(|id| *id != NO_ID),
        _ => Some(id),
    })
}

/// The shift taken back. `None` when it is malformed or an id is none of the user namespace.
pub(super) fn unshifted(value: &[u8], shift: OwnerShift) -> Option<Vec<u8>> {
    with_ids(value, |tag, id| match tag {
        USER => id.checked_sub(shift.uid),
        GROUP => id.checked_sub(shift.gid),
        _ => Some(id),
    })
}

fn with_ids(value: &[u8], change: impl Fn(u16, u32) -> Option<u32>) -> Option<Vec<u8>> {
    let entries = decode(value)?.into_iter();
    let changed = entries.map(|(tag, permissions, id)| Some((tag, permissions, change(tag, id)?)));
    Some(encode(&changed.collect::<Option<Vec<_>>>()?))
}

fn decode(value: &[u8]) -> Option<Vec<Entry>> {
    let (version, rest) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
        return None;
    }
    let mut entries = Vec::with_capacity(rest.len() / 8);
    for bytes in rest.chunks_exact(8) {
        let (tag, bytes) = bytes.split_first_chunk::<2>()?;
        let (permissions, bytes) = bytes.split_first_chunk::<2>()?;
        let (id, _) = bytes.split_first_chunk::<4>()?;
        entries.push((u16::from_le_bytes(*tag), u16::from_le_bytes(*permissions), u32::from_le_bytes(*id)));
    }
    Some(entries)
}

/// The text of a list in the kernel's form, with numbers for names; `None` when it is malformed.
pub(super) fn to_text(value: &[u8]) -> Option<String> {
    let entries = decode(value)?.into_iter().map(|(tag, permissions, id)| {
        let (name, id) = match tag {
            USER_OBJ => ("user", None),
            USER => ("user", Some(id)),
            GROUP_OBJ => ("group", None),
            GROUP => ("group", Some(id)),
            MASK => ("mask", None),
            OTHER => ("other", None),
            _ => return None,
        };
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let bit = |mask: u16, letter| if permissions & mask == 0 { '-' } else { letter };
        Some(format!("{name}:{id}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')))
    });
    let entries: Option<Vec<String>> = entries.collect();
    entries.filter(|entries| !entries.is_empty()).map(|entries| entries.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_kernel_keeps() {
        let expected = encode(&[
            (USER_OBJ, 6, NO_ID),
            (USER, 4, 5),
            (USER, 7, 1000),
            (GROUP_OBJ, 4, NO_ID),
            (GROUP, 5, 33),
            (MASK, 7, NO_ID),
            (OTHER, 0, NO_ID),
        ]);
        for text in [
            "user::rw-,user:1000:rwx,user:5:r--,group::r--,group:33:r-x,mask::rwx,other::---",
            "user::rw-\nuser:joe:rwx:1000\nuser:5:r--\ngroup::r--\ngroup:www:r-x:33\nmask::rwx\nother::---\n",
            "u::rw,u:1000:rwx #effective:rwx,g::r,g:33:rx,m:rwx,o:---,u:5:r",
        ] {
            assert_eq!(from_text(text.as_bytes()).as_deref(), Some(&expected[..]), "{text}");
        }
        for text in ["", "user:joe:rwx", "user::rws", "user", "x::r", "mask:5:r", "user:1:r:x", "\u{1}"] {
            assert_eq!(from_text(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn named_entries_are_shifted() {
        let list = encode(&[(USER_OBJ, 6, NO_ID), (USER, 4, 5), (GROUP, 5, 33), (OTHER, 0, NO_ID)]);
        let expected = encode(&[(USER_OBJ, 6, NO_ID), (USER, 4, 1005), (GROUP, 5, 2033), (OTHER, 0, NO_ID)]);
        let shift = OwnerShift { uid: 1000, gid: 2000 };
        assert_eq!(shifted(&list, shift), Some(expected.clone()));
        assert_eq!(unshifted(&expected, shift), Some(list.clone()));
        assert_eq!(unshifted(&list, shift), None, "nobody outside of the namespace can be named in it");
        assert_eq!(shifted(&list, OwnerShift { uid: u32::MAX, gid: 0 }), None);
        assert_eq!(shifted(b"\x02\0\0\0\x01", shift), None);
        assert_eq!(shifted(b"\x01\0\0\0", shift), None);
    }

    #[test]
    fn lists_become_text_and_back() {
        let text = "user::rw-,user:5:r--,group::r-x,group:33:--x,mask::rwx,other::---";
        let list = from_text(text.as_bytes()).unwrap();
        assert_eq!(to_text(&list).as_deref(), Some(text));
        for bad in [&b""[..], b"\x02\0\0\0", b"\x02\0\0\0\x03\0\0\0\0\0\0\0", b"\x02\0\0\0\x01"] {
            assert_eq!(to_text(bad), None);
        }
    }
}
