// SPDX-License-Identifier: MulanPSL-2.0
//! The layers of one image, some of them side by side.
//!
//! A layer is begun when the layer store has room for it on its parent: when the parent's archive is first read, or when
//! the parent is done. Its completion waits for the parent's, in the layer store; so outcomes are taken base first, and
//! the first that fails ends those above it.

use std::io::Read;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Builder};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::id::LayerId;
use crate::storage::Storage;

use super::plan::PlannedImage;
use super::source::{Opened, Source};
use super::{Progress, Watch};

/// Layers being unpacked at a time: each may need as much memory as its compression takes.
const MOST_AT_ONCE: usize = 4;
/// Images of less than this are not worth threads.
const WORTH_THREADS: u64 = 1 << 20;

/// Makes or holds all layers; `done` is told of each, base first, with whether it was there before. Ends at its first
/// error. Every layer that was made or held, and only those, has been reported to `done` when this returns.
pub(super) fn make(
    storage: &Storage,
    source: &Source,
    image: &PlannedImage,
    watch: &mut Watch<'_>,
    mut done: impl FnMut(&mut Watch<'_>, usize, Result<bool>) -> Result<()>,
) -> Result<()> {
    let work = Work { storage, source, image, heal: watch.heal };
    let count = image.layers.len();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(count).min(MOST_AT_ONCE);
    let size = image.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    if threads > 1
        && size >= WORTH_THREADS
        && storage.layers().creates_ahead()
        && let Some(made) = side_by_side(&work, threads, watch, &mut done)
    {
        return made;
    }
    for at in 0..count {
        let outcome = work.layer(at, |progress| watch.tell(progress));
        done(watch, at, outcome)?;
    }
    Ok(())
}

/// What is to be done.
#[derive(Clone, Copy)]
struct Work<'a> {
    storage: &'a Storage,
    source: &'a Source,
    image: &'a PlannedImage,
    heal: bool,
}

impl Work<'_> {
    fn layer(&self, at: usize, tell: impl FnMut(&Progress) -> Result<()> + Send) -> Result<bool> {
        let layers = &self.image.layers;
        let layer = layers.get(at).ok_or_else(|| Error::corrupt("more layers than planned"))?;
        let parent = at.checked_sub(1).and_then(|below| layers.get(below)).map(|below| below.id.clone());
        let Opened { content, size } = self.source.open_file(&layer.path)?;
        let progress = |bytes| progress(at, layers.len(), &layer.id, bytes, size);
        let mut content = Watched { content, bytes: 0, progress, tell };
        self.storage.register_layer(layer, parent, self.heal, &mut content)
    }
}

fn progress(at: usize, of: usize, id: &LayerId, bytes: u64, total: u64) -> Progress {
    Progress::Layer { number: at + 1, of, id: id.clone(), bytes, total }
}

/// How far the threads are.
struct Turns {
    /// Layers that may be begun: all below this number.
    open: Mutex<usize>,
    opened: Condvar,
    next: AtomicUsize,
    /// Layers from this number on are not made: one below them failed, or nothing is wanted any more.
    end: AtomicUsize,
}

impl Turns {
    fn open(&self, upto: usize) {
        let mut open = self.open.lock();
        if *open < upto {
            *open = upto;
            self.opened.notify_all();
        }
    }

    /// The next layer to begin; `None` when there is none left, or an earlier one failed.
    fn take(&self, count: usize) -> Option<usize> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= count {
            return None;
        }
        let mut open = self.open.lock();
        while *open <= at && !self.stopped(at) {
            self.opened.wait(&mut open);
        }
        (!self.stopped(at)).then_some(at)
    }

    fn stopped(&self, at: usize) -> bool {
        at >= self.end.load(Ordering::Relaxed)
    }

    /// Layers from `from` on are to end; those below them are not their business.
    fn stop(&self, from: usize) {
        self.end.fetch_min(from, Ordering::Relaxed);
        // Whoever is about to wait has the lock until it waits.
        drop(self.open.lock());
        self.opened.notify_all();
    }
}

/// Stops everything when a thread ends by a panic.
struct Guard<'a>(&'a Turns);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(0);
        }
    }
}

enum Event {
    Read(Progress),
    Done(usize, Result<bool>),
}

/// `None` when no thread can be started; then nothing has been done.
fn side_by_side(
    work: &Work<'_>,
    threads: usize,
    watch: &mut Watch<'_>,
    done: &mut impl FnMut(&mut Watch<'_>, usize, Result<bool>) -> Result<()>,
) -> Option<Result<()>> {
    let turns = Turns {
        open: Mutex::new(1),
        opened: Condvar::new(),
        next: AtomicUsize::new(0),
        end: AtomicUsize::new(work.image.layers.len()),
    };
    thread::scope(|scope| {
        // Progress waits for nobody: who tells of it has taken it from here before more is read.
        let (events, inbox) = sync_channel(threads);
        let started: Vec<_> = (0..threads)
            .map_while(|_| {
                let (turns, events) = (&turns, events.clone());
                let worker = move || run(work, turns, &events);
                Builder::new().name("import-layer".to_owned()).spawn_scoped(scope, worker).ok()
            })
            .collect();
        if started.is_empty() {
            return None;
        }
        drop(events);
        let collected = collect(work.image.layers.len(), &turns, &inbox, watch, done);
        for thread in started {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
        Some(collected)
    })
}

fn run(work: &Work<'_>, turns: &Turns, events: &SyncSender<Event>) {
    let _guard = Guard(turns);
    let cancelled = || Error::new(ErrorKind::Cancelled, "another layer failed");
    while let Some(at) = turns.take(work.image.layers.len()) {
        let outcome = work.layer(at, |progress| {
            turns.open(at + 2);
            if turns.stopped(at) {
                return Err(cancelled());
            }
            events.send(Event::Read(progress.clone())).map_err(|_| cancelled())
        });
        if outcome.is_err() {
            turns.stop(at + 1);
        }
        turns.open(at + 2);
        if events.send(Event::Done(at, outcome)).is_err() {
            return;
        }
    }
}

/// Hands on what the threads say, in order, until they have ended.
fn collect(
    count: usize,
    turns: &Turns,
    inbox: &Receiver<Event>,
    watch: &mut Watch<'_>,
    done: &mut impl FnMut(&mut Watch<'_>, usize, Result<bool>) -> Result<()>,
) -> Result<()> {
    let mut outcomes: Vec<Option<Result<bool>>> = (0..count).map(|_| None).collect();
    let mut next = 0;
    let mut failed = None;
    for event in inbox {
        match event {
            Event::Read(progress) if failed.is_none() => failed = watch.tell(&progress).err(),
            Event::Read(_) => {}
            Event::Done(at, outcome) => {
                if let Some(place) = outcomes.get_mut(at) {
                    *place = Some(outcome);
                }
                while let Some(outcome) = outcomes.get_mut(next).and_then(Option::take) {
                    // What was made after a failure is reported all the same: it has to be taken back.
                    if failed.is_none() || outcome.is_ok() {
                        let reported = done(watch, next, outcome);
                        failed = failed.or(reported.err());
                    }
                    next += 1;
                }
            }
        }
        if failed.is_some() {
            turns.stop(0);
        }
    }
    match failed {
        Some(error) => Err(error),
        None if next < count => Err(Error::new(ErrorKind::Os(libc::EIO), "a thread of the import panicked")),
        None => Ok(()),
    }
}

/// Tells of progress while a layer is read.
struct Watched<P, T> {
    content: Box<dyn Read + Send>,
    bytes: u64,
    progress: P,
    tell: T,
}

impl<P: Fn(u64) -> Progress, T: FnMut(&Progress) -> Result<()>> Read for Watched<P, T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.content.read(buffer)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        (self.tell)(&(self.progress)(self.bytes))?;
        Ok(len)
    }
}
