// SPDX-License-Identifier: MulanPSL-2.0
//! Entry points for fuzzing: files with any content, and any changes, in memory, with what must hold whatever the input.

#![allow(clippy::panic, clippy::expect_used, reason = "a broken invariant is what a fuzzer looks for")]

use std::collections::BTreeMap;

use super::bytes::to_u64;
use super::medium::Recording;
use super::{BoltFile, Bucket, BucketMut, Freelist, Options, Transaction};
use crate::error::{Error, ErrorKind, Result};
use crate::persist::Durability;

/// Most items that are looked at in a file that is not known to be sound: buckets may contain each other.
const MOST_ITEMS: usize = 5_000;

/// What is in a bucket.
pub(super) type Content = BTreeMap<Vec<u8>, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Value(Vec<u8>),
    Bucket(Content),
}

pub(super) fn options(page_size: usize, freelist: Freelist) -> Options {
    Options { page_size, freelist, durability: Durability::Full, ..Options::default() }
}

pub(super) fn open(medium: &Recording, options: &Options) -> Result<BoltFile> {
    BoltFile::with(Box::new(medium.clone()), "memory".to_owned(), options)
}

/// A file with this content, in memory.
pub(in crate::metadata) fn in_memory(content: Vec<u8>) -> Result<BoltFile> {
    open(&Recording::of(content), &options(1024, Freelist::Stored))
}

/// The same, with checksums of its meta pages that are right.
pub(in crate::metadata) fn sealed_in_memory(mut content: Vec<u8>) -> Result<BoltFile> {
    super::meta::seal(&mut content, 1024);
    in_memory(content)
}

/// How deep it is looked: this recurses.
const DEEPEST: usize = 150;

/// Everything below a bucket, as far as `left` items go.
pub(super) fn content(bucket: &Bucket<'_>, left: &mut usize) -> Result<Content> {
    content_at(bucket, left, 0)
}

fn content_at(bucket: &Bucket<'_>, left: &mut usize, depth: usize) -> Result<Content> {
    if depth > DEEPEST {
        return Err(Error::new(ErrorKind::LimitExceeded, "too deep to look at"));
    }
    let mut content = Content::new();
    for item in bucket.items() {
        let item = item?;
        if *left == 0 {
            break;
        }
        *left -= 1;
        let entry = match item.value {
            Some(value) => {
                assert_eq!(
                    bucket.get(&item.key)?.as_deref(),
                    Some(&value[..]),
                    "an item is found by its key"
                );
                Entry::Value(value.to_vec())
            }
            None => {
                let inner = bucket.bucket(&item.key)?.expect("an item without a value is a bucket");
                Entry::Bucket(content_at(&inner, left, depth + 1)?)
            }
        };
        assert!(content.insert(item.key.to_vec(), entry).is_none(), "keys ascend");
    }
    Ok(content)
}

fn everything(transaction: &Transaction) -> Content {
    content(&transaction.root(), &mut usize::MAX.clone()).expect("a sound file can be read")
}

/// Opens a file with this content; reads it, checks it, changes it if that is allowed. It is sound afterwards, and who
/// began to read before the changes does not see them.
pub fn file(input: &[u8]) {
    let medium = Recording::of(input.to_vec());
    let options =
        options(1024, if input.len().is_multiple_of(2) { Freelist::Stored } else { Freelist::Absent });
    let Ok(file) = open(&medium, &options) else { return };
    let before = file.begin();
    drop(content(&before.root(), &mut MOST_ITEMS.clone()));
    backwards(&before);
    let problems = before.check();
    let mut writing = match file.begin_write() {
        Ok(writing) => writing,
        Err(_) => {
            assert!(!problems.is_empty(), "a sound file can be written");
            return;
        }
    };
    let Ok(seen) = content(&before.root(), &mut usize::MAX.clone()) else { return };
    let mut expected = seen.clone();
    change(&mut writing.root_mut().expect("it writes"), &mut expected);
    assert!(everything(&writing) == expected, "changes are seen before they are written");
    if writing.commit().is_err() {
        return;
    }
    assert!(everything(&before) == seen, "a reader's state stays");
    drop(before);
    for file in [Some(file), None] {
        let file = file.unwrap_or_else(|| open(&medium, &options).expect("what was written can be opened"));
        let after = file.begin();
        assert_eq!(after.check(), [""; 0]);
        assert!(everything(&after) == expected, "what was written is there");
    }
}

/// The same items in the other direction.
fn backwards(transaction: &Transaction) {
    let root = transaction.root();
    let forwards: Result<Vec<_>> = root.items().take(MOST_ITEMS).collect();
    let Ok(forwards) = forwards else { return };
    let mut cursor = root.cursor();
    let mut next = cursor.last();
    for item in forwards.iter().rev().take(if forwards.len() < MOST_ITEMS { MOST_ITEMS } else { 0 }) {
        assert_eq!(next.as_ref().ok().and_then(Option::as_ref), Some(item));
        next = cursor.prev();
    }
}

/// Takes away about half, and puts something beside it.
fn change(bucket: &mut BucketMut<'_>, content: &mut Content) {
    let keys: Vec<_> = content.keys().cloned().collect();
    for (number, key) in keys.iter().enumerate() {
        match content.get_mut(key) {
            Some(Entry::Value(_)) if number % 2 == 0 => {
                bucket.delete(key).expect("a value can go");
                content.remove(key);
            }
            Some(Entry::Bucket(_)) if number % 3 == 0 => {
                bucket.delete_bucket(key).expect("a bucket can go");
                content.remove(key);
            }
            Some(Entry::Bucket(inner)) if number % 3 == 1 => {
                // Too deep is an error, and changes nothing.
                if let Ok(found) = bucket.bucket(key) {
                    change(&mut found.expect("it is there"), inner);
                }
            }
            _ => {}
        }
    }
    let value = vec![7; 300];
    if bucket.put(b"new", &value).is_ok() {
        content.insert(b"new".to_vec(), Entry::Value(value));
    }
}

/// Takes the input as a list of changes, and compares with a map.
pub fn changes(input: &[u8]) {
    let mut input = Input(input.iter());
    let page_size = 1024 << (input.byte() % 3);
    let freelist = if input.byte() % 2 == 0 { Freelist::Stored } else { Freelist::Absent };
    let options = options(page_size, freelist);
    let medium = Recording::default();
    let mut file = open(&medium, &options).expect("a new file");
    let mut written = Content::new();
    while input.0.len() > 0 {
        let mut transaction = file.begin_write().expect("nobody else writes");
        let reader = file.begin();
        let mut content = written.clone();
        for _ in 0..input.byte() {
            let mut root = transaction.root_mut().expect("it writes");
            step(&mut input, &mut root, &mut content, 0);
        }
        assert!(everything(&transaction) == content, "changes are seen before they are written");
        match input.byte() % 4 {
            0 => drop(transaction),
            _ => {
                transaction.commit().expect("commits");
                assert!(everything(&reader) == written, "a reader's state stays");
                written = content;
            }
        }
        drop(reader);
        if input.byte() % 4 == 0 {
            drop(file);
            file = open(&medium, &options).expect("opens again");
        }
        let reader = file.begin();
        assert_eq!(reader.check(), [""; 0]);
        assert!(everything(&reader) == written, "what was written is there");
        backwards(&reader);
    }
}

struct Input<'a>(std::slice::Iter<'a, u8>);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn key(&mut self) -> Vec<u8> {
        let byte = self.byte();
        let length = match byte % 16 {
            0 => 400,
            1 => 0,
            other => usize::from(other),
        };
        let mut key = vec![byte; length];
        key.truncate(length);
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let byte = self.byte();
        let length = usize::from(byte) * usize::from(byte) / if byte.is_multiple_of(8) { 8 } else { 256 };
        vec![byte; length]
    }
}

/// One change, somewhere below `bucket`; both have the same result.
fn step(input: &mut Input<'_>, bucket: &mut BucketMut<'_>, content: &mut Content, depth: usize) {
    let action = input.byte();
    let key = input.key();
    if action >= 128 && depth < 6 {
        // Further in, if there is a bucket.
        let found = bucket.bucket(&key).expect("not too deep");
        match (found, content.get_mut(&key)) {
            (Some(mut bucket), Some(Entry::Bucket(content))) => step(input, &mut bucket, content, depth + 1),
            (None, None | Some(Entry::Value(_))) => {}
            _ => panic!("a bucket is there or not"),
        }
        return;
    }
    let is_bucket = content.get(&key).map(|entry| matches!(entry, Entry::Bucket(_)));
    let (result, expected) = match action % 8 {
        0..=2 => {
            let value = input.value();
            let expected = match is_bucket {
                _ if key.is_empty() => "key required",
                Some(true) => "incompatible value",
                _ => "",
            };
            let result = bucket.put(&key, &value);
            if expected.is_empty() {
                content.insert(key, Entry::Value(value));
            }
            (result, expected)
        }
        3 => {
            let expected = if is_bucket == Some(true) { "incompatible value" } else { "" };
            let result = bucket.delete(&key);
            if expected.is_empty() {
                content.remove(&key);
            }
            (result, expected)
        }
        4 => {
            let expected = match is_bucket {
                _ if key.is_empty() => "bucket name required",
                Some(true) => "bucket already exists",
                Some(false) => "incompatible value",
                None => "",
            };
            let result = bucket.create_bucket(&key).map(drop);
            if expected.is_empty() {
                content.insert(key, Entry::Bucket(Content::new()));
            }
            (result, expected)
        }
        5 => {
            let expected = match is_bucket {
                Some(true) => "",
                Some(false) => "incompatible value",
                None => "bucket not found",
            };
            let result = bucket.delete_bucket(&key);
            if expected.is_empty() {
                content.remove(&key);
            }
            (result, expected)
        }
        6 => {
            // Everything from here on.
            let mut cursor = bucket.cursor();
            let mut item = cursor.seek(&key).expect("reads");
            for _ in 0..input.byte() % 32 {
                let Some(found) = item else { break };
                if found.value.is_some() {
                    cursor.delete().expect("a value can go");
                    content.remove(&found.key[..]);
                }
                item = cursor.next().expect("reads");
            }
            (Ok(()), "")
        }
        _ => {
            let sequence = bucket.view().sequence();
            assert_eq!(bucket.next_sequence().expect("counts"), sequence + 1);
            let wanted = to_u64(usize::from(input.byte()));
            (bucket.set_sequence(wanted), "")
        }
    };
    assert_eq!(result.map_or_else(|error| error.report(), |()| String::new()), expected);
}
