// SPDX-License-Identifier: MulanPSL-2.0
//! The end of the world at every instant of a commit, on a disk that may write what was not synced in any order, in
//! part, or never.

use super::fuzzing::{Content, content, open, options};
use super::medium::{Change, Recording};
use super::*;
use crate::persist::with_hook;

/// Small numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        to_usize(self.0 >> 33) % limit
    }
}

/// What a disk makes of a write before it is synced: whole sectors of it.
fn sectors(change: &Change) -> Vec<Change> {
    match change {
        Change::Write(at, bytes) => bytes
            .chunks(512)
            .enumerate()
            .map(|(n, part)| Change::Write(at + to_u64(n) * 512, part.to_vec()))
            .collect(),
        other => vec![other.clone()],
    }
}

/// What may lie on the disk at some instant after `done`, when the changes of `open` were on their way.
fn states(done: &[u8], open: &[Change], random: &mut Random) -> Vec<Vec<u8>> {
    let apply = |changes: &mut dyn Iterator<Item = &Change>| {
        let mut content = done.to_vec();
        changes.for_each(|change| change.apply(&mut content));
        content
    };
    let mut states: Vec<_> = (0..=open.len()).map(|count| apply(&mut open.iter().take(count))).collect();
    states.extend((0..open.len()).map(|left_out| {
        apply(&mut open.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, change)| change))
    }));
    if open.len() <= 6 {
        for chosen in 0..1usize << open.len() {
            states.push(apply(
                &mut open.iter().enumerate().filter(|(n, _)| chosen >> n & 1 == 1).map(|(_, c)| c),
            ));
        }
    }
    let torn: Vec<_> = open.iter().flat_map(sectors).collect();
    for _ in 0..40 {
        let mut order: Vec<_> = torn.iter().filter(|_| random.below(2) == 0).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at + 1));
        }
        states.push(apply(&mut order.into_iter()));
    }
    states
}

/// Opens what a crash has left; its content, and that it can be written.
fn reopened(state: Vec<u8>, freelist: Freelist) -> Content {
    let file = open(&Recording::of(state), &options(1024, freelist)).unwrap();
    assert_eq!(file.begin().check(), [""; 0]);
    let found = content(&file.begin().root(), &mut usize::MAX.clone()).unwrap();
    let mut transaction = file.begin_write().unwrap();
    transaction.root_mut().unwrap().put(b"after", &[1; 3000]).unwrap();
    transaction.commit().unwrap();
    assert_eq!(file.begin().check(), [""; 0]);
    found
}

#[test]
fn every_instant_of_a_commit_leaves_the_old_or_the_new_state() {
    let mut random = Random(1);
    let mut seen = [0, 0];
    for freelist in [Freelist::Stored, Freelist::Absent] {
        let medium = Recording::default();
        let mut file = open(&medium, &options(1024, freelist)).unwrap();
        let everything = |file: &BoltFile| content(&file.begin().root(), &mut usize::MAX.clone()).unwrap();
        for round in 0..14 {
            if round % 5 == 4 {
                drop(file);
                file = open(&medium, &options(1024, freelist)).unwrap();
            }
            let old = everything(&file);
            let mut done = medium.with(|recorded| {
                recorded.changes = Some(Vec::new());
                recorded.content.clone()
            });
            let mut transaction = file.begin_write().unwrap();
            let mut root = transaction.root_mut().unwrap();
            for _ in 0..12 {
                let name = [b'a' + u8::try_from(random.below(6)).unwrap()];
                let mut bucket = root.create_bucket_if_not_exists(&name).unwrap();
                let key = [u8::try_from(random.below(40)).unwrap()];
                match random.below(5) {
                    0 => bucket.delete(&key).unwrap(),
                    1 => root.delete_bucket(&name).unwrap(),
                    _ => bucket.put(&key, &vec![7; random.below(2500)]).unwrap(),
                }
            }
            transaction.commit().unwrap();
            let new = everything(&file);
            let changes = medium.with(|recorded| recorded.changes.take().unwrap());
            let epochs: Vec<_> = changes.split(|change| matches!(change, Change::Sync)).collect();
            assert!(
                matches!(epochs.as_slice(), [pages, [Change::Write(..)], []] if !pages.is_empty()),
                "{changes:?}"
            );
            for epoch in epochs {
                for state in states(&done, epoch, &mut random) {
                    let found = reopened(state, freelist);
                    assert!(found == old || found == new, "round {round}");
                    seen[usize::from(found == new)] += 1;
                }
                epoch.iter().for_each(|change| change.apply(&mut done));
            }
            assert!(reopened(done, freelist) == new, "what was committed is there");
        }
    }
    assert!(seen[0] > 1000 && seen[1] > 100, "{seen:?}");
}

#[test]
fn every_instant_of_making_a_file_leaves_one_that_can_be_made() {
    for page_size in [1024, 4096] {
        let medium = Recording::default();
        medium.with(|recorded| recorded.changes = Some(Vec::new()));
        open(&medium, &options(page_size, Freelist::Stored)).unwrap();
        let changes = medium.with(|recorded| recorded.changes.take().unwrap());
        assert!(matches!(changes.last(), Some(Change::Sync)));
        let mut random = Random(2);
        for _ in 0..3 {
            for state in states(&[], &changes, &mut random) {
                assert_eq!(reopened(state, Freelist::Stored), Content::new());
            }
        }
    }
}

/// Fails at the `fail_at`th step, and at all that follow it.
fn failing(fail_at: usize) -> impl FnMut(&'static str) -> Result<()> {
    let mut at = 0;
    move |name| {
        at += 1;
        if at > fail_at { Err(Error::new(ErrorKind::Os(libc::ENOSPC), name)) } else { Ok(()) }
    }
}

#[test]
fn a_commit_that_fails_leaves_the_old_state_and_later_than_that_nobody_writes() {
    let steps = ["grow file", "write pages", "sync pages", "write meta page", "sync meta page"];
    for (fail_at, step) in steps.iter().enumerate() {
        let medium = Recording::default();
        let file = open(&medium, &options(1024, Freelist::Stored)).unwrap();
        let mut first = file.begin_write().unwrap();
        first.root_mut().unwrap().put(b"k", &[1; 2000]).unwrap();
        first.commit().unwrap();
        let mut second = file.begin_write().unwrap();
        second.root_mut().unwrap().put(b"k", &[2; 3000]).unwrap();
        let error = with_hook(failing(fail_at), || second.commit().unwrap_err());
        assert_eq!(error.report(), format!("commit to memory: {step}"));
        assert_eq!(error.errno(), libc::ENOSPC);
        assert_eq!(file.begin().root().get(b"k").unwrap().unwrap()[..], [1; 2000]);
        match file.begin_write() {
            Ok(mut third) => {
                assert!(fail_at < 2);
                third.root_mut().unwrap().put(b"k", &[3; 4000]).unwrap();
                third.commit().unwrap();
                assert_eq!(file.begin().root().get(b"k").unwrap().unwrap()[..], [3; 4000]);
            }
            Err(error) => {
                assert!(fail_at >= 2);
                assert_eq!(error.kind(), ErrorKind::Latched);
                drop(file);
                let file = open(&medium, &options(1024, Freelist::Stored)).unwrap();
                let value = if fail_at == 4 { vec![2; 3000] } else { vec![1; 2000] };
                assert_eq!(file.begin().root().get(b"k").unwrap().unwrap()[..], value);
                file.begin_write().unwrap();
                continue;
            }
        }
        assert_eq!(file.begin().check(), [""; 0]);
    }
}
