// SPDX-License-Identifier: MulanPSL-2.0
//! Whether every page has exactly one place: in the tree of a bucket, in the freelist, or as the freelist itself.

use super::meta::{Meta, NO_FREELIST};
use super::page::Run;
use super::pager::Pages;
use super::spans::Spans;
use super::walk::{Seen, walk};
use crate::error::{Error, Result};

/// Most problems that are told; a file of garbage has one for each page.
const MOST_PROBLEMS: usize = 100;

/// The pages that all buckets lie in. The first problem is an error.
pub(super) fn used_pages(pages: &Pages, meta: &Meta) -> Result<Spans> {
    let mut used = Spans::default();
    walk(pages, meta.root, &mut |seen| match seen {
        Seen::Run(run) => place(&mut used, run),
        Seen::Problem(error) => Err(error),
    })?;
    Ok(used)
}

fn place(used: &mut Spans, run: Run) -> Result<()> {
    if used.insert(run) {
        Ok(())
    } else {
        Err(Error::corrupt(format!("page {}: it is used twice", run.start)))
    }
}

/// What is wrong with a state of the file, in words; see [`super::Transaction::check`].
pub(super) fn check(pages: &Pages, meta: &Meta) -> Vec<String> {
    let mut problems = Problems::default();
    let mut used = Spans::default();
    let walked = walk(pages, meta.root, &mut |seen| match seen {
        Seen::Run(run) => place(&mut used, run),
        Seen::Problem(error) => problems.add(error.report()),
    });
    if walked.is_ok() {
        // Ends early only when there are too many problems already.
        drop(check_freelist(pages, meta, used, &mut problems));
    }
    problems.0
}

fn check_freelist(pages: &Pages, meta: &Meta, mut used: Spans, problems: &mut Problems) -> Result<()> {
    if meta.high_water > pages.file_pages() {
        problems.add(format!(
            "the file ends at page {}, before page {}",
            pages.file_pages(),
            meta.high_water
        ))?;
    }
    if meta.freelist == NO_FREELIST {
        return Ok(());
    }
    let (run, free) = match pages.load_freelist(meta.freelist) {
        Ok(found) => found,
        Err(error) => return problems.add(error.report()),
    };
    if let Err(error) = place(&mut used, run) {
        problems.add(error.report())?;
    }
    for id in free {
        if !used.insert(Run { start: id, length: 1 }) {
            problems.add(format!("page {id}: it is free and used"))?;
        }
    }
    for run in used.gaps(2..meta.high_water.min(pages.file_pages())).runs() {
        let last = run.end().saturating_sub(1);
        problems.add(format!("pages {} to {last}: they are neither free nor used", run.start))?;
    }
    Ok(())
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: String) -> Result<()> {
        if self.0.len() >= MOST_PROBLEMS {
            self.0.push("and more".to_owned());
            return Err(Error::corrupt("too many problems"));
        }
        self.0.push(problem);
        Ok(())
    }
}
