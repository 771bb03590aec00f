// SPDX-License-Identifier: MulanPSL-2.0
//! The process-wide state of the C ABI: at most one layer store and one image store for the flat functions.
//!
//! No lock is held while a store is opened, used or closed: a slot holds a counted reference, and a store that is being
//! opened is marked as such. Lock order: none; each lock here is taken alone and for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageStore;
use crate::layer::LayerStore;

/// The store of the `layer_store_*` functions.
pub(crate) static LAYERS: Slot<LayerStore> = Slot::new("the layer store");

/// The store of the `image_store_*` functions.
pub(crate) static IMAGES: Slot<ImageStore> = Slot::new("the image store");

/// A store behind the C ABI. After a panic in it reads go on, writes are refused until it is opened or loaded again.
#[derive(Debug)]
pub(crate) struct Held<T> {
    store: T,
    panicked: AtomicBool,
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
        Held { store, panicked: AtomicBool::new(false) }
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

/// Empties a slot again unless a store was put into it: also when opening panicked.
struct Opening<'a, T>(&'a Slot<T>);

impl<T> Drop for Opening<'_, T> {
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

    /// Opens the store; it is open already or being opened: `AlreadyExists`.
    pub(crate) fn open(&self, open: impl FnOnce() -> Result<T>) -> Result<()> {
        {
            let mut state = self.state.write();
            if !matches!(*state, State::Closed) {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{} is open already in this process", self.name),
                ));
            }
            *state = State::Opening;
        }
        let opening = Opening(self);
        let store = Arc::new(Held::new(open()?));
        *opening.0.state.write() = State::Open(store);
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
        let mut state = self.state.write();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Open(store) => Some(store),
            State::Opening => {
                *state = State::Opening;
                None
            }
            State::Closed => None,
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
