// SPDX-License-Identifier: MulanPSL-2.0
//! Removes deleted data in the background, so that a delete returns at once however large the layer is.
//!
//! One thread, started with the first thing to remove and ended when the store is closed. What it does not get to
//! (the process dies) lies in the trash and is removed after the next start.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::driver::Removed;
use crate::persist::{Discarded, StateDir};

/// Something that is forgotten already and only takes up space.
#[derive(Debug)]
pub(super) enum Rubbish {
    /// Data of a driver.
    Content(Removed),
    /// A record directory.
    Record(Discarded),
    /// What lies in the trash since before the store was opened.
    Trash(Arc<StateDir>),
}

impl Rubbish {
    fn remove(self) {
        match self {
            Rubbish::Content(removed) => removed.remove(),
            Rubbish::Record(discarded) => discarded.remove(),
            Rubbish::Trash(state) => state.sweep_trash(),
        }
    }
}

/// The background remover.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    worker: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    queue: Sender<Rubbish>,
    thread: JoinHandle<()>,
}

impl Reaper {
    /// Removes `rubbish` soon; at once, in this thread, when no thread can be started.
    pub(super) fn take(&self, rubbish: Rubbish) {
        let mut worker = self.worker.lock();
        if worker.is_none() {
            *worker = Worker::start();
        }
        let left = match worker.as_ref() {
            Some(worker) => worker.queue.send(rubbish).err().map(|unsent| unsent.0),
            None => Some(rubbish),
        };
        drop(worker);
        if let Some(rubbish) = left {
            rubbish.remove();
        }
    }

    /// Waits until everything taken so far is removed, and ends the thread.
    pub(super) fn finish(&self) {
        let Some(Worker { queue, thread }) = self.worker.lock().take() else { return };
        drop(queue);
        if thread.join().is_err() {
            log::error!("remove deleted layers: the remover panicked; the next start removes the rest");
        }
    }
}

impl Worker {
    fn start() -> Option<Worker> {
        let (queue, rubbish) = channel::<Rubbish>();
        let thread = std::thread::Builder::new()
            .name("layer-reaper".to_owned())
            .spawn(move || rubbish.into_iter().for_each(Rubbish::remove));
        match thread {
            Ok(thread) => Some(Worker { queue, thread }),
            Err(error) => {
                log::warn!("start the remover of deleted layers: {error}");
                None
            }
        }
    }
}
