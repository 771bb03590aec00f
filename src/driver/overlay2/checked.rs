// SPDX-License-Identifier: MulanPSL-2.0
//! Lists of lower layers that were found to be whole, so that the next mount on the same image need not look at each of
//! them again.
//!
//! Nobody but the owner of the store changes it, and what the owner takes away or moves is forgotten here. That each
//! directory is still there, the kernel finds out itself when it mounts: what it refuses is looked at again, and mended if
//! it can be. Not for layers that other hosts share, for they change them.

use std::collections::HashSet;

use parking_lot::Mutex;

use super::layout::LinkName;

/// Most lists that are remembered: of 500 layers each they take some 10 MB.
const MOST: usize = 256;

/// Lists of lower layers that are known to be whole.
#[derive(Debug, Default)]
pub(super) struct CheckedLowers(Mutex<HashSet<Vec<LinkName>>>);

impl CheckedLowers {
    pub(super) fn has(&self, lowers: &[LinkName]) -> bool {
        self.0.lock().contains(lowers)
    }

    pub(super) fn add(&self, lowers: &[LinkName]) {
        let mut lists = self.0.lock();
        if lists.len() >= MOST {
            lists.clear();
        }
        lists.insert(lowers.to_vec());
    }

    /// Forgets the lists that name this layer.
    pub(super) fn forget(&self, link: &LinkName) {
        self.0.lock().retain(|lowers| !lowers.contains(link));
    }

    pub(super) fn forget_all(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: usize) -> LinkName {
        LinkName::parse(&format!("{number:026x}")).unwrap()
    }

    #[test]
    fn a_list_is_forgotten_with_any_of_its_layers() {
        let checked = CheckedLowers::default();
        let (long, short) = ([link(1), link(2)], [link(2)]);
        checked.add(&long);
        checked.add(&short);
        assert!(checked.has(&long) && checked.has(&short) && !checked.has(&[link(2), link(1)]));
        checked.forget(&link(1));
        assert!(!checked.has(&long) && checked.has(&short));
        checked.forget_all();
        assert!(!checked.has(&short));
    }

    #[test]
    fn few_lists_are_remembered() {
        let checked = CheckedLowers::default();
        (0..=MOST).for_each(|number| checked.add(&[link(number)]));
        assert_eq!((0..=MOST).filter(|number| checked.has(&[link(*number)])).count(), 1);
    }
}
