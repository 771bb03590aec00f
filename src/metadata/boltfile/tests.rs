// SPDX-License-Identifier: MulanPSL-2.0
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use std::collections::BTreeMap;
use std::time::Duration;

use super::fuzzing::{self, Content, Entry, content, open, options};
use super::medium::Recording;
use super::page::encode_freelist;
use super::*;
use crate::sys::testing::TestRoot;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn everything(file: &BoltFile) -> Content {
    content(&file.begin().root(), &mut usize::MAX.clone()).unwrap()
}

fn write(file: &BoltFile, action: impl FnOnce(&mut BucketMut<'_>)) {
    let mut transaction = file.begin_write().unwrap();
    action(&mut transaction.root_mut().unwrap());
    transaction.commit().unwrap();
    assert_eq!(file.begin().check(), [""; 0]);
}

fn new() -> (Recording, BoltFile) {
    let medium = Recording::default();
    let file = open(&medium, &options(4096, Freelist::Stored)).unwrap();
    (medium, file)
}

fn zero() -> Options {
    Options { timeout: Some(Duration::ZERO), ..Options::default() }
}

fn report<T>(result: Result<T>) -> (ErrorKind, String) {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => (error.kind(), error.report()),
    }
}

#[test]
fn each_refused_change_says_what_the_original_says() {
    let (_, file) = new();
    write(&file, |root| {
        let mut bucket = root.create_bucket(b"bucket").unwrap();
        bucket.put(b"key", b"value").unwrap();
        bucket.create_bucket(b"inner").unwrap();
    });
    let mut transaction = file.begin_write().unwrap();
    let mut root = transaction.root_mut().unwrap();
    let mut bucket = root.bucket(b"bucket").unwrap().unwrap();
    use ErrorKind::{AlreadyExists, InvalidArgument, NotFound, ReadOnly};
    let long = vec![b'k'; LONGEST_KEY + 1];
    let cases = [
        (bucket.put(b"", b"x"), InvalidArgument, "key required"),
        (bucket.put(&long, b"x"), InvalidArgument, "key too large"),
        (bucket.put(b"inner", b"x"), InvalidArgument, "incompatible value"),
        (bucket.delete(b"inner"), InvalidArgument, "incompatible value"),
        (bucket.create_bucket(b"").map(drop), InvalidArgument, "bucket name required"),
        (bucket.create_bucket_if_not_exists(b"").map(drop), InvalidArgument, "bucket name required"),
        (bucket.create_bucket(b"inner").map(drop), AlreadyExists, "bucket already exists"),
        (bucket.create_bucket(b"key").map(drop), InvalidArgument, "incompatible value"),
        (bucket.create_bucket_if_not_exists(b"key").map(drop), InvalidArgument, "incompatible value"),
        (bucket.delete_bucket(b"absent"), NotFound, "bucket not found"),
        (bucket.delete_bucket(b""), NotFound, "bucket not found"),
        (bucket.delete_bucket(b"key"), InvalidArgument, "incompatible value"),
    ];
    for (result, kind, text) in cases {
        assert_eq!(report(result), (kind, text.to_owned()));
    }
    bucket.put(&long[1..], b"x").unwrap();
    bucket.delete(b"absent").unwrap();
    bucket.create_bucket_if_not_exists(b"inner").unwrap();
    assert_eq!(bucket.get(b"inner").unwrap(), None);
    assert!(bucket.bucket(b"key").unwrap().is_none());
    assert!(bucket.bucket(b"absent").unwrap().is_none());
    assert!(bucket.view().bucket(b"key").unwrap().is_none());
    // Names of buckets are not limited as keys are, and any byte will do.
    for name in [&[0u8][..], b"a\0b", b"\xff\xfe", &vec![b'n'; 40_000]] {
        bucket.create_bucket(name).unwrap().put(b"k", b"v").unwrap();
    }
    transaction.commit().unwrap();
    assert_eq!(file.begin().check(), [""; 0]);

    let mut reading = file.begin();
    assert_eq!(report(reading.root_mut().map(drop)), (ReadOnly, "tx not writable".to_owned()));
    assert_eq!(report(reading.commit()), (ReadOnly, "commit to memory: tx not writable".to_owned()));
}

#[test]
fn what_is_rolled_back_never_was() {
    let (medium, file) = new();
    write(&file, |root| root.put(b"a", b"1").unwrap());
    let before = medium.with(|recorded| recorded.content.clone());
    let mut transaction = file.begin_write().unwrap();
    let mut root = transaction.root_mut().unwrap();
    root.put(b"b", &[0; 100_000]).unwrap();
    root.create_bucket(b"c").unwrap().put(b"d", b"e").unwrap();
    root.delete(b"a").unwrap();
    assert_eq!(root.get(b"a").unwrap(), None);
    drop(transaction);
    assert!(medium.with(|recorded| recorded.content == before));
    assert_eq!(everything(&file), BTreeMap::from([(b"a".to_vec(), Entry::Value(b"1".to_vec()))]));
    // A transaction without changes writes nothing either.
    file.begin_write().unwrap().commit().unwrap();
    assert!(medium.with(|recorded| recorded.content == before));
}

#[test]
fn sequences_are_kept_with_their_buckets() {
    let (medium, file) = new();
    write(&file, |root| {
        assert_eq!(root.next_sequence().unwrap(), 1);
        let mut small = root.create_bucket(b"small").unwrap();
        assert_eq!((small.next_sequence().unwrap(), small.next_sequence().unwrap()), (1, 2));
        let mut large = root.create_bucket(b"large").unwrap();
        large.put(b"k", &[1; 5000]).unwrap();
        large.set_sequence(u64::MAX - 1).unwrap();
        assert_eq!(large.next_sequence().unwrap(), u64::MAX);
        assert_eq!(report(large.next_sequence()).0, ErrorKind::LimitExceeded);
    });
    drop(file);
    let file = open(&medium, &options(4096, Freelist::Absent)).unwrap();
    let reading = file.begin();
    let sequence = |name: &[u8]| reading.root().bucket(name).unwrap().unwrap().sequence();
    assert_eq!((reading.root().sequence(), sequence(b"small"), sequence(b"large")), (1, 2, u64::MAX));
    write(&file, |root| root.bucket(b"small").unwrap().unwrap().set_sequence(9).unwrap());
    assert_eq!(file.begin().root().bucket(b"small").unwrap().unwrap().sequence(), 9);
    assert_eq!(sequence(b"small"), 2, "a reader's state stays");
}

#[test]
fn a_cursor_goes_both_ways_in_byte_order_and_may_delete() {
    let (_, file) = new();
    let names: [&[u8]; 7] = [b"Z", b"a", b"a\0b", b"docker.io/x", "\u{e9}".as_bytes(), b"\xff", b"\xff\0"];
    write(&file, |root| {
        for name in names.iter().rev() {
            root.put(name, name).unwrap();
        }
        // More than one page.
        let mut many = root.create_bucket(b"many").unwrap();
        for number in 0..2000u32 {
            many.put(&number.to_be_bytes(), b"some value").unwrap();
        }
    });
    write(&file, |root| root.delete_bucket(b"absent").map_or_else(|_| root.set_sequence(1).unwrap(), drop));
    let reading = file.begin();
    let keys: Vec<_> = reading.root().items().map(|item| item.unwrap().key.to_vec()).collect();
    assert_eq!(keys, [names[0], names[1], names[2], names[3], b"many", names[4], names[5], names[6]]);
    let many = reading.root().bucket(b"many").unwrap().unwrap();
    let mut cursor = many.cursor();
    let key = |item: Option<Item>| item.map(|item| u32::from_be_bytes((*item.key).try_into().unwrap()));
    assert_eq!(key(cursor.seek(&[0, 0, 3, 7, 1]).unwrap()), Some(776));
    assert_eq!(key(cursor.next().unwrap()), Some(777));
    assert_eq!(key(cursor.prev().unwrap()), Some(776));
    assert_eq!(key(cursor.prev().unwrap()), Some(775));
    assert_eq!(key(cursor.seek(&[9]).unwrap()), None);
    assert_eq!(key(cursor.prev().unwrap()), Some(1999));
    assert_eq!(key(cursor.next().unwrap()), None);
    assert_eq!(key(cursor.last().unwrap()), Some(1999));
    assert_eq!(key(cursor.first().unwrap()), Some(0));
    assert_eq!(key(cursor.prev().unwrap()), None);
    assert_eq!(key(many.cursor().next().unwrap()), Some(0));
    assert_eq!(key(many.cursor().prev().unwrap()), Some(1999));

    // Everything but each tenth goes, while the cursor is on its way.
    write(&file, |root| {
        let mut many = root.bucket(b"many").unwrap().unwrap();
        let mut cursor = many.cursor();
        assert_eq!(report(cursor.delete()).0, ErrorKind::InvalidArgument);
        let mut item = cursor.first().unwrap();
        let mut seen = 0;
        while let Some(number) = key(item) {
            assert_eq!(number, seen);
            seen += 1;
            if number % 10 != 0 {
                cursor.delete().unwrap();
            }
            item = cursor.next().unwrap();
        }
        assert_eq!(seen, 2000);
        assert_eq!(key(cursor.last().unwrap()), Some(1990));
        assert_eq!(key(cursor.prev().unwrap()), Some(1980));
        cursor.delete().unwrap();
        assert_eq!(key(cursor.prev().unwrap()), Some(1970));
        assert_eq!(key(cursor.seek(&[0]).unwrap()), Some(0));
        assert_eq!(root.cursor().seek(b"many").unwrap().unwrap().value, None);
        let mut cursor = root.cursor();
        cursor.seek(b"many").unwrap();
        assert_eq!(report(cursor.delete()).1, "incompatible value");
    });
    assert_eq!(many.items().count(), 2000, "a reader's state stays");
    let reading = file.begin();
    assert_eq!(reading.root().bucket(b"many").unwrap().unwrap().items().count(), 199);
}

#[test]
fn pages_are_used_again_when_no_reader_needs_them() {
    let (medium, file) = new();
    let length = || medium.with(|recorded| recorded.content.len());
    let fill = |byte| {
        write(&file, |root| {
            for number in 0..100u8 {
                root.put(&[number], &[byte; 1000]).unwrap();
            }
        });
    };
    let first_bytes = |transaction: &Transaction| transaction.root().get(&[7]).unwrap().unwrap()[0];
    fill(1);
    fill(2);
    let steady = length();
    let reading = file.begin();
    for byte in 3..10 {
        fill(byte);
    }
    let grown = length();
    assert!(grown > steady, "nothing that a reader needs is written over");
    // Not from the cache of pages, which is smaller.
    assert_eq!(first_bytes(&reading), 2);
    assert_eq!(everything(&file).len(), 100);
    drop(reading);
    for byte in 10..30 {
        fill(byte);
    }
    assert_eq!(length(), grown, "without readers the file stays as long as it is");
    assert_eq!(first_bytes(&file.begin()), 29);
}

#[test]
fn a_bucket_that_goes_gives_its_pages_back() {
    for freelist in [Freelist::Stored, Freelist::Absent] {
        let medium = Recording::default();
        let file = open(&medium, &options(1024, freelist)).unwrap();
        let mut lengths = Vec::new();
        for round in 0..6 {
            write(&file, |root| {
                let mut outer = root.create_bucket(b"outer").unwrap();
                for number in 0..50u8 {
                    let mut inner = outer.create_bucket(&[number]).unwrap();
                    inner.put(b"large", &vec![number; 3000]).unwrap();
                    inner.create_bucket(b"small").unwrap().put(b"k", b"v").unwrap();
                }
                outer.delete_bucket(&[9]).unwrap();
            });
            write(&file, |root| {
                // Changed before they go.
                let mut outer = root.bucket(b"outer").unwrap().unwrap();
                outer.bucket(&[3]).unwrap().unwrap().delete(b"large").unwrap();
                outer.bucket(&[4]).unwrap().unwrap().delete_bucket(b"small").unwrap();
                outer.delete_bucket(&[5]).unwrap();
                outer.create_bucket(&[5]).unwrap().put(b"again", &[0; 2000]).unwrap();
                if round % 2 == 0 {
                    outer.delete_bucket(&[4]).unwrap();
                }
                root.delete_bucket(b"outer").unwrap();
            });
            assert_eq!(everything(&file), Content::new());
            lengths.push(medium.with(|recorded| recorded.content.len()));
        }
        assert_eq!(lengths[2], lengths[5], "{lengths:?}");
    }
}

#[test]
fn buckets_lie_in_each_other_up_to_a_limit() {
    let (medium, file) = new();
    write(&file, |root| {
        fn deeper(mut bucket: BucketMut<'_>, left: usize) {
            bucket.put(b"key", &left.to_be_bytes()).unwrap();
            match left {
                0 => assert_eq!(report(bucket.create_bucket(b"b").map(drop)).0, ErrorKind::LimitExceeded),
                _ => deeper(bucket.create_bucket(b"b").unwrap(), left - 1),
            }
        }
        deeper(root.create_bucket(b"b").unwrap(), DEEPEST_BUCKET - 1);
    });
    drop(file);
    let file = open(&medium, &options(4096, Freelist::Stored)).unwrap();
    let reading = file.begin();
    let mut bucket = reading.root();
    for left in (0..DEEPEST_BUCKET).rev() {
        bucket = bucket.bucket(b"b").unwrap().unwrap();
        assert_eq!(bucket.get(b"key").unwrap().unwrap()[..], left.to_be_bytes());
    }
    write(&file, |root| root.delete_bucket(b"b").unwrap());
    assert_eq!(everything(&file), Content::new());
}

#[test]
fn huge_values_and_keys_are_kept_in_pages_of_any_size() {
    for page_size in [1024, 4096, 65_536] {
        let medium = Recording::default();
        let file = open(&medium, &options(page_size, Freelist::Stored)).unwrap();
        let mut expected = Content::new();
        write(&file, |root| {
            for number in 0..40u8 {
                let (key, value) = (vec![number; LONGEST_KEY - usize::from(number)], vec![number; 70_000]);
                root.put(&key, &value).unwrap();
                expected.insert(key, Entry::Value(value));
            }
            root.put(b"z", &vec![1; 5 << 20]).unwrap();
            expected.insert(b"z".to_vec(), Entry::Value(vec![1; 5 << 20]));
        });
        assert!(everything(&file) == expected);
        drop(file);
        // A new file's page size is asked for; one that exists has its own.
        let file = open(&medium, &options(2048, Freelist::Stored)).unwrap();
        assert_eq!(file.page_size(), page_size);
        assert!(everything(&file) == expected);
    }
}

#[test]
fn where_the_newer_meta_page_is_damaged_the_older_state_is_there() {
    let (medium, file) = new();
    write(&file, |root| root.put(b"k", b"older").unwrap());
    write(&file, |root| root.put(b"k", b"newer").unwrap());
    drop(file);
    let content = medium.with(|recorded| recorded.content.clone());
    let value = |content: &[u8]| {
        let medium = Recording::of(content.to_vec());
        let file = open(&medium, &options(4096, Freelist::Stored))?;
        let found = file.begin().root().get(b"k")?.unwrap().to_vec();
        // And it goes on from there.
        write(&file, |root| root.put(b"k", b"newest").unwrap());
        drop(file);
        let file = open(&medium, &options(4096, Freelist::Stored))?;
        assert_eq!(file.begin().root().get(b"k")?.as_deref(), Some(&b"newest"[..]));
        Ok(String::from_utf8(found).unwrap())
    };
    assert_eq!(value(&content).unwrap(), "newer");
    // Transaction 2 was written to page 0, 3 to page 1. Each byte counts.
    for byte in 16..80 {
        for (slot, expected) in [(0, "newer"), (1, "older")] {
            let mut damaged = content.clone();
            damaged[slot * 4096 + byte] ^= 0x40;
            assert_eq!(value(&damaged).unwrap(), expected, "{slot} {byte}");
        }
        let mut damaged = content.clone();
        damaged[byte] ^= 0x40;
        damaged[4096 + byte] ^= 1;
        assert_eq!(report(value(&damaged)).0, ErrorKind::Corrupt);
    }
}

#[test]
fn whatever_the_freelist_says_no_page_in_use_is_written_over() {
    for damage in
        ["absent", "no freelist page", "says that all is free", "says that nothing is free", "a used page"]
    {
        let (medium, file) = new();
        write(&file, |root| {
            for number in 0..200u8 {
                root.put(&[number], &[number; 300]).unwrap();
            }
        });
        write(&file, |root| root.delete(&[100]).unwrap());
        drop(file);
        let expected = everything(&open(&medium, &options(4096, Freelist::Stored)).unwrap());
        medium.with(|recorded| {
            let (meta, slot) =
                meta::choose(|at, length| Ok(recorded.content[to_usize(at)..][..length].to_vec())).unwrap();
            let at = to_usize(meta.freelist) * 4096;
            let freelist = match damage {
                "absent" => meta::NO_FREELIST,
                "a used page" => meta.root,
                "no freelist page" => {
                    recorded.content[at + 8] = 2;
                    meta.freelist
                }
                _ => {
                    let all = if damage == "says that all is free" { 2..meta.high_water } else { 0..0 };
                    let run = Run { start: meta.freelist, length: 1 };
                    let page = encode_freelist(run, &all.collect::<Vec<_>>()).unwrap();
                    recorded.content[at..at + page.len()].copy_from_slice(&page);
                    meta.freelist
                }
            };
            let page = Meta { freelist, ..meta }.to_page(slot);
            recorded.content[to_usize(slot) * 4096..][..4096].copy_from_slice(&page);
        });
        let file = open(&medium, &options(4096, Freelist::Stored)).unwrap();
        let problems = file.begin().check();
        assert_eq!(problems.is_empty(), damage == "absent", "{damage}: {problems:?}");
        write(&file, |root| root.put(b"more", &[1; 50_000]).unwrap());
        write(&file, |root| root.delete(b"more").unwrap());
        assert!(everything(&file) == expected, "{damage}");
    }
}

#[test]
fn a_file_is_locked_against_writers_and_names_who_holds_it() {
    let root = TestRoot::in_memory("bolt");
    let dir = Dir::open(root.path()).unwrap();
    let file = BoltFile::open(&dir, "db", &zero()).unwrap();
    write(&file, |root| root.put(b"k", b"v").unwrap());
    assert_eq!(dir.stat("db").unwrap().unwrap().mode, 0o600);
    let reading = Options { access: Access::ReadOnly, ..zero() };
    for options in [zero(), reading.clone()] {
        let (kind, text) = report(BoltFile::open(&dir, "db", &options));
        assert_eq!(kind, ErrorKind::InUse);
        assert!(text.ends_with(&format!(": in use by pid {}", std::process::id())), "{text}");
    }
    // A transaction that lasts holds it, too.
    let transaction = file.begin();
    drop(file);
    assert_eq!(report(BoltFile::open(&dir, "db", &reading)).0, ErrorKind::InUse);
    drop(transaction);
    let first = BoltFile::open(&dir, "db", &reading).unwrap();
    let second = BoltFile::open(&dir, "db", &reading).unwrap();
    assert_eq!(report(BoltFile::open(&dir, "db", &zero())).0, ErrorKind::InUse);
    assert_eq!(everything(&first), everything(&second));
    let (kind, text) = report(first.begin_write());
    assert_eq!(kind, ErrorKind::ReadOnly);
    assert!(text.ends_with("db: database is in read-only mode"), "{text}");
}

#[test]
fn one_transaction_writes_at_a_time() {
    let root = TestRoot::in_memory("bolt");
    let dir = Dir::open(root.path()).unwrap();
    let file = BoltFile::open(&dir, "db", &zero()).unwrap();
    let first = file.begin_write().unwrap();
    assert_eq!(report(file.begin_write()).0, ErrorKind::InUse);
    drop(first);
    file.begin_write().unwrap();
    drop(file);
    let patient = Options { timeout: None, ..zero() };
    let file = BoltFile::open(&dir, "db", &patient).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let mut transaction = file.begin_write().unwrap();
                    transaction.root_mut().unwrap().next_sequence().unwrap();
                    transaction.commit().unwrap();
                }
            });
        }
    });
    assert_eq!(file.begin().root().sequence(), 100);
}

#[test]
fn what_is_no_bolt_file_is_refused_and_stays_as_it_is() {
    let root = TestRoot::in_memory("bolt");
    let dir = Dir::open(root.path()).unwrap();
    let mut other_version = new_file(4096).unwrap();
    other_version[20] = 3;
    other_version[4096 + 20] = 3;
    for content in [b"x".to_vec(), vec![0; 300_000], b"SQLite format 3".repeat(1000), other_version] {
        std::fs::write(root.join("db"), &content).unwrap();
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let (kind, text) = report(BoltFile::open(&dir, "db", &Options { access, ..zero() }));
            assert_eq!(kind, ErrorKind::Corrupt, "{text}");
            assert!(text.contains("db: neither meta page is valid: "), "{text}");
        }
        assert!(std::fs::read(root.join("db")).unwrap() == content);
    }
    std::fs::remove_file(root.join("db")).unwrap();
    std::os::unix::fs::symlink("elsewhere", root.join("db")).unwrap();
    BoltFile::open(&dir, "db", &zero()).unwrap_err();
    let (kind, _) = report(BoltFile::open(&dir, "absent", &Options { access: Access::ReadOnly, ..zero() }));
    assert_eq!(kind, ErrorKind::NotFound);
    let odd = Options { page_size: 3000, ..zero() };
    assert_eq!(report(BoltFile::open(&dir, "odd", &odd)).0, ErrorKind::InvalidArgument);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn any_changes_leave_what_a_map_would_have(input in proptest::collection::vec(any::<u8>(), 0..6000)) {
        fuzzing::changes(&input);
    }
}
