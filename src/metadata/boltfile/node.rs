// SPDX-License-Identifier: MulanPSL-2.0
//! The part of a tree that a transaction has changed: copies of pages, merged and split when it commits.
//!
//! Pages that were not changed are only numbers in it. Nothing in the file is touched before the commit, and nothing is
//! written where something lies that the state before needs.

use std::sync::Arc;

use super::bytes::{Slice, to_u64};
use super::page::{ELEMENT, HEADER, LeafItem, Page, Run, encode_branch, encode_leaf, item_size, leaf_size};
use super::pager::{Pages, check_run};
use super::spans::Spans;
use super::walk::DEEPEST_TREE;
use crate::error::{Error, ErrorKind, Result};

/// A page, changed or not.
#[derive(Debug)]
pub(super) enum Child {
    /// As it lies in the file.
    Page(u64),
    /// Only as a root: the leaf within the value of an inline bucket.
    Inline(Arc<Page>),
    /// A copy that was or will be changed.
    Node(Box<Node>),
}

/// A changed page.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it was read from: free once the transaction is written. `None` for a new one.
    page: Option<Run>,
    pub items: Items,
    /// Something was taken from it.
    unbalanced: bool,
}

#[derive(Debug)]
pub(super) enum Items {
    Leaf(Vec<LeafItem>),
    Branch(Vec<(Slice, Child)>),
}

/// Where changed pages go: free pages first, then behind the last one used.
#[derive(Debug)]
pub(super) struct Space<'a> {
    pub pages: &'a Pages,
    /// Free pages.
    pub free: Spans,
    /// Pages that nothing needs once this transaction is written.
    pub freed: &'a mut Spans,
    pub high_water: u64,
    /// What has to be written.
    pub written: Vec<(u64, Vec<u8>)>,
}

impl Space<'_> {
    fn page_size(&self) -> usize {
        self.pages.page_size()
    }

    /// Pages for so many bytes.
    pub(super) fn allocate(&mut self, size: usize) -> Result<(Run, u32)> {
        let too_large = || Error::new(ErrorKind::LimitExceeded, "the file would be too large for the format");
        let length = to_u64(size.div_ceil(self.page_size()).max(1));
        let overflow = u32::try_from(length - 1).map_err(|_| too_large())?;
        // Nobody here could read it.
        check_run(length.saturating_mul(to_u64(self.page_size())))?;
        let start = match self.free.take(length) {
            Some(start) => start,
            None => {
                let start = self.high_water;
                self.high_water = start.checked_add(length).ok_or_else(too_large)?;
                start
            }
        };
        Ok((Run { start, length }, overflow))
    }

    /// A page of the state before that this transaction does not need. More than once is fine: a bucket that goes
    /// takes pages with it that were freed one by one before. That no page has two places was seen at the start.
    pub(super) fn release(&mut self, run: Option<Run>) {
        release(self.freed, run);
    }
}

/// See [`Space::release`].
pub(super) fn release(freed: &mut Spans, run: Option<Run>) {
    if let Some(run) = run {
        // `false`: it is in it already.
        freed.insert(run);
    }
}

impl Child {
    /// A new, empty leaf.
    pub(super) fn empty() -> Child {
        Child::Node(Box::new(Node::new(Items::Leaf(Vec::new()))))
    }

    /// Makes it a copy that can be changed.
    pub(super) fn open(&mut self, pages: &Pages) -> Result<&mut Node> {
        let node = match self {
            Child::Node(_) => None,
            Child::Page(id) => {
                let page = pages.load(*id)?;
                Some(Node { page: Some(page.run()), ..Node::copy(&page) })
            }
            Child::Inline(page) => Some(Node::copy(page)),
        };
        if let Some(node) = node {
            *self = Child::Node(Box::new(node));
        }
        match self {
            Child::Node(node) => Ok(node),
            Child::Page(_) | Child::Inline(_) => Err(Error::corrupt("a page did not become a node")),
        }
    }

    fn into_node(mut self, pages: &Pages) -> Result<Node> {
        self.open(pages)?;
        match self {
            Child::Node(node) => Ok(*node),
            Child::Page(_) | Child::Inline(_) => Err(Error::corrupt("a page did not become a node")),
        }
    }

    /// The leaf in which `key` is or would be, with everything on the way to it open.
    fn leaf_for(&mut self, pages: &Pages, key: &[u8]) -> Result<(&mut Vec<LeafItem>, &mut bool)> {
        let mut at = self;
        for _ in 0..=DEEPEST_TREE {
            let node = at.open(pages)?;
            match &mut node.items {
                Items::Leaf(items) => return Ok((items, &mut node.unbalanced)),
                Items::Branch(items) => {
                    let index = items.partition_point(|(first, _)| &first[..] <= key).saturating_sub(1);
                    at = items.get_mut(index).map(|(_, child)| child).ok_or_else(empty_branch)?;
                }
            }
        }
        Err(Error::corrupt("the tree of a bucket is too deep"))
    }

    /// Puts an item, in the place of another with its key if there is one.
    pub(super) fn put(&mut self, pages: &Pages, item: LeafItem) -> Result<()> {
        let (items, _) = self.leaf_for(pages, &item.key)?;
        match items.binary_search_by(|other| other.key.cmp(&item.key)) {
            Ok(index) => {
                if let Some(place) = items.get_mut(index) {
                    *place = item;
                }
            }
            Err(index) => items.insert(index, item),
        }
        Ok(())
    }

    /// Takes the item with this key away, if there is one.
    pub(super) fn remove(&mut self, pages: &Pages, key: &[u8]) -> Result<()> {
        let (items, unbalanced) = self.leaf_for(pages, key)?;
        if let Ok(index) = items.binary_search_by(|other| (*other.key).cmp(key)) {
            items.remove(index);
            *unbalanced = true;
        }
        Ok(())
    }

    /// Merges what has become too small, and takes levels away that lead to one page only.
    pub(super) fn rebalance(&mut self, space: &mut Space<'_>) -> Result<()> {
        let Child::Node(root) = self else { return Ok(()) };
        root.rebalance(space)?;
        while let Child::Node(root) = self {
            let Items::Branch(items) = &mut root.items else { break };
            if items.len() > 1 {
                break;
            }
            let only = items.pop().map(|(_, child)| child);
            space.release(root.page);
            *self = only.unwrap_or_else(Child::empty);
        }
        Ok(())
    }

    /// The items of a root that is a changed leaf.
    pub(super) fn root_leaf(&self) -> Option<&[LeafItem]> {
        match self {
            Child::Node(node) => match &node.items {
                Items::Leaf(items) => Some(items),
                Items::Branch(_) => None,
            },
            Child::Page(_) | Child::Inline(_) => None,
        }
    }

    /// The page of a changed root is free: its items go elsewhere.
    pub(super) fn release_root(&self, space: &mut Space<'_>) {
        if let Child::Node(node) = self {
            space.release(node.page);
        }
    }

    /// Gives a root and what was changed below it places in the file; the root's page.
    pub(super) fn spill(&mut self, space: &mut Space<'_>) -> Result<u64> {
        let node = match std::mem::replace(self, Child::Page(0)) {
            Child::Node(node) => *node,
            Child::Page(id) => {
                *self = Child::Page(id);
                return Ok(id);
            }
            Child::Inline(page) => Node::copy(&page),
        };
        let mut level = node.spill(space, true)?;
        loop {
            level = match level.as_slice() {
                [] => Node::new(Items::Leaf(Vec::new())).spill(space, true)?,
                [(_, root)] => {
                    *self = Child::Page(*root);
                    return Ok(*root);
                }
                // Splitting leaves two elements to a page at least, so each level is at most half as long.
                _ => write_branches(&level, space)?,
            };
        }
    }
}

impl Node {
    fn new(items: Items) -> Node {
        Node { page: None, items, unbalanced: false }
    }

    fn copy(page: &Page) -> Node {
        let all = 0..page.count();
        Node::new(if page.is_leaf() {
            Items::Leaf(all.filter_map(|index| page.item(index)).collect())
        } else {
            let child = |index| Some((page.key_slice(index), Child::Page(page.child(index)?)));
            Items::Branch(all.filter_map(child).collect())
        })
    }

    /// As in the original: a quarter of a page, or fewer elements than it takes to be worth one.
    fn is_small(&self, page_size: usize) -> bool {
        let (size, count, least) = match &self.items {
            Items::Leaf(items) => (leaf_size(items), items.len(), 1),
            Items::Branch(items) => {
                let sizes = items.iter().map(|(key, _)| ELEMENT.saturating_add(key.len()));
                (sizes.fold(HEADER, usize::saturating_add), items.len(), 2)
            }
        };
        size <= page_size / 4 || count <= least
    }

    fn is_empty(&self) -> bool {
        match &self.items {
            Items::Leaf(items) => items.is_empty(),
            Items::Branch(items) => items.is_empty(),
        }
    }

    fn rebalance(&mut self, space: &mut Space<'_>) -> Result<()> {
        let Items::Branch(items) = &mut self.items else { return Ok(()) };
        for (_, child) in items.iter_mut() {
            if let Child::Node(node) = child {
                node.rebalance(space)?;
            }
        }
        let mut at = 0;
        while let Some((_, child)) = items.get(at) {
            let node = match child {
                Child::Node(node) if node.unbalanced && node.is_small(space.page_size()) => node,
                _ => {
                    at += 1;
                    continue;
                }
            };
            if node.is_empty() {
                space.release(node.page);
                items.remove(at);
                self.unbalanced = true;
                continue;
            }
            if items.len() < 2 {
                break;
            }
            // The right one of the two goes into the left one, which may still be too small or become too large.
            self.unbalanced = true;
            let left = at.saturating_sub(1);
            let (_, right) = items.remove(left + 1);
            let right = right.into_node(space.pages)?;
            space.release(right.page);
            let (_, child) = items.get_mut(left).ok_or_else(empty_branch)?;
            child.open(space.pages)?.append(right)?;
            at = left;
        }
        Ok(())
    }

    fn append(&mut self, right: Node) -> Result<()> {
        self.unbalanced = true;
        match (&mut self.items, right.items) {
            (Items::Leaf(left), Items::Leaf(right)) => left.extend(right),
            (Items::Branch(left), Items::Branch(right)) => left.extend(right),
            _ => return Err(Error::corrupt("a leaf and a branch are beside each other in a tree")),
        }
        Ok(())
    }

    /// Writes it as one page or several; their first keys and numbers. Nothing for an empty one that is no root.
    fn spill(self, space: &mut Space<'_>, root: bool) -> Result<Vec<(Slice, u64)>> {
        space.release(self.page);
        match self.items {
            Items::Leaf(items) if items.is_empty() && !root => Ok(Vec::new()),
            Items::Leaf(items) => write_leaves(&items, space),
            Items::Branch(items) => {
                let mut level = Vec::with_capacity(items.len());
                for (key, child) in items {
                    match child {
                        Child::Page(id) => level.push((key, id)),
                        Child::Node(node) => level.extend(node.spill(space, false)?),
                        Child::Inline(_) => return Err(Error::corrupt("an inline page is in a branch")),
                    }
                }
                if level.is_empty() { Ok(level) } else { write_branches(&level, space) }
            }
        }
    }
}

fn write_leaves(items: &[LeafItem], space: &mut Space<'_>) -> Result<Vec<(Slice, u64)>> {
    let mut written = Vec::new();
    for part in split(items, item_size, space.page_size()) {
        let (run, overflow) = space.allocate(leaf_size(part))?;
        space.written.push((run.start, encode_leaf(run.start, overflow, part)?));
        written.push((part.first().map(|item| item.key.clone()).unwrap_or_default(), run.start));
    }
    Ok(written)
}

fn write_branches(items: &[(Slice, u64)], space: &mut Space<'_>) -> Result<Vec<(Slice, u64)>> {
    let size = |(key, _): &(Slice, u64)| ELEMENT.saturating_add(key.len());
    let mut written = Vec::new();
    for part in split(items, size, space.page_size()) {
        let length = part.iter().map(size).fold(HEADER, usize::saturating_add);
        let (run, overflow) = space.allocate(length)?;
        space.written.push((run.start, encode_branch(run.start, overflow, part)?));
        written.push((part.first().map(|(key, _)| key.clone()).unwrap_or_default(), run.start));
    }
    Ok(written)
}

/// Fewest elements of a page that others were split from.
const LEAST: usize = 2;

/// Parts of which each, but the last, fills about half a page and has two elements at least; everything in one part if
/// it fits in a page or is too little to be split.
fn split<T>(items: &[T], size: impl Fn(&T) -> usize, page_size: usize) -> Vec<&[T]> {
    let mut left: usize = items.iter().map(&size).fold(HEADER, usize::saturating_add);
    let mut rest = items;
    let mut parts = Vec::new();
    while rest.len() > 2 * LEAST && left >= page_size {
        let mut length = HEADER;
        let mut count = 0;
        for item in rest.iter().take(rest.len() - LEAST) {
            let next = length.saturating_add(size(item));
            if count >= LEAST && next > page_size / 2 {
                break;
            }
            length = next;
            count += 1;
        }
        let (part, others) = rest.split_at(count);
        parts.push(part);
        rest = others;
        left = left.saturating_sub(length - HEADER);
    }
    parts.push(rest);
    parts
}

fn empty_branch() -> Error {
    Error::corrupt("a branch has no elements")
}
