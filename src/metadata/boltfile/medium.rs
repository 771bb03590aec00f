// SPDX-License-Identifier: MulanPSL-2.0
//! What a database lies in: a locked file, or memory that records what would reach a disk and when.

use std::fmt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bytes::{to_u64, to_usize};
use crate::error::{During, Result};
use crate::sys::flock::LockedFile;

/// A file as the database sees it.
pub(super) trait Medium: fmt::Debug + Send + Sync {
    fn length(&self) -> Result<u64>;
    /// Fewer bytes than asked for only at the end.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize>;
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()>;
    fn set_length(&self, length: u64) -> Result<()>;
    /// Makes everything before it durable.
    fn sync(&self) -> Result<()>;
}

impl Medium for LockedFile {
    fn length(&self) -> Result<u64> {
        Ok(self.file().metadata().during(|| "look at it")?.len())
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file().read_at(rest, at.saturating_add(to_u64(done))) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).during(|| "read it"),
            }
        }
        Ok(done)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file().write_all_at(bytes, at).during(|| "write it")
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.file().set_len(length).during(|| "make it longer")
    }

    fn sync(&self) -> Result<()> {
        self.file().sync_data().during(|| "sync it")
    }
}

/// One change of a [`Recording`].
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Sync,
}

/// A file in memory. Clones are the same file.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub content: Vec<u8>,
    /// `None`: nobody wants to know.
    pub changes: Option<Vec<Change>>,
}

impl Recording {
    pub(super) fn of(content: Vec<u8>) -> Recording {
        Recording(Arc::new(Mutex::new(Recorded { content, changes: None })))
    }

    #[cfg(test)]
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut Recorded) -> T) -> T {
        action(&mut self.0.lock())
    }

    fn record(&self, change: impl FnOnce() -> Change, action: impl FnOnce(&mut Vec<u8>)) {
        let mut recorded = self.0.lock();
        action(&mut recorded.content);
        if let Some(changes) = &mut recorded.changes {
            changes.push(change());
        }
    }
}

impl Change {
    /// Does it to `content`.
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let at = to_usize(*at);
                let end = at.saturating_add(bytes.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                if let Some(place) = content.get_mut(at..end) {
                    place.copy_from_slice(bytes);
                }
            }
            Change::SetLength(length) => content.resize(to_usize(*length), 0),
            Change::Sync => {}
        }
    }
}

impl Medium for Recording {
    fn length(&self) -> Result<u64> {
        Ok(to_u64(self.0.lock().content.len()))
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize> {
        let recorded = self.0.lock();
        let rest = recorded.content.get(to_usize(at)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let Some((to, from)) = buffer.get_mut(..count).zip(rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let change = Change::Write(at, bytes.to_vec());
        self.record(|| change.clone(), |content| change.apply(content));
        Ok(())
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.record(|| Change::SetLength(length), |content| content.resize(to_usize(length), 0));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.record(|| Change::Sync, |_| {});
        Ok(())
    }
}
