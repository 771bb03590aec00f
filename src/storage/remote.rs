// SPDX-License-Identifier: MulanPSL-2.0
//! Image layers and images that other hosts share with this one (iSulad's `enable_remote_layer`).
//!
//! ```text
//! <root>/overlay/RO/           shared: content of image layers
//! <root>/overlay-layers/RO/    shared: records of image layers
//! <root>/overlay-images/       shared: images
//! ```
//!
//! Everything else is of this host alone. A refresh looks at the three in this order, so that whatever is listed stands on
//! something that is there. It remembers nothing that a later one depends on: one that fails half-way, or never ends for
//! a share that does not answer, spoils no other.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{During, Result};
use crate::id::LayerId;
use crate::image::{ImageChanges, ImageStore, ImageStoreOptions, LayerChains, LayerLookup};
use crate::layer::{LayerStore, LayerStoreOptions, SharedChanges};
use crate::persist;

use super::{Storage, StorageOptions};

/// How long a refresh waits after the one before, as in the reference.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// Name of the thread, as in the reference.
const THREAD_NAME: &str = "RoLayerRefresh";
/// How long the lock is waited for before it is asked whether the thread is to end.
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// What a refresh changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteChanges {
    /// Layers.
    pub layers: SharedChanges,
    /// Images.
    pub images: ImageChanges,
}

impl Storage {
    /// The same as [`Storage::open_with`] with layers and images that other hosts share. `Unsupported` for a driver that
    /// cannot, and for a storage opened for reading.
    pub fn open_shared_with(
        options: StorageOptions,
        lookup: impl FnOnce(Arc<LayerStore>) -> Arc<dyn LayerLookup>,
    ) -> Result<Storage> {
        Storage::open_as(options, lookup, true)
    }

    /// The same with the storage's own layers for images of schema 1.
    pub fn open_shared(options: StorageOptions) -> Result<Storage> {
        Storage::open_shared_with(options, |layers| Arc::new(super::ByDigest(layers)))
    }

    /// Looks for layers and images that other hosts have made or deleted: see [`LayerStore::refresh_shared`] and
    /// [`ImageStore::refresh_shared`].
    pub fn refresh_now(&self) -> Result<RemoteChanges> {
        refresh(self.layers(), Some(self.images()))
    }
}

/// The same for stores that were opened one by one. What fails in one keeps the other from nothing.
pub fn refresh(layers: &LayerStore, images: Option<&ImageStore>) -> Result<RemoteChanges> {
    let found = layers.refresh_shared();
    let images = match images {
        Some(images) => images.refresh_shared(found.as_ref().is_ok_and(|found| found.changed)),
        None => Ok(ImageChanges::default()),
    };
    Ok(RemoteChanges { layers: found?, images: images? })
}

pub(super) fn open_layers(options: LayerStoreOptions, share: bool) -> Result<LayerStore> {
    if share { LayerStore::open_shared(options) } else { LayerStore::open(options) }
}

pub(super) fn open_images(
    options: ImageStoreOptions,
    share: bool,
    layers: &Arc<LayerStore>,
) -> Result<ImageStore> {
    if share {
        ImageStore::open_shared(options, Arc::new(Chains(layers.clone())))
    } else {
        ImageStore::open(options)
    }
}

/// What the image store asks of the layers.
struct Chains(Arc<LayerStore>);

impl LayerChains for Chains {
    fn is_whole(&self, top: &str) -> bool {
        self.0.is_chain_whole(top)
    }
}

/// The lock that a daemon shares with the refresh: it reads under it, a refresh writes.
pub trait RemoteLock: Send {
    /// Takes it for writing, waiting at most so long; `false`: somebody else has it.
    fn lock(&self, wait: Duration) -> Result<bool>;

    /// Gives it back, on the thread that took it.
    fn unlock(&self);
}

/// A thread that refreshes again and again. Dropped: told to end, and waited for.
pub struct RefreshThread {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    ended: Mutex<bool>,
    told: Condvar,
}

impl RefreshThread {
    /// Starts it; the first refresh comes after one `interval`. Each is made under `lock`. A refresh that panics is
    /// reported, and the next one comes all the same.
    pub fn start(
        lock: Box<dyn RemoteLock>,
        interval: Duration,
        refresh: impl Fn() + Send + 'static,
    ) -> Result<RefreshThread> {
        let signal = Arc::new(Signal::default());
        let shared = signal.clone();
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || {
                while !shared.ends_within(interval) {
                    if !shared.lock(lock.as_ref()) {
                        continue;
                    }
                    if catch_unwind(AssertUnwindSafe(&refresh)).is_err() {
                        log::error!("refresh remote layers: it panicked");
                    }
                    lock.unlock();
                }
            })
            .during(|| "start the thread that refreshes remote layers")?;
        Ok(RefreshThread { signal, thread: Some(thread) })
    }

    /// Ends it and waits for the refresh that is under way, if any. Also while somebody else holds the lock.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for RefreshThread {
    fn drop(&mut self) {
        *self.signal.ended.lock() = true;
        self.signal.told.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // A callback of the refresh itself may close the store: it cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            log::error!("the thread that refreshes remote layers panicked");
        }
    }
}

impl fmt::Debug for RefreshThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshThread").finish_non_exhaustive()
    }
}

impl Signal {
    /// Waits so long; whether the thread is to end.
    fn ends_within(&self, interval: Duration) -> bool {
        let until = Instant::now() + interval;
        let mut ended = self.ended.lock();
        while !*ended {
            if self.told.wait_until(&mut ended, until).timed_out() {
                break;
            }
        }
        *ended
    }

    /// Takes the lock; `false` when the thread is to end, or the lock is none.
    fn lock(&self, lock: &dyn RemoteLock) -> bool {
        while !*self.ended.lock() {
            match lock.lock(LOCK_WAIT) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    log::warn!("lock for a refresh of remote layers: {}", error.report());
                    return false;
                }
            }
        }
        false
    }
}

/// A path that stays true wherever the process goes later.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).during(|| format!("find out where {} is", path.display()))
}

/// Makes `home/RO` (0700) and what is missing above it.
pub fn make_shared_home(home: &Path) -> Result<()> {
    persist::make_shared_home(home)
}

/// Makes `home/RO/<id>` (0700) and its name `home/<id>`, an absolute link. The name is taken: `AlreadyExists`, and nothing
/// is changed.
pub fn build_shared_entry(home: &Path, id: &LayerId) -> Result<()> {
    persist::build_shared_entry(home, id.as_str())
}

/// Removes the name `home/<id>` and `home/RO/<id>` with everything in it; absent is fine. The name is something else:
/// `InvalidArgument`, and nothing is changed.
pub fn remove_shared_entry(home: &Path, id: &LayerId) -> Result<()> {
    persist::remove_shared_entry(home, id.as_str())
}
