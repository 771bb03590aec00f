// SPDX-License-Identifier: MulanPSL-2.0
//! Names for the instants between two changes of the disk, so that tests can end the world there.

use crate::error::Result;

/// Called before each change. Outside tests it does nothing.
#[cfg(not(test))]
#[inline]
pub(crate) fn step(_name: &'static str) -> Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use hook::step;
#[cfg(test)]
pub(crate) use hook::with_hook;

#[cfg(test)]
mod hook {
    use super::Result;
    use std::cell::RefCell;

    type Hook = Box<dyn FnMut(&'static str) -> Result<()>>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    pub(crate) fn step(name: &'static str) -> Result<()> {
        // Taken out while it runs, for it may use this module itself.
        let Some(mut hook) = HOOK.take() else { return Ok(()) };
        let result = hook(name);
        HOOK.set(Some(hook));
        result
    }

    /// Runs `action` with `hook` called at each step of this thread.
    pub(crate) fn with_hook<T>(
        hook: impl FnMut(&'static str) -> Result<()> + 'static,
        action: impl FnOnce() -> T,
    ) -> T {
        struct Unset;
        impl Drop for Unset {
            fn drop(&mut self) {
                HOOK.set(None);
            }
        }
        HOOK.set(Some(Box::new(hook)));
        let _unset = Unset;
        action()
    }
}
