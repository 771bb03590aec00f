// SPDX-License-Identifier: MulanPSL-2.0
//! Visiting every page of a bucket and of the buckets within it, without recursion and in time that is linear in the
//! size of the file, whatever lies in it.

use std::sync::Arc;

use super::bucket::Stored;
use super::bytes::Slice;
use super::page::{Page, Run};
use super::pager::Pages;
use crate::error::{During, Error, Result};

/// Longest way from the root of a bucket to a leaf. Each step at least doubles what lies below.
pub(super) const DEEPEST_TREE: usize = 64;

/// Which keys may lie below an element: from `lower`, to below `upper`.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub lower: Option<Slice>,
    pub upper: Option<Slice>,
}

impl Bounds {
    /// The bounds of what an element of a branch leads to. Without them, a page that is reached twice could make a
    /// cursor go on for ever.
    pub(super) fn below(&self, page: &Page, index: usize) -> Bounds {
        let upper = (index + 1 < page.count()).then(|| page.key_slice(index + 1));
        Bounds {
            lower: if index > 0 { Some(page.key_slice(index)) } else { self.lower.clone() },
            upper: upper.or_else(|| self.upper.clone()),
        }
    }

    /// Whether the keys of a page, which are in order, keep them.
    pub(super) fn check(&self, page: &Page) -> Result<()> {
        let Some(last) = page.count().checked_sub(1) else { return Ok(()) };
        let below = self.lower.as_ref().is_some_and(|lower| page.key(0) < &lower[..]);
        let above = self.upper.as_ref().is_some_and(|upper| page.key(last) >= &upper[..]);
        if below || above {
            let page = page.run().start;
            return Err(Error::corrupt(format!("page {page}: its keys do not belong where it is")));
        }
        Ok(())
    }
}

struct Frame {
    page: Arc<Page>,
    next: usize,
    bounds: Bounds,
    depth: usize,
}

/// What [`walk`] comes across.
pub(super) enum Seen {
    /// A page with those that continue it, before its content is read. To be refused if it was seen before, unless the
    /// tree is known to be sound: else the walk may not end.
    Run(Run),
    /// A page or bucket that cannot be read; it goes on with the next one.
    Problem(Error),
}

/// Visits all pages below `root`, until `see` fails for a problem.
pub(super) fn walk(pages: &Pages, root: u64, see: &mut dyn FnMut(Seen) -> Result<()>) -> Result<()> {
    let mut frames = Vec::new();
    let mut next = Some(enter(pages, root, Bounds::default(), 0, see));
    loop {
        match next.take() {
            Some(Ok(frame)) => frames.push(frame),
            Some(Err(error)) => see(Seen::Problem(error))?,
            None => {}
        }
        let Some(frame) = frames.last_mut() else { return Ok(()) };
        let index = frame.next;
        frame.next += 1;
        if index >= frame.page.count() {
            frames.pop();
        } else if let Some(child) = frame.page.child(index) {
            let bounds = frame.bounds.below(&frame.page, index);
            next = Some(enter(pages, child, bounds, frame.depth + 1, see));
        } else if let Some(item) = frame.page.item(index).filter(|item| item.is_bucket()) {
            let bucket = Stored::parse(&item.value).during(|| format!("bucket {:?}", item.key));
            next = Some(bucket.and_then(|bucket| match bucket.inline {
                Some(page) => Ok(Frame { page, next: 0, bounds: Bounds::default(), depth: 0 }),
                None => enter(pages, bucket.root, Bounds::default(), 0, see),
            }));
        }
    }
}

fn enter(
    pages: &Pages,
    id: u64,
    bounds: Bounds,
    depth: usize,
    see: &mut dyn FnMut(Seen) -> Result<()>,
) -> Result<Frame> {
    if depth > DEEPEST_TREE {
        return Err(Error::corrupt(format!("page {id}: it lies too deep")));
    }
    see(Seen::Run(pages.header(id)?.run()))?;
    let page = pages.load(id)?;
    bounds.check(&page)?;
    Ok(Frame { page, next: 0, bounds, depth })
}
