// SPDX-License-Identifier: MulanPSL-2.0
//! Going through a bucket in the byte order of its keys.

use std::sync::Arc;

use super::bucket::{Bucket, BucketMut, Item, Start};
use super::bytes::Slice;
use super::node::{Child, Items, Node};
use super::page::{LeafItem, Page};
use super::walk::{Bounds, DEEPEST_TREE};
use crate::error::{Error, Result};

/// A position in a bucket. Every call reads only what lies on its way; a file that leads in circles is an error.
#[derive(Debug)]
pub struct Cursor<'t> {
    bucket: Bucket<'t>,
    /// The way from the root to the item, whose leaf is last. Empty: nowhere yet.
    way: Vec<Frame<'t>>,
}

#[derive(Debug)]
struct Frame<'t> {
    place: Place<'t>,
    index: usize,
    bounds: Bounds,
}

#[derive(Debug, Clone)]
enum Place<'t> {
    Page(Arc<Page>),
    Node(&'t Node),
}

#[derive(Debug, Clone, Copy)]
enum End {
    First,
    Last,
}

impl<'t> Place<'t> {
    fn count(&self) -> usize {
        match self {
            Place::Page(page) => page.count(),
            Place::Node(node) => match &node.items {
                Items::Leaf(items) => items.len(),
                Items::Branch(items) => items.len(),
            },
        }
    }

    fn is_leaf(&self) -> bool {
        match self {
            Place::Page(page) => page.is_leaf(),
            Place::Node(node) => matches!(node.items, Items::Leaf(_)),
        }
    }

    fn key(&self, index: usize) -> &[u8] {
        match self {
            Place::Page(page) => page.key(index),
            Place::Node(node) => match &node.items {
                Items::Leaf(items) => items.get(index).map(|item| &item.key[..]),
                Items::Branch(items) => items.get(index).map(|(key, _)| &key[..]),
            }
            .unwrap_or_default(),
        }
    }

    fn item(&self, index: usize) -> Option<LeafItem> {
        match self {
            Place::Page(page) => page.item(index),
            Place::Node(node) => match &node.items {
                Items::Leaf(items) => items.get(index).cloned(),
                Items::Branch(_) => None,
            },
        }
    }

    fn child(&self, index: usize) -> Option<Start<'t>> {
        match self {
            Place::Page(page) => page.child(index).map(Start::Page),
            Place::Node(node) => match &node.items {
                Items::Leaf(_) => None,
                Items::Branch(items) => items.get(index).map(|(_, child)| Start::Child(child)),
            },
        }
    }

    /// The first key that is not smaller.
    fn at_or_after(&self, key: &[u8]) -> usize {
        self.first_where(|other| other >= key)
    }

    /// The element of a branch below which the key would be.
    fn towards(&self, key: &[u8]) -> usize {
        self.first_where(|other| other > key).saturating_sub(1)
    }

    fn first_where(&self, holds: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            if holds(self.key(middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

impl<'t> Cursor<'t> {
    pub(super) fn new(bucket: Bucket<'t>) -> Cursor<'t> {
        Cursor { bucket, way: Vec::new() }
    }

    /// The first item.
    pub fn first(&mut self) -> Result<Option<Item>> {
        self.enter_root(|place| end_of(place, End::First))?;
        self.settle(End::First)
    }

    /// The last item.
    pub fn last(&mut self) -> Result<Option<Item>> {
        self.enter_root(|place| end_of(place, End::Last))?;
        self.settle(End::Last)
    }

    /// The item with this key, or the next one after it.
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<Item>> {
        Ok(self.seek_item(key)?.map(Item::from))
    }

    pub(super) fn seek_item(&mut self, key: &[u8]) -> Result<Option<LeafItem>> {
        self.enter_root(|place| if place.is_leaf() { place.at_or_after(key) } else { place.towards(key) })?;
        self.settle_item(End::First)
    }

    /// The next item; the first one if the cursor is nowhere. After the last one it stays there.
    #[expect(clippy::should_implement_trait, reason = "the name of the original; an iterator cannot go back")]
    pub fn next(&mut self) -> Result<Option<Item>> {
        Ok(self.next_item()?.map(Item::from))
    }

    pub(super) fn next_item(&mut self) -> Result<Option<LeafItem>> {
        if self.way.is_empty() {
            self.enter_root(|place| end_of(place, End::First))?;
        } else if !self.step(End::First)? {
            return Ok(None);
        }
        self.settle_item(End::First)
    }

    /// The item before; the last one if the cursor is nowhere. Before the first one it stays there.
    pub fn prev(&mut self) -> Result<Option<Item>> {
        if self.way.is_empty() {
            return self.last();
        }
        if !self.step(End::Last)? {
            return Ok(None);
        }
        self.settle(End::Last)
    }

    fn enter_root(&mut self, index: impl Fn(&Place<'t>) -> usize) -> Result<()> {
        self.way.clear();
        self.enter(self.bucket.start(), Bounds::default(), index)
    }

    /// Goes down to a leaf, at each page to the element that `index` says.
    fn enter(&mut self, start: Start<'t>, bounds: Bounds, index: impl Fn(&Place<'t>) -> usize) -> Result<()> {
        let (mut start, mut bounds) = (start, bounds);
        loop {
            if self.way.len() > DEEPEST_TREE {
                return Err(Error::corrupt("the tree of a bucket is too deep"));
            }
            let place = match start {
                Start::Inline(page) => Place::Page(page),
                Start::Page(id) => self.load(id, &bounds)?,
                Start::Child(Child::Inline(page)) => Place::Page(Arc::clone(page)),
                Start::Child(Child::Page(id)) => self.load(*id, &bounds)?,
                Start::Child(Child::Node(node)) => Place::Node(node),
            };
            let at = index(&place);
            let below = place.child(at);
            let inner = match &place {
                Place::Page(page) => bounds.below(page, at),
                // What was changed has no bounds until it is written.
                Place::Node(_) => Bounds::default(),
            };
            self.way.push(Frame { place, index: at, bounds });
            match below {
                Some(next) => (start, bounds) = (next, inner),
                None => return Ok(()),
            }
        }
    }

    fn load(&self, id: u64, bounds: &Bounds) -> Result<Place<'t>> {
        let page = self.bucket.pages().load(id)?;
        bounds.check(&page)?;
        Ok(Place::Page(page))
    }

    /// Goes to the next element, or the one before; `false`, and stays, if there is none.
    fn step(&mut self, from: End) -> Result<bool> {
        let next = |frame: &Frame<'_>| match from {
            End::First => Some(frame.index + 1).filter(|next| *next < frame.place.count()),
            End::Last => frame.index.checked_sub(1),
        };
        let Some((depth, index)) =
            self.way.iter().enumerate().rev().find_map(|(depth, frame)| Some((depth, next(frame)?)))
        else {
            return Ok(false);
        };
        self.way.truncate(depth + 1);
        let Some(frame) = self.way.last_mut() else { return Ok(false) };
        frame.index = index;
        if let Some(start) = frame.place.child(index) {
            let bounds = match &frame.place {
                Place::Page(page) => frame.bounds.below(page, index),
                Place::Node(_) => Bounds::default(),
            };
            self.enter(start, bounds, |place| end_of(place, from))?;
        }
        Ok(true)
    }

    fn settle(&mut self, from: End) -> Result<Option<Item>> {
        Ok(self.settle_item(from)?.map(Item::from))
    }

    /// The item where the cursor is, or the next one where that leaf is empty or at its end.
    fn settle_item(&mut self, from: End) -> Result<Option<LeafItem>> {
        loop {
            let item = self.way.last().and_then(|frame| frame.place.item(frame.index));
            if item.is_some() || !self.step(from)? {
                return Ok(item);
            }
        }
    }
}

fn end_of(place: &Place<'_>, end: End) -> usize {
    match end {
        End::First => 0,
        End::Last => place.count().saturating_sub(1),
    }
}

/// A cursor of a bucket that is being changed. It knows its key only, so changes cannot lead it astray.
#[derive(Debug)]
pub struct CursorMut<'t> {
    bucket: BucketMut<'t>,
    key: Option<Slice>,
}

impl<'t> CursorMut<'t> {
    pub(super) fn new(bucket: BucketMut<'t>) -> CursorMut<'t> {
        CursorMut { bucket, key: None }
    }

    fn go(&mut self, item: Option<Item>) -> Option<Item> {
        if let Some(item) = &item {
            self.key = Some(item.key.clone());
        }
        item
    }

    /// The first item.
    pub fn first(&mut self) -> Result<Option<Item>> {
        let item = self.bucket.view().cursor().first()?;
        Ok(self.go(item))
    }

    /// The last item.
    pub fn last(&mut self) -> Result<Option<Item>> {
        let item = self.bucket.view().cursor().last()?;
        Ok(self.go(item))
    }

    /// The item with this key, or the next one after it.
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<Item>> {
        let item = self.bucket.view().cursor().seek(key)?;
        Ok(self.go(item))
    }

    /// The next item; the first one if the cursor is nowhere. After the last one it stays there.
    #[expect(clippy::should_implement_trait, reason = "the name of the original; an iterator cannot go back")]
    pub fn next(&mut self) -> Result<Option<Item>> {
        let Some(key) = &self.key else { return self.first() };
        let mut cursor = self.bucket.view().cursor();
        let found = cursor.seek(key)?;
        let item = match found {
            // The one it was at is gone.
            Some(item) if item.key != *key => Some(item),
            Some(_) => cursor.next()?,
            None => None,
        };
        drop(cursor);
        Ok(self.go(item))
    }

    /// The item before; the last one if the cursor is nowhere. Before the first one it stays there.
    pub fn prev(&mut self) -> Result<Option<Item>> {
        let Some(key) = &self.key else { return self.last() };
        let mut cursor = self.bucket.view().cursor();
        let item = match cursor.seek(key)? {
            Some(_) => cursor.prev()?,
            None => cursor.last()?,
        };
        drop(cursor);
        Ok(self.go(item))
    }

    /// Takes the item at the cursor away. `incompatible value` if it is a bucket.
    pub fn delete(&mut self) -> Result<()> {
        let key = self.key.as_ref().ok_or_else(|| Error::invalid("the cursor is at no item"))?;
        self.bucket.delete(key)
    }
}
