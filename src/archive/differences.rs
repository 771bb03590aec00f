// SPDX-License-Identifier: MulanPSL-2.0
//! Differences that a later entry of the same archive may still explain.
//!
//! An archive may name a file twice, put a file where a directory was, or something where a whiteout was: then an earlier
//! entry does not fit the tree and a later one says why.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::archive::whiteout::split;

/// Differences kept; with more than that no later entries will explain them all.
const MOST_DIFFERENCES: usize = 10_000;
/// Paths of entries kept, eight bytes each; of what is in a larger archive less is said.
const MOST_SEEN: usize = 1 << 19;

struct Difference {
    order: u64,
    what: String,
    /// What else it depends on.
    other: Option<Vec<u8>>,
    /// Whether a directory at `other` explains it.
    directory_explains: bool,
}

/// By the cleaned path of the entry.
#[derive(Default)]
pub(super) struct Differences {
    by_path: BTreeMap<Vec<u8>, Difference>,
    /// Paths of differences by what else they depend on.
    by_other: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl Differences {
    pub(super) fn are_too_many(&self) -> bool {
        self.by_path.len() > MOST_DIFFERENCES
    }

    /// The one of the first entry.
    pub(super) fn first(self) -> Option<String> {
        self.by_path.into_values().min_by_key(|difference| difference.order).map(|difference| difference.what)
    }

    /// What is at `path` differs.
    pub(super) fn add(&mut self, path: &[u8], order: u64, what: String) {
        self.insert(path, Difference { order, what, other: None, directory_explains: true });
    }

    /// What is at `path` differs, unless a later entry is at `other`.
    pub(super) fn add_depending(
        &mut self,
        path: &[u8],
        order: u64,
        what: String,
        other: &[u8],
        directory_explains: bool,
    ) {
        let difference = Difference { order, what, other: Some(other.to_vec()), directory_explains };
        self.insert(path, difference);
    }

    fn insert(&mut self, path: &[u8], difference: Difference) {
        if let Some(other) = &difference.other {
            self.by_other.entry(other.clone()).or_default().insert(path.to_vec());
        }
        if let Some(Difference { other: Some(other), .. }) = self.by_path.insert(path.to_vec(), difference) {
            self.forget_other(&other, path);
        }
    }

    /// An entry is at `path` and fits.
    pub(super) fn fits(&mut self, path: &[u8]) {
        self.remove(path);
    }

    /// An entry is at `path`, whether it fits or not: what depends on `path` is explained, and what depends on its being
    /// no directory if it, or what it is in, was made a whiteout before.
    pub(super) fn replaced(&mut self, path: &[u8], is_directory: bool) {
        if self.by_other.is_empty() {
            return;
        }
        self.explain(path, is_directory);
        let mut above = split(path).0;
        while !above.is_empty() {
            self.explain(above, true);
            above = split(above).0;
        }
    }

    /// What is no directory is at `path`: what was below is gone.
    pub(super) fn covered(&mut self, path: &[u8]) {
        if self.by_path.is_empty() {
            return;
        }
        for key in below(&self.by_path, path) {
            self.remove(&key);
        }
        for other in below(&self.by_other, path) {
            self.explain(&other, false);
        }
    }

    /// All that depend on something else are explained.
    pub(super) fn forget_depending(&mut self) {
        self.by_path.retain(|_, difference| difference.other.is_none());
        self.by_other.clear();
    }

    fn explain(&mut self, other: &[u8], is_directory: bool) {
        let Some(paths) = self.by_other.get(other) else { return };
        let explained = |path: &&Vec<u8>| {
            self.by_path.get(*path).is_none_or(|difference| difference.directory_explains || !is_directory)
        };
        let explained: Vec<_> = paths.iter().filter(explained).cloned().collect();
        for path in explained {
            self.remove(&path);
        }
    }

    fn remove(&mut self, path: &[u8]) {
        if self.by_path.is_empty() {
            return;
        }
        if let Some(Difference { other: Some(other), .. }) = self.by_path.remove(path) {
            self.forget_other(&other, path);
        }
    }

    fn forget_other(&mut self, other: &[u8], path: &[u8]) {
        // Another difference of the same path may depend on the same.
        if self.by_path.get(path).is_some_and(|difference| difference.other.as_deref() == Some(other)) {
            return;
        }
        if let Some(paths) = self.by_other.get_mut(other) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_other.remove(other);
            }
        }
    }
}

/// Keys below a path.
fn below<V>(map: &BTreeMap<Vec<u8>, V>, path: &[u8]) -> Vec<Vec<u8>> {
    let mut start = path.to_vec();
    start.push(b'/');
    let keys = map.range(start.clone()..).map(|(key, _)| key);
    keys.take_while(|key| key.starts_with(&start)).cloned().collect()
}

/// Paths that entries of the archive have made so far.
#[derive(Default)]
pub(super) struct Seen {
    hashes: HashSet<u64>,
    state: RandomState,
    /// Some did not fit in.
    overflowed: bool,
}

impl Seen {
    /// Notes an entry, with the directories on the way to it.
    pub(super) fn add(&mut self, path: &[u8]) {
        let mut path = path;
        while !path.is_empty() {
            if self.hashes.len() >= MOST_SEEN {
                self.overflowed = true;
                return;
            }
            if !self.hashes.insert(self.state.hash_one(path)) {
                return;
            }
            path = split(path).0;
        }
    }

    /// Notes an entry without what it is in.
    pub(super) fn add_alone(&mut self, path: &[u8]) {
        if self.hashes.len() >= MOST_SEEN {
            self.overflowed = true;
        } else {
            self.hashes.insert(self.state.hash_one(path));
        }
    }

    /// Whether an entry has made this; `None` when that is not known any more.
    pub(super) fn has(&self, path: &[u8]) -> Option<bool> {
        if path.is_empty() || self.hashes.contains(&self.state.hash_one(path)) {
            return Some(true);
        }
        (!self.overflowed).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_entries_explain_what_they_replace() {
        let mut differences = Differences::default();
        differences.add(b"a", 1, "a".to_owned());
        differences.add(b"d/b", 2, "b".to_owned());
        differences.add_depending(b"d/.wh.x", 3, "x".to_owned(), b"d/x", true);
        differences.add_depending(b"d/.wh.y", 4, "y".to_owned(), b"d/y", false);
        differences.add_depending(b"link", 5, "link".to_owned(), b"e/target", true);
        let left = |differences: &Differences| {
            let mut left: Vec<_> = differences.by_path.values().map(|one| one.what.clone()).collect();
            left.sort();
            left.concat()
        };
        assert_eq!(left(&differences), "ablinkxy");
        differences.fits(b"a");
        differences.replaced(b"d/y/below", false);
        differences.replaced(b"d/y", true);
        assert_eq!(left(&differences), "blinkxy");
        differences.replaced(b"d/x/below", false);
        differences.replaced(b"d/y", false);
        assert_eq!(left(&differences), "blink");
        differences.covered(b"e");
        assert_eq!(left(&differences), "b");
        differences.covered(b"d");
        assert!(differences.by_path.is_empty() && differences.by_other.is_empty());
        assert_eq!(differences.first(), None);
    }

    #[test]
    fn the_first_entry_counts_and_the_later_difference_of_one() {
        let mut differences = Differences::default();
        differences.add(b"z", 1, "z".to_owned());
        differences.add_depending(b"a", 2, "a".to_owned(), b"t", true);
        differences.add(b"z", 3, "later z".to_owned());
        differences.add_depending(b"a", 2, "a again".to_owned(), b"t", true);
        assert_eq!(differences.by_other.len(), 1);
        assert_eq!(differences.first().as_deref(), Some("a again"));
    }

    #[test]
    fn directories_on_the_way_are_seen() {
        let mut seen = Seen::default();
        seen.add(b"a/b/c");
        for (path, expected) in
            [(&b""[..], true), (b"a", true), (b"a/b", true), (b"a/b/c", true), (b"b", false)]
        {
            assert_eq!(seen.has(path), Some(expected));
        }
        seen.overflowed = true;
        assert_eq!(seen.has(b"b"), None);
    }
}
