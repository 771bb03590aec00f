// SPDX-License-Identifier: MulanPSL-2.0
//! Opening a store, and keeping an index up to date with what others do to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use once_cell::sync::OnceCell;
use parking_lot::{Mutex, RwLock};

use crate::error::{During, Error, ErrorKind, Result};
use crate::persist::{Durability, Ownership, StateDir};
use crate::sys::fs::Dir;

use super::change::{Control, announce};
use super::files::DIR_MODE;
use super::generation::{Generation, is_changing};
use super::remote::LayerChains;
use super::{ImageStore, ImageStoreOptions, load as directory};

/// Name of the state directory; iSulad leaves names alone that are no image ids.
const STATE: &str = ".isula-storage";

/// How often and how far apart a reader looks again while somebody changes the store. After that it takes what it
/// finds: the change may have been interrupted, and each file is whole anyway.
const SETTLE_TRIES: u32 = 50;
const SETTLE_PAUSE: Duration = Duration::from_millis(2);
/// How often a reader starts over when the store changed under it.
const READ_TRIES: u32 = 5;

pub(super) fn open(options: ImageStoreOptions, chains: Option<Arc<dyn LayerChains>>) -> Result<ImageStore> {
    let ImageStoreOptions { dir, ownership, durability, default_host, layers, list_incomplete } = options;
    let doing = || format!("open image store {}", dir.display());
    let root = match ownership {
        Ownership::ReadOnly => Dir::open(&dir),
        Ownership::Owner | Ownership::Shared => Dir::create_all(&dir, DIR_MODE),
    }
    .during(doing)?;
    let state = StateDir::open(&root, STATE, ownership, durability).during(doing)?;
    let mut control = Control::default();
    let generation = OnceCell::new();
    if ownership == Ownership::Owner {
        let (own, number) = Generation::own(root.open_dir(STATE).during(doing)?).during(doing)?;
        control.generation = number;
        generation.get_or_init(|| own);
    }
    let store = ImageStore {
        root,
        state,
        durability,
        default_host: default_host
            .map(|host| host.trim_end_matches('/').to_owned())
            .filter(|host| !host.is_empty()),
        layers,
        list_incomplete,
        chains,
        last_look: Mutex::default(),
        generation,
        seen: AtomicU64::new(0),
        control: Mutex::new(control),
        index: RwLock::default(),
        hidden: RwLock::default(),
        problems: RwLock::default(),
        #[cfg(test)]
        looked_at: AtomicU64::new(0),
    };
    load(&store).during(doing)?;
    if ownership == Ownership::Owner {
        store.state.sweep_trash();
    }
    Ok(store)
}

/// Reads the directory again and puts right what can be put right, if nobody else is at it.
pub(super) fn load(store: &ImageStore) -> Result<()> {
    let mut control = store.control.lock();
    let lock = match store.ownership() {
        Ownership::ReadOnly => None,
        // What looks doubtful may be another host at work.
        _ if store.chains.is_some() => None,
        Ownership::Owner | Ownership::Shared => match store.state.lock_for_change(Duration::ZERO) {
            Ok(lock) => Some(lock),
            // Whoever holds it has put things right, or will.
            Err(error) if error.kind() == ErrorKind::InUse => None,
            Err(error) => return Err(error),
        },
    };
    if lock.is_none() {
        return reload(store, &mut control);
    }
    if store.ownership() == Ownership::Shared {
        control.generation = store.generation_number()?;
    }
    announce(store, &mut control, true)?;
    let loaded = directory::load(store, true);
    announce(store, &mut control, false)?;
    install(store, &mut control, loaded?);
    Ok(())
}

/// Reads the directory again, whatever the counter says; puts nothing right.
pub(super) fn reload_all(store: &ImageStore) -> Result<()> {
    reload(store, &mut store.control.lock())
}

/// Makes sure that the index shows what others did before now.
pub(super) fn refresh(store: &ImageStore) -> Result<()> {
    if store.ownership() == Ownership::Owner || store.is_current(store.generation_number()?) {
        return Ok(());
    }
    let mut control = store.control.lock();
    if store.is_current(store.generation_number()?) {
        return Ok(());
    }
    reload(store, &mut control)
}

/// The same for somebody who holds the store's lock: nobody is changing anything now, whatever the number says.
pub(super) fn refresh_under_lock(store: &ImageStore, control: &mut Control) -> Result<()> {
    if store.ownership() == Ownership::Owner {
        return Ok(());
    }
    let number = store.generation_number()?;
    control.generation = number;
    if store.is_current(number) && !is_changing(number) {
        return Ok(());
    }
    let loaded = directory::load(store, false)?;
    install(store, control, loaded);
    store.seen.store(number, Ordering::Release);
    Ok(())
}

/// Reads the directory as it was at one moment, without the lock.
fn reload(store: &ImageStore, control: &mut Control) -> Result<()> {
    for attempt in 1.. {
        let before = settled(store)?;
        let loaded = directory::load(store, false)?;
        let after = store.generation_number()?;
        if before == after || attempt >= READ_TRIES {
            install(store, control, loaded);
            store.seen.store(before, Ordering::Release);
            return Ok(());
        }
    }
    Ok(())
}

/// The number of the generation once no change is going on, or when waiting for that was in vain.
fn settled(store: &ImageStore) -> Result<u64> {
    let mut number = store.generation_number()?;
    for _ in 0..SETTLE_TRIES {
        if !is_changing(number) {
            break;
        }
        std::thread::sleep(SETTLE_PAUSE);
        number = store.generation_number()?;
    }
    Ok(number)
}

fn install(store: &ImageStore, control: &mut Control, loaded: directory::Loaded) {
    let directory::Loaded { mut index, problems } = loaded;
    {
        let mut held = store.index.write();
        index.follow(&held);
        *held = index;
    }
    *store.problems.write() = problems;
    control.latched = None;
}

impl ImageStore {
    /// The counter of changes; none in a read-only store that nobody of us has ever written.
    pub(super) fn generation(&self) -> Option<&Generation> {
        let open = || self.root.open_dir(STATE).map(Generation::share);
        match self.generation.get_or_try_init(open) {
            Ok(generation) => Some(generation),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("{}", Error::context(error, "look for changes of others").report());
                None
            }
        }
    }

    fn generation_number(&self) -> Result<u64> {
        self.generation().map_or(Ok(0), Generation::read)
    }

    fn is_current(&self, number: u64) -> bool {
        self.seen.load(Ordering::Acquire) == number
    }

    /// Makes the names of images durable.
    pub(super) fn sync_root(&self) -> Result<()> {
        match self.durability {
            Durability::Full => self.root.sync(),
            Durability::None => Ok(()),
        }
    }
}
