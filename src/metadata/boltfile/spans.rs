// SPDX-License-Identifier: MulanPSL-2.0
//! Sets of pages, held as runs: small for any file, however large it says it is.

use std::collections::BTreeMap;

use super::page::Run;

/// A set of pages. No two of its runs touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(BTreeMap<u64, u64>);

impl Spans {
    /// Adds pages; nothing is changed and `false` is returned where one of them is in it already.
    pub(super) fn insert(&mut self, run: Run) -> bool {
        let (mut start, mut length) = (run.start, run.length);
        if let Some((before, count)) = self.0.range(..=start).next_back() {
            let (before, count) = (*before, *count);
            let end = before.saturating_add(count);
            if end > start {
                return false;
            }
            if let Some((next, _)) = self.0.range(start..).next()
                && *next < run.end()
            {
                return false;
            }
            if end == start {
                (start, length) = (before, count.saturating_add(length));
            }
        } else if let Some((next, _)) = self.0.range(start..).next()
            && *next < run.end()
        {
            return false;
        }
        if let Some(count) = self.0.remove(&run.end()) {
            length = length.saturating_add(count);
        }
        self.0.insert(start, length);
        true
    }

    /// Whether the page is in it.
    #[cfg(test)]
    pub(super) fn contains(&self, page: u64) -> bool {
        self.0.range(..=page).next_back().is_some_and(|(start, length)| page < start.saturating_add(*length))
    }

    /// Takes `length` consecutive pages out of it: the first that there are.
    pub(super) fn take(&mut self, length: u64) -> Option<u64> {
        let (start, found) = self.0.iter().find(|(_, found)| **found >= length).map(|(s, f)| (*s, *f))?;
        self.0.remove(&start);
        if found > length {
            self.0.insert(start.saturating_add(length), found - length);
        }
        Some(start)
    }

    /// Number of pages.
    pub(super) fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, length| sum.saturating_add(*length))
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.0.iter().map(|(start, length)| Run { start: *start, length: *length })
    }

    /// All pages in ascending order.
    pub(super) fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs().flat_map(Run::pages)
    }

    /// The pages of `within` that are not in it.
    pub(super) fn gaps(&self, within: std::ops::Range<u64>) -> Spans {
        let mut gaps = Spans::default();
        let mut at = within.start;
        for run in self.runs() {
            if run.start > at && at < within.end {
                gaps.0.insert(at, run.start.min(within.end) - at);
            }
            at = at.max(run.end());
        }
        if at < within.end {
            gaps.0.insert(at, within.end - at);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, length: u64) -> Run {
        Run { start, length }
    }

    #[test]
    fn runs_that_touch_become_one_and_none_is_twice_in_it() {
        let mut spans = Spans::default();
        for (start, length, fits) in [
            (10, 2, true),
            (14, 2, true),
            (11, 1, false),
            (9, 2, false),
            (11, 5, false),
            (9, 20, false),
            (12, 2, true),
            (9, 1, true),
            (16, 1, true),
            (16, 1, false),
            (3, 1, true),
        ] {
            assert_eq!(spans.insert(run(start, length)), fits, "{start} {length} {spans:?}");
        }
        assert_eq!(spans.runs().collect::<Vec<_>>(), [run(3, 1), run(9, 8)]);
        assert_eq!(spans.count(), 9);
        assert_eq!(
            [2, 3, 4, 8, 9, 16, 17].map(|page| spans.contains(page)),
            [false, true, false, false, true, true, false]
        );
        assert_eq!(spans.gaps(2..20).runs().collect::<Vec<_>>(), [run(2, 1), run(4, 5), run(17, 3)]);
        assert_eq!(spans.gaps(9..17), Spans::default());
        assert_eq!(spans.gaps(10..18).runs().collect::<Vec<_>>(), [run(17, 1)]);
    }

    #[test]
    fn the_first_run_that_is_long_enough_is_taken() {
        let mut spans = Spans::default();
        for (start, length) in [(2, 1), (5, 3), (10, 3)] {
            assert!(spans.insert(run(start, length)));
        }
        assert_eq!(spans.take(2), Some(5));
        assert_eq!(spans.take(3), Some(10));
        assert_eq!(spans.take(2), None);
        assert_eq!(spans.take(1), Some(2));
        assert_eq!(spans.take(1), Some(7));
        assert_eq!(spans, Spans::default());
    }
}
