// SPDX-License-Identifier: MulanPSL-2.0
//! Buckets: keys with values, and buckets within buckets.
//!
//! A bucket's value is 16 bytes, `{root page, sequence}`; root page 0: a leaf page follows in the value itself.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::bytes::{Slice, u64_at};
use super::cursor::{Cursor, CursorMut};
use super::node::{Child, Space, release};
use super::page::{BUCKET, Found, LeafItem, Page, encode_leaf, leaf_size};
use super::pager::Pages;
use super::spans::Spans;
use super::walk::{Bounds, DEEPEST_TREE, Seen, walk};
use crate::error::{During, Error, ErrorKind, Result};

/// Longest key, and longest value, as in the original. Names of buckets are not keys in this.
pub const LONGEST_KEY: usize = 32_768;
/// See [`LONGEST_KEY`].
pub const LONGEST_VALUE: usize = (1 << 31) - 2;

/// How deep buckets may lie in each other where they are changed.
pub const DEEPEST_BUCKET: usize = 128;

/// Length of a bucket's value before an inline page.
const HEADER: usize = 16;

/// A key, and its value or `None` for a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key, or the name of the bucket.
    pub key: Slice,
    /// The value; `None`: it is a bucket.
    pub value: Option<Slice>,
}

impl From<LeafItem> for Item {
    fn from(item: LeafItem) -> Item {
        let value = (!item.is_bucket()).then_some(item.value);
        Item { key: item.key, value }
    }
}

/// A bucket's value.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// 0: inline.
    pub root: u64,
    pub sequence: u64,
    pub inline: Option<Arc<Page>>,
}

impl Stored {
    pub(super) fn parse(value: &Slice) -> Result<Stored> {
        let numbers = u64_at(value, 0).zip(u64_at(value, 8));
        let (root, sequence) = numbers.ok_or_else(|| Error::corrupt("a bucket is too short"))?;
        let inline = match root {
            0 => {
                let page = value.rest(HEADER).map(Page::parse);
                let page = page
                    .ok_or_else(|| Error::corrupt("a bucket is too short"))?
                    .during(|| "an inline bucket")?;
                if !page.is_leaf() {
                    return Err(Error::corrupt("an inline bucket is not a leaf"));
                }
                Some(Arc::new(page))
            }
            _ => None,
        };
        Ok(Stored { root, sequence, inline })
    }

    fn header(root: u64, sequence: u64) -> Vec<u8> {
        [root.to_ne_bytes(), sequence.to_ne_bytes()].concat()
    }
}

/// A bucket as a transaction has it.
#[derive(Debug)]
pub(super) struct State {
    /// Root page before the transaction; 0: none.
    before: u64,
    pub sequence: u64,
    pub tree: Child,
    /// Buckets within it that were opened for changes.
    open: BTreeMap<Slice, State>,
    depth: usize,
}

impl State {
    pub(super) fn new(stored: Stored, depth: usize) -> State {
        let tree = match stored.inline {
            Some(page) => Child::Inline(page),
            None => Child::Page(stored.root),
        };
        State { before: stored.root, sequence: stored.sequence, tree, open: BTreeMap::new(), depth }
    }

    pub(super) fn is_changed(&self) -> bool {
        matches!(self.tree, Child::Node(_)) || self.open.values().any(State::is_changed)
    }

    /// Gives everything that was changed a place in the file. The root page is in `tree` then.
    pub(super) fn spill(&mut self, space: &mut Space<'_>) -> Result<u64> {
        self.settle(space)?;
        self.tree.spill(space)
    }

    /// Everything but the pages of the bucket's own tree.
    fn settle(&mut self, space: &mut Space<'_>) -> Result<()> {
        for (name, mut bucket) in std::mem::take(&mut self.open) {
            if bucket.is_changed() {
                let value = Slice::from(bucket.stored_value(space)?);
                self.tree.put(space.pages, LeafItem { flags: BUCKET, key: name, value })?;
            }
        }
        self.tree.rebalance(space)
    }

    fn stored_value(&mut self, space: &mut Space<'_>) -> Result<Vec<u8>> {
        self.settle(space)?;
        // As in the original: a leaf without buckets that takes a quarter of a page at most.
        let inline = self.tree.root_leaf().filter(|items| {
            !items.iter().any(LeafItem::is_bucket) && leaf_size(items) <= space.pages.page_size() / 4
        });
        if let Some(items) = inline {
            let mut value = Stored::header(0, self.sequence);
            value.extend_from_slice(&encode_leaf(0, 0, items)?);
            self.tree.release_root(space);
            return Ok(value);
        }
        let root = self.tree.spill(space)?;
        Ok(Stored::header(root, self.sequence))
    }
}

#[derive(Debug, Clone)]
enum View<'t> {
    Open(&'t State),
    Stored(Stored),
}

/// A bucket for reading. In a transaction that writes it shows what has been changed.
#[derive(Debug, Clone)]
pub struct Bucket<'t> {
    pages: &'t Pages,
    view: View<'t>,
    /// The root page of a bucket that is stored, once it was asked for.
    root: OnceCell<Arc<Page>>,
}

/// Where a tree begins.
pub(super) enum Start<'t> {
    Child(&'t Child),
    Inline(Arc<Page>),
    Page(u64),
}

impl<'t> Bucket<'t> {
    pub(super) fn open(pages: &'t Pages, state: &'t State) -> Bucket<'t> {
        Bucket { pages, view: View::Open(state), root: OnceCell::new() }
    }

    pub(super) fn pages(&self) -> &'t Pages {
        self.pages
    }

    pub(super) fn start(&self) -> Start<'t> {
        match &self.view {
            View::Open(state) => Start::Child(&state.tree),
            View::Stored(Stored { inline: Some(page), .. }) => Start::Inline(Arc::clone(page)),
            View::Stored(stored) => Start::Page(stored.root),
        }
    }

    fn find(&self, key: &[u8]) -> Result<Option<Found>> {
        match &self.view {
            View::Stored(Stored { inline: Some(page), .. }) => Ok(page.find(key)),
            View::Stored(stored) => self.find_stored(stored.root, key),
            View::Open(State { tree: Child::Page(root), .. }) => self.find_stored(*root, key),
            View::Open(_) => {
                let mut cursor = self.cursor();
                let item = cursor.seek_item(key)?.filter(|item| *item.key == *key);
                Ok(item.map(|item| Found { flags: item.flags, value: item.value }))
            }
        }
    }

    /// Where nothing is changed: the same as with a cursor, which would keep the whole way, and go on to the next leaf if
    /// there is no such key.
    fn find_stored(&self, root: u64, key: &[u8]) -> Result<Option<Found>> {
        let mut page = self.root_page(root)?;
        let mut bounds = Bounds::default();
        for _ in 0..=DEEPEST_TREE {
            if page.is_leaf() {
                return Ok(page.find(key));
            }
            let index = page.towards(key);
            let Some(child) = page.child(index) else { break };
            bounds = bounds.below(&page, index);
            page = self.pages.load(child)?;
            bounds.check(&page)?;
        }
        Err(Error::corrupt("the tree of a bucket is too deep"))
    }

    /// Where each look-up begins. An image has a bucket of its own, which is asked for each of its keys.
    fn root_page(&self, root: u64) -> Result<Arc<Page>> {
        if let Some(page) = self.root.get() {
            return Ok(Arc::clone(page));
        }
        let page = self.pages.load(root)?;
        Ok(Arc::clone(self.root.get_or_init(|| page)))
    }

    /// The value of a key; `None` when there is none or when it is the name of a bucket.
    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(self.find(key)?.filter(|item| !item.is_bucket()).map(|item| item.value))
    }

    /// A bucket within this one; `None` when there is none or when the key has a value.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'t>>> {
        if let Some(open) = self.open_bucket(name) {
            return Ok(Some(open));
        }
        match self.find(name)?.filter(Found::is_bucket) {
            Some(found) => self.stored_bucket(name, &found.value).map(Some),
            None => Ok(None),
        }
    }

    /// One that was opened for changes.
    fn open_bucket(&self, name: &[u8]) -> Option<Bucket<'t>> {
        let View::Open(state) = &self.view else { return None };
        let state = state.open.get(name)?;
        Some(Bucket::open(self.pages, state))
    }

    fn stored_bucket(&self, name: &[u8], value: &Slice) -> Result<Bucket<'t>> {
        let stored = Stored::parse(value).during(|| format!("bucket {:?}", Slice::copy(name)))?;
        Ok(Bucket { pages: self.pages, view: View::Stored(stored), root: OnceCell::new() })
    }

    /// The number that [`BucketMut::next_sequence`] counts.
    pub fn sequence(&self) -> u64 {
        match &self.view {
            View::Open(state) => state.sequence,
            View::Stored(stored) => stored.sequence,
        }
    }

    /// A cursor that is nowhere yet.
    pub fn cursor(&self) -> Cursor<'t> {
        Cursor::new(self.clone())
    }

    /// All keys in their byte order, with the bucket of each; `None`: it has a value. A bucket that cannot be read is the
    /// inner error; ends after the first outer one.
    pub fn buckets(&self) -> impl Iterator<Item = Result<(Slice, Result<Option<Bucket<'t>>>)>> + 't {
        let bucket = self.clone();
        let mut cursor = Some(self.cursor());
        std::iter::from_fn(move || {
            let next = cursor.as_mut()?.next_item().transpose();
            if !matches!(next, Some(Ok(_))) {
                cursor = None;
            }
            Some(next?.map(|item| {
                let inner = match bucket.open_bucket(&item.key) {
                    Some(open) => Ok(Some(open)),
                    None if item.is_bucket() => bucket.stored_bucket(&item.key, &item.value).map(Some),
                    None => Ok(None),
                };
                (item.key, inner)
            }))
        })
    }

    /// All items in the byte order of their keys; ends after the first error.
    pub fn items(&self) -> impl Iterator<Item = Result<Item>> + 't {
        let mut cursor = Some(self.cursor());
        std::iter::from_fn(move || {
            let next = cursor.as_mut()?.next().transpose();
            if !matches!(next, Some(Ok(_))) {
                cursor = None;
            }
            next
        })
    }
}

/// A bucket for changes.
#[derive(Debug)]
pub struct BucketMut<'t> {
    pages: &'t Pages,
    freed: &'t mut Spans,
    state: &'t mut State,
}

impl<'t> BucketMut<'t> {
    pub(super) fn new(pages: &'t Pages, freed: &'t mut Spans, state: &'t mut State) -> BucketMut<'t> {
        BucketMut { pages, freed, state }
    }

    /// The same for reading.
    pub fn view(&self) -> Bucket<'_> {
        Bucket::open(self.pages, self.state)
    }

    /// See [`Bucket::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.view().get(key)
    }

    /// Puts a value in the place of what is there. `incompatible value` if that is a bucket.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.is_empty() {
            return Err(Error::invalid("key required"));
        }
        if key.len() > LONGEST_KEY {
            return Err(Error::invalid("key too large"));
        }
        if value.len() > LONGEST_VALUE {
            return Err(Error::invalid("value too large"));
        }
        if self.view().find(key)?.is_some_and(|item| item.is_bucket()) {
            return Err(incompatible());
        }
        let item = LeafItem { flags: 0, key: Slice::copy(key), value: Slice::copy(value) };
        self.state.tree.put(self.pages, item)
    }

    /// Takes a key and its value away; there being none is fine. `incompatible value` if it is a bucket.
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        match self.view().find(key)? {
            None => Ok(()),
            Some(item) if item.is_bucket() => Err(incompatible()),
            Some(_) => self.state.tree.remove(self.pages, key),
        }
    }

    /// A bucket within this one for changes; `None` as in [`Bucket::bucket`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<Option<BucketMut<'_>>> {
        if !self.state.open.contains_key(name) {
            let Some(found) = self.view().find(name)?.filter(Found::is_bucket) else { return Ok(None) };
            let stored = Stored::parse(&found.value).during(|| format!("bucket {:?}", Slice::copy(name)))?;
            let depth = self.deeper()?;
            self.state.open.insert(Slice::copy(name), State::new(stored, depth));
        }
        let state = self.state.open.get_mut(name);
        Ok(state.map(|state| BucketMut { pages: self.pages, freed: self.freed, state }))
    }

    fn deeper(&self) -> Result<usize> {
        if self.state.depth >= DEEPEST_BUCKET {
            let message = format!("more than {DEEPEST_BUCKET} buckets within each other");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        Ok(self.state.depth + 1)
    }

    /// Makes a bucket. `AlreadyExists` if there is one, `incompatible value` if the key has a value.
    pub fn create_bucket(&mut self, name: &[u8]) -> Result<BucketMut<'_>> {
        if name.is_empty() {
            return Err(Error::invalid("bucket name required"));
        }
        if name.len() > LONGEST_VALUE {
            return Err(Error::invalid("bucket name too large"));
        }
        match self.view().find(name)? {
            Some(item) if item.is_bucket() => {
                return Err(Error::new(ErrorKind::AlreadyExists, "bucket already exists"));
            }
            Some(_) => return Err(incompatible()),
            None => {}
        }
        let depth = self.deeper()?;
        let key = Slice::copy(name);
        let empty = State { before: 0, sequence: 0, tree: Child::empty(), open: BTreeMap::new(), depth };
        let mut value = Stored::header(0, 0);
        value.extend_from_slice(&encode_leaf(0, 0, &[])?);
        let item = LeafItem { flags: BUCKET, key: key.clone(), value: value.into() };
        self.state.tree.put(self.pages, item)?;
        let state = self.state.open.entry(key).or_insert(empty);
        Ok(BucketMut { pages: self.pages, freed: self.freed, state })
    }

    /// The same, or the bucket that is there.
    pub fn create_bucket_if_not_exists(&mut self, name: &[u8]) -> Result<BucketMut<'_>> {
        match self.create_bucket(name).map(drop) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        self.bucket(name)?.ok_or_else(no_bucket)
    }

    /// Takes a bucket and everything in it away. `NotFound` if there is none, `incompatible value` if the key has a
    /// value.
    pub fn delete_bucket(&mut self, name: &[u8]) -> Result<()> {
        let item = self.view().find(name)?.ok_or_else(no_bucket)?;
        if !item.is_bucket() {
            return Err(incompatible());
        }
        let before = match self.state.open.get(name) {
            Some(state) => state.before,
            None => Stored::parse(&item.value)?.root,
        };
        let mut gone = Vec::new();
        if before != 0 {
            // Pages of buckets that this transaction has made in it are in no file yet.
            walk(self.pages, before, &mut |seen| match seen {
                Seen::Run(run) => {
                    gone.push(run);
                    Ok(())
                }
                Seen::Problem(error) => Err(error),
            })?;
        }
        self.state.tree.remove(self.pages, name)?;
        for run in gone {
            release(self.freed, Some(run));
        }
        self.state.open.remove(name);
        Ok(())
    }

    /// Counts on, and gives the number: 1 the first time.
    pub fn next_sequence(&mut self) -> Result<u64> {
        let next = self.state.sequence.checked_add(1);
        let next =
            next.ok_or_else(|| Error::new(ErrorKind::LimitExceeded, "the sequence has come to its end"))?;
        self.set_sequence(next)?;
        Ok(next)
    }

    /// Sets the number that [`BucketMut::next_sequence`] counts on from.
    pub fn set_sequence(&mut self, sequence: u64) -> Result<()> {
        self.state.tree.open(self.pages)?;
        self.state.sequence = sequence;
        Ok(())
    }

    /// A cursor that can delete.
    pub fn cursor(&mut self) -> CursorMut<'_> {
        CursorMut::new(BucketMut { pages: self.pages, freed: self.freed, state: self.state })
    }
}

fn incompatible() -> Error {
    Error::invalid("incompatible value")
}

fn no_bucket() -> Error {
    Error::not_found("bucket not found")
}

impl std::borrow::Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}
