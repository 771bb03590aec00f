// SPDX-License-Identifier: MulanPSL-2.0
//! The bytes of the format.

use super::page::{
    FREELIST, Header, LeafItem, Page, encode_branch, encode_freelist, encode_leaf, parse_freelist,
};
use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that the original writes into a new file; the checksums are from one.
#[cfg(target_endian = "little")]
#[test]
fn a_new_file_has_the_bytes_of_the_format() {
    let content = new_file(4096).unwrap();
    assert_eq!(content.len(), 4 * 4096);
    for (at, page, sum) in
        [(0, "0000000000000000", "eefd8946116e5107"), (4096, "0100000000000000", "0f4879511a354c26")]
    {
        let expected = format!(
            "{page}0400000000000000edda0ced0200000000100000000000000300000000000000000000000000000002000000000000000400000000000000{page}{sum}"
        );
        assert_eq!(hex(&content[at..at + 80]), expected);
    }
    assert_eq!(hex(&content[8192..8208]), "02000000000000001000000000000000");
    assert_eq!(hex(&content[12288..12304]), "03000000000000000200000000000000");
    let others = content.iter().enumerate().filter(|(at, byte)| at % 4096 >= 80 && **byte != 0).count();
    assert_eq!(others, 0);
}

#[cfg(target_endian = "little")]
#[test]
fn pages_have_the_bytes_of_the_format() {
    let item = |flags, key: &[u8], value: &[u8]| LeafItem {
        flags,
        key: Slice::copy(key),
        value: Slice::copy(value),
    };
    let items = [item(0, b"a", b"xyz"), item(1, b"bc", b"")];
    let leaf = encode_leaf(5, 0, &items).unwrap();
    let expected = "05000000000000000200020000000000\
        00000000200000000100000003000000\
        01000000140000000200000000000000\
        6178797a6263";
    assert_eq!(hex(&leaf), expected);
    let page = Page::parse(leaf.into()).unwrap();
    for (index, item) in items.iter().enumerate() {
        let found = page.item(index).unwrap();
        assert_eq!((found.flags, &found.key, &found.value), (item.flags, &item.key, &item.value));
    }
    assert!(page.item(2).is_none() && page.child(0).is_none());

    let branch = encode_branch(6, 1, &[(Slice::copy(b"a"), 7), (Slice::copy(b"bc"), 258)]).unwrap();
    let expected = "06000000000000000100020001000000\
        20000000010000000700000000000000\
        11000000020000000201000000000000\
        616263";
    assert_eq!(hex(&branch), expected);
    let page = Page::parse(branch.into()).unwrap();
    assert_eq!((page.child(0), page.child(1), page.child(2)), (Some(7), Some(258), None));
    assert_eq!((page.key(1), page.run()), (&b"bc"[..], Run { start: 6, length: 2 }));
    assert!(page.item(0).is_none());
}

#[test]
fn a_freelist_with_more_pages_than_its_count_can_say_has_it_in_front() {
    for (count, field, start) in [
        (0, 0, 16),
        (1, 1, 16),
        (65_534, 65_534, 16),
        (65_535, 65_535, 24),
        (65_536, 65_535, 24),
        (200_000, 65_535, 24),
    ] {
        let ids: Vec<u64> = (2..count + 2).collect();
        let bytes = encode_freelist(Run { start: 9, length: 400 }, &ids).unwrap();
        assert_eq!(
            Header::parse(&bytes).unwrap(),
            Header { id: 9, flags: FREELIST, count: field, overflow: 399 }
        );
        assert_eq!(to_u64(bytes.len()), page::freelist_size(count));
        assert_eq!(bytes.len(), start + ids.len() * 8);
        assert_eq!(parse_freelist(&bytes).unwrap(), ids);
        if count > 0 {
            parse_freelist(&bytes[..bytes.len() - 1]).unwrap_err();
        }
    }
}

#[test]
fn pages_that_contradict_themselves_are_refused() {
    let item = |key: &[u8]| LeafItem { flags: 0, key: Slice::copy(key), value: Slice::copy(b"value") };
    let sound = encode_leaf(5, 0, &[item(b"a"), item(b"b")]).unwrap();
    Page::parse(sound.clone().into()).unwrap();
    let cases: [(&str, usize, u8); 7] = [
        ("flags", 8, 3),
        ("more elements than there are", 10, 200),
        ("position outside", 16 + 4 + 2, 1),
        ("key outside", 16 + 8 + 1, 1),
        ("value outside", 32 + 12, 6),
        ("keys in the wrong order", 48, b'c'),
        ("the same key twice", 48, b'b'),
    ];
    for (what, at, byte) in cases {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        assert_eq!(Page::parse(bytes.into()).unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
    }
    for length in 0..sound.len() {
        Page::parse(sound[..length].to_vec().into()).unwrap_err();
    }
    Page::parse(encode_branch(5, 0, &[]).unwrap().into()).unwrap_err();
}
