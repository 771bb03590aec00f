// SPDX-License-Identifier: MulanPSL-2.0
//! The process-wide state of the C ABI: at most one store of each kind for the flat functions, and at most one facade
//! over all of them.
//!
//! `storage_module_init` fills all slots with one storage and its stores, the flat `*_init` functions one slot each. No
//! lock is held while a store is opened, used or closed: a slot holds a counted reference, and a store that is being
//! opened is marked as such. Lock order: none; each lock here is taken alone and for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageStore;
use crate::layer::{LayerStore, LoneDriver};
use crate::rootfs::RootfsStore;
use crate::storage::Storage;
use crate::storage::remote::RefreshThread;

/// The store of the `layer_store_*` functions.
pub(crate) static LAYERS: Slot<LayerStore> = Slot::new("the layer store");

/// The driver of the `graphdriver_*` functions while no layer store is open.
pub(crate) static DRIVER: Slot<LoneDriver> = Slot::new("the graph driver");

/// The store of the `image_store_*` functions.
pub(crate) static IMAGES: Slot<ImageStore> = Slot::new("the image store");

/// The store of the `rootfs_store_*` functions.
pub(crate) static ROOTFS: Slot<RootfsStore> = Slot::new("the rootfs store");

/// What the `storage_*` functions work on.
pub(crate) static STORAGE: Slot<Storage> = Slot::new("the storage");

/// The thread that refreshes what other hosts share.
static REFRESH: Mutex<Option<RefreshThread>> = Mutex::new(None);

/// Starts that thread; it runs already: `AlreadyExists`.
#[cfg(feature = "remote-layer-store")]
pub(crate) fn start_refresh(start: impl FnOnce() -> Result<RefreshThread>) -> Result<()> {
    let mut refresh = REFRESH.lock();
    if refresh.is_some() {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            "the thread that refreshes remote layers runs already",
        ));
    }
    *refresh = Some(start()?);
    Ok(())
}

/// Ends that thread, if there is one, and waits for it.
pub(crate) fn stop_refresh() {
    let thread = REFRESH.lock().take();
    thread.into_iter().for_each(RefreshThread::stop);
}

/// Where shared layers are made past the stores.
#[cfg(feature = "remote-layer-store")]
#[derive(Debug, Default)]
pub(crate) struct SharedHomes {
    pub(crate) has_images: bool,
    pub(crate) layers: Option<std::path::PathBuf>,
    pub(crate) overlay: Option<std::path::PathBuf>,
}

/// What the `remote_*_init` functions have set.
#[cfg(feature = "remote-layer-store")]
pub(crate) static SHARED_HOMES: Mutex<SharedHomes> =
    Mutex::new(SharedHomes { has_images: false, layers: None, overlay: None });

/// Opens a storage and puts it and its stores into all slots. One of them is in use: `AlreadyExists`. After any failure
/// nothing has changed.
pub(crate) fn open_all(open: impl FnOnce() -> Result<Storage>) -> Result<()> {
    let module = STORAGE.reserve()?;
    let layers = LAYERS.reserve()?;
    let images = IMAGES.reserve()?;
    let rootfs = ROOTFS.reserve()?;
    // Until the layer store has one.
    let _driver = DRIVER.reserve()?;
    let storage = Arc::new(open()?);
    let containers = storage.containers()?.clone();
    let panicked = Arc::default();
    layers.publish(Held::one_of(storage.layers(), &panicked));
    images.publish(Held::one_of(storage.images(), &panicked));
    rootfs.publish(Held::one_of(&containers, &panicked));
    module.publish(Held::one_of(&storage, &panicked));
    Ok(())
}

/// Empties the slots that [`open_all`] has filled, waits until no call uses the storage any more and closes it, so that
/// it can be opened again. Nothing is open: fine.
pub(crate) fn close_all() -> Result<()> {
    stop_refresh();
    let Some(module) = STORAGE.take() else { return Ok(()) };
    let storage = Arc::clone(&module.store);
    let layers = LAYERS.take_if(|held| Arc::ptr_eq(&held.store, storage.layers()));
    let images = IMAGES.take_if(|held| Arc::ptr_eq(&held.store, storage.images()));
    let containers = storage.containers().ok();
    let rootfs = ROOTFS.take_if(|held| containers.is_some_and(|ours| Arc::ptr_eq(&held.store, ours)));
    // A change of several stores is not cut in half: before the first of them ends.
    Held::wait_until_unused(module);
    let closed = storage.end();
    layers.into_iter().for_each(Held::wait_until_unused);
    images.into_iter().for_each(Held::wait_until_unused);
    rootfs.into_iter().for_each(Held::wait_until_unused);
    closed
}

/// A store behind the C ABI. After a panic in it reads go on, writes are refused until it is opened or loaded again;
/// stores that were opened together are refused together, for it is not known which of them the panic left half-changed.
#[derive(Debug)]
pub(crate) struct Held<T> {
    store: Arc<T>,
    panicked: Arc<AtomicBool>,
    // The last member: the store is given up by the time that it tells.
    unused: Unused,
}

/// Tells that a [`Held`] was dropped.
#[derive(Debug, Default)]
struct Unused(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Unused {
    fn drop(&mut self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }
}

/// Notes a panic that passes through it.
struct Watch<'a>(&'a AtomicBool);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl<T> Held<T> {
    /// Takes a store that is open.
    pub(crate) fn new(store: T) -> Self {
        Held::one_of(&Arc::new(store), &Arc::default())
    }

    /// One of several stores that share their fate after a panic.
    fn one_of(store: &Arc<T>, panicked: &Arc<AtomicBool>) -> Self {
        Held { store: store.clone(), panicked: panicked.clone(), unused: Unused::default() }
    }

    /// Uses the store without changing it.
    pub(crate) fn read<R>(&self, body: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        let _watch = Watch(&self.panicked);
        body(&self.store)
    }

    /// Changes the store.
    pub(crate) fn write<R>(&self, body: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        if self.panicked.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Latched,
                "an earlier call failed in an unexpected way: the store takes no changes until it is opened or \
                 loaded again",
            ));
        }
        self.read(body)
    }

    /// Makes memory follow the disk again; success ends the latch.
    pub(crate) fn reload(&self, body: impl FnOnce(&T) -> Result<()>) -> Result<()> {
        self.read(body)?;
        self.panicked.store(false, Ordering::Release);
        Ok(())
    }

    /// Gives up a store that was taken out of its slot and waits for the calls that still use it.
    pub(crate) fn wait_until_unused(held: Arc<Held<T>>) {
        let unused = held.unused.0.clone();
        drop(held);
        let (is_unused, told) = &*unused;
        let mut is_unused = is_unused.lock();
        while !*is_unused {
            told.wait(&mut is_unused);
        }
    }
}

#[derive(Debug)]
enum State<T> {
    Closed,
    Opening,
    Open(Arc<Held<T>>),
}

/// Room for one store.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    name: &'static str,
    state: RwLock<State<T>>,
}

/// The sole right to put a store into a slot. Dropped without: the slot is empty again, also when opening panicked.
struct Reserved<'a, T>(&'a Slot<T>);

impl<T> Reserved<'_, T> {
    fn publish(self, held: Held<T>) {
        *self.0.state.write() = State::Open(Arc::new(held));
    }
}

impl<T> Drop for Reserved<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.state.write();
        if matches!(*state, State::Opening) {
            *state = State::Closed;
        }
    }
}

impl<T> Slot<T> {
    const fn new(name: &'static str) -> Self {
        Slot { name, state: RwLock::new(State::Closed) }
    }

    /// It is open already or being opened: `AlreadyExists`.
    fn reserve(&self) -> Result<Reserved<'_, T>> {
        let mut state = self.state.write();
        if !matches!(*state, State::Closed) {
            let message = format!("{} is open already in this process", self.name);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        *state = State::Opening;
        Ok(Reserved(self))
    }

    /// Opens the store; it is open already or being opened: `AlreadyExists`.
    pub(crate) fn open(&self, open: impl FnOnce() -> Result<T>) -> Result<()> {
        let reserved = self.reserve()?;
        reserved.publish(Held::new(open()?));
        Ok(())
    }

    /// The store, if it is open.
    pub(crate) fn get(&self) -> Result<Arc<Held<T>>> {
        match &*self.state.read() {
            State::Open(store) => Ok(Arc::clone(store)),
            _ => Err(Error::new(ErrorKind::NotReady, format!("{} is not open", self.name))),
        }
    }

    /// Takes the store out; a call that uses it at the moment goes on.
    pub(crate) fn take(&self) -> Option<Arc<Held<T>>> {
        self.take_if(|_| true)
    }

    fn take_if(&self, which: impl FnOnce(&Held<T>) -> bool) -> Option<Arc<Held<T>>> {
        let mut state = self.state.write();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Open(store) if which(&store) => Some(store),
            State::Closed => None,
            other => {
                *state = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_slot_holds_one_store() {
        let slot = Slot::new("the store");
        assert_eq!(slot.get().unwrap_err().kind(), ErrorKind::NotReady);
        assert!(slot.open(|| Err(Error::invalid("x"))).is_err());
        slot.open(|| {
            assert_eq!(slot.open(|| Ok(2)).unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(slot.get().unwrap_err().kind(), ErrorKind::NotReady);
            assert!(slot.take().is_none());
            Ok(1)
        })
        .unwrap();
        assert_eq!(slot.open(|| Ok(2)).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(slot.get().unwrap().read(|store| Ok(*store)).unwrap(), 1);
        assert!(slot.take().is_some() && slot.take().is_none());
        slot.open(|| Ok(3)).unwrap();
    }

    #[test]
    fn a_slot_survives_a_panic_while_opening() {
        let slot: Slot<i32> = Slot::new("the store");
        assert!(catch_unwind(AssertUnwindSafe(|| slot.open(|| panic!("boom")))).is_err());
        slot.open(|| Ok(1)).unwrap();
    }

    #[test]
    fn what_was_taken_out_is_given_up_when_the_last_call_that_uses_it_returns() {
        #[derive(Debug)]
        struct Store(std::sync::mpsc::Sender<&'static str>);
        impl Drop for Store {
            fn drop(&mut self) {
                self.0.send("store dropped").unwrap();
            }
        }
        let (told, heard) = std::sync::mpsc::channel();
        let slot = Slot::new("the store");
        slot.open(|| Ok(Store(told.clone()))).unwrap();
        let using = slot.get().unwrap();
        let taken = slot.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                Held::wait_until_unused(taken);
                told.send("waited").unwrap();
            });
            assert_eq!(slot.get().unwrap_err().kind(), ErrorKind::NotReady);
            assert!(heard.try_recv().is_err(), "in use");
            drop(using);
        });
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["store dropped", "waited"]);
        slot.open(|| Err(Error::invalid("x"))).unwrap_err();
    }

    #[test]
    fn stores_that_were_opened_together_share_their_fate_after_a_panic() {
        let panicked = Arc::default();
        let (one, other) = (Held::one_of(&Arc::new(1), &panicked), Held::one_of(&Arc::new(2), &panicked));
        let panic = || -> Result<()> { one.write(|_| panic!("boom")) };
        assert!(catch_unwind(AssertUnwindSafe(panic)).is_err());
        assert_eq!(other.write(|_| Ok(())).unwrap_err().kind(), ErrorKind::Latched);
        assert_eq!(other.read(|store| Ok(*store)).unwrap(), 2);
    }

    #[test]
    fn after_a_panic_reads_go_on_and_writes_need_a_reload() {
        let held = Held::new(1);
        let panic = || -> Result<()> { held.read(|_| panic!("boom")) };
        assert!(catch_unwind(AssertUnwindSafe(panic)).is_err());
        assert_eq!(held.read(|store| Ok(*store)).unwrap(), 1);
        assert_eq!(held.write(|_| Ok(())).unwrap_err().kind(), ErrorKind::Latched);
        assert!(held.reload(|_| Err(Error::invalid("x"))).is_err());
        assert_eq!(held.write(|_| Ok(())).unwrap_err().kind(), ErrorKind::Latched);
        held.reload(|_| Ok(())).unwrap();
        held.write(|_| Ok(())).unwrap();
    }
}
