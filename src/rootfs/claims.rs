// SPDX-License-Identifier: MulanPSL-2.0
//! Who is changing what. A claim is had as a whole or waited for, so claims cannot lock each other out.

use std::collections::HashMap;
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::record::rootfs::RootfsRecord;

/// Something that belongs to one container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(String),
    Layer(String),
    Name(String),
}

/// What is claimed, and by whom.
#[derive(Debug, Default)]
pub(super) struct Claims {
    busy: Mutex<HashMap<Key, ThreadId>>,
    released: Condvar,
}

/// The sole right to change something; ends when dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    keys: Vec<Key>,
}

impl Claims {
    /// Waits until nobody else has any of these. The calling thread itself has one: `InUse`.
    pub(super) fn take(&self, keys: Vec<Key>) -> Result<Claim<'_>> {
        let me = thread::current().id();
        let mut busy = self.busy.lock();
        while let Some((key, holder)) = keys.iter().find_map(|key| busy.get_key_value(key)) {
            if *holder == me {
                let message = format!("{key:?} is being changed further up in the same thread");
                return Err(Error::new(ErrorKind::InUse, message));
            }
            self.released.wait(&mut busy);
        }
        busy.extend(keys.iter().map(|key| (key.clone(), me)));
        Ok(Claim { claims: self, keys })
    }

    /// All that belongs to a record.
    pub(super) fn take_all(&self, record: &RootfsRecord) -> Result<Claim<'_>> {
        let id = record.id.iter().cloned().map(Key::Id);
        let layer = record.layer.iter().cloned().map(Key::Layer);
        let names = record.names.iter().cloned().map(Key::Name);
        self.take(id.chain(layer).chain(names).collect())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut busy = self.claims.busy.lock();
        for key in &self.keys {
            busy.remove(key);
        }
        drop(busy);
        self.claims.released.notify_all();
    }
}
