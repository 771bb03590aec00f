// SPDX-License-Identifier: MulanPSL-2.0
//! Files that were made to harm: nothing panics, goes on for ever or takes memory without bounds.

use super::fuzzing::{self, open, options};
use super::medium::Recording;
use super::page::{BUCKET, ELEMENT, Header, LEAF, LeafItem, encode_branch, encode_leaf};
use super::*;

const PAGE: usize = 1024;

/// A file with these pages from number 2 on; the first one is the root.
fn file_of(pages: &[Vec<u8>]) -> Recording {
    let high_water = to_u64(pages.len()) + 2;
    let meta =
        Meta { page_size: PAGE, flags: 0, root: 2, sequence: 0, freelist: u64::MAX, high_water, txid: 4 };
    let mut content = [meta.to_page(0), vec![0; PAGE]].concat();
    for page in pages {
        let start = content.len();
        content.extend_from_slice(page);
        content.resize((start + page.len()).next_multiple_of(PAGE), 0);
    }
    Recording::of(content)
}

fn key(number: u32) -> Slice {
    Slice::copy(&number.to_be_bytes())
}

fn bucket_at(root: u64) -> Slice {
    Slice::from([root.to_ne_bytes(), [0; 8]].concat())
}

fn item(flags: u32, key: Slice, value: Slice) -> LeafItem {
    LeafItem { flags, key, value }
}

/// A file of images of which each is the same bucket, with these values.
pub(in crate::metadata) fn file_of_one_image(names: u32, values: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let leaf = |id: u64, items: &[LeafItem]| {
        let overflow = page::leaf_size(items).div_ceil(PAGE) - 1;
        encode_leaf(id, u32::try_from(overflow).unwrap(), items).unwrap()
    };
    let outer = |id, name: &str| leaf(id, &[item(BUCKET, Slice::copy(name.as_bytes()), bucket_at(id + 1))]);
    let list = |shared| (0..names).map(|name| item(BUCKET, key(name), bucket_at(shared))).collect::<Vec<_>>();
    let shared = 4 + to_u64(page::leaf_size(&list(0)).div_ceil(PAGE));
    let values = values.iter().map(|(key, value)| item(0, Slice::copy(key.as_bytes()), value.clone().into()));
    let image = leaf(shared, &values.collect::<Vec<_>>());
    let pages = shared + to_u64(image.len().div_ceil(PAGE));
    let medium = file_of(&[outer(2, "v1"), outer(3, "images"), leaf(4, &list(shared)), image]);
    let mut content = set_high_water(&medium, pages).with(|recorded| recorded.content.clone());
    content.resize(to_usize(pages) * PAGE, 0);
    content
}

#[test]
fn elements_of_a_page_do_not_lie_over_each_other() {
    let mut leaf = encode_leaf(2, 0, &[item(0, key(1), key(7)), item(0, key(2), key(8))]).unwrap();
    assert_eq!(
        open(&file_of(&[leaf.clone()]), &options(PAGE, Freelist::Stored)).unwrap().begin().check(),
        [""; 0]
    );
    // The first value goes on to the end of the page, where the second element lies.
    leaf.resize(PAGE, 0);
    let start = page::HEADER + 2 * ELEMENT + 4;
    leaf[page::HEADER + 12..][..4].copy_from_slice(&u32::try_from(PAGE - start).unwrap().to_ne_bytes());
    refused(&file_of(&[leaf]), "a value over the next element");
}

/// Reading ends with an error before long, and writing is refused.
fn refused(medium: &Recording, what: &str) {
    let file = open(medium, &options(PAGE, Freelist::Stored)).unwrap();
    let reading = file.begin();
    let items: Vec<_> = reading.root().items().take(100_000).collect();
    assert!(
        matches!(items.last(), Some(Err(error)) if error.kind() == ErrorKind::Corrupt),
        "{what}: {}",
        items.len()
    );
    let mut cursor = reading.root().cursor();
    let backwards = (0..100_000).map_while(|_| cursor.prev().ok().flatten()).count();
    assert!(backwards < 100_000, "{what}");
    assert_ne!(reading.check(), [""; 0], "{what}");
    assert_eq!(file.begin_write().unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
}

#[test]
fn a_tree_that_leads_in_circles_is_an_error() {
    let leaf = |id| encode_leaf(id, 0, &[item(0, key(5), key(5))]).unwrap();
    let branch = |id, children: &[(u32, u64)]| {
        let items: Vec<_> = children.iter().map(|(first, child)| (key(*first), *child)).collect();
        encode_branch(id, 0, &items).unwrap()
    };
    refused(&file_of(&[branch(2, &[(0, 2)])]), "a page within itself");
    refused(&file_of(&[branch(2, &[(0, 3), (9, 2)]), leaf(3)]), "its last element");
    refused(&file_of(&[branch(2, &[(0, 3), (9, 3)]), leaf(3)]), "a page twice");
    refused(&file_of(&[branch(2, &[(0, 3)]), branch(3, &[(0, 2)])]), "two pages within each other");
    refused(&file_of(&[branch(2, &[(0, 9)])]), "a page behind the end");
    refused(&file_of(&[branch(2, &[(0, 0)])]), "a meta page");
    refused(&file_of(&[branch(2, &[(0, 3)]), leaf(4)]), "a page with another's number");
    refused(&file_of(&[branch(2, &[(0, 3), (4, 4)]), leaf(3), leaf(4)]), "a key where it does not belong");
    // Each level twice: 2^40 ways to the leaf.
    let mut pages: Vec<_> = (2..42).map(|id| branch(id, &[(0, id + 1), (7, id + 1)])).collect();
    pages.push(leaf(42));
    refused(&file_of(&pages), "a page that every page leads to twice");
}

#[test]
fn buckets_that_contain_themselves_are_found_by_the_check() {
    let own = encode_leaf(2, 0, &[item(BUCKET, key(1), bucket_at(2))]).unwrap();
    let twice =
        encode_leaf(2, 0, &[item(BUCKET, key(1), bucket_at(3)), item(BUCKET, key(2), bucket_at(3))]).unwrap();
    for pages in [vec![own], vec![twice, encode_leaf(3, 0, &[]).unwrap()]] {
        let file = open(&file_of(&pages), &options(PAGE, Freelist::Stored)).unwrap();
        assert_eq!(file.begin().check().len(), 1);
        assert_eq!(file.begin_write().unwrap_err().kind(), ErrorKind::Corrupt);
        // Reading one step at a time goes as far as the caller likes.
        let reading = file.begin();
        let mut bucket = reading.root();
        for _ in 0..1000 {
            match bucket.bucket(&key(1)).unwrap() {
                Some(inner) => bucket = inner,
                None => break,
            }
        }
    }
}

#[test]
fn a_hundred_thousand_buckets_within_each_other_need_no_stack() {
    let mut value: Vec<u8> = [bucket_at(0).to_vec(), encode_leaf(0, 0, &[]).unwrap()].concat();
    for _ in 0..3000 {
        let inner = encode_leaf(0, 0, &[item(BUCKET, key(1), value.into())]).unwrap();
        value = [bucket_at(0).to_vec(), inner].concat();
    }
    let root = [item(BUCKET, key(1), value.into())];
    let pages = page::leaf_size(&root).div_ceil(PAGE);
    let inline = encode_leaf(2, u32::try_from(pages).unwrap() - 1, &root).unwrap();
    let mut spare = file_of(&[inline]);
    spare = set_high_water(&spare, to_u64(pages) + 2);

    let count = 100_000;
    let chain: Vec<_> = (2..count)
        .map(|id| encode_leaf(id, 0, &[item(BUCKET, key(1), bucket_at(id + 1))]).unwrap())
        .chain([encode_leaf(count, 0, &[]).unwrap()])
        .collect();
    for medium in [spare, file_of(&chain)] {
        let file = open(&medium, &options(PAGE, Freelist::Absent)).unwrap();
        assert_eq!(file.begin().check(), [""; 0]);
        let mut transaction = file.begin_write().unwrap();
        transaction.root_mut().unwrap().delete_bucket(&key(1)).unwrap();
        transaction.commit().unwrap();
        assert_eq!(file.begin().root().items().count(), 0);
        assert_eq!(file.begin().check(), [""; 0]);
    }
}

fn set_high_water(medium: &Recording, high_water: u64) -> Recording {
    let content = medium.with(|recorded| recorded.content.clone());
    let meta = Meta { high_water, ..Meta::parse(&content[page::HEADER..]).unwrap() };
    Recording::of([meta.to_page(0), content[PAGE..].to_vec()].concat())
}

#[test]
fn sizes_that_cannot_be_take_no_memory() {
    let header = |overflow| Header { id: 2, flags: LEAF, count: 0, overflow }.to_bytes().to_vec();
    refused(&file_of(&[header(u32::MAX)]), "more pages than the file");
    // The meta page promises a file of 2^63 pages.
    let medium = set_high_water(&file_of(&[header(u32::MAX)]), 1 << 63);
    refused(&medium, "a meta page that lies");
    let medium = set_high_water(&file_of(&[header(0)]), 1 << 40);
    let file = open(&medium, &options(PAGE, Freelist::Stored)).unwrap();
    assert_eq!(file.begin().root().items().count(), 0);
    assert_eq!(file.begin_write().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(file.begin().check().len(), 1);
    let mut many = header(0);
    many[10..12].copy_from_slice(&u16::MAX.to_ne_bytes());
    many.resize(page::HEADER + ELEMENT, 0xff);
    refused(&file_of(&[many]), "more elements than the page");
}

/// A terabyte that is a hole behind what was recorded.
#[derive(Debug)]
struct Hole(Recording);

impl Medium for Hole {
    fn length(&self) -> Result<u64> {
        Ok(1 << 40)
    }
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize> {
        assert!(buffer.len() <= 1 << 20, "{} bytes at once", buffer.len());
        let count = self.0.read(at, buffer)?;
        buffer[count..].fill(0);
        Ok(buffer.len())
    }
    fn write(&self, _: u64, _: &[u8]) -> Result<()> {
        unreachable!("it is only read")
    }
    fn set_length(&self, _: u64) -> Result<()> {
        unreachable!("it is only read")
    }
    fn sync(&self) -> Result<()> {
        unreachable!("it is only read")
    }
}

#[test]
fn a_page_that_is_mostly_a_hole_takes_no_memory() {
    for overflow in [1 << 18, 1 << 29] {
        let page = Header { id: 2, flags: LEAF, count: 0, overflow }.to_bytes().to_vec();
        let medium = set_high_water(&file_of(&[page]), 1 << 30);
        let options = Options { access: Access::ReadOnly, ..options(PAGE, Freelist::Stored) };
        let file = BoltFile::with(Box::new(Hole(medium)), "hole".to_owned(), &options).unwrap();
        let reading = file.begin();
        let error = reading.root().items().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{}", error.report());
    }
}

#[test]
fn a_page_that_would_not_be_read_again_is_not_written() {
    let medium = Recording::default();
    let file = open(&medium, &options(PAGE, Freelist::Stored)).unwrap();
    let before = medium.with(|recorded| recorded.content.clone());
    let mut writing = file.begin_write().unwrap();
    writing.root_mut().unwrap().put(b"k", &vec![0; 256 << 20]).unwrap();
    assert_eq!(writing.commit().unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(medium.with(|recorded| recorded.content == before));
}

#[test]
fn the_last_transaction_number_is_the_end() {
    let content = file_of(&[encode_leaf(2, 0, &[]).unwrap()]).with(|recorded| recorded.content.clone());
    for (txid, slot) in [(u64::MAX, 1), (u64::MAX - 1, 1), (u64::MAX, 0)] {
        let meta = Meta { txid, ..Meta::parse(&content[page::HEADER..]).unwrap() };
        let empty = vec![0; PAGE];
        let pages = if slot == 0 { [meta.to_page(0), empty] } else { [empty, meta.to_page(1)] };
        let medium = Recording::of([pages.concat(), content[2 * PAGE..].to_vec()].concat());
        let file = open(&medium, &options(PAGE, Freelist::Stored)).unwrap();
        let mut transaction = file.begin_write().unwrap();
        transaction.root_mut().unwrap().put(b"k", b"v").unwrap();
        assert_eq!(transaction.commit().unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}

/// A small file with everything in it: branches, overflow, inline and other buckets, a freelist.
fn sample(freelist: Freelist) -> Vec<u8> {
    let medium = Recording::default();
    let file = open(&medium, &options(PAGE, freelist)).unwrap();
    for round in 0..2u8 {
        let mut transaction = file.begin_write().unwrap();
        let mut root = transaction.root_mut().unwrap();
        let mut images = root.create_bucket_if_not_exists(b"images").unwrap();
        for number in 0..12u8 {
            let mut image = images.create_bucket_if_not_exists(&[b'a' + number; 9]).unwrap();
            image.put(b"digest", &[b'0' + number; 71]).unwrap();
            image.put(b"size", &[round]).unwrap();
        }
        root.put(b"large", &[round; 1500]).unwrap();
        transaction.commit().unwrap();
    }
    drop(file);
    let (high_water, content) = medium.with(|recorded| {
        let (meta, _) =
            meta::choose(|at, length| Ok(recorded.content[to_usize(at)..][..length].to_vec())).unwrap();
        (meta.high_water, recorded.content.clone())
    });
    content[..to_usize(high_water) * PAGE].to_vec()
}

/// Files with a few bits changed. Most bits of a meta page only make the other one count, so few of them are there.
#[test]
fn a_hundred_thousand_damaged_files_do_no_harm() {
    let samples = [sample(Freelist::Stored), sample(Freelist::Absent)];
    let mut number = 1u64;
    let mut next = |limit: usize| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        to_usize(number >> 33) % limit
    };
    let interesting: Vec<Vec<usize>> = samples
        .iter()
        .map(|sample| {
            let page = |at: &usize| sample[at / PAGE * PAGE..][..PAGE].iter().rposition(|byte| *byte != 0);
            (2 * PAGE..sample.len()).filter(|at| page(at).is_some_and(|last| at % PAGE <= last)).collect()
        })
        .collect();
    for _ in 0..100_000 {
        let which = next(2);
        let mut damaged = samples[which].clone();
        for _ in 0..=next(2) {
            let places = &interesting[which];
            let at = if next(20) == 0 { next(2 * PAGE) } else { places[next(places.len())] };
            damaged[at] ^= 1 << next(8);
        }
        fuzzing::file(&damaged);
    }
}

#[test]
fn files_that_end_anywhere_do_no_harm() {
    let sample = sample(Freelist::Stored);
    for length in (0..sample.len()).step_by(37) {
        fuzzing::file(&sample[..length]);
    }
}
