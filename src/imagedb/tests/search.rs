// SPDX-License-Identifier: MulanPSL-2.0
//! Searching by a part of an id: each row of the table of Docker's digest set.

use super::*;

/// Ids that begin with these digits; the rest is made up.
fn store_of(beginnings: &[&str]) -> index::Index {
    let mut index = index::Index::default();
    for beginning in beginnings {
        let id = id(beginning);
        let root = TestRoot::in_memory("imagedb-search");
        let backend =
            Backend::open(&crate::sys::fs::Dir::open(root.path()).unwrap(), Durability::None).unwrap();
        let some = backend.put(b"x").unwrap();
        let verified = Mutex::new(backend.signature(&some).unwrap().unwrap());
        index.put(Entry { id, config: Arc::default(), verified });
    }
    index
}

fn id(beginning: &str) -> Digest {
    let rest = Digest::of(beginning.as_bytes()).hex();
    Digest::from_hex(&format!("{beginning}{}", &rest[beginning.len()..])).unwrap()
}

fn finds(index: &index::Index, term: &str, wanted: &str) {
    assert_eq!(index.search(term).unwrap(), id(wanted), "{term}");
}

fn not_found(index: &index::Index, term: &str) {
    let shown: String = term.chars().take(80).collect();
    fails(index.search(term), ErrorKind::NotFound, &format!("No such image: {shown}"));
}

fn ambiguous(index: &index::Index, term: &str) {
    fails(index.search(term), ErrorKind::Ambiguous, "ambiguous digest string");
}

const SHARED: [&str; 3] = ["abc1", "abc2", "f0"];

#[test]
fn an_empty_store_finds_nothing() {
    let index = index::Index::default();
    for term in ["a", "sha256:a", "sha256", ":", &id("abc1").hex(), &id("abc1").to_string()] {
        not_found(&index, term);
    }
}

#[test]
fn an_empty_term_is_an_error() {
    for beginnings in [&[][..], &["a"], &SHARED] {
        fails(store_of(beginnings).search(""), ErrorKind::InvalidArgument, "the search term is empty");
    }
}

#[test]
fn a_unique_prefix_of_any_length_finds_the_image() {
    let index = store_of(&SHARED);
    let hex = id("abc1").hex();
    for len in 4..=64 {
        finds(&index, &hex[..len], "abc1");
    }
    finds(&index, "f", "f0");
}

#[test]
fn a_prefix_that_two_share_is_ambiguous() {
    let index = store_of(&SHARED);
    for term in ["a", "ab", "abc"] {
        ambiguous(&index, term);
    }
}

#[test]
fn all_64_digits_find_the_image() {
    let index = store_of(&SHARED);
    for beginning in SHARED {
        finds(&index, &id(beginning).hex(), beginning);
    }
}

#[test]
fn more_than_64_digits_find_nothing() {
    let index = store_of(&SHARED);
    for more in ["0", "f", "0123456789"] {
        not_found(&index, &format!("{}{more}", id("abc1").hex()));
    }
    not_found(&index, &"a".repeat(100_000));
}

#[test]
fn a_digest_finds_the_image() {
    finds(&store_of(&SHARED), &id("abc1").to_string(), "abc1");
}

#[test]
fn a_digest_cut_short_finds_the_image() {
    let index = store_of(&SHARED);
    let digest = id("abc1").to_string();
    for len in 11..=digest.len() {
        finds(&index, &digest[..len], "abc1");
    }
}

#[test]
fn a_digest_cut_too_short_is_ambiguous() {
    let index = store_of(&SHARED);
    for term in ["sha256:a", "sha256:ab", "sha256:abc"] {
        ambiguous(&index, term);
    }
}

#[test]
fn an_algorithm_or_a_colon_alone_find_nothing() {
    let index = store_of(&["abc1"]);
    for term in ["sha256:", ":", "sha256", "sha256::", "::", ":abc1", "sha256:sha256:abc1"] {
        not_found(&index, term);
    }
}

#[test]
fn case_counts_and_nothing_is_trimmed() {
    let index = store_of(&SHARED);
    let hex = id("abc1").hex();
    for term in
        ["ABC1", "Abc1", "SHA256:abc1", "sha256:ABC1", " abc1", "abc1 ", "sha256: abc1", "\tabc1", "abc1\n"]
    {
        not_found(&index, term);
    }
    not_found(&index, &hex.to_uppercase());
    not_found(&index, &format!("SHA256:{hex}"));
}

#[test]
fn other_algorithms_find_nothing() {
    let index = store_of(&SHARED);
    let hex = id("abc1").hex();
    for algorithm in ["sha512", "sha384", "md5"] {
        not_found(&index, &format!("{algorithm}:{hex}"));
        not_found(&index, &format!("{algorithm}:abc1"));
    }
}

#[test]
fn the_middle_of_an_id_finds_nothing() {
    let index = store_of(&["abc1"]);
    let hex = id("abc1").hex();
    not_found(&index, &hex[1..6]);
    not_found(&index, &hex[1..]);
}

#[test]
fn what_is_no_hex_finds_nothing() {
    let index = store_of(&SHARED);
    for term in ["g", "abc1g", "é", "abc\0", "*", "%s", "-", "abc1/..", &"é".repeat(32)] {
        not_found(&index, term);
    }
}

#[test]
fn adding_twice_is_one_image_and_removing_what_is_absent_does_nothing() {
    let mut index = store_of(&["abc1", "abc1", "abc2"]);
    assert_eq!(index.len(), 2);
    assert!(index.remove(&id("f0")).is_none());
    ambiguous(&index, "abc");
    assert!(index.remove(&id("abc2")).is_some());
    finds(&index, "abc", "abc1");
    assert!(index.remove(&id("abc1")).is_some());
    not_found(&index, "abc");
}

#[test]
fn bounds_at_the_ends_of_all_digests_are_found() {
    let index = store_of(&[&"0".repeat(64), &"f".repeat(64)]);
    finds(&index, "0", &"0".repeat(64));
    finds(&index, "f", &"f".repeat(64));
    not_found(&index, "1");
}
