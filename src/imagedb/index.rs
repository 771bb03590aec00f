// SPDX-License-Identifier: MulanPSL-2.0
//! What is known of all images, in memory.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::digest::{Digest, HEX_LEN};
use crate::error::{Error, ErrorKind, Result};

use super::backend::Signature;
use super::config::Config;

/// An image that is in the store: its config is on disk and right, and a reference is held on its layer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: Digest,
    pub(super) config: Arc<Config>,
    /// Of the file when it was last verified.
    pub(super) verified: Mutex<Signature>,
}

/// All images.
#[derive(Debug, Default)]
pub(super) struct Index {
    images: BTreeMap<Digest, Arc<Entry>>,
    /// As the files say, also where the parent is not there.
    parents: HashMap<Digest, Digest>,
    /// The same the other way round.
    children: HashMap<Digest, BTreeSet<Digest>>,
}

impl Index {
    pub(super) fn get(&self, id: &Digest) -> Option<&Arc<Entry>> {
        self.images.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.images.len()
    }

    /// All images in the order of their ids.
    pub(super) fn list(&self) -> Vec<(Arc<Entry>, Option<Digest>)> {
        self.images.iter().map(|(id, entry)| (entry.clone(), self.parent(id))).collect()
    }

    /// The same without those that have children.
    pub(super) fn heads(&self) -> Vec<(Arc<Entry>, Option<Digest>)> {
        self.images
            .iter()
            .filter(|(id, _)| !self.children.contains_key(*id))
            .map(|(id, entry)| (entry.clone(), self.parent(id)))
            .collect()
    }

    pub(super) fn put(&mut self, entry: Entry) {
        self.images.insert(entry.id, Arc::new(entry));
    }

    /// Takes an image out; its children are without a parent then.
    pub(super) fn remove(&mut self, id: &Digest) -> Option<Arc<Entry>> {
        for child in self.children(id) {
            self.set_parent(&child, None);
        }
        self.set_parent(id, None);
        self.images.remove(id)
    }

    pub(super) fn parent(&self, id: &Digest) -> Option<Digest> {
        self.parents.get(id).copied()
    }

    /// In the order of their ids; none of an image that is not there.
    pub(super) fn children(&self, id: &Digest) -> Vec<Digest> {
        self.children.get(id).map(|children| children.iter().copied().collect()).unwrap_or_default()
    }

    pub(super) fn set_parent(&mut self, id: &Digest, parent: Option<Digest>) {
        if let Some(old) = self.parents.remove(id)
            && let Some(siblings) = self.children.get_mut(&old)
        {
            siblings.remove(id);
            if siblings.is_empty() {
                self.children.remove(&old);
            }
        }
        if let Some(parent) = parent {
            self.parents.insert(*id, parent);
            self.children.entry(parent).or_default().insert(*id);
        }
    }

    /// Whether `ancestor` is above `id`, or `id` itself. Also where parents go round in a circle.
    pub(super) fn descends_from(&self, id: &Digest, ancestor: &Digest) -> bool {
        if id == ancestor {
            return true;
        }
        // Almost always the answer: what has no children is above nothing.
        if !self.children.contains_key(ancestor) {
            return false;
        }
        // A way with more steps than there are parents goes round.
        let above = std::iter::successors(self.parent(id), |id| self.parent(id));
        above.take(self.parents.len()).any(|id| id == *ancestor)
    }

    /// Images that are above themselves: what a daemon has let happen.
    pub(super) fn circles(&self) -> Vec<Digest> {
        // Each image is looked at once: the way up from it ends at a root, at one of an earlier way, or within itself.
        let mut ways: HashMap<Digest, usize> = HashMap::with_capacity(self.parents.len());
        let mut circles = Vec::new();
        for (way, start) in self.parents.keys().enumerate() {
            let mut at = Some(*start);
            while let Some(id) = at {
                match ways.entry(id) {
                    Vacant(place) => place.insert(way),
                    Occupied(place) if *place.get() == way => {
                        let round = std::iter::successors(self.parent(&id), |id| self.parent(id));
                        circles.push(id);
                        circles.extend(round.take_while(|other| *other != id));
                        break;
                    }
                    Occupied(_) => break,
                };
                at = self.parent(&id);
            }
        }
        circles.sort_unstable();
        circles
    }

    /// The image that a person means: by its id, or the beginning of one, with or without `sha256:`.
    pub(super) fn search(&self, term: &str) -> Result<Digest> {
        if term.is_empty() {
            return Err(Error::invalid("the search term is empty"));
        }
        let not_found = || {
            let shown: String = term.chars().take(HEX_LEN + 16).collect();
            Error::not_found(format!("No such image: {shown}"))
        };
        // What is no digest with an algorithm is the beginning of an id as it stands, which holds no colon.
        let prefix = term.strip_prefix("sha256:").unwrap_or(term);
        let (low, high) = bounds(prefix).ok_or_else(not_found)?;
        let mut found = self.images.range((Bound::Included(low), Bound::Included(high)));
        match (found.next(), found.next()) {
            (Some((id, _)), None) => Ok(*id),
            (None, _) => Err(not_found()),
            (Some(_), Some(_)) => {
                let message = format!("search image {prefix:?}: ambiguous digest string");
                Err(Error::new(ErrorKind::Ambiguous, message))
            }
        }
    }
}

/// The first and the last digest that begin with these hexadecimal digits; `None` when they are none, or too many.
fn bounds(prefix: &str) -> Option<(Digest, Digest)> {
    if prefix.is_empty() || prefix.len() > HEX_LEN {
        return None;
    }
    let mut low = [b'0'; HEX_LEN];
    let mut high = [b'f'; HEX_LEN];
    low.get_mut(..prefix.len())?.copy_from_slice(prefix.as_bytes());
    high.get_mut(..prefix.len())?.copy_from_slice(prefix.as_bytes());
    let digest = |hex: &[u8]| Digest::from_hex(std::str::from_utf8(hex).ok()?).ok();
    Some((digest(&low)?, digest(&high)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    /// Each points to the one before it; the first to `above`.
    fn chain(length: u32, above: Option<u32>) -> Index {
        let mut index = Index::default();
        for number in 0..length {
            index.set_parent(&id(number), number.checked_sub(1).or(above).map(id));
        }
        index
    }

    /// With a look at the whole way for each image it would not come to an end.
    #[test]
    fn circles_are_found_in_very_long_chains() {
        const LENGTH: u32 = 200_000;
        assert_eq!(chain(LENGTH, None).circles(), []);
        assert_eq!(chain(LENGTH, Some(LENGTH)).circles(), []);
        assert_eq!(chain(LENGTH, Some(LENGTH - 1)).circles().len(), LENGTH as usize);
        // What leads into a circle is none of it.
        let mut wanted: Vec<_> = (0..5).map(id).collect();
        wanted.sort_unstable();
        assert_eq!(chain(LENGTH, Some(4)).circles(), wanted);
        assert_eq!(chain(LENGTH, Some(0)).circles(), [id(0)]);
    }

    #[test]
    fn who_descends_from_whom_is_known_also_in_circles() {
        let index = chain(10, None);
        assert!(index.descends_from(&id(9), &id(0)) && index.descends_from(&id(3), &id(3)));
        assert!(!index.descends_from(&id(0), &id(9)) && !index.descends_from(&id(2), &id(3)));
        let round = chain(10, Some(4));
        assert!(round.descends_from(&id(9), &id(0)) && round.descends_from(&id(0), &id(4)));
        assert!(!round.descends_from(&id(9), &id(77)) && !round.descends_from(&id(0), &id(6)));
        assert!(chain(1, Some(0)).descends_from(&id(0), &id(0)));
    }
}
